"""Making, changing and listing load balancer rules."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.base import new_uuid
from controlplane.errors import BadParameter, RuleConflict
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import OwnedListing, owner_of_new
from controlplane.network import rule_text
from controlplane.network.balancer_trial import must_balance, must_be_possible, one_of, require
from controlplane.network.claims import BALANCING, PortClaim, claim, give_up
from controlplane.network.firewall import FirewallRule, close_related, open_related
from controlplane.network.load_balancers import (
    TAGGABLE,
    LoadBalancer,
    LoadBalancerMember,
    balancer_views,
    remove_balancers,
)
from controlplane.network.networks import Network, require_service
from controlplane.network.parts import ensure_balancer, take_down_idle
from controlplane.network.public_ips import PublicIp, acquire, release
from controlplane.network.purposes import must_take, network_of
from controlplane.network.routers import part_of_balancing
from controlplane.network.rules import set_custom_id
from controlplane.offering.services import PUBLIC
from controlplane.zone.zones import Zone


def public_of(rule: LoadBalancer) -> PublicIp:
    """Return the public address of a rule.

    :raises BadParameter: it is one between tiers, for the commands …LoadBalancer.
    """
    if rule.public_ip is None:
        raise BadParameter(
            f"Invalid parameter id value={rule.uuid}: it balances between tiers, for the commands …LoadBalancer."
        )
    return rule.public_ip


def transport(protocol: str) -> str:
    """Return what a balanced protocol runs on: ``tcp`` or ``udp``."""
    return "udp" if protocol == "udp" else "tcp"


def printable(text: str) -> str:
    """Return a text that may stand in a daemon's file as a comment or name.

    :raises ValueError: it has control characters, which the API does not let through anywhere either.
    """
    if not text.strip() or not text.isprintable():
        raise ValueError("it must be text on one line")
    return text


class CreateLoadBalancerRule(Command, name="createLoadBalancerRule", answer=one("loadbalancer", balancer_views),
                             job=True, creates=True, instance="LoadBalancerRule", roles=EVERYONE,
                             event="LB.CREATE"):  # fmt: skip
    """Balance connections to a port of a public address; without an address, a new one is taken for the rule."""

    algorithm: str = required(description="roundrobin, leastconn or source")
    name: str = required(check=printable)
    privateport: int = required()
    publicport: int = required()
    account: str | None = optional()
    cidrlist: list[str] | None = optional(description="sources that may connect; everyone unless given")
    description: str | None = optional(length=4096)
    domainid: Domain | None = optional()
    fordisplay: bool | None = optional(True, admin=True)
    networkid: Network | None = optional(uses=True)
    openfirewall: bool | None = optional(True)
    protocol: str | None = optional("tcp", description="tcp, udp, tcp-proxy or ssl, as far as the provider has it")
    publicipid: PublicIp | None = optional()
    zoneid: Zone | None = optional()

    def run(self, ctx: Context) -> LoadBalancer:
        """Check, and make the rule."""
        session = ctx.session
        ip = self.publicipid or self._new_address(ctx)
        network = network_of(session, ip, self.networkid, "publicipid")
        if self.zoneid is not None and self.zoneid.id != network.zone_id:
            raise BadParameter(f"Invalid parameter zoneid value={self.zoneid.uuid}: {ip.address} is in another zone.")
        must_take(session, ip, network, BALANCING)
        must_balance(network, PUBLIC)
        rule = self._rule(ip, network)
        wanted = PortClaim(public_ip_id=ip.id, protocol=transport(rule.protocol), port=rule.public_port)
        wanted.rule_uuid, wanted.purpose = rule.uuid, BALANCING
        claim(session, wanted, rule.public_port)
        session.add(rule)
        must_be_possible(session, rule)
        if self.openfirewall:
            opened = FirewallRule(protocol=wanted.protocol, start=rule.public_port, end=rule.public_port)
            opened.sources, opened.related_uuid = [rule_text.EVERYONE], rule.uuid
            open_related(session, network, ip, opened)
        if network.offering.elastic_lb:
            self._start_appliance(ctx, ip, network)
        ctx.touch(rule)
        return rule

    def _start_appliance(self, ctx: Context, ip: PublicIp, network: Network) -> None:
        """Have the account's own appliance take the address; the first rule starts it."""
        assert ip.account_id is not None
        ip.part = part_of_balancing(ip.account_id)
        ctx.session.flush()
        ctx.touch(ensure_balancer(ctx.session, network, ip.account_id))

    def _rule(self, ip: PublicIp, network: Network) -> LoadBalancer:
        public, _ = rule_text.port_range("publicport", self.publicport, "publicport", None)
        private, _ = rule_text.port_range("privateport", self.privateport, "privateport", None)
        protocol = one_of(network, "protocol", self.protocol or "tcp", "SupportedProtocols")
        if protocol == "ssl":
            require(network, "SslTermination", "TLS termination")
        return LoadBalancer(
            uuid=new_uuid(),
            account_id=ip.account_id,
            domain_id=ip.domain_id,
            network_id=network.id,
            public_ip_id=ip.id,
            name=self.name,
            description=self.description,
            algorithm=one_of(network, "algorithm", self.algorithm, "SupportedLBAlgorithms"),
            protocol=protocol,
            public_port=public,
            private_port=private,
            sources=rule_text.cidr_list("cidrlist", self.cidrlist or []),
            display=self.fordisplay is not False,
        )

    def _new_address(self, ctx: Context) -> PublicIp:
        """Return an address that is the rule's own, and goes with it."""
        if self.networkid is None:
            raise BadParameter("Invalid parameter publicipid: give it, or networkid for a new address on that network.")
        require_service(self.networkid, "Lb")
        own = bool(self.account) or self.networkid.guest_type == "Shared"  # whose account is nobody's
        owner = (
            owner_of_new(ctx, self.account, self.domainid)
            if own
            else ctx.session.get_one(Account, self.networkid.account_id)
        )
        ip = acquire(ctx.session, self.networkid.whole, owner)
        ip.is_system = True
        return ip


