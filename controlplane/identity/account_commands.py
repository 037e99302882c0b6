"""The commands on accounts; deleteAccount is in ``removal``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from controlplane.api import dispatch
from controlplane.api.caller import ACCOUNT_TYPES, DOMAIN_ADMINS, EVERYONE, Role
from controlplane.api.command import Command, many, one
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, optional, required
from controlplane.errors import BadParameter
from controlplane.identity import names, ownership
from controlplane.identity.account_views import account_views
from controlplane.identity.accounts import PROJECT, Account
from controlplane.identity.domain_commands import NO_ICONS, refuse_inactive
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import account_named
from controlplane.identity.privilege import SYSTEM, refuse_default, refuse_self, require_account, require_role
from controlplane.identity.roles import RoleRow
from controlplane.identity.sessions import end_sessions
from controlplane.identity.user_commands import STATES, NewUser
from controlplane.identity.users import User

dispatch.JOB_TABLES["Account"] = Account


def details(value: dict[str, str]) -> dict[str, str]:
    """Check a map of details.

    :raises ValueError: a key or value holds a control character.
    """
    return {names.name(key): names.text(item) for key, item in value.items()}


class CreateAccount(
    NewUser, name="createAccount", answer=one("account", account_views), roles=DOMAIN_ADMINS, event="ACCOUNT.CREATE"
):
    """Create an account with its first user."""

    account: str | None = optional(check=names.name, description="its name; by default the username")
    accounttype: int | None = optional(description="0 user, 1 root admin, 2 domain admin; or give roleid")
    roleid: RoleRow | None = optional(description="the role of its users")
    networkdomain: str | None = optional(check=names.dns_domain, description="DNS domain of its guests")
    accountdetails: dict[str, str] | None = optional(check=details)
    accountid: str | None = optional(check=names.new_id, description="the UUID that it gets; a random one by default")

    def run(self, ctx: Context) -> Account:
        """Add both rows."""
        domain = self.domainid or ctx.session.get_one(Domain, ctx.caller.domain_id)
        refuse_inactive(domain)
        role = self._role(ctx)
        require_role(ctx, role)
        name = self.account or self.username
        refuse_taken(ctx.session, domain.id, name)
        if self.accountid and ctx.session.scalar(select(Account.id).where(Account.uuid == self.accountid)):
            raise BadParameter(f"Invalid parameter accountid value={self.accountid}: another account has this id.")
        row = Account(
            name=name,
            type=ACCOUNT_TYPES[Role(role.type)],
            domain_id=domain.id,
            role_id=role.id,
            network_domain=self.networkdomain or None,
            details=self.accountdetails or {},
        )
        if self.accountid:
            row.uuid = self.accountid
        ctx.session.add(row)
        ctx.session.flush()
        self.user_of(ctx.session, row)
        ownership.equip(ctx.session, row)
        return row

    def _role(self, ctx: Context) -> RoleRow:
        if self.roleid is not None:
            kind = ACCOUNT_TYPES[Role(self.roleid.type)]
            if self.accounttype not in (None, kind):
                raise BadParameter(
                    f"Invalid parameter accounttype value={self.accounttype}: "
                    f"role {self.roleid.name} is of type {kind}."
                )
            return self.roleid
        if self.accounttype is None:
            raise BadParameter("Invalid parameter roleid: give roleid, or accounttype for the default role of a type.")
        kinds = {number: role for role, number in ACCOUNT_TYPES.items()}
        if self.accounttype not in kinds:
            raise BadParameter(
                f"Invalid parameter accounttype value={self.accounttype}: 0 is a user, 1 a root admin, "
                "2 a domain admin, 3 a resource admin."
            )
        default = select(RoleRow).where(RoleRow.type == kinds[self.accounttype].value, RoleRow.is_default)
        return ctx.session.scalars(default.order_by(RoleRow.id)).first() or _no_role(self.accounttype)


def _no_role(number: int) -> RoleRow:
    raise BadParameter(f"Invalid parameter accounttype value={number}: it has no default role, so give roleid.")


def refuse_taken(session: Session, domain_id: int, name: str, row: Account | None = None) -> None:
    """Refuse a name that another account of the domain has, in any case of letters.

    :raises BadParameter: one has it.
    """
    taken = select(Account.id).where(
        Account.domain_id == domain_id,
        func.lower(Account.name) == name.lower(),
        Account.removed.is_(None),
        Account.id != (row.id if row else 0),
    )
    if session.scalar(taken) is not None:
        raise BadParameter(f"Invalid parameter account value={name}: the domain already has an account of this name.")


class _OneAccount(Command):
    """A command on an account that is given by its id, or by its name and domain."""

    id: Account | None = optional()
    account: str | None = optional(description="name of the account, with domainid; or give id")
    domainid: Domain | None = optional(description="domain of the account; by default the caller's")

    def found(self, ctx: Context) -> Account:
        """Return the account, which the caller stands above.

        :raises BadParameter: it is given in no way or in both.
        """
        if (self.id is None) == (self.account is None):
            raise BadParameter("Invalid parameter id: give either id, or account and domainid.")
        row = self.id or account_named(ctx, self.account or "", self.domainid)
        require_account(ctx, row)
        return row


class UpdateAccount(
    _OneAccount,
    name="updateAccount",
    answer=one("account", account_views),
    roles=DOMAIN_ADMINS,
    event="ACCOUNT.UPDATE",
    unsupported=("apikeyaccess",),
):
    """Change an account's name, role, details, or the DNS domain of its guests."""

    newname: str | None = optional(check=names.name)
    networkdomain: str | None = optional(check=names.dns_domain, description="empty takes it away")
    accountdetails: dict[str, str] | None = optional(check=details)
    roleid: RoleRow | None = optional()

    def run(self, ctx: Context) -> Account:
        """Change what was given; a new role is in force with the next request of each user."""
        row = self.found(ctx)
        if self.newname is not None and self.newname != row.name:
            refuse_default(row, "renamed")
            refuse_taken(ctx.session, row.domain_id, self.newname, row)
            row.name = self.newname
        if self.networkdomain is not None:
            row.network_domain = self.networkdomain or None
        if self.accountdetails is not None:
            row.details = self.accountdetails
        if self.roleid is not None and self.roleid.id != row.role_id:
            refuse_default(row, "given another role")
            refuse_self(ctx, row.id, "given another role")
            require_role(ctx, self.roleid)
            row.role_id, row.role = self.roleid.id, self.roleid
            row.type = ACCOUNT_TYPES[Role(self.roleid.type)]
        return row


