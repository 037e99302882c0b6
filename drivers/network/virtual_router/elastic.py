"""Elastic addresses: a router that is the gateway of a shared network's guests, beside the operator's own gateway.

A guest with a public address leaves with it, and by the public side; every other packet goes on to the operator's
gateway as it came. That gateway leads to the guests without this router, so of many connections only one half is seen
here: such packets are passed on whatever connection tracking makes of them, and nothing of them is translated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Interface, collapse_addresses
from typing import Any

from drivers.network.virtual_router.config import Uplink
from drivers.network.virtual_router.syntax import address, addresses, network
from drivers.vocabulary import ApplianceFacts, Network

INSIDE = "inside"
"""The set of the CIDRs where guests are known by their own addresses."""


def served(facts: ApplianceFacts) -> Network | None:
    """Return the network whose guests' gateway this router is; None where there is none."""
    return next((net for net in facts.networks if net.elastic is not None and net.elastic.way_out), None)


def main_way(facts: ApplianceFacts, names: Mapping[str, str]) -> dict[tuple[str, str], Uplink]:
    """Return the operator's gateway as the main way out, by (MAC, gateway); nothing where the public side is that."""
    net = served(facts)
    if net is None or net.elastic is None:
        return {}
    gateway = address(net.elastic.gateway, f"The gateway of network {net.id}")
    return {(net.nic, net.elastic.gateway): Uplink(names[net.nic], gateway, 0)}


def inside(net: Network) -> list[str]:
    """Return the CIDRs where guests are known by their own addresses, as few as hold them all."""
    assert net.elastic is not None
    blocks = [network(item, f"The CIDR inside of network {net.id}") for item in net.elastic.inside]
    return [str(block) for block in collapse_addresses(blocks)]


def elements(facts: ApplianceFacts) -> dict[str, list[str]]:
    """Return the set ``inside``; nothing where the router is nobody's gateway."""
    net = served(facts)
    if net is None:
        return {}
    blocks = [network(item, "The CIDR inside") for item in inside(net)]
    return {INSIDE: [addresses(int(block[0]), int(block[-1])) for block in blocks]}


def on_link(facts: ApplianceFacts, ways: Mapping[tuple[str, str], Uplink]) -> list[dict[str, Any]]:
    """Return the public subnets, each on its link in its own table only.

    In the main table they would draw what guests without a public address send there, and send it untranslated.
    """
    if served(facts) is None:
        return []
    found = {}
    for item in facts.addresses:
        way = ways[item.nic, item.gateway]
        subnet = str(IPv4Interface(f"{item.address}/{int(item.prefix)}").network)
        found[subnet, way.table] = {"to": subnet, "dev": way.device, "table": way.table}
    return [found[key] for key in sorted(found)]


def to_members(facts: ApplianceFacts, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the routes to members in other pods, of an appliance that only balances."""
    routes: list[dict[str, Any]] = []
    for net in facts.networks:
        if net.elastic is None or net.elastic.way_out:
            continue
        own = str(network(net.cidr, f"The CIDR of network {net.id}"))
        via = address(net.elastic.gateway, f"The gateway of network {net.id}")
        routes += [{"to": block, "via": via, "dev": names[net.nic]} for block in inside(net) if block != own]
    return routes


def plain_addresses(texts: Sequence[str], facts: ApplianceFacts) -> tuple[str, ...]:
    """Return a public interface's addresses, without their subnets where these are in a table of their own."""
    return tuple(f"{text.partition('/')[0]}/32" for text in texts) if served(facts) else tuple(texts)