class UpdateLoadBalancerRule(Command, name="updateLoadBalancerRule", answer=one("loadbalancer", balancer_views),
                             job=True, instance="LoadBalancerRule", roles=EVERYONE, event="LB.UPDATE"):  # fmt: skip
    """Change a load balancer rule in place."""

    id: LoadBalancer = required()
    algorithm: str | None = optional()
    cidrlist: list[str] | None = optional()
    customid: str | None = optional(admin=True)
    description: str | None = optional(length=4096)
    fordisplay: bool | None = optional(admin=True)
    name: str | None = optional(check=printable)
    protocol: str | None = optional()

    def run(self, ctx: Context) -> LoadBalancer:
        """Check, and change the rule."""
        rule = self.id
        network = rule.network
        public_of(rule)
        if self.algorithm:
            rule.algorithm = one_of(network, "algorithm", self.algorithm, "SupportedLBAlgorithms")
        if self.protocol:
            self._change_protocol(ctx, rule, one_of(network, "protocol", self.protocol, "SupportedProtocols"))
        if self.cidrlist is not None:
            rule.sources = rule_text.cidr_list("cidrlist", self.cidrlist)
        rule.name = self.name or rule.name
        rule.description = rule.description if self.description is None else self.description
        rule.display = rule.display if self.fordisplay is None else self.fordisplay
        set_custom_id(ctx, rule, TAGGABLE, self.customid)
        must_be_possible(ctx.session, rule)
        ctx.touch(rule)
        return rule

    def _change_protocol(self, ctx: Context, rule: LoadBalancer, protocol: str) -> None:
        if protocol != "ssl" and rule.certificate_id is not None:
            raise RuleConflict(
                f"Invalid parameter protocol value={protocol}: load balancer rule {rule.name} has a certificate: "
                "remove it before leaving ssl."
            )
        if protocol == "ssl":
            require(rule.network, "SslTermination", "TLS termination")
        old, new = transport(rule.protocol), transport(protocol)
        rule.protocol = protocol
        if old == new:
            return
        give_up(ctx.session, rule.uuid)
        wanted = PortClaim(public_ip_id=public_of(rule).id, protocol=new, port=rule.public_port)
        wanted.rule_uuid, wanted.purpose = rule.uuid, BALANCING
        claim(ctx.session, wanted, rule.public_port)
        opened = select(FirewallRule.id).where(FirewallRule.related_uuid == rule.uuid)
        if ctx.session.scalar(opened) is not None:
            close_related(ctx.session, rule.uuid)
            follow = FirewallRule(protocol=new, start=rule.public_port, end=rule.public_port, related_uuid=rule.uuid)
            follow.sources = [rule_text.EVERYONE]
            open_related(ctx.session, rule.network, public_of(rule), follow)


class DeleteLoadBalancerRule(Command, name="deleteLoadBalancerRule", answer=success(), job=True,
                             instance="LoadBalancerRule", roles=EVERYONE, event="LB.DELETE"):  # fmt: skip
    """Delete a load balancer rule with its policies; an address that was taken for rules goes with the last of them."""

    id: LoadBalancer = required()

    def run(self, ctx: Context) -> None:
        """Delete it."""
        ip = public_of(self.id)
        ctx.instance = self.id
        ctx.touch(self.id)
        network, owner = self.id.network, self.id.account_id
        remove_balancers(ctx.session, LoadBalancer.id == self.id.id)
        others = select(LoadBalancer.id).where(LoadBalancer.public_ip_id == ip.id).limit(1)
        if ip.is_system and ctx.session.scalar(others) is None:
            release(ctx.session, ip)
        if network.offering.elastic_lb:
            ctx.touched += take_down_idle(ctx.session, network, owner)


class BalancerListing(OwnedListing):
    """What load balancers of either kind are asked by."""

    table = LoadBalancer
    keywords = (LoadBalancer.name,)
    taggable = TAGGABLE

    id: LoadBalancer | None = matching(LoadBalancer.id)
    name: str | None = matching(LoadBalancer.name)
    networkid: Network | None = matching(LoadBalancer.network_id)
    fordisplay: bool | None = matching(LoadBalancer.display, admin=True)


class ListLoadBalancerRules(
    BalancerListing, name="listLoadBalancerRules", answer=many("loadbalancerrule", balancer_views), roles=EVERYONE
):
    """List load balancer rules."""

    publicipid: PublicIp | None = matching(LoadBalancer.public_ip_id)
    virtualmachineid: VirtualMachine | None = optional(description="rules that this machine serves")
    zoneid: Zone | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep the rules of the machine and of the zone."""
        del ctx
        query = query.where(LoadBalancer.public_ip_id.is_not(None))
        if self.virtualmachineid is not None:
            served = select(LoadBalancerMember.load_balancer_id).where(
                LoadBalancerMember.vm_id == self.virtualmachineid.id
            )
            query = query.where(LoadBalancer.id.in_(served))
        if self.zoneid is not None:
            query = query.where(
                LoadBalancer.public_ip_id.in_(select(PublicIp.id).where(PublicIp.zone_id == self.zoneid.id))
            )
        return query
