"""registerTemplate and registerIso: an image is fetched, checked and only then Ready."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many
from controlplane.api.context import Context
from controlplane.api.parameters import Uuid, optional, required
from controlplane.db.configuration import define
from controlplane.errors import ApiError, BadParameter, LimitReached
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.limits import give_back, take
from controlplane.identity.ownership import owner_of_new
from controlplane.offering.create_service_offering import checked_details
from controlplane.storage import fetch, formats
from controlplane.storage.image_stores import ImageStore, store_for
from controlplane.storage.template_views import template_views
from controlplane.storage.templates import OsType, Template
from controlplane.work import workflows
from controlplane.work.jobs import Job
from controlplane.work.workflows import Flow, workflow
from controlplane.zone import syntax
from controlplane.zone.clusters import ARCHITECTURES
from controlplane.zone.hypervisors import driver_of
from controlplane.zone.zones import Zone

MOST_GIB = define(
    "max.template.iso.size", 50, "GiB that a template or ISO may have, unpacked", category="Storage", within=(1, 65536)
)
INTERNAL = define(
    "secstorage.allowed.internal.sites",
    "",
    "Networks, joined by commas, that images may be fetched from although they are not public",
    category="Storage",
)
FOLDER = define(
    "template.import.folder",
    "",
    "Folder of the control plane's machine that root admins may register file:// URLs from; empty allows none",
    category="Storage",
)
MAY_PUBLISH = define(
    "allow.public.user.templates", True, "Whether users may make their templates public", category="Account Defaults"
)
ALL_ZONES = "-1"
FETCHED = 100
"""Percent: what is left to do is to check the content."""


def checksum(value: str) -> str:
    """Accept a checksum."""
    fetch.checksum_of(value)
    return value.strip()


class Registration(Command):
    """What registering templates and ISOs have in common."""

    name: str = required(check=syntax.name)
    displaytext: str | None = optional(length=4096, check=syntax.name)
    url: str = required(length=2048)
    checksum: str | None = optional("", check=checksum)
    account: str | None = optional()
    domainid: Domain | None = optional()
    arch: str | None = optional("x86_64", choices=ARCHITECTURES)
    isdynamicallyscalable: bool | None = optional(False)
    isextractable: bool | None = optional(False)
    isfeatured: bool | None = optional(False)
    ispublic: bool | None = optional(False)
    ostypeid: OsType | None = optional()
    passwordenabled: bool | None = optional(False)

    def register(self, ctx: Context, row: Template, zone: Zone | None) -> Template:
        """Check who may do what, write the row, and have the content fetched after the commit."""
        owner = owner_of_new(ctx, self.account, self.domainid)
        self._vet_url(ctx)
        self._vet_flags(ctx)
        row.account_id, row.domain_id = owner.id, owner.domain_id
        row.name, row.display_text = self.name, self.displaytext or self.name
        row.url, row.checksum, row.arch = self.url, self.checksum or "", self.arch or "x86_64"
        row.zone_id, row.cross_zones = (zone.id if zone else None), zone is None
        row.is_public, row.is_featured = bool(self.ispublic or self.isfeatured), bool(self.isfeatured)
        row.is_extractable, row.password_enabled = bool(self.isextractable), bool(self.passwordenabled)
        row.is_dynamically_scalable = bool(self.isdynamicallyscalable)
        row.os_type_id = self.ostypeid.id if self.ostypeid else None
        store_for(ctx.session, row.zone_id)
        take(ctx.session, owner.id, "template")
        ctx.session.add(row)
        ctx.session.flush()
        row.unique_name = f"{row.id}-{owner.id}-{row.uuid}"
        ctx.instance = row
        start_download(ctx, row, self.command)
        return row

    def _vet_url(self, ctx: Context) -> None:
        parts = urlsplit(self.url)
        problem = ""
        if parts.scheme not in ("http", "https", "file"):
            problem = "it must be an http, https or file URL"
        elif parts.scheme == "file":
            if not ctx.caller.is_admin:
                problem = "only root admins may give a file URL"
            else:
                try:
                    fetch.local_path(self.url, FOLDER.text(ctx.session))
                except ValueError as error:
                    problem = str(error)
        elif not parts.hostname or any(ord(letter) <= ord(" ") for letter in self.url):
            problem = "it has no host"
        if problem:
            raise BadParameter(f"Invalid parameter url value={self.url}: {problem}.")

    def _vet_flags(self, ctx: Context) -> None:
        if self.isfeatured and not ctx.caller.is_admin:
            raise BadParameter("Invalid parameter isfeatured value=true: only root admins may feature templates.")
        if self.ispublic and not ctx.caller.is_admin and not MAY_PUBLISH.flag(ctx.session):
            raise BadParameter("Invalid parameter ispublic value=true: allow.public.user.templates does not allow it.")


def start_download(ctx: Context, row: Template, command: str) -> None:
    """Have the content fetched by a workflow of its own: the command answers at once, as CloudStack's does."""
    job = Job(
        account_id=ctx.caller.account_id,
        domain_id=ctx.caller.domain_id,
        user_id=ctx.caller.user_id,
        command=command,
        parameters={},
        instance_type="Iso" if row.format == "ISO" else "Template",
        instance_uuid=row.uuid,
        workflow="downloadTemplate",
        serial=row.uuid,
    )
    ctx.session.add(job)
    ctx.session.flush()
    workflows.start_after_commit(ctx.session, job)


