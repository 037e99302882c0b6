"""Disk offerings: the size and place of a volume."""

from __future__ import annotations

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db.base import Created, Removable, Row


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
    state: Mapped[str] = mapped_column(String(20), default="Active")
    domain_uuids: Mapped[list[str]] = mapped_column(default=list)
    zone_uuids: Mapped[list[str]] = mapped_column(default=list)
    details: Mapped[dict[str, str]] = mapped_column(default=dict)
    unique_name: Mapped[str | None] = mapped_column(String(255), unique=True)
    sort_key: Mapped[int] = mapped_column(default=0)
