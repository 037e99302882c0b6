"""Guest operating systems: their families and types, as templates and machines name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter, InUse
from controlplane.storage.templates import OsCategory, OsType, Template
from controlplane.zone import syntax

dispatch.JOB_TABLES["GuestOs"] = OsType


@dataclass(kw_only=True)
class OsCategoryResponse(Response):
    """A family of operating systems."""

    id: str
    name: str
    isfeatured: bool
    created: datetime | None = None


def os_category_views(ctx: Context, rows: Sequence[OsCategory]) -> list[OsCategoryResponse]:
    """Return the responses of these families."""
    del ctx
    return [OsCategoryResponse(id=row.uuid, name=row.name, isfeatured=row.featured) for row in rows]


class ListOsCategories(
    ListCommand, name="listOsCategories", answer=many("oscategory", os_category_views), roles=EVERYONE
):
    """List families of operating systems."""

    unsupported = ("arch", "isvnf", "showicon", "zoneid")
    table = OsCategory
    keywords = (OsCategory.name,)
    order = (OsCategory.id,)

    id: OsCategory | None = matching(OsCategory.id)
    name: str | None = matching(OsCategory.name)
    isfeatured: bool | None = matching(OsCategory.featured)
    isiso: bool | None = optional(description="only families that there are ISOs (or templates) of")

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Look at what templates there are."""
        del ctx
        if self.isiso is None:
            return query
        form = Template.format == "ISO" if self.isiso else Template.format != "ISO"
        used = select(OsType.category_id).join(Template, Template.os_type_id == OsType.id)
        return query.where(OsCategory.id.in_(used.where(form, Template.removed.is_(None))))


@dataclass(kw_only=True)
class OsTypeResponse(Response):
    """An operating system."""

    id: str
    name: str
    description: str
    oscategoryid: str
    oscategoryname: str
    isuserdefined: bool
    fordisplay: bool


def os_type_views(ctx: Context, rows: Sequence[OsType]) -> list[OsTypeResponse]:
    """Return the responses of these operating systems."""
    numbers = {row.category_id for row in rows}
    found = ctx.session.scalars(select(OsCategory).where(OsCategory.id.in_(numbers)))
    categories = {row.id: row for row in found}
    return [
        OsTypeResponse(
            id=row.uuid,
            name=row.name,
            description=row.name,
            oscategoryid=categories[row.category_id].uuid,
            oscategoryname=categories[row.category_id].name,
            isuserdefined=row.user_defined,
            fordisplay=row.display,
        )
        for row in rows
    ]


class ListOsTypes(ListCommand, name="listOsTypes", answer=many("ostype", os_type_views), roles=EVERYONE):
    """List operating systems."""

    table = OsType
    keywords = (OsType.name,)
    order = (OsType.id,)

    id: OsType | None = matching(OsType.id)
    ids: list[OsType] | None = matching(OsType.id)
    description: str | None = matching(OsType.name)
    oscategoryid: OsCategory | None = matching(OsType.category_id)
    fordisplay: bool | None = optional(description="root admins only: true or false; others see what is displayed")

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Tenants see what is displayed."""
        if not ctx.caller.is_admin:
            return query.where(OsType.display)
        return query if self.fordisplay is None else query.where(OsType.display == self.fordisplay)


class AddGuestOs(
    Command,
    name="addGuestOs",
    answer=one("ostype", os_type_views),
    job=True,
    creates=True,
    instance="GuestOs",
    event="GUEST.OS.ADD",
):
    """Add an operating system to a family."""

    unsupported = ("details",)

    oscategoryid: OsCategory = required()
    osdisplayname: str = required(check=syntax.name)
    name: str | None = optional(check=syntax.name, description="used where osdisplayname is not")
    fordisplay: bool | None = optional(True)

    def run(self, ctx: Context) -> OsType:
        """Refuse a name that is taken."""
        _refuse_taken(ctx, self.osdisplayname)
        row = OsType(
            category_id=self.oscategoryid.id,
            name=self.osdisplayname,
            user_defined=True,
            display=self.fordisplay is not False,
        )
        ctx.session.add(row)
        ctx.session.flush()
        return row


def _refuse_taken(ctx: Context, name: str) -> None:
    if ctx.session.scalar(select(OsType.id).where(OsType.name == name)) is not None:
        raise BadParameter(f"Invalid parameter osdisplayname value={name}: there is an operating system of this name.")


def _own(row: OsType) -> OsType:
    if not row.user_defined:
        raise BadParameter(f"Invalid parameter id value={row.uuid}: {row.name} is of the standard catalogue.")
    return row


class UpdateGuestOs(Command, name="updateGuestOs", answer=one("ostype", os_type_views), job=True, instance="GuestOs"):
    """Change an operating system that was added."""

    event = "GUEST.OS.UPDATE"
    unsupported = ("details",)

    id: OsType = required()
    osdisplayname: str | None = optional(check=syntax.name)
    oscategoryid: str | None = optional()
    fordisplay: bool | None = optional()

    def run(self, ctx: Context) -> OsType:
        """Change what is given."""
        row = _own(self.id)
        if self.osdisplayname and self.osdisplayname != row.name:
            _refuse_taken(ctx, self.osdisplayname)
            row.name = self.osdisplayname
        if self.oscategoryid is not None:
            row.category_id = ctx.find(OsCategory, self.oscategoryid, "oscategoryid").id
        if self.fordisplay is not None:
            row.display = self.fordisplay
        return row


class RemoveGuestOs(Command, name="removeGuestOs", answer=success(), job=True, instance="GuestOs"):
    """Remove an operating system that was added."""

    event = "GUEST.OS.REMOVE"
    id: OsType = required()

    def run(self, ctx: Context) -> None:
        """Refuse while a template names it, even one that is gone."""
        row, ctx.instance = _own(self.id), self.id
        names = list(ctx.session.scalars(select(Template.name).where(Template.os_type_id == row.id).limit(10)))
        if names:
            raise InUse(f"Operating system {row.name} cannot be removed: templates name it: {', '.join(names)}.")
        ctx.session.delete(row)
