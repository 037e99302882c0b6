"""Removal: how an account or a domain goes, with all that it owns.

Each room says once what it does with what an account owns (``ownership``)::

    on_account_removed(remove_machines, MACHINES)  # (session, account) → the targets it touched

The rooms are asked in the order of their stages; after each, the targets that it touched are waited for, so that a
machine is gone before its network, and a network before its addresses. What a room does may be done again: a removal
that failed is repeated until nothing is left. The account's row goes last, and only when no row of any room still names
it as its owner: nothing is left behind that nobody can reach.
"""

from __future__ import annotations

from sqlalchemy import func, inspect, select
from sqlalchemy.orm import Session

from controlplane.api.caller import DOMAIN_ADMINS
from controlplane.api.command import Command, success
from controlplane.api.context import Context, entity_name
from controlplane.api.parameters import optional, required
from controlplane.db.base import Base, now
from controlplane.errors import BadParameter, Forbidden, InUse
from controlplane.identity import ownership
from controlplane.identity.accounts import Account
from controlplane.identity.domain_commands import mark_removed
from controlplane.identity.domains import Domain
from controlplane.identity.limits import ACCOUNT, DOMAIN, ResourceCount, ResourceLimit
from controlplane.identity.privilege import refuse_default, refuse_self, require_account
from controlplane.identity.tags import ResourceTag
from controlplane.identity.user_commands import remove_user
from controlplane.identity.users import User
from controlplane.reconcile.targets import touch
from controlplane.work.jobs import Job
from controlplane.work.workflows import Flow, workflow

HISTORY: set[type[Base]] = {Job, User, ResourceTag}
"""Tables whose rows stay when their account goes, or that go with it here."""


def leftovers(session: Session, account: Account) -> list[str]:
    """Return what still names the account as its owner, as words: ``2 networks``."""
    found = []
    for mapper in Base.registry.mappers:
        table = mapper.class_
        if not hasattr(table, "account_id") or table in HISTORY:
            continue
        query = select(func.count()).select_from(table).where(table.account_id == account.id)
        if "removed" in inspect(table).columns:
            query = query.where(table.removed.is_(None))
        count = session.scalar(query)
        if count:
            found.append(f"{count} {entity_name(table)}{'s' if count > 1 else ''}")
    return sorted(found)


class DeleteAccount(
    Command,
    name="deleteAccount",
    answer=success(),
    roles=DOMAIN_ADMINS,
    event="ACCOUNT.DELETE",
    job=True,
    instance="Account",
):
    """Delete an account with its users and all that it owns."""

    id: Account = required()

    def run(self, ctx: Context) -> None:
        """Shut its users out, and let the workflow take away what it owns.

        :raises InUse: a room says why it cannot go.
        """
        row = self.id
        require_account(ctx, row)
        refuse_default(row, "deleted")
        refuse_self(ctx, row.id, "deleted")
        reasons = ownership.objections(ctx.session, row)
        if reasons:
            raise InUse(f"Account {row.name} cannot be deleted: {'; '.join(reasons)}.")
        doom(ctx.session, row)
        ctx.go_on("deleteAccount", row, account=row.id)


class DeleteDomain(
    Command,
    name="deleteDomain",
    answer=success(),
    roles=DOMAIN_ADMINS,
    event="DOMAIN.DELETE",
    job=True,
    instance="Domain",
):
    """Delete a domain: an empty one, or with cleanup all that is in it and below it."""

    id: Domain = required()
    cleanup: bool | None = optional(False, description="delete its accounts and the domains below it, too")

    def run(self, ctx: Context) -> None:
        """Close the domain, and let the workflow empty it.

        :raises InUse: it is not empty and cleanup was not asked for, or a room says why an account cannot go.
        """
        row = self.id
        if row.parent_id is None:
            raise BadParameter(f"Invalid parameter id value={row.uuid}: the ROOT domain can never be deleted.")
        if ctx.caller.domain_path.startswith(row.path):
            raise Forbidden("You are in this domain: ask an admin of a domain above it to delete it.")
        domains, accounts = _domains(ctx.session, row), _accounts(ctx.session, row)
        if not self.cleanup and (len(domains) > 1 or accounts):
            raise InUse(
                f"Domain {row.name_path} cannot be deleted: it has {len(domains) - 1} domains below it and "
                f"{len(accounts)} accounts. Delete them first, or say cleanup=true."
            )
        for account in accounts:
            require_account(ctx, account)
            refuse_default(account, "deleted")
        reasons = [
            f"{account.name}: {why}" for account in accounts for why in ownership.objections(ctx.session, account)
        ]
        objections = ownership.DOMAIN_OBJECTIONS
        reasons += [why for domain in domains for objection in objections for why in objection(ctx.session, domain)]
        if reasons:
            raise InUse(f"Domain {row.name_path} cannot be deleted: {'; '.join(reasons)}.")
        for domain in domains:
            domain.state = "Inactive"
        for account in accounts:
            doom(ctx.session, account)
        ctx.go_on("deleteDomain", row, domain=row.id)


