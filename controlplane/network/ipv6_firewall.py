"""IPv6 firewall rules: what may come in to the guests of a network, and what they may send out.

Nothing is translated, so a rule of either direction is the network's and names guests by their own addresses. What
comes in is closed until a rule opens it; what leaves follows the offering's default, and a rule is its exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Network
from typing import Any

from sqlalchemy import ForeignKey, Index, Select, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.db.base import Created, Owned, Row
from controlplane.errors import BadParameter, RuleConflict, Unsupported
from controlplane.identity.ownership import OwnedListing
from controlplane.identity.tags import tags_of
from controlplane.network import rule_text
from controlplane.network.firewall import FirewallResponse
from controlplane.network.networks import Network, require_service
from controlplane.network.public_ips import clears_network
from controlplane.network.rules import remove_rows, rows_by_id, set_custom_id
from controlplane.reconcile.targets import Target
from drivers import vocabulary

TAGGABLE = "Ipv6FirewallRule"
DIRECTIONS = ("Ingress", "Egress")


class Ipv6FirewallRule(Created, Owned, Row):
    """A rule of a network with IPv6 (createIpv6FirewallRule).

    :ivar direction: ``Ingress`` or ``Egress``.
    :ivar start: first port, and ``end`` the last one; None is any.
    :ivar sources: CIDRs, everyone where it is empty; ``destinations`` likewise.
    """

    __tablename__ = "ipv6_firewall_rules"
    __table_args__ = (Index("ix_ipv6_firewall_rules_network", "network_id", "direction", "protocol"),)

    network_id: Mapped[int] = mapped_column(ForeignKey("networks.id"))
    direction: Mapped[str] = mapped_column(String(10))
    protocol: Mapped[str] = mapped_column(String(10))
    start: Mapped[int | None]
    end: Mapped[int | None]
    icmp_type: Mapped[int | None]
    icmp_code: Mapped[int | None]
    sources: Mapped[list[str]] = mapped_column(default=list)
    destinations: Mapped[list[str]] = mapped_column(default=list)
    display: Mapped[bool] = mapped_column(default=True)
    state: Mapped[str] = mapped_column(String(20), default="Active")
    network: Mapped[Network] = relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its network."""
        return session.get_one(Network, self.network_id).targets(session)


dispatch.JOB_TABLES["Ipv6FirewallRule"] = Ipv6FirewallRule


def ipv6_firewall_views(ctx: Context, rows: Sequence[Ipv6FirewallRule]) -> list[FirewallResponse]:
    """Show IPv6 rules of either direction, as those of IPv4 are shown."""
    return views_of(ctx, rows, TAGGABLE)


def views_of(ctx: Context, rows: Sequence[Any], taggable: str) -> list[FirewallResponse]:
    """Show rules that name guests by their own addresses.

    :param taggable: what their tags call them.
    """
    networks = rows_by_id(ctx.session, (Network.id, Network.uuid), (row.network_id for row in rows))
    tags, admin = tags_of(ctx, taggable, rows), ctx.caller.is_admin
    return [
        FirewallResponse(
            id=row.uuid,
            protocol=row.protocol,
            startport=row.start,
            endport=row.end,
            icmptype=row.icmp_type,
            icmpcode=row.icmp_code,
            cidrlist=",".join(row.sources),
            destcidrlist=",".join(row.destinations),
            networkid=networks[row.network_id].uuid,
            state=row.state,
            traffictype=row.direction,
            fordisplay=row.display if admin else None,
            tags=tags[row.id],
        )
        for row in rows
    ]


