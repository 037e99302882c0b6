"""The list of hosts, and how a host is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, String, false, select
from sqlalchemy.orm import joinedload

from controlplane.api import dispatch
from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand, Paged
from controlplane.api.parameters import matching, optional
from controlplane.api.responses import Response
from controlplane.db.configuration import define
from controlplane.storage.templates import OsCategory
from controlplane.zone.capacity import Ratios, ratios_of, used_by_host
from controlplane.zone.clusters import Cluster
from controlplane.zone.hosts import Host, is_up, patience, state_of
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone

HA_TAG = define("ha.tag", "", "Hosts with this tag are kept for machines that high availability restarts")
HOST_TYPES = ("Routing", "Storage", "SecondaryStorage", "SecondaryStorageVM", "ConsoleProxy", "ExternalFirewall")

dispatch.JOB_TABLES["Host"] = Host


@dataclass(kw_only=True)
class HostResponse(Response):
    """A host; processors' speed in MHz, memory in bytes."""

    id: str
    name: str
    state: str
    resourcestate: str
    type: str = "Routing"
    hypervisor: str
    hypervisorversion: str | None = None
    version: str | None = None
    arch: str
    ipaddress: str | None = None
    username: str | None = None
    zoneid: str
    zonename: str
    podid: str
    podname: str
    clusterid: str
    clustername: str
    clustertype: str
    oscategoryid: str | None = None
    oscategoryname: str | None = None
    cpunumber: int
    cpusockets: int | None = None
    cpuspeed: int
    cpuallocated: str
    cpuallocatedvalue: int
    cpuallocatedpercentage: str
    cpuallocatedwithoverprovisioning: str
    cpuwithoverprovisioning: str
    memorytotal: int
    memoryallocated: int
    memoryallocatedbytes: int
    memoryallocatedpercentage: str
    memorywithoverprovisioning: str
    hosttags: str | None = None
    explicithosttags: str | None = None
    hahost: bool
    islocalstorageactive: bool
    hasenoughcapacity: bool | None = None
    annotation: str | None = None
    lastannotated: datetime | None = None
    lastpinged: datetime | None = None
    disconnected: datetime | None = None
    created: datetime
    removed: datetime | None = None
    details: dict[str, str] | None = None


def host_views(ctx: Context, rows: Sequence[Host]) -> list[HostResponse]:
    """Return the responses of these hosts."""
    session = ctx.session
    ratios = ratios_of(session, {row.cluster_id: row.cluster for row in rows}.values())
    held = used_by_host(session, Host.id.in_([row.id for row in rows]))
    numbers = {row.os_category_id for row in rows if row.os_category_id}
    found = session.scalars(select(OsCategory).where(OsCategory.id.in_(numbers))) if numbers else ()
    categories = {category.id: category for category in found}
    oldest, ha_tag = ctx.now - patience(session), HA_TAG.text(session)
    responses = []
    for row in rows:
        response = _view(row, held.get(row.id, (0, 0, 0)), ratios[row.cluster_id])
        response.state = state_of(row, oldest)
        response.hahost = bool(ha_tag) and ha_tag in row.tags
        agent = row.target.agent if row.target else None
        response.lastpinged = agent.seen if agent else None
        response.disconnected = response.lastpinged if response.state == "Disconnected" else None
        category = categories.get(row.os_category_id or 0)
        if category is not None:
            response.oscategoryid, response.oscategoryname = category.uuid, category.name
        responses.append(response)
    return responses