def shut_out(ctx: Context, row: Account, state: str) -> Account:
    """Disable or lock an account: from now on none of its users comes in."""
    refuse_default(row, state)
    refuse_self(ctx, row.id, state)
    row.state = state
    for user in ctx.session.scalars(select(User.id).where(User.account_id == row.id)):
        end_sessions(ctx.session, user)
    return row


class DisableAccount(
    _OneAccount,
    name="disableAccount",
    answer=one("account", account_views),
    roles=DOMAIN_ADMINS,
    event="ACCOUNT.DISABLE",
    job=True,
    instance="Account",
):
    """Disable an account and stop what it runs; or only lock it."""

    lock: bool = required(description="true: only keep its users out, what it runs goes on")

    def run(self, ctx: Context) -> Account:
        """Set the state, and let each room stop what is its."""
        row = shut_out(ctx, self.found(ctx), "locked" if self.lock else "disabled")
        if not self.lock:
            ctx.touched.extend(ownership.stop_all(ctx.session, row))
        return row


class EnableAccount(
    _OneAccount,
    name="enableAccount",
    answer=one("account", account_views),
    roles=DOMAIN_ADMINS,
    event="ACCOUNT.ENABLE",
):
    """Let an account's users in again; what was stopped stays so until somebody starts it."""

    def run(self, ctx: Context) -> Account:
        """Set the state.

        :raises BadParameter: it is being deleted.
        """
        row = self.found(ctx)
        if row.cleanup_required:
            raise BadParameter(f"Account {row.name} is being deleted: it cannot be enabled.")
        row.state = "enabled"
        return row


class LockAccount(
    Command, name="lockAccount", answer=one("account", account_views), roles=DOMAIN_ADMINS, event="ACCOUNT.LOCK"
):
    """Keep an account's users out; what it runs goes on."""

    account: str = required()
    domainid: Domain = required()

    def run(self, ctx: Context) -> Account:
        """Set the state."""
        row = account_named(ctx, self.account, self.domainid)
        require_account(ctx, row)
        return shut_out(ctx, row, "locked")


class ListAccounts(
    ListCommand,
    name="listAccounts",
    answer=many("account", account_views),
    roles=EVERYONE,
    unsupported=("apikeyaccess", "tag"),
):
    """List accounts: the caller's own; an admin's realm with listall; a domain's with domainid."""

    table = Account
    keywords = (Account.name,)

    id: Account | None = matching(Account.id)
    name: str | None = matching(Account.name)
    accounttype: int | None = matching(Account.type)
    state: str | None = matching(Account.state, choices=STATES)
    iscleanuprequired: bool | None = matching(Account.cleanup_required)
    domainid: Domain | None = optional()
    isrecursive: bool | None = optional(False, description="with domainid: the domain's whole tree")
    listall: bool | None = optional(False)
    details: list[str] | None = optional(description="accepted: all groups of fields are shown")
    showicon: bool | None = optional(description=NO_ICONS)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Follow CloudStack's rules of whose accounts are listed."""
        query = query.where(Account.type != PROJECT, ~((Account.name == SYSTEM) & Account.default))
        if self.id is not None:
            return query
        admin, domain = ctx.caller.role in (Role.ADMIN, Role.DOMAIN_ADMIN), self.domainid
        if admin and (self.listall or domain is not None):
            top = domain or ctx.session.get_one(Domain, ctx.caller.domain_id)
            if not self.listall and not self.isrecursive:
                return query.where(Account.domain_id == top.id)
            tree = select(Domain.id).where(Domain.path.startswith(top.path, autoescape=True))
            return query.where(Account.domain_id.in_(tree))
        return query.where(Account.id == ctx.caller.account_id)
