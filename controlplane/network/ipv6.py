"""IPv6 of guest networks: the /64 that a network has, and the public address that leads to it.

Nothing is translated. The operator's upstream router has, for each network, a route to its /64 by the public address
of its router (``ip6routes`` in listNetworks says which); both are the network's own from createNetwork on, and stay so
over restarts and replacements of its router.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, ForeignKey, String, UniqueConstraint, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.db.base import Row
from controlplane.errors import BadParameter, NoAddress
from controlplane.identity.accounts import Account
from controlplane.network import ipv6_prefixes
from controlplane.network.addressing import first_free6
from controlplane.network.networks import Network, Whole
from controlplane.network.public_ips import VlanRange, open_ranges
from controlplane.network.vpcs import Vpc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controlplane.network.routers import Router

LEAST_MTU = 1280
"""Bytes that every link with IPv6 carries (RFC 8200, 5)."""


class RouterAddress6(Row):
    """The public IPv6 address that a network's router has, or a VPC's: unique in its zone."""

    __tablename__ = "router_addresses6"
    __table_args__ = (UniqueConstraint("zone_id", "address"),)

    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"))
    range_id: Mapped[int] = mapped_column(ForeignKey("vlan_ranges.id"), index=True)
    address: Mapped[str] = mapped_column(String(50))
    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"), unique=True)
    vpc_id: Mapped[int | None] = mapped_column(ForeignKey("vpcs.id"), unique=True)
    range: Mapped[VlanRange] = relationship()


@dataclass(frozen=True, slots=True)
class Outside:
    """The router's end of the way to a network's /64.

    :param vlan: of the public range that ``address`` is of; ``range_id`` is the range.
    """

    address: str
    prefix: int
    gateway: str
    vlan: str
    range_id: int


def refuse_small_mtu(network: Network) -> None:
    """Refuse an MTU that IPv6 does not work with.

    :raises BadParameter: the network's is one, or that of its public side.
    """
    for name, value in (("privatemtu", network.mtu), ("publicmtu", network.public_mtu)):
        if value < LEAST_MTU:
            raise BadParameter(
                f"Invalid parameter {name} value={value}: {network.name} has IPv6, which needs {LEAST_MTU} at least."
            )


def give(session: Session, network: Network) -> None:
    """Give a new network a /64 of its zone and its router a public address.

    :raises NoAddress: the zone has none left of either.
    :raises BadParameter: the network's MTU is too small for IPv6.
    """
    refuse_small_mtu(network)
    block = ipv6_prefixes.take_subnet(session, network)
    network.cidr6, network.gateway6 = str(block), str(block.network_address + 1)
    whole = network.vpc or network
    if session.scalar(select(RouterAddress6.id).where(_mine(whole))) is None:
        _take_outside(session, whole)


def _mine(whole: Whole) -> ColumnElement[bool]:
    return RouterAddress6.vpc_id == whole.id if isinstance(whole, Vpc) else RouterAddress6.network_id == whole.id


def _take_outside(session: Session, whole: Whole) -> None:
    owner = session.get_one(Account, whole.account_id)
    query = select(VlanRange).where(VlanRange.cidr6.is_not(None)).order_by(VlanRange.id)
    for group in open_ranges(session, whole.zone, owner):
        for row in session.scalars(query.where(VlanRange.id.in_(group)).with_for_update()):
            taken = set(session.scalars(select(RouterAddress6.address).where(RouterAddress6.range_id == row.id)))
            address = first_free6(*ends_of(row), taken | {row.gateway6 or ""})
            if address is not None:
                found = RouterAddress6(address=address, zone_id=row.zone_id, range_id=row.id)
                found.vpc_id, found.network_id = (whole.id, None) if isinstance(whole, Vpc) else (None, whole.id)
                session.add(found)
                session.flush()
                return
    raise NoAddress(
        f"Zone {whole.zone.name} has no public IPv6 address left for the router of {whole.name}: "
        "an operator adds a range with createVlanIpRange (ip6gateway, ip6cidr)."
    )


def ends_of(row: VlanRange) -> tuple[IPv6Address, IPv6Address]:
    """Return the first and the last address of a range that routers may get: of the whole block where it names none."""
    block = IPv6Network(row.cidr6 or "")
    first = IPv6Address(row.start_ip6) if row.start_ip6 else block.network_address + 1
    return first, IPv6Address(row.end_ip6) if row.end_ip6 else block.broadcast_address


def give_back(session: Session, network: Network) -> None:
    """Free the network's /64 and its own router's address; repeatable. No router may answer for them any more."""
    give_back_outside(session, network)
    ipv6_prefixes.free_subnet(session, network)


def give_back_outside(session: Session, whole: Whole) -> None:
    """Free the router's public address; repeatable."""
    session.execute(delete(RouterAddress6).where(_mine(whole)))


def outside_of(session: Session, whole: Whole) -> Outside | None:
    """Return the router's end of the way to the guests' prefixes; None where they have no IPv6."""
    if not isinstance(whole, Vpc) and not whole.cidr6:
        return None
    found = session.scalar(select(RouterAddress6).where(_mine(whole)))
    if found is None:
        return None
    row = found.range
    return Outside(found.address, IPv6Network(row.cidr6 or "").prefixlen, row.gateway6 or "", row.vlan, row.id)


def shown_outside(session: Session, routers: Sequence[Router]) -> dict[int, tuple[str, VlanRange]]:
    """Return, by router number, the public address and its range."""
    networks, vpcs = {row.network_id for row in routers}, {row.vpc_id for row in routers}
    query = select(RouterAddress6, VlanRange).join(VlanRange, RouterAddress6.range_id == VlanRange.id)
    theirs = RouterAddress6.network_id.in_(networks - {None}) | RouterAddress6.vpc_id.in_(vpcs - {None})
    found = {(row.network_id, row.vpc_id): (row.address, its) for row, its in session.execute(query.where(theirs))}
    owners = {row.id: (row.network_id if row.vpc_id is None else None, row.vpc_id) for row in routers}
    return {number: found[owner] for number, owner in owners.items() if owner in found}


def routes_of(session: Session, rows: Sequence[Network]) -> dict[int, list[dict[str, Any]]]:
    """Return, by network number, the routes that the upstream router is to have; a VPC's tiers share its router."""
    with_v6 = [row for row in rows if row.cidr6]
    if not with_v6:
        return {}
    query = select(RouterAddress6.network_id, RouterAddress6.vpc_id, RouterAddress6.address)
    alone = RouterAddress6.network_id.in_([row.id for row in with_v6])
    shared = RouterAddress6.vpc_id.in_({row.vpc_id for row in with_v6} - {None})
    found = {(network, vpc): address for network, vpc, address in session.execute(query.where(alone | shared))}
    ways = {row.id: found.get((None, row.vpc_id) if row.vpc_id else (row.id, None)) for row in with_v6}
    return {row.id: [{"subnet": row.cidr6, "gateway": ways[row.id]}] for row in with_v6 if ways[row.id]}
