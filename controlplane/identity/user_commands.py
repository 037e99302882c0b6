"""The commands on users; their keys are in ``keys``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from controlplane.api import dispatch
from controlplane.api.caller import ADMINS, DOMAIN_ADMINS, EVERYONE, Role
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.db.base import now
from controlplane.errors import BadParameter, Forbidden
from controlplane.identity import names, passwords
from controlplane.identity.accounts import PROJECT, Account
from controlplane.identity.domain_commands import NO_ICONS
from controlplane.identity.domains import Domain
from controlplane.identity.keys import set_keys
from controlplane.identity.ownership import OwnedListing, account_named
from controlplane.identity.privilege import SYSTEM, refuse_default, require_account, require_user
from controlplane.identity.sessions import end_sessions, password_fits
from controlplane.identity.user_views import user_views
from controlplane.identity.users import User

STATES = ("enabled", "disabled", "locked")
PASSWORD_LENGTH = 1024
dispatch.JOB_TABLES["User"] = User


def refuse_taken_username(session: Session, domain_id: int, username: str, user: User | None = None) -> None:
    """Refuse a name that another user of the domain has.

    :raises BadParameter: one has it.
    """
    taken = select(User.id).where(
        User.domain_id == domain_id,
        User.username == username,
        User.removed.is_(None),
        User.id != (user.id if user else 0),
    )
    if session.scalar(taken) is not None:
        raise BadParameter(f"Invalid parameter username value={username}: the domain already has a user of this name.")


class NewUser(Command):
    """The parameters that a user is made with."""

    username: str = required(check=names.name)
    password: str = required(length=PASSWORD_LENGTH)
    firstname: str = required(check=names.text)
    lastname: str = required(check=names.text)
    email: str = required(check=names.text)
    domainid: Domain | None = optional(description="domain of the account; by default the caller's")
    timezone: str | None = optional(check=names.timezone)
    userid: str | None = optional(check=names.new_id, description="the UUID that it gets; a random one by default")

    def prepare(self, ctx: Context) -> None:
        """Hash the password, which takes long."""
        domain = self.domainid.id if self.domainid else ctx.caller.domain_id
        self.hashed = passwords.hashed(ctx.session, self.password, self.username, domain)

    def user_of(self, session: Session, account: Account) -> User:
        """Add the user to the account.

        :raises BadParameter: the domain has a user of this name, or another user has the id.
        """
        refuse_taken_username(session, account.domain_id, self.username)
        if self.userid and session.scalar(select(User.id).where(User.uuid == self.userid)):
            raise BadParameter(f"Invalid parameter userid value={self.userid}: another user has this id.")
        user = User(
            username=self.username,
            password=self.hashed,
            account_id=account.id,
            domain_id=account.domain_id,
            firstname=self.firstname,
            lastname=self.lastname,
            email=self.email,
            timezone=self.timezone,
            **({"uuid": self.userid} if self.userid else {}),
        )
        session.add(user)
        session.flush()
        return user


class CreateUser(NewUser, name="createUser", answer=one("user", user_views), roles=DOMAIN_ADMINS, event="USER.CREATE"):
    """Create a user for an account that exists."""

    account: str = required(description="name of the account")

    def run(self, ctx: Context) -> User:
        """Check that the caller stands above the account, and add the row."""
        account = account_named(ctx, self.account, self.domainid)
        require_account(ctx, account)
        return self.user_of(ctx.session, account)


class UpdateUser(
    Command,
    name="updateUser",
    answer=one("user", user_views),
    roles=EVERYONE,
    event="USER.UPDATE",
    unsupported=("apikeyaccess", "mandate2fa"),
):
    """Change a user: everybody their own, admins those below them."""

    id: User = required()
    username: str | None = optional(check=names.name)
    firstname: str | None = optional(check=names.text)
    lastname: str | None = optional(check=names.text)
    email: str | None = optional(check=names.text)
    timezone: str | None = optional(check=names.timezone)
    password: str | None = optional(length=PASSWORD_LENGTH)
    currentpassword: str | None = optional(length=PASSWORD_LENGTH, description="needed to change one's own password")
    userapikey: str | None = optional(admin=True, description="an API key of one's own making, with usersecretkey")
    usersecretkey: str | None = optional(admin=True)

    def prepare(self, ctx: Context) -> None:
        """Check and hash the passwords, which takes long."""
        user = self.id
        require_user(ctx, user)
        if self.password is None:
            return
        if self.currentpassword is not None:
            if not password_fits(user, self.currentpassword):
                raise BadParameter("Invalid parameter currentpassword: it is not the user's password.")
        elif user.id == ctx.caller.user_id and not ctx.caller.is_admin:
            raise BadParameter("Invalid parameter currentpassword: it is needed to change your own password.")
        self.hashed = passwords.hashed(ctx.session, self.password, self.username or user.username, user.domain_id)

    def run(self, ctx: Context) -> User:
        """Change what was given; a new password ends the user's sessions."""
        user = self.id
        require_user(ctx, user)
        if self.username is not None and self.username != user.username:
            refuse_default(user, "renamed")
            refuse_taken_username(ctx.session, user.domain_id, self.username, user)
            user.username = self.username
        for field in ("firstname", "lastname", "email", "timezone"):
            if getattr(self, field) is not None:
                setattr(user, field, getattr(self, field))
        if self.password is not None:
            user.password = self.hashed
            end_sessions(ctx.session, user.id)
        if self.userapikey is not None or self.usersecretkey is not None:
            set_keys(ctx.session, user, self.userapikey, self.usersecretkey)
        return user


