"""Callers: who a user is to the commands."""

from __future__ import annotations

from sqlalchemy.orm import Session

from controlplane.api import dispatch
from controlplane.api.caller import Caller, Role
from controlplane.identity.roles import ENABLED
from controlplane.identity.users import User


def caller_of(session: Session, user_id: int) -> Caller:
    """Return what the user with this number is allowed, as a value; who has a disabled role may call nothing."""
    user = session.get_one(User, user_id)
    account = user.account
    return Caller(
        user_id=user.id,
        account_id=account.id,
        domain_id=account.domain_id,
        domain_path=account.domain.path,
        role=Role(account.role.type),
        rules=account.role.pairs() if account.role.state == ENABLED else (("*", False),),
    )


dispatch.CALLERS[:] = [caller_of]
