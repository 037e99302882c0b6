"""Privilege: nobody gains, gives or reaches more than they have.

A caller may act on an account, a user or a role only when its own role type is at least as high and it may itself
call everything that the other may: otherwise a domain admin could reset a root admin's password, read its keys, or
make itself one (CVE-2025-47713, CVE-2025-47849, CVE-2024-42062).
"""

from __future__ import annotations

from controlplane.api.caller import Caller, Role
from controlplane.api.command import REGISTRY
from controlplane.api.context import Context
from controlplane.errors import BadParameter, Forbidden
from controlplane.identity.accounts import Account
from controlplane.identity.roles import BELOW, RoleRow
from controlplane.identity.users import User

SYSTEM = "system"
"""The name of the account that the cloud itself acts as."""


def is_system(account: Account) -> bool:
    """Tell whether it is the account that the cloud itself acts as."""
    return account.default and account.name == SYSTEM


def covers(caller: Caller, role: RoleRow) -> bool:
    """Tell whether the caller has at least what this role gives."""
    kind = Role(role.type)
    if kind not in BELOW[caller.role]:
        return False
    other = Caller(0, 0, 0, "", kind, role.pairs())
    if (other.role, other.rules) == (caller.role, caller.rules):
        return True
    return all(caller.may(name, command.roles) for name, command in REGISTRY.items() if other.may(name, command.roles))


def require_role(ctx: Context, role: RoleRow) -> None:
    """Refuse a role that gives more than the caller has.

    :raises Forbidden: it does.
    """
    if not covers(ctx.caller, role):
        raise Forbidden(
            f"Role {role.name} allows more than your own role: you cannot give it or act on those who have it."
        )


def require_account(ctx: Context, account: Account) -> None:
    """Refuse to act on an account that the caller does not stand above.

    :raises Forbidden: the caller is no admin, or the account's role allows more than its own.
    """
    if is_system(account):
        raise Forbidden("The system account is the cloud's own: it cannot be changed.")
    if ctx.caller.role not in (Role.ADMIN, Role.DOMAIN_ADMIN):
        raise Forbidden("Only an admin may do this to an account.")
    require_role(ctx, account.role)


def require_user(ctx: Context, user: User) -> None:
    """Refuse to act on a user who is neither the caller nor below it.

    :raises Forbidden: it is somebody else's, or its role allows more than the caller's.
    """
    if user.id != ctx.caller.user_id:
        require_account(ctx, user.account)


def refuse_default(row: Account | User, verb: str) -> None:
    """Refuse to take away what every cloud needs: the default admin and the system account.

    :raises BadParameter: it is one of them.
    """
    if row.default:
        kind, name = ("Account", row.name) if isinstance(row, Account) else ("User", row.username)
        raise BadParameter(f"{kind} {name} is a default one, and can never be {verb}.")


def refuse_self(ctx: Context, account_id: int, verb: str) -> None:
    """Refuse to let callers lock themselves out.

    :raises BadParameter: it is the caller's own account.
    """
    if account_id == ctx.caller.account_id:
        raise BadParameter(f"Your own account cannot be {verb}: ask another admin to do it.")
