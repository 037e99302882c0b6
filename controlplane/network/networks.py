"""Guest networks."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ForeignKey, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.db.base import Created, Owned, Removable, Row
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.reconcile.targets import Target
from controlplane.zone.physical_networks import PhysicalNetwork
from controlplane.zone.zones import Zone


class Network(Created, Removable, Owned, Row):
    """A guest network (createNetwork).

    :ivar state: ``Allocated`` (no VNI, no router), ``Implementing``, ``Implemented``, ``Shutdown``, ``Destroy``.
    :ivar vnet: its VLAN or VNI while it is implemented.
    :ivar dns: the resolvers its guests are told, instead of the router; empty is the router.
    :ivar restart_required: its offering or settings changed in a way that only a restart brings about.
    """

    __tablename__ = "networks"

    name: Mapped[str] = mapped_column(String(255), index=True)
    display_text: Mapped[str] = mapped_column(String(255), default="")
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    physical_network_id: Mapped[int] = mapped_column(ForeignKey("physical_networks.id"), index=True)
    offering_id: Mapped[int] = mapped_column(ForeignKey("network_offerings.id"))
    guest_type: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20), default="Allocated", index=True)
    cidr: Mapped[str | None] = mapped_column(String(40))
    gateway: Mapped[str | None] = mapped_column(String(40))
    vnet: Mapped[int | None]
    network_domain: Mapped[str] = mapped_column(String(255), default="")
    dns: Mapped[list[str]] = mapped_column(default=list)
    mtu: Mapped[int] = mapped_column(default=1500)
    acl_type: Mapped[str] = mapped_column(String(20), default="Account")
    display: Mapped[bool] = mapped_column(default=True)
    restart_required: Mapped[bool] = mapped_column(default=False)
    details: Mapped[dict[str, str]] = mapped_column(default=dict)
    zone: Mapped[Zone] = relationship()
    physical_network: Mapped[PhysicalNetwork] = relationship()
    offering: Mapped[NetworkOffering] = relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of the appliances that serve it."""
        from controlplane.network.routers import Router

        return list(session.scalars(select(Target).join(Router).where(Router.network_id == self.id)))
