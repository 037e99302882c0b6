"""Guest prefixes: what a zone has of IPv6, and which network has which /64 of it.

What must stay true: a /64 is one row, unique by its prefix and number, so no two networks ever have the same; two
prefixes of a zone never overlap. A network keeps its /64 until its last router is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Network

from sqlalchemy import BigInteger, ForeignKey, String, UniqueConstraint, delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, required
from controlplane.api.responses import Response
from controlplane.db.base import Created, Row
from controlplane.errors import InUse, NoAddress, RuleConflict
from controlplane.network.networks import Network
from controlplane.zone import syntax
from controlplane.zone.zones import Zone

SUBNET = 64
"""Bits of a guest network's prefix: what a guest can make its own address of (RFC 4862)."""
_SHORTEST = 32


class Ipv6Prefix(Created, Row):
    """A prefix of a zone that guest networks get their own of (createGuestNetworkIpv6Prefix)."""

    __tablename__ = "guest_ipv6_prefixes"
    __table_args__ = (UniqueConstraint("zone_id", "prefix"),)

    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    prefix: Mapped[str] = mapped_column(String(50))
    zone: Mapped[Zone] = relationship()


class Ipv6Subnet(Row):
    """The /64 that a network has.

    :ivar number: which one of the prefix's it is, from 0.
    """

    __tablename__ = "guest_ipv6_subnets"
    __table_args__ = (UniqueConstraint("prefix_id", "number"),)

    prefix_id: Mapped[int] = mapped_column(ForeignKey("guest_ipv6_prefixes.id"))
    number: Mapped[int] = mapped_column(BigInteger)
    network_id: Mapped[int] = mapped_column(ForeignKey("networks.id"), unique=True)


dispatch.JOB_TABLES["DataCenterGuestIpv6Prefix"] = Ipv6Prefix


def total_of(prefix: str) -> int:
    """Return how many /64 a prefix holds."""
    return 1 << SUBNET - IPv6Network(prefix).prefixlen


@dataclass(kw_only=True)
class Ipv6PrefixResponse(Response):
    """A zone's prefix, and how many networks can have a /64 of it."""

    id: str
    prefix: str
    zoneid: str
    usedsubnets: int
    availablesubnets: int
    totalsubnets: int
    created: datetime


def prefix_views(ctx: Context, rows: Sequence[Ipv6Prefix]) -> list[Ipv6PrefixResponse]:
    """Return the responses of these prefixes."""
    counted = select(Ipv6Subnet.prefix_id, func.count()).where(Ipv6Subnet.prefix_id.in_([row.id for row in rows]))
    used = {number: count for number, count in ctx.session.execute(counted.group_by(Ipv6Subnet.prefix_id))}
    zones = select(Zone.id, Zone.uuid).where(Zone.id.in_({row.zone_id for row in rows}))
    uuids = {number: uuid for number, uuid in ctx.session.execute(zones)}
    return [
        Ipv6PrefixResponse(
            id=row.uuid,
            prefix=row.prefix,
            zoneid=uuids[row.zone_id],
            usedsubnets=used.get(row.id, 0),
            availablesubnets=total_of(row.prefix) - used.get(row.id, 0),
            totalsubnets=total_of(row.prefix),
            created=row.created,
        )
        for row in rows
    ]


def prefix_of(value: str) -> str:
    """Accept a prefix that holds whole /64.

    :raises ValueError: it is none, too long, or too short to be counted.
    """
    found = IPv6Network(syntax.cidr6(value))
    if not _SHORTEST <= found.prefixlen <= SUBNET:
        raise ValueError(f"guest networks get a /64 each: a prefix is /{_SHORTEST} to /{SUBNET} long")
    if found.is_multicast or found.is_link_local or found.is_loopback or found.is_unspecified:
        raise ValueError("guests cannot be reached by multicast, link-local or loopback addresses")
    return str(found)


class CreateGuestNetworkIpv6Prefix(Command, name="createGuestNetworkIpv6Prefix", job=True,
                                   answer=one("guestnetworkipv6prefix", prefix_views),
                                   instance="DataCenterGuestIpv6Prefix",
                                   event="NETWORK.GUEST.IPV6.PREFIX.CREATE"):  # fmt: skip
    """Give a zone a prefix that its guest networks get a /64 each of."""

    zoneid: Zone = required()
    prefix: str = required(check=prefix_of)

    def run(self, ctx: Context) -> Ipv6Prefix:
        """Refuse what overlaps, and write the row."""
        ctx.session.refresh(self.zoneid, with_for_update=True)  # two overlapping ones at once wait for each other
        refuse_overlap(ctx.session, self.zoneid, IPv6Network(self.prefix), "prefix")
        row = Ipv6Prefix(zone_id=self.zoneid.id, prefix=self.prefix)
        ctx.session.add(row)
        ctx.session.flush()
        return row


