"""Clusters: hosts of one hypervisor type that share storage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ForeignKey, Select, String, UniqueConstraint, select
from sqlalchemy.orm import Mapped, joinedload, mapped_column, relationship

from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Created, Removable, Row
from controlplane.errors import BadParameter, InUse
from controlplane.zone import syntax
from controlplane.zone.capacity import CapacityResponse, ratios_of, responses_by_place
from controlplane.zone.hypervisors import driver_of
from controlplane.zone.pods import Pod
from controlplane.zone.zones import STATES, Zone

ARCHITECTURES = ("x86_64", "aarch64")
MANAGED = ("Managed", "Unmanaged")


class Cluster(Created, Removable, Row):
    """A cluster (addCluster).

    :ivar details: among them ``cpuOvercommitRatio`` and ``memoryOvercommitRatio``.
    """

    __tablename__ = "clusters"
    __table_args__ = (UniqueConstraint("pod_id", "name", "removed_key"),)

    name: Mapped[str] = mapped_column(String(255))
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    pod_id: Mapped[int] = mapped_column(ForeignKey("pods.id"), index=True)
    hypervisor: Mapped[str] = mapped_column(String(20))
    type: Mapped[str] = mapped_column(String(40), default="CloudManaged")
    allocation_state: Mapped[str] = mapped_column(String(20), default="Enabled")
    managed_state: Mapped[str] = mapped_column(String(20), default="Managed")
    arch: Mapped[str] = mapped_column(String(20), default="x86_64")
    details: Mapped[dict[str, str]] = mapped_column(default=dict)
    removed_key: Mapped[int] = mapped_column(default=0)
    pod: Mapped[Pod] = relationship()


@dataclass(kw_only=True)
class ClusterResponse(Response):
    """A cluster."""

    id: str
    name: str
    zoneid: str
    zonename: str
    podid: str
    podname: str
    hypervisortype: str
    clustertype: str
    allocationstate: str
    managedstate: str
    arch: str
    cpuovercommitratio: str
    memoryovercommitratio: str
    resourcedetails: dict[str, str] | None = None
    capacity: list[CapacityResponse] | None = None


def cluster_views(ctx: Context, rows: Sequence[Cluster]) -> list[ClusterResponse]:
    """Return the responses of these clusters."""
    asked = ctx.arguments.get("showcapacities")
    capacity = responses_by_place(ctx.session, "cluster", [row.id for row in rows]) if asked else {}
    ratios = ratios_of(ctx.session, rows)
    return [
        ClusterResponse(
            id=row.uuid,
            name=row.name,
            zoneid=row.pod.zone.uuid,
            zonename=row.pod.zone.name,
            podid=row.pod.uuid,
            podname=row.pod.name,
            hypervisortype=row.hypervisor,
            clustertype=row.type,
            allocationstate=row.allocation_state,
            managedstate=row.managed_state,
            arch=row.arch,
            cpuovercommitratio=str(ratios[row.id].cpu),
            memoryovercommitratio=str(ratios[row.id].memory),
            resourcedetails=row.details or None,
            capacity=capacity.get(row.id),
        )
        for row in rows
    ]


class ListClusters(ListCommand, name="listClusters", answer=many("cluster", cluster_views)):
    """List clusters."""

    unsupported = ("storageaccessgroup",)
    table = Cluster
    keywords = (Cluster.name, Cluster.hypervisor)

    id: Cluster | None = matching(Cluster.id)
    name: str | None = matching(Cluster.name)
    zoneid: Zone | None = matching(Cluster.zone_id)
    podid: Pod | None = matching(Cluster.pod_id)
    hypervisor: str | None = matching(Cluster.hypervisor)
    clustertype: str | None = matching(Cluster.type)
    allocationstate: str | None = matching(Cluster.allocation_state)
    managedstate: str | None = matching(Cluster.managed_state)
    arch: str | None = matching(Cluster.arch)
    showcapacities: bool | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Bring pods and zones along."""
        ctx.arguments["showcapacities"] = bool(self.showcapacities)
        return query.options(joinedload(Cluster.pod).joinedload(Pod.zone))


