"""Authentication: who sends a request, by its session or by its signature."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import cast

from sqlalchemy import Table, bindparam, select
from sqlalchemy.orm import Session

from controlplane.api.caller import Caller
from controlplane.api.signature import has_expired, is_signed
from controlplane.api.visit import KEY_COOKIE, SESSION_COOKIE, Visit
from controlplane.db.base import now
from controlplane.db.session import Database
from controlplane.errors import Unauthenticated
from controlplane.identity.accounts import Account
from controlplane.identity.callers import caller_of
from controlplane.identity.sessions import (
    ENABLED,
    RENEWAL,
    LoginSession,
    digest_of,
    end_session,
    live_session,
    may_enter,
    renew_session,
)
from controlplane.identity.users import User

_user, _account = (cast("Table", table.__table__).c for table in (User, Account))
_SIGNER = (  # built once: it is asked for every signed request
    select(_user.id, _user.secret_key)
    .join_from(_user.id.table, _account.id.table, _user.account_id == _account.id)
    .where(_user.api_key == bindparam("key"))
    .where(*(both for part in (_user, _account) for both in (part.state == ENABLED, part.removed.is_(None))))
)
UNVERIFIED = "Unable to verify user credentials and/or request signature: check the keys, the signature and its expiry."


class Authentication:
    """Says who calls, from the rows as they are now."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def caller(self, visit: Visit, parameters: Mapping[str, str]) -> Caller:
        """Return who sends the request: the user of its live session, or else of its signature.

        :param parameters: as received, names in their own case.
        :raises Unauthenticated: neither is good, or another site's page sent it; a session whose key does not fit has
            ended then.
        """
        moment, cookie = now(), visit.cookies.get(SESSION_COOKIE, "")
        with self.database.read() as session:
            row = live_session(session, cookie, moment)
            caller = _by_session(session, row, visit, parameters) if row else _by_signature(session, parameters, moment)
        if row is None and caller is None:
            raise Unauthenticated(UNVERIFIED)
        if caller is None:
            with self.database.write() as session:
                end_session(session, cookie)
            raise Unauthenticated("The session key does not fit the session, which has ended: log in again.")
        if row is not None and moment - row.seen > RENEWAL:
            with self.database.write() as session:
                renew_session(session, cookie, moment)
        return caller

    def system(self) -> Caller:
        """Return the system account's user, who calls on the integration port."""
        with self.database.read() as session:
            query = select(User.id).join(Account, User.account_id == Account.id)
            return caller_of(session, session.scalars(query.where(Account.name == "system", Account.default)).one())


def _by_session(session: Session, row: LoginSession, visit: Visit, parameters: Mapping[str, str]) -> Caller | None:
    shown = [value for name, value in parameters.items() if name.lower() == KEY_COOKIE]
    if not shown and visit.from_elsewhere:  # another site's page can make a browser send cookies, but knows no key
        raise Unauthenticated("A page of another site sent this without the session key: the session is left alone.")
    shown += [visit.cookies[KEY_COOKIE]] if KEY_COOKIE in visit.cookies else []
    fits = bool(shown) and all(hmac.compare_digest(digest_of(key), row.key) for key in shown)
    user = session.get(User, row.user_id) if fits else None
    return caller_of(session, user.id) if user is not None and may_enter(user) else None


def _by_signature(session: Session, parameters: Mapping[str, str], moment: datetime) -> Caller | None:
    key = next((value for name, value in parameters.items() if name.lower() == "apikey"), "")
    user = session.execute(_SIGNER, {"key": key}).first() if key else None
    secret = user.secret_key if user is not None and user.secret_key else ""
    signed = is_signed(secret, parameters)  # also without a user, so that the answer's time says nothing about keys
    if user is None or not secret or not signed or has_expired(parameters, moment):
        return None
    return caller_of(session, user.id)
