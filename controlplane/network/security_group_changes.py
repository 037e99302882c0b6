"""The commands on security groups: made, renamed, listed and removed; what their rules say is in ``security_rules``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context, visible
from controlplane.api.parameters import Uuid, matching, optional, required
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.configuration import define
from controlplane.errors import BadParameter, InUse, LimitReached
from controlplane.identity import names, ownership
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import NO_PROJECT, OwnedListing, account_named, owner_of_new
from controlplane.network.rules import remove_rows, remove_tags, set_custom_id
from controlplane.network.security_groups import (
    DEFAULT,
    GROUP,
    RULE,
    SecurityGroup,
    SecurityGroupMember,
    SecurityGroupRule,
    default_group,
    group_views,
    hosts_naming,
)
from controlplane.reconcile.targets import Target

MOST_GROUPS = define(
    "max.account.security.groups",
    100,
    "How many security groups an account may have; -1 is unlimited",
    category="Account Defaults",
    scopes=("Account",),
    within=(-1, None),
)


class CreateSecurityGroup(Command, name="createSecurityGroup", answer=one("securitygroup", group_views),
                          roles=EVERYONE, instance=GROUP, event="SG.CREATE"):  # fmt: skip
    """Make a security group: nothing comes in to its machines, everything leaves them, until rules say otherwise."""

    name: str = required(check=names.name)
    description: str | None = optional(check=names.text)
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()

    def run(self, ctx: Context) -> SecurityGroup:
        """Make it."""
        owner = owner_of_new(ctx, self.account, self.domainid, self.projectid)
        default_group(ctx.session, owner)
        _must_be_free(ctx.session, owner.id, self.name)
        _must_have_room(ctx.session, owner)
        group = SecurityGroup(
            name=self.name, description=self.description or "", account_id=owner.id, domain_id=owner.domain_id
        )
        ctx.session.add(group)
        ctx.session.flush()
        return group


def _must_be_free(session: Session, account_id: int, name: str) -> None:
    taken = select(SecurityGroup.id).where(SecurityGroup.account_id == account_id, SecurityGroup.name == name)
    if session.scalar(taken) is not None:
        raise BadParameter(f"Invalid parameter name value={name}: the account has a security group of this name.")


def _must_have_room(session: Session, owner: Account) -> None:
    most = MOST_GROUPS.number(session, account=owner.id)
    has = session.scalar(select(func.count()).where(SecurityGroup.account_id == owner.id)) or 0
    if has >= most >= 0:
        raise LimitReached(
            f"Account {owner.name} has {has} security groups, and {MOST_GROUPS.name} allows {most}: delete one first."
        )


class UpdateSecurityGroup(Command, name="updateSecurityGroup", answer=one("securitygroup", group_views),
                          instance=GROUP, event="SG.UPDATE"):  # fmt: skip
    """Rename a security group."""

    id: SecurityGroup = required()
    name: str | None = optional(check=names.name)
    customid: str | None = optional(admin=True)

    def run(self, ctx: Context) -> SecurityGroup:
        """Rename it; hosts know it by its UUID alone."""
        group = self.id
        if self.name is not None and self.name != group.name:
            _must_not_be_default(group, "id", group.uuid, "renamed")
            _must_be_free(ctx.session, group.account_id, self.name)
            group.name = self.name
        if self.customid is not None:
            set_custom_id(ctx, group, GROUP, self.customid)
            ctx.session.flush()
            ctx.touch(group)
            ctx.touched.extend(hosts_naming(ctx.session, select(SecurityGroup.id).filter_by(id=group.id)))
        return group


def _must_not_be_default(group: SecurityGroup, parameter: str, value: str, what: str) -> None:
    if group.name == DEFAULT:
        raise BadParameter(f"Invalid parameter {parameter} value={value}: the default group can never be {what}.")


def chosen_group(
    ctx: Context, names: tuple[str, str], given: tuple[SecurityGroup | None, str | None], command: Any
) -> SecurityGroup:
    """Return the group that a command's parameters mean: by its id, or by its name in an account.

    :param names: what the command calls the id and the name, ``given`` their values.
    :param command: has ``account``, ``domainid`` and ``projectid``: whose the name is; the caller's by default.
    :raises BadParameter: neither or both are given, or there is no such group.
    """
    group, name = given
    if (group is None) == (name is None):
        raise BadParameter(f"Invalid parameter {names[0]}: give it or {names[1]}: one of them says which group.")
    if group is not None:
        return group
    if command.projectid is not None:
        raise BadParameter(f"Invalid parameter projectid value={command.projectid}: {NO_PROJECT}.")
    if command.domainid is not None and command.account is None:
        raise BadParameter("Invalid parameter domainid: it goes together with account.")
    owner = ctx.caller.account_id
    if command.account is not None:
        owner = account_named(ctx, command.account, command.domainid).id
    found = ctx.session.scalar(
        select(SecurityGroup).where(
            SecurityGroup.account_id == owner, SecurityGroup.name == name, visible(SecurityGroup, ctx.caller)
        )
    )
    if found is None:
        raise BadParameter(
            f"Invalid parameter {names[1]} value={name}: the account has no security group of this name."
        )
    return found


class DeleteSecurityGroup(Command, name="deleteSecurityGroup", answer=success(), roles=EVERYONE, instance=GROUP,
                          event="SG.DELETE"):  # fmt: skip
    """Delete a security group that no machine is in and no other group's rule names."""

    id: SecurityGroup | None = optional()
    name: str | None = optional()
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()

    def run(self, ctx: Context) -> None:
        """Check, and delete it with its rules."""
        group = chosen_group(ctx, ("id", "name"), (self.id, self.name), self)
        ctx.instance = group
        parameter, value = ("name", group.name) if self.id is None else ("id", group.uuid)
        _must_not_be_default(group, parameter, value, "deleted")
        if users := users_of(ctx.session, group):
            raise InUse(
                f"Invalid parameter {parameter} value={value}: security group {group.name} cannot be deleted, "
                f"{', '.join(users)} use it."
            )
        remove_groups(ctx.session, select(SecurityGroup.id).where(SecurityGroup.id == group.id))


