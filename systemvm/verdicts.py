"""Verdicts: whether the security groups of a host would let a connection begin, told from the elements alone.

The kernel asks this of a connection's first packet only. When rules change it is asked of those that are there, by the
same elements that the kernel has; see ``templates/host/nftables.nft.j2``. All of it is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from systemvm.conntrack import ZONE, Entry, Tuple

_WAYS = ("in", "out")
_TCP, _UDP = 6, 17
_PORTED = {_TCP: "tcp", _UDP: "udp"}
_ICMP = {4: 1, 6: 58}
_PROTOCOLS = {"tcp": _TCP, "udp": _UDP}
_METADATA = int(ip_address("169.254.169.254"))
_DNS, _WEB, _WEBS = 53, 80, (80, 8080)
_DHCP = {"out": {(68, 67), (546, 547)}, "in": {(67, 68), (547, 546)}}
_FAMILIES = frozenset(f"{kind}{version}" for kind in ("ports", "icmp", "other") for version in (4, 6))
_CIRCLES = frozenset({"ports", "icmp4", "icmp6", "other"})
SETS = frozenset(
    {"circles4", "circles6", "guards", "open", "servers4", "servers6", "speakers4", "speakers6"}
    | {f"{way}_single{version}" for way in _WAYS for version in (4, 6)}
    | {f"{way}_{family}{order}" for way in _WAYS for family in _FAMILIES for order in ("", "_ends")}
    | {f"{way}_circle_{kind}" for way in _WAYS for kind in _CIRCLES}
)
"""The sets and maps that decide; in none of them does an element forbid anything, and where one goes less passes."""

Interval = tuple[int, int]


class First(NamedTuple):
    """A connection's first packet: addresses as integers; ``first``, ``second``: ports, or ICMP's type and code."""

    version: int
    source: int
    destination: int
    protocol: int
    first: int
    second: int

    @classmethod
    def of(cls, orig: Tuple) -> First:
        """Read the original direction of a connection."""
        source, destination = (int.from_bytes(address, "big") for address in (orig.source, orig.destination))
        version = 4 if len(orig.source) == 4 else 6
        icmp = orig.protocol in _ICMP.values()
        pair = (orig.kind, orig.code) if icmp else (orig.sport, orig.dport)
        return cls(version, source, destination, orig.protocol, *pair)


class Judge:
    """The groups of one host."""

    def __init__(self, zones: Mapping[str, int], sets: Mapping[str, Iterable[str]]) -> None:
        """Read the elements.

        :param zones: of each guest's port by name: that of its segment's connections.
        """
        marks = dict(_pair(item) for item in sets.get("guards", ()))
        self._profiles: dict[tuple[int, int, int], str] = {}
        for version in (4, 6):
            for item in sets.get(f"speakers{version}", ()):
                port, _, address = item.partition(" . ")
                if port in zones and port in marks:
                    self._profiles[zones[port], version, int(ip_address(address))] = marks[port]
        self._open = frozenset(sets.get("open", ()))
        self._members = {
            name: frozenset(sets.get(name, ())) for name in ("circles4", "circles6", "servers4", "servers6")
        }
        self._rules: dict[tuple[str, str], list[tuple[Interval, ...]]] = {}
        self._circles: dict[tuple[str, str], list[tuple[tuple[Interval, ...], str]]] = {}
        self._singles = {
            f"{way}_ports{version}": frozenset(sets.get(f"{way}_single{version}", ()))
            for way in _WAYS
            for version in (4, 6)
        }
        for way in _WAYS:
            for family in _FAMILIES:
                for order in ("", "_ends"):
                    self._read(f"{way}_{family}", sets.get(f"{way}_{family}{order}", ()), ends_first=bool(order))
            for kind in _CIRCLES:
                self._read_circles(f"{way}_circle_{kind}", sets.get(f"{way}_circle_{kind}", ()))

    def _read(self, name: str, items: Iterable[str], *, ends_first: bool) -> None:
        for item in items:
            *fields, mark = item.split(" . ")
            end = fields.pop(0 if ends_first else 2 if "icmp" in name else 1)
            self._rules.setdefault((name, mark), []).append((*_key(name, fields), _interval(end)))

    def _read_circles(self, name: str, items: Iterable[str]) -> None:
        for item in items:
            key, circle = _pair(item)
            *fields, mark = key.split(" . ")
            self._circles.setdefault((name, mark), []).append((_key(name, fields), circle))

    def allows(self, entry: Entry) -> bool:
        """Tell whether a connection on a guarded segment may go on."""
        return self.judges(zone_of(entry), First.of(entry.orig))

    def judges(self, zone: int, packet: First) -> bool:
        """Tell whether a first packet on a segment would pass."""
        sender = self._profiles.get((zone, packet.version, packet.source))
        receiver = self._profiles.get((zone, packet.version, packet.destination))
        return (sender is None or self._leaves(sender, packet)) and (
            receiver is None or self._passes("in", receiver, packet)
        )

    def _leaves(self, mark: str, packet: First) -> bool:
        return (
            mark in self._open or _is_service(packet) or self._served(mark, packet) or self._passes("out", mark, packet)
        )

    def _served(self, mark: str, packet: First) -> bool:
        if packet.protocol != _TCP or packet.second not in _WEBS:
            return False
        if packet.second == _WEB and (packet.version, packet.destination) == (4, _METADATA):
            return True
        return f"{mark} . {_text(packet.version, packet.destination)}" in self._members[f"servers{packet.version}"]

    def _passes(self, way: str, mark: str, packet: First) -> bool:
        if (packet.first, packet.second) in _DHCP[way] and packet.protocol == _UDP:
            return True
        far = packet.source if way == "in" else packet.destination
        kind, key = _class(packet)
        family = f"{way}_{kind}{'' if kind.startswith('icmp') else packet.version}"
        if kind == "ports" and f"{_PORTED[key[0]]} . {key[1]} . {mark}" in self._singles[family]:
            return True
        if any(_inside((*key, far), box) for box in self._rules.get((family, mark), ())):
            return True
        circles = self._circles.get((f"{way}_circle_{kind}", mark), ())
        members = self._members[f"circles{packet.version}"]
        return any(
            f"{circle} . {_text(packet.version, far)}" in members for box, circle in circles if _inside(key, box)
        )


def zone_of(entry: Entry) -> int:
    """Return the zone of a connection, 0 where it has none."""
    return int.from_bytes(entry.parts.get(ZONE, b""), "big")


def _is_service(packet: First) -> bool:
    return packet.protocol in _PORTED and packet.second == _DNS


def _class(packet: First) -> tuple[str, tuple[int, ...]]:
    """Return which sets are asked, and with what."""
    if packet.protocol in _PORTED:
        return "ports", (packet.protocol, packet.second)
    if packet.protocol == _ICMP[packet.version]:
        return f"icmp{packet.version}", (packet.first, packet.second)
    return "other", (packet.protocol,)


def _key(name: str, fields: list[str]) -> tuple[Interval, ...]:
    """Read an element's fields but for the address, in the order of :func:`_class`."""
    return tuple(map(_interval, reversed(fields) if "ports" in name else fields))


def _inside(key: tuple[int, ...], box: tuple[Interval, ...]) -> bool:
    return all(first <= value <= last for value, (first, last) in zip(key, box, strict=True))


def _pair(item: str) -> tuple[str, str]:
    key, _, value = item.partition(" : ")
    return key, value


@lru_cache(maxsize=65536)
def _interval(text: str) -> Interval:
    """Read what stands in an element: a protocol, a number, a range, an address, a CIDR or a range of addresses."""
    if text in _PROTOCOLS:
        return (_PROTOCOLS[text],) * 2
    if text.isdigit():
        return (int(text),) * 2
    if "/" in text:
        network = ip_network(text)
        return int(network.network_address), int(network.broadcast_address)
    first, _, last = text.partition("-")
    low = int(first) if first.isdigit() else int(ip_address(first))
    high = low if not last else int(last) if last.isdigit() else int(ip_address(last))
    return low, high


@lru_cache(maxsize=65536)
def _text(version: int, address: int) -> str:
    return str(ip_address(address.to_bytes(4 if version == 4 else 16, "big")))
