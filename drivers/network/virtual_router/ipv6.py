"""IPv6 of the guests: addresses, the way out, advertised prefixes, and rules as set elements.

Nothing is translated: a guest is known outside by its own address, so rules of both directions name guests and
strangers alike, and the upstream has a route to each network's /64 by the router's public address. All of it is in
chains and sets of its own, which a router without IPv6 does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from drivers.intervals import Interval, Piece, disjoint
from drivers.network.virtual_router.config import Prefix
from drivers.network.virtual_router.filter_config import GuestSide6
from drivers.network.virtual_router.filters import Elements, service, written
from drivers.network.virtual_router.syntax import (
    EVERYONE6,
    address6,
    addresses6,
    cidr6,
    identity,
    network6,
)
from drivers.vocabulary import ApplianceFacts, Ipv6Rule, Network, Nic

METADATA_ADDRESS = "fe80::a9fe:a9fe"
"""Where guests find their metadata on their own link, whatever their network's prefix (OpenStack has it there too)."""

SETS = tuple(f"{way}_{kind}6" for way in ("egress", "ingress") for kind in ("all", "icmp", "ports"))
_LEAST_MTU = 1280


def served(facts: ApplianceFacts) -> list[Network]:
    """Return the networks that have IPv6, in a fixed order.

    :raises ValueError: a prefix, a gateway or an MTU cannot be.
    """
    found = [net for net in sorted(facts.networks, key=lambda net: net.id) if net.cidr6]
    for net in found:
        block = network6(net.cidr6, f"The IPv6 CIDR of network {net.id}")
        own = address6(net.gateway6, f"The IPv6 gateway of network {net.id}")
        if block.prefixlen != 64 or network6(f"{own}/64", "The gateway").network_address != block.network_address:
            raise ValueError(f"Network {net.id} has the IPv6 gateway {own} and CIDR {block}: a /64 must hold it.")
        if net.mtu < _LEAST_MTU:
            raise ValueError(f"The MTU of network {net.id} is {net.mtu}: IPv6 needs {_LEAST_MTU} at least (RFC 8200).")
    return found


def addresses(nic: Nic, nets: Sequence[Network]) -> tuple[str, ...]:
    """Return the IPv6 addresses of one of the router's interfaces, with their lengths."""
    found = [f"{address6(nic.address6, 'The address')}/{int(nic.prefix6)}"] if nic.address6 else []
    for net in nets:
        if net.nic == nic.mac:
            found.append(f"{address6(net.gateway6, 'The gateway')}/64")
            found += [f"{METADATA_ADDRESS}/64"] if "UserData" in net.services else []
    return tuple(dict.fromkeys(found))


def routes(nics: Sequence[Nic], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the default route: by the first interface that has an IPv6 gateway."""
    ways = sorted((nic.device, nic.mac, nic.gateway6) for nic in nics if nic.gateway6)
    return [
        {"to": "::/0", "via": address6(gateway, "The IPv6 gateway"), "dev": names[mac]} for _, mac, gateway in ways[:1]
    ]


def sysctls(interfaces: Sequence[str], *, forwards: bool) -> dict[str, str]:
    """Return the kernel's settings of a router with IPv6, which learns nothing from its neighbours' adverts."""
    settings = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.all.forwarding": str(int(forwards))}
    for name in interfaces:
        # its addresses are unique by the control plane's tables, and must serve from the moment they are there
        settings |= {f"net.ipv6.conf.{name}.accept_dad": "0", f"net.ipv6.conf.{name}.accept_ra": "0"}
    return settings


def guests(nets: Sequence[Network], names: Mapping[str, str], ports: tuple[int, ...]) -> tuple[GuestSide6, ...]:
    """Decide what the packet filter has of each network."""
    return tuple(
        GuestSide6(
            id=identity(net.id, "The id").replace("-", ""),
            device=names[net.nic],
            cidr=str(network6(net.cidr6, "The IPv6 CIDR")),
            address=address6(net.gateway6, "The gateway"),
            alone=not net.cidr,
            egress_allow=net.egress_allow,
            guarded="Firewall" in net.services,
            dhcp="Dhcp" in net.services,
            dns="Dns" in net.services,
            ports=ports if "UserData" in net.services else (),
        )
        for net in nets
    )


def prefix(net: Network, names: Mapping[str, str], domain: str, upstreams: tuple[str, ...]) -> Prefix:
    """Decide what a network's guests are told of IPv6.

    :param domain: the network's, checked.
    :param upstreams: the resolvers that they are told where the router itself is none.
    """
    block = network6(net.cidr6, "The IPv6 CIDR")
    return Prefix(
        tag=f"{names[net.nic]}v6",
        device=names[net.nic],
        start=str(block.network_address),
        length=block.prefixlen,
        domain=domain,
        resolvers=(address6(net.gateway6, "The gateway"),) if "Dns" in net.services else upstreams,
        mtu=net.mtu,
        dhcp="Dhcp" in net.services,
        leads=not net.subnets,
        slaac=all(subnet.slaac for subnet in net.subnets),
    )


def elements(nets: Sequence[Network]) -> Elements:
    """Return the elements of the sets of both directions; none where no network has IPv6.

    :raises ValueError: a rule names a protocol, port or CIDR that there cannot be.
    """
    found: Elements = {name: [] for name in SETS} if nets else {}
    for net in nets:
        if "Firewall" in net.services:
            block = cidr6(net.cidr6, "The IPv6 CIDR")
            for direction, rules in (("ingress", net.ingress6), ("egress", net.egress6)):
                for name, items in _elements(direction, rules, block).items():
                    found[name] += items
    return found


def _elements(direction: str, rules: Sequence[Ipv6Rule], block: Interval) -> Elements:
    """Return one direction's elements: (ports or types,) sources, destinations; the guests' end is in their block."""
    ordered = sorted(rules)
    groups: dict[str, list[Piece]] = {}
    for rank, rule in enumerate(ordered):
        what = f"IPv6 rule {identity(rule.id, 'The IPv6 rule id')}"
        head = service(rule, what)
        near, far = (rule.destinations, rule.sources) if direction == "ingress" else (rule.sources, rule.destinations)
        inner = [_inside(block, item, what) for item in near] or [block]
        outer = [cidr6(item, f"The CIDR of {what}") for item in far] or [EVERYONE6]
        ends = [(a, b) if direction == "egress" else (b, a) for a in inner for b in outer]
        groups.setdefault(rule.protocol, []).extend(((*head, *end), rank) for end in ends)
    found: Elements = {}
    for protocol, boxes in groups.items():
        name, write = written(protocol, direction)
        found.setdefault(f"{name}6", []).extend(
            f'{text} counter comment "{ordered[rank].id}"'
            for box, rank in disjoint(boxes)
            for text in write(protocol, box[:-2], (addresses6(*box[-2]), addresses6(*box[-1])))
        )
    return found


def _inside(block: Interval, item: str, what: str) -> Interval:
    """Return the part of a CIDR that is in the network's block.

    :raises ValueError: there is no such part.
    """
    first, last = cidr6(item, f"The CIDR of {what}")
    if last < block[0] or block[1] < first:
        raise ValueError(f"{what} names {item}, which is not on its network, {addresses6(*block)}.")
    return max(first, block[0]), min(last, block[1])
