"""authorizeSecurityGroup… and revokeSecurityGroup…: what a group's machines let in, and what they may reach."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from sqlalchemy import func, select

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import Records, Uuid, optional, required
from controlplane.db.base import new_uuid
from controlplane.db.configuration import define
from controlplane.errors import BadParameter, LimitReached, RuleConflict
from controlplane.identity.accounts import PROJECT, Account
from controlplane.identity.domains import Domain
from controlplane.network import rule_text
from controlplane.network.rules import remove_rows
from controlplane.network.security_group_changes import chosen_group
from controlplane.network.security_groups import (
    EGRESS,
    INGRESS,
    RULE,
    SecurityGroup,
    SecurityGroupRule,
    new_rule_views,
)
from controlplane.network.traffic_rules import Packets

MOST_RULES = define(
    "security.group.rules.max",
    1000,
    "How many rules a security group may have; each CIDR and each group named is one; -1 is unlimited",
    category="Network",
    scopes=("Account",),
    within=(-1, None),
)
_ICMP6 = ("58", "icmpv6", "icmp6")
ICMP6 = "icmpv6"


class _Authorize(Packets):
    """The parameters of both directions.

    :cvar direction: the one that the command is about.
    """

    direction: ClassVar[str]

    securitygroupid: SecurityGroup | None = optional()
    securitygroupname: str | None = optional()
    account: str | None = optional(description="with securitygroupname: whose group it is; the caller's by default")
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()
    protocol: str | None = optional("all", description="tcp, udp, icmp (of either family), icmpv6, all, or a number")
    cidrlist: list[str] | None = optional(description="IPv4 and IPv6 CIDRs; each is a rule of its own")
    usersecuritygrouplist: Records | None = optional(description="groups, as account and group; each is a rule")

    def run(self, ctx: Context) -> SecurityGroupRule:
        """Make a rule of each CIDR and of each group named, all or none."""
        names = "securitygroupid", "securitygroupname"
        group = chosen_group(ctx, names, (self.securitygroupid, self.securitygroupname), self)
        meant = self._peers(ctx, group)
        if not meant:
            raise BadParameter("Invalid parameter cidrlist: give it, or usersecuritygrouplist: a rule is for somebody.")
        call = new_uuid()
        protocol, start, end = self._traffic()
        if protocol == ICMP6:
            _must_be_ipv6(peer for peer, allowed in meant if allowed is None)
        rules = [
            SecurityGroupRule(
                group_id=group.id,
                account_id=group.account_id,
                domain_id=group.domain_id,
                direction=self.direction,
                protocol=protocol,
                start=start,
                end=end,
                peer=peer,
                allowed_id=allowed,
                call=call,
            )
            for peer, allowed in meant
        ]
        _must_be_new(ctx, group, rules)
        _must_have_room(ctx, group, len(rules))
        ctx.session.add_all(rules)
        ctx.session.flush()
        ctx.touch(group)
        return rules[0]

    def _traffic(self) -> tuple[str, int, int]:
        """Return the protocol with its ports, or its type and code."""
        text = self.protocol or "all"
        protocol = ICMP6 if text.strip().lower() in _ICMP6 else rule_text.any_protocol(text)
        start, end = rule_text.span(protocol, self)
        if protocol in rule_text.WITH_PORTS and start == rule_text.ANY:
            return protocol, rule_text.FIRST_PORT, rule_text.LAST_PORT
        return protocol, start, end

    def _peers(self, ctx: Context, group: SecurityGroup) -> list[tuple[str, int | None]]:
        """Return who is meant: a CIDR and nothing, or a group's number as text and as number."""
        cidrs = rule_text.cidr_list_any("cidrlist", self.cidrlist or [])
        named = dict.fromkeys(_group_named(ctx, group, record) for record in self.usersecuritygrouplist or ())
        return [(cidr, None) for cidr in cidrs] + [(str(number), number) for number in named]


def _must_be_ipv6(cidrs: Iterable[str]) -> None:
    for cidr in cidrs:
        if ":" not in cidr:
            raise BadParameter(
                f"Invalid parameter cidrlist value={cidr}: icmpv6 is for IPv6 CIDRs; icmp is for either family."
            )


