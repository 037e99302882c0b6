"""Commands on templates and ISOs that are there: change and delete them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import optional, required
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.base import now
from controlplane.db.session import after_commit
from controlplane.errors import BadParameter, Forbidden, InUse
from controlplane.identity.accounts import Account
from controlplane.identity.ownership import IMAGES, on_account_removed
from controlplane.offering.create_service_offering import checked_details
from controlplane.reconcile.targets import Target
from controlplane.storage.register_template import give_up_space
from controlplane.storage.template_views import template_views
from controlplane.storage.templates import OsType, Template
from controlplane.zone import syntax
from controlplane.zone.clusters import ARCHITECTURES
from controlplane.zone.zones import Zone


def refuse_foreign(ctx: Context, row: Template) -> None:
    """Refuse to change what one may see but does not own.

    :raises Forbidden: it belongs to an account outside of the caller's realm.
    """
    mine = select(Account.id).where(Account.id == row.account_id, Account.visible_to(ctx.caller))
    if ctx.session.scalar(mine) is None:
        raise Forbidden(f"{row.name} ({row.uuid}) belongs to another account: only its owner may change it.")


def refuse_kind(row: Template, *, iso: bool) -> None:
    """Refuse an ISO where a template is meant, and the other way round.

    :raises BadParameter: the words are those of a missing object.
    """
    if (row.format == "ISO") != iso:
        noun = "ISO" if iso else "template"
        raise BadParameter(f"Invalid parameter id value={row.uuid}: no {noun} with this id exists.")


class ImageUpdate(Command):
    """What updating templates and ISOs have in common.

    :cvar isos: it is about ISOs.
    """

    isos: ClassVar[bool] = False

    id: Template = required()
    name: str | None = optional(check=syntax.name)
    displaytext: str | None = optional(length=4096, check=syntax.name)
    arch: str | None = optional(choices=ARCHITECTURES)
    bootable: bool | None = optional()
    cleanupdetails: bool | None = optional(False)
    details: dict[str, str] | None = optional(check=checked_details)
    forceupdateostype: bool | None = optional(False)
    isdynamicallyscalable: bool | None = optional()
    ostypeid: OsType | None = optional()
    passwordenabled: bool | None = optional()
    requireshvm: bool | None = optional()
    sortkey: int | None = optional()
    sshkeyenabled: bool | None = optional()

    def run(self, ctx: Context) -> Template:
        """Change what is given."""
        row = self.id
        refuse_kind(row, iso=self.isos)
        refuse_foreign(ctx, row)
        for parameter, column in _COLUMNS.items():
            value = getattr(self, parameter)
            if value is not None:
                setattr(row, column, value)
        if self.sortkey is not None:
            if not ctx.caller.is_admin:
                raise BadParameter("Invalid parameter sortkey: only root admins sort templates.")
            row.sort_key = self.sortkey
        if self.ostypeid is not None:
            self._refuse_running(ctx, row)
            row.os_type_id = self.ostypeid.id
        if self.cleanupdetails:
            row.details = {}
        if self.details is not None:
            row.details = self.details
        return row

    def _refuse_running(self, ctx: Context, row: Template) -> None:
        if self.forceupdateostype or self.ostypeid is None or row.os_type_id == self.ostypeid.id:
            return
        using = VirtualMachine.template_id == row.id, VirtualMachine.removed.is_(None)
        names = list(ctx.session.scalars(select(VirtualMachine.name).where(*using).limit(10)))
        if names:
            raise BadParameter(
                f"Invalid parameter ostypeid: machines were made from it: {', '.join(names)}. "
                "forceupdateostype=true changes it for them, too."
            )


_COLUMNS = {
    "name": "name",
    "displaytext": "display_text",
    "arch": "arch",
    "bootable": "bootable",
    "isdynamicallyscalable": "is_dynamically_scalable",
    "passwordenabled": "password_enabled",
    "requireshvm": "requires_hvm",
    "sshkeyenabled": "sshkey_enabled",
}


class UpdateTemplate(
    ImageUpdate,
    name="updateTemplate",
    answer=one("template", template_views),
    roles=EVERYONE,
    instance="Template",
    event="TEMPLATE.UPDATE",
):
    """Update a template; what is not given stays."""

    unsupported = ("forcks", "format", "isrouting")

    templatetag: str | None = optional(check=syntax.tag)
    templatetype: str | None = optional(choices=("USER", "ROUTING", "VNF", "SYSTEM", "BUILTIN"), admin=True)

    def run(self, ctx: Context) -> Template:
        """Change tag and type besides."""
        row = super().run(ctx)
        row.tag, row.type = self.templatetag or row.tag, self.templatetype or row.type
        return row


class UpdateIso(
    ImageUpdate,
    name="updateIso",
    answer=one("iso", template_views),
    roles=EVERYONE,
    instance="Iso",
    event="ISO.UPDATE",
):
    """Update an ISO; what is not given stays."""

    isos = True
    unsupported = ("format", "isrouting")


class ImageDeletion(Command):
    """What deleting templates and ISOs have in common.

    :cvar isos: it is about ISOs.
    """

    isos: ClassVar[bool] = False

    id: Template = required()
    zoneid: Zone | None = optional(description="the image's own zone; an image of every zone goes everywhere")

    def remove(self, ctx: Context, *, forced: bool) -> None:
        """Refuse while machines need it; its content goes with the commit."""
        row, ctx.instance = self.id, self.id
        refuse_kind(row, iso=self.isos)
        refuse_foreign(ctx, row)
        if self.zoneid is not None and row.zone_id not in (None, self.zoneid.id):
            raise BadParameter(f"Invalid parameter zoneid value={self.zoneid.uuid}: it is not in this zone.")
        names = _users(ctx.session, row)
        if names and (self.isos or not forced):
            raise InUse(f"{row.name} cannot be deleted: machines use it: {', '.join(names)}.")
        _take_away(ctx.session, row)


def _users(session: Session, row: Template) -> list[str]:
    """Return the names of some machines that were made from a template, or have the ISO attached."""
    column = or_(VirtualMachine.iso_id == row.id, VirtualMachine.template_id == row.id)
    return list(session.scalars(select(VirtualMachine.name).where(column, VirtualMachine.removed.is_(None)).limit(10)))


def _take_away(session: Session, row: Template) -> None:
    """Offer an image no longer; its content goes with the commit, unless machines still need it."""
    give_up_space(session, row)
    path = row.path
    if path and not _users(session, row):
        after_commit(session, lambda: Path(path).unlink(missing_ok=True))
    row.removed, row.state = now(), "Inactive"


def remove_images(session: Session, account: Account) -> list[Target]:
    """Take away the images of a removed account; machines of others keep the content of those that were public."""
    mine = select(Template).where(Template.account_id == account.id, Template.removed.is_(None))
    for row in session.scalars(mine.order_by(Template.id)).all():
        _take_away(session, row)
    return []


on_account_removed(remove_images, IMAGES)


class DeleteTemplate(
    ImageDeletion,
    name="deleteTemplate",
    answer=success(),
    roles=EVERYONE,
    job=True,
    instance="Template",
    event="TEMPLATE.DELETE",
):
    """Delete a template. With ``forced`` machines made from it keep its content, and it is only no longer offered."""

    unsupported = ("issystem",)

    forced: bool | None = optional(False)

    def run(self, ctx: Context) -> None:
        """Refuse while machines need it, unless forced."""
        self.remove(ctx, forced=bool(self.forced))


class DeleteIso(
    ImageDeletion, name="deleteIso", answer=success(), roles=EVERYONE, job=True, instance="Iso", event="ISO.DELETE"
):
    """Delete an ISO."""

    isos = True

    def run(self, ctx: Context) -> None:
        """Refuse while it is attached."""
        self.remove(ctx, forced=False)
