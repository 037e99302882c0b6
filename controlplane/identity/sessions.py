"""Sessions: a user logs in with a password and is known by a cookie until the logout or a long pause (login, logout).

A session is a row, so that a logout is in force at once, for every process. The cookie and the session key are kept as
digests: whoever reads the database cannot act as anybody.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pwdlib.exceptions import UnknownHashError
from sqlalchemy import ForeignKey, String, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, flat
from controlplane.api.context import Context
from controlplane.api.parameters import Uuid, optional, required
from controlplane.api.responses import Response
from controlplane.api.visit import KEY_COOKIE, SESSION_COOKIE
from controlplane.db.base import Base, now
from controlplane.db.configuration import define
from controlplane.errors import LoginFailed
from controlplane.identity.accounts import Account
from controlplane.identity.callers import caller_of
from controlplane.identity.domains import Domain
from controlplane.identity.seed import passwords
from controlplane.identity.users import User

log = logging.getLogger(__name__)
TIMEOUT = define(
    "session.timeout", 1800, "Seconds after which a session that is not used ends", category="Access", within=(60, None)
)
ATTEMPTS = define(
    "incorrect.login.attempts.allowed",
    5,
    "Wrong passwords in a row after which a user is disabled; 0 is any number",
    category="Access",
    within=(0, None),
)
PAUSE = timedelta(minutes=1)
"""How long the first admin, whom nobody could enable again, is not let in instead of being disabled."""
RENEWAL = timedelta(seconds=10)
"""How often the use of a session is written down: each time costs a commit."""
ENABLED = "enabled"
_hashing = threading.BoundedSemaphore(2)  # each check takes 64 MiB for a moment: a burst of logins must not take it all


class LoginSession(Base):
    """One session.

    :ivar token: SHA-256 of the session cookie, ``key`` of the session key.
    :ivar seen: when it was last used, to within a part of the time-out.
    """

    __tablename__ = "login_sessions"

    token: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    address: Mapped[str] = mapped_column(String(64), default="")
    created: Mapped[datetime] = mapped_column(default=now)
    seen: Mapped[datetime] = mapped_column(default=now, index=True)


def digest_of(token: str) -> str:
    """Return the form in which a cookie or a session key is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def live_session(session: Session, cookie: str, moment: datetime) -> LoginSession | None:
    """Return the session of this cookie, unless it ended or was not used for too long."""
    if not cookie:
        return None
    row = session.get(LoginSession, digest_of(cookie))
    idle = timedelta(seconds=TIMEOUT.number(session))
    return row if row is not None and row.seen + idle > moment else None


def renew_session(session: Session, cookie: str, moment: datetime) -> None:
    """Take note that the session has been used."""
    used = update(LoginSession).where(LoginSession.token == digest_of(cookie))
    session.execute(used.values(seen=moment))


def end_session(session: Session, cookie: str) -> None:
    """End the session of this cookie, if there is one."""
    session.execute(delete(LoginSession).where(LoginSession.token == digest_of(cookie)))


def end_sessions(session: Session, user_id: int) -> None:
    """End every session of the user: its password changed, or it may no longer log in."""
    session.execute(delete(LoginSession).where(LoginSession.user_id == user_id))


def password_fits(user: User | None, password: str) -> bool:
    """Check a password; without a user it takes just as long."""
    with _hashing:
        try:
            right = passwords.verify(password, user.password if user else _nobodys_hash())
        except UnknownHashError:  # a user who cannot log in has no hash
            passwords.verify(password, _nobodys_hash())
            return False
    return right and user is not None


@cache
def _nobodys_hash() -> str:
    return passwords.hash(secrets.token_urlsafe())


@dataclass(kw_only=True)
class LoginResponse(Response):
    """Who has logged in, and the key of the session; several flags are strings, as clients expect them."""

    username: str
    userid: str
    domainid: str
    timeout: int
    account: str
    firstname: str
    lastname: str
    type: str
    timezone: str
    timezoneoffset: str
    registered: str = "false"
    sessionkey: str
    is2faenabled: str = "false"
    is2faverified: str = "true"
    issuerfor2fa: str = "CloudStack"


