"""Static routes of a VPC: by the interface on whose network their next hop is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from drivers.network.virtual_router.config import Interface, Uplink
from drivers.network.virtual_router.syntax import address, identity, network
from drivers.vocabulary import ApplianceFacts


def plan(
    facts: ApplianceFacts, interfaces: Sequence[Interface], ways: Mapping[tuple[str, str], Uplink]
) -> list[dict[str, Any]]:
    """Decide the routes, in the main table and in that of each further uplink.

    A route whose next hop is on no interface waits until there is one: a tier has none while nothing runs on it.

    :raises ValueError: a route is none; the sentence names it.
    """
    routes: list[dict[str, Any]] = []
    for route in sorted(facts.vpc.routes) if facts.vpc else ():
        what = f"static route {identity(route.id, 'The static route id')}"
        to = str(network(route.cidr, f"The CIDR of {what}"))
        hop = address(route.next_hop, f"The next hop of {what}")
        device = _device(interfaces, hop)
        if device:
            entry = {"to": to, "via": hop, "dev": device}
            routes += [entry, *(entry | {"table": way.table} for way in ways.values() if way.table)]
    return routes


def _device(interfaces: Sequence[Interface], hop: str) -> str:
    for interface in interfaces:
        if any(IPv4Address(hop) in IPv4Interface(item).network for item in interface.addresses if "." in item):
            return interface.name
    return ""
