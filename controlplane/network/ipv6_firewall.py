"""IPv6 firewall rules: what may come in to the guests of a network, and what they may send out."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Network

from sqlalchemy import Index
from sqlalchemy.orm import Session

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.errors import BadParameter, Unsupported
from controlplane.identity.ownership import OwnedListing
from controlplane.network import rule_text
from controlplane.network.guest_rules import DIRECTIONS, GuestRule, guest_rule_views, must_not_conflict, rules_of
from controlplane.network.networks import Network, require_service
from controlplane.network.public_ips import clears_network
from controlplane.network.rules import remove_rows, set_custom_id
from controlplane.network.traffic_rules import FirewallResponse, Packets
from drivers import vocabulary

TAGGABLE = "Ipv6FirewallRule"


class Ipv6FirewallRule(GuestRule):
    """A rule of a network with IPv6 (createIpv6FirewallRule)."""

    __tablename__ = "ipv6_firewall_rules"
    __table_args__ = (Index("ix_ipv6_firewall_rules_network", "network_id", "direction", "protocol"),)


dispatch.JOB_TABLES["Ipv6FirewallRule"] = Ipv6FirewallRule


def ipv6_firewall_views(ctx: Context, rows: Sequence[Ipv6FirewallRule]) -> list[FirewallResponse]:
    """Show IPv6 rules of either direction, as those of IPv4 are shown."""
    return guest_rule_views(ctx, rows, TAGGABLE)


class _Content(Packets):
    """The parameters that say what a rule is about."""

    cidrlist: list[str] | None = optional(description="IPv6 CIDRs that packets come from; everyone unless given")
    fordisplay: bool | None = optional(admin=True)
    traffictype: str | None = optional(choices=DIRECTIONS, description="Ingress unless given")


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
        self.name_packets(rule, rule_text.protocol6(self.protocol))
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
            self.name_packets(rule, rule_text.protocol6(self.protocol or rule.protocol))
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


@clears_network
def clear_network(session: Session, network: Network) -> None:
    """Remove the IPv6 rules of a network that goes."""
    remove_rows(session, Ipv6FirewallRule, TAGGABLE, Ipv6FirewallRule.network_id == network.id)


def rule_facts6(session: Session, network_id: int, direction: str) -> tuple[vocabulary.Ipv6Rule, ...]:
    """Return the network's IPv6 rules of a direction."""
    return tuple(
        vocabulary.Ipv6Rule(row.uuid, row.protocol, *row.span, _limiting(row.sources), _limiting(row.destinations))
        for row in rules_of(session, Ipv6FirewallRule, network_id, direction)
    )


def _limiting(items: Sequence[str]) -> tuple[str, ...]:
    return () if rule_text.EVERYONE6 in items else tuple(items)
