"""Callers: who a user is to the commands."""

from __future__ import annotations

from typing import cast

from sqlalchemy import Table, bindparam, select
from sqlalchemy.orm import Session

from controlplane.api import dispatch
from controlplane.api.caller import Caller, Role
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.roles import ENABLED, RolePermission, RoleRow
from controlplane.identity.users import User

_user, _account, _domain, _role, _rule = (
    cast("Table", table.__table__).c for table in (User, Account, Domain, RoleRow, RolePermission)
)
_CALLER = (  # built once: it is asked for every request
    select(_user.id, _user.account_id, _account.domain_id, _domain.path, _account.role_id, _role.type, _role.state)
    .join_from(_user.id.table, _account.id.table, _user.account_id == _account.id)
    .join(_domain.id.table, _account.domain_id == _domain.id)
    .join(_role.id.table, _account.role_id == _role.id)
    .where(_user.id == bindparam("user"))
)
_RULES = select(_rule.rule, _rule.permission).where(_rule.role_id == bindparam("role")).order_by(_rule.position)


def caller_of(session: Session, user_id: int) -> Caller:
    """Return what the user with this number is allowed, as a value; who has a disabled role may call nothing."""
    session.flush()
    user, account, domain, path, role, kind, state = session.execute(_CALLER, {"user": user_id}).one()
    rules: tuple[tuple[str, bool], ...] = (("*", False),)
    if state == ENABLED:
        found = session.execute(_RULES, {"role": role})
        rules = tuple((pattern, permission == "allow") for pattern, permission in found)
    return Caller(user_id=user, account_id=account, domain_id=domain, domain_path=path, role=Role(kind), rules=rules)


dispatch.CALLERS[:] = [caller_of]
