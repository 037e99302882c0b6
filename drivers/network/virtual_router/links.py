"""Interfaces, addresses and routes.

A public range has its own gateway. The one of the source NAT address leads the main table; each other one has a table
of its own, which holds the connected networks too, so that a packet that is marked for it still finds the guests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Interface
from typing import Any

from drivers.network.virtual_router import elastic, ipv6, static_routes, subnets
from drivers.network.virtual_router.config import Interface, Links, Uplink
from drivers.network.virtual_router.syntax import MAC, address, matched, network, number
from drivers.vocabulary import ApplianceFacts, Network, Nic, PublicAddress

_FIRST_TABLE = 101
_STRICT, _LOOSE = "1", "2"


def devices(facts: ApplianceFacts) -> dict[str, str]:
    """Return the name of each interface by its MAC.

    :raises ValueError: two interfaces share a MAC or a position.
    """
    names: dict[str, str] = {}
    for nic in facts.nics:
        matched(MAC, nic.mac, "The MAC", "six pairs of lower case hex digits with colons between them")
        if nic.mac in names:
            raise ValueError(f"Two interfaces of {facts.name} have the MAC {nic.mac}.")
        names[nic.mac] = f"eth{int(nic.device)}"
    if len(set(names.values())) < len(names):
        raise ValueError(f"Two interfaces of {facts.name} have the same position: {sorted(names.values())}.")
    return names


def uplinks(facts: ApplianceFacts, names: Mapping[str, str]) -> dict[tuple[str, str], Uplink]:
    """Return the ways out by (MAC, gateway); the first is the main one."""
    ways = elastic.main_way(facts, names)
    ranges = [(item.nic, item.gateway) for item in ordered(facts.addresses)]
    ranges += (
        []
        if ways
        else [(nic.mac, nic.gateway) for nic in sorted(facts.nics, key=lambda nic: nic.device) if _public(nic)]
    )
    for mac, gateway in ranges:
        if gateway and (mac, gateway) not in ways:
            table = _FIRST_TABLE + len(ways) - 1 if ways else 0
            ways[mac, gateway] = Uplink(names[mac], address(gateway, "The gateway"), table)
    return ways


def ordered(addresses: Sequence[PublicAddress]) -> list[PublicAddress]:
    """Return public addresses with those of source NAT first: the first of a range carries its prefix."""
    return sorted(
        addresses, key=lambda item: (not item.source_nat, number(item.address, "The public address"), item.id)
    )


def _public(nic: Nic) -> bool:
    return nic.traffic == "Public"


def plan(
    facts: ApplianceFacts,
    names: Mapping[str, str],
    ways: Mapping[tuple[str, str], Uplink],
    inward: Sequence[Mapping[str, Any]] = (),
) -> Links:
    """Decide the router's interfaces, routes, routing rules and kernel settings.

    :param inward: routing rules that go before those for the marks of several uplinks.
    """
    nics, with_v6 = {nic.mac: nic for nic in facts.nics}, ipv6.served(facts)
    interfaces = tuple(
        Interface(nic.mac, names[nic.mac], _addresses(nic, facts), nic.mtu, _rate(nic, facts.networks))
        for nic in sorted(facts.nics, key=lambda nic: nic.device)
    )
    rules = (*(inward if len(ways) > 1 else ()), *_rules(facts, ways))
    routes = [*elastic.on_link(facts, ways), *_routes(interfaces, ways), *elastic.to_members(facts, names)]
    routes += [*static_routes.plan(facts, interfaces, ways), *subnets.routes(facts, names)]
    sysctls = _sysctls(interfaces, ways) | ({"net.ipv4.ip_forward": "0"} if subnets.only_serves(facts) else {})
    if not with_v6:
        return Links(interfaces, tuple(routes), rules, sysctls)
    interfaces = tuple(
        replace(item, addresses=item.addresses + ipv6.addresses(nics[item.mac], with_v6)) for item in interfaces
    )
    routes += ipv6.routes(facts.nics, names)  # a VPC has its way out before a tier with IPv6 is in use
    sysctls |= ipv6.sysctls([item.name for item in interfaces], forwards=not subnets.only_serves(facts))
    return Links(interfaces, tuple(routes), rules, sysctls)


def _addresses(nic: Nic, facts: ApplianceFacts) -> tuple[str, ...]:
    """Return the interface's addresses: one of each subnet with its prefix, the others alone."""
    found = [(item.address, item.prefix) for item in ordered(facts.addresses) if item.nic == nic.mac]
    if nic.address and nic.address not in {item.address for item in facts.addresses}:
        found.append((nic.address, nic.prefix))
    found += [
        (subnet.address, network(subnet.cidr, f"The CIDR of network {net.id}").prefixlen)
        for net in facts.networks
        for subnet in net.subnets
        if net.nic == nic.mac and ":" not in subnet.cidr and subnet.address != nic.address
    ]
    seen: dict[object, str] = {}
    texts: dict[str, None] = {}
    for item, prefix in found:
        subnet = IPv4Interface(f"{address(item, 'The address')}/{int(prefix)}").network
        texts[f"{item}/32" if subnet in seen else f"{item}/{prefix}"] = None
        seen.setdefault(subnet, item)
    inside = [rule.address for net in facts.networks if net.nic == nic.mac for rule in net.balancers if rule.internal]
    texts |= {f"{address(item, 'The address')}/32": None for item in sorted(inside)}
    return elastic.plain_addresses(tuple(texts), facts) if _public(nic) else tuple(texts)


