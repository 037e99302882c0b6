"""User data: what a guest is told by its owner, given with the machine or registered beforehand."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import Uuid, matching, optional, required
from controlplane.api.responses import Response
from controlplane.compute.virtual_machines import UserData, VirtualMachine
from controlplane.db.base import now
from controlplane.db.configuration import define
from controlplane.errors import BadParameter, InUse
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import OwnedListing, owner_fields, owner_of_new
from controlplane.storage.templates import Template

MOST = define("vm.userdata.max.length", 32768, "Bytes that user data may have once decoded", within=(0, 1 << 20))
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_LONGEST = 2 << 20
POLICIES = ("ALLOWOVERRIDE", "APPEND", "DENYOVERRIDE")


@dataclass(kw_only=True)
class UserDataResponse(Response):
    """Registered user data."""

    id: str
    name: str
    userdata: str
    params: str | None = None
    account: str
    domain: str
    domainid: str
    accountid: str
    hasannotations: bool = False


def user_data_views(ctx: Context, rows: Sequence[UserData]) -> list[UserDataResponse]:
    """Return what these look like."""
    owners = owner_fields(ctx, rows)
    numbers = {row.account_id for row in rows}
    uuids = dict(ctx.session.execute(select(Account.id, Account.uuid).where(Account.id.in_(numbers))).all())
    views = []
    for row in rows:
        owner = {name: owners[row.account_id][name] for name in ("account", "domain", "domainid")}
        views.append(
            UserDataResponse(
                id=row.uuid,
                name=row.name,
                userdata=row.data,
                params=row.params,
                accountid=uuids[row.account_id],
                **owner,
            )
        )
    return views


class RegisterUserData(Command, name="registerUserData", answer=one("userdata", user_data_views), roles=EVERYONE,
                       instance="UserData", event="REGISTER.USER.DATA"):  # fmt: skip
    """Register user data, to be given to machines by its id."""

    name: str = required()
    userdata: str = required(length=_LONGEST)
    params: str | None = optional(length=4096)
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()

    def run(self, ctx: Context) -> UserData:
        """Keep it."""
        owner = owner_of_new(ctx, self.account, self.domainid, self.projectid)
        mine = UserData.account_id == owner.id, UserData.removed.is_(None)
        if ctx.session.scalar(select(UserData.id).where(*mine, UserData.name == self.name)) is not None:
            raise BadParameter(f"Invalid parameter name value={self.name}: account {owner.name} has such user data.")
        for name in _params(self.params):
            if not _NAME.fullmatch(name):
                raise BadParameter(f"Invalid parameter params: {name!r} is no name of a variable.")
        row = UserData(account_id=owner.id, domain_id=owner.domain_id, name=self.name, params=self.params)
        row.data = checked(ctx.session, self.userdata)
        ctx.session.add(row)
        return row


class ListUserData(OwnedListing, name="listUserData", answer=many("userdata", user_data_views), roles=EVERYONE):
    """List registered user data."""

    table = UserData
    keywords = (UserData.name,)
    tags = None

    id: UserData | None = matching(UserData.id)
    name: str | None = matching(UserData.name)


class DeleteUserData(Command, name="deleteUserData", answer=success(), roles=EVERYONE,
                     instance="UserData", event="DELETE.USER.DATA"):  # fmt: skip
    """Remove registered user data."""

    id: UserData = required()
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()

    def run(self, ctx: Context) -> None:
        """Remove it unless something uses it."""
        row = of_owner(ctx, self.id, self.account, self.domainid, self.projectid)
        used = ctx.session.scalar(
            select(VirtualMachine.name).where(VirtualMachine.user_data_id == row.id, VirtualMachine.removed.is_(None))
        ) or ctx.session.scalar(select(Template.name).where(Template.userdata_id == row.id, Template.removed.is_(None)))
        if used is not None:
            raise InUse(f"User data {row.name} is used by {used}: give that other user data first.")
        row.removed = now()
        ctx.instance = row


def of_owner(
    ctx: Context, row: UserData, account: str | None, domain: Domain | None, projectid: str | None
) -> UserData:
    """Return the row when it belongs to the account that the caller names, if any.

    :raises BadParameter: it belongs to another.
    """
    if (account or projectid) and row.account_id != owner_of_new(ctx, account, domain, projectid).id:
        raise BadParameter(f"Invalid parameter id value={row.uuid}: this user data belongs to another account.")
    return row


def checked(session: Session, text: str) -> str:
    """Return user data in plain base64 when that is what it is, and not too long.

    :raises BadParameter: it is not.
    """
    compact = re.sub(r"\s", "", text).replace("-", "+").replace("_", "/")
    padded = compact + "=" * (-len(compact) % 4)
    try:
        size = len(base64.b64decode(padded, validate=True))
    except binascii.Error:
        raise BadParameter("Invalid parameter userdata: it must be base64.") from None
    most = MOST.number(session)
    if size > most:
        raise BadParameter(f"Invalid parameter userdata: it has {size} bytes, and {most} are allowed.")
    return padded


def _params(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def check_values(values: dict[str, str], registered: UserData | None) -> dict[str, str]:
    """Return the values for the variables of user data when they will do.

    :raises BadParameter: there is no registered user data, or no such variable in it.
    """
    if values and registered is None:
        raise BadParameter("Invalid parameter userdatadetails: it goes together with userdataid.")
    known = _params(registered.params if registered else None)
    for name, value in values.items():
        if name not in known:
            raise BadParameter(f"Invalid parameter userdatadetails: the user data has no variable {name}.")
        if not value.isprintable():
            raise BadParameter(f"Invalid parameter userdatadetails: the value of {name} must be one line of text.")
    return dict(values)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The user data of a machine: its text in base64, the registered row it is from, and its variables' values."""

    text: str | None = None
    row: UserData | None = None
    values: tuple[tuple[str, str], ...] = ()


