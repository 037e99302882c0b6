"""What a virtual router's packet filter is to be, decided: see :mod:`drivers.network.virtual_router.config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GuestSide:
    """One guest network, as the packet filter sees it.

    :param cidr: one, or a set of several in nft's syntax, as ``addresses``, which are the router's own on this network.
    :param address: the first of them.
    :param ports: TCP ports of the router that its guests may use, besides DNS.
    :param source_nat: the public address that its guests leave with; empty means that they leave with their own.
    :param mark: of the uplink that they leave through; 0 is the main one.
    :param routed: guests are reached by their own addresses; ``guarded`` says that rules open what may come in.
    :param elastic: the operator's gateway is here too, and leads wherever no public address of a guest has to be.
    """

    id: str
    device: str
    cidr: str
    address: str
    addresses: str
    egress_allow: bool
    dhcp: bool
    dns: bool
    ports: tuple[int, ...]
    source_nat: str
    mark: int
    routed: bool = False
    guarded: bool = True
    elastic: bool = False


@dataclass(frozen=True, slots=True)
class TunnelSide:
    """One WireGuard tunnel, as the packet filter sees it.

    :param listen: the public address, and ``port`` the UDP port, that it answers on.
    :param address: the router's own in the tunnel.
    :param mss: the largest TCP segment (RFC 9293) that fits through it, in bytes.
    """

    device: str
    listen: str
    port: int
    address: str
    mss: int


@dataclass(frozen=True, slots=True)
class GuestSide6:
    """One guest network's IPv6, as the packet filter sees it.

    :param alone: the network has no IPv4: nothing else counts its bytes.
    :param address: the router's own on this network; guests reach it by its link-local ones, too.
    :param guarded: closed from outside until a rule opens it.
    :param ports: TCP ports of the router that its guests may use, besides DNS.
    """

    id: str
    device: str
    cidr: str
    address: str
    alone: bool
    egress_allow: bool
    guarded: bool
    dhcp: bool
    dns: bool
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GatewaySide:
    """One private gateway of a VPC, as the packet filter sees it.

    :param source_nat: the address that what leaves by it has; empty is its own.
    """

    device: str
    address: str
    source_nat: str


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The packet filter: the values of its skeleton, and the elements of its sets and maps by name.

    :param vpc: the guest networks are the tiers of a VPC: network ACLs say who may talk to whom. It is the VPC's CIDR.
    :param ipsec: it has IPsec tunnels.
    :param uncounted: the traffic of some addresses outside is not counted.
    :param bgp: it speaks BGP.
    :param link: the interface to a redundant router's other half; empty where there is none.
    """

    publics: tuple[str, ...]
    guests: tuple[GuestSide, ...]
    counters: tuple[str, ...]
    marked: bool
    vpc: str
    elements: Mapping[str, tuple[str, ...]]
    tunnels: tuple[TunnelSide, ...] = ()
    guests6: tuple[GuestSide6, ...] = ()
    ipsec: bool = False
    gateways: tuple[GatewaySide, ...] = ()
    uncounted: bool = False
    link: str = ""
    bgp: bool = False
