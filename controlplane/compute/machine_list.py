"""listVirtualMachines, with all of CloudStack's filters."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select

from controlplane.api.caller import EVERYONE, Role
from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional
from controlplane.compute.machine_views import machine_views
from controlplane.compute.virtual_machines import (
    HOLDING,
    InstanceGroup,
    MachineKeyPair,
    SshKeyPair,
    UserData,
    VirtualMachine,
)
from controlplane.db.configuration import define
from controlplane.identity.ownership import OwnedListing
from controlplane.identity.users import User
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.security_groups import SecurityGroup, SecurityGroupMember
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.storage.templates import Template
from controlplane.storage.volumes import StoragePool, Volume
from controlplane.zone.clusters import Cluster
from controlplane.zone.hosts import Host
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone

USERS_SEE_DESTROYED = define(
    "allow.user.view.destroyed.vm", False, "Whether users see their destroyed machines", scopes=("Account",)
)
VIRTUAL = ("Isolated", "L2")
NOT_HERE = (
    "affinitygroupid", "autoscalevmgroupid", "backupofferingid", "extensionid", "gpuenabled", "isvnf", "leased",
    "showicon", "vpcid",
)  # fmt: skip


class ListVirtualMachines(OwnedListing, name="listVirtualMachines", answer=many("virtualmachine", machine_views),
                          roles=EVERYONE, unsupported=NOT_HERE):  # fmt: skip
    """List machines."""

    table = VirtualMachine
    keywords = (VirtualMachine.name, VirtualMachine.display_name, VirtualMachine.instance_name, VirtualMachine.state)
    taggable = "UserVm"

    id: VirtualMachine | None = matching(VirtualMachine.id)
    ids: list[VirtualMachine] | None = matching(VirtualMachine.id)
    name: str | None = optional(description="a part of the name")
    state: str | None = optional(description="a state, or Present: not destroyed")
    zoneid: Zone | None = matching(VirtualMachine.zone_id)
    templateid: Template | None = matching(VirtualMachine.template_id)
    isoid: Template | None = matching(VirtualMachine.iso_id)
    serviceofferingid: ServiceOffering | None = matching(VirtualMachine.offering_id)
    groupid: InstanceGroup | None = matching(VirtualMachine.group_id)
    hypervisor: str | None = matching(VirtualMachine.hypervisor)
    haenable: bool | None = matching(VirtualMachine.ha_enabled)
    displayvm: bool | None = matching(VirtualMachine.display, admin=True)
    userid: User | None = matching(VirtualMachine.user_id)
    userdataid: UserData | None = matching(VirtualMachine.user_data_id)
    hostid: Host | None = optional(admin=True)
    clusterid: Cluster | None = optional(admin=True)
    podid: Pod | None = optional(admin=True)
    storageid: StoragePool | None = optional(admin=True)
    networkid: Network | None = optional()
    securitygroupid: SecurityGroup | None = optional()
    forvirtualnetwork: bool | None = optional()
    keypair: str | None = optional()
    arch: str | None = optional()
    userdata: bool | None = optional()
    details: list[str] | None = optional(description="accepted: every answer has all groups of fields")
    accumulate: bool | None = optional(description="accepted: every answer has all groups of fields")
    retrieveonlyresourcecount: bool | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Add the filters that concern other tables, and hide what is destroyed from users."""
        conditions = [*self._state(ctx), *self._place(), *self._related()]
        if self.name:
            conditions.append(VirtualMachine.name.icontains(self.name, autoescape=True))
        return query.where(*conditions)

    def _state(self, ctx: Context) -> list[Any]:
        found: list[Any] = []
        state = (self.state or "").capitalize()
        if state == "Present":
            found.append(VirtualMachine.state.not_in(("Destroyed", "Expunging")))
        elif state:
            found.append(VirtualMachine.state == state)
        if ctx.caller.role is Role.USER and not USERS_SEE_DESTROYED.flag(ctx.session, account=ctx.caller.account_id):
            found.append(VirtualMachine.state.not_in(("Destroyed", "Expunging")))
        if not ctx.caller.is_admin:
            found.append(VirtualMachine.display)
        return found

    def _place(self) -> list[Any]:
        hosts = select(Host.id)
        if self.clusterid is not None:
            hosts = hosts.where(Host.cluster_id == self.clusterid.id)
        if self.podid is not None:
            hosts = hosts.where(Host.pod_id == self.podid.id)
        if self.hostid is not None:
            hosts = hosts.where(Host.id == self.hostid.id)
        if self.clusterid is None and self.podid is None and self.hostid is None:
            return []
        return [VirtualMachine.host_id.in_(hosts), VirtualMachine.state.in_(HOLDING)]

    def _related(self) -> list[Any]:
        found: list[Any] = []
        on_networks = select(Nic.vm_id).join(Network, Nic.network_id == Network.id).where(Nic.vm_id.is_not(None))
        if self.networkid is not None:
            found.append(VirtualMachine.id.in_(on_networks.where(Network.id == self.networkid.id)))
        if self.forvirtualnetwork is not None:
            virtual = VirtualMachine.id.in_(on_networks.where(Network.guest_type.in_(VIRTUAL)))
            found.append(virtual if self.forvirtualnetwork else ~virtual)
        if self.securitygroupid is not None:
            members = select(SecurityGroupMember.vm_id).where(SecurityGroupMember.group_id == self.securitygroupid.id)
            found.append(VirtualMachine.id.in_(members))
        if self.keypair is not None:
            having = select(MachineKeyPair.vm_id).join(SshKeyPair).where(SshKeyPair.name == self.keypair)
            found.append(VirtualMachine.id.in_(having))
        if self.storageid is not None:
            found.append(VirtualMachine.id.in_(select(Volume.vm_id).where(Volume.pool_id == self.storageid.id)))
        if self.arch is not None:
            found.append(VirtualMachine.template_id.in_(select(Template.id).where(Template.arch == self.arch)))
        if self.userdata is not None:
            found.append(VirtualMachine.user_data.is_not(None) == self.userdata)
        return found
