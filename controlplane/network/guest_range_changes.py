"""Changing and deleting the ranges of a Shared network: no guest loses its address, and no subnet its router."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network, ip_address
from types import SimpleNamespace
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.errors import InUse
from controlplane.network.guest_ranges import ranges_of, subnet_of
from controlplane.network.ipv6 import ends_of
from controlplane.network.networks import Network
from controlplane.network.nics import NetworkAddress, Nic
from controlplane.network.pod_networks import by_pods
from controlplane.network.pod_ranges import refuse_outside
from controlplane.network.public_ips import VlanRange
from controlplane.network.shared_networks import Addresses, check6, settle
from controlplane.network.vlan_ranges import Span
from controlplane.zone.pods import Pod

_COLUMNS = {
    "gateway": "gateway",
    "netmask": "netmask",
    "startip": "start_ip",
    "endip": "end_ip",
    "ip6gateway": "gateway6",
    "ip6cidr": "cidr6",
    "startipv6": "start_ip6",
    "endipv6": "end_ip6",
}
"""What each parameter of updateVlanIpRange is of a range."""


def guests_in(session: Session, row: VlanRange) -> dict[str, str]:
    """Return whose the addresses of a range are: address → the name of the machine."""
    query = select(NetworkAddress.address, VirtualMachine.name).join(Nic, NetworkAddress.nic_id == Nic.id)
    query = query.join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
    here = session.execute(query.where(NetworkAddress.network_id == row.network_id))
    return {address: name for address, name in here if holds(row, address)}


def holds(row: VlanRange, address: str) -> bool:
    """Tell whether an address, of either family, is one of the range's."""
    wanted = ip_address(address)
    if isinstance(wanted, IPv6Address):
        return bool(row.cidr6) and ends_of(row)[0] <= wanted <= ends_of(row)[1]
    return bool(row.gateway) and int(ip_address(row.start_ip)) <= int(wanted) <= int(ip_address(row.end_ip))


def _named(guests: dict[str, str]) -> str:
    return ", ".join(f"{name} has {address}" for address, name in sorted(guests.items())[:10])


def remove_range(session: Session, row: VlanRange) -> Network:
    """Delete a range of a Shared network.

    :return: the network, whose router is to learn of it.
    :raises InUse: guests have addresses of it, or it is the network's only one.
    """
    network = session.get_one(Network, row.network_id)
    what = f"The range {row.start_ip or row.cidr6} of network {network.name} cannot be deleted:"
    if guests := guests_in(session, row):
        raise InUse(f"{what} {_named(guests)}.")
    others = [other for other in ranges_of(session, network) if other.id != row.id]
    if not others and not by_pods(network):
        raise InUse(f"{what} it is the network's only one; delete the network.")
    if row.router_ip:
        heirs = (other for other in others if other.gateway and other.pod_id == row.pod_id)
        heir = next((other for other in heirs if subnet_of(other) == subnet_of(row)), None)
        if heir is not None:
            heir.router_ip, row.router_ip = row.router_ip, ""
    _let_go(session, row)
    session.delete(row)
    session.flush()
    settle(session, network)
    return network


def change_range(session: Session, row: VlanRange, asked: Any) -> Network:
    """Widen or narrow a range of a Shared network, or give it another subnet while no guest has an address of it.

    :param asked: the updateVlanIpRange.
    :return: the network, whose router is to learn of it.
    :raises InUse: guests would lose their addresses, or their gateway; they are named.
    """
    network, guests = session.get_one(Network, row.network_id), guests_in(session, row)
    before = row.gateway, row.netmask, row.cidr6
    merged = {name: getattr(asked, name) or getattr(row, column) or None for name, column in _COLUMNS.items()}
    addresses = Addresses.of(SimpleNamespace(**merged))
    if addresses.span6 is not None:
        check6(network, addresses.span6, replaces=bool(row.cidr6))
    refuse_outside(session, session.get(Pod, row.pod_id) if row.pod_id is not None else None, addresses.span)
    keeps = not row.router_ip or (addresses.span is not None and _fits(row.router_ip, addresses.span))
    addresses.write(session, row)
    lost = {address: name for address, name in guests.items() if not holds(row, address)}
    if lost or (guests and (row.gateway, row.netmask, row.cidr6) != before):
        raise InUse(f"The range of network {network.name} must keep what its guests have: {_named(lost or guests)}.")
    if not keeps or (row.router_ip6 and IPv6Address(row.router_ip6) not in IPv6Network(row.cidr6 or "")):
        _let_go(session, row)
    session.flush()
    settle(session, network)
    return network


def _fits(address: str, span: Span) -> bool:
    return ip_address(address) in span.subnet and address != span.gateway


def _let_go(session: Session, row: VlanRange) -> None:
    """Free the addresses that the router has in the range's subnets."""
    own = NetworkAddress.address.in_([row.router_ip, row.router_ip6])
    session.execute(delete(NetworkAddress).where(NetworkAddress.network_id == row.network_id, own))
    row.router_ip = row.router_ip6 = ""
