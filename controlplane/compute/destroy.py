"""destroyVirtualMachine, expungeVirtualMachine, recoverVirtualMachine."""

from __future__ import annotations

from controlplane.api.caller import EVERYONE, Role
from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import optional, required
from controlplane.compute.counting import count_stopped
from controlplane.compute.guest_networks import check_name, hold_name
from controlplane.compute.machine_views import machine_views
from controlplane.compute.outcomes import networks_of
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.base import now
from controlplane.db.configuration import define
from controlplane.errors import BadParameter, Forbidden
from controlplane.network.security_groups import hosts_meaning
from controlplane.storage.volumes import Volume

USERS_MAY = define(
    "allow.user.expunge.recover.vm",
    False,
    "Whether users may expunge and recover their machines; admins always may",
    scopes=("Account",),
)


class DestroyVirtualMachine(Command, name="destroyVirtualMachine", answer=one("virtualmachine", machine_views),
                            job=True, roles=EVERYONE, instance="VirtualMachine", event="VM.DESTROY"):  # fmt: skip
    """Destroy a machine: it is stopped, and the rules that lead to it go.

    Its disk and addresses are kept until it is expunged: at once with ``expunge``, or after ``expunge.delay``.
    """

    id: VirtualMachine = required()
    expunge: bool | None = optional(False)
    volumeids: list[Volume] | None = optional()

    def run(self, ctx: Context) -> VirtualMachine:
        """Hand over to the workflow."""
        vm = self.id
        if self.expunge:
            check_may_expunge(ctx, vm)
        if vm.delete_protection:
            raise BadParameter(f"Invalid parameter id value={vm.uuid}: instance {vm.name} is protected from deletion.")
        for volume in self.volumeids or ():
            if volume.vm_id != vm.id or volume.type == "ROOT":
                raise BadParameter(f"Invalid parameter volumeids value={volume.uuid}: it is no data disk of {vm.name}.")
        if vm.state == "Destroyed" and not self.expunge:
            raise BadParameter(f"Invalid parameter id value={vm.uuid}: instance {vm.name} is destroyed already.")
        # a failed deployment has nothing that could be recovered
        ctx.go_on("destroyMachine", vm, expunge=bool(self.expunge) or vm.state == "Error")
        return vm


class ExpungeVirtualMachine(Command, name="expungeVirtualMachine", answer=success(), job=True, roles=EVERYONE,
                            instance="VirtualMachine", event="VM.EXPUNGE"):  # fmt: skip
    """Remove what is left of a destroyed machine."""

    id: VirtualMachine = required()

    def run(self, ctx: Context) -> None:
        """Hand over to the workflow."""
        vm = self.id
        check_may_expunge(ctx, vm)
        if vm.state not in ("Destroyed", "Expunging", "Error"):
            raise BadParameter(
                f"Invalid parameter id value={vm.uuid}: instance {vm.name} is {vm.state}; destroy it first."
            )
        ctx.go_on("destroyMachine", vm, expunge=True)


class RecoverVirtualMachine(Command, name="recoverVirtualMachine", answer=one("virtualmachine", machine_views),
                            roles=EVERYONE, instance="VirtualMachine", event="VM.RECOVER"):  # fmt: skip
    """Bring a destroyed machine back as a stopped one; rules that led to it do not come back."""

    id: VirtualMachine = required()

    def run(self, ctx: Context) -> VirtualMachine:
        """Bring it back."""
        vm = self.id
        check_may_expunge(ctx, vm)
        if vm.state != "Destroyed":
            raise BadParameter(
                f"Invalid parameter id value={vm.uuid}: instance {vm.name} is {vm.state}, not Destroyed."
            )
        networks = networks_of(ctx.session, vm)
        check_name(ctx, vm.hostname, networks, but=vm)
        hold_name(ctx.session, vm)
        vm.state, vm.updated = "Stopped", now()
        count_stopped(ctx.session, vm)
        ctx.touch(*networks)
        ctx.touched.extend(hosts_meaning(ctx.session, vm.id))
        return vm


def check_may_expunge(ctx: Context, vm: VirtualMachine) -> None:
    """Make sure that the caller may expunge or recover machines.

    :raises Forbidden: it may not.
    """
    if ctx.caller.role is Role.USER and not USERS_MAY.flag(ctx.session, account=vm.account_id):
        raise Forbidden("Only admins may expunge and recover machines here (allow.user.expunge.recover.vm is false).")
