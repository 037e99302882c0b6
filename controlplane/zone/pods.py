"""Pods: racks of hosts that share a management subnet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
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
from controlplane.zone.capacity import CapacityResponse, responses_by_place
from controlplane.zone.zones import STATES, Zone

LARGEST = 1 << 16
"""Addresses in a pod's range at most."""


class Pod(Created, Removable, Row):
    """A pod (createPod); ``start_ip`` to ``end_ip`` are for system VMs, empty where it has none."""

    __tablename__ = "pods"
    __table_args__ = (UniqueConstraint("zone_id", "name", "removed_key"),)

    name: Mapped[str] = mapped_column(String(255))
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    gateway: Mapped[str]
    netmask: Mapped[str]
    start_ip: Mapped[str]
    end_ip: Mapped[str]
    allocation_state: Mapped[str] = mapped_column(String(20), default="Enabled")
    removed_key: Mapped[int] = mapped_column(default=0)
    zone: Mapped[Zone] = relationship()


def addresses_of(start: str, end: str) -> int:
    """Return how many addresses there are from ``start`` to ``end``; 0 where there is no range."""
    return int(IPv4Address(end)) - int(IPv4Address(start)) + 1 if start else 0


@dataclass(kw_only=True)
class PodRange(Response):
    """The addresses of a pod's system VMs."""

    startip: str
    endip: str
    forsystemvms: str = "0"
    vlanid: str = "untagged"
    gateway: str
    cidr: str


@dataclass(kw_only=True)
class PodResponse(Response):
    """A pod."""

    id: str
    name: str
    zoneid: str
    zonename: str
    gateway: str | None
    netmask: str | None
    startip: list[str]
    endip: list[str]
    forsystemvms: list[str]
    vlanid: list[str]
    ipranges: list[PodRange]
    allocationstate: str
    capacity: list[CapacityResponse] | None = None


def pod_views(ctx: Context, rows: Sequence[Pod]) -> list[PodResponse]:
    """Return the responses of these pods."""
    asked = ctx.arguments.get("showcapacities")
    capacity = responses_by_place(ctx.session, "pod", [row.id for row in rows]) if asked else {}
    return [_view(row, capacity.get(row.id)) for row in rows]


def _view(pod: Pod, capacity: list[CapacityResponse] | None) -> PodResponse:
    ranges = []
    if pod.start_ip:
        network = syntax.subnet(pod.gateway, pod.netmask)
        ranges = [PodRange(startip=pod.start_ip, endip=pod.end_ip, gateway=pod.gateway, cidr=str(network))]
    return PodResponse(
        id=pod.uuid,
        name=pod.name,
        zoneid=pod.zone.uuid,
        zonename=pod.zone.name,
        gateway=pod.gateway or None,
        netmask=pod.netmask or None,
        startip=[item.startip for item in ranges],
        endip=[item.endip for item in ranges],
        forsystemvms=[item.forsystemvms for item in ranges],
        vlanid=[item.vlanid for item in ranges],
        ipranges=ranges,
        allocationstate=pod.allocation_state,
        capacity=capacity,
    )


class ListPods(ListCommand, name="listPods", answer=many("pod", pod_views)):
    """List pods."""

    unsupported = ("storageaccessgroup",)
    table = Pod
    keywords = (Pod.name,)

    id: Pod | None = matching(Pod.id)
    name: str | None = matching(Pod.name)
    zoneid: Zone | None = matching(Pod.zone_id)
    allocationstate: str | None = matching(Pod.allocation_state)
    showcapacities: bool | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Bring the zones along."""
        ctx.arguments["showcapacities"] = bool(self.showcapacities)
        return query.options(joinedload(Pod.zone))


@dataclass(frozen=True, slots=True)
class Subnet:
    """A pod's addresses as they are asked for."""

    gateway: str = ""
    netmask: str = ""
    start: str = ""
    end: str = ""

    def checked(self) -> Subnet:
        """Return it with its end filled in.

        :raises BadParameter: the parts do not fit together.
        """
        if not (self.gateway or self.netmask or self.start or self.end):
            return self
        if not (self.gateway and self.netmask and self.start):
            raise BadParameter("Invalid parameter startip: gateway, netmask and startip go together.")
        try:
            network = syntax.subnet(self.gateway, self.netmask)
            first, last = syntax.within(network, self.start, self.end or self.start, self.gateway)
        except ValueError as error:
            raise BadParameter(f"Invalid parameter startip value={self.start}: {error}.") from None
        if int(last) - int(first) >= LARGEST:
            raise BadParameter(f"Invalid parameter endip value={self.end}: a pod has at most {LARGEST} addresses.")
        return Subnet(self.gateway, self.netmask, str(first), str(last))


