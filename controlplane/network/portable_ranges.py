"""Portable ranges: the region's addresses, which accounts take from one network to another, in whatever zone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address
from typing import Any

from sqlalchemy import ForeignKey, String, select
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching
from controlplane.api.responses import Response
from controlplane.db.base import Created, Row
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.zone.zones import Zone


class PortableRange(Created, Row):
    """A range of portable addresses (createPortableIpRange): they are of one subnet on one VLAN, in every zone.

    :ivar vlan: ``untagged``, or the VLAN's number, as the operator has it in all zones.
    """

    __tablename__ = "portable_ranges"

    region_id: Mapped[int] = mapped_column(ForeignKey("regions.id"), index=True)
    vlan: Mapped[str] = mapped_column(String(40), default="untagged")
    gateway: Mapped[str] = mapped_column(String(40))
    netmask: Mapped[str] = mapped_column(String(40))
    start_ip: Mapped[str] = mapped_column(String(40))
    end_ip: Mapped[str] = mapped_column(String(40))

    @property
    def numbers(self) -> range:
        """Its addresses as numbers."""
        return range(int(IPv4Address(self.start_ip)), int(IPv4Address(self.end_ip)) + 1)


@dataclass(kw_only=True)
class PortableAddressResponse(Response):
    """A portable address, and where it is at present."""

    regionid: int
    ipaddress: str
    state: str
    allocated: datetime | None = None
    accountid: str | None = None
    domainid: str | None = None
    zoneid: str | None = None
    networkid: str | None = None
    vpcid: str | None = None
    physicalnetworkid: str | None = None


@dataclass(kw_only=True)
class PortableRangeResponse(Response):
    """A range of portable addresses."""

    id: str
    regionid: int
    vlan: str
    gateway: str
    netmask: str
    startip: str
    endip: str
    portableipaddress: list[PortableAddressResponse]


def portable_range_views(ctx: Context, rows: Sequence[PortableRange]) -> list[PortableRangeResponse]:
    """Show portable ranges, each with all its addresses."""
    used = _in_use(ctx, rows)
    return [
        PortableRangeResponse(
            id=row.uuid,
            regionid=row.region_id,
            vlan=f"vlan://{row.vlan}",
            gateway=row.gateway,
            netmask=row.netmask,
            startip=row.start_ip,
            endip=row.end_ip,
            portableipaddress=[
                used.get((row.id, number))
                or PortableAddressResponse(regionid=row.region_id, ipaddress=str(IPv4Address(number)), state="Free")
                for number in row.numbers
            ],
        )
        for row in rows
    ]


def _in_use(ctx: Context, rows: Sequence[PortableRange]) -> dict[tuple[int, int], PortableAddressResponse]:
    """Return the addresses that are not free, by the numbers of range and address."""
    from controlplane.network.networks import Network
    from controlplane.network.public_ips import FREE, PublicIp, VlanRange
    from controlplane.network.vpcs import Vpc
    from controlplane.zone.physical_networks import PhysicalNetwork

    regions = {row.id: row.region_id for row in rows}
    query = select(PublicIp, VlanRange.physical_network_id).join(VlanRange, PublicIp.range_id == VlanRange.id)
    found: Any = ctx.session.execute(query.where(PublicIp.portable_range_id.in_(regions), PublicIp.state != FREE)).all()
    ips = [ip for ip, _ in found]
    accounts, domains = (
        _names(ctx, Account, (ip.account_id for ip in ips)),
        _names(ctx, Domain, (ip.domain_id for ip in ips)),
    )
    networks, vpcs = _names(ctx, Network, (ip.network_id for ip in ips)), _names(ctx, Vpc, (ip.vpc_id for ip in ips))
    zones, physical = (
        _names(ctx, Zone, (ip.zone_id for ip in ips)),
        _names(ctx, PhysicalNetwork, (number for _, number in found)),
    )
    return {
        (ip.portable_range_id, ip.number): PortableAddressResponse(
            regionid=regions[ip.portable_range_id],
            ipaddress=ip.address,
            state=ip.state,
            allocated=ip.allocated,
            accountid=accounts.get(ip.account_id),
            domainid=domains.get(ip.domain_id),
            zoneid=zones.get(ip.zone_id),
            networkid=networks.get(ip.network_id),
            vpcid=vpcs.get(ip.vpc_id),
            physicalnetworkid=physical.get(number),
        )
        for ip, number in found
    }


def _names(ctx: Context, table: type[Row], numbers: Iterable[int | None]) -> dict[int | None, str]:
    """Return the UUIDs of a table's rows by their numbers."""
    wanted = {number for number in numbers if number is not None}
    query = select(table.id, table.uuid).where(table.id.in_(wanted))
    return {number: uuid for number, uuid in ctx.session.execute(query)}


class ListPortableIpRanges(ListCommand, name="listPortableIpRanges",
                           answer=many("portableiprange", portable_range_views),
                           envelope="listportableipresponse"):  # fmt: skip
    """List portable ranges."""

    table = PortableRange
    keywords = (PortableRange.start_ip, PortableRange.gateway, PortableRange.vlan)
    order = (PortableRange.id,)

    id: PortableRange | None = matching(PortableRange.id)
    regionid: int | None = matching(PortableRange.region_id)