class RegisterTemplate(
    Registration,
    name="registerTemplate",
    answer=many("template", template_views),
    roles=EVERYONE,
    instance="Template",
    event="TEMPLATE.CREATE",
):
    """Register a template; it can be used once its content was fetched and checked."""

    unsupported = (
        "deployasis",
        "directdownload",
        "extensionid",
        "externaldetails",
        "forcks",
        "isrouting",
        "projectid",
    )

    format: str = required(choices=tuple(form for form in formats.CHECKS if form != "ISO"))
    hypervisor: str = required()
    zoneid: Uuid | None = optional(description="-1 is every zone, the default")
    zoneids: list[Uuid] | None = optional()
    bits: int | None = optional(64)
    details: dict[str, str] | None = optional(check=checked_details)
    requireshvm: bool | None = optional(True)
    sshkeyenabled: bool | None = optional(False)
    templatetag: str | None = optional(check=syntax.tag)
    templatetype: str | None = optional("USER", choices=("USER", "ROUTING", "VNF", "SYSTEM", "BUILTIN"), admin=True)

    def run(self, ctx: Context) -> list[Template]:
        """Check that the hypervisor can use the format."""
        driver = driver_of(self.hypervisor)
        if (driver.name == "LXC") != (self.format == "TAR") and driver.name != "Simulator":
            raise BadParameter(
                f"Invalid parameter format value={self.format}: "
                f"{driver.name} uses {'TAR' if driver.name == 'LXC' else 'disk images'}."
            )
        if self.bits not in (32, 64):
            raise BadParameter(f"Invalid parameter bits value={self.bits}: it must be 32 or 64.")
        row = Template(
            format=self.format,
            hypervisor=driver.name,
            bits=self.bits,
            details=self.details or {},
            requires_hvm=bool(self.requireshvm),
            sshkey_enabled=bool(self.sshkeyenabled),
            tag=self.templatetag,
            type=self.templatetype,
        )
        return [self.register(ctx, row, self._zone(ctx))]

    def _zone(self, ctx: Context) -> Zone | None:
        named = dict.fromkeys([*([self.zoneid] if self.zoneid else []), *(self.zoneids or [])])
        if not named or ALL_ZONES in named:
            return None
        if len(named) > 1:
            raise BadParameter("Invalid parameter zoneids: give one zone, or none for a template of every zone.")
        found = ctx.find(Zone, next(iter(named)), "zoneid")
        assert isinstance(found, Zone)
        return found


class RegisterIso(
    Registration,
    name="registerIso",
    answer=many("iso", template_views),
    roles=EVERYONE,
    instance="Iso",
    event="ISO.CREATE",
):
    """Register an ISO; it can be used once its content was fetched and checked."""

    unsupported = ("directdownload", "imagestoreuuid", "projectid")

    zoneid: Uuid = required(description="-1 is every zone")
    bootable: bool | None = optional(True)

    def run(self, ctx: Context) -> list[Template]:
        """Check that a bootable one says what it boots."""
        if self.bootable and self.ostypeid is None:
            raise BadParameter("Invalid parameter ostypeid: a bootable ISO needs it.")
        zone = None if self.zoneid == ALL_ZONES else ctx.find(Zone, self.zoneid, "zoneid")
        assert zone is None or isinstance(zone, Zone)
        return [self.register(ctx, Template(format="ISO", bootable=bool(self.bootable)), zone)]


