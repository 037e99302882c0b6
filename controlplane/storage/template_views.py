"""How templates and ISOs are shown, and the rules of their lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import ColumnElement, Select, String, and_, or_, select, true

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter
from controlplane.identity.ownership import OwnedListing, account_named, owner_fields
from controlplane.identity.tags import TagResponse, tags_of
from controlplane.storage.image_stores import ImageStore
from controlplane.storage.templates import OsCategory, OsType, Template
from controlplane.zone.zones import Zone

FILTERS = ("featured", "self", "selfexecutable", "sharedexecutable", "executable", "community", "all")
DOWNLOAD_STATES = {
    "Ready": "DOWNLOADED",
    "NotDownloaded": "NOT_DOWNLOADED",
    "Downloading": "DOWNLOAD_IN_PROGRESS",
    "Error": "DOWNLOAD_ERROR",
    "Inactive": "ABANDONED",
}
FETCHED = 100

dispatch.JOB_TABLES["Template"] = Template
dispatch.JOB_TABLES["Iso"] = Template


@dataclass(kw_only=True)
class TemplateResponse(Response):
    """A template or an ISO; sizes in bytes."""

    id: str
    name: str
    displaytext: str
    ispublic: bool
    isfeatured: bool
    isextractable: bool
    isdynamicallyscalable: bool
    crossZones: bool  # noqa: N815 - the wire's own spelling
    isready: bool
    status: str
    format: str
    hypervisor: str | None = None
    templatetype: str
    ostypeid: str | None = None
    ostypename: str | None = None
    account: str
    accountid: str | None = None
    domain: str
    domainid: str
    domainpath: str
    zoneid: str | None = None
    zonename: str | None = None
    created: datetime
    removed: datetime | None = None
    size: int | None = None
    physicalsize: int | None = None
    checksum: str | None = None
    url: str | None = None
    bits: int
    arch: str
    bootable: bool
    passwordenabled: bool
    sshkeyenabled: bool
    requireshvm: bool
    directdownload: bool
    deployasis: bool = False
    templatetag: str | None = None
    userdatapolicy: str | None = None
    details: dict[str, str] | None = None
    downloaddetails: list[dict[str, str]] | None = None
    tags: list[TagResponse]


def template_views(ctx: Context, rows: Sequence[Template]) -> list[TemplateResponse]:
    """Return the responses of these templates; where they came from is for admins and owners."""
    owners, zones, types = owner_fields(ctx, rows), _zones(ctx, rows), _os_types(ctx, rows)
    tags = tags_of(ctx, "Template", rows) if rows and rows[0].format != "ISO" else tags_of(ctx, "ISO", rows)
    responses, stores = [], _stores(ctx)
    for row in rows:
        response = _view(row, owners[row.account_id], tags[row.id])
        zone, kind = zones.get(row.zone_id or 0), types.get(row.os_type_id or 0)
        if zone is not None:
            response.zoneid, response.zonename = zone
        if kind is not None:
            response.ostypeid, response.ostypename = kind
        if ctx.caller.is_admin or row.account_id == ctx.caller.account_id:
            response.url, response.checksum = row.url or None, row.checksum or None
            response.details, response.templatetag = row.details or None, row.tag
            response.downloaddetails = [_download_of(row, stores)]
        responses.append(response)
    return responses


def _view(row: Template, owner: dict[str, Any], tags: list[TagResponse]) -> TemplateResponse:
    return TemplateResponse(
        id=row.uuid,
        name=row.name,
        displaytext=row.display_text,
        ispublic=row.is_public,
        isfeatured=row.is_featured,
        isextractable=row.is_extractable,
        isdynamicallyscalable=row.is_dynamically_scalable,
        crossZones=row.zone_id is None,
        isready=row.state == "Ready",
        status=_status(row),
        format=row.format,
        hypervisor=row.hypervisor or None,
        templatetype=row.type,
        created=row.created,
        removed=row.removed,
        size=row.size or None,
        physicalsize=row.physical_size or None,
        bits=row.bits,
        arch=row.arch,
        bootable=row.bootable,
        passwordenabled=row.password_enabled,
        sshkeyenabled=row.sshkey_enabled,
        requireshvm=row.requires_hvm,
        directdownload=row.direct_download,
        userdatapolicy=row.userdata_policy,
        tags=tags,
        **owner,
    )


def _status(row: Template) -> str:
    """Return how far an image is, in CloudStack's words, which its clients show and wait for."""
    iso = row.format == "ISO"
    if row.state == "Ready":
        return "Successfully Installed" if iso else "Download Complete"
    if row.state == "Downloading":
        installing = "Installing ISO" if iso else "Installing Template"
        return installing if row.progress >= FETCHED else f"{row.progress}% Downloaded"
    return row.error or "Processing"


def _stores(ctx: Context) -> list[tuple[Path, str]]:
    return [(Path(path), name) for path, name in ctx.session.execute(select(ImageStore.path, ImageStore.name))]


def _download_of(row: Template, stores: Sequence[tuple[Path, str]]) -> dict[str, str]:
    """Return how far the download into an image's store is; it has none before it begins."""
    percent = FETCHED if row.state == "Ready" else row.progress
    details = {"downloadState": DOWNLOAD_STATES[row.state], "downloadPercent": str(percent)}
    named = next((name for path, name in stores if row.path and Path(row.path).is_relative_to(path)), "")
    return details | ({"datastore": named} if named else {})


