"""Network ACLs as verdict map elements: who may talk to a tier, and whom it may talk to.

A packet costs one look-up in each direction however many rules there are: the rules of a tier are cut into disjoint
pieces, each of which has the verdict of the lowest number that covered it. What no rule names is dropped; so the
default is an element too, and changes of a list, or of which list a tier has, never touch the skeleton.

A key begins with what the protocol has, then comes the tier, then the other end. A tier with IPv6 has the same of it
in maps of their own: a rule concerns the families that its CIDRs are of, and both where it names none.
Three maps for each direction, by what the protocol has in its header: ports, an ICMP type and code, or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from drivers.network.virtual_router.filters import Elements, icmp, rectangles
from drivers.network.virtual_router.intervals import Box, Interval, Piece, disjoint
from drivers.network.virtual_router.syntax import (
    EVERYONE,
    EVERYONE6,
    addresses,
    addresses6,
    cidr,
    cidr6,
    identity,
    ports,
)
from drivers.vocabulary import Network
from drivers.vpc import AclItem

PORTS, ICMP, OTHER = "ports", "icmp", "other"
MAPS = tuple(f"acl_{way}_{kind}" for way in ("in", "out") for kind in (PORTS, ICMP, OTHER))
MAPS6 = tuple(f"{name}6" for name in MAPS)
_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17}
_WITH_PORTS = ("tcp", "udp")
_EVERY_PORT, _EVERY_TYPE, _EVERY_PROTOCOL = (0, 65535), (0, 65535), (0, 255)
_ANYTHING = AclItem("", 0, allow=True, ingress=True, protocol="all")


class _Family(NamedTuple):
    """What differs between IPv4 and IPv6.

    :param suffix: of the maps' names.
    :param icmp: its own ICMP's number; the rules call it ``icmp`` in both.
    """

    suffix: str
    icmp: int
    everyone: Interval
    read: Callable[[str, str], Interval]
    written: Callable[[int, int], str]


_FOUR = _Family("", 1, EVERYONE, cidr, addresses)
_SIX = _Family("6", 58, EVERYONE6, cidr6, addresses6)


def elements(network: Network) -> Elements:
    """Return the elements of one tier, of the families that it has.

    Without egress rules everything may leave; with one, only what a rule allows (CloudStack's rule of network ACLs).

    :raises ValueError: a rule names another protocol, port or CIDR than there can be.
    """
    found = _elements(network, network.cidr, _FOUR) if network.cidr else {}
    return found | (_elements(network, network.cidr6, _SIX) if network.cidr6 else {})


def _elements(network: Network, block: str, family: _Family) -> Elements:
    found: Elements = {}
    for ingress, way, passed in ((True, "in", "accept"), (False, "out", "return")):
        items = sorted(item for item in network.acl or () if item.ingress is ingress)
        items.sort(key=lambda item: item.number)
        if network.acl is None or (not ingress and not items):
            items = [_ANYTHING]
        side, end = _Side(family.read(block, "The tier's CIDR"), passed, family), family.suffix
        found[f"acl_{way}_{PORTS}{end}"] = [
            text for name in _WITH_PORTS for text in side.write(items, _NUMBERS[name], _write_ports(name))
        ]
        found[f"acl_{way}_{ICMP}{end}"] = side.write(items, family.icmp, _write_icmp)
        found[f"acl_{way}_{OTHER}{end}"] = side.write(items, None, _write_protocol)
    return found


class _Side:
    """One direction of one tier.

    :param tier: the addresses of the tier.
    :param passed: the verdict of what is allowed.
    """

    def __init__(self, tier: Interval, passed: str, family: _Family) -> None:
        self.tier, self.passed, self.family = tier, passed, family

    def write(self, items: Sequence[AclItem], protocol: int | None, head: Callable[[Box], list[str]]) -> list[str]:
        """Return the elements for one protocol, or for all that have neither ports nor types.

        :param items: by number.
        :param head: writes the first part of a key.
        """
        pieces: list[Piece] = []
        for rank, item in enumerate(items):
            what = f"Network ACL rule {item.number} {identity(item.id, 'The network ACL rule id') if item.id else ''}"
            service = _service(item, protocol, self.family, what)
            if service is not None:
                pieces += [((service, other), rank) for other in self._others(item, what)]
        texts = []
        for box, rank in disjoint(pieces) if pieces else ():
            item = items[rank]
            pair = f"{self.family.written(*self.tier)} . {self.family.written(*box[1])}"
            comment = f'counter comment "{item.id}" ' if item.id else ""
            verdict = self.passed if item.allow else "drop"
            texts += [f"{start} . {pair} {comment}: {verdict}" for start in head(box)]
        return texts

    def _others(self, item: AclItem, what: str) -> list[Interval]:
        """Return the other ends that are of this family; none where the rule is about the other one alone."""
        mine = [other for other in item.cidrs if (":" in other) == (self.family is _SIX)]
        return [self.family.read(other, f"The CIDR of {what}") for other in mine] or (
            [] if item.cidrs else [self.family.everyone]
        )


def _service(item: AclItem, protocol: int | None, family: _Family, what: str) -> Interval | None:
    """Return the ports, types or protocols of a rule as far as it concerns a protocol; None where it does not.

    :param protocol: None is all that have neither ports nor types.
    """
    number = family.icmp if item.protocol == "icmp" else _number(item.protocol, what)
    if protocol is None:
        if number is None:
            return _EVERY_PROTOCOL
        return None if number in (family.icmp, _NUMBERS["tcp"], _NUMBERS["udp"]) else (number, number)
    if number is None:
        return _EVERY_TYPE if protocol == family.icmp else _EVERY_PORT
    if number != protocol:
        return None
    return icmp(item.start, item.end, what) if number == family.icmp else ports(item.start, item.end, what)


def _number(protocol: str, what: str) -> int | None:
    """Return the protocol's number (IANA), None for all."""
    if protocol == "all":
        return None
    if protocol in _NUMBERS:
        return _NUMBERS[protocol]
    if protocol.isascii() and protocol.isdigit() and int(protocol) <= _EVERY_PROTOCOL[1]:
        return int(protocol)
    raise ValueError(f"{what} has the protocol {protocol!r}: it must be tcp, udp, icmp, all or a number from 0 to 255.")


def _write_ports(protocol: str) -> Callable[[Box], list[str]]:
    return lambda box: [f"{protocol} . {_span(*box[0])}"]


def _write_protocol(box: Box) -> list[str]:
    return [_span(*box[0])]


def _write_icmp(box: Box) -> list[str]:
    return [f"{_span(*kinds)} . {_span(*codes)}" for kinds, codes in rectangles(*box[0])]


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
