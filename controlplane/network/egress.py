"""Egress rules: what guests may send out, beside the default of their network's offering.

Where the offering allows by default, a rule denies; where it denies, a rule allows. Which of the two is the router's to
know: a rule is the same row.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import optional, required
from controlplane.errors import BadParameter, Unsupported
from controlplane.network import rule_text
from controlplane.network.firewall import (
    TAGGABLE,
    FirewallListing,
    FirewallRule,
    Traffic,
    delete_rule,
    firewall_views,
    must_not_conflict,
    protocols_of,
    update_rule,
)
from controlplane.network.networks import Network
from controlplane.network.public_ips import clears_network
from controlplane.network.rules import remove_rows


class CreateEgressFirewallRule(Traffic, name="createEgressFirewallRule", answer=one("firewallrule", firewall_views),
                               job=True, creates=True, instance="FirewallRule", roles=EVERYONE,
                               event="FIREWALL.EGRESS.OPEN"):  # fmt: skip
    """Allow (or, where the offering allows by default, deny) what guests send out."""

    networkid: Network = required()
    destcidrlist: list[str] | None = optional(description="destination CIDRs; everywhere unless given")

    def run(self, ctx: Context) -> FirewallRule:
        """Check, and make the rule."""
        network = self.networkid
        if network.offering.routed:
            raise Unsupported(f"Network {network.name} is routed: use createRoutingFirewallRule, traffictype=Egress.")
        rule = self.rule(protocols_of(network, "SupportedEgressProtocols"))
        if network.cidr is None and network.cidr6:
            raise BadParameter(
                f"Invalid parameter networkid value={network.uuid}: {network.name} has IPv6 alone: "
                "use createIpv6FirewallRule with traffictype=Egress."
            )
        if network.guest_type != "Isolated" or network.cidr is None:
            raise BadParameter(
                f"Invalid parameter networkid value={network.uuid}: egress rules are for isolated networks, "
                f"and {network.name} is {network.guest_type}."
            )
        sources = rule_text.cidr_list("cidrlist", self.cidrlist or []) or [network.cidr]
        rule.sources = rule_text.inside("cidrlist", sources, network.cidr)
        rule.destinations = rule_text.cidr_list("destcidrlist", self.destcidrlist or []) or [rule_text.EVERYONE]
        rule.account_id, rule.domain_id, rule.network_id = network.account_id, network.domain_id, network.id
        must_not_conflict(ctx.session, rule)
        ctx.session.add(rule)
        ctx.touch(network)
        return rule


class DeleteEgressFirewallRule(Command, name="deleteEgressFirewallRule", answer=success(), job=True,
                               instance="FirewallRule", roles=EVERYONE, event="FIREWALL.EGRESS.CLOSE"):  # fmt: skip
    """Delete an egress rule."""

    id: FirewallRule = required()

    def run(self, ctx: Context) -> None:
        """Delete it."""
        delete_rule(ctx, self.id, ingress=False)


class UpdateEgressFirewallRule(Command, name="updateEgressFirewallRule", answer=one("firewallrule", firewall_views),
                               job=True, instance="FirewallRule", roles=EVERYONE,
                               event="FIREWALL.EGRESS.UPDATE"):  # fmt: skip
    """Change how an egress rule is shown."""

    id: FirewallRule = required()
    customid: str | None = optional(admin=True)
    fordisplay: bool | None = optional(admin=True)

    def run(self, ctx: Context) -> FirewallRule:
        """Change it."""
        return update_rule(ctx, self.id, self.fordisplay, self.customid, ingress=False)


class ListEgressFirewallRules(FirewallListing, name="listEgressFirewallRules",
                              answer=many("firewallrule", firewall_views), roles=EVERYONE):  # fmt: skip
    """List egress rules."""

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep the rules of networks."""
        del ctx
        return query.where(FirewallRule.public_ip_id.is_(None))


@clears_network
def clear_network(session: Session, network: Network) -> None:
    """Remove the egress rules of a network that goes."""
    theirs = FirewallRule.network_id == network.id, FirewallRule.public_ip_id.is_(None)
    remove_rows(session, FirewallRule, TAGGABLE, *theirs)
