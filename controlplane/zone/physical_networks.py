"""Physical networks: what carries traffic in a zone, with its traffic types and the networks' numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ForeignKey, Select, String, UniqueConstraint, select
from sqlalchemy.orm import Mapped, joinedload, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Base, Created, Removable, Row
from controlplane.errors import BadParameter, InUse
from controlplane.zone import syntax, vnet_ranges
from controlplane.zone.zones import STATES, Zone


class PhysicalNetwork(Created, Removable, Row):
    """A physical network (createPhysicalNetwork).

    :ivar isolation: ``VLAN`` or ``VXLAN``.
    :ivar vnets: the VLANs or VNIs that guest networks may get, as ranges ``[[first, last], …]``, sorted, disjoint.
    """

    __tablename__ = "physical_networks"
    __table_args__ = (UniqueConstraint("zone_id", "name", "removed_key"),)

    name: Mapped[str] = mapped_column(String(255))
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    state: Mapped[str] = mapped_column(String(20), default="Disabled")
    isolation: Mapped[str] = mapped_column(String(20), default="VLAN")
    broadcast_domain_range: Mapped[str] = mapped_column(String(20), default="ZONE")
    vnets: Mapped[list[list[int]]] = mapped_column(default=list)
    network_speed: Mapped[str | None] = mapped_column(String(20))
    tags: Mapped[list[str]] = mapped_column(default=list)
    removed_key: Mapped[int] = mapped_column(default=0)
    zone: Mapped[Zone] = relationship()
    traffic_types: Mapped[list[TrafficType]] = relationship(cascade="all, delete-orphan", lazy="selectin")


class TrafficType(Row):
    """A kind of traffic on a physical network (addTrafficType), with its label on each hypervisor.

    :ivar labels: ``kvm``, ``xen``, ``vmware``, ``hyperv`` or ``ovm3`` → the host's bridge or device for it.
    """

    __tablename__ = "traffic_types"
    __table_args__ = (UniqueConstraint("physical_network_id", "traffic"),)

    physical_network_id: Mapped[int] = mapped_column(ForeignKey("physical_networks.id", ondelete="CASCADE"))
    traffic: Mapped[str] = mapped_column(String(20))
    labels: Mapped[dict[str, str]] = mapped_column(default=dict)

    def label_for(self, hypervisor: str) -> str:
        """Return the label on hosts of this hypervisor type; empty is the default. LXC has KVM's, as Linux has."""
        names = {"LXC": "kvm", "Simulator": "kvm", "XenServer": "xen"}
        return self.labels.get(names.get(hypervisor, hypervisor.lower()), "")


class Vnet(Base):
    """A VLAN or VNI that is taken: the primary key is why two networks never share one."""

    __tablename__ = "vnets"

    physical_network_id: Mapped[int] = mapped_column(ForeignKey("physical_networks.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"), index=True)


dispatch.JOB_TABLES["PhysicalNetwork"] = PhysicalNetwork


@dataclass(kw_only=True)
class PhysicalNetworkResponse(Response):
    """A physical network."""

    id: str
    name: str
    zoneid: str
    zonename: str
    state: str
    broadcastdomainrange: str
    isolationmethods: str
    vlan: str | None = None
    networkspeed: str | None = None
    tags: str | None = None


def physical_network_views(ctx: Context, rows: Sequence[PhysicalNetwork]) -> list[PhysicalNetworkResponse]:
    """Return the responses of these physical networks."""
    del ctx
    return [
        PhysicalNetworkResponse(
            id=row.uuid,
            name=row.name,
            zoneid=row.zone.uuid,
            zonename=row.zone.name,
            state=row.state,
            broadcastdomainrange=row.broadcast_domain_range,
            isolationmethods=row.isolation,
            vlan=vnet_ranges.text_of(row.vnets) or None,
            networkspeed=row.network_speed,
            tags=",".join(row.tags) or None,
        )
        for row in rows
    ]


