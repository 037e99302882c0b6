"""Security groups as set elements: what may come in to the ports of a profile, and what may leave them.

Rules by CIDR become disjoint elements that begin with the profile. A rule by group becomes two: the profile, protocol
and port lead to a *circle*, the groups that any rule names there, and the circle's members are one set for all rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

from drivers.hypervisor.namespace.rule_pieces import CLASSES, Pieces, cut
from drivers.security import GroupMembers, PortFilter, SecurityGroup

WAYS = ("in", "out")
_FAMILIES = ("ports4", "ports6", "icmp4", "icmp6", "other4", "other6")
SETS = tuple(
    f"{way}_{name}"
    for way in WAYS
    for name in (
        *("single4", "single6"),
        *_FAMILIES,
        *(f"{name}_ends" for name in _FAMILIES),
        *(f"circle_{kind}" for kind in CLASSES),
    )
)

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
        pieces = {(profile, way): self._cut(profile, way) for profile in profiles for way in WAYS}
        circles = {circle for each in pieces.values() for _, _, circle in each.by_group}
        keys = [profile.key for profile in profiles] + [_circle(circle) for circle in circles]
        self._numbers = numbered(keys, 0xFFFFFFFE)
        self.elements: Elements = {}
        for profile in profiles:
            self._serve(profile)
            for way in WAYS:
                self._write(profile, way, pieces[profile, way])
        for circle in circles:
            self._fill(circle)

    def mark(self, profile: Profile) -> str:
        """Return the mark of a profile."""
        return self._number(profile.key)

    def _cut(self, profile: Profile, way: str) -> Pieces:
        """Cut the rules of a profile apart, and note what had to be left out."""
        of = [self._groups[name] for name in profile.groups if name in self._groups]
        rules = tuple(rule for group in of for rule in (group.ingress if way == "in" else group.egress))
        pieces = cut(rules)
        for rule, reason in pieces.refused:
            units = (rule,) if rule else (*profile.groups, *(each.id for each in rules))
            self.refused += [(unit, reason) for unit in units]
        return pieces

    def _serve(self, profile: Profile) -> None:
        """Say where DNS and metadata are to be had, and whether everything may leave."""
        mark = self.mark(profile)
        for server in map(ip_address, profile.servers):
            self._add(f"servers{server.version}", f"{mark} . {server}")
        if not any(self._groups[name].egress for name in profile.groups if name in self._groups):
            self._add("open", mark)

    def _write(self, profile: Profile, way: str, pieces: Pieces) -> None:
        mark = self.mark(profile)
        for name, rest in pieces.by_cidr:
            self._add(f"{way}_{name}", f"{rest} . {mark}")
        for name, rest, circle in pieces.by_group:
            self._add(f"{way}_circle_{name}", f"{rest} . {mark} : {self._number(_circle(circle))}")

    def _number(self, key: Key) -> str:
        return f"{self._numbers[key]:#010x}"

    def _fill(self, circle: frozenset[str]) -> None:
        number = self._number(_circle(circle))
        for group, text in ((name, text) for name in circle for text in self._members.get(name, ())):
            try:
                version, address = _read(text)
            except ValueError as error:
                self.refused.append((group, str(error)))
            else:
                self._add(f"circles{version}", f"{number} . {address}")

    def _add(self, name: str, item: str) -> None:
        self.elements.setdefault(name, []).append(item)


@lru_cache(maxsize=1 << 16)
def _read(text: str) -> tuple[int, str]:
    """Return the version of an address, and how we write it.

    :raises ValueError: it is none.
    """
    address = ip_address(text)
    return address.version, str(address)


def _circle(circle: Iterable[str]) -> Key:
    return ("circle", *sorted(circle))
