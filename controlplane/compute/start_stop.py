"""startVirtualMachine, stopVirtualMachine, rebootVirtualMachine."""

from __future__ import annotations

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one
from controlplane.api.context import Context
from controlplane.api.parameters import optional, required
from controlplane.compute.choice import PLANNERS
from controlplane.compute.config_drives import forget_password
from controlplane.compute.deploy import where
from controlplane.compute.machine_views import machine_views, told_views
from controlplane.compute.virtual_machines import GONE, VirtualMachine
from controlplane.errors import BadParameter
from controlplane.zone.clusters import Cluster
from controlplane.zone.hosts import Host
from controlplane.zone.pods import Pod


class StartVirtualMachine(Command, name="startVirtualMachine", answer=one("virtualmachine", told_views), job=True,
                          roles=EVERYONE, instance="VirtualMachine", event="VM.START",
                          unsupported=("bootintosetup",)):  # fmt: skip
    """Start a stopped machine; one that runs already stays as it is."""

    id: VirtualMachine = required()
    hostid: Host | None = optional(admin=True)
    podid: Pod | None = optional(admin=True)
    clusterid: Cluster | None = optional(admin=True)
    considerlasthost: bool | None = optional(True)
    deploymentplanner: str | None = optional(admin=True, choices=tuple(PLANNERS))

    def run(self, ctx: Context) -> VirtualMachine:
        """Hand over to the workflow."""
        _refuse_gone(self.id, "started")
        ctx.go_on("startMachine", self.id, lasthost=self.considerlasthost is not False, **where(self))
        return self.id


class StopVirtualMachine(Command, name="stopVirtualMachine", answer=one("virtualmachine", machine_views), job=True,
                         roles=EVERYONE, instance="VirtualMachine", event="VM.STOP"):  # fmt: skip
    """Stop a machine; forced, it counts as stopped even when its host does not answer."""

    id: VirtualMachine = required()
    forced: bool | None = optional(False)

    def run(self, ctx: Context) -> VirtualMachine:
        """Hand over to the workflow."""
        _refuse_gone(self.id, "stopped")
        ctx.go_on("stopMachine", self.id, forced=bool(self.forced))
        return self.id


class RebootVirtualMachine(Command, name="rebootVirtualMachine", answer=one("virtualmachine", machine_views), job=True,
                           roles=EVERYONE, instance="VirtualMachine", event="VM.REBOOT",
                           unsupported=("bootintosetup",)):  # fmt: skip
    """Stop and start a running machine on its host; ``forced`` changes nothing: nothing inside is waited for."""

    id: VirtualMachine = required()
    forced: bool | None = optional(False)

    def run(self, ctx: Context) -> VirtualMachine:
        """Ask the host for it."""
        vm = self.id
        if vm.state != "Running":
            raise BadParameter(f"Invalid parameter id value={vm.uuid}: instance {vm.name} is {vm.state}, not Running.")
        forget_password(ctx.session, vm)
        vm.boot += 1
        ctx.touch(vm)
        ctx.go_on("rebootMachine", vm)
        return vm


def _refuse_gone(vm: VirtualMachine, what: str) -> None:
    if vm.state in GONE:
        raise BadParameter(
            f"Invalid parameter id value={vm.uuid}: instance {vm.name} is {vm.state}, and cannot be {what}."
        )