def refuse_overlap(session: Session, zone: Zone, block: IPv6Network, parameter: str) -> None:
    """Refuse a block that a guest prefix or a public range of the zone has part of.

    :raises RuleConflict: the sentence names the other.
    """
    from controlplane.network.public_ips import VlanRange

    for other in session.scalars(select(Ipv6Prefix).where(Ipv6Prefix.zone_id == zone.id)):
        if block.overlaps(IPv6Network(other.prefix)):
            raise RuleConflict(
                f"Invalid parameter {parameter} value={block}: it overlaps the guest prefix {other.prefix} "
                f"({other.uuid}) of zone {zone.name}."
            )
    ranges = select(VlanRange).where(VlanRange.zone_id == zone.id, VlanRange.cidr6.is_not(None))
    for taken in session.scalars(ranges):
        if parameter == "prefix" and block.overlaps(IPv6Network(taken.cidr6 or "")):
            raise RuleConflict(
                f"Invalid parameter {parameter} value={block}: it overlaps the public range {taken.cidr6} "
                f"({taken.uuid}) of zone {zone.name}."
            )


class DeleteGuestNetworkIpv6Prefix(Command, name="deleteGuestNetworkIpv6Prefix", answer=success(), job=True,
                                   instance="DataCenterGuestIpv6Prefix",
                                   event="NETWORK.GUEST.IPV6.PREFIX.DELETE"):  # fmt: skip
    """Delete a prefix that no network has a /64 of."""

    id: Ipv6Prefix = required()

    def run(self, ctx: Context) -> None:
        """Refuse while a network has part of it; the networks are named."""
        row, ctx.instance = self.id, self.id
        ctx.session.refresh(row, with_for_update=True)
        query = select(Network.name).join(Ipv6Subnet, Ipv6Subnet.network_id == Network.id)
        having = ctx.session.scalars(query.where(Ipv6Subnet.prefix_id == row.id).order_by(Network.id).limit(5)).all()
        if having:
            raise InUse(f"The prefix {row.prefix} cannot be deleted: networks have a /64 of it: {', '.join(having)}.")
        ctx.session.delete(row)


class ListGuestNetworkIpv6Prefixes(ListCommand, name="listGuestNetworkIpv6Prefixes", roles=EVERYONE,
                                   answer=many("guestnetworkipv6prefix", prefix_views)):  # fmt: skip
    """List the prefixes that zones give their guest networks a /64 of."""

    table = Ipv6Prefix
    keywords = (Ipv6Prefix.prefix,)

    id: Ipv6Prefix | None = matching(Ipv6Prefix.id)
    zoneid: Zone | None = matching(Ipv6Prefix.zone_id)


def take_subnet(session: Session, network: Network) -> IPv6Network:
    """Give a network the lowest free /64 of its zone.

    :raises NoAddress: all are taken, or the zone has no prefix.
    """
    prefixes = select(Ipv6Prefix).where(Ipv6Prefix.zone_id == network.zone_id).order_by(Ipv6Prefix.id)
    for row in session.scalars(prefixes.with_for_update()):
        number = _lowest(session, row)
        if number < total_of(row.prefix):
            session.add(Ipv6Subnet(prefix_id=row.id, number=number, network_id=network.id))
            session.flush()
            first = int(IPv6Network(row.prefix).network_address) + (number << 128 - SUBNET)
            return IPv6Network((first, SUBNET))
    raise NoAddress(
        f"Zone {network.zone.name} has no /64 left for network {network.name}: "
        "an operator adds a prefix with createGuestNetworkIpv6Prefix."
    )


def _lowest(session: Session, row: Ipv6Prefix) -> int:
    """Return the lowest number of the prefix that no network has: 0, or what follows one that has no successor."""
    mine = Ipv6Subnet.prefix_id == row.id
    if session.scalar(select(Ipv6Subnet.id).where(mine, Ipv6Subnet.number == 0)) is None:
        return 0
    after = select(Ipv6Subnet.number).where(mine).scalar_subquery()
    gap = select(func.min(Ipv6Subnet.number)).where(mine, (Ipv6Subnet.number + 1).not_in(after))
    return (session.scalar(gap) or 0) + 1


def free_subnet(session: Session, network: Network) -> None:
    """Give the network's /64 back; repeatable."""
    session.execute(delete(Ipv6Subnet).where(Ipv6Subnet.network_id == network.id))
