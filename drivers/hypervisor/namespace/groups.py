"""Security groups as set elements: what may come in to the ports of a profile, and what may leave them.

Rules by CIDR become disjoint elements that begin with the profile. A rule by group becomes two: the profile, protocol
and port lead to a *circle*, the groups that any rule names there, and the circle's members are one set for all rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_address
from typing import NamedTuple

from drivers.intervals import Box, Interval, Piece, disjoint, layered
from drivers.network.virtual_router.syntax import PORTS, addresses, addresses6, cidr, cidr6, ports
from drivers.security import GroupMembers, GroupRule, PortFilter, SecurityGroup

WAYS = ("in", "out")
CLASSES = ("ports", "icmp4", "icmp6", "other")
SETS = tuple(
    f"{way}_{name}"
    for way in WAYS
    for name in ("ports4", "ports6", "icmp4", "icmp6", "other4", "other6", *(f"circle_{kind}" for kind in CLASSES))
)
_OCTET = (0, 255)
_PORTED = {6: "tcp", 17: "udp"}
_ICMP = {"icmp": ("icmp4", "icmp6"), "icmpv6": ("icmp6",)}
_VERSIONS = {"icmp4": (4,), "icmp6": (6,)}
_OTHERS = ((0, 5), (7, 16), (18, 255))
_NUMBERS = {"6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6"}
"""Protocols that are meant whole when a rule names them by number."""

Elements = dict[str, list[str]]
Key = tuple[str, ...]


class Profile(NamedTuple):
    """What guards a port: ports with the same groups, and the same servers, share one.

    :param groups: sorted; ``servers`` the addresses where DNS and metadata are always to be had.
    """

    groups: tuple[str, ...]
    servers: tuple[str, ...] = ()

    @classmethod
    def of(cls, port: PortFilter) -> Profile:
        """Return the profile of a port that has groups, maybe none."""
        return cls(tuple(sorted(set(port.groups or ()))), tuple(sorted(set(port.servers))))

    @property
    def key(self) -> Key:
        """Return what its number follows from."""
        return ("profile", *self.groups, "servers", *self.servers)


def numbered(keys: Iterable[Key], last: int) -> dict[Key, int]:
    """Return a number from 1 to ``last`` for each key, no two the same; another key hardly ever changes it."""
    found: dict[Key, int] = {}
    taken: set[int] = set()
    for key in sorted(set(keys)):
        text = "\n".join(key).encode()
        number = int.from_bytes(hashlib.blake2s(text, digest_size=8).digest(), "big") % last + 1
        while number in taken:
            number = number % last + 1
        taken.add(number)
        found[key] = number
    return found


class _Rule(NamedTuple):
    """A rule taken apart.

    :param head: the class and, there, the boxes of protocol and ports or of type and code.
    """

    head: tuple[tuple[str, Box], ...]
    sources: tuple[tuple[int, Interval], ...]
    group: str


class Guard:
    """The elements of all profiles of a host.

    :ivar refused: the rules and groups that were left out, by id, and why.
    """

    def __init__(
        self, profiles: Collection[Profile], found: Iterable[SecurityGroup], members: Iterable[GroupMembers]
    ) -> None:
        self.refused: list[tuple[str, str]] = []
        self._groups = {group.id: group for group in found}
        self._members = {each.group: each.addresses for each in members}
        cut = {(profile, way): self._cut(profile, way) for profile in profiles for way in WAYS}
        circles = {circle for pieces in cut.values() for _, _, circle in pieces.circles}
        keys = [profile.key for profile in profiles] + [_circle(circle) for circle in circles]
        self._numbers = numbered(keys, 0xFFFFFFFE)
        self.elements: Elements = {}
        for profile in profiles:
            self._serve(profile)
            for way in WAYS:
                self._write(profile, way, cut[profile, way])
        for circle in circles:
            self._fill(circle)

    def mark(self, profile: Profile) -> str:
        """Return the mark of a profile."""
        return self._number(profile.key)

    def _cut(self, profile: Profile, way: str) -> _Pieces:
        """Cut the rules of a profile apart; those of a profile that cut each other into shreds let nothing pass."""
        try:
            return _Pieces.of(list(self._rules(profile, way)))
        except ValueError as error:
            self.refused += [(group, f"The {way}bound rules let nothing pass: {error}") for group in profile.groups]
            return _Pieces([], [])

    def _rules(self, profile: Profile, way: str) -> Iterator[_Rule]:
        for group in (self._groups[name] for name in profile.groups if name in self._groups):
            for rule in group.ingress if way == "in" else group.egress:
                try:
                    yield _read(rule)
                except (ValueError, TypeError) as error:
                    self.refused.append((rule.id, str(error)))

    def _serve(self, profile: Profile) -> None:
        """Say where DNS and metadata are to be had, and whether everything may leave."""
        mark = self.mark(profile)
        for server in map(ip_address, profile.servers):
            self._add(f"servers{server.version}", f"{mark} . {server}")
        if not any(self._groups[name].egress for name in profile.groups if name in self._groups):
            self._add("open", mark)

    def _write(self, profile: Profile, way: str, pieces: _Pieces) -> None:
        mark = self.mark(profile)
        for name, version, box in pieces.boxes:
            where = (addresses if version == 4 else addresses6)(*box[-1])
            family = "" if name.startswith("icmp") else str(version)
            self._add(f"{way}_{name}{family}", f"{mark} . {_written(name, box[:-1])} . {where}")
        for name, box, circle in pieces.circles:
            self._add(f"{way}_circle_{name}", f"{mark} . {_written(name, box)} : {self._number(_circle(circle))}")

    def _number(self, key: Key) -> str:
        return f"{self._numbers[key]:#010x}"

    def _fill(self, circle: frozenset[str]) -> None:
        number = self._number(_circle(circle))
        for text in {text for group in circle for text in self._members.get(group, ())}:
            try:
                address = ip_address(text)
            except ValueError as error:
                self.refused += [(group, str(error)) for group in circle]
            else:
                self._add(f"circles{address.version}", f"{number} . {address}")

    def _add(self, name: str, item: str) -> None:
        self.elements.setdefault(name, []).append(item)


def _circle(circle: Iterable[str]) -> Key:
    return ("circle", *sorted(circle))


class _Pieces(NamedTuple):
    """The rules of one profile in one direction, disjoint.

    :param boxes: class, IP version, and the intervals, the address last; ``circles`` class, intervals and groups.
    """

    boxes: list[tuple[str, int, Box]]
    circles: list[tuple[str, Box, frozenset[str]]]

    @classmethod
    def of(cls, rules: list[_Rule]) -> _Pieces:
        """Cut the rules apart.

        :raises ValueError: they cut each other into shreds.
        """
        by_cidr: dict[tuple[str, int, Box], set[Piece]] = {}
        by_group: dict[tuple[str, Box], set[Piece]] = {}
        groups = sorted({rule.group for rule in rules if rule.group})
        for rule in rules:
            for name, box in rule.head:
                exact, free = _split(name, box)
                for version, source in rule.sources:
                    if version in _VERSIONS.get(name, (4, 6)):
                        by_cidr.setdefault((name, version, exact), set()).add(((*free, source), 0))
                if rule.group:
                    by_group.setdefault((name, exact), set()).add((free, groups.index(rule.group)))
        boxes = [
            (name, version, (*exact, *box))
            for (name, version, exact), pieces in by_cidr.items()
            for box, _ in disjoint(sorted(pieces))
        ]
        circles = [
            (name, (*exact, *box), frozenset(groups[rank] for rank in ranks))
            for (name, exact), found in by_group.items()
            for box, ranks in layered(sorted(found))
        ]
        return cls(boxes, circles)


def _split(name: str, box: Box) -> tuple[Box, Box]:
    """Return what of a rule's head is never a range, and the rest."""
    return (box[:1], box[1:]) if name == "ports" else ((), box)


def _written(name: str, box: Box) -> str:
    """Write the intervals of a class as nft does."""
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in box]
    return " . ".join([_PORTED[box[0][0]], *texts[1:]] if name == "ports" else texts)


def _read(rule: GroupRule) -> _Rule:
    """Take a rule apart.

    :raises ValueError: its protocol, ports, type, code or CIDRs are none.
    """
    what = f"The CIDR of rule {rule.id}"
    sources = tuple((6, cidr6(text, what)) if ":" in text else (4, cidr(text, what)) for text in rule.cidrs)
    return _Rule(tuple(_head(rule)), sources, rule.group)


def _head(rule: GroupRule) -> Iterator[tuple[str, Box]]:
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
