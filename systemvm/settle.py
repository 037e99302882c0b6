"""Settle: connections that were translated by a rule that changed are forgotten, so that the new rule meets them.

A translation is decided by a connection's first packet and kept by conntrack; without this an old flow would keep a
withdrawn port forward for days. It costs one dump, and one message for each entry that must go.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address, ip_network
from typing import NamedTuple

from systemvm.conntrack import Entry, Table
from systemvm.services.elements import key_of, value_of

_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "sctp": 132, "udplite": 136, "dccp": 33}


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
    with Table(namespace) as table:
        flows = [(_flow(entry), entry) for entry in table.entries(socket.AF_INET)]
        there = {str(IPv4Address(flow.destination)) for flow, _ in flows}
        concerned = (key for key in keys if _address(key) in there or _wide(_address(key)))
        index = Index.of(map(translation, concerned))
        return sum(table.delete(entry) for flow, entry in flows if index.meets(flow))


def _flow(entry: Entry) -> Flow:
    orig = entry.orig
    source, destination = (int.from_bytes(address, "big") for address in (orig.source, orig.destination))
    return Flow(source, destination, orig.protocol, orig.dport)
