"""Taking a machine down: stop, reboot, destroy and expunge, each a wish in the rows that its targets then follow."""

from __future__ import annotations

from sqlalchemy.orm import Session

from controlplane.compute.bring_up import PATIENCE, give_up, judge, settle
from controlplane.compute.config_drives import forget_password
from controlplane.compute.counting import count_stopped, uncount
from controlplane.compute.guest_networks import free_name
from controlplane.compute.outcomes import Waits, machine, standing, trouble
from controlplane.compute.release import forget_rules, let_go
from controlplane.compute.virtual_machines import GONE, VirtualMachine
from controlplane.db.base import now
from controlplane.errors import BadParameter, Unavailable
from controlplane.network import elastic_ips
from controlplane.reconcile.targets import touch
from controlplane.work.workflows import Flow, workflow

__all__ = ["PATIENCE", "begin_expunge", "end_expunge", "end_stop"]


@workflow("stopMachine")
def stop_machine(flow: Flow) -> None:
    """Stop a machine; forced, it counts as stopped even while its host does not answer."""
    waits = flow.step(begin_stop, flow.subject)
    if waits is not None:
        settle(flow, waits)
        flow.step(end_stop, flow.subject, waits, bool(flow.arguments.get("forced")))


@workflow("rebootMachine")
def reboot_machine(flow: Flow) -> None:
    """Wait for the restart that the command has asked of the host."""
    waits = flow.step(await_reboot, flow.subject)
    settle(flow, waits)
    reason = flow.step(judge, flow.subject, waits)
    if reason:
        flow.step(give_up, flow.subject, reason, False)
        raise Unavailable(f"The instance did not come back. {reason}")


@workflow("destroyMachine")
def destroy_machine(flow: Flow) -> None:
    """Destroy a machine, and expunge it where that is asked for."""
    expunge = bool(flow.arguments.get("expunge"))
    waits = flow.step(begin_expunge if expunge else begin_destroy, flow.subject)
    settle(flow, waits)
    if expunge:
        flow.step(end_expunge, flow.subject, waits)
    else:
        flow.step(end_destroy, flow.subject, waits)


def begin_stop(session: Session, uuid: str) -> Waits | None:
    """Ask the host to stop the guest; None when it is stopped already."""
    vm = machine(session, uuid)
    if vm.state in GONE:
        raise BadParameter(
            f"Invalid parameter id value={vm.uuid}: instance {vm.name} is {vm.state}: it cannot be stopped."
        )
    if vm.state == "Stopped":
        return None
    vm.state, vm.running, vm.updated = "Stopping", False, now()
    return [list(pair) for pair in touch(session, vm.targets(session))]


def end_stop(session: Session, uuid: str, waits: Waits, forced: bool) -> None:
    """Write down that the guest is stopped.

    :raises Unavailable: its host has not done it yet; it will when it is back, and the sweep then takes note.
    """
    vm = machine(session, uuid)
    reason = trouble(session, waits, [vm.uuid])
    if reason and not forced:
        raise Unavailable(f"Instance {vm.name} is still to be stopped: {reason}")
    stopped(session, vm)


def stopped(session: Session, vm: VirtualMachine) -> None:
    """Write down that the guest does not run; the public address that it got by itself is free."""
    vm.state, vm.running, vm.updated = "Stopped", False, now()
    forget_password(session, vm)
    count_stopped(session, vm)
    touch(session, elastic_ips.give_back(session, vm))


def await_reboot(session: Session, uuid: str) -> Waits:
    """Return what to wait for: the host at the generation that the command asked of it, or a later one."""
    return standing(machine(session, uuid).targets(session))


def begin_destroy(session: Session, uuid: str) -> Waits:
    """Stop the guest for good: no network knows it any more, and no rule leads to it; its disk and address stay."""
    return _begin(session, machine(session, uuid), "Destroyed")


def begin_expunge(session: Session, uuid: str) -> Waits:
    """As :func:`begin_destroy`, and the host shall have nothing of it."""
    return _begin(session, machine(session, uuid), "Expunging")


def _begin(session: Session, vm: VirtualMachine, state: str) -> Waits:
    if vm.removed is not None:
        return []
    touched = [*vm.targets(session), *forget_rules(session, vm)]
    vm.state, vm.running, vm.updated = state, False, now()
    free_name(session, vm)
    uncount(session, vm)
    session.flush()
    return [list(pair) for pair in touch(session, touched)]


def end_destroy(session: Session, uuid: str, waits: Waits) -> None:
    """Take note that the guest is stopped.

    :raises Unavailable: a target has not done its part yet; it will when it is back.
    """
    vm = machine(session, uuid)
    reason = trouble(session, waits, [vm.uuid])
    if reason:
        raise Unavailable(f"Instance {vm.name} is destroyed, but not yet stopped everywhere: {reason}")


def end_expunge(session: Session, uuid: str, waits: Waits) -> None:
    """Give back all that the machine had: from now on its name and addresses are free.

    :raises Unavailable: a target still has something of it; the sweep goes on when it is back.
    """
    vm = machine(session, uuid)
    if vm.removed is not None:
        return
    reason = trouble(session, waits, [vm.uuid])
    if reason:
        raise Unavailable(f"Instance {vm.name} is still to be expunged: {reason}")
    touch(session, let_go(session, vm))
    vm.host_id, vm.removed = None, now()
