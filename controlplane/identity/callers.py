"""Callers: who a user is to the commands."""

from __future__ import annotations

from sqlalchemy.orm import Session

from controlplane.api import dispatch
from controlplane.api.caller import Caller, Role
from controlplane.identity.users import User

SYSTEM_RULES = (("*", True),)


def caller_of(session: Session, user_id: int) -> Caller:
    """Return what the user with this number is allowed, as a value."""
    user = session.get_one(User, user_id)
    account = user.account
    return Caller(
        user_id=user.id,
        account_id=account.id,
        domain_id=account.domain_id,
        domain_path=account.domain.path,
        role=Role(account.role.type),
        rules=tuple((rule.rule, rule.permission.lower() == "allow") for rule in account.role.rules),
    )


dispatch.CALLERS[:] = [caller_of]