def _zones(ctx: Context, rows: Sequence[Template]) -> dict[int, tuple[str, str]]:
    numbers = {row.zone_id for row in rows if row.zone_id}
    if not numbers:
        return {}
    query = select(Zone.id, Zone.uuid, Zone.name).where(Zone.id.in_(numbers))
    return {number: (uuid, name) for number, uuid, name in ctx.session.execute(query)}


def _os_types(ctx: Context, rows: Sequence[Template]) -> dict[int, tuple[str, str]]:
    numbers = {row.os_type_id for row in rows if row.os_type_id}
    if not numbers:
        return {}
    query = select(OsType.id, OsType.uuid, OsType.name).where(OsType.id.in_(numbers))
    return {number: (uuid, name) for number, uuid, name in ctx.session.execute(query)}


class ImageListing(OwnedListing):
    """What the lists of templates and of ISOs have in common.

    :cvar isos: it lists ISOs.
    """

    table = Template
    isos: ClassVar[bool] = False
    keywords = (Template.name, Template.display_text)
    order = (Template.sort_key, Template.id.desc())
    unsupported: ClassVar[tuple[str, ...]] = ("imagestoreid", "showicon", "storageid")

    id: Template | None = optional()
    name: str | None = matching(Template.name)
    arch: str | None = matching(Template.arch)
    hypervisor: str | None = matching(Template.hypervisor)
    zoneid: Zone | None = optional()
    isready: bool | None = optional()
    oscategoryid: str | None = optional()
    showremoved: bool | None = optional(False, admin=True, description="removed ones, too")
    showunique: bool | None = optional(description="accepted: a template of every zone always is listed once")

    def asked(self) -> str:
        """Return the filter that was asked for."""
        raise NotImplementedError

    def matching_rows(self, ctx: Context) -> Select[Any]:
        """Return the query for the images that the filter lets through."""
        query = super().matching_rows(ctx)
        query = query.where(Template.format == "ISO" if self.isos else Template.format != "ISO")
        if self.id is not None:
            query = query.where(Template.id == self.id.id)
        query = query.where(self._filtered(ctx))
        if self.zoneid is not None:
            query = query.where(or_(Template.zone_id.is_(None), Template.zone_id == self.zoneid.id))
        if self.isready is not None:
            query = query.where(Template.state == "Ready" if self.isready else Template.state != "Ready")
        if self.oscategoryid is not None:
            category = ctx.find(OsCategory, self.oscategoryid, "oscategoryid")
            types = select(OsType.id).where(OsType.category_id == category.id)
            query = query.where(Template.os_type_id.in_(types))
        return query

    def owners(self, ctx: Context) -> Any:
        """The filter decides whose images are shown; an account or domain that is named narrows it."""
        if self.account is None and self.domainid is None and self.projectid is None:
            return None
        return super().owners(ctx)

    def _filtered(self, ctx: Context) -> ColumnElement[bool]:
        account = ctx.caller.account_id
        if self.account is not None:
            account = account_named(ctx, self.account, self.domainid).id
        own = Template.account_id == account
        shared = Template.shared_with.cast(String).contains(f'"{account}"')
        ready = Template.state == "Ready"
        public = and_(Template.is_public, ready)
        name = self.asked()
        if name == "all":
            if not ctx.caller.is_admin:
                raise BadParameter("Invalid parameter templatefilter value=all: it is for root admins only.")
            return true()
        if self.id is not None and ctx.caller.is_admin:
            return true()
        user = Template.type != "SYSTEM"
        return and_(
            user,
            {
                "featured": and_(Template.is_featured, public),
                "community": and_(~Template.is_featured, public),
                "self": own,
                "selfexecutable": and_(own, ready),
                "sharedexecutable": and_(shared, ~own, ready),
                "executable": and_(ready, or_(own, shared, Template.is_public)),
            }[name],
        )


class ListTemplates(ImageListing, name="listTemplates", answer=many("template", template_views), roles=EVERYONE):
    """List templates, as the templatefilter says."""

    taggable = "Template"
    unsupported: ClassVar[tuple[str, ...]] = (
        *ImageListing.unsupported,
        "extensionid",
        "forcks",
        "isvnf",
        "parenttemplateid",
    )

    templatefilter: str = required(choices=FILTERS)
    ids: list[Template] | None = matching(Template.id)
    templatetype: str | None = matching(Template.type)
    details: list[str] | None = optional(description="accepted: a template is always shown whole")

    def asked(self) -> str:
        """Return the templatefilter."""
        return self.templatefilter


class ListIsos(ImageListing, name="listIsos", answer=many("iso", template_views), roles=EVERYONE):
    """List ISOs, as the isofilter says; one's own by default."""

    taggable = "ISO"
    isos = True

    isofilter: str | None = optional("selfexecutable", choices=FILTERS)
    bootable: bool | None = matching(Template.bootable)
    ispublic: bool | None = matching(Template.is_public)

    def asked(self) -> str:
        """Return the isofilter."""
        if self.ispublic and self.isofilter == "selfexecutable":
            return "executable"
        return self.isofilter or "selfexecutable"
