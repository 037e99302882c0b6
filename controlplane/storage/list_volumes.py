"""The list of volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, false, select

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
    """A volume; its size in bytes."""

    id: str
    name: str
    type: str
    state: str
    size: int
    virtualsize: int
    deviceid: int | None = None
    created: datetime
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
    diskofferingid: str | None = None
    diskofferingname: str | None = None
    diskofferingdisplaytext: str | None = None
    serviceofferingid: str | None = None
    serviceofferingname: str | None = None
    serviceofferingdisplaytext: str | None = None
    provisioningtype: str | None = None
    storage: str | None = None
    storageid: str | None = None
    storagetype: str | None = None
    destroyed: bool
    isextractable: bool = False
    displayvolume: bool = True
    quiescevm: bool = False
    tags: list[TagResponse]


def volume_views(ctx: Context, rows: Sequence[Volume]) -> list[VolumeResponse]:
    """Return the responses of these volumes; where they lie is root admins' business."""
    owners, tags = owner_fields(ctx, rows), tags_of(ctx, "Volume", rows)
    zones = _by_number(ctx, Zone, {row.zone_id for row in rows})
    machines = _by_number(ctx, VirtualMachine, {row.vm_id for row in rows})
    offerings = _by_number(ctx, ServiceOffering, {machine.offering_id for machine in machines.values()})
    disks = _by_number(ctx, DiskOffering, {row.disk_offering_id for row in rows})
    templates = _by_number(ctx, Template, {row.template_id for row in rows})
    pools = _by_number(ctx, StoragePool, {row.pool_id for row in rows})
    responses = []
    for row in rows:
        response = VolumeResponse(
            id=row.uuid,
            name=row.name,
            type=row.type,
            state=row.state,
            size=row.size,
            virtualsize=row.size,
            deviceid=row.device,
            created=row.created,
            zoneid=zones[row.zone_id].uuid,
            zonename=zones[row.zone_id].name,
            destroyed=row.state == "Destroy",
            tags=tags[row.id],
            **owners[row.account_id],
        )
        machine = machines.get(row.vm_id)
        if machine is not None:
            _add_machine(response, machine, offerings[machine.offering_id])
        _add_origin(response, templates.get(row.template_id), disks.get(row.disk_offering_id))
        pool = pools.get(row.pool_id)
        if pool is not None:
            response.storagetype = "local" if pool.scope == "HOST" else "shared"
            if ctx.caller.is_admin:
                response.storage, response.storageid = pool.name, pool.uuid
        responses.append(response)
    return responses


def _add_machine(response: VolumeResponse, machine: VirtualMachine, offering: ServiceOffering) -> None:
    response.virtualmachineid, response.vmname = machine.uuid, machine.name
    response.vmdisplayname, response.vmstate, response.vmtype = machine.display_name, machine.state, "User"
    response.hypervisor = machine.hypervisor
    if response.type == "ROOT":
        response.serviceofferingid, response.serviceofferingname = offering.uuid, offering.name
        response.serviceofferingdisplaytext = offering.display_text
        response.provisioningtype = offering.provisioning_type


def _add_origin(response: VolumeResponse, template: Template | None, disk: DiskOffering | None) -> None:
    if template is not None:
        response.templateid, response.templatename = template.uuid, template.name
        response.templatedisplaytext = template.display_text
    if disk is not None:
        response.diskofferingid, response.diskofferingname = disk.uuid, disk.name
        response.diskofferingdisplaytext, response.provisioningtype = disk.display_text, disk.provisioning_type


def _by_number(ctx: Context, table: Any, numbers: set[Any]) -> dict[Any, Any]:
    wanted = numbers - {None}
    if not wanted:
        return {}
    return {row.id: row for row in ctx.session.scalars(select(table).where(table.id.in_(wanted)))}


class ListVolumes(OwnedListing, name="listVolumes", answer=many("volume", volume_views), roles=EVERYONE):
    """List volumes."""

    unsupported = ("isencrypted", "listsystemvms", "retrieveonlyresourcecount")
    table = Volume
    taggable = "Volume"
    keywords = (Volume.name,)

    id: Volume | None = matching(Volume.id)
    ids: list[Volume] | None = matching(Volume.id)
    name: str | None = matching(Volume.name)
    type: str | None = matching(Volume.type)
    state: str | None = matching(Volume.state)
    zoneid: Zone | None = matching(Volume.zone_id)
    virtualmachineid: VirtualMachine | None = matching(Volume.vm_id)
    diskofferingid: DiskOffering | None = matching(Volume.disk_offering_id)
    serviceofferingid: str | None = optional()
    storageid: str | None = optional()
    hostid: Host | None = optional(description="on a pool of this host")
    clusterid: Cluster | None = optional()
    podid: Pod | None = optional()
    displayvolume: bool | None = optional(description="every volume is displayed")

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Look at where volumes lie and what they are of."""
        places = (
            (self.hostid, StoragePool.host_id),
            (self.clusterid, StoragePool.cluster_id),
            (self.podid, StoragePool.pod_id),
        )
        for place, column in places:
            if place is not None:
                query = query.where(Volume.pool_id.in_(select(StoragePool.id).where(column == place.id)))
        if self.storageid is not None:
            query = query.where(Volume.pool_id == ctx.find(StoragePool, self.storageid, "storageid").id)
        if self.serviceofferingid is not None:
            offering = ctx.find(ServiceOffering, self.serviceofferingid, "serviceofferingid")
            having = select(VirtualMachine.id).where(VirtualMachine.offering_id == offering.id)
            query = query.where(Volume.type == "ROOT", Volume.vm_id.in_(having))
        if self.displayvolume is False:
            query = query.where(false())
        return query