class AddCluster(Command, name="addCluster", answer=many("cluster", cluster_views), event="CLUSTER.CREATE"):
    """Add a cluster of hosts of one hypervisor type."""

    instance = "Cluster"
    unsupported = (
        "extensionid",
        "externaldetails",
        "guestvswitchname",
        "guestvswitchtype",
        "ovm3cluster",
        "ovm3pool",
        "ovm3vip",
        "password",
        "publicvswitchname",
        "publicvswitchtype",
        "storageaccessgroups",
        "url",
        "username",
        "vsmipaddress",
        "vsmpassword",
        "vsmusername",
    )

    zoneid: Zone = required()
    podid: Pod = required()
    clustername: str = required(check=syntax.name)
    clustertype: str = required(choices=("CloudManaged",))
    hypervisor: str = required()
    allocationstate: str | None = optional("Enabled", choices=STATES)
    arch: str | None = optional("x86_64", choices=ARCHITECTURES)

    def run(self, ctx: Context) -> list[Cluster]:
        """Check that the pod is of the zone and the hypervisor has a driver, and write the row."""
        cluster = add(ctx, self.zoneid, self.podid, self.clustername, self.hypervisor)
        cluster.allocation_state = self.allocationstate or "Enabled"
        cluster.arch = self.arch or "x86_64"
        ctx.instance = cluster
        return [cluster]


def add(ctx: Context, zone: Zone, pod: Pod, name: str, hypervisor: str) -> Cluster:
    """Make a cluster.

    :raises BadParameter: the pod is of another zone, the name is taken there, or the hypervisor has no driver.
    """
    if pod.zone_id != zone.id:
        raise BadParameter(f"Invalid parameter podid value={pod.uuid}: pod {pod.name} is not in zone {zone.name}.")
    driver = driver_of(hypervisor)
    _refuse_taken(ctx, pod, name)
    cluster = Cluster(name=name, zone_id=zone.id, pod=pod, hypervisor=driver.name)
    ctx.session.add(cluster)
    ctx.session.flush()
    return cluster


def _refuse_taken(ctx: Context, pod: Pod, name: str) -> None:
    taken = select(Cluster.id).where(Cluster.pod_id == pod.id, Cluster.name == name, Cluster.removed.is_(None))
    if ctx.session.scalar(taken) is not None:
        raise BadParameter(f"Invalid parameter clustername value={name}: pod {pod.name} has a cluster with this name.")


class UpdateCluster(Command, name="updateCluster", answer=one("cluster", cluster_views), event="CLUSTER.EDIT"):
    """Update a cluster; what is not given stays. An unmanaged or disabled cluster is given no new machines."""

    instance = "Cluster"
    unsupported = ("externaldetails",)

    id: Cluster = required()
    clustername: str | None = optional(check=syntax.name)
    clustertype: str | None = optional(choices=("CloudManaged",))
    hypervisor: str | None = optional()
    allocationstate: str | None = optional(choices=STATES)
    managedstate: str | None = optional(choices=MANAGED)
    arch: str | None = optional(choices=ARCHITECTURES)

    def run(self, ctx: Context) -> Cluster:
        """Change what is given; the hypervisor can change only while there are no hosts."""
        cluster = self.id
        if self.clustername and self.clustername != cluster.name:
            _refuse_taken(ctx, cluster.pod, self.clustername)
            cluster.name = self.clustername
        if self.hypervisor and driver_of(self.hypervisor).name != cluster.hypervisor:
            _refuse_hosts(ctx, cluster, "become another hypervisor's")
            cluster.hypervisor = driver_of(self.hypervisor).name
        cluster.allocation_state = self.allocationstate or cluster.allocation_state
        cluster.managed_state = self.managedstate or cluster.managed_state
        cluster.arch = self.arch or cluster.arch
        return cluster


def _refuse_hosts(ctx: Context, cluster: Cluster, what: str) -> None:
    from controlplane.zone.hosts import Host

    names = list(ctx.session.scalars(select(Host.name).where(Host.cluster_id == cluster.id, Host.removed.is_(None))))
    if names:
        raise InUse(f"Cluster {cluster.name} cannot {what}: it still has the hosts {', '.join(names[:10])}.")


class DeleteCluster(Command, name="deleteCluster", answer=success(), event="CLUSTER.DELETE", instance="Cluster"):
    """Delete a cluster that has no host and no storage pool any more."""

    id: Cluster = required()

    def run(self, ctx: Context) -> None:
        """Refuse while it holds anything, and mark it removed."""
        from controlplane.storage.volumes import StoragePool

        cluster, ctx.instance = self.id, self.id
        _refuse_hosts(ctx, cluster, "be deleted")
        pools = select(StoragePool.name).where(StoragePool.cluster_id == cluster.id, StoragePool.removed.is_(None))
        names = list(ctx.session.scalars(pools))
        if names:
            raise InUse(f"Cluster {cluster.name} cannot be deleted: it still has the pools {', '.join(names)}.")
        cluster.removed, cluster.removed_key = ctx.now, cluster.id
