"""The network of a basic zone: each guest has an address of the pod that it runs in, and each pod has its own router.

A pod is a broadcast domain of its own, though its frames have no tag anywhere: between pods the operator's gateways
lead. So an address means nothing outside of its pod, and it is given only when it is known which pod that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.errors import BadParameter
from controlplane.network import nics
from controlplane.network.guest_ranges import SHARED, lowest_free, range_with, ranges_of, spans, taken_of
from controlplane.network.load_balancers import LoadBalancerMember
from controlplane.network.network_permissions import ACCOUNT
from controlplane.network.networks import Network
from controlplane.network.nics import NetworkAddress, Nic
from controlplane.network.public_ips import VlanRange
from controlplane.network.routers import part_of_balancing, part_of_pod
from controlplane.reconcile.targets import Target
from controlplane.zone.hosts import Host
from controlplane.zone.pods import Pod
from controlplane.zone.zones import BASIC, Zone

UNTAGGED = "untagged"


def by_pods(network: Network) -> bool:
    """Tell whether the network's guests have addresses by pod."""
    return network.guest_type == SHARED and network.zone.network_type == BASIC


def network_of(session: Session, zone: Zone) -> Network | None:
    """Return the network of a basic zone, which has one at most."""
    mine = Network.zone_id == zone.id, Network.guest_type == SHARED, Network.removed.is_(None)
    return session.scalar(select(Network).where(*mine).order_by(Network.id).limit(1))


def check_new(session: Session, asked: Any) -> None:
    """Check a createNetwork in a basic zone: one Shared network for all, untagged, whose ranges come with the pods.

    :raises BadParameter: it is to be another.
    """
    zone: Zone = asked.zoneid
    if zone.network_type != BASIC:
        return
    offering, where = asked.networkofferingid, f"zone {zone.name} is Basic"
    if offering.guest_type != SHARED:
        raise BadParameter(
            f"Invalid parameter networkofferingid value={offering.uuid}: {where}, and its network is Shared; "
            f"{offering.name} is for {offering.guest_type} ones."
        )
    there = network_of(session, zone)
    if there is not None:
        raise BadParameter(
            f"Invalid parameter zoneid value={zone.uuid}: {where}, and has its only network, {there.name} {there.uuid}."
        )
    if asked.acltype == ACCOUNT or asked.account is not None or asked.projectid is not None:
        raise BadParameter(f"Invalid parameter acltype value=Account: {where}, and its network is for all accounts.")
    for name in ("gateway", "netmask", "startip", "endip", "routerip", "ip6gateway", "ip6cidr", "routeripv6"):
        if getattr(asked, name) is not None:
            raise BadParameter(
                f"Invalid parameter {name} value={getattr(asked, name)}: {where}: its guests' addresses come with the "
                "pods; leave it out, and use createVlanIpRange with podid."
            )
    if asked.vlan not in (None, UNTAGGED, f"vlan://{UNTAGGED}"):
        raise BadParameter(f"Invalid parameter vlan value={asked.vlan}: {where}, and its guests have no tags.")
    asked.vlan = UNTAGGED


def pod_of_address(session: Session, network: Network, address: str) -> int:
    """Return the pod whose range an address is of.

    :raises BadParameter: it is of none; the sentence has all ranges.
    """
    rows = ranges_of(session, network)
    row = range_with(rows, address)
    if row is None or row.pod_id is None:
        texts = ", ".join(f"{item.start_ip}-{item.end_ip}" for item in rows)
        raise BadParameter(f"Invalid parameter ipaddress value={address}: guests of {network.name} have {texts}.")
    return row.pod_id


def placed(session: Session, vm: VirtualMachine) -> int | None:
    """Return the pod that the machine's addresses are of; None while it has none."""
    query = select(Nic.pod_id).where(Nic.vm_id == vm.id, Nic.pod_id.is_not(None))
    return session.scalar(query.limit(1))


