"""What a rule may say: CIDR lists, ports, ICMP types and protocols. Pure: text and numbers in, clean values out.

Every refusal names the parameter, its value and what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from controlplane.errors import BadParameter

EVERYONE = "0.0.0.0/0"
FIRST_PORT, LAST_PORT = 1, 65535
ANY = -1
"""An ICMP type or code that is any of them, as CloudStack writes it."""
LONGEST_LIST = 500
_LARGEST_ICMP = _LARGEST_PROTOCOL = 255
WITH_PORTS, WITH_TYPES = ("tcp", "udp"), ("icmp", "icmpv6")
"""The protocols whose rules name ports, and those whose rules name ICMP types and codes."""
_PORTS, _TYPES = ("startport", "endport"), ("icmptype", "icmpcode")
_CIDR = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}/\d{1,2}", re.ASCII)
EVERYONE6 = "::/0"
NUMBERS = {"1": "icmp", "6": "tcp", "17": "udp"}
_NUMBERS6 = {"58": "icmp", "icmpv6": "icmp", "icmp6": "icmp", "6": "tcp", "17": "udp"}


def cidr_list(parameter: str, items: Sequence[str]) -> list[str]:
    """Return IPv4 CIDRs in their canonical form, each once, in the order given.

    :param parameter: what the API calls the list.
    :raises BadParameter: one of them is no CIDR, or there are too many.
    """
    if len(items) > LONGEST_LIST:
        raise BadParameter(
            f"Invalid parameter {parameter}: it lists {len(items)} CIDRs, and a rule takes {LONGEST_LIST}."
        )
    return list(dict.fromkeys(_cidr(parameter, item.strip()) for item in items))


def _cidr(parameter: str, item: str) -> str:
    try:
        if not _CIDR.fullmatch(item):
            raise ValueError
        return str(IPv4Network(item, strict=False))
    except ValueError:
        other = " IPv6 is for createIpv6FirewallRule." if ":" in item else ""
        raise BadParameter(
            f"Invalid parameter {parameter} value={item}: it must be IPv4 CIDRs separated by commas, "
            f"such as 203.0.113.0/24 or 198.51.100.7/32.{other}"
        ) from None


def cidr_list6(parameter: str, items: Sequence[str]) -> list[str]:
    """Return IPv6 CIDRs in their canonical form, each once, in the order given.

    :raises BadParameter: one of them is no IPv6 CIDR, or there are too many.
    """
    if len(items) > LONGEST_LIST:
        raise BadParameter(
            f"Invalid parameter {parameter}: it lists {len(items)} CIDRs, and a rule takes {LONGEST_LIST}."
        )
    return list(dict.fromkeys(_cidr6(parameter, item.strip()) for item in items))


def cidr_list_any(parameter: str, items: Sequence[str]) -> list[str]:
    """Return CIDRs of either family in their canonical form, each once, those of IPv4 first.

    :raises BadParameter: one of them is no CIDR, or there are too many.
    """
    six = [item for item in items if ":" in item]
    return cidr_list(parameter, [item for item in items if ":" not in item]) + cidr_list6(parameter, six)


def _cidr6(parameter: str, item: str) -> str:
    try:
        if "/" not in item or "%" in item:
            raise ValueError
        return str(IPv6Network(item, strict=False))
    except ValueError:
        raise BadParameter(
            f"Invalid parameter {parameter} value={item}: it must be IPv6 CIDRs separated by commas, "
            "such as 2001:db8:c::/48 or 2001:db8::7/128."
        ) from None


def inside(parameter: str, items: Sequence[str], network: str) -> list[str]:
    """Return the CIDRs when each lies in the network; 0.0.0.0/0 stands for the whole of it.

    :raises BadParameter: one does not.
    """
    whole = IPv4Network(network)
    for item in items:
        if item != EVERYONE and not IPv4Network(item).subnet_of(whole):
            raise BadParameter(
                f"Invalid parameter {parameter} value={item}: it must lie in the network's CIDR, {network}."
            )
    return list(items)


def protocol(text: str, allowed: Collection[str]) -> str:
    """Return the protocol in lower case; the numbers 1, 6 and 17 mean icmp, tcp and udp.

    :param allowed: what may be asked for here, in lower case.
    :raises BadParameter: it is none of these.
    """
    spelled = text.strip().lower()
    name = NUMBERS.get(spelled, spelled)
    if name not in allowed:
        raise BadParameter(f"Invalid parameter protocol value={text}: it must be one of {', '.join(allowed)}.")
    return name


def protocol6(text: str) -> str:
    """Return the protocol of an IPv6 rule in lower case; ``icmp`` is ICMPv6.

    :raises BadParameter: it is none.
    """
    spelled = text.strip().lower()
    name = _NUMBERS6.get(spelled, spelled)
    if name not in ("tcp", "udp", "icmp", "all"):
        raise BadParameter(f"Invalid parameter protocol value={text}: it must be one of tcp, udp, icmp, all.")
    return name


def port_range(first_name: str, first: int, last_name: str, last: int | None) -> tuple[int, int]:
    """Return the first and the last port of a range; without a last one it is a single port.

    :param first_name: what the API calls the first port, and ``last_name`` the last one.
    :raises BadParameter: one is no port, or the range ends before it begins.
    """
    end = first if last is None else last
    for name, value in ((first_name, first), (last_name, end)):
        if not FIRST_PORT <= value <= LAST_PORT:
            raise BadParameter(f"Invalid parameter {name} value={value}: it must be {FIRST_PORT} to {LAST_PORT}.")
    if end < first:
        raise BadParameter(
            f"Invalid parameter {last_name} value={end}: the range must not end before it begins, at {first}."
        )
    return first, end


def icmp(kind: int | None, code: int | None) -> tuple[int, int]:
    """Return ICMP type and code; what is not given is any (-1).

    :raises BadParameter: they are no type and code, or a code is asked for without a type.
    """
    pair = ANY if kind is None else kind, ANY if code is None else code
    for name, value in zip(("icmptype", "icmpcode"), pair, strict=True):
        if not ANY <= value <= _LARGEST_ICMP:
            raise BadParameter(
                f"Invalid parameter {name} value={value}: it must be 0 to {_LARGEST_ICMP}, or -1 for any."
            )
    if pair[0] == ANY and pair[1] != ANY:
        raise BadParameter(f"Invalid parameter icmpcode value={pair[1]}: a code needs an icmptype; -1 is any type.")
    return pair


def limiting(sources: Sequence[str]) -> tuple[str, ...]:
    """Return the sources that a rule is for; none where they are everyone."""
    return () if EVERYONE in sources else tuple(sources)


def any_protocol(text: str) -> str:
    """Return the protocol: ``tcp``, ``udp``, ``icmp``, ``all`` or a number (IANA); 1, 6 and 17 get their names.

    :raises BadParameter: it is none.
    """
    spelled = text.strip().lower()
    if spelled.isascii() and spelled.isdigit() and int(spelled) <= _LARGEST_PROTOCOL:
        return NUMBERS.get(str(int(spelled)), str(int(spelled)))
    if spelled in (*WITH_PORTS, "icmp", "all"):
        return spelled
    raise BadParameter(
        f"Invalid parameter protocol value={text}: it must be tcp, udp, icmp, all or a protocol's number, 0 to "
        f"{_LARGEST_PROTOCOL}."
    )


def span(name: str, given: Any) -> tuple[int, int]:
    """Return the first and the last port of a protocol that has them, or the type and code of ICMP; -1 is any.

    :param given: has ``startport``, ``endport``, ``icmptype`` and ``icmpcode``, each None where it was left out.
    :raises BadParameter: they contradict the protocol or each other.
    """
    of_icmp = name in WITH_TYPES
    foreign = (() if name in WITH_PORTS else _PORTS) + (() if of_icmp else _TYPES)
    for parameter in foreign:
        if (value := getattr(given, parameter)) is not None:
            raise BadParameter(f"Invalid parameter {parameter} value={value}: protocol {name} has none; leave it out.")
    if of_icmp:
        return icmp(given.icmptype, given.icmpcode)
    if given.startport is not None:
        return port_range("startport", given.startport, "endport", given.endport)
    if given.endport is not None:
        raise BadParameter(f"Invalid parameter endport value={given.endport}: it needs a startport.")
    return ANY, ANY


def ports_text(first: int, last: int) -> str:
    """Write a range of ports as a sentence has it."""
    return f"port {first}" if first == last else f"ports {first}-{last}"