class Login(
    Command,
    name="login",
    answer=flat(LoginResponse),
    roles=EVERYONE,
    authenticated=False,
    post=True,
    event="USER.LOGIN",
):
    """Begin a session with a username and a password."""

    username: str = required()
    password: str = required(length=1024)
    domain: str | None = optional(length=1024, description="path of the user's domain below ROOT; ROOT when left out")
    domainid: Uuid | None = optional(description="id of the user's domain, instead of its path")

    def prepare(self, ctx: Context) -> None:
        """Check the password, which takes long, while nobody is kept from writing."""
        user = self._user(ctx.session)
        self.fits = password_fits(user, self.password)
        if user is None or not may_enter(user) or _must_wait(ctx, user):
            raise self._failed()
        self.user_id = user.id

    def run(self, ctx: Context) -> LoginResponse | None:
        """Drop the session that came along, and begin a fresh one; a wrong password is counted."""
        user = ctx.session.get_one(User, self.user_id)
        if not self.fits:
            count_wrong_password(ctx, user)
            ctx.refusal = self._failed()
            return None
        user.login_attempts = 0
        ctx.caller = caller_of(ctx.session, user.id)
        timeout = TIMEOUT.number(ctx.session)
        end_session(ctx.session, ctx.visit.cookies.get(SESSION_COOKIE, ""))
        ctx.session.execute(delete(LoginSession).where(LoginSession.seen < ctx.now - timedelta(seconds=timeout)))
        cookie, key = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        address = ctx.visit.address[:64]
        ctx.session.add(
            LoginSession(token=digest_of(cookie), key=digest_of(key), user_id=user.id, address=address, seen=ctx.now)
        )
        ctx.visit.leaving |= {SESSION_COOKIE: cookie, KEY_COOKIE: key}
        zone, offset = _timezone(user.timezone, ctx.now)
        return LoginResponse(
            username=user.username,
            userid=user.uuid,
            domainid=user.account.domain.uuid,
            timeout=timeout,
            account=user.account.name,
            firstname=user.firstname,
            lastname=user.lastname,
            type=str(user.account.type),
            timezone=zone,
            timezoneoffset=offset,
            sessionkey=key,
        )

    def _failed(self) -> LoginFailed:
        return LoginFailed(f"Failed to log user {self.username} in: wrong password or domain, or not enabled.")

    def _user(self, session: Session) -> User | None:
        query = select(User).join(Account, User.account_id == Account.id).join(Domain, Account.domain_id == Domain.id)
        query = query.where(User.username == self.username, User.removed.is_(None))
        if self.domainid is not None:
            return session.scalar(query.where(Domain.uuid == self.domainid.lower()))
        below = [part for part in (self.domain or "").split("/") if part]
        below = below[1:] if below and below[0].upper() == "ROOT" else below
        return session.scalar(query.where(func.lower(Domain.name_path) == "/".join(["ROOT", *below]).lower()))


@dataclass(kw_only=True)
class LogoutResponse(Response):
    """That the session has ended."""

    description: str


class Logout(
    Command, name="logout", answer=flat(LogoutResponse), roles=EVERYONE, authenticated=False, event="USER.LOGOUT"
):
    """End the session, if there is one."""

    def run(self, ctx: Context) -> LogoutResponse:
        """Delete the row, so that the cookie is worth nothing at once."""
        cookie = ctx.visit.cookies.get(SESSION_COOKIE, "")
        row = live_session(ctx.session, cookie, ctx.now)
        if row is not None:
            ctx.caller = caller_of(ctx.session, row.user_id)
        end_session(ctx.session, cookie)
        ctx.visit.leaving |= {SESSION_COOKIE: "", KEY_COOKIE: ""}
        return LogoutResponse(description="success")


def count_wrong_password(ctx: Context, user: User) -> None:
    """Count a wrong password, and disable the user whose password is being guessed."""
    user.login_attempts, user.login_failed = user.login_attempts + 1, ctx.now
    most = ATTEMPTS.number(ctx.session)
    if most and user.login_attempts >= most and not user.default:
        log.warning("User %s is disabled after %s wrong passwords", user.uuid, user.login_attempts)
        user.state = "disabled"


def _must_wait(ctx: Context, user: User) -> bool:
    most = ATTEMPTS.number(ctx.session)
    tried = user.default and most and user.login_attempts >= most
    return bool(tried and user.login_failed and ctx.now - user.login_failed < PAUSE)


def may_enter(user: User) -> bool:
    """Tell whether the user and its account are enabled and still there."""
    account = user.account
    return user.state == account.state == ENABLED and user.removed is None and account.removed is None


def _timezone(name: str | None, moment: datetime) -> tuple[str, str]:
    try:
        offset = moment.astimezone(ZoneInfo(name or "UTC")).utcoffset()
    except (ZoneInfoNotFoundError, ValueError):
        return name or "UTC", "0.0"
    return name or "UTC", str((offset or timedelta()).total_seconds() / 3600)
