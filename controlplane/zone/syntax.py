"""Syntax: what texts of infrastructure must look like; each function is a parameter's ``check``."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

_NAME = re.compile(r"[^\x00-\x1f\x7f\"'`\\<>]+")
_DOMAIN = re.compile(
    r"(?=.{1,190}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}")


def name(value: str) -> str:
    """Accept a name on one line, without quotes, backslashes and angle brackets."""
    text = value.strip()
    if not text or not _NAME.fullmatch(text):
        raise ValueError("it must be one line of text without quotes, backslashes and angle brackets")
    return text


def ipv4(value: str) -> str:
    """Accept an IPv4 address."""
    try:
        return str(IPv4Address(value.strip()))
    except ValueError:
        raise ValueError("it must be an IPv4 address such as 192.0.2.1") from None


def ipv6(value: str) -> str:
    """Accept an IPv6 address."""
    try:
        return str(IPv6Address(value.strip()))
    except ValueError:
        raise ValueError("it must be an IPv6 address such as 2001:db8::1") from None


def cidr6(value: str) -> str:
    """Accept an IPv6 network that starts at its first address."""
    try:
        network = IPv6Network(value.strip())
    except ValueError:
        raise ValueError("it must be an IPv6 network such as 2001:db8::/64, with no host bits set") from None
    if "/" not in value:
        raise ValueError("it must be an IPv6 network with its length, such as 2001:db8::/64")
    return str(network)


def netmask(value: str) -> str:
    """Accept an IPv4 netmask of 8 to 30 bits."""
    try:
        network = IPv4Network(f"0.0.0.0/{value.strip()}")
    except ValueError:
        raise ValueError("it must be a netmask such as 255.255.255.0") from None
    if "." not in value or str(network.netmask) != value.strip() or not 8 <= network.prefixlen <= 30:
        raise ValueError("it must be a netmask from 255.0.0.0 to 255.255.255.252")
    return str(network.netmask)


def cidr(value: str) -> str:
    """Accept an IPv4 network that starts at its first address."""
    try:
        network = ip_network(value.strip())
    except ValueError:
        raise ValueError("it must be a network such as 10.1.1.0/24, with no host bits set") from None
    if network.version != 4 or "/" not in value:
        raise ValueError("it must be an IPv4 network such as 10.1.1.0/24")
    return str(network)


def domain(value: str) -> str:
    """Accept a DNS domain."""
    if not _DOMAIN.fullmatch(value.strip()):
        raise ValueError("it must be a DNS domain such as cloud.example.org")
    return value.strip().lower()


def tag(value: str) -> str:
    """Accept one tag of an infrastructure object."""
    if not _TAG.fullmatch(value):
        raise ValueError(f"the tag {value!r} may have letters, digits and _ . : / -, and at most 64 of them")
    return value


def tags(value: str) -> str:
    """Accept tags, separated by commas."""
    return ",".join(tag_list(value.split(",")))


def tag_list(value: list[str]) -> list[str]:
    """Accept a list of tags; each is kept once, in its order."""
    return list(dict.fromkeys(tag(item.strip()) for item in value if item.strip()))


def subnet(gateway: str, mask: str) -> IPv4Network:
    """Return the subnet that a gateway and a netmask are of.

    :raises ValueError: the gateway is the subnet's first or last address.
    """
    network = IPv4Network((gateway, mask), strict=False)
    if IPv4Address(gateway) in (network.network_address, network.broadcast_address):
        raise ValueError(f"gateway {gateway} is the network or broadcast address of {network}")
    return network


def within(network: IPv4Network, start: str, end: str, gateway: str) -> tuple[IPv4Address, IPv4Address]:
    """Return the ends of a range of addresses.

    :raises ValueError: it leads backwards, leaves the subnet, or holds the gateway.
    """
    first, last = IPv4Address(start), IPv4Address(end)
    if last < first:
        raise ValueError(f"the range {start}-{end} leads backwards: the start address comes first")
    for address in (first, last):
        if address not in network or address in (network.network_address, network.broadcast_address):
            raise ValueError(f"address {address} is no host address of {network}")
    if first <= IPv4Address(gateway) <= last:
        raise ValueError(f"the range {start}-{end} holds the gateway {gateway}")
    return first, last