def doom(session: Session, account: Account) -> None:
    """Shut an account's users out for good: it is going to be removed."""
    account.state, account.cleanup_required = "disabled", True
    for user in session.scalars(select(User).where(User.account_id == account.id)):
        user.state, user.api_key, user.secret_key = "disabled", None, None


@workflow("deleteAccount")
def delete_account(flow: Flow) -> None:
    """Take away what the account owns, stage by stage, and then the account."""
    _empty_account(flow, flow.arguments["account"])


@workflow("deleteDomain")
def delete_domain(flow: Flow) -> None:
    """Take away the accounts of the domain's tree, and then its domains."""
    for account in flow.step(doomed_accounts, flow.arguments["domain"]):
        _empty_account(flow, account)
    flow.step(bury_domain, flow.arguments["domain"])


def _empty_account(flow: Flow, account: int) -> None:
    for stage in ownership.STAGES:
        flow.wait(flow.step(clear_stage, account, stage))
    flow.step(bury_account, account)


def clear_stage(session: Session, account: int, stage: str) -> list[tuple[int, int]]:
    """Have the rooms of one stage take away what the account owns; return what to wait for."""
    row = session.get_one(Account, account)
    targets = [target for remover in ownership.REMOVERS[stage] for target in remover(session, row)]
    session.flush()
    return touch(session, targets)


def bury_account(session: Session, account: int) -> None:
    """Mark the account and its users as removed.

    :raises InUse: something still belongs to it.
    """
    row = session.get_one(Account, account)
    if row.removed is not None:
        return
    for tag in session.scalars(select(ResourceTag).where(ResourceTag.account_id == account)):
        session.delete(tag)
    session.flush()
    left = leftovers(session, row)
    if left:
        raise InUse(f"Account {row.name} is disabled, but it still owns {', '.join(left)}: delete them and try again.")
    for user in session.scalars(select(User).where(User.account_id == account, User.removed.is_(None))).all():
        remove_user(session, user)
    _forget_limits(session, ACCOUNT, account)
    row.removed, row.removed_key, row.cleanup_required = now(), row.id, False


def doomed_accounts(session: Session, domain: int) -> list[int]:
    """Return the accounts in the domain's tree."""
    return [account.id for account in _accounts(session, session.get_one(Domain, domain))]


def bury_domain(session: Session, domain: int) -> None:
    """Mark the domain and all below it as removed."""
    for row in _domains(session, session.get_one(Domain, domain)):
        _forget_limits(session, DOMAIN, row.id)
        mark_removed(row)


def _forget_limits(session: Session, owner: str, number: int) -> None:
    for table in (ResourceCount, ResourceLimit):
        for row in session.scalars(select(table).where(table.owner == owner, table.owner_id == number)):
            session.delete(row)


def _domains(session: Session, top: Domain) -> list[Domain]:
    tree = select(Domain).where(Domain.path.startswith(top.path, autoescape=True), Domain.removed.is_(None))
    return list(session.scalars(tree.order_by(Domain.level, Domain.id)))


def _accounts(session: Session, top: Domain) -> list[Account]:
    tree = select(Domain.id).where(Domain.path.startswith(top.path, autoescape=True))
    query = select(Account).where(Account.domain_id.in_(tree), Account.removed.is_(None))
    return list(session.scalars(query.order_by(Account.id)))
