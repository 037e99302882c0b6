"""scaleVirtualMachine and changeServiceForVirtualMachine: another offering for a stopped machine."""

from __future__ import annotations

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import optional, required
from controlplane.compute import sizes
from controlplane.compute.counting import count, uncount
from controlplane.compute.machine_views import machine_views
from controlplane.compute.resets import must_be_stopped
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.base import now
from controlplane.errors import BadParameter
from controlplane.identity.accounts import Account
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.zone.zones import Zone

NOT_HERE = ("maxiops", "miniops")


class _Scaling(Command):
    """What both commands have in common."""

    id: VirtualMachine = required()
    serviceofferingid: ServiceOffering = required()
    details: dict[str, str] | None = optional()
    automigrate: bool | None = optional(description="accepted: there is no other storage to move volumes to")
    shrinkok: bool | None = optional(description="accepted: the root disk keeps its size")

    def change(self, ctx: Context) -> VirtualMachine:
        """Give the machine the offering's size, and count the difference."""
        vm, offering = self.id, self.serviceofferingid
        must_be_stopped(vm, "given another offering")
        owner = ctx.session.get_one(Account, vm.account_id)
        sizes.check_offering(ctx, offering, ctx.session.get_one(Zone, vm.zone_id), owner)
        given = sizes.check_details(ctx, self.details or {})
        size = sizes.size_of(offering, given)
        if offering.storage_type != vm.offering.storage_type:
            raise BadParameter(
                f"Invalid parameter serviceofferingid value={offering.uuid}: it is for {offering.storage_type} "
                f"storage, and the machine's disk is on {vm.offering.storage_type} storage."
            )
        counted = vm.counted
        uncount(ctx.session, vm)
        vm.cpus, vm.mhz, vm.memory = size.cpus, size.mhz, size.memory
        if counted:
            count(ctx.session, vm)
        others = {name: value for name, value in vm.details.items() if name not in sizes.SIZES}
        vm.details, vm.offering, vm.updated = others | given, offering, now()
        ctx.touch(vm)
        ctx.instance = vm
        return vm


class ScaleVirtualMachine(_Scaling, name="scaleVirtualMachine", answer=success(), job=True, roles=EVERYONE,
                          instance="VirtualMachine", event="VM.UPGRADE", unsupported=NOT_HERE):  # fmt: skip
    """Give a stopped machine another offering."""

    def run(self, ctx: Context) -> None:
        """Change it."""
        self.change(ctx)


class ChangeServiceForVirtualMachine(_Scaling, name="changeServiceForVirtualMachine",
                                     answer=one("virtualmachine", machine_views), roles=EVERYONE,
                                     instance="VirtualMachine", event="VM.UPGRADE",
                                     unsupported=NOT_HERE):  # fmt: skip
    """Give a stopped machine another offering."""

    def run(self, ctx: Context) -> VirtualMachine:
        """Change it."""
        return self.change(ctx)
