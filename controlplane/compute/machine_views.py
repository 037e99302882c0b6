"""How machines and their NICs look in answers; any number of rows costs the same few queries."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import joinedload, selectinload

from controlplane.api.context import Context
from controlplane.api.responses import Response
from controlplane.compute.virtual_machines import HOLDING, InstanceGroup, UserData, VirtualMachine
from controlplane.identity.ownership import owner_fields
from controlplane.identity.tags import TagResponse, tags_of
from controlplane.identity.users import User
from controlplane.network.guest_ranges import range_with, ranges_by_network
from controlplane.network.networks import WITH_SCHEME, uri_of
from controlplane.network.nics import Nic
from controlplane.network.public_ips import PublicIp
from controlplane.network.security_groups import SecurityGroupResponse, groups_of_machines
from controlplane.storage.templates import OsType, Template
from controlplane.zone.hosts import Host
from controlplane.zone.zones import Zone


@dataclass(kw_only=True)
class SecondaryIpResponse(Response):
    """A further address on a NIC."""

    id: str
    ipaddress: str


@dataclass(kw_only=True)
class NicResponse(Response):
    """A NIC of a machine."""

    id: str
    networkid: str
    networkname: str
    virtualmachineid: str | None = None
    ipaddress: str | None = None
    netmask: str | None = None
    gateway: str | None = None
    ip6address: str | None = None
    ip6cidr: str | None = None
    ip6gateway: str | None = None
    macaddress: str
    traffictype: str
    type: str
    isdefault: bool
    deviceid: str
    broadcasturi: str | None = None
    isolationuri: str | None = None
    isolatedpvlan: int | None = None
    isolatedpvlantype: str | None = None
    mtu: int | None = None
    publicip: str | None = None
    publicipid: str | None = None
    secondaryip: list[SecondaryIpResponse] = field(default_factory=list)
    extradhcpoption: list[dict[str, Any]] = field(default_factory=list)


@dataclass(kw_only=True)
class VirtualMachineResponse(Response):
    """A machine. ``nic``, ``tags``, ``securitygroup`` and ``affinitygroup`` are there even when empty."""

    id: str
    name: str
    displayname: str
    instancename: str | None = None
    account: str
    domain: str
    domainid: str
    domainpath: str
    userid: str | None = None
    username: str | None = None
    created: datetime
    lastupdated: datetime | None = None
    state: str
    haenable: bool
    deleteprotection: bool
    displayvm: bool | None = None
    groupid: str | None = None
    group: str | None = None
    zoneid: str
    zonename: str
    hostid: str | None = None
    hostname: str | None = None
    hostcontrolstate: str | None = None
    templateid: str
    templatename: str
    templatedisplaytext: str
    templatetype: str
    templateformat: str
    passwordenabled: bool
    serviceofferingid: str
    serviceofferingname: str
    cpunumber: int
    cpuspeed: int
    memory: int
    arch: str
    hypervisor: str
    rootdeviceid: int
    rootdevicetype: str
    guestosid: str | None = None
    ostypeid: str | None = None
    osdisplayname: str | None = None
    isdynamicallyscalable: bool
    keypairs: str | None = None
    userdata: str | None = None
    userdatadetails: str | None = None
    userdataid: str | None = None
    userdataname: str | None = None
    userdatapolicy: str | None = None
    ipaddress: str | None = None
    publicip: str | None = None
    publicipid: str | None = None
    password: str | None = None
    vmtype: str = "User"
    details: dict[str, str] | None = None
    nic: list[NicResponse] = field(default_factory=list)
    securitygroup: list[SecurityGroupResponse] = field(default_factory=list)
    affinitygroup: list[Any] = field(default_factory=list)
    tags: list[TagResponse] = field(default_factory=list)


def machine_views(ctx: Context, rows: Sequence[VirtualMachine]) -> list[VirtualMachineResponse]:
    """Return what the caller sees of these machines."""
    around = _Around.of(ctx, rows)
    return [_view(ctx, vm, around) for vm in rows]


def told_views(ctx: Context, rows: Sequence[VirtualMachine]) -> list[VirtualMachineResponse]:
    """Return the same, with a password that was made just now: for the answer of the command that made it."""
    views = machine_views(ctx, rows)
    for vm, view in zip(rows, views, strict=True):
        view.password = vm.told_password
    return views


@dataclass(frozen=True, slots=True)
class _Around:
    """What the views of many machines need beside their rows, by number."""

    owners: dict[int, dict[str, Any]]
    tags: dict[int, list[TagResponse]]
    nics: dict[int, list[NicResponse]]
    zones: dict[int, Zone]
    hosts: dict[int, Host]
    templates: dict[int, Template]
    users: dict[int, User]
    groups: dict[int, InstanceGroup]
    os_types: dict[int, OsType]
    user_data: dict[int, UserData]
    guards: dict[int, list[SecurityGroupResponse]]

    @classmethod
    def of(cls, ctx: Context, rows: Sequence[VirtualMachine]) -> _Around:
        """Read it all, one query a table."""
        session = ctx.session
        loading = (joinedload(VirtualMachine.offering), selectinload(VirtualMachine.keypairs))
        session.scalars(
            select(VirtualMachine).where(VirtualMachine.id.in_([vm.id for vm in rows])).options(*loading)
        ).all()
        templates = _by_id(ctx, Template, {vm.template_id for vm in rows})
        guest_os = {vm.os_type_id for vm in rows} | {template.os_type_id for template in templates.values()}
        return cls(
            {number: dict(fields) for number, fields in owner_fields(ctx, rows).items()},
            tags_of(ctx, "UserVm", rows),
            _nics_of(ctx, rows),
            _by_id(ctx, Zone, {vm.zone_id for vm in rows}),
            _by_id(ctx, Host, {vm.host_id for vm in rows}) if ctx.caller.is_admin else {},
            templates,
            _by_id(ctx, User, {vm.user_id for vm in rows}),
            _by_id(ctx, InstanceGroup, {vm.group_id for vm in rows}),
            _by_id(ctx, OsType, guest_os),
            _by_id(ctx, UserData, {vm.user_data_id for vm in rows}),
            groups_of_machines(ctx, [vm.id for vm in rows]),
        )


def _by_id(ctx: Context, table: Any, numbers: set[int | None]) -> dict[int, Any]:
    wanted = numbers - {None}
    if not wanted:
        return {}
    return {row.id: row for row in ctx.session.scalars(select(table).where(table.id.in_(wanted)))}


def _view(ctx: Context, vm: VirtualMachine, around: _Around) -> VirtualMachineResponse:
    nics = around.nics[vm.id]
    first = next((nic for nic in nics if nic.isdefault), nics[0] if nics else None)
    template, zone = around.templates[vm.template_id], around.zones[vm.zone_id]
    return VirtualMachineResponse(
        id=vm.uuid,
        name=vm.name,
        displayname=vm.display_name or vm.name,
        **around.owners[vm.account_id],
        created=vm.created,
        lastupdated=vm.updated,
        state=vm.state,
        haenable=vm.ha_enabled,
        deleteprotection=vm.delete_protection,
        zoneid=zone.uuid,
        zonename=zone.name,
        templateid=template.uuid,
        templatename=template.name,
        templatedisplaytext=template.display_text,
        templatetype=template.type,
        templateformat=template.format,
        passwordenabled=template.password_enabled,
        serviceofferingid=vm.offering.uuid,
        serviceofferingname=vm.offering.name,
        cpunumber=vm.cpus,
        cpuspeed=vm.mhz,
        memory=vm.memory,
        arch=template.arch,
        hypervisor=vm.hypervisor,
        rootdeviceid=0,
        rootdevicetype="ROOT",
        isdynamicallyscalable=vm.dynamic,
        keypairs=",".join(pair.name for pair in vm.keypairs) or None,
        ipaddress=first.ipaddress if first else None,
        publicip=first.publicip if first else None,
        publicipid=first.publicipid if first else None,
        details=_shown_details(vm),
        nic=nics,
        securitygroup=around.guards[vm.id],
        tags=around.tags[vm.id],
        **_related(vm, around),
        **(_admin_fields(vm, around) if ctx.caller.is_admin else {}),
    )


def _shown_details(vm: VirtualMachine) -> dict[str, str]:
    return {name: value for name, value in vm.details.items() if is_shown(name)}


def is_shown(name: str) -> bool:
    """Tell whether answers show the detail of this name; none that holds a password is shown."""
    return "password" not in name.lower()


def _related(vm: VirtualMachine, around: _Around) -> dict[str, Any]:
    user = around.users.get(vm.user_id or 0)
    group = around.groups.get(vm.group_id or 0)
    data = around.user_data.get(vm.user_data_id or 0)
    template = around.templates[vm.template_id]
    guest_os = around.os_types.get(vm.os_type_id or template.os_type_id or 0)
    values = ", ".join(f"{name}={value}" for name, value in sorted(vm.user_data_details.items()))
    return {
        "userid": user and user.uuid,
        "username": user and user.username,
        "groupid": group and group.uuid,
        "group": group and group.name,
        "guestosid": guest_os and guest_os.uuid,
        "ostypeid": guest_os and guest_os.uuid,
        "osdisplayname": guest_os and guest_os.name,
        "userdata": vm.user_data,
        "userdatadetails": values or None,
        "userdataid": data and data.uuid,
        "userdataname": data and data.name,
        "userdatapolicy": template.userdata_policy,
    }


def _admin_fields(vm: VirtualMachine, around: _Around) -> dict[str, Any]:
    host = around.hosts.get(vm.host_id or 0) if vm.state in HOLDING else None
    return {
        "instancename": vm.instance_name,
        "displayvm": vm.display,
        "hostid": host and host.uuid,
        "hostname": host and host.name,
        "hostcontrolstate": host and host.resource_state,
    }


def _nics_of(ctx: Context, rows: Sequence[VirtualMachine]) -> dict[int, list[NicResponse]]:
    found: dict[int, list[NicResponse]] = {vm.id: [] for vm in rows}
    machines = {vm.id: vm for vm in rows}
    nics = list(
        ctx.session.scalars(
            select(Nic)
            .where(Nic.vm_id.in_(list(found)))
            .order_by(Nic.vm_id, Nic.device)
            .options(joinedload(Nic.network).options(*WITH_SCHEME), selectinload(Nic.secondary))
        )
    )
    for nic, view in zip(nics, nic_views(ctx, nics, machines), strict=True):
        found[nic.vm_id or 0].append(view)
    return found


def nic_views(
    ctx: Context, nics: Sequence[Nic], machines: dict[int, VirtualMachine] | None = None
) -> list[NicResponse]:
    """Return what these NICs, each on a guest network, look like.

    :param machines: theirs, by number; read here where they are not at hand.
    """
    if machines is None:
        machines = _by_id(ctx, VirtualMachine, {nic.vm_id for nic in nics})
    public = {
        ip.nic_id: ip
        for ip in ctx.session.scalars(
            select(PublicIp).where(PublicIp.nic_id.in_([nic.id for nic in nics]), PublicIp.static_nat)
        )
    }
    ranges = ranges_by_network(ctx.session, {nic.network for nic in nics if nic.network is not None})
    views = [_nic(ctx, nic, machines[nic.vm_id or 0], public.get(nic.id)) for nic in nics]
    for view, nic in zip(views, nics, strict=True):
        if (within := range_with(ranges.get(nic.network_id or 0, ()), nic.address)) is not None:
            view.netmask, view.gateway = within.netmask, within.gateway
    return views


def _nic(ctx: Context, nic: Nic, vm: VirtualMachine, public: PublicIp | None) -> NicResponse:
    network = nic.network
    assert network is not None
    uri = (uri_of(network) or None) if ctx.caller.is_admin else None
    return NicResponse(
        id=nic.uuid,
        networkid=network.uuid,
        networkname=network.name,
        virtualmachineid=vm.uuid,
        ipaddress=nic.address or None,
        netmask=str(ipaddress.ip_network(network.cidr).netmask) if network.cidr else None,
        gateway=network.gateway,
        ip6address=nic.address6 or None,
        ip6cidr=network.cidr6 if nic.address6 else None,
        ip6gateway=network.gateway6 if nic.address6 else None,
        macaddress=nic.mac,
        traffictype=nic.traffic,
        type=network.guest_type,
        isdefault=nic.default,
        deviceid=str(nic.device),
        broadcasturi=uri,
        isolationuri=uri,
        isolatedpvlan=network.pvlan if uri else None,
        isolatedpvlantype=(network.pvlan_role or None) if uri else None,
        mtu=network.mtu,
        publicip=public.address if public else None,
        publicipid=public.uuid if public else None,
        secondaryip=[SecondaryIpResponse(id=more.uuid, ipaddress=more.address) for more in nic.secondary],
        extradhcpoption=[
            {"codename": f"dhcp:{code}", "value": value}
            for code, value in sorted(vm.dhcp_options.get(network.uuid, {}).items(), key=lambda item: int(item[0]))
        ],
    )
