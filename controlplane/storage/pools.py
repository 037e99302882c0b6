"""Storage pools: where volumes lie. Each host with guests of its own has one: its own disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select

from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand, Paged
from controlplane.api.parameters import Long, matching, optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter, InUse, Unsupported
from controlplane.storage.volumes import StoragePool, Volume
from controlplane.zone import syntax
from controlplane.zone.clusters import Cluster
from controlplane.zone.hosts import Host
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone

STATES = ("Up", "Disabled", "Maintenance", "Removed")


@dataclass(kw_only=True)
class StoragePoolResponse(Response):
    """A storage pool; sizes in bytes."""

    id: str
    name: str
    type: str
    scope: str
    state: str
    zoneid: str
    zonename: str
    podid: str | None = None
    podname: str | None = None
    clusterid: str | None = None
    clustername: str | None = None
    hypervisor: str | None = None
    ipaddress: str | None = None
    path: str | None = None
    provider: str
    tags: str | None = None
    disksizetotal: int
    disksizeused: int
    disksizeallocated: int
    overprovisionfactor: str = "1.0"
    managed: bool = False
    created: datetime


def storage_pool_views(ctx: Context, rows: Sequence[StoragePool]) -> list[StoragePoolResponse]:
    """Return the responses of these pools."""
    promised = dict(
        ctx.session.execute(
            select(Volume.pool_id, func.sum(Volume.size))
            .where(Volume.pool_id.in_([row.id for row in rows]), Volume.removed.is_(None))
            .group_by(Volume.pool_id)
        ).all()
    )
    zones = _by_number(ctx, Zone, {row.zone_id for row in rows})
    pods = _by_number(ctx, Pod, {row.pod_id for row in rows})
    clusters = _by_number(ctx, Cluster, {row.cluster_id for row in rows})
    responses = []
    for row in rows:
        pod, cluster, zone = pods.get(row.pod_id), clusters.get(row.cluster_id), zones[row.zone_id]
        responses.append(
            StoragePoolResponse(
                id=row.uuid,
                name=row.name,
                type=row.type,
                scope=row.scope,
                state=row.state,
                zoneid=zone.uuid,
                zonename=zone.name,
                podid=pod.uuid if pod else None,
                podname=pod.name if pod else None,
                clusterid=cluster.uuid if cluster else None,
                clustername=cluster.name if cluster else None,
                hypervisor=cluster.hypervisor if cluster else None,
                ipaddress=row.address or None,
                path=row.path or None,
                provider=row.provider,
                tags=",".join(row.tags) or None,
                disksizetotal=row.capacity,
                disksizeused=row.used,
                disksizeallocated=int(promised.get(row.id) or 0),
                created=row.created,
            )
        )
    return responses


def _by_number(ctx: Context, table: Any, numbers: set[Any]) -> dict[Any, Any]:
    wanted = numbers - {None}
    if not wanted:
        return {}
    return {row.id: row for row in ctx.session.scalars(select(table).where(table.id.in_(wanted)))}


class ListStoragePools(ListCommand, name="listStoragePools", answer=many("storagepool", storage_pool_views)):
    """List storage pools."""

    unsupported = ("storageaccessgroup", "storagecustomstats")
    table = StoragePool
    keywords = (StoragePool.name, StoragePool.type)

    id: StoragePool | None = matching(StoragePool.id)
    name: str | None = matching(StoragePool.name)
    zoneid: Zone | None = matching(StoragePool.zone_id)
    podid: Pod | None = matching(StoragePool.pod_id)
    clusterid: Cluster | None = matching(StoragePool.cluster_id)
    hostid: Host | None = optional(description="pools that this host uses: its own, its cluster's and its zone's")
    ipaddress: str | None = matching(StoragePool.address)
    path: str | None = matching(StoragePool.path)
    scope: str | None = matching(StoragePool.scope)
    status: str | None = matching(StoragePool.state, choices=STATES)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Look at what a host can reach."""
        del ctx
        host = self.hostid
        if host is None:
            return query
        own = StoragePool.host_id == host.id
        shared = StoragePool.host_id.is_(None) & (
            (StoragePool.cluster_id == host.cluster_id)
            | (StoragePool.cluster_id.is_(None) & (StoragePool.zone_id == host.zone_id))
        )
        return query.where(own | shared)


