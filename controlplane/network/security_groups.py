"""Security groups: whose they are, which machines are in them, what their rules let pass, and how answers show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ForeignKey, Index, Select, String, UniqueConstraint, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.api import dispatch
from controlplane.api.context import Context
from controlplane.api.responses import Response
from controlplane.compute.holding_hosts import hosts_holding
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.base import Base, Created, Owned, Row, new_uuid, now
from controlplane.identity.accounts import Account
from controlplane.identity.ownership import owner_fields
from controlplane.identity.tags import TagResponse, taggable, tags_of
from controlplane.network.rule_text import WITH_PORTS, WITH_TYPES
from controlplane.reconcile.targets import Target

GROUP, RULE = "SecurityGroup", "SecurityGroupRule"
"""The resource types that tags name groups and rules by."""
DEFAULT = "default"
"""The group that every account has, and that its machines are in when no other is named."""
INGRESS, EGRESS = "ingress", "egress"


class SecurityGroup(Created, Owned, Row):
    """A security group (createSecurityGroup)."""

    __tablename__ = "security_groups"
    __table_args__ = (UniqueConstraint("account_id", "name"),)

    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str] = mapped_column(String(255), default="")

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of the hosts that hold its members."""
        return hosts_holding(session, VirtualMachine.id.in_(members_of(select(SecurityGroup.id).filter_by(id=self.id))))


