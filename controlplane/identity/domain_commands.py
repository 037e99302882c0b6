"""The commands on domains; deleteDomain is in ``removal``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, joinedload

from controlplane.api import dispatch
from controlplane.api.caller import ADMINS, DOMAIN_ADMINS, EVERYONE
from controlplane.api.command import Command, many, one
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, optional, required
from controlplane.db.base import now
from controlplane.errors import BadParameter, Forbidden
from controlplane.identity import names
from controlplane.identity.domains import Domain
from controlplane.identity.limits import KINDS, UNLIMITED, Holder, holders_above, limits_of, locked_counts
from controlplane.identity.quotas import QuotaResponse, quota_fields

PATH_LENGTH = 1024
NO_ICONS = "accepted: there are no icons to show"
dispatch.JOB_TABLES["Domain"] = Domain


@dataclass(kw_only=True)
class DomainResponse(QuotaResponse):
    """A domain, with what its whole tree has and may have."""

    id: str
    name: str
    level: int
    path: str
    haschild: bool
    state: str
    created: datetime
    parentdomainid: str | None = None
    parentdomainname: str | None = None
    networkdomain: str | None = None


def domain_views(ctx: Context, rows: Sequence[Domain]) -> list[DomainResponse]:
    """Show domains."""
    numbers = [row.id for row in rows]
    parents = select(Domain.parent_id).where(Domain.parent_id.in_(numbers), Domain.removed.is_(None)).distinct()
    with_children = set(ctx.session.scalars(parents))
    quotas = quota_fields(ctx.session, rows)
    return [
        DomainResponse(
            id=row.uuid,
            name=row.name,
            level=row.level,
            path=row.name_path,
            haschild=row.id in with_children,
            state=row.state,
            created=row.created,
            parentdomainid=row.parent.uuid if row.parent else None,
            parentdomainname=row.parent.name if row.parent else None,
            networkdomain=row.network_domain,
            **quotas[row.id],
        )
        for row in rows
    ]


class CreateDomain(
    Command, name="createDomain", answer=one("domain", domain_views), roles=DOMAIN_ADMINS, event="DOMAIN.CREATE"
):
    """Create a domain below another one."""

    name: str = required(check=names.path_part)
    parentdomainid: Domain | None = optional(description="the domain that it is below; by default the caller's")
    networkdomain: str | None = optional(check=names.dns_domain, description="DNS domain of its guests")
    domainid: str | None = optional(check=names.new_id, description="the UUID that it gets; a random one by default")

    def run(self, ctx: Context) -> Domain:
        """Add the row; its path is known once it has a number."""
        parent = self.parentdomainid or ctx.session.get_one(Domain, ctx.caller.domain_id)
        refuse_inactive(parent)
        refuse_taken(ctx.session, parent, self.name)
        if self.domainid and ctx.session.scalar(select(Domain.id).where(Domain.uuid == self.domainid)):
            raise BadParameter(f"Invalid parameter domainid value={self.domainid}: another domain has this id.")
        row = Domain(
            name=self.name,
            parent_id=parent.id,
            level=parent.level + 1,
            name_path=path_below(parent, self.name),
            network_domain=self.networkdomain or None,
        )
        if self.domainid:
            row.uuid = self.domainid
        ctx.session.add(row)
        ctx.session.flush()
        row.path = f"{parent.path}{row.id}/"
        return row


class UpdateDomain(
    Command, name="updateDomain", answer=one("domain", domain_views), roles=DOMAIN_ADMINS, event="DOMAIN.UPDATE"
):
    """Rename a domain, or change the DNS domain of its guests."""

    id: Domain = required()
    name: str | None = optional(check=names.path_part)
    networkdomain: str | None = optional(check=names.dns_domain, description="empty takes it away")

    def run(self, ctx: Context) -> Domain:
        """Change the row, and the written paths of all below it."""
        row = self.id
        if self.name is not None and self.name != row.name:
            if row.parent is None:
                raise BadParameter("Invalid parameter name: the ROOT domain cannot be renamed.")
            refuse_taken(ctx.session, row.parent, self.name, row)
            row.name = self.name
            rewrite_paths(ctx.session, row, row.parent)
        if self.networkdomain is not None:
            row.network_domain = self.networkdomain or None
        return row


class MoveDomain(Command, name="moveDomain", answer=one("domain", domain_views), roles=ADMINS, event="DOMAIN.MOVE"):
    """Move a domain with all that is in it below another parent."""

    domainid: Domain = required()
    parentdomainid: Domain = required()

    def run(self, ctx: Context) -> Domain:
        """Rewrite the paths of the tree, and count what it has with its new ancestors instead of its old ones."""
        row, parent, session = self.domainid, self.parentdomainid, ctx.session
        if row.parent is None:
            raise BadParameter("Invalid parameter domainid: the ROOT domain cannot be moved.")
        if parent.path.startswith(row.path):
            raise BadParameter(
                f"Invalid parameter parentdomainid value={parent.uuid}: "
                f"{parent.name_path} is {row.name_path} itself or below it."
            )
        refuse_inactive(parent)
        refuse_taken(session, parent, row.name, row)
        _move_counts(session, row, parent)
        row.parent_id, row.parent = parent.id, parent
        rewrite_paths(session, row, parent)
        return row


def _move_counts(session: Session, row: Domain, parent: Domain) -> None:
    holder = Holder.of(row)
    before, after = holders_above(session, row), [*holders_above(session, parent), Holder.of(parent)]
    for kind in KINDS:
        counts = locked_counts(session, list(dict.fromkeys([*before, *after, holder])), kind)
        amount = counts[holder].count
        most = limits_of(session, after, kind)
        for ancestor in before:
            counts[ancestor].count = max(0, counts[ancestor].count - amount)
        for ancestor in after:
            counts[ancestor].count += amount
            if ancestor not in before and most[ancestor] != UNLIMITED and counts[ancestor].count > most[ancestor]:
                raise BadParameter(
                    f"Invalid parameter parentdomainid: with {row.name_path}, domain {ancestor.name} would have "
                    f"{counts[ancestor].count} of {kind}, and {most[ancestor]} are allowed."
                )


def path_below(parent: Domain, name: str) -> str:
    """Return the written path of a domain of this name below the parent.

    :raises BadParameter: it would be too long.
    """
    path = f"{parent.name_path}/{name}"
    if len(path) > PATH_LENGTH:
        raise BadParameter(
            f"Invalid parameter name value={name}: the path of the domain would be longer than {PATH_LENGTH}."
        )
    return path


def rewrite_paths(session: Session, row: Domain, parent: Domain) -> None:
    """Give a domain and all below it the paths that follow from its name and its parent."""
    tree = select(Domain).where(Domain.path.startswith(row.path, autoescape=True)).order_by(Domain.level)
    above = {parent.id: parent}
    for domain in session.scalars(tree).all():
        upper = above[parent.id if domain is row else domain.parent_id or 0]
        domain.path, domain.level = f"{upper.path}{domain.id}/", upper.level + 1
        domain.name_path = path_below(upper, domain.name)
        above[domain.id] = domain


def refuse_taken(session: Session, parent: Domain, name: str, row: Domain | None = None) -> None:
    """Refuse a name that another child of the parent has.

    :raises BadParameter: it has one.
    """
    taken = select(Domain.id).where(
        Domain.parent_id == parent.id,
        Domain.name == name,
        Domain.removed.is_(None),
        Domain.id != (row.id if row else 0),
    )
    if session.scalar(taken) is not None:
        raise BadParameter(
            f"Invalid parameter name value={name}: {parent.name_path} already has a domain of this name."
        )


def refuse_inactive(domain: Domain) -> None:
    """Refuse to put anything into a domain that is being deleted.

    :raises Forbidden: it is.
    """
    if domain.state != "Active":
        raise Forbidden(f"Domain {domain.name_path} is being deleted: nothing can be made in it.")


class _DomainListing(ListCommand):
    table = Domain
    keywords = (Domain.name,)
    order = (Domain.name_path, Domain.id)
    roles = EVERYONE

    name: str | None = matching(Domain.name)
    listall: bool | None = optional(False)
    showicon: bool | None = optional(description=NO_ICONS)

    def matching_rows(self, ctx: Context) -> Select[Any]:
        return super().matching_rows(ctx).options(joinedload(Domain.parent))


class ListDomains(_DomainListing, name="listDomains", answer=many("domain", domain_views), unsupported=("tag",)):
    """List domains: a root admin's own list is all of them, others say listall for those below theirs."""

    id: Domain | None = matching(Domain.id)
    level: int | None = matching(Domain.level)
    details: list[str] | None = optional(description="accepted: all groups of fields are shown")

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Leave out what is below the caller's domain unless all is asked for."""
        if self.id is None and not self.listall and not ctx.caller.is_admin:
            query = query.where(Domain.id == ctx.caller.domain_id)
        return query


class ListDomainChildren(_DomainListing, name="listDomainChildren", answer=many("domain", domain_views)):
    """List the domains below a domain."""

    id: Domain | None = optional(description="the domain whose children are listed; by default the caller's")
    isrecursive: bool | None = optional(False, description="the whole tree below it, not only its children")

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep the children, or the tree."""
        top = self.id or ctx.session.get_one(Domain, ctx.caller.domain_id)
        if self.isrecursive or self.listall:
            return query.where(Domain.path.startswith(top.path, autoescape=True), Domain.id != top.id)
        return query.where(Domain.parent_id == top.id)


def mark_removed(row: Domain) -> None:
    """Mark a domain as removed: its name is free again."""
    row.removed, row.removed_key, row.state = now(), row.id, "Inactive"
