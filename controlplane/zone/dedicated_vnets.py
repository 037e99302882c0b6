"""Dedicated guest VLANs: numbers of a physical network that only one account's networks may get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ForeignKey, Select, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Owned, Row
from controlplane.errors import BadParameter, InUse
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import account_named, owner_fields
from controlplane.zone import vnet_ranges
from controlplane.zone.physical_networks import PhysicalNetwork, Vnet
from controlplane.zone.zones import Zone


class DedicatedVnets(Owned, Row):
    """A range of VLANs or VNIs for one account's networks only (dedicateGuestVlanRange)."""

    __tablename__ = "dedicated_vnets"

    physical_network_id: Mapped[int] = mapped_column(ForeignKey("physical_networks.id"), index=True)
    first: Mapped[int]
    last: Mapped[int]
    physical_network: Mapped[PhysicalNetwork] = relationship(lazy="joined")


def ranges_for(session: Session, network: PhysicalNetwork, account_id: int) -> list[vnet_ranges.Ranges]:
    """Return where a new network of the account looks for its number: first its dedicated ranges, then the free ones.

    Numbers that are dedicated to another account are in neither.
    """
    query = select(DedicatedVnets).where(DedicatedVnets.physical_network_id == network.id)
    rows = list(session.scalars(query))
    own = vnet_ranges.joined([row.first, row.last] for row in rows if row.account_id == account_id)
    common = vnet_ranges.without(network.vnets, [[row.first, row.last] for row in rows])
    return [own, common]


dispatch.JOB_TABLES["GuestVlanRange"] = DedicatedVnets


@dataclass(kw_only=True)
class DedicatedResponse(Response):
    """A dedicated range."""

    id: str
    account: str
    domain: str
    domainid: str
    domainpath: str
    guestvlanrange: str
    physicalnetworkid: str
    zoneid: str


def dedicated_views(ctx: Context, rows: Sequence[DedicatedVnets]) -> list[DedicatedResponse]:
    """Return the responses of these ranges."""
    owners = owner_fields(ctx, rows)
    zones = select(Zone.id, Zone.uuid).where(Zone.id.in_({row.physical_network.zone_id for row in rows}))
    uuids = {number: uuid for number, uuid in ctx.session.execute(zones)}
    return [
        DedicatedResponse(
            id=row.uuid,
            guestvlanrange=f"{row.first}-{row.last}",
            physicalnetworkid=row.physical_network.uuid,
            zoneid=uuids[row.physical_network.zone_id],
            **owners[row.account_id],
        )
        for row in rows
    ]


class ListDedicatedGuestVlanRanges(
    ListCommand, name="listDedicatedGuestVlanRanges", answer=many("dedicatedguestvlanrange", dedicated_views)
):
    """List the ranges that are dedicated to accounts."""

    unsupported = ("projectid",)
    table = DedicatedVnets

    id: DedicatedVnets | None = matching(DedicatedVnets.id)
    physicalnetworkid: PhysicalNetwork | None = matching(DedicatedVnets.physical_network_id)
    zoneid: Zone | None = optional()
    account: str | None = optional()
    domainid: Domain | None = matching(DedicatedVnets.domain_id)
    guestvlanrange: str | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Look at zone, account and range."""
        if self.zoneid is not None:
            networks = select(PhysicalNetwork.id).where(PhysicalNetwork.zone_id == self.zoneid.id)
            query = query.where(DedicatedVnets.physical_network_id.in_(networks))
        if self.account is not None:
            query = query.where(DedicatedVnets.account_id == account_named(ctx, self.account, self.domainid).id)
        if self.guestvlanrange is not None:
            ((first, last),) = _one_range(self.guestvlanrange, "guestvlanrange")
            query = query.where(DedicatedVnets.first == first, DedicatedVnets.last == last)
        return query


def _one_range(text: str, parameter: str) -> vnet_ranges.Ranges:
    try:
        ranges = vnet_ranges.parse(text)
    except ValueError as error:
        raise BadParameter(f"Invalid parameter {parameter} value={text}: {error}.") from None
    if len(ranges) != 1:
        raise BadParameter(f"Invalid parameter {parameter} value={text}: give one range, such as 500-509.")
    return ranges


class DedicateGuestVlanRange(
    Command,
    name="dedicateGuestVlanRange",
    answer=one("dedicatedguestvlanrange", dedicated_views),
    instance="GuestVlanRange",
    event="GUESTVLANRANGE.DEDICATE",
):
    """Keep a range of a physical network's numbers for one account's networks."""

    unsupported = ("projectid",)

    physicalnetworkid: PhysicalNetwork = required()
    vlanrange: str = required()
    account: str | None = optional()
    domainid: Domain | None = optional()

    def run(self, ctx: Context) -> DedicatedVnets:
        """Check that the numbers are there, not dedicated yet, and not another account's networks'."""
        network = self.physicalnetworkid
        if self.account is None or self.domainid is None:
            raise BadParameter("Invalid parameter account: account and domainid say whose the range will be.")
        account = account_named(ctx, self.account, self.domainid)
        wanted = _one_range(self.vlanrange, "vlanrange")
        ((first, last),) = wanted
        if vnet_ranges.without(wanted, network.vnets):
            raise BadParameter(
                f"Invalid parameter vlanrange value={self.vlanrange}: physical network {network.name} has "
                f"{vnet_ranges.text_of(network.vnets) or 'no numbers'}."
            )
        for row in ctx.session.scalars(select(DedicatedVnets).where(DedicatedVnets.physical_network_id == network.id)):
            if row.first <= last and first <= row.last:
                raise BadParameter(
                    f"Invalid parameter vlanrange value={self.vlanrange}: {row.first}-{row.last} is dedicated already."
                )
        self._refuse_foreign(ctx, network, account)
        made = DedicatedVnets(
            physical_network=network, first=first, last=last, account_id=account.id, domain_id=account.domain_id
        )
        ctx.session.add(made)
        ctx.session.flush()
        return made

    def _refuse_foreign(self, ctx: Context, network: PhysicalNetwork, account: Account) -> None:
        from controlplane.network.networks import Network

        ((first, last),) = _one_range(self.vlanrange, "vlanrange")
        others = (
            select(Network.name, Vnet.number)
            .join(Vnet, Vnet.network_id == Network.id)
            .where(
                Vnet.physical_network_id == network.id,
                Vnet.number.between(first, last),
                Network.account_id != account.id,
            )
        )
        for name, number in ctx.session.execute(others.limit(1)):
            raise InUse(f"VLAN {number} cannot be dedicated: network {name} of another account uses it.")


class ReleaseDedicatedGuestVlanRange(
    Command,
    name="releaseDedicatedGuestVlanRange",
    answer=success(),
    job=True,
    instance="GuestVlanRange",
    event="GUESTVLANRANGE.RELEASE",
):
    """Give a dedicated range back to everyone; networks that use numbers of it keep them."""

    id: DedicatedVnets = required()

    def run(self, ctx: Context) -> None:
        """Delete the row."""
        ctx.instance = self.id
        ctx.session.delete(self.id)
