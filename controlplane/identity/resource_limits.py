"""The commands on limits and counts (updateResourceLimit, listResourceLimits, updateResourceCount)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from controlplane.api.caller import DOMAIN_ADMINS, EVERYONE, Role
from controlplane.api.command import Command, many, one
from controlplane.api.context import Context
from controlplane.api.listing import Paged
from controlplane.api.parameters import Long, optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter, Forbidden
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.limits import (
    KINDS,
    UNLIMITED,
    Holder,
    ResourceLimit,
    holders_above,
    recount,
    shown_limits,
)
from controlplane.identity.ownership import account_named
from controlplane.identity.privilege import require_account

_NAMES = {number: kind for kind, number in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of a kind an account or a domain may have, or has."""

    row: Account | Domain
    kind: str
    amount: int


@dataclass(kw_only=True)
class _Owner(Response):
    resourcetype: str
    resourcetypename: str
    domain: str
    domainid: str
    domainpath: str
    account: str | None = None


@dataclass(kw_only=True)
class ResourceLimitResponse(_Owner):
    """A limit; ``max`` is -1 for any amount, GiB of storage."""

    max: int


@dataclass(kw_only=True)
class ResourceCountResponse(_Owner):
    """A count; MiB of memory, bytes of storage."""

    resourcecount: int


def _owner(entry: Amount) -> dict[str, Any]:
    row = entry.row
    domain = row if isinstance(row, Domain) else row.domain
    return {
        "resourcetype": str(KINDS[entry.kind]),
        "resourcetypename": entry.kind,
        "domain": domain.name,
        "domainid": domain.uuid,
        "domainpath": domain.name_path,
        "account": row.name if isinstance(row, Account) else None,
    }


def limit_views(ctx: Context, rows: Sequence[Amount]) -> list[ResourceLimitResponse]:
    """Show limits."""
    del ctx
    return [ResourceLimitResponse(max=row.amount, **_owner(row)) for row in rows]


def count_views(ctx: Context, rows: Sequence[Amount]) -> list[ResourceCountResponse]:
    """Show counts."""
    del ctx
    return [ResourceCountResponse(resourcecount=row.amount, **_owner(row)) for row in rows]


def kind_of(number: int) -> int:
    """Check the number of a kind of resource.

    :raises ValueError: there is no such kind.
    """
    if number not in _NAMES:
        known = ", ".join(f"{known} {kind}" for known, kind in _NAMES.items())
        raise ValueError(f"it must be one of {known}")
    return number


def largest(value: int) -> int:
    """Check how much somebody may have.

    :raises ValueError: it is below -1.
    """
    if value < UNLIMITED:
        raise ValueError("it must be -1 for any amount, or a number from 0 on")
    return value


class UpdateResourceLimit(
    Command,
    name="updateResourceLimit",
    answer=one("resourcelimit", limit_views),
    roles=DOMAIN_ADMINS,
    event="RESOURCE.LIMIT.UPDATE",
    unsupported=("projectid", "tag"),
):
    """Say how much of a kind an account, or a domain with its whole tree, may have."""

    resourcetype: int = required(check=kind_of)
    max: Long | None = optional(UNLIMITED, check=largest, description="-1 is any amount; storage in GiB, memory in MiB")
    domainid: Domain | None = optional(description="the domain; with account, the account's domain")
    account: str | None = optional()

    def run(self, ctx: Context) -> Amount:
        """Set the row; what is there already stays, even above the new limit."""
        kind, most = _NAMES[self.resourcetype], UNLIMITED if self.max is None else int(self.max)
        row: Account | Domain
        if self.account is not None:
            row = account_named(ctx, self.account, self.domainid)
            require_account(ctx, row)
            if not ctx.caller.is_admin and row.id == ctx.caller.account_id:
                raise Forbidden("You cannot change your own limits: ask an admin of a domain above yours.")
        elif self.domainid is not None:
            row = self.domainid
            if not ctx.caller.is_admin and ctx.caller.domain_path.startswith(row.path):
                raise Forbidden("You cannot change the limits of your own domain: ask an admin of a domain above it.")
        else:
            raise BadParameter("Invalid parameter domainid: give domainid for a domain, and account for an account.")
        self._refuse_more_than_above(ctx, row, kind, most)
        holder = Holder.of(row)
        same = ResourceLimit.owner == holder.owner, ResourceLimit.owner_id == row.id, ResourceLimit.kind == kind
        found = ctx.session.scalar(select(ResourceLimit).where(*same))
        if found is None:
            found = ResourceLimit(owner=holder.owner, owner_id=row.id, kind=kind)
            ctx.session.add(found)
        ctx.note = f"{kind} of {holder.owner.lower()} {holder.name} from {found.max} to {most}"
        ctx.instance = row
        found.max = most
        return Amount(row, kind, most)

    def _refuse_more_than_above(self, ctx: Context, row: Account | Domain, kind: str, most: int) -> None:
        """Refuse a limit that a domain above could never honour."""
        above = holders_above(ctx.session, row)
        for holder, shown in shown_limits(ctx.session, above, kind).items():
            if shown != UNLIMITED and most > shown:
                raise BadParameter(
                    f"Invalid parameter max value={most}: domain {holder.name} above may have {shown} of {kind}."
                )


