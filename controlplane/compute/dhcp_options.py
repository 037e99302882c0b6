"""DHCP options that a machine may be told beyond its lease (RFC 2132).

What must stay true: whatever is accepted here, every DHCP server of ours takes. One that refused its configuration
would keep the former one for the whole network until the option is gone.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address

from controlplane.errors import BadParameter

_OWN = frozenset({0, 1, 12, 28, *range(50, 62), 81, 82, 255})
"""The server's own business: the lease, its times, the mask, the host's name, the protocol's messages."""

_ADDRESSES = frozenset({3, 6, 7, 9, 16, 21, 32, 33, 41, 42, 44, 45, 48, 49, 65, 68, 69, 70, 71, 74, 150})
_NAMES = frozenset({15, 17, 18, 40, 64, 66, 67, 100, 101, 119})
_CODED = frozenset({43, 118})
_VALUE = re.compile(r"[A-Za-z0-9._:/,+=@-](?:[A-Za-z0-9._:/,+=@ -]{0,253}[A-Za-z0-9._:/,+=@-])?", re.ASCII)
_FIGURES = re.compile(r"[0-9.,/+-]+", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)


def option_numbers(options: dict[str, str]) -> dict[str, str]:
    """Read DHCP options written ``dhcp:NUMBER``.

    :return: number → value.
    :raises BadParameter: a number or value would not do; the sentence says what would.
    """
    found = {}
    for name, value in options.items():
        number = name.removeprefix("dhcp:")
        if not re.fullmatch(r"[0-9]{1,3}", number, re.ASCII) or number == name or not 1 <= int(number) <= 254:
            raise BadParameter(f"Invalid parameter dhcpoptions: {name} must be dhcp:1 to dhcp:254.")
        if problem := _problem(int(number), value):
            raise BadParameter(f"Invalid parameter dhcpoptions: {problem.format(name=name)}.")
        found[str(int(number))] = value
    return found


def _problem(number: int, value: str) -> str:
    """Return why the option is refused; empty where it is not."""
    if number in _OWN:
        return "{name} is refused, as the DHCP server sets it itself"
    if not _VALUE.fullmatch(value):
        return "the value of {name} has characters that are not allowed, or is longer than 255"
    if number in _ADDRESSES:
        return "" if _are_addresses(value) else "the value of {name} must be IPv4 addresses with commas between them"
    if number in _CODED:
        return "" if not _FIGURES.fullmatch(value) else "the value of {name} must be text, or octets such as 0a:01"
    if number in _NAMES or not _FIGURES.fullmatch(value) or _NUMBER.fullmatch(value) or _are_addresses(value):
        return ""
    return "the value of {name} must be one number, IPv4 addresses with commas between them, or text"


def _are_addresses(value: str) -> bool:
    try:
        return bool([IPv4Address(part) for part in value.split(",")])
    except ValueError:
        return False
