"""listVolumes: the disks of machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select

from controlplane.api.caller import EVERYONE
from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional
from controlplane.api.responses import Response
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.identity.ownership import OwnedListing, owner_fields
from controlplane.identity.tags import TagResponse, tags_of
from controlplane.offering.disk_offerings import DiskOffering
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.storage.templates import Template
from controlplane.storage.volumes import StoragePool, Volume
from controlplane.zone.clusters import Cluster
from controlplane.zone.hosts import Host
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone


@dataclass(kw_only=True)
class VolumeResponse(Response):
    """A volume; ``size`` in bytes."""

    id: str
    name: str
    type: str
    state: str
    size: int
    virtualsize: int
    created: datetime
    attached: datetime | None = None
    deviceid: int | None = None
    account: str
    domain: str
    domainid: str
    domainpath: str
    zoneid: str
    zonename: str
    virtualmachineid: str | None = None
    vmname: str | None = None
    vmdisplayname: str | None = None
    vmstate: str | None = None
    vmtype: str | None = None
    hypervisor: str | None = None
    templateid: str | None = None
    templatename: str | None = None
    templatedisplaytext: str | None = None
    serviceofferingid: str | None = None
    serviceofferingname: str | None = None
    serviceofferingdisplaytext: str | None = None
    diskofferingid: str | None = None
    diskofferingname: str | None = None
    diskofferingdisplaytext: str | None = None
    storageid: str | None = None
    storage: str | None = None
    storagetype: str = "local"
    provisioningtype: str = "thin"
    displayvolume: bool = True
    isextractable: bool = False
    destroyed: bool = False
    tags: list[TagResponse]


def volume_views(ctx: Context, rows: Sequence[Volume]) -> list[VolumeResponse]:
    """Return what volumes look like."""
    machines = _by_id(ctx, VirtualMachine, [row.vm_id for row in rows])
    around = {
        "zone": _by_id(ctx, Zone, [row.zone_id for row in rows]),
        "template": _by_id(ctx, Template, [row.template_id for row in rows]),
        "disk": _by_id(ctx, DiskOffering, [row.disk_offering_id for row in rows]),
        "pool": _by_id(ctx, StoragePool, [row.pool_id for row in rows]) if ctx.caller.is_admin else {},
        "offering": _by_id(ctx, ServiceOffering, [vm.offering_id for vm in machines.values()]),
    }
    owners, tags = owner_fields(ctx, rows), tags_of(ctx, "Volume", rows)
    return [
        VolumeResponse(
            id=row.uuid,
            name=row.name,
            type=row.type,
            state=row.state,
            size=row.size,
            virtualsize=row.size,
            created=row.created,
            attached=row.created if row.vm_id else None,
            deviceid=row.device,
            zoneid=around["zone"][row.zone_id].uuid,
            zonename=around["zone"][row.zone_id].name,
            tags=tags[row.id],
            **owners[row.account_id],
            **_machine_fields(machines.get(row.vm_id or 0), around["offering"]),
            **_origin_fields(row, around),
        )
        for row in rows
    ]


def _by_id(ctx: Context, table: Any, numbers: Sequence[int | None]) -> dict[int, Any]:
    wanted = {number for number in numbers if number is not None}
    if not wanted:
        return {}
    return {row.id: row for row in ctx.session.scalars(select(table).where(table.id.in_(wanted)))}


def _machine_fields(vm: VirtualMachine | None, offerings: dict[int, Any]) -> dict[str, Any]:
    if vm is None:
        return {}
    offering = offerings[vm.offering_id]
    return {
        "virtualmachineid": vm.uuid,
        "vmname": vm.name,
        "vmdisplayname": vm.display_name or vm.name,
        "vmstate": vm.state,
        "vmtype": "User",
        "hypervisor": vm.hypervisor,
        "serviceofferingid": offering.uuid,
        "serviceofferingname": offering.name,
        "serviceofferingdisplaytext": offering.display_text,
    }


def _origin_fields(row: Volume, around: dict[str, dict[int, Any]]) -> dict[str, Any]:
    template = around["template"].get(row.template_id or 0)
    disk = around["disk"].get(row.disk_offering_id or 0)
    pool = around["pool"].get(row.pool_id or 0)
    return {
        "templateid": template and template.uuid,
        "templatename": template and template.name,
        "templatedisplaytext": template and template.display_text,
        "diskofferingid": disk and disk.uuid,
        "diskofferingname": disk and disk.name,
        "diskofferingdisplaytext": disk and disk.display_text,
        "storageid": pool and pool.uuid,
        "storage": pool and pool.name,
    }


class ListVolumes(OwnedListing, name="listVolumes", answer=many("volume", volume_views), roles=EVERYONE,
                  unsupported=("isencrypted", "listsystemvms")):  # fmt: skip
    """List volumes."""

    table = Volume
    keywords = (Volume.name,)
    taggable = "Volume"

    id: Volume | None = matching(Volume.id)
    ids: list[Volume] | None = matching(Volume.id)
    name: str | None = matching(Volume.name)
    type: str | None = matching(Volume.type)
    state: str | None = matching(Volume.state)
    zoneid: Zone | None = matching(Volume.zone_id)
    virtualmachineid: VirtualMachine | None = matching(Volume.vm_id)
    diskofferingid: DiskOffering | None = matching(Volume.disk_offering_id)
    storageid: StoragePool | None = optional(admin=True)
    serviceofferingid: ServiceOffering | None = optional()
    hostid: Host | None = optional(admin=True)
    clusterid: Cluster | None = optional(admin=True)
    podid: Pod | None = optional(admin=True)
    displayvolume: bool | None = optional(description="every volume is for display", admin=True)
    retrieveonlyresourcecount: bool | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Add the filters that concern the volumes' machines."""
        del ctx
        if self.storageid is not None:
            query = query.where(Volume.pool_id == self.storageid.id)
        if self.displayvolume is False:
            query = query.where(Volume.id.is_(None))
        if self.serviceofferingid is not None:
            machines = select(VirtualMachine.id).where(VirtualMachine.offering_id == self.serviceofferingid.id)
            query = query.where(Volume.vm_id.in_(machines))
        places = ((self.hostid, Host.id), (self.clusterid, Host.cluster_id), (self.podid, Host.pod_id))
        for place, column in places:
            if place is not None:
                here = select(VirtualMachine.id).join(Host, VirtualMachine.host_id == Host.id).where(column == place.id)
                query = query.where(Volume.vm_id.in_(here))
        return query