def _view(host: Host, held: tuple[int, int, int], ratios: Ratios) -> HostResponse:
    mhz, memory = host.cpus * host.mhz, host.memory
    tags = ",".join(host.tags) or None
    return HostResponse(
        id=host.uuid,
        name=host.name,
        state=host.state,
        resourcestate=host.resource_state,
        hypervisor=host.hypervisor,
        hypervisorversion=host.version,
        version=host.version,
        arch=host.arch,
        ipaddress=host.address or None,
        username=host.username or None,
        zoneid=host.cluster.pod.zone.uuid,
        zonename=host.cluster.pod.zone.name,
        podid=host.cluster.pod.uuid,
        podname=host.cluster.pod.name,
        clusterid=host.cluster.uuid,
        clustername=host.cluster.name,
        clustertype=host.cluster.type,
        cpunumber=host.cpus,
        cpuspeed=host.mhz,
        cpuallocated=_share(held[0], mhz),
        cpuallocatedvalue=held[0],
        cpuallocatedpercentage=_share(held[0], mhz),
        cpuallocatedwithoverprovisioning=_share(held[0], mhz * ratios.cpu),
        cpuwithoverprovisioning=str(int(mhz * ratios.cpu)),
        memorytotal=memory,
        memoryallocated=held[1],
        memoryallocatedbytes=held[1],
        memoryallocatedpercentage=_share(held[1], memory),
        memorywithoverprovisioning=str(int(memory * ratios.memory)),
        hosttags=tags,
        explicithosttags=tags,
        hahost=False,
        islocalstorageactive=True,
        annotation=host.annotation,
        lastannotated=host.annotated,
        created=host.created,
        removed=host.removed,
        details={key: value for key, value in host.details.items() if "password" not in key.lower()} or None,
    )


def _share(used: float, total: float) -> str:
    return f"{100 * used / total if total else 0:.2f}%"


class ListHosts(ListCommand, name="listHosts", answer=many("host", host_views)):
    """List hosts."""

    unsupported = (
        "managementserverid",
        "outofbandmanagementenabled",
        "outofbandmanagementpowerstate",
        "storageaccessgroup",
        "virtualmachineid",
    )
    table = Host
    keywords = (Host.name, Host.hypervisor, Host.address)

    id: Host | None = matching(Host.id)
    name: str | None = matching(Host.name)
    zoneid: Zone | None = matching(Host.zone_id)
    podid: Pod | None = matching(Host.pod_id)
    clusterid: Cluster | None = matching(Host.cluster_id)
    hypervisor: str | None = matching(Host.hypervisor)
    resourcestate: str | None = matching(Host.resource_state)
    arch: str | None = matching(Host.arch)
    version: str | None = matching(Host.version)
    state: str | None = optional(choices=("Up", "Down", "Disconnected", "Alert", "Connecting", "Error", "Removed"))
    type: str | None = optional(choices=HOST_TYPES)
    hahost: bool | None = optional(description="only hosts that are kept for high availability, or all others")
    details: list[str] | None = optional(description="accepted: a host is always shown whole")

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Look at the state, and bring along what is shown."""
        query = query.options(
            joinedload(Host.cluster).joinedload(Cluster.pod).joinedload(Pod.zone), joinedload(Host.target)
        )
        up = is_up(ctx.now - patience(ctx.session))
        if self.state == "Up":
            query = query.where(up)
        elif self.state == "Disconnected":
            query = query.where(~up, Host.state.in_(("Up", "Disconnected")))
        elif self.state is not None:
            query = query.where(Host.state == self.state)
        if self.type not in (None, "Routing"):
            query = query.where(false())
        if self.hahost is not None:
            tag = HA_TAG.text(ctx.session)
            kept = Host.tags.cast(String).contains(f'"{tag}"') if tag else false()
            query = query.where(kept if self.hahost else ~kept)
        return query


@dataclass(kw_only=True)
class HostTagResponse(Response):
    """A tag that hosts have."""

    id: str
    name: str
    isimplicit: bool = False


def host_tag_views(ctx: Context, rows: Sequence[str]) -> list[HostTagResponse]:
    """Return the responses of these tags."""
    del ctx
    return [HostTagResponse(id=tag, name=tag) for tag in rows]


class ListHostTags(Paged, name="listHostTags", answer=many("hosttag", host_tag_views)):
    """List the tags that any host has."""

    writes = False
    keyword: str | None = optional()

    def run(self, ctx: Context) -> tuple[Sequence[str], int]:
        """Return each tag once."""
        lists = ctx.session.scalars(select(Host.tags).where(Host.removed.is_(None)))
        word = (self.keyword or "").lower()
        return self.page_of(ctx.session, sorted({tag for tags in lists for tag in tags if word in tag.lower()}))
