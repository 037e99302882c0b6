"""Settle: connections that were translated by a rule that changed are forgotten, so that the new rule meets them.

A translation is decided by a connection's first packet and kept by conntrack; without this an old flow would keep a
withdrawn port forward for days. The library's own reader takes 100 µs an entry and a ``conntrack`` process 2 ms a rule;
this speaks ctnetlink itself: one dump (4 µs an entry, measured) and one message for each entry that must go.
See linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address, ip_network
from typing import NamedTuple

from systemvm import netns
from systemvm.services.elements import key_of, value_of

_NETLINK_NETFILTER = 12
_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_ORIG, _ID, _ZONE = 1, 12, 18  # CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE
_SOURCE, _DESTINATION = 1, 2  # CTA_IP_V4_SRC, CTA_IP_V4_DST
_HEADER = struct.Struct("=IHHII")
_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "sctp": 132, "udplite": 136, "dccp": 33}
_NESTED = 0x3FFF


class Flow(NamedTuple):
    """The original direction of a connection; addresses as integers."""

    source: int
    destination: int
    protocol: int
    port: int


class Translation(NamedTuple):
    """What a map's key matches: 0 as protocol and 0-65535 as ports match all."""

    destinations: tuple[int, int]
    protocol: int
    ports: tuple[int, int]
    sources: tuple[int, int]

    def matches(self, flow: Flow) -> bool:
        """Tell whether the flow's first packet would have met this translation."""
        return (
            self.protocol in (0, flow.protocol)
            and self.destinations[0] <= flow.destination <= self.destinations[1]
            and self.ports[0] <= flow.port <= self.ports[1]
            and self.sources[0] <= flow.source <= self.sources[1]
        )


@dataclass
class Index:
    """Translations, found quickly for one flow among ten thousand."""

    exact: dict[tuple[int, int, int], list[Translation]] = field(default_factory=dict)
    wide: list[Translation] = field(default_factory=list)

    @classmethod
    def of(cls, translations: Iterable[Translation]) -> Index:
        """Build the index."""
        index = cls()
        for each in translations:
            if each.destinations[0] == each.destinations[1] and each.protocol and each.ports[0] == each.ports[1]:
                key = (each.destinations[0], each.protocol, each.ports[0])
                index.exact.setdefault(key, []).append(each)
            elif each.destinations[0] == each.destinations[1]:
                index.exact.setdefault((each.destinations[0], 0, -1), []).append(each)
            else:
                index.wide.append(each)
        return index

    def meets(self, flow: Flow) -> bool:
        """Tell whether any of the translations matches the flow."""
        keys = ((flow.destination, flow.protocol, flow.port), (flow.destination, 0, -1))
        candidates = [each for key in keys for each in self.exact.get(key, ())]
        return any(each.matches(flow) for each in (*candidates, *self.wide))


def translation(key: str) -> Translation:
    """Read a map's key: ``ADDRESS [. protocol . port-or-range [. sources]]``; a mark in place of sources is any source.

    :raises ValueError: it is none.
    """
    parts = [part.strip() for part in key.split(" . ")]
    protocol = _protocol(parts[1]) if len(parts) > 1 else 0
    first, _, last = parts[2].partition("-") if len(parts) > 2 else ("0", "", "65535")
    sources = _range(parts[3]) if len(parts) > 3 and "." in parts[3] else (0, 2**32 - 1)
    return Translation(_range(parts[0]), protocol, (int(first), int(last or first)), sources)


def _protocol(text: str) -> int:
    return int(text) if text.isdigit() else _PROTOCOLS[text]


def _range(text: str) -> tuple[int, int]:
    if "-" in text:
        first, last = text.split("-")
        return int(ip_address(first.strip())), int(ip_address(last.strip()))
    network = ip_network(text, strict=False)
    return int(network[0]), int(network[-1])


