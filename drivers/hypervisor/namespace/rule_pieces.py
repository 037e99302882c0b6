"""The rules of security groups cut apart: disjoint pieces, as nftables' interval sets want them.

What overlaps is one piece: it is enough that some rule lets a packet pass. Addresses are cut first, as CIDRs hardly
overlap but by being the same, so that ten thousand rules stay about as many pieces.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from drivers.intervals import Box, Interval, Piece, disjoint, layered
from drivers.network.virtual_router.syntax import EVERYONE, EVERYONE6, PORTS, addresses, addresses6, cidr, cidr6, ports
from drivers.security import GroupRule

CLASSES = ("ports", "icmp4", "icmp6", "other")
"""What a packet is, by protocol: each has sets of its own."""

_OCTET = (0, 255)
_PORTED = {6: "tcp", 17: "udp"}
_ICMP = {"icmp": ("icmp4", "icmp6"), "icmpv6": ("icmp6",)}
_VERSIONS = {"icmp4": (4,), "icmp6": (6,)}
_OTHERS = ((0, 5), (7, 16), (18, 255))
_NUMBERS = {"6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6"}
"""Protocols that are meant whole when a rule names them by number."""
_REMEMBERED = 512
_FEW, _PATIENCE = 2, 8


class Pieces(NamedTuple):
    """Rules that hold together, cut apart.

    :param by_cidr: the end of a set's name, and what the mark follows in its elements.
    :param by_group: the class, what the mark follows in the map's elements, and the groups that they lead to.
    :param refused: what was left out, by the id of its rule, and why; an empty id is all of them.
    """

    by_cidr: tuple[tuple[str, str], ...] = ()
    by_group: tuple[tuple[str, str, frozenset[str]], ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


@lru_cache(maxsize=_REMEMBERED)
def cut(rules: tuple[GroupRule, ...]) -> Pieces:
    """Cut the rules of one direction apart.

    A rule that cannot be is left out. Rules that cut each other into shreds are left out together.
    """
    taken: list[_Rule] = []
    refused = []
    for rule in rules:
        try:
            taken.append(_read(rule))
        except (ValueError, TypeError) as error:
            refused.append((rule.id, str(error)))
    try:
        return Pieces(tuple(_by_cidr(taken)), tuple(_by_group(taken)), tuple(refused))
    except ValueError as error:
        return Pieces(refused=(*refused, ("", str(error))))


class _Rule(NamedTuple):
    """A rule taken apart.

    :param heads: the classes and, there, the boxes of protocol and ports or of type and code.
    :param sources: of an IP version: intervals of addresses.
    """

    heads: tuple[tuple[str, Box], ...]
    sources: tuple[tuple[int, Interval], ...]
    group: str


def _by_cidr(rules: Iterable[_Rule]) -> Iterator[tuple[str, str]]:
    found: dict[tuple[str, int, Box], dict[Interval, set[Piece]]] = {}
    for rule in rules:
        for name, box in rule.heads:
            exact, free = _split(name, box)
            for version, source in rule.sources:
                if version in _VERSIONS.get(name, (4, 6)):
                    found.setdefault((name, version, exact), {}).setdefault(source, set()).add((free, 0))
    for (name, version, exact), of in found.items():
        family = "" if name in _VERSIONS else str(version)
        whole = [((source, *free), 0) for source, boxes in of.items() for free, _ in disjoint(sorted(boxes))]
        yield from _placed(f"{name}{family}", version, exact, _fewest(whole))


def _placed(name: str, version: int, exact: Box, pieces: Sequence[Box]) -> Iterator[tuple[str, str]]:
    """Yield the set and the element of each piece.

    The kernel goes through a set's fields one by one, and its work grows with the elements that match the first. So
    there are two sets, and a piece goes where fewer others match what it begins with: its ports, or its addresses.
    """
    write, everyone = (addresses, EVERYONE) if version == 4 else (addresses6, EVERYONE6)
    ends, heads = (_Depth(box[field] for box in pieces) for field in (0, 1))
    for source, *free in pieces:
        first, last = free[0]
        if name.startswith("ports") and source == everyone and first == last:
            yield f"single{version}", f"{_PORTED[exact[0][0]]} . {first}"
            continue
        head, tail, where = _ranges(free), [_PORTED[number] for number, _ in exact], write(*source)
        if ends.at(source[0]) < heads.at(first):
            yield f"{name}_ends", " . ".join((where, *head, *tail))
        else:
            yield name, " . ".join((*head, where, *tail))


class _Depth:
    """How many of the intervals cover a value."""

    def __init__(self, intervals: Iterable[Interval]) -> None:
        taken = list(intervals)
        self._starts, self._ends = sorted(first for first, _ in taken), sorted(last for _, last in taken)

    def at(self, value: int) -> int:
        return bisect_right(self._starts, value) - bisect_left(self._ends, value)


def _fewest(whole: list[Piece]) -> list[Box]:
    """Cut boxes apart, along the addresses first, or last where that makes fewer pieces.

    :raises ValueError: either way they are too many.
    """
    try:
        first = [box for box, _ in disjoint(whole, _PATIENCE * (len(whole) + _PATIENCE))]
    except ValueError:
        first = []
    if first and len(first) <= _FEW * len(whole):
        return first
    turned = [((*box[1:], box[0]), rank) for box, rank in whole]
    last = [(box[-1], *box[:-1]) for box, _ in disjoint(turned)]
    return min(first or last, last, key=len)


def _by_group(rules: Iterable[_Rule]) -> Iterator[tuple[str, str, frozenset[str]]]:
    found: dict[tuple[str, Box], dict[str, set[Piece]]] = {}
    for rule in rules:
        for name, box in rule.heads if rule.group else ():
            exact, free = _split(name, box)
            found.setdefault((name, exact), {}).setdefault(rule.group, set()).add((free, 0))
    for (name, exact), of in found.items():
        groups = sorted(of)
        whole = [(box, rank) for rank, group in enumerate(groups) for box, _ in disjoint(sorted(of[group]))]
        for box, ranks in layered(whole):
            rest = " . ".join((*_ranges(box), *(_PORTED[number] for number, _ in exact)))
            yield name, rest, frozenset(groups[rank] for rank in ranks)


def _split(name: str, box: Box) -> tuple[Box, Box]:
    """Return what of a rule's head is never a range, and the rest."""
    return (box[:1], box[1:]) if name == "ports" else ((), box)


