"""Firewall rules: what may come in on a public address, and what may leave a guest network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import ForeignKey, Index, Select, String, Table, and_, bindparam, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.db.base import Row, Stamped
from controlplane.errors import BadParameter, RuleConflict, Unsupported
from controlplane.identity.ownership import OwnedListing
from controlplane.identity.tags import tags_of
from controlplane.network import rule_text
from controlplane.network.networks import Network, require_service, services_of
from controlplane.network.public_ips import PublicIp, clears_address
from controlplane.network.purposes import network_of
from controlplane.network.rule_facts import Lists, addresses_of, stored
from controlplane.network.rule_pages import Pages
from controlplane.network.rules import remove_rows, rows_by_id, set_custom_id
from controlplane.network.traffic_rules import FirewallResponse, Packets, TrafficRule, span
from drivers import registry, vocabulary

TAGGABLE = "FirewallRule"


class FirewallRule(Stamped, TrafficRule, Row):
    """An ingress rule of a public address (createFirewallRule), or a network's egress rule (createEgressFirewallRule).

    :ivar public_ip_id: None on an egress rule.
    :ivar related_uuid: the port forwarding or load balancer rule that opened it and takes it along when it goes.
    """

    __tablename__ = "firewall_rules"
    __table_args__ = (
        Index("ix_firewall_rules_ingress", "public_ip_id", "protocol", "start", "end"),
        Index("ix_firewall_rules_egress", "network_id", "public_ip_id", "protocol", "start", "end"),
        Index("ix_firewall_rules_pages", "network_id", "id", "stamp"),
    )

    public_ip_id: Mapped[int | None] = mapped_column(ForeignKey("public_ips.id"))
    related_uuid: Mapped[str | None] = mapped_column(String(40), index=True)
    public_ip: Mapped[PublicIp | None] = relationship()


dispatch.JOB_TABLES["FirewallRule"] = FirewallRule


def firewall_views(ctx: Context, rows: Sequence[FirewallRule]) -> list[FirewallResponse]:
    """Show firewall rules of either direction."""
    networks = rows_by_id(ctx.session, (Network.id, Network.uuid), (row.network_id for row in rows))
    columns = PublicIp.id, PublicIp.uuid, PublicIp.address
    addresses = rows_by_id(ctx.session, columns, (row.public_ip_id for row in rows))
    tags, admin = tags_of(ctx, TAGGABLE, rows), ctx.caller.is_admin
    found = []
    for row in rows:
        address = addresses.get(row.public_ip_id or 0)
        found.append(
            FirewallResponse(
                id=row.uuid,
                protocol=row.protocol,
                startport=row.start,
                endport=row.end,
                icmptype=row.icmp_type,
                icmpcode=row.icmp_code,
                cidrlist=",".join(row.sources),
                destcidrlist=",".join(row.destinations) if address is None else None,
                ipaddress=address.address if address else None,
                ipaddressid=address.uuid if address else None,
                networkid=networks[row.network_id].uuid,
                state=row.state,
                traffictype="Ingress" if address else "Egress",
                fordisplay=row.display if admin else None,
                tags=tags[row.id],
            )
        )
    return found


class Traffic(Packets):
    """The parameters that rules of both directions have."""

    protocol: str = required(description="tcp, udp, icmp or all, or its number")
    cidrlist: list[str] | None = optional(description="source CIDRs")
    fordisplay: bool | None = optional(True, admin=True)
    type: str | None = optional("user", choices=("user", "system"))

    def rule(self, allowed: Sequence[str]) -> FirewallRule:
        """Return the rule that the parameters mean; whose it is, and its CIDRs, are for the caller to say.

        :raises BadParameter: they contradict each other.
        """
        if self.type == "system":
            raise BadParameter(
                "Invalid parameter type value=system: system rules are made by the system; leave it out."
            )
        rule = FirewallRule(display=self.fordisplay is not False)
        self.name_packets(rule, rule_text.protocol(self.protocol, allowed))
        return rule


def protocols_of(network: Network, capability: str) -> list[str]:
    """Return the protocols that the network's firewall knows, as its provider declares them.

    :param capability: ``SupportedProtocols`` or ``SupportedEgressProtocols``.
    :raises Unsupported: the network has no firewall.
    """
    require_service(network, "Firewall")
    installed = registry.network_providers()
    for provider in services_of(network)["Firewall"]:
        if provider in installed:
            declared = installed[provider].capabilities.get("Firewall", {}).get(capability, "")
            return [name.strip().lower() for name in declared.split(",") if name.strip()]
    return ["tcp", "udp", "icmp", "all"]


_rules = cast("Table", FirewallRule.__table__)
_SEEN = select(_rules.c.uuid, _rules.c.start, _rules.c.end, _rules.c.sources, _rules.c.destinations)
_ON_PORTS = _SEEN.where(  # built once: it is asked for every new rule
    _rules.c.public_ip_id == bindparam("ip"),
    _rules.c.protocol == bindparam("protocol"),
    or_(
        _rules.c.start.is_(None),
        and_(_rules.c.start <= bindparam("last"), _rules.c.end >= bindparam("first")),
    ),
)


def must_not_conflict(session: Session, rule: FirewallRule) -> None:
    """Make sure that no other rule of the same direction says something about the same packets.

    Two rules conflict when they have the protocol, a port (or ICMP type and code) and a CIDR in common.

    :raises RuleConflict: one does; the sentence names it.
    """
    _refuse_conflicts(rule, _overlapping(session, rule))


def _overlapping(session: Session, rule: FirewallRule) -> Sequence[Any]:
    """Return the rules with a port, or the ICMP type and code, of this one."""
    if rule.public_ip_id is not None and rule.start is not None:
        span = {"ip": rule.public_ip_id, "protocol": rule.protocol, "first": rule.start, "last": rule.end}
        return session.execute(_ON_PORTS, span).all()
    same = [_rules.c.protocol == rule.protocol, _rules.c.public_ip_id == rule.public_ip_id]
    if rule.public_ip_id is None:
        same.append(_rules.c.network_id == rule.network_id)
    if rule.protocol == "icmp":
        same += [_rules.c.icmp_type == rule.icmp_type, _rules.c.icmp_code == rule.icmp_code]
    elif rule.start is not None:
        same.append(_rules.c.start.is_(None) | ((_rules.c.start <= rule.end) & (_rules.c.end >= rule.start)))
    return session.execute(_SEEN.where(*same)).all()


def _named(rule: FirewallRule) -> str:
    """Return the parameter that a conflict is about, with its value."""
    if rule.start is not None:
        return f"startport value={rule.start}"
    return f"icmptype value={rule.icmp_type}" if rule.protocol == "icmp" else f"protocol value={rule.protocol}"


def _refuse_conflicts(rule: FirewallRule, others: Sequence[Any]) -> None:
    for other in others:
        common = sorted(set(rule.sources) & set(other.sources))
        if common and (rule.public_ip_id is not None or set(rule.destinations) & set(other.destinations)):
            ports = rule_text.ports_text(other.start, other.end) if other.start is not None else "everything"
            raise RuleConflict(
                f"Invalid parameter {_named(rule)}: the new firewall rule conflicts with rule {other.uuid}, which "
                f"names {rule.protocol} ({ports}) from {common[0]} as well: change that one, or leave this one out."
            )


class CreateFirewallRule(Traffic, name="createFirewallRule", answer=one("firewallrule", firewall_views), job=True,
                         creates=True, instance="FirewallRule", roles=EVERYONE, event="FIREWALL.OPEN"):  # fmt: skip
    """Let traffic come in on a public address."""

    ipaddressid: PublicIp = required()

    def run(self, ctx: Context) -> FirewallRule:
        """Check, and make the rule."""
        ip = self.ipaddressid
        if ip.vpc_id is not None:
            raise Unsupported(
                f"Public address {ip.address} is a VPC's: its tiers have network ACLs instead of a firewall."
            )
        network = network_of(ctx.session, ip, None)
        if network.offering.routed:
            raise Unsupported(f"Network {network.name} is routed: use createRoutingFirewallRule.")
        rule = self.rule(protocols_of(network, "SupportedProtocols"))
        rule.sources = rule_text.cidr_list("cidrlist", self.cidrlist or []) or [rule_text.EVERYONE]
        _place(rule, ip)
        must_not_conflict(ctx.session, rule)
        ctx.session.add(rule)
        ctx.touch(network)
        return rule


def _place(rule: FirewallRule, ip: PublicIp) -> None:
    assert ip.account_id is not None
    assert ip.domain_id is not None
    assert ip.network_id is not None
    rule.account_id, rule.domain_id = ip.account_id, ip.domain_id
    rule.network_id, rule.public_ip_id = ip.network_id, ip.id


def open_related(session: Session, network: Network, ip: PublicIp, related: FirewallRule) -> None:
    """Open the firewall for a rule's ports (``openfirewall``), unless a rule for just these ports is there.

    :param related: protocol, ports, sources and ``related_uuid``.
    :raises RuleConflict: another rule names some of these ports.
    """
    if "Firewall" not in services_of(network):
        return
    _place(related, ip)
    there = _overlapping(session, related)
    if not any((rule.start, rule.end) == (related.start, related.end) for rule in there):
        _refuse_conflicts(related, there)
        session.add(related)


def close_related(session: Session, rule_uuid: str) -> None:
    """Close what was opened for a rule that goes."""
    remove_rows(session, FirewallRule, TAGGABLE, FirewallRule.related_uuid == rule_uuid)


class DeleteFirewallRule(Command, name="deleteFirewallRule", answer=success(), job=True, instance="FirewallRule",
                         roles=EVERYONE, event="FIREWALL.CLOSE"):  # fmt: skip
    """Delete a firewall rule."""

    id: FirewallRule = required()

    def run(self, ctx: Context) -> None:
        """Delete it."""
        delete_rule(ctx, self.id, ingress=True)


def delete_rule(ctx: Context, rule: FirewallRule, *, ingress: bool) -> None:
    """Delete a rule of the direction.

    :raises BadParameter: it is one of the other direction.
    """
    must_have_direction(rule, ingress=ingress)
    ctx.instance = rule
    ctx.touch(rule)
    remove_rows(ctx.session, FirewallRule, TAGGABLE, FirewallRule.id == rule.id)


def must_have_direction(rule: FirewallRule, *, ingress: bool) -> None:
    """Make sure that the rule goes in the direction that the command is about.

    :raises BadParameter: it does not.
    """
    if (rule.public_ip_id is not None) != ingress:
        direction, other = ("an egress", "Egress") if ingress else ("an ingress", "")
        raise BadParameter(
            f"Invalid parameter id value={rule.uuid}: it is {direction} rule, for the commands …{other}FirewallRule."
        )


class UpdateFirewallRule(Command, name="updateFirewallRule", answer=one("firewallrule", firewall_views), job=True,
                         instance="FirewallRule", roles=EVERYONE, event="FIREWALL.UPDATE"):  # fmt: skip
    """Change how a firewall rule is shown."""

    id: FirewallRule = required()
    customid: str | None = optional(admin=True)
    fordisplay: bool | None = optional(admin=True)

    def run(self, ctx: Context) -> FirewallRule:
        """Change it."""
        return update_rule(ctx, self.id, self.fordisplay, self.customid, ingress=True)


def update_rule(
    ctx: Context, rule: FirewallRule, fordisplay: bool | None, customid: str | None, *, ingress: bool
) -> FirewallRule:
    """Change how a rule of the direction is shown, and its UUID."""
    must_have_direction(rule, ingress=ingress)
    if fordisplay is not None:
        rule.display = fordisplay
    if customid is not None:
        set_custom_id(ctx, rule, TAGGABLE, customid)
        ctx.touch(rule)  # the router counts a rule's packets under its id
    return rule


class FirewallListing(OwnedListing):
    """What lists of either direction are asked by."""

    table = FirewallRule
    keywords = (FirewallRule.protocol,)
    taggable = TAGGABLE

    id: FirewallRule | None = matching(FirewallRule.id)
    ipaddressid: PublicIp | None = matching(FirewallRule.public_ip_id)
    networkid: Network | None = matching(FirewallRule.network_id)
    fordisplay: bool | None = matching(FirewallRule.display, admin=True)


class ListFirewallRules(FirewallListing, name="listFirewallRules", answer=many("firewallrule", firewall_views),
                        roles=EVERYONE):  # fmt: skip
    """List the firewall rules of public addresses."""

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep the rules of public addresses."""
        del ctx
        return query.where(FirewallRule.public_ip_id.is_not(None))


