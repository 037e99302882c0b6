"""How accounts are shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.api.context import Context
from controlplane.identity.accounts import Account
from controlplane.identity.quotas import QuotaResponse, quota_fields
from controlplane.identity.roles import RoleRow
from controlplane.identity.user_views import UserResponse, user_views
from controlplane.identity.users import User


@dataclass(kw_only=True)
class AccountResponse(QuotaResponse):
    """An account, with its users and with what it has and may have."""

    id: str
    name: str
    accounttype: int
    roleid: str
    rolename: str
    roletype: str
    domain: str
    domainid: str
    domainpath: str
    state: str
    created: datetime
    isdefault: bool
    iscleanuprequired: bool
    networkdomain: str | None = None
    accountdetails: dict[str, str] | None = None
    vmrunning: int | None = None
    vmstopped: int | None = None
    user: list[UserResponse] = field(default_factory=list)


def account_views(ctx: Context, rows: Sequence[Account]) -> list[AccountResponse]:
    """Show accounts."""
    numbers = [row.id for row in rows]
    members = ctx.session.scalars(
        select(User).where(User.account_id.in_(numbers), User.removed.is_(None)).order_by(User.id)
    ).all()
    shown = dict(zip((user.id for user in members), user_views(ctx, members), strict=True))
    users: dict[int, list[UserResponse]] = defaultdict(list)
    for user in members:
        users[user.account_id].append(shown[user.id])
    roles = {
        role.id: role
        for role in ctx.session.scalars(select(RoleRow).where(RoleRow.id.in_({row.role_id for row in rows})))
    }
    quotas, machines = quota_fields(ctx.session, rows), _machines(ctx.session, numbers)
    return [
        AccountResponse(
            id=row.uuid,
            name=row.name,
            accounttype=row.type,
            roleid=roles[row.role_id].uuid,
            rolename=roles[row.role_id].name,
            roletype=roles[row.role_id].type,
            domain=row.domain.name,
            domainid=row.domain.uuid,
            domainpath=row.domain.name_path,
            state=row.state,
            created=row.created,
            isdefault=row.default,
            iscleanuprequired=row.cleanup_required,
            networkdomain=row.network_domain,
            accountdetails=row.details or None,
            vmrunning=machines.get((row.id, True), 0),
            vmstopped=machines.get((row.id, False), 0),
            user=users[row.id],
            **quotas[row.id],
        )
        for row in rows
    ]


def _machines(session: Session, accounts: Sequence[int]) -> dict[tuple[int, bool], int]:
    from controlplane.compute.virtual_machines import VirtualMachine

    running = VirtualMachine.state == "Running"
    query = (
        select(VirtualMachine.account_id, running, func.count())
        .where(
            VirtualMachine.account_id.in_(accounts),
            VirtualMachine.removed.is_(None),
            VirtualMachine.state.in_(("Running", "Stopped")),
        )
        .group_by(VirtualMachine.account_id, running)
    )
    return {(account, bool(up)): count for account, up, count in session.execute(query)}