def _ranges(box: Iterable[Interval]) -> list[str]:
    """Write intervals as ranges: nft 1.0.6 cannot delete an element of an interval set that has none in it."""
    return [f"{first}-{last}" for first, last in box]


def _read(rule: GroupRule) -> _Rule:
    """Take a rule apart.

    :raises ValueError: its protocol, ports, type, code or CIDRs are none.
    """
    what = f"The CIDR of rule {rule.id}"
    sources = tuple((6, cidr6(text, what)) if ":" in text else (4, cidr(text, what)) for text in rule.cidrs)
    return _Rule(tuple(_heads(rule)), sources, rule.group)


def _heads(rule: GroupRule) -> Iterator[tuple[str, Box]]:
    """Yield the classes that a rule is in; as in CloudStack, ``icmp`` means that of IPv6, too."""
    protocol = _NUMBERS.get(rule.protocol, rule.protocol)
    if protocol in _PORTED.values():
        number = next(number for number, name in _PORTED.items() if name == protocol)
        every = rule.protocol != protocol
        yield "ports", ((number, number), ports(*((-1, -1) if every else (rule.start, rule.end)), f"Rule {rule.id}"))
    elif protocol in _ICMP:
        every = rule.protocol != protocol
        box = (_OCTET, _OCTET) if every else (_octet(rule.start, rule), _octet(rule.end, rule))
        yield from ((name, box) for name in _ICMP[protocol])
    elif protocol == "all":
        yield from (("ports", ((number, number), (0, PORTS))) for number in _PORTED)
        yield from ((name, (_OCTET, _OCTET)) for name in _VERSIONS)
        yield from (("other", (numbers,)) for numbers in _OTHERS)
    elif protocol.isascii() and protocol.isdigit() and int(protocol) <= 255:
        yield "other", ((int(protocol), int(protocol)),)
    else:
        right = "it must be tcp, udp, icmp, icmpv6, all, or a number to 255"
        raise ValueError(f"Rule {rule.id} has the protocol {rule.protocol!r}: {right}.")


def _octet(value: int, rule: GroupRule) -> Interval:
    """Return an ICMP type or code as an interval."""
    if not -1 <= value <= 255:
        raise ValueError(
            f"Rule {rule.id} has the ICMP type {rule.start} and code {rule.end}: they end at 255, -1 is any."
        )
    return (value, value) if value >= 0 else _OCTET
