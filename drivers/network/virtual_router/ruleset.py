"""The packet filter as a whole: the values of its skeleton and all elements.

Only interfaces, networks, addresses and their defaults are in the skeleton: an ordinary rule never changes it, so that
the agent can send the kernel just the elements that came and went.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import collapse_addresses
from itertools import chain

from drivers.network.virtual_router import acl, balancing, bgp, elastic, filters, ipsec, ipv6, nat, subnets, wireguard
from drivers.network.virtual_router.config import Uplink
from drivers.network.virtual_router.filter_config import GatewaySide, GuestSide, Ruleset
from drivers.network.virtual_router.links import ordered
from drivers.network.virtual_router.syntax import address, addresses, cidr, identity, network
from drivers.vocabulary import ApplianceFacts, Network, Nic, PublicAddress

METADATA_PORTS = (80, 8080)
"""User data and the password server, as guests know them of CloudStack."""

UNCOUNTED = "network.usage.excluded.cidrs"
"""The setting that names the addresses outside whose traffic is not counted."""

_SETS = (
    "balanced", "balanced_in", "balanced_out", "bytes_in", "bytes_out",
    "dnat_ports", "dnat_ranges", "dnat_source_ports", "dnat_source_ranges", "dnat_static", "dnat_turns", "dnat_hashed",
    "egress_all", "egress_icmp", "egress_ports", "guarded", "ingress_all", "ingress_icmp", "ingress_open",
    "ingress_ports", "public", "snat_static", "uplink_from", "uplink_of",
)  # fmt: skip


def plan(facts: ApplianceFacts, names: Mapping[str, str], ways: Mapping[tuple[str, str], Uplink]) -> Ruleset:
    """Decide the packet filter.

    :raises ValueError: a rule cannot be; the sentence names it.
    """
    known = {address(item.address, "The public address"): item for item in facts.addresses}
    nics = {nic.mac: nic for nic in facts.nics}
    marks = {item.address: ways[item.nic, item.gateway].table if item.gateway else 0 for item in facts.addresses}
    guests = tuple(_guest(net, nics[net.nic], names, facts, marks) for net in _sorted(facts) if net.cidr)
    tunneled = ipsec.elements(facts) if facts.tunnels or facts.remote_access else {}
    with_v6, tunnels = ipv6.served(facts), wireguard.sides(facts)
    extra = tunneled | (uncounted := _uncounted(facts)) | filters.routed(facts) | (peers := bgp.elements(facts))
    extra |= elastic.elements(facts)
    rules = _rules(facts, known, names)
    elements = nat.merged([_addresses(facts, known), _marks(facts, marks), *rules, ipv6.elements(with_v6), extra])
    gateways = _gateways(facts, names)
    sets = _SETS + (ipv6.SETS if with_v6 else ()) + (wireguard.SETS if tunnels else ()) + tuple(extra)
    sets += acl.MAPS if facts.vpc is not None else ()
    sets += acl.MAPS6 if facts.vpc is not None and with_v6 else ()
    sets += tuple(name for gateway in gateways for name in acl.maps(gateway.device))
    counted = [item.id for item in facts.addresses] + [net.id for net in facts.networks]
    return Ruleset(
        publics=tuple(sorted(names[nic.mac] for nic in facts.nics if nic.traffic == "Public")),
        guests=guests,
        counters=tuple(sorted({way + counter(item) for item in counted for way in ("in_", "out_")})),
        marked=len(ways) > 1,
        vpc=str(network(facts.vpc.cidr, "The VPC's CIDR")) if facts.vpc else "",
        gateways=gateways,
        elements={name: tuple(sorted(dict.fromkeys(elements.get(name, ())))) for name in sets},  # mostly sorted already
        tunnels=tunnels,
        ipsec=bool(tunneled),
        uncounted=bool(uncounted),
        bgp=bool(peers),
        link=names.get(facts.redundancy.nic, "") if facts.redundancy else "",
        guests6=ipv6.guests(with_v6, names, METADATA_PORTS),
    )


def _uncounted(facts: ApplianceFacts) -> filters.Elements:
    """Return the set of the addresses outside whose traffic is not counted; nothing where all is."""
    listed = dict(facts.settings).get(UNCOUNTED, "")
    blocks = [network(item.strip(), f"The setting {UNCOUNTED}") for item in listed.split(",") if item.strip()]
    whole = [addresses(int(block[0]), int(block[-1])) for block in collapse_addresses(blocks)]
    return {"uncounted": whole} if whole else {}


def counter(item: str) -> str:
    """Return what follows ``in_`` and ``out_`` in the names of the byte counters of a network or an address."""
    return identity(item, "The id").replace("-", "")


def _sorted(facts: ApplianceFacts) -> list[Network]:
    return sorted(facts.networks, key=lambda net: net.id)


def _rules(
    facts: ApplianceFacts, known: Mapping[str, PublicAddress], names: Mapping[str, str]
) -> list[filters.Elements]:
    """Return the elements of the rules, of the services that this provider gives each network.

    Networks may share a public address, so what hangs on one is decided for all of them together.
    """
    nets = {
        service: [net for net in _sorted(facts) if service in net.services and net.cidr]
        for service in ("Firewall", "PortForwarding", "StaticNat", "Lb")
    }
    return [
        filters.ingress(tuple(chain.from_iterable(net.ingress for net in nets["Firewall"])), known),
        *(filters.egress(net) for net in nets["Firewall"]),
        nat.forwards(nets["PortForwarding"], known),
        nat.static(nets["StaticNat"], known),
        balancing.elements({counter(net.id): net for net in nets["Lb"]}, known),
        *(acl.elements(net) for net in _sorted(facts) if facts.vpc is not None),
        *(acl.of_gateway(gateway, names[gateway.nic]) for gateway in (facts.vpc.gateways if facts.vpc else ())),
        wireguard.elements(facts),
    ]


def _gateways(facts: ApplianceFacts, names: Mapping[str, str]) -> tuple[GatewaySide, ...]:
    found = []
    for gateway in facts.vpc.gateways if facts.vpc else ():
        own = address(gateway.address, f"The address of private gateway {identity(gateway.id, 'The gateway')}")
        found.append(GatewaySide(names[gateway.nic], own, own if gateway.source_nat else ""))
    return tuple(sorted(found, key=lambda gateway: gateway.device))


def _guest(
    net: Network, nic: Nic, names: Mapping[str, str], facts: ApplianceFacts, marks: Mapping[str, int]
) -> GuestSide:
    within = subnets.of(net, nic)
    leaving, leads = "", net.elastic is not None and net.elastic.way_out
    if "SourceNat" in net.services and not net.routed:
        own = [item for item in ordered(facts.addresses) if item.source_nat and item.network in (net.id, "")]
        leaving = min(own, key=lambda item: item.network != net.id).address if own else ""
    return GuestSide(
        id=counter(net.id),
        device=names[net.nic],
        cidr=subnets.text_of([subnet.cidr for subnet in within]),
        address=address(nic.address, f"The router's address on network {net.id}"),
        addresses=subnets.text_of([subnet.address for subnet in within]),
        egress_allow=net.egress_allow or leads,
        dhcp="Dhcp" in net.services,
        dns="Dns" in net.services,
        ports=METADATA_PORTS if "UserData" in net.services else (),
        source_nat=leaving,
        mark=marks.get(leaving, 0),
        routed=net.routed,
        guarded="Firewall" in net.services,
        elastic=leads,
    )


def _addresses(facts: ApplianceFacts, known: Mapping[str, PublicAddress]) -> filters.Elements:
    """Return the elements that depend on the addresses alone.

    An address is guarded, that is closed until a rule opens it, unless somebody else is the firewall of its network,
    or it is a VPC's, whose tiers have network ACLs.
    """
    filtered = {net.id for net in facts.networks if "Firewall" in net.services}
    others = {net.id for net in facts.networks} - filtered
    guarded = [
        item.address
        for item in known.values()
        if facts.vpc is None and item.network not in others and (item.network or filtered or not others)
    ]
    return {
        "public": list(known),
        "guarded": guarded,
        "bytes_in": [f'{item.address} : "in_{counter(item.id)}"' for item in known.values()],
        "bytes_out": [f'{item.address} : "out_{counter(item.id)}"' for item in known.values()],
    }


def _marks(facts: ApplianceFacts, marks: Mapping[str, int]) -> filters.Elements:
    """Return which uplink a public address, or a guest with static NAT, belongs to, where there are several."""
    if not any(marks.values()):
        return {}
    lowest: dict[str, str] = {}
    statics: Sequence[tuple[int, str, str]] = sorted(
        (cidr(rule.address, "The static NAT address")[0], rule.address, rule.guest)
        for net in facts.networks
        if "StaticNat" in net.services
        for rule in net.static_nats
    )
    for _, public, guest in statics:
        lowest.setdefault(guest, public)
    return {
        "uplink_of": [f"{public} : {mark}" for public, mark in marks.items()],
        "uplink_from": [f"{guest} : {marks.get(public, 0)}" for guest, public in lowest.items()],
    }
