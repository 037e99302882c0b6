"""updateVirtualMachine: what can be changed in place."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one
from controlplane.api.context import Context
from controlplane.api.parameters import Records, optional, required
from controlplane.compute import guarding, guest_networks, sizes, user_data
from controlplane.compute.config_drives import tell
from controlplane.compute.deploy import custom_id, display_name
from controlplane.compute.instance_groups import group_named
from controlplane.compute.machine_views import machine_views
from controlplane.compute.outcomes import networks_of
from controlplane.compute.virtual_machines import GONE, UserData, VirtualMachine
from controlplane.db.base import now
from controlplane.errors import BadParameter
from controlplane.identity.accounts import Account
from controlplane.identity.tags import move_tags
from controlplane.network.security_groups import SecurityGroup
from controlplane.storage.templates import OsType

NOT_HERE = "extraconfig", "instancename", "leaseduration", "leaseexpiryaction"


class UpdateVirtualMachine(Command, name="updateVirtualMachine", answer=one("virtualmachine", machine_views),
                           roles=EVERYONE, instance="VirtualMachine", event="VM.UPDATE",
                           unsupported=NOT_HERE):  # fmt: skip
    """Change a machine. Its name, user data and DHCP options reach its networks at once; the guest reads them anew.

    Its security groups change while it runs, too: from then on its host lets in what the new ones say.
    """

    id: VirtualMachine = required()
    name: str | None = optional(check=guest_networks.host_name)
    displayname: str | None = optional()
    displayvm: bool | None = optional(admin=True)
    customid: str | None = optional(admin=True)
    group: str | None = optional()
    haenable: bool | None = optional()
    deleteprotection: bool | None = optional()
    isdynamicallyscalable: bool | None = optional()
    ostypeid: OsType | None = optional()
    details: dict[str, str] | None = optional()
    cleanupdetails: bool | None = optional(False)
    dhcpoptionsnetworklist: Records | None = optional()
    userdata: str | None = optional(length=2 << 20)
    userdataid: UserData | None = optional()
    userdatadetails: dict[str, str] | None = optional()
    securitygroupids: list[SecurityGroup] | None = optional(description="the only groups that it is in from now on")
    securitygroupnames: list[str] | None = optional(description="instead of securitygroupids: the same by name")

    def run(self, ctx: Context) -> VirtualMachine:
        """Change what is given."""
        vm = self.id
        if vm.state in GONE:
            raise BadParameter(f"Invalid parameter id value={vm.uuid}: instance {vm.name} is {vm.state}.")
        self._names(ctx, vm)
        self._switches(ctx, vm)
        self._details(ctx, vm)
        if self.userdata is not None or self.userdataid is not None:
            give_user_data(ctx, vm, self.userdata, self.userdataid, self.userdatadetails)
        if self.dhcpoptionsnetworklist:
            options = guest_networks.dhcp_options(self.dhcpoptionsnetworklist, networks_of(ctx.session, vm))
            vm.dhcp_options = vm.dhcp_options | options
            ctx.touch(*networks_of(ctx.session, vm))
        self._groups(ctx, vm)
        vm.updated = now()
        return vm

    def _groups(self, ctx: Context, vm: VirtualMachine) -> None:
        owner, networks = ctx.session.get_one(Account, vm.account_id), networks_of(ctx.session, vm)
        groups = guarding.chosen(ctx, owner, networks, self.securitygroupids, self.securitygroupnames)
        if groups is not None:
            ctx.touched.extend(guarding.put_in(ctx.session, vm, groups))
            ctx.touch(vm)

    def _names(self, ctx: Context, vm: VirtualMachine) -> None:
        if self.name is not None and self.name != vm.name:
            networks = networks_of(ctx.session, vm)
            guest_networks.check_name(ctx, self.name, networks, but=vm)
            vm.name = vm.hostname = self.name
            guest_networks.hold_name(ctx.session, vm)
            tell(ctx, vm)
        if self.displayname is not None:
            vm.display_name = display_name(self.displayname)
        if self.customid is not None:
            _rename(ctx, vm, custom_id(self.customid))
        if self.group is not None:
            owner = ctx.session.get_one(Account, vm.account_id)
            vm.group_id = group_named(ctx, owner, self.group).id if self.group else None

    def _switches(self, ctx: Context, vm: VirtualMachine) -> None:
        if self.isdynamicallyscalable and not vm.template.is_dynamically_scalable:
            raise BadParameter(
                f"Invalid parameter isdynamicallyscalable: template {vm.template.name} is not dynamically scalable."
            )
        columns = {"displayvm": "display", "haenable": "ha_enabled", "deleteprotection": "delete_protection"}
        for name, column in (columns | {"isdynamicallyscalable": "dynamic"}).items():
            value: Any = getattr(self, name)
            if value is not None:
                setattr(vm, column, value)
        if self.ostypeid is not None:
            vm.os_type_id = self.ostypeid.id
        del ctx

    def _details(self, ctx: Context, vm: VirtualMachine) -> None:
        if self.cleanupdetails:
            vm.details = {name: value for name, value in vm.details.items() if name in sizes.SIZES}
        elif self.details is not None:
            for name in sizes.SIZES:
                if self.details.get(name, vm.details.get(name)) != vm.details.get(name):
                    raise BadParameter(f"Invalid parameter details: scaleVirtualMachine changes {name}.")
            kept = {name: value for name, value in vm.details.items() if name in sizes.SIZES}
            vm.details = sizes.check_details(ctx, self.details) | kept


def give_user_data(
    ctx: Context, vm: VirtualMachine, text: str | None, row: UserData | None, values: dict[str, str] | None
) -> None:
    """Give the machine other user data; whoever tells it about itself knows at once."""
    chosen = user_data.choose(ctx, vm.template, text, row, values or {})
    vm.user_data, vm.user_data_details = chosen.text, dict(chosen.values)
    vm.user_data_id = chosen.row.id if chosen.row else None
    tell(ctx, vm)


def _rename(ctx: Context, vm: VirtualMachine, uuid: str) -> None:
    if vm.state != "Stopped" or vm.host_id is not None:
        raise BadParameter(
            "Invalid parameter customid: the id can change only while no host has anything of the machine."
        )
    if uuid != vm.uuid and ctx.session.scalar(select(VirtualMachine.id).where(VirtualMachine.uuid == uuid)) is not None:
        raise BadParameter(f"Invalid parameter customid value={uuid}: another machine has this id.")
    move_tags(ctx.session, "UserVm", vm.uuid, uuid)
    vm.uuid = uuid
