"""The strings that may end in a daemon's file. Whatever does not match is refused by name, never escaped.

An address or CIDR is parsed and written anew, so nothing but digits, dots and a slash can come through it: nft would
even ask the DNS about a wrong one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network

_ADDRESS = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!\Z)|\Z)){4}", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOSTNAME = re.compile(_LABEL, re.ASCII)
DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*", re.ASCII)
SECRET = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?", re.ASCII)
USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,63}", re.ASCII)
MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}", re.ASCII)

PORTS = 65535
EVERYONE = (0, 0xFFFFFFFF)
EVERYONE6 = (0, (1 << 128) - 1)

Interval = tuple[int, int]


def matched(pattern: re.Pattern[str], value: str, what: str, right: str) -> str:
    """Return the value.

    :param what: what the value is, to begin the sentence with.
    :param right: what would be right, to end it with.
    :raises ValueError: it does not match the whole pattern.
    """
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{what} {value!r} is refused: it must be {right}.")
    return value


def identity(value: str, what: str) -> str:
    """Return an id that may stand in a comment, a file name or a backend's name."""
    if not _ID.fullmatch(value):
        raise ValueError(f"{what} {value!r} is refused: it must be a UUID, or letters, digits, dashes and underscores.")
    return value


@lru_cache(maxsize=65536)
def address(value: str, what: str) -> str:
    """Return an IPv4 address.

    :raises ValueError: it is none.
    """
    if not _ADDRESS.fullmatch(value):
        raise ValueError(f"{what} {value!r} is refused: it must be an IPv4 address such as 10.1.1.5.")
    return value


@lru_cache(maxsize=65536)
def number(value: str, what: str) -> int:
    """Return an IPv4 address as a number."""
    return int(IPv4Address(address(value, what)))


@lru_cache(maxsize=65536)
def cidr(value: str, what: str) -> Interval:
    """Return the first and the last address of a CIDR, as numbers; host bits are cut off, as CloudStack does."""
    try:
        network = IPv4Network(value, strict=False)
    except (AddressValueError, ValueError, TypeError):
        raise ValueError(f"{what} {value!r} is refused: it must be an IPv4 CIDR such as 10.1.1.0/24.") from None
    return int(network.network_address), int(network.broadcast_address)


def network(value: str, what: str) -> IPv4Network:
    """Return a CIDR as a network."""
    cidr(value, what)
    return IPv4Network(value, strict=False)


@lru_cache(maxsize=65536)
def addresses(first: int, last: int) -> str:
    """Write a range of addresses the one way that we always write it: address, prefix, or first-last."""
    size = last - first + 1
    if size & (size - 1) == 0 and first % size == 0:
        return str(IPv4Address(first)) if size == 1 else f"{IPv4Address(first)}/{33 - size.bit_length()}"
    return f"{IPv4Address(first)}-{IPv4Address(last)}"


@lru_cache(maxsize=65536)
def address6(value: str, what: str) -> str:
    """Return an IPv6 address in its one spelling (RFC 5952); a scope is refused.

    :raises ValueError: it is none.
    """
    try:
        if "%" in value:
            raise AddressValueError
        return str(IPv6Address(value))
    except AddressValueError:
        raise ValueError(f"{what} {value!r} is refused: it must be an IPv6 address such as 2001:db8::5.") from None


@lru_cache(maxsize=65536)
def network6(value: str, what: str) -> IPv6Network:
    """Return an IPv6 CIDR as a network; host bits are cut off."""
    try:
        if "%" in value:
            raise AddressValueError
        return IPv6Network(value, strict=False)
    except (AddressValueError, ValueError, TypeError):
        raise ValueError(f"{what} {value!r} is refused: it must be an IPv6 CIDR such as 2001:db8::/64.") from None


def cidr6(value: str, what: str) -> Interval:
    """Return the first and the last address of an IPv6 CIDR, as numbers."""
    found = network6(value, what)
    return int(found.network_address), int(found.broadcast_address)


@lru_cache(maxsize=65536)
def addresses6(first: int, last: int) -> str:
    """Write a range of IPv6 addresses the one way that we always write it: address, prefix, or first-last."""
    size = last - first + 1
    if size & (size - 1) == 0 and first % size == 0:
        return str(IPv6Address(first)) if size == 1 else f"{IPv6Address(first)}/{129 - size.bit_length()}"
    return f"{IPv6Address(first)}-{IPv6Address(last)}"


def ports(first: int, last: int, what: str) -> Interval:
    """Return a range of ports; -1 for both is every port.

    :raises ValueError: it is none.
    """
    if first == last == -1:
        return 0, PORTS
    if not 0 <= first <= last <= PORTS:
        raise ValueError(f"{what} has the ports {first} to {last}: they must be a range within 0 to {PORTS}.")
    return first, last
