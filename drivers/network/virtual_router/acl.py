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

from drivers.intervals import Box, Interval, Piece, disjoint
from drivers.network.virtual_router.filters import Elements, icmp, rectangles
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
from drivers.vpc import AclItem, PrivateGateway

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


def of_gateway(gateway: PrivateGateway, device: str) -> Elements:
    """Return the elements of one private gateway, which has maps of its own: its peers can have any address.

    :raises ValueError: as :func:`elements` does.
    """
    sides = (True, _Side(f"acl_in_{device}", "return")), (False, _Side(f"acl_out_{device}", "accept"))
    return _of(gateway.acl, sides)


def maps(device: str) -> tuple[str, ...]:
    """Return the names of the maps of the private gateway that this interface is."""
    return tuple(f"acl_{way}_{device}_{kind}" for way in ("in", "out") for kind in (PORTS, ICMP, OTHER))


def _elements(network: Network, block: str, family: _Family) -> Elements:
    tier = family.read(block, "The tier's CIDR")
    sides = (True, _Side("acl_in", "accept", family, tier)), (False, _Side("acl_out", "return", family, tier))
    if network.acl is None:
        return {name: texts for _, side in sides for name, texts in side.all_of([_ANYTHING]).items()}
    return _of(network.acl, sides)


def _of(items: Sequence[AclItem], sides: Sequence[tuple[bool, _Side]]) -> Elements:
    found: Elements = {}
    for ingress, side in sides:
        mine = sorted((item for item in items if item.ingress is ingress), key=lambda item: (item.number, item))
        found |= side.all_of(mine or ([] if ingress else [_ANYTHING]))
    return found


class _Side:
    """One direction of one tier or private gateway.

    :param name: what the names of its maps begin with.
    :param passed: the verdict of what is allowed.
    :param tier: the addresses of the tier; None where the maps are for one interface.
    """

    def __init__(self, name: str, passed: str, family: _Family = _FOUR, tier: Interval | None = None) -> None:
        self.name, self.passed, self.family = name, passed, family
        self.ours = f"{family.written(*tier)} . " if tier else ""

    def all_of(self, items: Sequence[AclItem]) -> Elements:
        """Return the elements of all three maps for rules that are in the order of their numbers."""
        ports = (text for name in _WITH_PORTS for text in self.write(items, _NUMBERS[name], _write_ports(name)))
        found = {PORTS: list(ports), ICMP: self.write(items, self.family.icmp, _write_icmp)}
        found[OTHER] = self.write(items, None, _write_protocol)
        return {f"{self.name}_{kind}{self.family.suffix}": texts for kind, texts in found.items()}

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
            pair = f"{self.ours}{self.family.written(*box[1])}"
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
