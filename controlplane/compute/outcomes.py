"""What became of a machine on its targets: waits as plain pairs, and the reasons where something went wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.reconcile.targets import Target

Waits = list[list[int]]
"""(target number, generation) pairs in the form that a workflow's books can keep."""


def machine(session: Session, uuid: str) -> VirtualMachine:
    """Return the machine with this UUID, removed or not."""
    return session.scalars(select(VirtualMachine).where(VirtualMachine.uuid == uuid)).one()


def networks_of(session: Session, vm: VirtualMachine) -> list[Network]:
    """Return the networks that the machine has a NIC on."""
    return list(session.scalars(select(Network).join(Nic).where(Nic.vm_id == vm.id).order_by(Nic.device)).unique())


def standing(targets: Iterable[Target]) -> Waits:
    """Return the pairs that mean: everything that is wanted of these targets by now."""
    return [[target.id, target.desired_generation] for target in targets]


def latest(*pairs: Iterable[Sequence[int]]) -> Waits:
    """Put pairs together, each target once with its newest generation."""
    newest: dict[int, int] = {}
    for target, generation in (pair for group in pairs for pair in group):
        newest[target] = max(generation, newest.get(target, 0))
    return [[target, generation] for target, generation in sorted(newest.items())]


def trouble(session: Session, waits: Sequence[Sequence[int]], units: Iterable[str] = ()) -> str:
    """Return why these targets are not as they should be; empty when all is well.

    :param units: parts of the targets (a guest's UUID) whose own failures count, too.
    """
    reasons = []
    units = set(units)
    for number, generation in waits:
        target = session.get(Target, number)
        if target is None:
            continue  # what is gone has nothing left to do
        if target.applied_generation >= generation:
            reasons += [f"{target.name}: {reason}" for unit, reason in target.failures.items() if unit in units]
        elif target.failed_generation >= generation:
            reasons.append(f"{target.name} kept its former configuration: {target.reason}")
        else:
            reasons.append(f"{target.name} has not answered: is its agent connected?")
    return "; ".join(reasons)
