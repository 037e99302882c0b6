"""Addresses and numbers: pure choices. Nothing here reads a row; who calls brings what is taken."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network


def subnet(gateway: str, netmask: str) -> IPv4Network:
    """Return the network that a gateway and a netmask mean.

    :raises ValueError: they are no IPv4 addresses, or the gateway is not one of the network's usable addresses.
    """
    try:
        network = ipaddress.IPv4Network(f"{gateway}/{netmask}", strict=False)
        address = ipaddress.IPv4Address(gateway)
    except ValueError:
        raise ValueError(
            f"gateway {gateway} and netmask {netmask} must be IPv4, such as 10.1.1.1 and 255.255.255.0"
        ) from None
    if not 8 <= network.prefixlen <= 29:
        raise ValueError(f"a guest network is /8 to /29 large, and {network} is /{network.prefixlen}")
    if address in (network.network_address, network.broadcast_address):
        raise ValueError(f"gateway {gateway} must not be the first or the last address of {network}")
    return network


def overlap(one: str, other: str) -> bool:
    """Tell whether two CIDRs share an address."""
    return IPv4Network(one).overlaps(IPv4Network(other))


def guest_range(cidr: str, start: str | None, end: str | None) -> tuple[IPv4Address, IPv4Address]:
    """Return the first and the last address that guests may get.

    :raises ValueError: the range does not lie in the network, or ends before it begins.
    """
    network = ipaddress.IPv4Network(cidr)
    first = ipaddress.IPv4Address(start) if start else network.network_address + 1
    last = ipaddress.IPv4Address(end) if end else network.broadcast_address - 1
    if not network.network_address < first <= last < network.broadcast_address:
        raise ValueError(f"the range {first}-{last} must lie inside {network} and end after it begins")
    return first, last


def reserved(cidr: str, guest_cidr: str) -> str:
    """Return the addresses of a network that guests do not get, as ranges: ``10.1.1.1-10.1.1.127``."""
    whole, part = ipaddress.IPv4Network(cidr), ipaddress.IPv4Network(guest_cidr)
    below = whole.network_address + 1, part.network_address - 1
    above = part.broadcast_address + 1, whole.broadcast_address - 1
    return ", ".join(f"{first}-{last}" for first, last in (below, above) if first <= last)


def first_free(first: IPv4Address, last: IPv4Address, taken: Collection[str]) -> str | None:
    """Return the lowest address of the range that is not taken, or None."""
    for number in range(int(first), int(last) + 1):
        address = str(ipaddress.IPv4Address(number))
        if address not in taken:
            return address
    return None


def lowest_number(ranges: Iterable[list[int]], taken: Collection[int]) -> int | None:
    """Return the lowest number in the ranges ``[first, last]`` that is not taken, or None."""
    for first, last in sorted(ranges):
        for number in range(first, last + 1):
            if number not in taken:
                return number
    return None


def own_address(prefix: IPv6Network, mac: str) -> str:
    """Return the address that an interface makes of an advertised /64 and its MAC (RFC 4291, appendix A: EUI-64).

    DHCPv6 gives the same one, so a guest is known by it however it came by it.
    """
    octets = bytes.fromhex(mac.replace(":", ""))
    last = bytes((octets[0] ^ 2, *octets[1:3])) + b"\xff\xfe" + octets[3:]
    return str(prefix.network_address + int.from_bytes(last))


def link_local(mac: str) -> str:
    """Return the address that the interface has on its link before any other."""
    return own_address(IPv6Network("fe80::/64"), mac)


def first_free6(first: IPv6Address, last: IPv6Address, taken: Collection[str]) -> str | None:
    """Return the lowest IPv6 address of the range that is not taken, or None; one more than are taken is looked at."""
    for number in range(int(first), min(int(last), int(first) + len(taken)) + 1):
        address = str(IPv6Address(number))
        if address not in taken:
            return address
    return None


def mac_of(number: int) -> str:
    """Return the locally administered unicast MAC address that these 40 bits make."""
    return ":".join(f"{byte:02x}" for byte in b"\x02" + number.to_bytes(5, "big"))
