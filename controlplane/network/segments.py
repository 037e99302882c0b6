"""Segments: the broadcast domains that a host must carry for what runs on it."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Select, and_, bindparam, func, or_, select
from sqlalchemy.orm import Session, joinedload

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.network import redundancy
from controlplane.network.networks import PROMISCUOUS, PVLAN, WITH_SCHEME, Network, Whole, uri_of
from controlplane.network.nics import Nic
from controlplane.network.private_gateways import PrivateGateway
from controlplane.network.private_vlans import below
from controlplane.network.public_ips import VlanRange
from controlplane.network.routers import Router
from controlplane.network.vpcs import Vpc
from controlplane.offering import port_policies
from controlplane.zone.hosts import Host
from controlplane.zone.physical_networks import PhysicalNetwork
from drivers.redundancy import shared_mac
from drivers.vocabulary import Segment

DEFAULT_MTU = 1500
"""Bytes that every public segment carries."""


def public_segment_id(zone_id: int, vlan: str) -> str:
    """Return the name of the segment that carries a zone's public addresses of this VLAN."""
    return f"public-{zone_id}-{vlan}"


def private_segment_id(physical_network_id: int, vlan: int) -> str:
    """Return the name of the segment that carries the private gateways of this VLAN or VNI."""
    return f"private-{physical_network_id}-{vlan}"


def serving_mac(whole: Whole, nic: Nic, vlan: VlanRange | None) -> str:
    """Return the MAC under which an interface of a redundant router serves: the one that both routers have there.

    :param vlan: the range of a public interface.
    """
    private = nic.private_gateway
    if nic.network is not None:
        where = nic.network.uuid
    elif private is not None:
        where = private_segment_id(private.physical_network_id, private.vlan)
    elif vlan is not None:
        where = public_segment_id(vlan.zone_id, vlan.vlan)
    else:
        return nic.mac
    return shared_mac(whole.uuid, where)


@cache
def _plugged() -> Select[Any]:
    """Return the query for a ``host``'s interfaces: its routers' own, and of its guests' one on each network."""
    host: Any = bindparam("host")
    guests = (
        select(func.min(Nic.id))
        .join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
        .where(VirtualMachine.host_id == host, VirtualMachine.removed.is_(None))
        .where(VirtualMachine.state.not_in(("Expunging", "Error")))
        .group_by(Nic.network_id)
    )
    # a router that is made in the dark has the interfaces of the one whose place it takes
    theirs = or_(Nic.router_id == Router.id, and_(Router.dark, Nic.router_id == Router.replaces_id))
    routers = select(Nic.id).join(Router, theirs)
    routers = routers.where(Router.host_id == host, Router.running, Router.removed.is_(None))
    query = select(Nic).where(Nic.id.in_(guests) | Nic.id.in_(routers))
    return query.options(joinedload(Nic.network).options(*WITH_SCHEME), joinedload(Nic.private_gateway))


def segment_facts(session: Session, host: Host) -> tuple[Segment, ...]:
    """Return the segments of all guests and routers that the host is to hold.

    What is being taken away counts no more, though its rows stay until that is done: nobody touches the host then.
    """
    nics = session.scalars(_plugged(), {"host": host.id}).all()
    sides = {guest_segment_id(nic.network, router=nic.vm_id is None): nic for nic in nics if nic.network is not None}
    used = {nic.range_id for nic in nics if nic.range_id}
    ranges = session.scalars(select(VlanRange).where(VlanRange.id.in_(used))).all()
    found = {_guest_segment(session, nic, host.hypervisor) for nic in sides.values() if _is_carried(nic)}
    gateways = {nic.private_gateway for nic in nics if nic.private_gateway is not None}
    found |= {_private_segment(gateway, host.hypervisor) for gateway in gateways}
    most = _greatest_public_mtu(session, host) if ranges else 0
    found |= {_public_segment(session, row, host.hypervisor)._replace(mtu=most) for row in ranges}
    for physical, name, number in redundancy.links(session, host):
        label = _label(physical, "Guest", host.hypervisor)
        found.add(Segment(name, f"{physical.isolation.lower()}://{number}", "Guest", label))
    return tuple(sorted(found))


def guest_segment_id(network: Network, *, router: bool) -> str:
    """Return the name of the segment that an interface on a guest network is plugged into.

    A router is on the promiscuous side of a private VLAN, whatever the role of the network that it serves.
    """
    if router and network.pvlan is not None and network.pvlan_role != PROMISCUOUS:
        return f"promiscuous-{network.physical_network_id}-{network.vnet}"
    return network.uuid


def _is_carried(nic: Nic) -> bool:
    return nic.network is not None and nic.network.vnet is not None


def _guest_segment(session: Session, nic: Nic, hypervisor: str) -> Segment:
    network = nic.network
    assert network is not None
    name = guest_segment_id(network, router=nic.vm_id is None)
    physical = network.physical_network
    label = _label(physical, "Guest", hypervisor)
    promiscuous = network.pvlan is not None and (name != network.uuid or network.pvlan_role == PROMISCUOUS)
    hub = port_policies.allows(network.offering.details, port_policies.PROMISCUOUS)
    uri = f"{PVLAN}://{network.vnet}-p{network.vnet}" if promiscuous else uri_of(network)
    return Segment(name, uri, "Guest", label, network.mtu, below(session, network) if promiscuous else (), hub)


def _greatest_public_mtu(session: Session, host: Host) -> int:
    """Return the MTU that the host's public segments need: that of the router which has the greatest."""
    here = Router.host_id == host.id, Router.removed.is_(None)
    of_networks = select(func.max(Network.public_mtu)).join(Router, Router.network_id == Network.id).where(*here)
    of_vpcs = select(func.max(Vpc.public_mtu)).join(Router, Router.vpc_id == Vpc.id).where(*here)
    return max(DEFAULT_MTU, *(session.scalar(query) or 0 for query in (of_networks, of_vpcs)))


def _public_segment(session: Session, row: VlanRange, hypervisor: str) -> Segment:
    physical = session.get_one(PhysicalNetwork, row.physical_network_id)
    uri = f"vlan://{row.vlan}"
    return Segment(public_segment_id(row.zone_id, row.vlan), uri, "Public", _label(physical, "Public", hypervisor))


def _private_segment(gateway: PrivateGateway, hypervisor: str) -> Segment:
    physical = gateway.physical_network
    scheme = "vxlan" if physical.isolation.upper() == "VXLAN" else "vlan"
    name = private_segment_id(physical.id, gateway.vlan)
    return Segment(name, f"{scheme}://{gateway.vlan}", "Guest", _label(physical, "Guest", hypervisor))


def _label(physical: PhysicalNetwork, traffic: str, hypervisor: str) -> str:
    for row in physical.traffic_types:
        if row.traffic == traffic:
            return row.label_for(hypervisor)
    return ""
