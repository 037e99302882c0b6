"""restoreVirtualMachine: a machine gets a fresh root disk, of its template or another, and keeps all else."""

from __future__ import annotations

from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one
from controlplane.api.context import Context
from controlplane.api.parameters import Long, optional, required
from controlplane.compute import sizes
from controlplane.compute.bring_up import bring_up, give_up, settle
from controlplane.compute.config_drives import tell
from controlplane.compute.counting import count_volume, uncount_volume
from controlplane.compute.machine_views import told_views
from controlplane.compute.outcomes import Waits, machine, trouble
from controlplane.compute.passwords import give_password
from controlplane.compute.release import root_volume
from controlplane.compute.take_down import stopped
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.base import now
from controlplane.errors import ApiError, BadParameter, Unavailable
from controlplane.offering.disk_offerings import DiskOffering
from controlplane.reconcile.targets import touch
from controlplane.storage.templates import Template
from controlplane.work.workflows import Flow, workflow


class RestoreVirtualMachine(Command, name="restoreVirtualMachine", answer=one("virtualmachine", told_views), job=True,
                            roles=EVERYONE, envelope="restorevmresponse", instance="VirtualMachine",
                            event="VM.RESTORE"):  # fmt: skip
    """Reinstall a machine: its root disk is made anew; a running one is started again."""

    virtualmachineid: VirtualMachine = required()
    templateid: Template | None = optional()
    diskofferingid: DiskOffering | None = optional()
    rootdisksize: Long | None = optional()
    details: dict[str, str] | None = optional()
    expunge: bool | None = optional(description="accepted: the old disk is never kept")

    def run(self, ctx: Context) -> VirtualMachine:
        """Write down what the disk is to be, and hand over to the workflow."""
        vm = self.virtualmachineid
        if vm.state not in ("Running", "Stopped"):
            raise BadParameter(
                f"Invalid parameter virtualmachineid value={vm.uuid}: instance {vm.name} is {vm.state}, and must be "
                "Running or Stopped."
            )
        template = self.templateid or vm.template
        if template.format == "ISO" or template.state != "Ready" or template.hypervisor != vm.hypervisor:
            raise BadParameter(
                f"Invalid parameter templateid value={template.uuid}: it must be a Ready template for {vm.hypervisor}."
            )
        if self.details:
            vm.details = vm.details | sizes.check_details(ctx, self.details)
        size = sizes.root_size(template, vm.offering, self.diskofferingid, self.rootdisksize)
        if not (self.rootdisksize or self.diskofferingid):
            size = max(size, vm.root_size)
        _resize(ctx.session, vm, template, size)
        if template.password_enabled:
            give_password(ctx.session, vm, None)
            tell(ctx, vm)
        ctx.go_on("restoreMachine", vm, running=vm.state == "Running")
        return vm


def _resize(session: Session, vm: VirtualMachine, template: Template, size: int) -> None:
    volume = root_volume(session, vm)
    assert volume is not None
    uncount_volume(session, volume)
    volume.size = vm.root_size = size
    count_volume(session, volume)
    volume.template_id, vm.template, vm.os_type_id = template.id, template, template.os_type_id


@workflow("restoreMachine")
def restore_machine(flow: Flow) -> None:
    """Have the host throw the old disk away, then start from the template again where it was running."""
    waits = flow.step(vacate, flow.subject)
    settle(flow, waits)
    flow.step(vacated, flow.subject, waits)
    if not flow.arguments["running"]:
        return
    try:
        bring_up(flow, {})
    except ApiError as error:
        flow.step(give_up, flow.subject, error.text, False)
        raise


def vacate(session: Session, uuid: str) -> Waits:
    """Take the guest off its host, disk and all, and return what to wait for."""
    vm = machine(session, uuid)
    targets = vm.targets(session)
    vm.last_host_id = vm.host_id or vm.last_host_id
    vm.running, vm.state, vm.host_id, vm.updated = False, "Stopping", None, now()
    volume = root_volume(session, vm)
    assert volume is not None
    volume.state = "Allocated"
    session.flush()
    return [list(pair) for pair in touch(session, targets)]


def vacated(session: Session, uuid: str, waits: Waits) -> None:
    """Take note that the old disk is gone.

    :raises Unavailable: the host has not done it; when it is back it will, and the machine can then be started.
    """
    vm = machine(session, uuid)
    reason = trouble(session, waits, [vm.uuid])
    stopped(session, vm)
    if reason:
        raise Unavailable(f"Instance {vm.name} is stopped, and its old disk is still to be removed: {reason}")
