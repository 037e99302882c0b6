"""Service offerings: processors and memory of a machine, and the disk that goes with it."""

from __future__ import annotations

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db.base import Created, Removable, Row


class ServiceOffering(Created, Removable, Row):
    """A compute offering (createServiceOffering).

    :ivar cpus: None where the tenant chooses (a customized offering), as for ``mhz`` and ``memory`` (MiB).
    :ivar domain_uuids: the domains that may use it; empty is public. ``zone_uuids`` likewise.
    :ivar system_vm_type: ``domainrouter``, ``consoleproxy`` … of an offering for system VMs; empty for guests.
    """

    __tablename__ = "service_offerings"

    name: Mapped[str] = mapped_column(String(255))
    display_text: Mapped[str] = mapped_column(String(4096))
    cpus: Mapped[int | None]
    mhz: Mapped[int | None]
    memory: Mapped[int | None]
    system_vm_type: Mapped[str] = mapped_column(String(40), default="")
    storage_type: Mapped[str] = mapped_column(String(20), default="shared")
    provisioning_type: Mapped[str] = mapped_column(String(20), default="thin")
    root_disk_size: Mapped[int] = mapped_column(BigInteger, default=0)
    limit_cpu_use: Mapped[bool] = mapped_column(default=False)
    offer_ha: Mapped[bool] = mapped_column(default=False)
    is_volatile: Mapped[bool] = mapped_column(default=False)
    dynamic_scaling: Mapped[bool] = mapped_column(default=True)
    network_rate: Mapped[int | None]
    deployment_planner: Mapped[str | None] = mapped_column(String(255))
    host_tags: Mapped[list[str]] = mapped_column(default=list)
    storage_tags: Mapped[list[str]] = mapped_column(default=list)
    state: Mapped[str] = mapped_column(String(20), default="Active")
    domain_uuids: Mapped[list[str]] = mapped_column(default=list)
    zone_uuids: Mapped[list[str]] = mapped_column(default=list)
    details: Mapped[dict[str, str]] = mapped_column(default=dict)
    unique_name: Mapped[str | None] = mapped_column(String(255), unique=True)
    sort_key: Mapped[int] = mapped_column(default=0)
    default: Mapped[bool] = mapped_column(default=False)
