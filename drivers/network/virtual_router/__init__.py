"""The virtual router: facts of one appliance in, files and set elements out.

What must stay true: nothing here reads a clock, a file (templates aside), a database or a random number, and no order
of rows changes a byte; every string that ends in a daemon's file was checked on the way; a rule is an element, so the
packet filter's skeleton changes with interfaces, networks and addresses only.
"""

from __future__ import annotations

from drivers.network.virtual_router import (
    balancing,
    bgp,
    dhcp,
    ipsec,
    l2tp,
    links,
    metadata,
    redundancy,
    ruleset,
    wireguard,
)
from drivers.network.virtual_router.capabilities import CAPABILITIES, OF_INTERNAL_BALANCERS, OF_VPCS
from drivers.network.virtual_router.config import RouterConfig
from drivers.network.virtual_router.render import render
from drivers.protocol import Capabilities
from drivers.vocabulary import ApplianceFacts
from systemvm.bundle import Elements, File

__all__ = ["InternalLbVm", "VirtualRouter", "VpcVirtualRouter"]


class VirtualRouter:
    """The provider ``VirtualRouter``: a Linux machine or namespace with nft, dnsmasq, haproxy, WireGuard, metadata."""

    name = "VirtualRouter"
    kind = "router"
    capabilities: Capabilities = CAPABILITIES

    def plan(self, facts: ApplianceFacts) -> RouterConfig:
        """Decide what the router is to be.

        :raises ValueError: the facts ask for what cannot be, or hold a string that no file may hold; the sentence
            names it.
        """
        names = links.devices(facts)
        for network in facts.networks:
            if network.nic not in names:
                raise ValueError(f"{facts.name} has no interface {network.nic} for network {network.id}.")
        for item in facts.addresses:
            if item.nic not in names:
                raise ValueError(f"{facts.name} has no interface {item.nic} for the public address {item.address}.")
        ways = links.uplinks(facts, names)
        tunnels = wireguard.plan(facts, {item.address: item for item in facts.addresses}, ways)
        wires = redundancy.shared(facts, links.plan(facts, names, ways, wireguard.routing_rules(tunnels or ())))
        pair, conntrackd = redundancy.plan(facts, names, wires)
        return RouterConfig(
            links=wires,
            ruleset=ruleset.plan(facts, names, ways),
            dnsmasq=dhcp.plan(facts, names),
            haproxy=balancing.plan(facts),
            metadata=metadata.plan(facts, names),
            wireguard=tunnels,
            ipsec=ipsec.plan(facts),
            l2tp=l2tp.plan(facts),
            redundancy=pair,
            conntrackd=conntrackd,
            bgp=bgp.plan(facts),
        )

    def render(self, config: RouterConfig) -> tuple[tuple[File, ...], tuple[Elements, ...]]:
        """Write it down."""
        return render(config)


class VpcVirtualRouter(VirtualRouter):
    """The provider ``VpcVirtualRouter``: the same router, serving all tiers of a VPC."""

    name = "VpcVirtualRouter"
    capabilities: Capabilities = OF_VPCS


class InternalLbVm(VirtualRouter):
    """The provider ``InternalLbVm``: load balancing between the tiers of a VPC, done by the VPC's own router."""

    name = "InternalLbVm"
    capabilities: Capabilities = OF_INTERNAL_BALANCERS