def _refuse_clash(ctx: Context, zone: Zone, name: str, subnet: Subnet, this: Pod | None = None) -> None:
    from controlplane.network.pod_ranges import refuse_taken

    refuse_taken(ctx.session, zone.id, subnet, this)
    others = select(Pod).where(Pod.zone_id == zone.id, Pod.removed.is_(None))
    for other in ctx.session.scalars(others):
        if other is this:
            continue
        if other.name == name:
            raise BadParameter(f"Invalid parameter name value={name}: zone {zone.name} has a pod with this name.")
        if subnet.start and other.start_ip and subnet.netmask:
            mine, its = syntax.subnet(subnet.gateway, subnet.netmask), syntax.subnet(other.gateway, other.netmask)
            if mine.overlaps(its):
                raise BadParameter(
                    f"Invalid parameter gateway value={subnet.gateway}: {mine} overlaps {its} of pod {other.name}."
                )


class CreatePod(Command, name="createPod", answer=one("pod", pod_views), event="POD.CREATE", instance="Pod"):
    """Create a pod. Without addresses it can hold no system VM that needs a private address."""

    unsupported = ("storageaccessgroups",)

    zoneid: Zone = required()
    name: str = required(check=syntax.name)
    gateway: str | None = optional("", check=syntax.ipv4)
    netmask: str | None = optional("", check=syntax.netmask)
    startip: str | None = optional("", check=syntax.ipv4)
    endip: str | None = optional("", check=syntax.ipv4)
    allocationstate: str | None = optional("Enabled", choices=STATES)

    def run(self, ctx: Context) -> Pod:
        """Check name and addresses against the zone's other pods, and write the row."""
        subnet = Subnet(self.gateway or "", self.netmask or "", self.startip or "", self.endip or "").checked()
        _refuse_clash(ctx, self.zoneid, self.name, subnet)
        pod = Pod(
            name=self.name,
            zone=self.zoneid,
            gateway=subnet.gateway,
            netmask=subnet.netmask,
            start_ip=subnet.start,
            end_ip=subnet.end,
            allocation_state=self.allocationstate,
        )
        ctx.session.add(pod)
        ctx.session.flush()
        return pod


class UpdatePod(Command, name="updatePod", answer=one("pod", pod_views), event="POD.EDIT", instance="Pod"):
    """Update a pod; what is not given stays."""

    id: Pod = required()
    name: str | None = optional(check=syntax.name)
    gateway: str | None = optional(check=syntax.ipv4)
    netmask: str | None = optional(check=syntax.netmask)
    startip: str | None = optional(check=syntax.ipv4)
    endip: str | None = optional(check=syntax.ipv4)
    allocationstate: str | None = optional(choices=STATES)

    def run(self, ctx: Context) -> Pod:
        """Check the whole as it will be."""
        pod = self.id
        subnet = Subnet(
            self.gateway or pod.gateway,
            self.netmask or pod.netmask,
            self.startip or pod.start_ip,
            self.endip or pod.end_ip,
        ).checked()
        _refuse_clash(ctx, pod.zone, self.name or pod.name, subnet, pod)
        pod.name = self.name or pod.name
        pod.gateway, pod.netmask, pod.start_ip, pod.end_ip = subnet.gateway, subnet.netmask, subnet.start, subnet.end
        pod.allocation_state = self.allocationstate or pod.allocation_state
        return pod


class DeletePod(Command, name="deletePod", answer=success(), event="POD.DELETE", instance="Pod"):
    """Delete a pod that has no cluster and no range of guests' addresses any more."""

    id: Pod = required()

    def run(self, ctx: Context) -> None:
        """Refuse while it has clusters, and mark it removed."""
        from controlplane.network.public_ips import VlanRange
        from controlplane.zone.clusters import Cluster

        pod, ctx.instance = self.id, self.id
        names = list(
            ctx.session.scalars(select(Cluster.name).where(Cluster.pod_id == pod.id, Cluster.removed.is_(None)))
        )
        if names:
            raise InUse(f"Pod {pod.name} cannot be deleted: it still has the clusters {', '.join(names)}.")
        row = ctx.session.scalar(select(VlanRange).where(VlanRange.pod_id == pod.id).limit(1))
        if row is not None:
            raise InUse(
                f"Pod {pod.name} cannot be deleted: its guests have the range {row.start_ip}-{row.end_ip}; "
                f"delete {row.uuid} first (deleteVlanIpRange)."
            )
        pod.removed, pod.removed_key = ctx.now, pod.id