def changed(old: Mapping[str, Iterable[str]], new: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the keys, in the maps called ``dnat_…``, whose connections another rule would meet now.

    These are the ones that vanished or lead elsewhere, and those that appeared where another map led their packets
    before (elements of one map never overlap). What nothing translated before was dropped, which leaves no connection,
    or ended at the router itself, whose connections go on: it need not be looked for.
    """
    names = [name for name in sorted(old.keys() | new.keys()) if name.startswith("dnat_")]
    found: set[str] = set()
    for name in names:
        if old.get(name) == new.get(name):
            continue
        before, after = set(old.get(name, ())), set(new.get(name, ()))
        gone, come = ({(key_of(i), value_of(i)) for i in items} for items in (before - after, after - before))
        found |= {key for key, _ in gone - come}
        fresh = {key for key, _ in come} - {key for key, _ in gone}
        elsewhere = {_address(item) for other in names if other != name for item in old.get(other, ())} if fresh else ()
        if elsewhere:
            wide = any(map(_wide, elsewhere))
            found |= {key for key in fresh if wide or _address(key) in elsewhere or _wide(_address(key))}
    return found


def _address(item: str) -> str:
    return item.partition(" ")[0]


def _wide(address: str) -> bool:
    return "/" in address or "-" in address


def settle(namespace: str, old: Mapping[str, Iterable[str]], new: Mapping[str, Iterable[str]]) -> int:
    """Delete the connections that a changed translation concerns; return how many."""
    keys = changed(old, new)
    if not keys:
        return 0  # to list the connections takes 10 ms however few there are: the kernel walks its whole hash table
    with _open(namespace) as opened:
        flows = list(_flows(opened))
        there = {str(IPv4Address(flow.destination)) for flow, _ in flows}
        concerned = (key for key in keys if _address(key) in there or _wide(_address(key)))
        index = Index.of(map(translation, concerned))
        return sum(_delete(opened, names) for flow, names in flows if index.meets(flow))


def _open(namespace: str) -> socket.socket:
    with netns.entered(namespace):
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    opened.settimeout(10)
    return opened


def _flows(opened: socket.socket) -> Iterator[tuple[Flow, bytes]]:
    """Yield each IPv4 connection, and the attributes by which the kernel finds it again."""
    opened.send(_HEADER.pack(20, _GET, _REQUEST | _DUMP, 1, 0) + struct.pack("!BBH", socket.AF_INET, 0, 0))
    while True:
        data, at = opened.recv(1 << 17), 0
        while at < len(data):
            size, kind = _HEADER.unpack_from(data, at)[:2]
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -struct.unpack_from("=i", data, at + 16)[0]
                raise OSError(number, "The kernel does not list its connections")
            if found := _flow(data[at + 20 : at + size]):
                yield found
            at += (size + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        found[kind & _NESTED] = data[at : at + ((size + 3) & ~3)]
        at += (size + 3) & ~3
    return found


def _flow(data: bytes) -> tuple[Flow, bytes] | None:
    outer = _attributes(data)
    tuples = _attributes(outer[_ORIG][4:])
    addresses, protocol = _attributes(tuples[1][4:]), _attributes(tuples[2][4:])
    if not {_SOURCE, _DESTINATION} <= addresses.keys():
        return None
    port = int.from_bytes(protocol[3][4:6], "big") if 3 in protocol else 0
    source, destination = (int.from_bytes(addresses[side][4:8], "big") for side in (_SOURCE, _DESTINATION))
    names = b"".join(outer[kind] for kind in (_ORIG, _ZONE, _ID) if kind in outer)
    return Flow(source, destination, protocol[1][4], port), names


def _delete(opened: socket.socket, names: bytes) -> int:
    """Delete one connection; 0 where it ended by itself meanwhile."""
    body = struct.pack("!BBH", socket.AF_INET, 0, 0) + names
    opened.send(_HEADER.pack(16 + len(body), _DELETE, _REQUEST | _ACK, 2, 0) + body)
    answer = opened.recv(4096)
    return 1 if struct.unpack_from("=i", answer, 16)[0] == 0 else 0
