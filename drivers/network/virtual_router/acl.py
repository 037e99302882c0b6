"""Network ACLs as verdict map elements: who may talk to a tier, and whom it may talk to.

A packet costs one look-up in each direction however many rules there are: the rules of a tier are cut into disjoint
pieces, each of which has the verdict of the lowest number that covered it. What no rule names is dropped; so the
default is an element too, and changes of a list, or of which list a tier has, never touch the skeleton.

A key begins with what the protocol has, then comes the tier, then the other end.
Three maps for each direction, by what the protocol has in its header: ports, an ICMP type and code, or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from drivers.network.virtual_router.filters import Elements, icmp, rectangles
from drivers.network.virtual_router.intervals import Box, Interval, Piece, disjoint
from drivers.network.virtual_router.syntax import EVERYONE, addresses, cidr, identity, ports
from drivers.vocabulary import Network
from drivers.vpc import AclItem, PrivateGateway

PORTS, ICMP, OTHER = "ports", "icmp", "other"


def maps(device: str = "") -> tuple[str, ...]:
    """Return the names of the maps of all tiers, or of one private gateway, by its interface."""
    return tuple(f"{_head(way, device)}_{kind}" for way in ("in", "out") for kind in (PORTS, ICMP, OTHER))


def _head(way: str, device: str) -> str:
    return f"acl_{way}_{device}" if device else f"acl_{way}"


_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17}
_WITH_PORTS = ("tcp", "udp")
_EVERY_PORT, _EVERY_TYPE, _EVERY_PROTOCOL = (0, 65535), (0, 65535), (0, 255)
_ANYTHING = AclItem("", 0, allow=True, ingress=True, protocol="all")


def elements(network: Network) -> Elements:
    """Return the elements of one tier.

    Without egress rules everything may leave; with one, only what a rule allows (CloudStack's rule of network ACLs).

    :raises ValueError: a rule names another protocol, port or CIDR than there can be.
    """
    tier = cidr(network.cidr, "The tier's CIDR")
    sides = (True, _Side("acl_in", "accept", tier)), (False, _Side("acl_out", "return", tier))
    if network.acl is None:
        return {name: texts for _, side in sides for name, texts in side.all_of([_ANYTHING]).items()}
    return _of(network.acl, sides)


def of_gateway(gateway: PrivateGateway, device: str) -> Elements:
    """Return the elements of one private gateway, which has maps of its own: its peers can have any address.

    :raises ValueError: as :func:`elements` does.
    """
    sides = (True, _Side(_head("in", device), "return")), (False, _Side(_head("out", device), "accept"))
    return _of(gateway.acl, sides)


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

    def __init__(self, name: str, passed: str, tier: Interval | None = None) -> None:
        self.name, self.passed = name, passed
        self.ours = f"{addresses(*tier)} . " if tier else ""

    def all_of(self, items: Sequence[AclItem]) -> Elements:
        """Return the elements of all three maps for rules that are in the order of their numbers."""
        ports = (text for name in _WITH_PORTS for text in self.write(items, _NUMBERS[name], _write_ports(name)))
        return {
            f"{self.name}_{PORTS}": list(ports),
            f"{self.name}_{ICMP}": self.write(items, _NUMBERS["icmp"], _write_icmp),
            f"{self.name}_{OTHER}": self.write(items, None, _write_protocol),
        }

    def write(self, items: Sequence[AclItem], protocol: int | None, head: Callable[[Box], list[str]]) -> list[str]:
        """Return the elements for one protocol, or for all that have neither ports nor types.

        :param items: by number.
        :param head: writes the first part of a key.
        """
        pieces: list[Piece] = []
        for rank, item in enumerate(items):
            what = f"Network ACL rule {item.number} {identity(item.id, 'The network ACL rule id') if item.id else ''}"
            service = _service(item, protocol, what)
            if service is not None:
                others = [cidr(other, f"The CIDR of {what}") for other in item.cidrs] or [EVERYONE]
                pieces += [((service, other), rank) for other in others]
        texts = []
        for box, rank in disjoint(pieces) if pieces else ():
            item = items[rank]
            pair = f"{self.ours}{addresses(*box[1])}"
            comment = f'counter comment "{item.id}" ' if item.id else ""
            verdict = self.passed if item.allow else "drop"
            texts += [f"{start} . {pair} {comment}: {verdict}" for start in head(box)]
        return texts


def _service(item: AclItem, protocol: int | None, what: str) -> Interval | None:
    """Return the ports, types or protocols of a rule as far as it concerns a protocol; None where it does not.

    :param protocol: None is all that have neither ports nor types.
    """
    number = _number(item.protocol, what)
    if protocol is None:
        if number is None:
            return _EVERY_PROTOCOL
        return None if number in _NUMBERS.values() else (number, number)
    if number is None:
        return _EVERY_TYPE if protocol == _NUMBERS["icmp"] else _EVERY_PORT
    if number != protocol:
        return None
    return icmp(item.start, item.end, what) if number == _NUMBERS["icmp"] else ports(item.start, item.end, what)


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
