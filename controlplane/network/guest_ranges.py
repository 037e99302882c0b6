"""The addresses that guests of a network may get: of a Shared network, those of its ranges in their order.

Ranges may be of several subnets, each with a gateway of the operator's; a router that serves the network has an address
in every one of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.errors import BadParameter, NoAddress
from controlplane.network.addressing import first_free, first_free6, guest_range, own_address
from controlplane.network.ipv6 import ends_of
from controlplane.network.networks import Network, router_providers
from controlplane.network.nics import NetworkAddress
from controlplane.network.public_ips import VlanRange
from drivers.vocabulary import GuestSubnet

Spans = list[tuple[IPv4Address, IPv4Address]]
SHARED = "Shared"


def ranges_of(session: Session, network: Network) -> Sequence[VlanRange]:
    """Return the network's ranges in the order in which addresses of them are given."""
    return session.scalars(select(VlanRange).where(VlanRange.network_id == network.id).order_by(VlanRange.id)).all()


def ranges_by_network(session: Session, rows: Iterable[Network]) -> dict[int, list[VlanRange]]:
    """Return the ranges of each of these networks that is Shared, by the network's number."""
    return ranges_in(session, {row.id for row in rows if row.guest_type == SHARED})


def ranges_in(session: Session, numbers: Collection[int]) -> dict[int, list[VlanRange]]:
    """Return the ranges of each of these Shared networks, by the network's number."""
    found: dict[int, list[VlanRange]] = {number: [] for number in numbers}
    query = select(VlanRange).where(VlanRange.network_id.in_(numbers)).order_by(VlanRange.id)
    for row in session.scalars(query) if numbers else ():
        found[row.network_id or 0].append(row)
    return found


def subnet_of(row: VlanRange) -> IPv4Network:
    """Return the subnet of a range that has IPv4."""
    return IPv4Network(f"{row.gateway}/{row.netmask}", strict=False)


def subnets_of(row: VlanRange) -> list[IPv4Network | IPv6Network]:
    """Return the subnets of a range, of either family."""
    six: list[IPv4Network | IPv6Network] = [IPv6Network(row.cidr6)] if row.cidr6 else []
    return [subnet_of(row), *six] if row.gateway else six


def spans(network: Network, ranges: Sequence[VlanRange]) -> Spans:
    """Return the first and last addresses that guests may get, reserved ones left out.

    :param ranges: the network's, where it is Shared.
    """
    if network.guest_type == SHARED:
        found = [(IPv4Address(row.start_ip), IPv4Address(row.end_ip)) for row in ranges if row.gateway]
    else:
        found = [guest_range(network.cidr or "", network.start_ip, network.end_ip)]
    if not network.guest_cidr:
        return found
    part = IPv4Network(network.guest_cidr)
    low, high = part.network_address + 1, part.broadcast_address - 1
    return [(max(first, low), min(last, high)) for first, last in found if first <= high and low <= last]


def lowest_free(network: Network, within: Spans, taken: set[str]) -> str | None:
    """Return the lowest address that is not taken, of the first span that has one; None where all are."""
    found = (first_free(first, last, taken | {network.gateway or ""}) for first, last in within)
    return next((address for address in found if address is not None), None)


def taken_of(session: Session, network: Network) -> set[str]:
    """Return the addresses of the network that are taken, of either family."""
    return set(session.scalars(select(NetworkAddress.address).where(NetworkAddress.network_id == network.id)))


def without_addresses(session: Session, rows: Sequence[Network]) -> set[int]:
    """Return the numbers of those networks that have no IPv4 address left for another guest, but should."""
    counts = select(NetworkAddress.network_id, func.count()).group_by(NetworkAddress.network_id)
    mine = NetworkAddress.network_id.in_([row.id for row in rows]), NetworkAddress.address.not_like("%:%")
    used = {number: count for number, count in session.execute(counts.where(*mine))}
    ranges = ranges_by_network(session, rows)
    possible = {row.id: (row, spans(row, ranges.get(row.id, ()))) for row in rows if row.cidr}
    near = [number for number, (_, within) in possible.items() if used.get(number, 0) >= _size(within) - 1]
    taken: dict[int, set[str]] = {number: set() for number in near}
    query = select(NetworkAddress.network_id, NetworkAddress.address).where(NetworkAddress.network_id.in_(near))
    for number, address in session.execute(query) if near else ():
        taken[number].add(address)
    return {number for number in near if lowest_free(*possible[number], taken[number]) is None}


