"""The operators' side of quarantine: which addresses are in it, until when, and ending it early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select

from controlplane.api.caller import DOMAIN_ADMINS
from controlplane.api.command import Command, many, one
from controlplane.api.context import Context, visible
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter
from controlplane.identity.accounts import Account
from controlplane.network.public_ips import PublicIp
from controlplane.network.quarantine import IpQuarantine
from controlplane.network.rules import rows_by_id
from controlplane.zone import syntax


@dataclass(kw_only=True)
class QuarantineResponse(Response):
    """A public address in quarantine."""

    id: str
    ipaddress: str
    previousownerid: str
    previousownername: str
    created: datetime
    enddate: datetime
    removed: datetime | None = None
    removalreason: str | None = None
    removeraccountid: str | None = None


def quarantine_views(ctx: Context, rows: Sequence[IpQuarantine]) -> list[QuarantineResponse]:
    """Show quarantines."""
    addresses = rows_by_id(ctx.session, (PublicIp.id, PublicIp.address), (row.public_ip_id for row in rows))
    numbers = [number for row in rows for number in (row.owner_id, row.remover_id)]
    accounts = rows_by_id(ctx.session, (Account.id, Account.uuid, Account.name), numbers)
    return [
        QuarantineResponse(
            id=row.uuid,
            ipaddress=addresses[row.public_ip_id].address,
            previousownerid=accounts[row.owner_id].uuid,
            previousownername=accounts[row.owner_id].name,
            created=row.created,
            enddate=row.ends,
            removed=row.removed,
            removalreason=row.removal_reason,
            removeraccountid=accounts[row.remover_id].uuid if row.remover_id else None,
        )
        for row in rows
    ]


class ListQuarantinedIps(ListCommand, name="listQuarantinedIps", answer=many("quarantinedip", quarantine_views),
                         roles=DOMAIN_ADMINS):  # fmt: skip
    """List the addresses in quarantine that accounts of the caller's domains gave back."""

    table = IpQuarantine
    order = (IpQuarantine.id,)

    showremoved: bool | None = optional(False, description="also what was ended before its time")
    showinactive: bool | None = optional(False, description="also what is over")

    def matching_rows(self, ctx: Context) -> Select[Any]:
        """Return the query for those in force, and those asked for beside."""
        query = select(IpQuarantine).where(visible(IpQuarantine, ctx.caller))
        if not self.showremoved:
            query = query.where(IpQuarantine.removed.is_(None))
        if not self.showinactive:
            query = query.where((IpQuarantine.ends > ctx.now) | IpQuarantine.removed.is_not(None))
        if self.keyword:
            query = query.join(PublicIp, IpQuarantine.public_ip_id == PublicIp.id)
            query = query.where(PublicIp.address.contains(self.keyword, autoescape=True))
        return query


def _running(ctx: Context, named: IpQuarantine | None, address: str | None) -> IpQuarantine:
    """Return the quarantine in force that a command means.

    :raises BadParameter: neither is given, or the address is not in quarantine.
    """
    if named is None and address is None:
        raise BadParameter("Invalid parameter id: give the id of the quarantine, or the ipaddress that is in it.")
    query = select(IpQuarantine).join(PublicIp, IpQuarantine.public_ip_id == PublicIp.id)
    query = query.where(visible(IpQuarantine, ctx.caller), IpQuarantine.removed.is_(None), IpQuarantine.ends > ctx.now)
    if named is not None:
        query = query.where(IpQuarantine.id == named.id)
    if address is not None:
        query = query.where(PublicIp.address == address)
    found = ctx.session.scalars(query.limit(2)).all()
    if len(found) == 1:
        return found[0]
    what = f"id value={named.uuid}" if named is not None else f"ipaddress value={address}"
    reason = "several zones have it in quarantine; give the id" if found else "it is in no quarantine that is in force"
    raise BadParameter(f"Invalid parameter {what}: {reason}.")


class UpdateQuarantinedIp(Command, name="updateQuarantinedIp", answer=one("quarantinedip", quarantine_views),
                          roles=DOMAIN_ADMINS, event="NET.IPQUARANTINE.UPDATE", instance="IpQuarantine"):  # fmt: skip
    """Have the quarantine of an address end earlier or later."""

    id: IpQuarantine | None = optional()
    ipaddress: str | None = optional(check=syntax.ipv4)
    enddate: datetime = required()

    def run(self, ctx: Context) -> IpQuarantine:
        """Check that the end is yet to come, and change it."""
        row = _running(ctx, self.id, self.ipaddress)
        if self.enddate <= ctx.now:
            raise BadParameter(
                f"Invalid parameter enddate value={self.enddate:%Y-%m-%dT%H:%M:%SZ}: it must be in the future; "
                "removeQuarantinedIp ends a quarantine at once."
            )
        row.ends = self.enddate
        return row


class RemoveQuarantinedIp(Command, name="removeQuarantinedIp", answer=one("quarantinedip", quarantine_views),
                          roles=DOMAIN_ADMINS, event="NET.IPQUARANTINE.REMOVE", instance="IpQuarantine"):  # fmt: skip
    """End the quarantine of an address at once: any account may have it."""

    id: IpQuarantine | None = optional()
    ipaddress: str | None = optional(check=syntax.ipv4)
    removalreason: str = required(check=syntax.name)

    def run(self, ctx: Context) -> IpQuarantine:
        """End it."""
        row = _running(ctx, self.id, self.ipaddress)
        row.removed, row.removal_reason, row.remover_id = ctx.now, self.removalreason, ctx.caller.account_id
        return row
