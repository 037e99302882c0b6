"""deployVirtualMachine: everything that can be refused is refused here; the workflow that follows only does it."""

from __future__ import annotations

import re
from typing import Any

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one
from controlplane.api.context import Context
from controlplane.api.parameters import Long, Records, Uuid, optional, required
from controlplane.compute import guarding, guest_networks, sizes, ssh_keypairs, user_data
from controlplane.compute.choice import PLANNERS
from controlplane.compute.counting import count, count_stopped, count_volume
from controlplane.compute.guest_networks import Wish
from controlplane.compute.instance_groups import group_named
from controlplane.compute.machine_views import told_views
from controlplane.compute.passwords import check_password, give_password
from controlplane.compute.virtual_machines import UserData, VirtualMachine
from controlplane.db.base import new_uuid
from controlplane.errors import BadParameter, Forbidden
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import owner_of_new
from controlplane.network import nics
from controlplane.network.networks import Network
from controlplane.network.security_groups import SecurityGroup
from controlplane.offering.disk_offerings import DiskOffering
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.storage.templates import Template
from controlplane.storage.volumes import Volume
from controlplane.zone.clusters import Cluster
from controlplane.zone.hosts import Host
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone

_DISPLAY = re.compile(r"[^\x00-\x1f\x7f]{1,255}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NOT_HERE = (
    "affinitygroupids", "affinitygroupnames", "bootintosetup", "bootmode", "boottype", "copyimagetags",
    "datadiskofferinglist", "datadisksdetails", "diskofferingid", "externaldetails", "extraconfig", "iodriverpolicy",
    "iothreadsenabled", "keyboard", "leaseduration", "leaseexpiryaction", "nicmultiqueuenumber",
    "nicnetworklist", "nicpackedvirtqueuesenabled", "properties", "size", "snapshotid", "volumeid",
)  # fmt: skip
"""Parameters of features that no part of this cloud has: data disks, firmware, OVF properties …"""