class CreateStoragePool(
    Command, name="createStoragePool", answer=one("storagepool", storage_pool_views), instance="StoragePool"
):
    """Add shared primary storage: no installed hypervisor driver can use any yet, so this is refused with the reason.

    The pools of hosts' own disks come and go with their hosts.
    """

    event = "STORAGE.POOL.CREATE"
    unsupported = (
        "capacitybytes",
        "capacityiops",
        "details",
        "istagarule",
        "managed",
        "storageaccessgroups",
    )

    name: str = required(check=syntax.name)
    url: str = required()
    zoneid: Zone = required()
    podid: Pod | None = optional()
    clusterid: Cluster | None = optional(description="accepted: no pool can be made yet")
    hypervisor: str | None = optional()
    provider: str | None = optional()
    scope: str | None = optional(choices=("CLUSTER", "ZONE", "HOST"))
    tags: str | None = optional(check=syntax.tags)

    def run(self, ctx: Context) -> StoragePool:
        """Say why not."""
        del ctx
        kind = self.url.partition("://")[0]
        raise Unsupported(
            f"Primary storage of type {kind} cannot be used: the machines of every installed hypervisor lie on their "
            "host's own disk, whose pool is made with the host."
        )


class UpdateStoragePool(
    Command, name="updateStoragePool", answer=one("storagepool", storage_pool_views), instance="StoragePool"
):
    """Rename a pool, tag it, or let it take new volumes or not."""

    event = "STORAGE.POOL.UPDATE"
    unsupported = ("capacityiops", "details", "istagarule", "url")

    id: StoragePool = required()
    name: str | None = optional(check=syntax.name)
    enabled: bool | None = optional()
    capacitybytes: Long | None = optional(description="how much of the disk volumes may take")
    tags: list[str] | None = optional()

    def run(self, ctx: Context) -> StoragePool:
        """Change what is given."""
        row = self.id
        if self.capacitybytes is not None:
            held = select(func.sum(Volume.size)).where(Volume.pool_id == row.id, Volume.removed.is_(None))
            promised = int(ctx.session.scalar(held) or 0)
            if self.capacitybytes < promised:
                raise BadParameter(
                    f"Invalid parameter capacitybytes value={self.capacitybytes}: volumes take {promised} bytes of it."
                )
            row.capacity = self.capacitybytes
        if self.tags is not None:
            try:
                row.tags = syntax.tag_list(self.tags)
            except ValueError as error:
                raise BadParameter(f"Invalid parameter tags: {error}.") from None
        row.name = self.name or row.name
        if self.enabled is not None:
            row.state = "Up" if self.enabled else "Disabled"
        return row


class DeleteStoragePool(Command, name="deleteStoragePool", answer=success(), instance="StoragePool"):
    """Delete a pool that holds no volume. A host's own disk goes with its host only."""

    event = "STORAGE.POOL.DELETE"
    unsupported = ("forced",)

    id: StoragePool = required()

    def run(self, ctx: Context) -> None:
        """Refuse a host's own, and one with volumes."""
        row, ctx.instance = self.id, self.id
        if row.host_id is not None:
            raise BadParameter(
                f"Invalid parameter id value={row.uuid}: it is the own disk of a host, and goes with it."
            )
        names = list(ctx.session.scalars(select(Volume.name).where(Volume.pool_id == row.id, Volume.removed.is_(None))))
        if names:
            raise InUse(f"Pool {row.name} cannot be deleted: it holds the volumes {', '.join(names[:10])}.")
        row.removed, row.state = ctx.now, "Removed"


@dataclass(kw_only=True)
class StorageTagResponse(Response):
    """A tag that pools have."""

    id: str
    name: str


def storage_tag_views(ctx: Context, rows: Sequence[str]) -> list[StorageTagResponse]:
    """Return the responses of these tags."""
    del ctx
    return [StorageTagResponse(id=tag, name=tag) for tag in rows]


class ListStorageTags(Paged, name="listStorageTags", answer=many("storagetag", storage_tag_views)):
    """List the tags that any pool has."""

    writes = False
    keyword: str | None = optional()

    def run(self, ctx: Context) -> tuple[Sequence[str], int]:
        """Return each tag once."""
        lists = ctx.session.scalars(select(StoragePool.tags).where(StoragePool.removed.is_(None)))
        word = (self.keyword or "").lower()
        return self.page_of(ctx.session, sorted({tag for tags in lists for tag in tags if word in tag.lower()}))