@clears_address
def clear_address(session: Session, ip: PublicIp) -> None:
    """Remove the firewall rules of an address that is given back."""
    remove_rows(session, FirewallRule, TAGGABLE, FirewallRule.public_ip_id == ip.id)


def carry(session: Session, ip: PublicIp, network: Network) -> bool:
    """Take an address's rules along to the network that it moves to; they are removed where it has no firewall."""
    if network.vpc_id is not None or "Firewall" not in services_of(network):
        clear_address(session, ip)
        return False
    for rule in session.scalars(select(FirewallRule).where(FirewallRule.public_ip_id == ip.id)):
        rule.network_id = network.id
    return True


def ingress_facts(session: Session, network_id: int) -> tuple[vocabulary.IngressRule, ...]:
    """Return what may come in on the network's public addresses."""
    addresses, known = addresses_of(session, network_id), Lists()

    def fact(uuid: str, ip: int, protocol: str, sources: str, *ports: int | None) -> vocabulary.IngressRule | None:
        if ip not in addresses:
            return None
        return vocabulary.IngressRule(uuid, addresses[ip], protocol, *span(*ports), known[sources])

    return _INGRESS.read(session, network_id, addresses, fact)


_INGRESS = Pages[vocabulary.IngressRule](
    _rules,
    (_rules.c.uuid, _rules.c.public_ip_id, _rules.c.protocol, stored(_rules.c.sources),
     _rules.c.start, _rules.c.end, _rules.c.icmp_type, _rules.c.icmp_code),
    _rules.c.public_ip_id.is_not(None),
)  # fmt: skip


def egress_facts(session: Session, network_id: int) -> tuple[vocabulary.EgressRule, ...]:
    """Return the network's egress rules; whether they allow or deny is the offering's default to say."""
    rule = _rules.c
    columns = rule.uuid, rule.protocol, rule.start, rule.end, rule.icmp_type, rule.icmp_code
    query = select(*columns, stored(rule.sources), stored(rule.destinations))
    mine, known = (rule.network_id == network_id, rule.public_ip_id.is_(None)), Lists()
    return tuple(
        vocabulary.EgressRule(uuid, protocol, *span(start, end, kind, code), known[sources], known[destinations])
        for uuid, protocol, start, end, kind, code, sources, destinations in session.execute(
            query.where(*mine).order_by(rule.id)
        )
    )