def _group_named(ctx: Context, group: SecurityGroup, record: dict[str, str]) -> int:
    """Return the number of the group that a record names, of any account in the domain of the rule's group.

    :raises BadParameter: there is none; the words do not tell what is missing.
    """
    if set(record) != {"account", "group"}:
        raise BadParameter(
            "Invalid parameter usersecuritygrouplist: write usersecuritygrouplist[0].account=NAME and "
            "usersecuritygrouplist[0].group=NAME."
        )
    number = ctx.session.scalar(
        select(SecurityGroup.id)
        .join(Account, SecurityGroup.account_id == Account.id)
        .where(
            func.lower(Account.name) == record["account"].lower(),
            Account.domain_id == group.domain_id,
            Account.type != PROJECT,
            Account.removed.is_(None),
            SecurityGroup.name == record["group"],
        )
    )
    if number is None:
        raise BadParameter(
            f"Invalid parameter usersecuritygrouplist value={record['account']}/{record['group']}: the domain has no "
            "such account with a group of this name."
        )
    return number


def _must_be_new(ctx: Context, group: SecurityGroup, rules: Sequence[SecurityGroupRule]) -> None:
    first = rules[0]
    there = ctx.session.execute(
        select(SecurityGroupRule.uuid, SecurityGroupRule.protocol, SecurityGroupRule.peer).where(
            SecurityGroupRule.group_id == group.id,
            SecurityGroupRule.direction == first.direction,
            SecurityGroupRule.start == first.start,
            SecurityGroupRule.end == first.end,
        )
    )
    known = {(protocol, peer): uuid for uuid, protocol, peer in there}
    for rule in rules:
        if (same := known.get((rule.protocol, rule.peer))) is not None:
            name, value = ("cidrlist", rule.peer) if rule.allowed_id is None else ("usersecuritygrouplist", "")
            raise RuleConflict(
                f"Invalid parameter {name}{f' value={value}' * bool(value)}: rule {same} of group {group.name} says "
                "just that already; leave it out."
            )


def _must_have_room(ctx: Context, group: SecurityGroup, more: int) -> None:
    most = MOST_RULES.number(ctx.session, account=group.account_id)
    has = ctx.session.scalar(select(func.count()).where(SecurityGroupRule.group_id == group.id)) or 0
    if has + more > most >= 0:
        raise LimitReached(
            f"Security group {group.name} has {has} rules, {more} more were asked for, and {MOST_RULES.name} allows "
            f"{most}: name wider CIDRs, or revoke some."
        )


class AuthorizeIngress(_Authorize, name="authorizeSecurityGroupIngress", answer=one("securitygroup", new_rule_views),
                       roles=EVERYONE, job=True, instance=RULE, event="SG.AUTH.INGRESS"):  # fmt: skip
    """Let traffic come in to a group's machines; the job ends when every host that holds one does so."""

    direction = INGRESS


class AuthorizeEgress(_Authorize, name="authorizeSecurityGroupEgress", answer=one("securitygroup", new_rule_views),
                      roles=EVERYONE, job=True, instance=RULE, event="SG.AUTH.EGRESS"):  # fmt: skip
    """Let a group's machines reach something; with the first such rule they reach nothing else any more."""

    direction = EGRESS


class _Revoke(Command):
    """What both directions do.

    :cvar direction: the one that the command is about.
    """

    direction: ClassVar[str]

    id: SecurityGroupRule = required()

    def run(self, ctx: Context) -> None:
        """Delete the rule."""
        rule = ctx.instance = self.id
        if rule.direction != self.direction:
            raise BadParameter(
                f"Invalid parameter id value={rule.uuid}: it is an {rule.direction} rule, for "
                f"revokeSecurityGroup{rule.direction.title()}."
            )
        ctx.touch(rule)
        remove_rows(ctx.session, SecurityGroupRule, RULE, SecurityGroupRule.id == rule.id)


class RevokeIngress(_Revoke, name="revokeSecurityGroupIngress", answer=success(), roles=EVERYONE, job=True,
                    instance=RULE, event="SG.REVOKE.INGRESS"):  # fmt: skip
    """Have a group's machines no longer let something in."""

    direction = INGRESS


class RevokeEgress(_Revoke, name="revokeSecurityGroupEgress", answer=success(), roles=EVERYONE, job=True,
                   instance=RULE, event="SG.REVOKE.EGRESS"):  # fmt: skip
    """Take back what a group's machines may reach; without any such rule they reach everything again."""

    direction = EGRESS
