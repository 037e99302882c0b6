"""What a machine leaves behind, given back: addresses, rules, volumes, counts."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from controlplane.compute.counting import uncount, uncount_volume
from controlplane.compute.virtual_machines import MachineKeyPair, VirtualMachine
from controlplane.db.base import now
from controlplane.identity.tags import ResourceTag
from controlplane.network import nics, public_ips
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.pod_networks import targets_of
from controlplane.network.security_groups import SecurityGroupMember, hosts_meaning
from controlplane.reconcile.targets import Target
from controlplane.storage.volumes import Volume


def root_volume(session: Session, vm: VirtualMachine) -> Volume | None:
    """Return the machine's root volume."""
    query = select(Volume).where(Volume.vm_id == vm.id, Volume.type == "ROOT", Volume.removed.is_(None))
    return session.scalar(query)


def forget_rules(session: Session, vm: VirtualMachine) -> list[Target]:
    """Remove every rule that leads to the machine, and return the targets that know it.

    These are those of its networks, and of the hosts where a rule of a security group means it.
    """
    touched = hosts_meaning(session, vm.id)
    for nic in _nics(session, vm):
        touched += public_ips.forget_nic(session, nic)
        touched += targets_of(session, session.get_one(Network, nic.network_id), nic)
    return touched


def let_go(session: Session, vm: VirtualMachine) -> list[Target]:
    """Give back all that the machine has, and return the targets that this touches; the row itself stays."""
    touched = forget_rules(session, vm)
    for nic in _nics(session, vm):
        nics.release(session, nic)
    for volume in session.scalars(select(Volume).where(Volume.vm_id == vm.id, Volume.removed.is_(None))):
        uncount_volume(session, volume)
        volume.state, volume.removed = "Expunged", now()
    uncount(session, vm)
    session.execute(delete(MachineKeyPair).where(MachineKeyPair.vm_id == vm.id))
    session.execute(delete(SecurityGroupMember).where(SecurityGroupMember.vm_id == vm.id))
    mine = ResourceTag.resource_type == "UserVm", ResourceTag.resource_uuid == vm.uuid
    session.execute(delete(ResourceTag).where(*mine))
    vm.password = vm.told_password = None
    session.flush()
    session.expire(vm, ["nics", "keypairs"])
    return touched


def _nics(session: Session, vm: VirtualMachine) -> list[Nic]:
    return list(session.scalars(select(Nic).where(Nic.vm_id == vm.id).order_by(Nic.device)))
