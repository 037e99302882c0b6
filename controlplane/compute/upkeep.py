"""Upkeep: machines in a passing state that nobody works on any more, and destroyed ones whose time is over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.compute.bring_up import give_up, started
from controlplane.compute.outcomes import standing, trouble
from controlplane.compute.take_down import begin_expunge, end_expunge, stopped
from controlplane.compute.virtual_machines import PASSING, VirtualMachine
from controlplane.db.base import now
from controlplane.db.configuration import define
from controlplane.errors import ApiError
from controlplane.reconcile.sweep import duty
from controlplane.reconcile.targets import Target
from controlplane.work.jobs import PENDING, Job

EXPUNGE_DELAY = define("expunge.delay", 86400, "Seconds after which a destroyed machine is expunged", within=(0, None))
EXPUNGE_INTERVAL = define(
    "expunge.interval", 86400, "Seconds between two looks for destroyed machines to expunge", within=(1, None)
)
_looked: list[float] = []
MOST = 200
"""Machines that one pass sets right; the next pass goes on."""


@duty(10)
def settle_machines(session: Session) -> None:
    """Bring machines in a passing state, without a job that works on them, to what their rows and hosts say."""
    live = select(Job.instance_uuid).where(Job.status == PENDING)
    query = select(VirtualMachine).where(
        VirtualMachine.state.in_(PASSING), VirtualMachine.removed.is_(None), VirtualMachine.uuid.not_in(live)
    )
    for vm in session.scalars(query.order_by(VirtualMachine.id).limit(MOST)).all():
        _settle(session, vm)


def _settle(session: Session, vm: VirtualMachine) -> None:
    targets = vm.targets(session)
    waits = standing(targets)
    if vm.state == "Starting" and not vm.running:
        give_up(session, vm.uuid, "The start was given up before a host was asked.", _was_deployed(session, vm))
    elif not _answered(targets):
        return  # the host is yet to answer
    elif vm.state == "Starting":
        reason = trouble(session, waits, [vm.uuid])
        if reason:
            give_up(session, vm.uuid, reason, _was_deployed(session, vm))
        else:
            started(session, vm)
    elif vm.state == "Stopping":
        if not trouble(session, waits, [vm.uuid]):
            stopped(session, vm)
    elif vm.state == "Expunging":
        try:
            end_expunge(session, vm.uuid, waits)
        except ApiError:
            return  # what is in the way is still there


def _answered(targets: Sequence[Target]) -> bool:
    return all(target.settled_generation >= target.desired_generation for target in targets)


def _was_deployed(session: Session, vm: VirtualMachine) -> bool:
    last = select(Job.command).where(Job.instance_uuid == vm.uuid, Job.workflow != "").order_by(Job.id.desc())
    return session.scalar(last.limit(1)) == "deployVirtualMachine"


@duty(10)
def expunge_destroyed(session: Session) -> None:
    """Expunge the machines that were destroyed longer ago than ``expunge.delay``."""
    moment = time.monotonic()
    if _looked and moment - _looked[0] < EXPUNGE_INTERVAL.number(session):
        return
    _looked[:] = [moment]
    wait = EXPUNGE_DELAY.number(session)
    query = select(VirtualMachine).where(
        VirtualMachine.state.in_(("Destroyed", "Error")),
        VirtualMachine.removed.is_(None),
        VirtualMachine.updated < now() - timedelta(seconds=wait),
    )
    for vm in session.scalars(query.order_by(VirtualMachine.id).limit(MOST)).all():
        begin_expunge(session, vm.uuid)
