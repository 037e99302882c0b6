"""Elastic IP: each guest of a network that associates addresses has a public one of its own while it runs.

The address that a guest gets by itself is a system address: it is given back when the guest stops, and when the account
puts an address of its own in its place; when that is taken away again, the guest gets another one.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.identity.accounts import Account
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.public_ips import ALLOCATED, PublicIp, acquire, release
from controlplane.network.routers import part_of_pod
from controlplane.reconcile.targets import Target


def is_elastic(network: Network) -> bool:
    """Tell whether the network's guests have public addresses beside the operator's gateway."""
    return network.offering.elastic_ip


def associate(session: Session, vm: VirtualMachine) -> None:
    """See that a machine that is started has a public address on each network that gives one; repeatable.

    :raises NoAddress: the zone has none left.
    :raises LimitReached: its account may have no more.
    """
    nics = select(Nic).where(Nic.vm_id == vm.id, Nic.network_id.is_not(None)).order_by(Nic.device)
    for nic in session.scalars(nics).all():
        network = session.get_one(Network, nic.network_id)
        if not is_elastic(network):
            continue
        further = {row.address for row in nic.secondary}
        own = session.scalars(select(PublicIp).where(PublicIp.nic_id == nic.id, PublicIp.static_nat)).all()
        for ip in own:  # the guest may be in another pod now, with another address
            ip.part = part_of_pod(nic.pod_id)
            if ip.nic_address not in further:
                ip.nic_address = nic.address
        if network.offering.associates and not any(ip.nic_address == nic.address for ip in own):
            _give(session, network, nic, vm)


def _give(session: Session, network: Network, nic: Nic, vm: VirtualMachine) -> PublicIp:
    ip = acquire(session, network, session.get_one(Account, vm.account_id))
    ip.is_system = True
    lead(ip, vm, nic, nic.address)
    session.flush()
    return ip


def lead(ip: PublicIp, vm: VirtualMachine, nic: Nic, address: str) -> None:
    """Have a public address stand for an address of a guest's NIC."""
    ip.static_nat, ip.vm_id, ip.nic_id, ip.nic_address = True, vm.id, nic.id, address
    ip.network_id, ip.part = nic.network_id, part_of_pod(nic.pod_id)


def give_back(session: Session, vm: VirtualMachine) -> list[Target]:
    """Give back the public addresses that a machine which does not run any more had by itself.

    :return: the targets that had them, to be touched.
    """
    own = PublicIp.vm_id == vm.id, PublicIp.is_system, PublicIp.static_nat, PublicIp.state == ALLOCATED
    touched: list[Target] = []
    for ip in session.scalars(select(PublicIp).where(*own)).all():
        touched += ip.targets(session)
        release(session, ip)
    return touched


def give_again(session: Session, network: Network, nic_id: int | None) -> list[Target]:
    """Give a running guest a public address of its own again, now that another one no longer stands for it.

    :return: the targets that are to have it, to be touched.
    """
    from controlplane.network.public_nics import plug

    nic = session.get(Nic, nic_id) if nic_id is not None else None
    if nic is None or nic.vm_id is None or not network.offering.associates:
        return []
    vm = session.get_one(VirtualMachine, nic.vm_id)
    if not vm.running:
        return []
    associate(session, vm)
    session.flush()
    return [*network.targets(session, part_of_pod(nic.pod_id)), *plug(session, network)]
