"""Reserved addresses: guests get addresses of a part of their network only, the rest is its owner's to use.

The router, the netmask and the gateway stay those of the whole network; only who gets which address changes.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.errors import BadParameter
from controlplane.network.guest_ranges import SHARED, ranges_of, subnets
from controlplane.network.networks import Network
from controlplane.network.nics import NetworkAddress, Nic

LONGEST_PREFIX = 30
"""Two guests."""


def reserve(session: Session, network: Network, guest_cidr: str) -> None:
    """Keep guests of the network to a part of it; the whole network's CIDR ends that.

    :raises BadParameter: it is no part of the network, or guests have addresses outside of it; they are named.
    """
    wrong = f"Invalid parameter guestvmcidr value={guest_cidr}:"
    if network.cidr is None:
        raise BadParameter(f"{wrong} network {network.name} has no IPv4 addresses to reserve of.")
    if network.guest_type == SHARED and len(subnets(ranges_of(session, network))) > 1:
        raise BadParameter(f"{wrong} network {network.name} has several subnets; change their ranges instead.")
    whole = IPv4Network(network.cidr)
    try:
        part = IPv4Network(guest_cidr.strip())
    except ValueError:
        part = None
    if part is None or not part.subnet_of(whole) or part.prefixlen > LONGEST_PREFIX:
        raise BadParameter(f"{wrong} it must be a CIDR inside of {network.cidr}, such as {_half(whole)}.")
    if part == whole:
        network.guest_cidr = None
        return
    guests = select(NetworkAddress.address, VirtualMachine.name).join(Nic, NetworkAddress.nic_id == Nic.id)
    of_family = NetworkAddress.network_id == network.id, NetworkAddress.address.not_like("%:%")
    taken = session.execute(guests.join(VirtualMachine, Nic.vm_id == VirtualMachine.id).where(*of_family))
    outside = sorted((IPv4Address(address), name) for address, name in taken if IPv4Address(address) not in part)
    if outside:
        named = ", ".join(f"{address} ({name})" for address, name in outside[:10])
        raise BadParameter(f"{wrong} guests of network {network.name} have addresses outside of it: {named}.")
    network.guest_cidr = str(part)


def _half(whole: IPv4Network) -> IPv4Network:
    return list(whole.subnets())[-1]
