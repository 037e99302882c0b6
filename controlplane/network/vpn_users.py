"""VPN users: who may dial into the remote access VPNs of an account."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import String, UniqueConstraint, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import Uuid, matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Created, Owned, Row
from controlplane.db.configuration import define
from controlplane.db.secrets import Secret
from controlplane.errors import BadParameter, LimitReached
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import REST, OwnedListing, on_account_removed, owner_fields, owner_of_new
from controlplane.reconcile.targets import Target

LIMIT = define("remote.access.vpn.user.limit", 8, "How many VPN users an account may have", within=(1, 1000))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._-]{2,63}", re.ASCII)
_PASSWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9@+=._-]{2,31}", re.ASCII)


class VpnUser(Created, Owned, Row):
    """A VPN user (addVpnUser). It is known to every remote access VPN of its account."""

    __tablename__ = "vpn_users"
    __table_args__ = (UniqueConstraint("account_id", "username"),)

    username: Mapped[str] = mapped_column(String(64))
    password: Mapped[str] = mapped_column(Secret)

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its account's remote access VPNs."""
        from controlplane.network.remote_access import targets_of_account

        return targets_of_account(session, self.account_id)


dispatch.JOB_TABLES["VpnUser"] = VpnUser


@dataclass(kw_only=True)
class VpnUserResponse(Response):
    """A VPN user; its password is never shown."""

    id: str
    username: str
    state: str = "Active"
    account: str
    domain: str
    domainid: str
    domainpath: str


def vpn_user_views(ctx: Context, rows: Sequence[VpnUser]) -> list[VpnUserResponse]:
    """Show VPN users."""
    owners = owner_fields(ctx, rows)
    return [VpnUserResponse(id=row.uuid, username=row.username, **owners[row.account_id]) for row in rows]


def _username(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("it must begin with a letter or digit and have 3 to 64 letters, digits and @._-")
    return text


def _password(text: str) -> str:
    if not _PASSWORD.fullmatch(text):
        # the dispatcher's sentence shows the value, and a password is not to be shown
        raise BadParameter(
            "Invalid parameter password: it must begin with a letter or digit and have 3 to 32 letters, digits "
            "and @+=._-."
        )
    return text


class AddVpnUser(Command, name="addVpnUser", answer=one("vpnuser", vpn_user_views), job=True, creates=True,
                 instance="VpnUser", roles=EVERYONE, event="VPN.USER.ADD"):  # fmt: skip
    """Let somebody dial into the account's remote access VPNs."""

    password: str = required(check=_password)
    username: str = required(check=_username)
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()

    def run(self, ctx: Context) -> VpnUser:
        """Check, and keep the user."""
        owner = owner_of_new(ctx, self.account, self.domainid, self.projectid)
        theirs = VpnUser.account_id == owner.id
        if ctx.session.scalar(select(VpnUser.id).where(theirs, VpnUser.username == self.username)):
            raise BadParameter(
                f"Invalid parameter username value={self.username}: account {owner.name} has this VPN user already."
            )
        most = LIMIT.number(ctx.session)
        if (ctx.session.scalar(select(func.count(VpnUser.id)).where(theirs)) or 0) >= most:
            raise LimitReached(
                f"Account {owner.name} has {most} VPN users, the most that remote.access.vpn.user.limit allows."
            )
        row = VpnUser(account_id=owner.id, domain_id=owner.domain_id, username=self.username, password=self.password)
        ctx.session.add(row)
        ctx.touch(row)
        return row


class RemoveVpnUser(Command, name="removeVpnUser", answer=success(), job=True, instance="VpnUser", roles=EVERYONE,
                    event="VPN.USER.REMOVE"):  # fmt: skip
    """Remove a VPN user; it is cut off at once."""

    username: str = required()
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()

    def run(self, ctx: Context) -> None:
        """Find it among the account's users, and remove it."""
        owner = owner_of_new(ctx, self.account, self.domainid, self.projectid)
        mine = VpnUser.account_id == owner.id, VpnUser.username == self.username
        row = ctx.session.scalar(select(VpnUser).where(*mine))
        if row is None:
            raise BadParameter(
                f"Invalid parameter username value={self.username}: account {owner.name} has no such VPN user."
            )
        ctx.instance = row
        ctx.touch(row)
        ctx.session.delete(row)


class ListVpnUsers(OwnedListing, name="listVpnUsers", answer=many("vpnuser", vpn_user_views), roles=EVERYONE):
    """List VPN users."""

    table = VpnUser
    keywords = (VpnUser.username,)
    tags = None

    id: VpnUser | None = matching(VpnUser.id)
    username: str | None = matching(VpnUser.username)


def remove_users(session: Session, account: Account) -> list[Target]:
    """Remove the VPN users of a removed account."""
    for row in session.scalars(select(VpnUser).where(VpnUser.account_id == account.id)).all():
        session.delete(row)
    return []


on_account_removed(remove_users, REST)
