"""Ownership: whose rows a list shows, and who will own what a command makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.context import Context, owned_by, visible
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import Records, Uuid, optional
from controlplane.errors import BadParameter, Forbidden
from controlplane.identity.accounts import PROJECT, Account
from controlplane.identity.domains import Domain
from controlplane.identity.tags import tagged
from controlplane.reconcile.targets import Target

NO_PROJECT = "no project with this id exists, or it is not yours to use"


class OwnedListing(ListCommand):
    """A list of rows that belong to accounts: whose rows are shown follows CloudStack's listing rules.

    :cvar taggable: the resource type that tags name these rows by; empty where they cannot be tagged.
    """

    roles = EVERYONE
    taggable: ClassVar[str] = ""

    account: str | None = optional()
    domainid: Domain | None = optional(description="list only what belongs to this domain")
    isrecursive: bool | None = optional(False, description="with domainid: the domain's whole tree")
    listall: bool | None = optional(False, description="list all that the caller may see, not only the own")
    projectid: Uuid | None = optional(description="list what belongs to this project; -1 for all projects")
    tags: Records | None = optional()

    def matching_rows(self, ctx: Context) -> Select[Any]:
        """Return the query for the rows of the owner that the caller asks about."""
        query = super().matching_rows(ctx)
        condition = self.owners(ctx)
        if condition is not None:
            query = query.where(condition)
        if self.tags and self.taggable:
            query = query.where(tagged(self.table, self.taggable, self.tags))
        return query

    def owners(self, ctx: Context) -> Any:
        """Return the condition on the owner; None is everything that the caller may see."""
        table: Any = self.table
        if self.projectid is not None:
            return self._of_projects(ctx)
        if self.account is not None:
            return table.account_id == account_named(ctx, self.account, self.domainid).id
        if self.domainid is not None:
            if not self.isrecursive:
                return table.domain_id == self.domainid.id
            tree = select(Domain.id).where(Domain.path.startswith(self.domainid.path, autoescape=True))
            return table.domain_id.in_(tree)
        if self.listall or getattr(self, "id", None) is not None or getattr(self, "ids", None):
            return None
        return table.account_id == ctx.caller.account_id

    def _of_projects(self, ctx: Context) -> Any:
        table: Any = self.table
        if self.account is not None:
            raise BadParameter("Invalid parameter account: it cannot go together with projectid.")
        if self.projectid != "-1":
            raise BadParameter(f"Invalid parameter projectid value={self.projectid}: {NO_PROJECT}.")
        if self.listall:
            return visible(table, ctx.caller)
        return table.account_id.in_((ctx.caller.account_id, *ctx.caller.projects))


def account_named(ctx: Context, name: str, domain: Domain | None) -> Account:
    """Return the account of this name in the domain, the caller's own by default.

    :raises BadParameter: there is none that the caller may see.
    """
    query = select(Account).where(
        func.lower(Account.name) == name.lower(),
        Account.domain_id == (domain.id if domain else ctx.caller.domain_id),
        Account.type != PROJECT,
        Account.removed.is_(None),
        Account.visible_to(ctx.caller),
    )
    account = ctx.session.scalar(query)
    if account is None:
        raise BadParameter(f"Invalid parameter account value={name}: the domain has no such account.")
    return account


def owner_of_new(
    ctx: Context, account: str | None = None, domain: Domain | None = None, projectid: str | None = None
) -> Account:
    """Return the account that will own what the command makes: the named one, or the caller's.

    :raises BadParameter: there is no such account or project.
    :raises Forbidden: the account is not enabled.
    """
    if projectid is not None:
        raise BadParameter(f"Invalid parameter projectid value={projectid}: {NO_PROJECT}.")
    if account is None and domain is not None:
        raise BadParameter("Invalid parameter domainid: it goes together with account.")
    owner = account_named(ctx, account, domain) if account else ctx.session.get_one(Account, ctx.caller.account_id)
    if owner.state != "enabled":
        raise Forbidden(f"Account {owner.name} is {owner.state}: nothing can be made for it.")
    return owner


def owner_fields(ctx: Context, rows: Sequence[Any]) -> dict[int, dict[str, Any]]:
    """Return, by account number, the response fields that say whose each of these rows is.

    ``account``, ``domain``, ``domainid`` and ``domainpath``: ready to be passed on as ``**fields[row.account_id]``.
    """
    numbers = {row.account_id for row in rows}
    query = select(Account.id, Account.name, Domain.name, Domain.uuid, Domain.name_path)
    found = ctx.session.execute(query.join(Domain, Account.domain_id == Domain.id).where(Account.id.in_(numbers)))
    return {
        number: {"account": name, "domain": domain, "domainid": uuid, "domainpath": path}
        for number, name, domain, uuid, path in found
    }


STAGES = MACHINES, RULES, NETWORKS, ADDRESSES, DISKS, IMAGES, REST = (
    "machines",
    "rules",
    "networks",
    "addresses",
    "disks",
    "images",
    "rest",
)
"""The stages in which what a removed account owns is taken away, in their order."""

Remover = Callable[[Session, Account], Sequence[Target]]
"""Takes away (or stops) what an account has; returns the targets that it touched. It may be called again."""
Objection = Callable[[Session, Account], Sequence[str]]
"""Returns the reasons why an account cannot be removed now, as ends of a sentence; none is fine."""
REMOVERS: dict[str, list[Remover]] = {stage: [] for stage in STAGES}
STOPPERS: list[Remover] = []
MAKERS: list[Callable[[Session, Account], object]] = []
OBJECTIONS: list[Objection] = []
DomainObjection = Callable[[Session, Domain], Sequence[str]]
"""Returns the reasons why a domain cannot be removed now, other than its accounts'; none is fine."""
DOMAIN_OBJECTIONS: list[DomainObjection] = []


def on_account_made(maker: Callable[[Session, Account], object]) -> None:
    """Have a room make what every account has from its beginning."""
    MAKERS.append(maker)


def equip(session: Session, account: Account) -> None:
    """Have every room make what the new account has from its beginning."""
    for maker in MAKERS:
        maker(session, account)


def on_account_removed(remover: Remover, stage: str = REST) -> None:
    """Have a room take away what a removed account owns of it; the next stage waits until its targets have done so."""
    REMOVERS[stage].append(remover)


def on_account_disabled(stopper: Remover) -> None:
    """Have a room stop what a disabled account runs."""
    STOPPERS.append(stopper)


def objects_to_removal(objection: Objection) -> None:
    """Have a room say why an account cannot be removed now."""
    OBJECTIONS.append(objection)


def objects_to_domain_removal(objection: DomainObjection) -> None:
    """Have a room say why a domain cannot be removed now."""
    DOMAIN_OBJECTIONS.append(objection)


def stop_all(session: Session, account: Account) -> list[Target]:
    """Have every room stop what the account runs."""
    return [target for stopper in STOPPERS for target in stopper(session, account)]


def objections(session: Session, account: Account) -> list[str]:
    """Return why the account cannot go now, in every room's words."""
    return [reason for objection in OBJECTIONS for reason in objection(session, account)]


def require_owned(ctx: Context, row: Any, parameter: str) -> None:
    """Refuse to change a row that the caller may see but that is not in its realm; what no account owns is an admin's.

    :raises Forbidden: it is somebody else's.
    """
    table = type(row)
    owned = select(table.id).where(table.id == row.id, owned_by(table, ctx.caller))
    mine = ctx.caller.is_admin if not hasattr(table, "account_id") else ctx.session.scalar(owned) is not None
    if not mine:
        raise Forbidden(f"Invalid parameter {parameter} value={row.uuid}: it belongs to somebody else.")