class ListResourceLimits(
    Paged,
    name="listResourceLimits",
    answer=many("resourcelimit", limit_views),
    roles=EVERYONE,
    unsupported=("projectid", "tag", "id"),
):
    """List how much the caller, an account or a domain may have; isrecursive adds the domains below."""

    writes = False
    domainid: Domain | None = optional()
    account: str | None = optional()
    resourcetype: int | None = optional(check=kind_of)
    resourcetypename: str | None = optional(choices=tuple(KINDS))
    isrecursive: bool | None = optional(False)
    listall: bool | None = optional(False, description="an admin's own domain and all below it")
    keyword: str | None = optional(description="part of the name of the kind")

    def run(self, ctx: Context) -> tuple[Sequence[Amount], int]:
        """Work the limits out."""
        kinds = [kind for kind in KINDS if self._is_wanted(kind)]
        rows = {Holder.of(row): row for row in self._holders(ctx)}
        limits = {kind: shown_limits(ctx.session, list(rows), kind) for kind in kinds}
        found = [Amount(row, kind, limits[kind][holder]) for holder, row in rows.items() for kind in kinds]
        return self.page_of(ctx.session, found)

    def _is_wanted(self, kind: str) -> bool:
        return (
            self.resourcetype in (None, KINDS[kind])
            and self.resourcetypename in (None, kind)
            and (self.keyword or "").lower() in kind
        )

    def _holders(self, ctx: Context) -> list[Account | Domain]:
        if self.account is not None:
            return [account_named(ctx, self.account, self.domainid)]
        admin = ctx.caller.role in (Role.ADMIN, Role.DOMAIN_ADMIN)
        if self.domainid is None and not (admin and self.listall):
            return [ctx.session.get_one(Account, ctx.caller.account_id)]
        top = self.domainid or ctx.session.get_one(Domain, ctx.caller.domain_id)
        if not (self.isrecursive or self.listall):
            return [top]
        tree = select(Domain).where(Domain.path.startswith(top.path, autoescape=True), Domain.removed.is_(None))
        return list(ctx.session.scalars(tree.where(Domain.visible_to(ctx.caller)).order_by(Domain.level, Domain.id)))


class UpdateResourceCount(
    Command,
    name="updateResourceCount",
    answer=many("resourcecount", count_views),
    roles=DOMAIN_ADMINS,
    event="RESOURCE.COUNT.UPDATE",
    unsupported=("projectid", "tag"),
):
    """Count again from the rows what an account, or a domain with its whole tree, has."""

    domainid: Domain = required()
    account: str | None = optional()
    resourcetype: int | None = optional(check=kind_of)

    def run(self, ctx: Context) -> list[Amount]:
        """Put the counts right."""
        row: Account | Domain = account_named(ctx, self.account, self.domainid) if self.account else self.domainid
        kinds = [_NAMES[self.resourcetype]] if self.resourcetype is not None else list(KINDS)
        ctx.instance = row
        return [Amount(row, kind, recount(ctx.session, row, kind)) for kind in kinds]
