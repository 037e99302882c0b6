"""The routing firewall: what may come in to the guests of a routed network, and what they may send out."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Index
from sqlalchemy.orm import Session

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.errors import Unsupported
from controlplane.identity.ownership import OwnedListing
from controlplane.network import rule_text
from controlplane.network.firewall import Traffic, protocols_of
from controlplane.network.guest_rules import DIRECTIONS, GuestRule, guest_rule_views, must_not_conflict, rules_of
from controlplane.network.networks import Network
from controlplane.network.public_ips import clears_network
from controlplane.network.rules import remove_rows, set_custom_id
from controlplane.network.traffic_rules import FirewallResponse
from drivers import routing, vocabulary

TAGGABLE = "RoutingFirewallRule"


class RoutingFirewallRule(GuestRule):
    """A rule of a routed network (createRoutingFirewallRule)."""

    __tablename__ = "routing_firewall_rules"
    __table_args__ = (Index("ix_routing_firewall_rules_network", "network_id", "direction", "protocol"),)


dispatch.JOB_TABLES["RoutingFirewallRule"] = RoutingFirewallRule


def routing_firewall_views(ctx: Context, rows: Sequence[RoutingFirewallRule]) -> list[FirewallResponse]:
    """Show rules of either direction, as those of public addresses are shown."""
    return guest_rule_views(ctx, rows, TAGGABLE)


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
        allowed = protocols_of(network, "SupportedProtocols" if inward else "SupportedEgressProtocols")
        rule = RoutingFirewallRule(
            network_id=network.id,
            account_id=network.account_id,
            domain_id=network.domain_id,
            direction="Ingress" if inward else "Egress",
            display=self.fordisplay is not False,
        )
        self.name_packets(rule, rule_text.protocol(self.protocol, allowed))
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


@clears_network
def clear_network(session: Session, network: Network) -> None:
    """Remove the rules of a network that goes."""
    remove_rows(session, RoutingFirewallRule, TAGGABLE, RoutingFirewallRule.network_id == network.id)


def routed_ingress_facts(session: Session, network: Network) -> tuple[routing.RoutedRule, ...]:
    """Return what may come in to the guests of a routed network."""
    return tuple(
        routing.RoutedRule(
            row.uuid, row.protocol, *row.span, rule_text.limiting(row.sources), rule_text.limiting(row.destinations)
        )
        for row in rules_of(session, RoutingFirewallRule, network.id, "Ingress")
    )


def routed_egress_facts(session: Session, network: Network) -> tuple[vocabulary.EgressRule, ...]:
    """Return the exceptions to what may leave a routed network by default."""
    return tuple(
        vocabulary.EgressRule(
            row.uuid, row.protocol, *row.span, rule_text.limiting(row.sources), rule_text.limiting(row.destinations)
        )
        for row in rules_of(session, RoutingFirewallRule, network.id, "Egress")
    )
