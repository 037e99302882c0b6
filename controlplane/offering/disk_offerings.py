"""Disk offerings: the size and place of a volume."""

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


class DiskOffering(Created, Removable, Row):
    """A disk offering (createDiskOffering). ``size`` is in bytes, 0 where the tenant chooses."""

    __tablename__ = "disk_offerings"

    name: Mapped[str] = mapped_column(String(255))
    display_text: Mapped[str] = mapped_column(String(4096))
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    customized: Mapped[bool] = mapped_column(default=False)
    storage_type: Mapped[str] = mapped_column(String(20), default="shared")
    provisioning_type: Mapped[str] = mapped_column(String(20), default="thin")
    tags: Mapped[list[str]] = mapped_column(default=list)
    display: Mapped[bool] = mapped_column(default=True)
    size_fixed: Mapped[bool] = mapped_column(default=False)
    state: Mapped[str] = mapped_column(String(20), default="Active")
    domain_uuids: Mapped[list[str]] = mapped_column(default=list)
    zone_uuids: Mapped[list[str]] = mapped_column(default=list)
    details: Mapped[dict[str, str]] = mapped_column(default=dict)
    unique_name: Mapped[str | None] = mapped_column(String(255), unique=True)
    sort_key: Mapped[int] = mapped_column(default=0)

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """Tenants see active offerings that are displayed, for everybody or for a domain on their path."""
        tenants = and_(cls.state == "Active", cls.display)
        return and_(usable_by(cls, caller), true() if caller.is_admin else tenants)


@dataclass(kw_only=True)
class DiskOfferingResponse(Response):
    """A disk offering; sizes in GiB."""

    id: str
    name: str
    displaytext: str
    disksize: int
    iscustomized: bool
    disksizestrictness: bool
    storagetype: str
    provisioningtype: str
    tags: str | None = None
    displayoffering: bool | None = None
    state: str
    details: dict[str, str] | None = None
    created: datetime
    domain: str | None = None
    domainid: str | None = None
    zone: str | None = None
    zoneid: str | None = None


def disk_offering_views(ctx: Context, rows: Sequence[DiskOffering]) -> list[DiskOfferingResponse]:
    """Return the responses of these offerings; tags and display are root admins' business."""
    scopes = scope_fields(ctx, rows)
    admin = ctx.caller.is_admin
    return [
        DiskOfferingResponse(
            id=row.uuid,
            name=row.name,
            displaytext=row.display_text,
            disksize=row.size // GIB,
            iscustomized=row.customized,
            disksizestrictness=row.size_fixed,
            storagetype=row.storage_type,
            provisioningtype=row.provisioning_type,
            tags=",".join(row.tags) or None if admin else None,
            displayoffering=row.display if admin else None,
            state=row.state,
            details=row.details or None,
            created=row.created,
            **scopes[row.id],
        )
        for row in rows
    ]