class SecurityGroupMember(Base):
    """A machine is in a group."""

    __tablename__ = "security_group_members"

    group_id: Mapped[int] = mapped_column(ForeignKey("security_groups.id", ondelete="CASCADE"), primary_key=True)
    vm_id: Mapped[int] = mapped_column(
        ForeignKey("virtual_machines.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class SecurityGroupRule(Created, Owned, Row):
    """One source that a group lets in, or one destination that it lets its members reach.

    :ivar protocol: ``tcp``, ``udp``, ``icmp``, ``icmpv6``, ``all``, or the number of another.
    :ivar start: first port or the ICMP type, ``end`` last port or the ICMP code; -1 is any.
    :ivar peer: the CIDR, or the number of the group ``allowed_id`` whose members are meant.
    :ivar call: the same for all rules that one call made.
    """

    __tablename__ = "security_group_rules"
    __table_args__ = (
        Index("uq_security_group_rules", "group_id", "direction", "protocol", "start", "end", "peer", unique=True),
    )

    group_id: Mapped[int] = mapped_column(ForeignKey("security_groups.id", ondelete="CASCADE"))
    direction: Mapped[str] = mapped_column(String(10))
    protocol: Mapped[str] = mapped_column(String(10))
    start: Mapped[int] = mapped_column(default=-1)
    end: Mapped[int] = mapped_column(default=-1)
    peer: Mapped[str] = mapped_column(String(50))
    allowed_id: Mapped[int | None] = mapped_column(ForeignKey("security_groups.id"), index=True)
    call: Mapped[str] = mapped_column(String(40), default=new_uuid, index=True)

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of the hosts that hold its group's members."""
        return session.get_one(SecurityGroup, self.group_id).targets(session)


dispatch.JOB_TABLES[GROUP] = SecurityGroup
dispatch.JOB_TABLES[RULE] = SecurityGroupRule
taggable(RULE, SecurityGroupRule)


def members_of(groups: Select[Any]) -> Select[Any]:
    """Return the query for the numbers of the machines in these groups."""
    return select(SecurityGroupMember.vm_id).where(SecurityGroupMember.group_id.in_(groups))


def hosts_naming(session: Session, groups: Select[Any]) -> list[Target]:
    """Return the targets of the hosts that hold machines whose groups have a rule that names one of these groups."""
    naming = select(SecurityGroupRule.group_id).where(SecurityGroupRule.allowed_id.in_(groups))
    return hosts_holding(session, VirtualMachine.id.in_(members_of(naming)))


def hosts_meaning(session: Session, vm_id: int) -> list[Target]:
    """Return the targets of the hosts where a rule means the machine's addresses: it names one of its groups."""
    return hosts_naming(session, select(SecurityGroupMember.group_id).where(SecurityGroupMember.vm_id == vm_id))


def default_group(session: Session, account: Account) -> SecurityGroup:
    """Return the account's default group, which is made where it is missing; two who make it at once get the same."""
    query = select(SecurityGroup).where(SecurityGroup.account_id == account.id, SecurityGroup.name == DEFAULT)
    found = session.scalar(query)
    if found is None:
        insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
        row = {"uuid": new_uuid(), "name": DEFAULT, "description": "Default Security Group", "created": now()}
        row |= {"account_id": account.id, "domain_id": account.domain_id}
        session.execute(insert(SecurityGroup).values(row).on_conflict_do_nothing())
        found = session.scalars(query).one()
    return found


@dataclass(kw_only=True)
class SecurityGroupRuleResponse(Response):
    """A rule: a CIDR, or the name of a group and of the account that has it."""

    ruleid: str
    protocol: str
    startport: int | None = None
    endport: int | None = None
    icmptype: int | None = None
    icmpcode: int | None = None
    cidr: str | None = None
    securitygroupname: str | None = None
    account: str | None = None
    tags: list[TagResponse]


@dataclass(kw_only=True)
class SecurityGroupResponse(Response):
    """A security group with its rules; of one that a machine's answer shows, the machines are left out."""

    id: str
    name: str
    description: str
    account: str
    domain: str
    domainid: str
    domainpath: str
    ingressrule: list[SecurityGroupRuleResponse] = field(default_factory=list)
    egressrule: list[SecurityGroupRuleResponse] = field(default_factory=list)
    tags: list[TagResponse] = field(default_factory=list)
    virtualmachinecount: int | None = None
    virtualmachineids: list[str] | None = None


def group_views(ctx: Context, rows: Sequence[SecurityGroup]) -> list[SecurityGroupResponse]:
    """Show groups with their rules and machines."""
    shown = groups_with_rules(ctx, rows, _rules_of(ctx, rows))
    machines: dict[int, list[str]] = {row.id: [] for row in rows}
    query = (
        select(SecurityGroupMember.group_id, VirtualMachine.uuid)
        .join(VirtualMachine, SecurityGroupMember.vm_id == VirtualMachine.id)
        .where(SecurityGroupMember.group_id.in_(list(machines)), VirtualMachine.removed.is_(None))
    )
    for group, machine in ctx.session.execute(query.order_by(VirtualMachine.id)):
        machines[group].append(machine)
    for row, view in zip(rows, shown, strict=True):
        view.virtualmachineids, view.virtualmachinecount = machines[row.id], len(machines[row.id])
    return shown


def new_rule_views(ctx: Context, rows: Sequence[SecurityGroupRule]) -> list[SecurityGroupResponse]:
    """Show, for each of these rules, its group with the rules that one call made: so does CloudStack answer."""
    rules = ctx.session.scalars(
        select(SecurityGroupRule)
        .where(SecurityGroupRule.call.in_([row.call for row in rows]))
        .order_by(SecurityGroupRule.id)
    ).all()
    numbers = {row.group_id for row in rows}
    groups = {row.id: row for row in ctx.session.scalars(select(SecurityGroup).where(SecurityGroup.id.in_(numbers)))}
    found = []
    for row in rows:
        together = [rule for rule in rules if rule.call == row.call]
        found += groups_with_rules(ctx, [groups[row.group_id]], together)
    return found


def groups_of_machines(ctx: Context, machines: Iterable[int]) -> dict[int, list[SecurityGroupResponse]]:
    """Return the groups of each machine, by its number and in the order of their names."""
    found: dict[int, list[SecurityGroupResponse]] = {machine: [] for machine in machines}
    pairs = ctx.session.execute(
        select(SecurityGroupMember.vm_id, SecurityGroup)
        .join(SecurityGroup, SecurityGroupMember.group_id == SecurityGroup.id)
        .where(SecurityGroupMember.vm_id.in_(list(found)))
        .order_by(SecurityGroup.name, SecurityGroup.id)
    ).all()
    groups = list({group.id: group for _, group in pairs}.values())
    views = groups_with_rules(ctx, groups, _rules_of(ctx, groups)) if groups else []
    shown = dict(zip((group.id for group in groups), views, strict=True))
    for machine, group in pairs:
        found[machine].append(shown[group.id])
    return found


def _rules_of(ctx: Context, groups: Sequence[SecurityGroup]) -> Sequence[SecurityGroupRule]:
    mine = SecurityGroupRule.group_id.in_([group.id for group in groups])
    return ctx.session.scalars(select(SecurityGroupRule).where(mine).order_by(SecurityGroupRule.id)).all()


def groups_with_rules(
    ctx: Context, groups: Sequence[SecurityGroup], rules: Sequence[SecurityGroupRule]
) -> list[SecurityGroupResponse]:
    """Show groups with these of their rules."""
    owners, tags, rule_tags = owner_fields(ctx, groups), tags_of(ctx, GROUP, groups), tags_of(ctx, RULE, rules)
    shown = {
        group.id: SecurityGroupResponse(
            id=group.uuid,
            name=group.name,
            description=group.description,
            tags=tags[group.id],
            **owners[group.account_id],
        )
        for group in groups
    }
    named = _named(ctx.session, rules)
    for rule in rules:
        view, group = _rule(rule, rule_tags[rule.id]), shown[rule.group_id]
        if rule.allowed_id is not None:
            view.securitygroupname, view.account = named[rule.allowed_id]
        (group.ingressrule if rule.direction == INGRESS else group.egressrule).append(view)
    return [shown[group.id] for group in groups]


def _named(session: Session, rules: Sequence[SecurityGroupRule]) -> dict[int, tuple[str, str]]:
    """Return the name and the account of each group that the rules name."""
    numbers = {rule.allowed_id for rule in rules} - {None}
    query = select(SecurityGroup.id, SecurityGroup.name, Account.name).join(
        Account, SecurityGroup.account_id == Account.id
    )
    if not numbers:
        return {}
    return {
        number: (name, account) for number, name, account in session.execute(query.where(SecurityGroup.id.in_(numbers)))
    }


def _rule(rule: SecurityGroupRule, tags: list[TagResponse]) -> SecurityGroupRuleResponse:
    ports, kinds = rule.protocol in WITH_PORTS, rule.protocol in WITH_TYPES
    return SecurityGroupRuleResponse(
        ruleid=rule.uuid,
        protocol=rule.protocol,
        startport=rule.start if ports else None,
        endport=rule.end if ports else None,
        icmptype=rule.start if kinds else None,
        icmpcode=rule.end if kinds else None,
        cidr=rule.peer if rule.allowed_id is None else None,
        tags=tags,
    )
