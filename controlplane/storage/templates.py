"""Templates and ISOs: what a machine's root disk begins as."""

from __future__ import annotations

from sqlalchemy import BigInteger, ColumnElement, ForeignKey, String, or_
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.api.caller import Caller
from controlplane.api.context import owned_by
from controlplane.db.base import Created, Owned, Removable, Row


class OsCategory(Row):
    """A family of guest operating systems (listOsCategories)."""

    __tablename__ = "os_categories"

    name: Mapped[str] = mapped_column(String(255), unique=True)
    featured: Mapped[bool] = mapped_column(default=False)


class OsType(Row):
    """A guest operating system (listOsTypes)."""

    __tablename__ = "os_types"

    category_id: Mapped[int] = mapped_column(ForeignKey("os_categories.id"))
    name: Mapped[str] = mapped_column(String(255))
    user_defined: Mapped[bool] = mapped_column(default=False)
    display: Mapped[bool] = mapped_column(default=True)


class Template(Created, Removable, Owned, Row):
    """A template or an ISO (registerTemplate, registerIso).

    :ivar format: ``TAR``, ``QCOW2``, ``RAW``, ``VHD``, ``OVA``, ``ISO`` …
    :ivar zone_id: None means every zone.
    :ivar path: where the checked content lies once it is Ready; empty before.
    :ivar state: ``NotDownloaded``, ``Downloading``, ``Ready`` or ``Error`` with ``error`` the reason.
    :ivar progress: percent of the content that is there.
    :ivar checksum: as given: ``{SHA-256}…`` or plain hexadecimal digits.
    """

    __tablename__ = "templates"

    name: Mapped[str] = mapped_column(String(255), index=True)
    unique_name: Mapped[str] = mapped_column(String(255), default="")
    display_text: Mapped[str] = mapped_column(String(4096))
    format: Mapped[str] = mapped_column(String(20))
    hypervisor: Mapped[str] = mapped_column(String(20), default="")
    os_type_id: Mapped[int | None] = mapped_column(ForeignKey("os_types.id"))
    zone_id: Mapped[int | None] = mapped_column(ForeignKey("zones.id"))
    url: Mapped[str] = mapped_column(String(2048), default="")
    checksum: Mapped[str] = mapped_column(String(255), default="")
    path: Mapped[str] = mapped_column(String(2048), default="")
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    physical_size: Mapped[int] = mapped_column(BigInteger, default=0)
    state: Mapped[str] = mapped_column(String(20), default="NotDownloaded")
    progress: Mapped[int] = mapped_column(default=0)
    error: Mapped[str] = mapped_column(String(1024), default="")
    type: Mapped[str] = mapped_column(String(20), default="USER")
    arch: Mapped[str] = mapped_column(String(20), default="x86_64")
    bits: Mapped[int] = mapped_column(default=64)
    is_public: Mapped[bool] = mapped_column(default=False)
    is_featured: Mapped[bool] = mapped_column(default=False)
    is_extractable: Mapped[bool] = mapped_column(default=False)
    is_dynamically_scalable: Mapped[bool] = mapped_column(default=False)
    bootable: Mapped[bool] = mapped_column(default=True)
    password_enabled: Mapped[bool] = mapped_column(default=False)
    sshkey_enabled: Mapped[bool] = mapped_column(default=False)
    requires_hvm: Mapped[bool] = mapped_column(default=True)
    direct_download: Mapped[bool] = mapped_column(default=False)
    cross_zones: Mapped[bool] = mapped_column(default=False)
    tag: Mapped[str | None] = mapped_column(String(255))
    details: Mapped[dict[str, str]] = mapped_column(default=dict)
    shared_with: Mapped[list[str]] = mapped_column(default=list)
    sort_key: Mapped[int] = mapped_column(default=0)
    userdata_id: Mapped[int | None] = mapped_column(ForeignKey("user_data.id", use_alter=True))
    userdata_policy: Mapped[str | None] = mapped_column(String(20))

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """The own ones, the public ones, and those that were shared with the caller's account."""
        shared = cls.shared_with.cast(String).contains(f'"{caller.account_id}"')
        return or_(owned_by(cls, caller), cls.is_public, cls.is_featured, shared)