def _rate(nic: Nic, networks: Sequence[Network]) -> int:
    """Return what may leave through an interface: downloads on the guests' side, uploads on the public one."""
    if nic.rate or nic.traffic == "Control":
        return nic.rate
    if not _public(nic):
        return next((network.rate for network in networks if network.nic == nic.mac), 0)
    rates = [network.rate for network in networks]
    return sum(rates) if all(rates) else 0


def _routes(interfaces: Sequence[Interface], ways: Mapping[tuple[str, str], Uplink]) -> list[dict[str, Any]]:
    routes: list[dict[str, Any]] = []
    for way in ways.values():
        route = {"to": "default", "via": way.gateway, "dev": way.device}
        if not way.table:
            routes.append(route)
            continue
        connected = [
            {"to": str(IPv4Interface(item).network), "dev": interface.name, "table": way.table}
            for interface in interfaces
            for item in interface.addresses
            if not item.endswith("/32")
        ]
        routes += [route | {"table": way.table}, *connected]
    return routes


def _rules(facts: ApplianceFacts, ways: Mapping[tuple[str, str], Uplink]) -> list[dict[str, Any]]:
    """Return the rules for what the router itself sends from an address, and for what the filter marked."""
    rules: list[dict[str, Any]] = [
        {"priority": 1000, "from": f"{item.address}/32", "table": ways[item.nic, item.gateway].table}
        for item in ordered(facts.addresses)
        if item.gateway and ways[item.nic, item.gateway].table
    ]
    rules += [{"priority": 1100, "fwmark": way.table, "table": way.table} for way in ways.values() if way.table]
    return rules


def _sysctls(interfaces: Sequence[Interface], ways: Mapping[tuple[str, str], Uplink]) -> dict[str, str]:
    settings = {
        "net.ipv4.ip_forward": "1",
        "net.ipv4.ip_nonlocal_bind": "1",
        "net.ipv4.conf.all.arp_ignore": "1",
        "net.ipv4.conf.all.arp_announce": "2",
        "net.ipv4.conf.all.accept_redirects": "0",
        "net.ipv4.conf.all.send_redirects": "0",
        "net.ipv4.conf.all.rp_filter": _STRICT if len(ways) < 2 else _LOOSE,
        "net.ipv6.conf.all.disable_ipv6": "1",
    }
    for interface in interfaces:
        settings[f"net.ipv4.conf.{interface.name}.accept_redirects"] = "0"
        settings[f"net.ipv4.conf.{interface.name}.send_redirects"] = "0"
    return settings
