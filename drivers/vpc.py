"""The nouns of VPCs that the control plane and its drivers share: facts, as frozen plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class AclItem(NamedTuple):
    """One rule of a network ACL (createNetworkACL): the lowest number that matches a new connection decides.

    :param allow: or deny.
    :param ingress: to the tier; else from it.
    :param protocol: ``tcp``, ``udp``, ``icmp``, ``all``, or a protocol's number.
    :param start: first port, or the ICMP type (-1 is any).
    :param end: last port, or the ICMP code (-1 is any).
    :param cidrs: the other end: sources of ingress, destinations of egress; empty is everywhere.
    """

    id: str
    number: int
    allow: bool
    ingress: bool
    protocol: str
    start: int = -1
    end: int = -1
    cidrs: tuple[str, ...] = ()


class StaticRoute(NamedTuple):
    """createStaticRoute: a CIDR outside of the VPC, and the address that leads there."""

    id: str
    cidr: str
    next_hop: str


@dataclass(frozen=True, slots=True)
class PrivateGateway:
    """createPrivateGateway: the VPC's interface on a network of the operator's.

    :param nic: the MAC of that interface, ``address`` its address.
    :param source_nat: what leaves through it has its address.
    :param acl: the rules of what comes in by it (ingress) and leaves by it (egress).
    """

    id: str
    nic: str
    address: str
    source_nat: bool = False
    acl: tuple[AclItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Vpc:
    """The VPC that an appliance serves.

    :param cidr: of all its tiers, which are the appliance's networks.
    """

    id: str
    name: str
    cidr: str
    domain: str
    gateways: tuple[PrivateGateway, ...] = ()
    routes: tuple[StaticRoute, ...] = ()