class _Content(Command):
    """The parameters that say what a rule is about."""

    startport: int | None = optional(description="first port; without one, every port")
    endport: int | None = optional(description="last port; without one, the first is the only one")
    icmptype: int | None = optional(description="-1 is any")
    icmpcode: int | None = optional(description="-1 is any")
    cidrlist: list[str] | None = optional(description="IPv6 CIDRs that packets come from; everyone unless given")
    fordisplay: bool | None = optional(admin=True)
    traffictype: str | None = optional(choices=DIRECTIONS, description="Ingress unless given")

    def content(self, rule: Ipv6FirewallRule, protocol: str) -> None:
        """Give the rule a protocol with its ports, or its types and codes.

        :raises BadParameter: they contradict each other.
        """
        rule.protocol = rule_text.protocol6(protocol)
        rule.start = rule.end = rule.icmp_type = rule.icmp_code = None
        span = rule_text.span(rule.protocol, self, protocol)
        if rule.protocol == "icmp":
            rule.icmp_type, rule.icmp_code = span
        elif span != (rule_text.ANY, rule_text.ANY):
            rule.start, rule.end = span


class CreateIpv6FirewallRule(_Content, name="createIpv6FirewallRule", answer=one("firewallrule", ipv6_firewall_views),
                             job=True, creates=True, instance="Ipv6FirewallRule", roles=EVERYONE,
                             event="FIREWALL.IPV6.OPEN"):  # fmt: skip
    """Let IPv6 traffic come in to a network's guests; or, of what leaves, name an exception to the default."""

    networkid: Network = required()
    protocol: str = required(description="tcp, udp, icmp (which is ICMPv6) or all, or its number")
    destcidrlist: list[str] | None = optional(description="IPv6 CIDRs that packets go to; everywhere unless given")

    def run(self, ctx: Context) -> Ipv6FirewallRule:
        """Check, and make the rule."""
        network = self.networkid
        require_service(network, "Firewall")
        if not network.cidr6:
            raise Unsupported(
                f"Network {network.name} has no IPv6: its offering {network.offering.name} is "
                f"{network.offering.internet_protocol}."
            )
        rule = Ipv6FirewallRule(
            network_id=network.id,
            account_id=network.account_id,
            domain_id=network.domain_id,
            direction=self.traffictype or "Ingress",
            display=self.fordisplay is not False,
        )
        self.content(rule, self.protocol)
        _name_ends(rule, network, self.cidrlist or [], self.destcidrlist or [])
        must_not_conflict(ctx.session, rule)
        ctx.session.add(rule)
        ctx.touch(network)
        return rule


def _name_ends(rule: Ipv6FirewallRule, network: Network, sources: Sequence[str], destinations: Sequence[str]) -> None:
    """Give the rule its CIDRs; those of the guests' end lie in the network.

    :raises BadParameter: one does not, or is none.
    """
    rule.sources = rule_text.cidr_list6("cidrlist", sources) or [rule_text.EVERYONE6]
    rule.destinations = rule_text.cidr_list6("destcidrlist", destinations) or [rule_text.EVERYONE6]
    inward = rule.direction == "Ingress"
    for item in rule.destinations if inward else rule.sources:
        if item != rule_text.EVERYONE6 and not IPv6Network(item).subnet_of(IPv6Network(network.cidr6 or "")):
            name = "destcidrlist" if inward else "cidrlist"
            raise BadParameter(
                f"Invalid parameter {name} value={item}: it must lie in {network.cidr6}, which {network.name} has."
            )


def must_not_conflict(session: Session, rule: Any) -> None:
    """Make sure that no other rule of the direction names the same protocol, ports (or type and code) and CIDRs.

    :raises RuleConflict: one does; the sentence names it.
    """
    table = type(rule)
    same = [table.network_id == rule.network_id, table.direction == rule.direction, table.protocol == rule.protocol]
    if rule.id is not None:
        same.append(table.id != rule.id)
    if rule.protocol == "icmp":
        same += [table.icmp_type == rule.icmp_type, table.icmp_code == rule.icmp_code]
    elif rule.start is not None:
        same.append(table.start.is_(None) | ((table.start <= rule.end) & (table.end >= rule.start)))
    with session.no_autoflush:
        others = session.execute(select(table.uuid, table.sources, table.destinations).where(*same)).all()
    for other in others:
        common = sorted(set(rule.sources) & set(other.sources))
        if common and set(rule.destinations) & set(other.destinations):
            raise RuleConflict(
                f"The rule conflicts with rule {other.uuid}, which names {rule.protocol} from {common[0]} as well."
            )