def choose(ctx: Context, template: Template, text: str | None, row: UserData | None, values: dict[str, str]) -> Chosen:
    """Return what a machine of the template gets as user data.

    :param text: given with the command, in base64; ``row`` the registered one that it names, ``values`` its variables'.
    :raises BadParameter: both are given, or the template does not let them be.
    """
    if text is not None and row is not None:
        raise BadParameter("Invalid parameter userdata: it cannot go together with userdataid.")
    own = text if text is None else checked(ctx.session, text)
    linked = ctx.session.get(UserData, template.userdata_id) if template.userdata_id else None
    if linked is None:
        return Chosen(own or (row.data if row else None), row, tuple(check_values(values, row).items()))
    if own is None and row is None:
        return Chosen(linked.data, linked, tuple(check_values(values, linked).items()))
    if template.userdata_policy == "DENYOVERRIDE":
        raise BadParameter(f"Invalid parameter userdata: template {template.name} brings its own and allows no other.")
    given = own or (row.data if row else "")
    if template.userdata_policy == "APPEND":
        given = checked(ctx.session, appended(linked.data, given))
    return Chosen(given, row, tuple(check_values(values, row).items()))


def appended(first: str, second: str) -> str:
    """Return both as one multipart document, as cloud-init reads it; everything is base64."""
    parts = [base64.b64decode(part).decode("utf-8", "surrogateescape") for part in (first, second)]
    outer = MIMEMultipart(boundary="//")
    for number, part in enumerate(parts, 1):
        inner: Message = MIMEText(part, _kind(part), "utf-8")
        inner.add_header("Content-Disposition", "attachment", filename=f"part-{number:03}")
        outer.attach(inner)
    return base64.b64encode(outer.as_bytes()).decode()


def _kind(text: str) -> str:
    kinds = {"#!": "x-shellscript", "#cloud-config": "cloud-config", "## template: jinja": "jinja2"}
    kinds |= {"#include": "x-include-url", "#cloud-boothook": "cloud-boothook", "#part-handler": "part-handler"}
    return next((kind for start, kind in kinds.items() if text.startswith(start)), "plain")


dispatch.JOB_TABLES["UserData"] = UserData
