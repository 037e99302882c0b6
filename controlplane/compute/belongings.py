"""What an account has in this room: how it is counted, stopped and taken away with the account."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.compute.counting import uncount_volume
from controlplane.compute.outcomes import standing
from controlplane.compute.take_down import begin_expunge, begin_stop, end_expunge
from controlplane.compute.virtual_machines import GONE, InstanceGroup, SshKeyPair, UserData, VirtualMachine
from controlplane.db.base import now
from controlplane.identity import limits, ownership
from controlplane.identity.accounts import Account
from controlplane.reconcile.targets import Target
from controlplane.storage.volumes import Volume

for _kind, _amount in (("user_vm", None), ("cpu", VirtualMachine.cpus), ("memory", VirtualMachine.memory)):
    limits.counted_by(_kind, limits.rows_of(VirtualMachine, VirtualMachine.counted, amount=_amount))
limits.counted_by("volume", limits.rows_of(Volume, Volume.removed.is_(None)))
limits.counted_by("primary_storage", limits.rows_of(Volume, Volume.removed.is_(None), amount=Volume.size))


def machines_of(session: Session, account: Account) -> Sequence[VirtualMachine]:
    """Return the account's machines of which something is still there."""
    query = select(VirtualMachine).where(VirtualMachine.account_id == account.id, VirtualMachine.removed.is_(None))
    return session.scalars(query.order_by(VirtualMachine.id)).all()


def protected_machines(session: Session, account: Account) -> list[str]:
    """Say which machines may not be deleted."""
    return [
        f"instance {vm.name} is protected from deletion" for vm in machines_of(session, account) if vm.delete_protection
    ]


def stop_machines(session: Session, account: Account) -> list[Target]:
    """Ask the hosts to stop the account's machines; the sweep takes note when they have."""
    running = [vm for vm in machines_of(session, account) if vm.state not in GONE]
    return [target for vm in running if begin_stop(session, vm.uuid) for target in vm.targets(session)]


def expunge_machines(session: Session, account: Account) -> list[Target]:
    """Want nothing of the account's machines on any host, and no rule that leads to them."""
    machines = machines_of(session, account)
    for vm in machines:
        begin_expunge(session, vm.uuid)
    return [target for vm in machines for target in vm.targets(session)]


def let_machines_go(session: Session, account: Account) -> list[Target]:
    """Give back what the machines had, now that their hosts have nothing of them.

    :raises Unavailable: a host has not answered.
    """
    for vm in machines_of(session, account):
        end_expunge(session, vm.uuid, standing(vm.targets(session)))
    return []


def remove_the_rest(session: Session, account: Account) -> list[Target]:
    """Remove the account's own volumes, key pairs, user data and groups."""
    for volume in session.scalars(select(Volume).where(Volume.account_id == account.id, Volume.removed.is_(None))):
        uncount_volume(session, volume)
        volume.state, volume.removed = "Expunged", now()
    for data in session.scalars(select(UserData).where(UserData.account_id == account.id, UserData.removed.is_(None))):
        data.removed = now()
    for table in (SshKeyPair, InstanceGroup):
        for row in session.scalars(select(table).where(table.account_id == account.id)):
            session.delete(row)
    return []


ownership.objects_to_removal(protected_machines)
ownership.on_account_disabled(stop_machines)
ownership.on_account_removed(expunge_machines, ownership.MACHINES)
ownership.on_account_removed(let_machines_go, ownership.RULES)
ownership.on_account_removed(remove_the_rest, ownership.DISKS)
