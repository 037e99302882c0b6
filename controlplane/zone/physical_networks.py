"""Physical networks: what carries traffic in a zone, with its traffic types and the networks' numbers."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from controlplane.db.base import Base, Created, Row
from controlplane.zone.zones import Zone


class PhysicalNetwork(Created, Row):
    """A physical network (createPhysicalNetwork).

    :ivar isolation: ``VLAN`` or ``VXLAN``.
    :ivar vnets: the VLANs or VNIs that guest networks may get, as ranges ``[[first, last], …]``, sorted, disjoint.
    """

    __tablename__ = "physical_networks"

    name: Mapped[str] = mapped_column(String(255))
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    state: Mapped[str] = mapped_column(String(20), default="Disabled")
    isolation: Mapped[str] = mapped_column(String(20), default="VLAN")
    broadcast_domain_range: Mapped[str] = mapped_column(String(20), default="ZONE")
    vnets: Mapped[list[list[int]]] = mapped_column(default=list)
    network_speed: Mapped[str | None] = mapped_column(String(20))
    tags: Mapped[list[str]] = mapped_column(default=list)
    zone: Mapped[Zone] = relationship()
    traffic_types: Mapped[list[TrafficType]] = relationship(cascade="all, delete-orphan", lazy="selectin")


class TrafficType(Row):
    """A kind of traffic on a physical network (addTrafficType), with its label on each hypervisor."""

    __tablename__ = "traffic_types"
    __table_args__ = (UniqueConstraint("physical_network_id", "traffic"),)

    physical_network_id: Mapped[int] = mapped_column(ForeignKey("physical_networks.id", ondelete="CASCADE"))
    traffic: Mapped[str] = mapped_column(String(20))
    labels: Mapped[dict[str, str]] = mapped_column(default=dict)


class Vnet(Base):
    """A VLAN or VNI that is taken: the primary key is why two networks never share one."""

    __tablename__ = "vnets"

    physical_network_id: Mapped[int] = mapped_column(ForeignKey("physical_networks.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"), index=True)