def full_hosts(session: Session, vm: VirtualMachine) -> dict[int, str]:
    """Return the hosts where the machine could get no address, and why: host number → sentence."""
    found: dict[int, str] = {}
    for nic, network in _nics(session, vm):
        found |= without_address(session, network, nic.pod_id if nic.address else None)
    return found


def without_address(session: Session, network: Network, but: int | None = None) -> dict[int, str]:
    """Return the hosts in pods that have no address of the network left, and why: host number → sentence.

    :param but: a pod that needs none.
    """
    if not by_pods(network):
        return {}
    found: dict[int, str] = {}
    ranges, taken = ranges_of(session, network), taken_of(session, network)
    pods = session.execute(select(Pod.id, Pod.name).where(Pod.zone_id == network.zone_id, Pod.removed.is_(None)))
    for number, name in pods.all():
        within = spans(network, [row for row in ranges if row.pod_id == number])
        if number != but and lowest_free(network, within, taken) is None:
            reason = f"pod {name} has no free address of network {network.name}"
            here = session.scalars(select(Host.id).where(Host.pod_id == number, Host.removed.is_(None)))
            found |= dict.fromkeys(here, reason)
    return found


def settle_in(session: Session, vm: VirtualMachine, pod_id: int) -> None:
    """Give each of the machine's NICs an address of the pod; one that it has of another pod goes back.

    :raises NoAddress: the pod has none left.
    """
    for nic, network in _nics(session, vm):
        if nic.pod_id == pod_id and nic.address:
            continue
        if nic.address:
            old = NetworkAddress.network_id == network.id, NetworkAddress.address == nic.address
            session.execute(delete(NetworkAddress).where(*old))
        former, nic.pod_id, nic.address = nic.address, pod_id, ""
        nic.address = nics.take_address(session, network, "", nic)
        members = select(LoadBalancerMember).where(LoadBalancerMember.nic_id == nic.id)
        for member in session.scalars(members.where(LoadBalancerMember.address == former)):
            member.address = nic.address
    session.flush()


def _nics(session: Session, vm: VirtualMachine) -> list[tuple[Nic, Network]]:
    """Return the machine's NICs that have addresses by pod."""
    query = select(Nic, Network).join(Network, Nic.network_id == Network.id).where(Nic.vm_id == vm.id)
    return [(nic, network) for nic, network in session.execute(query.order_by(Nic.device)) if by_pods(network)]


def pods_in_use(session: Session, network: Network) -> list[int]:
    """Return the pods where machines of the network run, or are about to."""
    from controlplane.network.implement import LIVE

    query = select(Nic.pod_id).join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
    found = session.scalars(query.where(Nic.network_id == network.id, Nic.pod_id.is_not(None), LIVE).distinct())
    return sorted(number for number in found if number is not None)


def targets_of(session: Session, network: Network, nic: Nic) -> list[Target]:
    """Return the targets of the appliances that know a guest's NIC: in a basic zone its pod's, and its account's."""
    if not by_pods(network):
        return list(network.targets(session))
    vm = session.get(VirtualMachine, nic.vm_id)
    found = list(network.targets(session, part_of_pod(nic.pod_id))) if nic.pod_id is not None else []
    if vm is not None and network.offering.elastic_lb:
        found += network.targets(session, part_of_balancing(vm.account_id))
    return found


def of_pod(ranges: Sequence[VlanRange], pod_id: int | None) -> list[VlanRange]:
    """Return the ranges of a pod; all of them where there is none."""
    return [row for row in ranges if pod_id is None or row.pod_id == pod_id]


def must_be_placed(network: Network, nic: Nic) -> None:
    """Refuse an address for a NIC of which nobody knows the pod yet.

    :raises BadParameter: nobody does.
    """
    if by_pods(network) and nic.pod_id is None:
        raise BadParameter(
            f"Invalid parameter nicid value={nic.uuid}: it gets its addresses of network {network.name} by the pod "
            "that it runs in, and it has not run yet: start its instance first."
        )