def _size(within: Spans) -> int:
    return sum(int(last) - int(first) + 1 for first, last in within)


def subnets(ranges: Sequence[VlanRange]) -> dict[IPv4Network, list[VlanRange]]:
    """Return the ranges with IPv4 by their subnets, in order."""
    found: dict[IPv4Network, list[VlanRange]] = {}
    for row in ranges:
        if row.gateway:
            found.setdefault(subnet_of(row), []).append(row)
    return found


def range_with(ranges: Iterable[VlanRange], address: str) -> VlanRange | None:
    """Return a range whose subnet an IPv4 address is in; None for an address of none."""
    rows = [row for row in ranges if row.gateway]
    if not address or not rows:
        return None
    wanted = IPv4Address(address)
    return next((row for row in rows if wanted in subnet_of(row)), None)


def address_router(
    session: Session, network: Network, wanted: Mapping[str, str | None] | None = None
) -> Sequence[VlanRange]:
    """Have the router that serves a Shared network own an address in each subnet, and keep it; repeatable.

    :param wanted: by family, ``routerip`` and ``routeripv6``: the address that it is to have; the lowest free one else.
    :return: the network's ranges.
    :raises NoAddress: a subnet has none left.
    """
    ranges, asked = ranges_of(session, network), dict(wanted or {})
    if not router_providers(network):
        return ranges
    taken = taken_of(session, network)
    for subnet, rows in subnets(ranges).items():
        if any(row.router_ip for row in rows):
            continue
        own = asked.pop("routerip", None) or lowest_free(network, spans(network, rows), taken)
        if own is None:
            raise NoAddress(f"Network {network.name} has no address left in {subnet} for the router that serves it.")
        rows[0].router_ip = own
        _claim(session, network, own)
    for row in (row for row in ranges if row.cidr6 and not row.router_ip6):
        row.router_ip6 = asked.pop("routeripv6", None) or _lowest_free6(network, row, taken)
        _claim(session, network, row.router_ip6)
    return ranges


def _claim(session: Session, network: Network, address: str) -> None:
    session.add(NetworkAddress(network_id=network.id, address=address))
    session.flush()


def _lowest_free6(network: Network, row: VlanRange, taken: set[str]) -> str:
    own = first_free6(*ends_of(row), taken | {row.gateway6 or ""})
    if own is None:
        raise NoAddress(f"Network {network.name} has no IPv6 address left in {row.start_ip6}-{row.end_ip6}.")
    return own


def address6_of(session: Session, network: Network, mac: str) -> str:
    """Return the IPv6 address of a guest that names none: the one that its MAC makes, unless there is a range."""
    assert network.cidr6 is not None
    if network.guest_type == SHARED:
        for row in ranges_of(session, network):
            if row.start_ip6:
                return _lowest_free6(network, row, taken_of(session, network))
    return own_address(IPv6Network(network.cidr6), mac)


def subnet_facts(ranges: Sequence[VlanRange]) -> tuple[GuestSubnet, ...]:
    """Return the subnets of a Shared network as the router that serves it sees them."""
    found = [
        GuestSubnet(str(subnet), row.gateway, row.router_ip)
        for subnet, rows in subnets(ranges).items()
        for row in rows
        if row.router_ip
    ]
    found += [
        GuestSubnet(row.cidr6 or "", row.gateway6 or "", row.router_ip6, slaac=not row.start_ip6)
        for row in ranges
        if row.router_ip6
    ]
    return tuple(found)


def refuse_router_address(span: IPv4Network | IPv6Network, gateway: str, address: str | None, parameter: str) -> None:
    """Refuse an address that the router cannot have.

    :raises BadParameter: it is not a host's in the subnet, or is the gateway's.
    """
    if address is None:
        return
    own = IPv6Address(address) if isinstance(span, IPv6Network) else IPv4Address(address)
    if own not in span or own in (span.network_address, span.broadcast_address) or str(own) == gateway:
        raise BadParameter(
            f"Invalid parameter {parameter} value={address}: it must be a host's address in {span}, and not the "
            f"gateway's, {gateway}."
        )


def subnet_at(session: Session, network: Network, address: str) -> IPv4Network:
    """Return the subnet of the network that an address of it is in."""
    row = range_with(ranges_of(session, network), address) if network.guest_type == SHARED else None
    return subnet_of(row) if row is not None else IPv4Network(network.cidr or f"{address}/32")
