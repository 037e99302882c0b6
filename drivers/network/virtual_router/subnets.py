"""Shared networks: several subnets on one link, whose gateways are the operator's.

The router has an address in each, serves DHCP, names and user data there, and forwards nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

from drivers.network.virtual_router.syntax import address, address6, network
from drivers.vocabulary import ApplianceFacts, GuestSubnet, Network, Nic


def of(net: Network, nic: Nic) -> tuple[GuestSubnet, ...]:
    """Return the network's IPv4 subnets, checked: the one that it is, unless it has several of the operator's.

    :param nic: the router's interface on the network.
    :raises ValueError: one of them cannot be.
    """
    if not net.cidr:
        return ()
    found = tuple(subnet for subnet in net.subnets if ":" not in subnet.cidr)
    what = f"of network {net.id}"
    for subnet in found or (own := (GuestSubnet(net.cidr, net.gateway, nic.address),)):
        block, mine = network(subnet.cidr, f"The CIDR {what}"), address(subnet.address, f"The router's address {what}")
        if found and IPv4Address(mine) not in block:
            raise ValueError(f"The router's address {mine} {what} is not in {block}.")
        if subnet.gateway:
            address(subnet.gateway, f"The gateway {what}")
    return found or own


def text_of(items: list[str]) -> str:
    """Write one item as it is, several as a set."""
    return items[0] if len(items) == 1 else f"{{ {', '.join(items)} }}"


def only_serves(facts: ApplianceFacts) -> bool:
    """Tell whether the router is nobody's gateway: then nothing passes it."""
    own = all(net.subnets and net.elastic is None for net in facts.networks)
    return bool(facts.networks) and own and facts.vpc is None


def routes(facts: ApplianceFacts, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the default routes of a router that only serves, to the resolvers that it asks: by the first gateways."""
    if not only_serves(facts):
        return []
    found: dict[str, dict[str, Any]] = {}
    for net in facts.networks:
        for subnet in net.subnets:
            six = ":" in subnet.cidr
            via = (address6 if six else address)(subnet.gateway, f"The gateway of network {net.id}")
            found.setdefault("::/0" if six else "default", {"via": via, "dev": names[net.nic]})
    return [{"to": to} | way for to, way in found.items()]
