"""What a machine counts for in its account's limits; saying it twice counts once."""

from __future__ import annotations

from sqlalchemy.orm import Session

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.configuration import define
from controlplane.identity import limits
from controlplane.storage.volumes import Volume

RUNNING_ONLY = define(
    "resource.count.running.vms.only",
    False,
    "Whether only running machines count in the limits of user_vm, cpu and memory",
    category="Account Defaults",
)


def count(session: Session, vm: VirtualMachine) -> None:
    """Count the machine, its processors and its memory.

    :raises LimitReached: its account may not have so much.
    """
    if not vm.counted:
        for kind, amount in _amounts(vm):
            limits.take(session, vm.account_id, kind, amount)
        vm.counted = True


def uncount(session: Session, vm: VirtualMachine) -> None:
    """Count it no longer."""
    if vm.counted:
        for kind, amount in _amounts(vm):
            limits.give_back(session, vm.account_id, kind, amount)
        vm.counted = False


def count_stopped(session: Session, vm: VirtualMachine) -> None:
    """Count a machine that is not running, unless only running ones count."""
    if RUNNING_ONLY.flag(session):
        uncount(session, vm)
    else:
        count(session, vm)


def count_volume(session: Session, volume: Volume) -> None:
    """Count a new volume and its size.

    :raises LimitReached: its account may not have so much.
    """
    limits.take(session, volume.account_id, "volume")
    limits.take(session, volume.account_id, "primary_storage", volume.size)


def uncount_volume(session: Session, volume: Volume) -> None:
    """Count a volume no longer."""
    limits.give_back(session, volume.account_id, "volume")
    limits.give_back(session, volume.account_id, "primary_storage", volume.size)


def _amounts(vm: VirtualMachine) -> tuple[tuple[str, int], ...]:
    return ("user_vm", 1), ("cpu", vm.cpus), ("memory", vm.memory)
