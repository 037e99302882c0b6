"""Traffic types: which kinds of traffic a physical network carries, and by which label hosts know it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select

from controlplane.api import dispatch
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand, Paged
from controlplane.api.parameters import optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter, InUse
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType

TRAFFIC = ("Guest", "Public", "Management", "Storage")
HYPERVISORS = ("hyperv", "kvm", "ovm3", "vmware", "xen")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,:-]{0,254}")

dispatch.JOB_TABLES["TrafficType"] = TrafficType


def label(value: str) -> str:
    """Accept the label of a bridge or device."""
    if value and not _LABEL.fullmatch(value):
        raise ValueError("a label has letters, digits and _ . , : - only")
    return value


@dataclass(kw_only=True)
class TrafficTypeResponse(Response):
    """A traffic type, with its labels."""

    id: str
    physicalnetworkid: str
    traffictype: str
    kvmnetworklabel: str | None = None
    xennetworklabel: str | None = None
    vmwarenetworklabel: str | None = None
    hypervnetworklabel: str | None = None
    ovm3networklabel: str | None = None


def traffic_type_views(ctx: Context, rows: Sequence[TrafficType]) -> list[TrafficTypeResponse]:
    """Return the responses of these traffic types."""
    numbers = {row.physical_network_id for row in rows}
    networks = select(PhysicalNetwork.id, PhysicalNetwork.uuid).where(PhysicalNetwork.id.in_(numbers))
    uuids = {number: uuid for number, uuid in ctx.session.execute(networks)}
    return [
        TrafficTypeResponse(
            id=row.uuid,
            physicalnetworkid=uuids[row.physical_network_id],
            traffictype=row.traffic,
            **{f"{name}networklabel": row.labels.get(name) or None for name in HYPERVISORS},
        )
        for row in rows
    ]


class ListTrafficTypes(ListCommand, name="listTrafficTypes", answer=many("traffictype", traffic_type_views)):
    """List the traffic types of a physical network."""

    table = TrafficType
    keywords = (TrafficType.traffic,)

    physicalnetworkid: PhysicalNetwork = required()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Only those of the one physical network."""
        del ctx
        return query.where(TrafficType.physical_network_id == self.physicalnetworkid.id)


class Labelled(Command):
    """The labels that adding and updating a traffic type have in common."""

    kvmnetworklabel: str | None = optional(check=label, description="of KVM, LXC and simulated hosts")
    xennetworklabel: str | None = optional(check=label)
    vmwarenetworklabel: str | None = optional(check=label)
    hypervnetworklabel: str | None = optional(check=label)
    ovm3networklabel: str | None = optional(check=label)

    def labels(self) -> dict[str, str]:
        """Return the labels that were given by hypervisor."""
        given = {name: getattr(self, f"{name}networklabel") for name in HYPERVISORS}
        return {name: value for name, value in given.items() if value is not None}


class AddTrafficType(
    Labelled,
    name="addTrafficType",
    answer=one("traffictype", traffic_type_views),
    job=True,
    creates=True,
    instance="TrafficType",
    event="TRAFFIC.TYPE.CREATE",
):
    """Have a physical network carry a kind of traffic."""

    unsupported = ("isolationmethod", "vlan")

    physicalnetworkid: PhysicalNetwork = required()
    traffictype: str = required(choices=TRAFFIC)

    def run(self, ctx: Context) -> TrafficType:
        """Refuse a second one; only Guest traffic may be on several physical networks, told apart by their tags."""
        network = self.physicalnetworkid
        query = (
            select(PhysicalNetwork)
            .join(TrafficType)
            .where(PhysicalNetwork.zone_id == network.zone_id, TrafficType.traffic == self.traffictype)
        )
        for other in ctx.session.scalars(query):
            if other is network:
                raise BadParameter(
                    f"Invalid parameter traffictype value={self.traffictype}: "
                    f"physical network {network.name} carries it already."
                )
            if self.traffictype != "Guest":
                raise BadParameter(
                    f"Invalid parameter traffictype value={self.traffictype}: "
                    f"physical network {other.name} carries it in this zone."
                )
            if not network.tags or not other.tags:
                raise BadParameter(
                    f"Invalid parameter traffictype value=Guest: physical networks {other.name} and {network.name} "
                    "both carry it then, so each must have tags that offerings tell them apart by."
                )
        row = TrafficType(physical_network_id=network.id, traffic=self.traffictype, labels=self.labels())
        network.traffic_types.append(row)
        ctx.session.flush()
        return row


