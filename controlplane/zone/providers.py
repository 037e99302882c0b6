"""Network service providers: which of the installed drivers a physical network uses."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from controlplane.db.base import Row
from controlplane.zone.physical_networks import PhysicalNetwork


class NetworkServiceProvider(Row):
    """A provider on a physical network (addNetworkServiceProvider); only an enabled one gets new networks.

    :ivar element: its one element is enabled too (configureVirtualRouterElement).
    """

    __tablename__ = "network_service_providers"
    __table_args__ = (UniqueConstraint("physical_network_id", "name"),)

    physical_network_id: Mapped[int] = mapped_column(ForeignKey("physical_networks.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(60))
    state: Mapped[str] = mapped_column(String(20), default="Disabled")
    services: Mapped[list[str]] = mapped_column(default=list)
    element_uuid: Mapped[str | None] = mapped_column(String(40))
    element: Mapped[bool] = mapped_column(default=False)
    physical_network: Mapped[PhysicalNetwork] = relationship()