def users_of(session: Session, group: SecurityGroup) -> list[str]:
    """Return the names of the machines in the group, and of the groups with rules that name it."""
    machines = select(VirtualMachine.name).join(SecurityGroupMember, SecurityGroupMember.vm_id == VirtualMachine.id)
    machines = machines.where(SecurityGroupMember.group_id == group.id, VirtualMachine.removed.is_(None))
    naming = (
        select(SecurityGroup.name, Account.name, Account.id)
        .join(SecurityGroupRule, SecurityGroupRule.group_id == SecurityGroup.id)
        .join(Account, SecurityGroup.account_id == Account.id)
        .where(SecurityGroupRule.allowed_id == group.id, SecurityGroup.id != group.id)
        .distinct()
    )
    return [f"instance {name}" for name in session.scalars(machines.order_by(VirtualMachine.id).limit(10))] + [
        f"a rule of group {name}" + (f" of account {account}" if number != group.account_id else "")
        for name, account, number in session.execute(naming.order_by(SecurityGroup.name).limit(10))
    ]


def remove_groups(session: Session, groups: Select[Any]) -> None:
    """Remove groups with their rules and tags, and the rules that name them.

    :param groups: the query for their numbers.
    """
    theirs = SecurityGroupRule.group_id.in_(groups) | SecurityGroupRule.allowed_id.in_(groups)
    remove_rows(session, SecurityGroupRule, RULE, theirs)
    remove_tags(session, GROUP, select(SecurityGroup.uuid).where(SecurityGroup.id.in_(groups)))
    numbers = list(session.scalars(groups))
    session.execute(delete(SecurityGroupMember).where(SecurityGroupMember.group_id.in_(numbers)))
    session.execute(delete(SecurityGroup).where(SecurityGroup.id.in_(numbers)))


class ListSecurityGroups(OwnedListing, name="listSecurityGroups", answer=many("securitygroup", group_views),
                         roles=EVERYONE):  # fmt: skip
    """List security groups."""

    table = SecurityGroup
    keywords = (SecurityGroup.name, SecurityGroup.description)
    taggable = GROUP

    id: SecurityGroup | None = matching(SecurityGroup.id)
    securitygroupname: str | None = matching(SecurityGroup.name)
    virtualmachineid: VirtualMachine | None = optional(description="those that this machine is in")

    def owners(self, ctx: Context) -> Any:
        """Return the condition on the owner; a machine says by itself whose groups are meant."""
        return None if self.virtualmachineid is not None else super().owners(ctx)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep those of the machine."""
        del ctx
        if self.virtualmachineid is None:
            return query
        mine = select(SecurityGroupMember.group_id).where(SecurityGroupMember.vm_id == self.virtualmachineid.id)
        return query.where(SecurityGroup.id.in_(mine))


def remove_groups_of(session: Session, account: Account) -> list[Target]:
    """Remove an account's groups; rules of others that name them go too: they let in nobody any more."""
    groups = select(SecurityGroup.id).where(SecurityGroup.account_id == account.id)
    touched = hosts_naming(session, groups)
    remove_groups(session, groups)
    return touched


ownership.on_account_made(default_group)
ownership.on_account_removed(remove_groups_of)