@workflow("downloadTemplate")
def download(flow: Flow) -> None:
    """Fetch and check the content of a template; whatever is wrong becomes its status.

    Fetching is no step: it holds no transaction, and after a crash it begins again.
    """
    plan: dict[str, Any] | None = flow.step(begin_download, flow.subject)
    if plan is None:
        return
    problem, size, virtual = "", 0, 0
    file = Path(plan["file"])
    try:
        wanted = fetch.Wanted(plan["url"], plan["checksum"], plan["most"], tuple(plan["internal"]), plan["folder"])
        progress = Progress(lambda percent: flow.note(note_progress, flow.subject, percent))
        size = fetch.fetch(wanted, file, progress.tell)
        flow.note(note_progress, flow.subject, FETCHED)
        virtual = formats.check(file, plan["format"], plan["most"])
    except ValueError as error:
        problem = f"The image was refused: {error}."
        file.unlink(missing_ok=True)
    problem = flow.step(end_download, flow.subject, problem, size, virtual)
    if problem:
        raise ApiError(problem)


def begin_download(session: Session, uuid: str) -> dict[str, Any] | None:
    """Take note that the download begins; return what is to be fetched, and where to."""
    row = session.scalar(select(Template).where(Template.uuid == uuid, Template.removed.is_(None)))
    if row is None:
        return None
    store = store_for(session, row.zone_id)
    row.state, row.error, row.progress = "Downloading", "", 0
    row.path = str(image_path(store, row))
    return {
        "url": row.url,
        "checksum": row.checksum,
        "format": row.format,
        "file": row.path,
        "most": MOST_GIB.number(session) << 30,
        "internal": [site.strip() for site in INTERNAL.text(session).split(",") if site.strip()],
        "folder": FOLDER.text(session),
    }


class Progress:
    """Passes a percentage on when it has changed, and not more often than it may be looked at."""

    EVERY = 1.0
    """Seconds between two notes: each is a transaction."""

    def __init__(self, note: Callable[[int], None]) -> None:
        self._note = note
        self._told, self._next = 0, time.monotonic()

    def tell(self, percent: int) -> None:
        """Hear that this much is there."""
        if percent != self._told and time.monotonic() >= self._next:
            self._note(percent)
            self._told, self._next = percent, time.monotonic() + self.EVERY


def note_progress(session: Session, uuid: str, percent: int) -> None:
    """Take note of how much of a template's content is there."""
    still = Template.uuid == uuid, Template.state == "Downloading"
    session.execute(update(Template).where(*still).values(progress=percent))


def image_path(store: ImageStore, row: Template) -> Path:
    """Return where the content of an image lies in a store."""
    return Path(store.path) / "template" / f"{row.uuid}.{row.format.lower()}"


def end_download(session: Session, uuid: str, problem: str, size: int, virtual: int) -> str:
    """Make the image Ready, or say in its status what is wrong; return that."""
    row = session.scalars(select(Template).where(Template.uuid == uuid)).one()
    if row.removed is not None:
        Path(row.path).unlink(missing_ok=True)
        return ""
    if not problem and row.state == "Downloading":
        try:
            with session.begin_nested():
                take(session, session.get_one(Account, row.account_id).id, "secondary_storage", virtual)
        except LimitReached as error:
            problem = error.text
            Path(row.path).unlink(missing_ok=True)
    if problem:
        row.state, row.error, row.path = "Error", problem[:1024], ""
        return problem
    row.state, row.size, row.physical_size, row.progress = "Ready", virtual, size, 100
    return ""


def give_up_space(session: Session, row: Template) -> None:
    """Count what an image no longer takes."""
    give_back(session, row.account_id, "template")
    if row.state == "Ready":
        give_back(session, row.account_id, "secondary_storage", row.size)