class ListPhysicalNetworks(
    ListCommand, name="listPhysicalNetworks", answer=many("physicalnetwork", physical_network_views)
):
    """List physical networks."""

    table = PhysicalNetwork
    keywords = (PhysicalNetwork.name,)

    id: PhysicalNetwork | None = matching(PhysicalNetwork.id)
    name: str | None = matching(PhysicalNetwork.name)
    zoneid: Zone | None = matching(PhysicalNetwork.zone_id)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Bring the zones along."""
        del ctx
        return query.options(joinedload(PhysicalNetwork.zone))


def _ranges(text: str, isolation: str) -> vnet_ranges.Ranges:
    try:
        return vnet_ranges.parse(text, isolation) if text.strip() else []
    except ValueError as error:
        raise BadParameter(f"Invalid parameter vlan value={text}: {error}.") from None


class CreatePhysicalNetwork(
    Command,
    name="createPhysicalNetwork",
    answer=one("physicalnetwork", physical_network_views),
    job=True,
    creates=True,
    instance="PhysicalNetwork",
    event="PHYSICAL.NETWORK.CREATE",
):
    """Create a physical network; the default network service providers that are installed come with it, disabled."""

    unsupported = ("domainid",)

    name: str = required(check=syntax.name)
    zoneid: Zone = required()
    broadcastdomainrange: str | None = optional(choices=("ZONE", "POD"))
    isolationmethods: list[str] | None = optional(description="VLAN or VXLAN")
    networkspeed: str | None = optional(choices=("10M", "100M", "1G", "10G", "25G", "40G", "100G"))
    tags: list[str] | None = optional()
    vlan: str | None = optional(description="the guest networks' VLANs or VNIs, as 500-599,700-799")

    def run(self, ctx: Context) -> PhysicalNetwork:
        """Check the numbers, and write the row with its providers."""
        from controlplane.zone.providers import add_defaults

        zone = self.zoneid
        isolation = self._isolation()
        if zone.network_type == "Basic" and self.vlan:
            raise BadParameter(f"Invalid parameter vlan value={self.vlan}: a Basic zone has no guest VLANs.")
        taken = select(PhysicalNetwork.name).where(
            PhysicalNetwork.zone_id == zone.id, PhysicalNetwork.removed.is_(None)
        )
        names = set(ctx.session.scalars(taken))
        if self.name in names:
            raise BadParameter(f"Invalid parameter name value={self.name}: the zone has a physical network of it.")
        if zone.network_type == "Basic" and names:
            raise BadParameter(f"Invalid parameter zoneid: zone {zone.name} is Basic and has its physical network.")
        network = PhysicalNetwork(
            name=self.name,
            zone=zone,
            isolation=isolation,
            broadcast_domain_range=self.broadcastdomainrange or ("POD" if zone.network_type == "Basic" else "ZONE"),
            vnets=_ranges(self.vlan or "", isolation),
            network_speed=self.networkspeed,
            tags=_tags(self.tags),
        )
        ctx.session.add(network)
        ctx.session.flush()
        add_defaults(ctx.session, network)
        return network

    def _isolation(self) -> str:
        methods = [method.upper() for method in self.isolationmethods or ["VLAN"]]
        if len(methods) != 1 or methods[0] not in vnet_ranges.HIGHEST:
            raise BadParameter(
                f"Invalid parameter isolationmethods value={','.join(methods)}: "
                f"it must be one of {', '.join(vnet_ranges.HIGHEST)}."
            )
        return methods[0]


def _tags(tags: list[str] | None) -> list[str]:
    try:
        return syntax.tag_list(tags or [])
    except ValueError as error:
        raise BadParameter(f"Invalid parameter tags: {error}.") from None


class UpdatePhysicalNetwork(
    Command,
    name="updatePhysicalNetwork",
    answer=one("physicalnetwork", physical_network_views),
    job=True,
    instance="PhysicalNetwork",
    event="PHYSICAL.NETWORK.UPDATE",
):
    """Update a physical network; ``vlan`` is the whole set of ranges as it is to be."""

    id: PhysicalNetwork = required()
    networkspeed: str | None = optional(choices=("10M", "100M", "1G", "10G", "25G", "40G", "100G"))
    state: str | None = optional(choices=STATES)
    tags: list[str] | None = optional()
    vlan: str | None = optional()

    def run(self, ctx: Context) -> PhysicalNetwork:
        """Refuse to take away a number that is in use, and change what is given."""
        network = self.id
        if self.vlan is not None:
            network.vnets = self._vnets(ctx, network)
        if self.tags is not None:
            network.tags = _tags(self.tags)
        network.state = self.state or network.state
        network.network_speed = self.networkspeed or network.network_speed
        return network

    def _vnets(self, ctx: Context, network: PhysicalNetwork) -> vnet_ranges.Ranges:
        if network.zone.network_type == "Basic" and self.vlan:
            raise BadParameter(f"Invalid parameter vlan value={self.vlan}: a Basic zone has no guest VLANs.")
        wanted = _ranges(self.vlan or "", network.isolation)
        gone = vnet_ranges.without(network.vnets, wanted)
        taken = select(Vnet.number).where(Vnet.physical_network_id == network.id).order_by(Vnet.number)
        lost = [number for number in ctx.session.scalars(taken) if vnet_ranges.holds(gone, number)]
        if lost:
            raise InUse(
                f"Invalid parameter vlan value={self.vlan}: networks use {', '.join(map(str, lost[:20]))}; "
                "the ranges must keep these numbers."
            )
        refuse_dedicated(ctx, network, gone)
        refuse_public(ctx, network, vnet_ranges.without(wanted, network.vnets))
        return wanted


def refuse_dedicated(ctx: Context, network: PhysicalNetwork, gone: vnet_ranges.Ranges) -> None:
    """Refuse to take away numbers that are dedicated to an account."""
    from controlplane.zone.dedicated_vnets import DedicatedVnets

    query = select(DedicatedVnets).where(DedicatedVnets.physical_network_id == network.id)
    for row in ctx.session.scalars(query):
        if vnet_ranges.overlap(gone, [[row.first, row.last]]):
            raise InUse(f"VLANs {row.first}-{row.last} are dedicated to an account: release them first.")


def refuse_public(ctx: Context, network: PhysicalNetwork, added: vnet_ranges.Ranges) -> None:
    """Refuse guest numbers that are the VLAN of an address range.

    :raises BadParameter: names the range.
    """
    from controlplane.network.public_ips import VlanRange

    query = select(VlanRange).where(VlanRange.physical_network_id == network.id, VlanRange.network_id.is_(None))
    for row in ctx.session.scalars(query):
        if row.vlan.isdigit() and vnet_ranges.holds(added, int(row.vlan)):
            raise BadParameter(
                f"Invalid parameter vlan: {row.vlan} is the VLAN of the address range {row.start_ip}-{row.end_ip}."
            )


class DeletePhysicalNetwork(
    Command,
    name="deletePhysicalNetwork",
    answer=success(),
    job=True,
    instance="PhysicalNetwork",
    event="PHYSICAL.NETWORK.DELETE",
):
    """Delete a physical network that nothing uses, with its traffic types and providers."""

    id: PhysicalNetwork = required()

    def run(self, ctx: Context) -> None:
        """Refuse while it is used; its providers and traffic types go with it."""
        from controlplane.network.networks import Network
        from controlplane.network.public_ips import VlanRange
        from controlplane.zone.dedicated_vnets import DedicatedVnets
        from controlplane.zone.providers import NetworkServiceProvider

        network, ctx.instance = self.id, self.id
        guests = select(Network.name).where(Network.physical_network_id == network.id, Network.removed.is_(None))
        names = list(ctx.session.scalars(guests.limit(10)))
        if names:
            raise InUse(f"Physical network {network.name} cannot be deleted: networks use it: {', '.join(names)}.")
        ranges = select(VlanRange).where(VlanRange.physical_network_id == network.id)
        used = [f"{row.start_ip}-{row.end_ip}" for row in ctx.session.scalars(ranges.limit(10))]
        if used:
            raise InUse(f"Physical network {network.name} cannot be deleted: it has address ranges: {', '.join(used)}.")
        for table in (NetworkServiceProvider, DedicatedVnets):
            for row in ctx.session.scalars(select(table).where(table.physical_network_id == network.id)):
                ctx.session.delete(row)
        network.traffic_types.clear()
        network.vnets, network.state = [], "Disabled"
        network.removed, network.removed_key = ctx.now, network.id