class DeployVirtualMachine(Command, name="deployVirtualMachine", answer=one("virtualmachine", told_views), job=True,
                           creates=True, roles=EVERYONE, instance="VirtualMachine", event="VM.CREATE",
                           unsupported=NOT_HERE):  # fmt: skip
    """Make a machine from a template, and start it unless startvm=false."""

    zoneid: Zone = required()
    serviceofferingid: ServiceOffering = required()
    templateid: Template | None = optional()
    name: str | None = optional(check=guest_networks.host_name)
    displayname: str | None = optional()
    displayvm: bool | None = optional(True, admin=True)
    customid: str | None = optional(admin=True)
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()
    group: str | None = optional()
    hypervisor: str | None = optional()
    networkids: list[Network] | None = optional(uses=True)
    iptonetworklist: Records | None = optional()
    ipaddress: str | None = optional(check=guest_networks.ipv4)
    ip6address: str | None = optional(check=guest_networks.ipv6)
    macaddress: str | None = optional(check=guest_networks.mac)
    dhcpoptionsnetworklist: Records | None = optional()
    details: dict[str, str] | None = optional()
    rootdisksize: Long | None = optional()
    overridediskofferingid: DiskOffering | None = optional()
    dynamicscalingenabled: bool | None = optional()
    keypair: str | None = optional()
    keypairs: list[str] | None = optional()
    password: str | None = optional(length=64)
    userdata: str | None = optional(length=2 << 20)
    userdataid: UserData | None = optional()
    userdatadetails: dict[str, str] | None = optional()
    securitygroupids: list[SecurityGroup] | None = optional()
    securitygroupnames: list[str] | None = optional()
    startvm: bool | None = optional(True)
    hostid: Host | None = optional(admin=True)
    podid: Pod | None = optional(admin=True)
    clusterid: Cluster | None = optional(admin=True)
    deploymentplanner: str | None = optional(admin=True, choices=tuple(PLANNERS))

    def run(self, ctx: Context) -> VirtualMachine:
        """Check it all, write the rows, and hand over to the workflow."""
        owner = owner_of_new(ctx, self.account, self.domainid, self.projectid)
        template = self._template(ctx, owner)
        wishes = self._wishes(ctx, owner)
        networks = [wish.network for wish in wishes]
        groups = guarding.chosen(ctx, owner, networks, self.securitygroupids, self.securitygroupnames)
        pod = self._pod(ctx, wishes)
        vm = self._machine(ctx, owner, template)
        guest_networks.check_name(ctx, vm.hostname, networks)
        vm.dhcp_options = guest_networks.dhcp_options(self.dhcpoptionsnetworklist or (), networks)
        ctx.session.add(vm)
        ctx.session.flush()
        vm.instance_name = f"i-{owner.id}-{vm.id}-VM"
        self._volume(ctx, vm)
        for device, wish in enumerate(wishes):
            nics.allocate(
                ctx.session, wish.network, address=wish.address, address6=wish.address6, mac=wish.mac, vm=vm,
                device=device, default=device == 0,
            )  # fmt: skip
        self._secrets(ctx, vm, template)
        (count if self.startvm else count_stopped)(ctx.session, vm)
        ctx.touch(*networks)
        ctx.touched.extend(guarding.guard_new(ctx.session, vm, groups))
        ctx.instance = vm
        if self.startvm:
            vm.state = "Starting"
            ctx.go_on("startMachine", vm, deploying=True, **(where(self) | pod))
        return vm

    def _template(self, ctx: Context, owner: Account) -> Template:
        zone, template = self.zoneid, self.templateid
        if zone.allocation_state != "Enabled" and not ctx.caller.is_admin:
            raise Forbidden(f"Zone {zone.name} is {zone.allocation_state}: only a root admin can deploy in it now.")
        if zone.domain_id is not None and f"/{zone.domain_id}/" not in owner.domain.path:
            raise Forbidden(f"Zone {zone.name} is not for accounts of domain {owner.domain.name_path}.")
        sizes.check_offering(ctx, self.serviceofferingid, zone, owner)
        if template is None:
            raise BadParameter("Parameter templateid is missing: volumes and snapshots cannot be deployed from.")
        problem = ""
        if template.format == "ISO":
            problem = "it is an ISO, and no hypervisor here boots one"
        elif template.state != "Ready":
            problem = f"it is {template.state}"
        elif template.zone_id not in (None, zone.id):
            problem = f"it is not in zone {zone.name}"
        elif self.hypervisor and self.hypervisor.lower() != template.hypervisor.lower():
            problem = f"it is for {template.hypervisor}, and {self.hypervisor} was asked for"
        if problem:
            raise BadParameter(f"Invalid parameter templateid value={template.uuid}: {problem}.")
        return template

    def _wishes(self, ctx: Context, owner: Account) -> list[Wish]:
        if self.iptonetworklist:
            if self.networkids or self.ipaddress or self.ip6address:
                raise BadParameter(
                    "Invalid parameter iptonetworklist: it goes without networkids, ipaddress and ip6address."
                )
            wishes = guest_networks.listed(ctx, self.iptonetworklist)
        else:
            networks = self.networkids or [guest_networks.own_network(ctx, self.zoneid, owner)]
            first = Wish(networks[0], self.ipaddress or "", self.macaddress or "", self.ip6address or "")
            wishes = [first, *(Wish(network) for network in networks[1:])]
        guest_networks.check_wishes(ctx.session, wishes, self.zoneid, owner)
        return wishes

    def _pod(self, ctx: Context, wishes: list[Wish]) -> dict[str, int]:
        place = self.podid
        if place is None and (named := self.hostid or self.clusterid) is not None:
            place = ctx.session.get_one(Pod, named.pod_id)
        number = guest_networks.pod_of_wishes(ctx.session, wishes, place)
        return {} if number is None else {"pod": number}

    def _machine(self, ctx: Context, owner: Account, template: Template) -> VirtualMachine:
        details = sizes.check_details(ctx, self.details or {})
        size = sizes.size_of(self.serviceofferingid, details)
        uuid = custom_id(self.customid) if self.customid else new_uuid()
        name = self.name or f"VM-{uuid}"
        chosen = user_data.choose(ctx, template, self.userdata, self.userdataid, self.userdatadetails or {})
        return VirtualMachine(
            uuid=uuid,
            account_id=owner.id,
            domain_id=owner.domain_id,
            user_id=ctx.caller.user_id,
            name=name,
            display_name=display_name(self.displayname) if self.displayname else name,
            hostname=name.lower() if self.name is None else name,
            zone_id=self.zoneid.id,
            template_id=template.id,
            os_type_id=template.os_type_id,
            offering_id=self.serviceofferingid.id,
            hypervisor=template.hypervisor,
            cpus=size.cpus,
            mhz=size.mhz,
            memory=size.memory,
            user_data=chosen.text,
            user_data_id=chosen.row.id if chosen.row else None,
            user_data_details=dict(chosen.values),
            details=details,
            display=self.displayvm is not False,
            dynamic=bool(self.dynamicscalingenabled) and template.is_dynamically_scalable,
            ha_enabled=self.serviceofferingid.offer_ha,
            group_id=group_named(ctx, owner, self.group).id if self.group else None,
        )

    def _volume(self, ctx: Context, vm: VirtualMachine) -> None:
        template, override = self.templateid, self.overridediskofferingid
        assert template is not None
        vm.root_size = sizes.root_size(template, self.serviceofferingid, override, self.rootdisksize)
        volume = Volume(
            account_id=vm.account_id,
            domain_id=vm.domain_id,
            name=f"ROOT-{vm.id}",
            type="ROOT",
            size=vm.root_size,
            zone_id=vm.zone_id,
            vm_id=vm.id,
            device=0,
            template_id=template.id,
            disk_offering_id=override.id if override else None,
        )
        ctx.session.add(volume)
        count_volume(ctx.session, volume)

    def _secrets(self, ctx: Context, vm: VirtualMachine, template: Template) -> None:
        owner = ctx.session.get_one(Account, vm.account_id)
        vm.keypairs = ssh_keypairs.named_all(ctx, owner, self.keypair, self.keypairs)
        wanted = check_password(self.password)
        if template.password_enabled:
            give_password(ctx.session, vm, wanted)
        elif wanted is not None:
            raise BadParameter(f"Invalid parameter password: template {template.name} does not take passwords.")


def where(command: Any) -> dict[str, Any]:
    """Return a workflow's arguments for the place that a command asks for."""
    places = {"host": command.hostid, "pod": command.podid, "cluster": command.clusterid}
    wanted = {name: row.id for name, row in places.items() if row is not None}
    return wanted | ({"planner": command.deploymentplanner} if command.deploymentplanner else {})


def display_name(value: str) -> str:
    """Accept a display name: one line of text.

    :raises BadParameter: it is none.
    """
    if not _DISPLAY.fullmatch(value):
        raise BadParameter("Invalid parameter displayname: it must be one line of at most 255 characters.")
    return value


def custom_id(value: str) -> str:
    """Accept a UUID that the caller has chosen.

    :raises BadParameter: it is none.
    """
    if not _UUID.fullmatch(value.lower()):
        raise BadParameter(f"Invalid parameter customid value={value}: it must be a UUID.")
    return value.lower()


dispatch.JOB_TABLES["VirtualMachine"] = VirtualMachine