class _UserState(Command):
    state = ""
    verb = ""
    id: User = required()

    def run(self, ctx: Context) -> User:
        """Set the state; the next request of the user meets it."""
        user = self.id
        require_user(ctx, user)
        if self.state != "enabled":
            refuse_default(user, self.verb)
            if user.id == ctx.caller.user_id:
                raise BadParameter(f"You cannot be {self.verb} by yourself: ask another admin to do it.")
            end_sessions(ctx.session, user.id)
        user.state, user.login_attempts = self.state, 0
        return user


class EnableUser(
    _UserState, name="enableUser", answer=one("user", user_views), roles=DOMAIN_ADMINS, event="USER.ENABLE"
):
    """Let a user in again."""

    state, verb = "enabled", "enabled"


class DisableUser(
    _UserState,
    name="disableUser",
    answer=one("user", user_views),
    roles=DOMAIN_ADMINS,
    event="USER.DISABLE",
    job=True,
    instance="User",
):
    """Keep a user out: neither its password nor its keys are accepted."""

    state, verb = "disabled", "disabled"


class LockUser(_UserState, name="lockUser", answer=one("user", user_views), roles=DOMAIN_ADMINS, event="USER.LOCK"):
    """Lock a user out until it is enabled again."""

    state, verb = "locked", "locked"


class DeleteUser(Command, name="deleteUser", answer=success(), roles=DOMAIN_ADMINS, event="USER.DELETE"):
    """Delete a user; its account stays, with all that it owns."""

    id: User = required()

    def run(self, ctx: Context) -> None:
        """Mark the row as removed."""
        user = self.id
        require_user(ctx, user)
        refuse_default(user, "deleted")
        if user.id == ctx.caller.user_id:
            raise BadParameter("You cannot be deleted by yourself: ask another admin to do it.")
        remove_user(ctx.session, user)


def remove_user(session: Session, user: User) -> None:
    """Mark a user as removed: its name is free again, its password and keys are gone."""
    end_sessions(session, user.id)
    user.removed, user.removed_key, user.state = now(), user.id, "disabled"
    user.password, user.api_key, user.secret_key = "!", None, None


class MoveUser(Command, name="moveUser", answer=success(), roles=ADMINS, event="USER.MOVE"):
    """Move a user to another account of the same domain."""

    id: User = required()
    account: str | None = optional(description="name of the account, in the user's domain")
    accountid: Account | None = optional()

    def run(self, ctx: Context) -> None:
        """Give the user its new account; its keys and password stay."""
        user = self.id
        require_user(ctx, user)
        refuse_default(user, "moved")
        if (self.account is None) == (self.accountid is None):
            raise BadParameter("Invalid parameter accountid: give either account or accountid.")
        target = self.accountid or account_named(ctx, self.account or "", user.account.domain)
        require_account(ctx, target)
        if target.type == PROJECT or target.domain_id != user.domain_id:
            raise BadParameter(
                f"Invalid parameter accountid value={target.uuid}: it must be an account of the user's domain, "
                f"{user.account.domain.name_path}."
            )
        user.account_id, user.account = target.id, target


class ListUsers(
    OwnedListing, name="listUsers", answer=many("user", user_views), unsupported=("apikeyaccess",), roles=EVERYONE
):
    """List users: admins those of their realm, users themselves."""

    table = User
    keywords = (User.username, User.firstname, User.lastname, User.email)
    projectid = tags = None

    id: User | None = matching(User.id)
    username: str | None = matching(User.username)
    state: str | None = matching(User.state)
    accounttype: int | None = matching(Account.type)
    usersource: str | None = optional(description="where users come from; all are native")
    showicon: bool | None = optional(description=NO_ICONS)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Leave out the system's user; a user without an admin's role sees itself only."""
        query = query.join(Account, User.account_id == Account.id)
        query = query.where(~((Account.name == SYSTEM) & Account.default))
        if self.usersource is not None and self.usersource.lower() != "native":
            query = query.where(User.id == 0)
        if ctx.caller.role is Role.USER:
            if self.id is not None and self.id.id != ctx.caller.user_id:
                raise Forbidden("Only an admin may see other users.")
            query = query.where(User.id == ctx.caller.user_id)
        return query


class GetUser(Command, name="getUser", answer=one("user", user_views), roles=ADMINS):
    """Find the user that an API key belongs to."""

    writes = False
    userapikey: str = required()

    def run(self, ctx: Context) -> User:
        """Return the user.

        :raises BadParameter: no user has the key.
        """
        user = ctx.session.scalar(select(User).where(User.api_key == self.userapikey, User.removed.is_(None)))
        if user is None:
            raise BadParameter("Invalid parameter userapikey: no user has this key.")
        return user
