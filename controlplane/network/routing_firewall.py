"""The routing firewall: what may come in to the guests of a routed network, and what they may send out.

Nothing is translated, so a rule of either direction is the network's and names guests by their own addresses. What
comes in is closed until a rule opens it; what leaves follows the offering's default, and a rule is its exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ForeignKey, Index, Select, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.db.base import Created, Owned, Row
from controlplane.errors import Unsupported
from controlplane.identity.ownership import OwnedListing
from controlplane.network import rule_text
from controlplane.network.firewall import FirewallResponse, Traffic, protocols_of
from controlplane.network.ipv6_firewall import DIRECTIONS, must_not_conflict, span_of, views_of
from controlplane.network.networks import Network
from controlplane.network.public_ips import clears_network
from controlplane.network.rules import remove_rows, set_custom_id
from controlplane.reconcile.targets import Target
from drivers import routing, vocabulary

TAGGABLE = "RoutingFirewallRule"


class RoutingFirewallRule(Created, Owned, Row):
    """A rule of a routed network (createRoutingFirewallRule).

    :ivar direction: ``Ingress`` or ``Egress``.
    :ivar start: first port, and ``end`` the last one; None is any.
    :ivar sources: CIDRs, everyone where it is 0.0.0.0/0; ``destinations`` likewise.
    """

    __tablename__ = "routing_firewall_rules"
    __table_args__ = (Index("ix_routing_firewall_rules_network", "network_id", "direction", "protocol"),)

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


dispatch.JOB_TABLES["RoutingFirewallRule"] = RoutingFirewallRule


def routing_firewall_views(ctx: Context, rows: Sequence[RoutingFirewallRule]) -> list[FirewallResponse]:
    """Show rules of either direction, as those of public addresses are shown."""
    return views_of(ctx, rows, TAGGABLE)


class CreateRoutingFirewallRule(Traffic, name="createRoutingFirewallRule", roles=EVERYONE, job=True,
                                answer=one("ipforwardingrule", routing_firewall_views),
                                instance="RoutingFirewallRule",
                                event="ROUTING.IPV4.FIREWALL.RULE.CREATE"):  # fmt: skip
    """Let traffic come in to a routed network's guests; or, of what leaves, name an exception to the default."""

    type = None
    networkid: Network = required()
    traffictype: str | None = optional(choices=DIRECTIONS, description="Ingress unless given")
    destcidrlist: list[str] | None = optional(description="CIDRs that packets go to; everywhere unless given")

    def run(self, ctx: Context) -> RoutingFirewallRule:
        """Check, and make the rule."""
        network = self.networkid
        if not network.offering.routed:
            raise Unsupported(
                f"Network {network.name} is not routed: its offering {network.offering.name} translates; use "
                "createFirewallRule and createEgressFirewallRule."
            )
        if network.vpc is not None:
            raise Unsupported(f"Network {network.name} is a tier of {network.vpc.name}: it has network ACLs instead.")
        inward = self.traffictype != "Egress"
        meant = self.rule(protocols_of(network, "SupportedProtocols" if inward else "SupportedEgressProtocols"))
        rule = RoutingFirewallRule(
            network_id=network.id,
            account_id=network.account_id,
            domain_id=network.domain_id,
            direction="Ingress" if inward else "Egress",
            display=self.fordisplay is not False,
            protocol=meant.protocol,
            start=meant.start,
            end=meant.end,
            icmp_type=meant.icmp_type,
            icmp_code=meant.icmp_code,
        )
        sources = rule_text.cidr_list("cidrlist", self.cidrlist or []) or [rule_text.EVERYONE]
        ends = rule_text.cidr_list("destcidrlist", self.destcidrlist or []) or [rule_text.EVERYONE]
        name, near = ("destcidrlist", ends) if inward else ("cidrlist", sources)
        if near != [rule_text.EVERYONE]:
            rule_text.inside(name, near, network.cidr or "")
        rule.sources, rule.destinations = sources, ends
        must_not_conflict(ctx.session, rule)
        ctx.session.add(rule)
        ctx.touch(network)
        return rule


class UpdateRoutingFirewallRule(Command, name="updateRoutingFirewallRule", roles=EVERYONE, job=True,
                                answer=one("ipforwardingrule", routing_firewall_views),
                                instance="RoutingFirewallRule",
                                event="ROUTING.IPV4.FIREWALL.RULE.UPDATE"):  # fmt: skip
    """Change how a rule is shown."""

    id: RoutingFirewallRule = required()
    customid: str | None = optional(admin=True)
    fordisplay: bool | None = optional(admin=True)

    def run(self, ctx: Context) -> RoutingFirewallRule:
        """Change it."""
        rule = self.id
        if self.fordisplay is not None:
            rule.display = self.fordisplay
        if self.customid is not None:
            set_custom_id(ctx, rule, TAGGABLE, self.customid)
            ctx.touch(rule)  # the router counts a rule's packets under its id
        return rule


class DeleteRoutingFirewallRule(Command, name="deleteRoutingFirewallRule", roles=EVERYONE, job=True, answer=success(),
                                instance="RoutingFirewallRule",
                                event="ROUTING.IPV4.FIREWALL.RULE.DELETE"):  # fmt: skip
    """Delete a rule."""

    id: RoutingFirewallRule = required()

    def run(self, ctx: Context) -> None:
        """Delete it."""
        ctx.instance = self.id
        ctx.touch(self.id)
        remove_rows(ctx.session, RoutingFirewallRule, TAGGABLE, RoutingFirewallRule.id == self.id.id)


class ListRoutingFirewallRules(OwnedListing, name="listRoutingFirewallRules", roles=EVERYONE,
                               answer=many("firewallrule", routing_firewall_views)):  # fmt: skip
    """List the rules of routed networks."""

    table = RoutingFirewallRule
    keywords = (RoutingFirewallRule.protocol,)
    taggable = TAGGABLE

    id: RoutingFirewallRule | None = matching(RoutingFirewallRule.id)
    networkid: Network | None = matching(RoutingFirewallRule.network_id)
    traffictype: str | None = matching(RoutingFirewallRule.direction, choices=DIRECTIONS)
    fordisplay: bool | None = matching(RoutingFirewallRule.display, admin=True)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep them all."""
        del ctx
        return query


@clears_network
def clear_network(session: Session, network: Network) -> None:
    """Remove the rules of a network that goes."""
    remove_rows(session, RoutingFirewallRule, TAGGABLE, RoutingFirewallRule.network_id == network.id)


def rules_of(session: Session, network: Network, direction: str) -> Sequence[RoutingFirewallRule]:
    """Return the network's rules of a direction."""
    mine = RoutingFirewallRule.network_id == network.id, RoutingFirewallRule.direction == direction
    return session.scalars(select(RoutingFirewallRule).where(*mine).order_by(RoutingFirewallRule.id)).all()


def routed_ingress_facts(session: Session, network: Network) -> tuple[routing.RoutedRule, ...]:
    """Return what may come in to the guests of a routed network."""
    return tuple(
        routing.RoutedRule(
            row.uuid, row.protocol, *span_of(row), rule_text.limiting(row.sources), rule_text.limiting(row.destinations)
        )
        for row in rules_of(session, network, "Ingress")
    )


def routed_egress_facts(session: Session, network: Network) -> tuple[vocabulary.EgressRule, ...]:
    """Return the exceptions to what may leave a routed network by default."""
    return tuple(
        vocabulary.EgressRule(
            row.uuid, row.protocol, *span_of(row), rule_text.limiting(row.sources), rule_text.limiting(row.destinations)
        )
        for row in rules_of(session, network, "Egress")
    )
