"""Volumes: the disks of machines."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db.base import Created, Owned, Removable, Row


class Volume(Created, Removable, Owned, Row):
    """A volume. ``type`` is ``ROOT`` or ``DATADISK``; ``size`` in bytes."""

    __tablename__ = "volumes"

    name: Mapped[str] = mapped_column(String(255))
    type: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20), default="Allocated")
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    vm_id: Mapped[int | None] = mapped_column(ForeignKey("virtual_machines.id"), index=True)
    device: Mapped[int | None]
    pool_id: Mapped[int | None] = mapped_column(ForeignKey("storage_pools.id"))
    template_id: Mapped[int | None] = mapped_column(ForeignKey("templates.id"))
    disk_offering_id: Mapped[int | None] = mapped_column(ForeignKey("disk_offerings.id"))


class StoragePool(Created, Removable, Row):
    """Primary storage (createStoragePool, or a host's own disk)."""

    __tablename__ = "storage_pools"

    name: Mapped[str] = mapped_column(String(255))
    type: Mapped[str] = mapped_column(String(20))
    scope: Mapped[str] = mapped_column(String(20), default="CLUSTER")
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    pod_id: Mapped[int | None] = mapped_column(ForeignKey("pods.id"))
    cluster_id: Mapped[int | None] = mapped_column(ForeignKey("clusters.id"))
    host_id: Mapped[int | None] = mapped_column(ForeignKey("hosts.id"))
    path: Mapped[str] = mapped_column(String(1024), default="")
    address: Mapped[str] = mapped_column(String(255), default="")
    state: Mapped[str] = mapped_column(String(20), default="Up")
    capacity: Mapped[int] = mapped_column(BigInteger, default=0)
    used: Mapped[int] = mapped_column(BigInteger, default=0)
    tags: Mapped[list[str]] = mapped_column(default=list)
    provider: Mapped[str] = mapped_column(String(60), default="DefaultPrimary")
