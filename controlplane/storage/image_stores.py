"""Image stores: where the checked content of templates and ISOs lies."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import ForeignKey, Select, String, or_, select
from sqlalchemy.orm import Mapped, Session, joinedload, mapped_column, relationship

from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand, Paged
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Created, Removable, Row
from controlplane.errors import BadParameter, InUse, NoCapacity
from controlplane.settings import Settings
from controlplane.storage.templates import Template
from controlplane.zone import syntax
from controlplane.zone.zones import Zone

LOCAL = "Local"
"""The provider of stores that are folders of the control plane's machine (a mounted NFS share among them)."""


class ImageStore(Created, Removable, Row):
    """An image store (addImageStore). ``path`` is its folder; without a zone it serves every zone."""

    __tablename__ = "image_stores"

    name: Mapped[str] = mapped_column(String(255))
    provider: Mapped[str] = mapped_column(String(60), default=LOCAL)
    url: Mapped[str] = mapped_column(String(2048))
    path: Mapped[str] = mapped_column(String(2048))
    zone_id: Mapped[int | None] = mapped_column(ForeignKey("zones.id"))
    read_only: Mapped[bool] = mapped_column(default=False)
    zone: Mapped[Zone | None] = relationship()


def default_folder() -> Path:
    """Return the folder of the store that is there from the start."""
    return (Settings.from_environment().folder / "images").absolute()


def store_for(session: Session, zone_id: int | None) -> ImageStore:
    """Return the store that takes a new image for the zone: one of its own before one of every zone.

    :raises NoCapacity: there is none that may be written.
    """
    live = ImageStore.removed.is_(None), ~ImageStore.read_only
    query = select(ImageStore).where(*live, or_(ImageStore.zone_id.is_(None), ImageStore.zone_id == zone_id))
    rows = sorted(session.scalars(query), key=lambda row: (row.zone_id is None, row.id))
    if not rows:
        raise NoCapacity("No image store takes new images: add one (addImageStore), or let one be written again.")
    return rows[0]


@dataclass(kw_only=True)
class ImageStoreResponse(Response):
    """An image store."""

    id: str
    name: str
    providername: str
    protocol: str
    url: str
    scope: str
    zoneid: str | None = None
    zonename: str | None = None
    readonly: bool
    disksizetotal: int | None = None
    disksizeused: int | None = None


def image_store_views(ctx: Context, rows: Sequence[ImageStore]) -> list[ImageStoreResponse]:
    """Return the responses of these stores, with what the disk below each has."""
    del ctx
    responses = []
    for row in rows:
        response = ImageStoreResponse(
            id=row.uuid,
            name=row.name,
            providername=row.provider,
            protocol="file",
            url=row.url,
            scope="ZONE" if row.zone else "REGION",
            zoneid=row.zone.uuid if row.zone else None,
            zonename=row.zone.name if row.zone else None,
            readonly=row.read_only,
        )
        if Path(row.path).is_dir():
            disk = shutil.disk_usage(row.path)
            response.disksizetotal, response.disksizeused = disk.total, disk.used
        responses.append(response)
    return responses


class ListImageStores(ListCommand, name="listImageStores", answer=many("imagestore", image_store_views)):
    """List image stores."""

    table = ImageStore
    keywords = (ImageStore.name, ImageStore.provider)

    id: ImageStore | None = matching(ImageStore.id)
    name: str | None = matching(ImageStore.name)
    provider: str | None = matching(ImageStore.provider)
    protocol: str | None = optional(choices=("file",))
    readonly: bool | None = matching(ImageStore.read_only)
    zoneid: Zone | None = matching(ImageStore.zone_id)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Bring the zones along."""
        del ctx
        return query.options(joinedload(ImageStore.zone))


class AddImageStore(Command, name="addImageStore", answer=one("imagestore", image_store_views), instance="ImageStore"):
    """Add a folder of the control plane's machine that keeps images; hosts read it at the same path."""

    event = "IMAGE.STORE.CREATE"
    unsupported = ("details",)

    provider: str = required(choices=(LOCAL,))
    url: str | None = optional(length=2048, description="file:///the/folder")
    name: str | None = optional(check=syntax.name)
    zoneid: Zone | None = optional()

    def run(self, ctx: Context) -> ImageStore:
        """Check that the folder is there and can be written."""
        url = self.url or ""
        parts = urlsplit(url)
        path = Path(unquote(parts.path))
        if parts.scheme != "file" or parts.netloc or not path.is_absolute():
            raise BadParameter(f"Invalid parameter url value={url}: it must be file:///the/folder.")
        if not path.is_dir():
            raise BadParameter(f"Invalid parameter url value={url}: there is no such folder.")
        taken = select(ImageStore.name).where(ImageStore.path == str(path), ImageStore.removed.is_(None))
        if ctx.session.scalar(taken) is not None:
            raise BadParameter(f"Invalid parameter url value={url}: another store has this folder.")
        row = ImageStore(
            name=self.name or path.name,
            provider=self.provider,
            url=url,
            path=str(path),
            zone=self.zoneid,
        )
        ctx.session.add(row)
        ctx.session.flush()
        return row


class UpdateImageStore(
    Command, name="updateImageStore", answer=one("imagestore", image_store_views), instance="ImageStore"
):
    """Rename a store, or let it take new images or not."""

    envelope = "updateImageStore"
    unsupported = ("capacitybytes",)

    id: ImageStore = required()
    name: str | None = optional(check=syntax.name)
    readonly: bool | None = optional()

    def run(self, ctx: Context) -> ImageStore:
        """Change what is given."""
        del ctx
        self.id.name = self.name or self.id.name
        if self.readonly is not None:
            self.id.read_only = self.readonly
        return self.id


class DeleteImageStore(Command, name="deleteImageStore", answer=success(), instance="ImageStore"):
    """Take a store off the books; its folder stays as it is."""

    event = "IMAGE.STORE.DELETE"
    id: ImageStore = required()

    def run(self, ctx: Context) -> None:
        """Refuse while templates or ISOs lie in it."""
        row, ctx.instance = self.id, self.id
        inside = Template.path.startswith(f"{row.path}/", autoescape=True), Template.removed.is_(None)
        names = list(ctx.session.scalars(select(Template.name).where(*inside).limit(10)))
        if names:
            raise InUse(f"Image store {row.name} cannot be deleted: it holds {', '.join(names)}.")
        row.removed = ctx.now


@dataclass(kw_only=True)
class StorageProviderResponse(Response):
    """A kind of storage."""

    name: str
    type: str


PROVIDERS = {"image": (LOCAL,), "primary": ("DefaultPrimary",)}


def storage_provider_views(ctx: Context, rows: Sequence[tuple[str, str]]) -> list[StorageProviderResponse]:
    """Return the responses of these (name, type)."""
    del ctx
    return [StorageProviderResponse(name=name, type=kind) for name, kind in rows]


class ListStorageProviders(
    Paged, name="listStorageProviders", answer=many("dataStoreProvider", storage_provider_views)
):
    """List the kinds of image or primary storage that there are."""

    writes = False
    type: str = required(choices=tuple(PROVIDERS))
    keyword: str | None = optional()

    def run(self, ctx: Context) -> tuple[Sequence[tuple[str, str]], int]:
        """Return (name, type)."""
        word = (self.keyword or "").lower()
        found = [(name, self.type) for name in PROVIDERS[self.type] if word in name.lower()]
        return self.page_of(ctx.session, found)
