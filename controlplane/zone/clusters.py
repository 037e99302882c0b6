"""Clusters: hosts of one hypervisor type that share storage."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from controlplane.db.base import Created, Removable, Row
from controlplane.zone.pods import Pod


class Cluster(Created, Removable, Row):
    """A cluster (addCluster).

    :ivar details: among them ``cpuOvercommitRatio`` and ``memoryOvercommitRatio``.
    """

    __tablename__ = "clusters"

    name: Mapped[str] = mapped_column(String(255))
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    pod_id: Mapped[int] = mapped_column(ForeignKey("pods.id"), index=True)
    hypervisor: Mapped[str] = mapped_column(String(20))
    type: Mapped[str] = mapped_column(String(40), default="CloudManaged")
    allocation_state: Mapped[str] = mapped_column(String(20), default="Enabled")
    managed_state: Mapped[str] = mapped_column(String(20), default="Managed")
    details: Mapped[dict[str, str]] = mapped_column(default=dict)
    pod: Mapped[Pod] = relationship()
