"""New secrets for a stopped machine: password, SSH keys, user data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one
from controlplane.api.context import Context
from controlplane.api.parameters import Uuid, optional, required
from controlplane.api.responses import Response
from controlplane.compute import ssh_keypairs
from controlplane.compute.config_drives import tell
from controlplane.compute.machine_views import machine_views, told_views
from controlplane.compute.passwords import ENCRYPTED, check_password, give_password
from controlplane.compute.update import give_user_data
from controlplane.compute.virtual_machines import UserData, VirtualMachine
from controlplane.errors import BadParameter
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import owner_of_new

RESET_SSH = "resetSSHKeyforvirtualmachineresponse"


@dataclass(kw_only=True)
class EncryptedPasswordResponse(Response):
    """A password that only the holder of the machine's RSA key can read; base64."""

    encryptedpassword: str


@dataclass(kw_only=True)
class MachineUserDataResponse(Response):
    """A machine's user data, in base64."""

    virtualmachineid: str
    userdata: str | None = None


class ResetPasswordForVirtualMachine(Command, name="resetPasswordForVirtualMachine",
                                     answer=one("virtualmachine", told_views), job=True, roles=EVERYONE,
                                     instance="VirtualMachine", event="VM.RESETPASSWORD"):  # fmt: skip
    """Make a new password, which the guest is told when it starts next; the answer tells it once."""

    id: VirtualMachine = required()
    password: str | None = optional(length=64)

    def run(self, ctx: Context) -> VirtualMachine:
        """Make it and tell whoever tells the guest."""
        vm = self.id
        must_be_stopped(vm, "given a new password")
        wanted = check_password(self.password)
        if not vm.template.password_enabled:
            raise BadParameter(f"Invalid parameter id value={vm.uuid}: template {vm.template.name} takes no passwords.")
        give_password(ctx.session, vm, wanted)
        tell(ctx, vm)
        return vm


class ResetSshKeyForVirtualMachine(Command, name="resetSSHKeyForVirtualMachine",
                                   answer=one("virtualmachine", told_views), job=True, roles=EVERYONE,
                                   envelope=RESET_SSH, instance="VirtualMachine", event="VM.RESETSSHKEY"):  # fmt: skip
    """Give a stopped machine other SSH key pairs, and a new password where its template takes one."""

    id: VirtualMachine = required()
    keypair: str | None = optional()
    keypairs: list[str] | None = optional()
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()

    def run(self, ctx: Context) -> VirtualMachine:
        """Change them and tell the guest's networks."""
        vm = self.id
        must_be_stopped(vm, "given other SSH keys")
        owner = ctx.session.get_one(Account, vm.account_id)
        if self.account or self.projectid:
            named = owner_of_new(ctx, self.account, self.domainid, self.projectid)
            if named.id != owner.id:
                raise BadParameter(f"Invalid parameter account: instance {vm.name} belongs to account {owner.name}.")
        if not self.keypair and not self.keypairs:
            raise BadParameter("Parameter keypairs is missing: name at least one SSH key pair.")
        vm.keypairs = ssh_keypairs.named_all(ctx, owner, self.keypair, self.keypairs)
        if vm.template.password_enabled:
            give_password(ctx.session, vm, None)
        tell(ctx, vm)
        return vm


class ResetUserDataForVirtualMachine(Command, name="resetUserDataForVirtualMachine",
                                     answer=one("virtualmachine", machine_views), roles=EVERYONE,
                                     instance="VirtualMachine", event="VM.RESETUSERDATA"):  # fmt: skip
    """Give a stopped machine other user data; none leaves it that of its template, if any."""

    id: VirtualMachine = required()
    userdata: str | None = optional(length=2 << 20)
    userdataid: UserData | None = optional()
    userdatadetails: dict[str, str] | None = optional()
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()

    def run(self, ctx: Context) -> VirtualMachine:
        """Change it and tell the guest's networks."""
        vm = self.id
        must_be_stopped(vm, "given other user data")
        if (self.account or self.projectid) and (
            owner_of_new(ctx, self.account, self.domainid, self.projectid).id != vm.account_id
        ):
            raise BadParameter(f"Invalid parameter account: instance {vm.name} belongs to another account.")
        give_user_data(ctx, vm, self.userdata, self.userdataid, self.userdatadetails)
        return vm


def encrypted_views(ctx: Context, rows: Sequence[VirtualMachine]) -> list[EncryptedPasswordResponse]:
    """Return the machines' encrypted passwords."""
    del ctx
    return [EncryptedPasswordResponse(encryptedpassword=vm.details[ENCRYPTED]) for vm in rows]


class GetVmPassword(Command, name="getVMPassword", answer=one("password", encrypted_views), roles=EVERYONE):
    """Return the machine's password, encrypted for the RSA key pair that it was given."""

    id: VirtualMachine = required()

    def run(self, ctx: Context) -> VirtualMachine:
        """Return the machine that has one."""
        del ctx
        vm = self.id
        if ENCRYPTED not in vm.details:
            raise BadParameter(
                f"Invalid parameter id value={vm.uuid}: instance {vm.name} has no password that was encrypted for an "
                "RSA key pair: its template must take passwords, and the machine must have such a key pair."
            )
        return vm


def user_data_of(ctx: Context, rows: Sequence[VirtualMachine]) -> list[MachineUserDataResponse]:
    """Return the machines' user data."""
    del ctx
    return [MachineUserDataResponse(virtualmachineid=vm.uuid, userdata=vm.user_data) for vm in rows]


class GetVirtualMachineUserData(Command, name="getVirtualMachineUserData",
                                answer=one("virtualmachineuserdata", user_data_of), roles=EVERYONE):  # fmt: skip
    """Return a machine's user data."""

    virtualmachineid: VirtualMachine = required()

    def run(self, ctx: Context) -> VirtualMachine:
        """Return the machine."""
        del ctx
        return self.virtualmachineid


def must_be_stopped(vm: VirtualMachine, what: str) -> None:
    """Make sure that the machine is stopped.

    :raises BadParameter: it is not.
    """
    if vm.state != "Stopped":
        raise BadParameter(
            f"Invalid parameter id value={vm.uuid}: instance {vm.name} is {vm.state}; stop it before it is {what}."
        )
