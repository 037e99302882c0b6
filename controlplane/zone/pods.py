"""Pods: racks of hosts that share a management subnet."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from controlplane.db.base import Created, Removable, Row
from controlplane.zone.zones import Zone


class Pod(Created, Removable, Row):
    """A pod (createPod); ``start_ip`` to ``end_ip`` are for system VMs."""

    __tablename__ = "pods"

    name: Mapped[str] = mapped_column(String(255))
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    gateway: Mapped[str]
    netmask: Mapped[str]
    start_ip: Mapped[str]
    end_ip: Mapped[str]
    allocation_state: Mapped[str] = mapped_column(String(20), default="Enabled")
    zone: Mapped[Zone] = relationship()
