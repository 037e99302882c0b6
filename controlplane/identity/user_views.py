"""How users are shown: to whom their API key is shown, and never their secret key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from controlplane.api.caller import Role
from controlplane.api.context import Context
from controlplane.api.responses import Response
from controlplane.identity.accounts import Account
from controlplane.identity.privilege import covers
from controlplane.identity.roles import RoleRow
from controlplane.identity.users import User


@dataclass(kw_only=True)
class UserResponse(Response):
    """A user."""

    id: str
    username: str
    firstname: str
    lastname: str
    email: str
    created: datetime
    state: str
    account: str
    accountid: str
    accounttype: int
    domain: str
    domainid: str
    roleid: str
    rolename: str
    roletype: str
    usersource: str
    isdefault: bool
    is2faenabled: bool
    is2famandated: bool
    iscallerchilddomain: bool
    timezone: str | None = None
    apikey: str | None = None


def user_views(ctx: Context, rows: Sequence[User]) -> list[UserResponse]:
    """Show users; the API key only to the user itself and to admins whose role covers the user's."""
    numbers = {row.account_id for row in rows}
    query = select(Account).where(Account.id.in_(numbers)).options(joinedload(Account.role).selectinload(RoleRow.rules))
    accounts = {account.id: account for account in ctx.session.scalars(query)}
    roles = {account.role_id: account.role for account in accounts.values()}
    admin = ctx.caller.role in (Role.ADMIN, Role.DOMAIN_ADMIN)
    covered = {number for number, role in roles.items() if admin and covers(ctx.caller, role)}
    return [_user(ctx, row, accounts[row.account_id], covered) for row in rows]


def _user(ctx: Context, row: User, account: Account, covered: set[int]) -> UserResponse:
    domain, own = account.domain, row.id == ctx.caller.user_id
    below = domain.path.startswith(ctx.caller.domain_path) and domain.id != ctx.caller.domain_id
    return UserResponse(
        id=row.uuid,
        username=row.username,
        firstname=row.firstname,
        lastname=row.lastname,
        email=row.email,
        created=row.created,
        state=row.state,
        account=account.name,
        accountid=account.uuid,
        accounttype=account.type,
        domain=domain.name,
        domainid=domain.uuid,
        roleid=account.role.uuid,
        rolename=account.role.name,
        roletype=account.role.type,
        usersource="native",
        isdefault=row.default,
        is2faenabled=False,
        is2famandated=False,
        iscallerchilddomain=below,
        timezone=row.timezone,
        apikey=row.api_key if own or account.role_id in covered else None,
    )