class UpdateTrafficType(
    Labelled,
    name="updateTrafficType",
    answer=one("traffictype", traffic_type_views),
    job=True,
    instance="TrafficType",
    event="TRAFFIC.TYPE.UPDATE",
):
    """Change the labels by which hosts know the traffic; an empty one removes it."""

    id: TrafficType = required()

    def run(self, ctx: Context) -> TrafficType:
        """Refuse while anything is plugged into what the old label means."""
        row = self.id
        wanted = {name: value for name, value in (row.labels | self.labels()).items() if value}
        if wanted != row.labels:
            refuse_use(ctx, row, "have its label changed")
            row.labels = wanted
        return row


def refuse_use(ctx: Context, row: TrafficType, what: str) -> None:
    """Refuse what would cut off whoever uses this traffic.

    :raises InUse: names the networks or the address ranges.
    """
    from controlplane.network.networks import Network
    from controlplane.network.public_ips import PublicIp, VlanRange

    users: list[str] = []
    if row.traffic == "Guest":
        live = Network.physical_network_id == row.physical_network_id, Network.removed.is_(None)
        networks = select(Network.name).where(*live, Network.state.in_(("Implementing", "Implemented")))
        users = [f"network {name}" for name in ctx.session.scalars(networks.limit(10))]
    elif row.traffic == "Public":
        taken = (
            select(PublicIp.address)
            .join(VlanRange, VlanRange.id == PublicIp.range_id)
            .where(VlanRange.physical_network_id == row.physical_network_id, PublicIp.state != "Free")
        )
        users = [f"address {address}" for address in ctx.session.scalars(taken.limit(10))]
    if users:
        raise InUse(f"Traffic type {row.traffic} cannot {what} while it is in use: {', '.join(users)}.")


class DeleteTrafficType(
    Command,
    name="deleteTrafficType",
    answer=success(),
    job=True,
    instance="TrafficType",
    event="TRAFFIC.TYPE.DELETE",
):
    """Have a physical network no longer carry a kind of traffic."""

    id: TrafficType = required()

    def run(self, ctx: Context) -> None:
        """Refuse while it is in use, or while the zone is enabled and would be left without guest traffic."""
        row, ctx.instance = self.id, self.id
        refuse_use(ctx, row, "be deleted")
        if row.traffic == "Public":
            _refuse_ranges(ctx, row)
        ctx.session.delete(row)


def _refuse_ranges(ctx: Context, row: TrafficType) -> None:
    from controlplane.network.public_ips import VlanRange

    on = VlanRange.physical_network_id == row.physical_network_id, VlanRange.network_id.is_(None)
    ranges = [f"{item.start_ip}-{item.end_ip}" for item in ctx.session.scalars(select(VlanRange).where(*on))]
    if ranges:
        raise InUse(f"Traffic type Public cannot be deleted: delete its address ranges first: {', '.join(ranges)}.")


@dataclass(kw_only=True)
class ImplementorResponse(Response):
    """Who gives a kind of traffic its networks."""

    traffictype: str
    traffictypeimplementor: str


IMPLEMENTORS = {
    "Guest": "ExternalGuestNetworkGuru",
    "Public": "PublicNetworkGuru",
    "Management": "PodBasedNetworkGuru",
    "Storage": "StorageNetworkGuru",
}


def implementor_views(ctx: Context, rows: Sequence[str]) -> list[ImplementorResponse]:
    """Return the responses of these traffic types."""
    del ctx
    return [ImplementorResponse(traffictype=name, traffictypeimplementor=IMPLEMENTORS[name]) for name in rows]


class ListTrafficTypeImplementors(
    Paged, name="listTrafficTypeImplementors", answer=many("traffictypeimplementorresponse", implementor_views)
):
    """List which part gives each kind of traffic its networks, by CloudStack's names."""

    writes = False
    traffictype: str | None = optional(choices=TRAFFIC)
    keyword: str | None = optional()

    def run(self, ctx: Context) -> tuple[Sequence[str], int]:
        """Return the names that match."""
        word = (self.keyword or "").lower()
        found = [name for name in TRAFFIC if self.traffictype in (None, name) and word in name.lower()]
        return self.page_of(ctx.session, found)