class DeleteIpv6FirewallRule(Command, name="deleteIpv6FirewallRule", answer=success(), job=True,
                             instance="Ipv6FirewallRule", roles=EVERYONE, event="FIREWALL.IPV6.CLOSE"):  # fmt: skip
    """Delete an IPv6 rule."""

    id: Ipv6FirewallRule = required()

    def run(self, ctx: Context) -> None:
        """Delete it."""
        ctx.instance = self.id
        ctx.touch(self.id)
        remove_rows(ctx.session, Ipv6FirewallRule, TAGGABLE, Ipv6FirewallRule.id == self.id.id)


class UpdateIpv6FirewallRule(_Content, name="updateIpv6FirewallRule", answer=one("firewallrule", ipv6_firewall_views),
                             job=True, instance="Ipv6FirewallRule", roles=EVERYONE,
                             event="FIREWALL.IPV6.UPDATE"):  # fmt: skip
    """Change an IPv6 rule in place; what is not given stays, and ports go with the protocol that they are given for."""

    id: Ipv6FirewallRule = required()
    protocol: str | None = optional(description="tcp, udp, icmp (which is ICMPv6) or all, or its number")
    customid: str | None = optional(admin=True)

    def run(self, ctx: Context) -> Ipv6FirewallRule:
        """Check the whole as it will be, and change it."""
        rule = self.id
        if self.traffictype not in (None, rule.direction):
            raise BadParameter(
                f"Invalid parameter traffictype value={self.traffictype}: rule {rule.uuid} is for {rule.direction}; "
                "make another one for the other direction."
            )
        told = (self.startport, self.endport, self.icmptype, self.icmpcode)
        if self.protocol is not None or any(value is not None for value in told):
            self.content(rule, self.protocol or rule.protocol)
        if self.cidrlist:
            _name_ends(rule, rule.network, self.cidrlist, rule.destinations)
        must_not_conflict(ctx.session, rule)
        if self.fordisplay is not None:
            rule.display = self.fordisplay
        if self.customid is not None:
            set_custom_id(ctx, rule, TAGGABLE, self.customid)
        ctx.touch(rule)
        return rule


class ListIpv6FirewallRules(OwnedListing, name="listIpv6FirewallRules", roles=EVERYONE,
                            answer=many("firewallrule", ipv6_firewall_views)):  # fmt: skip
    """List IPv6 rules."""

    table = Ipv6FirewallRule
    keywords = (Ipv6FirewallRule.protocol,)
    taggable = TAGGABLE

    id: Ipv6FirewallRule | None = matching(Ipv6FirewallRule.id)
    networkid: Network | None = matching(Ipv6FirewallRule.network_id)
    traffictype: str | None = matching(Ipv6FirewallRule.direction, choices=DIRECTIONS)
    fordisplay: bool | None = matching(Ipv6FirewallRule.display, admin=True)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep them all."""
        del ctx
        return query


@clears_network
def clear_network(session: Session, network: Network) -> None:
    """Remove the IPv6 rules of a network that goes."""
    remove_rows(session, Ipv6FirewallRule, TAGGABLE, Ipv6FirewallRule.network_id == network.id)


def rule_facts6(session: Session, network_id: int, direction: str) -> tuple[vocabulary.Ipv6Rule, ...]:
    """Return the network's IPv6 rules of a direction."""
    mine = Ipv6FirewallRule.network_id == network_id, Ipv6FirewallRule.direction == direction
    query = select(Ipv6FirewallRule).where(*mine).order_by(Ipv6FirewallRule.id)
    return tuple(
        vocabulary.Ipv6Rule(row.uuid, row.protocol, *span_of(row), _limiting(row.sources), _limiting(row.destinations))
        for row in session.scalars(query)
    )


def span_of(row: Any) -> tuple[int, int]:
    """Return ports, or ICMP type and code; -1 is any."""
    first, last = (row.start, row.end) if row.icmp_type is None else (row.icmp_type, row.icmp_code)
    return rule_text.ANY if first is None else first, rule_text.ANY if last is None else last


def _limiting(items: Sequence[str]) -> tuple[str, ...]:
    return () if rule_text.EVERYONE6 in items else tuple(items)
