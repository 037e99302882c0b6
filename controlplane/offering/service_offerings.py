"""Service offerings: processors and memory of a machine, and the disk that goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, ColumnElement, String, and_, true
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.api.caller import Caller
from controlplane.api.context import Context
from controlplane.api.responses import Response
from controlplane.db.base import Created, Removable, Row
from controlplane.offering.scope import scope_fields, usable_by

GIB = 1 << 30


class ServiceOffering(Created, Removable, Row):
    """A compute offering (createServiceOffering).

    :ivar cpus: None where the tenant chooses (a customized offering), as for ``mhz`` and ``memory`` (MiB).
    :ivar domain_uuids: the domains that may use it; empty is public. ``zone_uuids`` likewise.
    :ivar system_vm_type: ``domainrouter``, ``consoleproxy`` … of an offering for system VMs; empty for guests.
    :ivar details: of a customized one, among others, ``mincpunumber``, ``maxcpunumber``, ``minmemory``, ``maxmemory``.
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

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """Tenants see active offerings for guests, for everybody or for a domain on their path."""
        tenants = and_(cls.system_vm_type == "", cls.state == "Active")
        return and_(usable_by(cls, caller), true() if caller.is_admin else tenants)


@dataclass(kw_only=True)
class ServiceOfferingResponse(Response):
    """A compute offering."""

    id: str
    name: str
    displaytext: str
    cpunumber: int | None = None
    cpuspeed: int | None = None
    memory: int | None = None
    created: datetime
    storagetype: str
    provisioningtype: str
    rootdisksize: int | None = None
    offerha: bool
    limitcpuuse: bool
    isvolatile: bool
    dynamicscalingenabled: bool
    iscustomized: bool
    issystem: bool
    defaultuse: bool
    systemvmtype: str | None = None
    networkrate: int | None = None
    hosttags: str | None = None
    storagetags: str | None = None
    deploymentplanner: str | None = None
    state: str
    serviceofferingdetails: dict[str, str] | None = None
    domain: str | None = None
    domainid: str | None = None
    zone: str | None = None
    zoneid: str | None = None


def service_offering_views(ctx: Context, rows: Sequence[ServiceOffering]) -> list[ServiceOfferingResponse]:
    """Return the responses of these offerings; where machines are placed is root admins' business."""
    scopes = scope_fields(ctx, rows)
    admin = ctx.caller.is_admin
    return [
        ServiceOfferingResponse(
            id=row.uuid,
            name=row.name,
            displaytext=row.display_text,
            cpunumber=row.cpus,
            cpuspeed=row.mhz,
            memory=row.memory,
            created=row.created,
            storagetype=row.storage_type,
            provisioningtype=row.provisioning_type,
            rootdisksize=row.root_disk_size // GIB or None,
            offerha=row.offer_ha,
            limitcpuuse=row.limit_cpu_use,
            isvolatile=row.is_volatile,
            dynamicscalingenabled=row.dynamic_scaling,
            iscustomized=row.cpus is None or row.memory is None,
            issystem=bool(row.system_vm_type),
            defaultuse=row.default,
            systemvmtype=row.system_vm_type or None,
            networkrate=row.network_rate,
            hosttags=",".join(row.host_tags) or None if admin else None,
            storagetags=",".join(row.storage_tags) or None if admin else None,
            deploymentplanner=row.deployment_planner if admin else None,
            state=row.state,
            serviceofferingdetails=row.details or None,
            **scopes[row.id],
        )
        for row in rows
    ]
