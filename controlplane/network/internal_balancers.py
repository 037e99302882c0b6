"""Internal load balancers: between the tiers of a VPC, at an address of the tier whose machines they serve.

They run in the VPC's own router, which is on every tier already, instead of a machine of their own (InternalLbVm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.base import new_uuid
from controlplane.errors import BadParameter, NoAddress, RuleConflict
from controlplane.identity.ownership import owner_fields
from controlplane.identity.tags import TagResponse, tags_of
from controlplane.network import rule_text
from controlplane.network.addressing import first_free, guest_range
from controlplane.network.balancer_trial import must_balance, must_be_possible, one_of
from controlplane.network.balancing import BalancerListing, printable
from controlplane.network.load_balancers import TAGGABLE, LoadBalancer, LoadBalancerMember, remove_balancers
from controlplane.network.networks import Network, require_service
from controlplane.network.nics import NetworkAddress
from controlplane.network.rules import rows_by_id, set_custom_id
from controlplane.offering.services import INTERNAL
from controlplane.zone import syntax


@dataclass(kw_only=True)
class PortsResponse(Response):
    """The ports of an internal load balancer."""

    sourceport: int
    instanceport: int
    state: str


@dataclass(kw_only=True)
class ServingResponse(Response):
    """A machine behind an internal load balancer."""

    id: str
    name: str
    ipaddress: str
    state: str


@dataclass(kw_only=True)
class InternalBalancerResponse(Response):
    """An internal load balancer."""

    id: str
    name: str
    description: str | None = None
    algorithm: str
    networkid: str
    sourceipaddress: str
    sourceipaddressnetworkid: str
    fordisplay: bool | None = None
    loadbalancerrule: list[PortsResponse]
    loadbalancerinstance: list[ServingResponse]
    account: str
    domain: str
    domainid: str
    domainpath: str
    tags: list[TagResponse]


def internal_views(ctx: Context, rows: Sequence[LoadBalancer]) -> list[InternalBalancerResponse]:
    """Show internal load balancers with the machines that they serve."""
    networks = rows_by_id(ctx.session, (Network.id, Network.uuid), (row.network_id for row in rows))
    owners, tags, members = owner_fields(ctx, rows), tags_of(ctx, TAGGABLE, rows), _members(ctx.session, rows)
    return [
        InternalBalancerResponse(
            id=row.uuid,
            name=row.name,
            description=row.description,
            algorithm=row.algorithm,
            networkid=networks[row.network_id].uuid,
            sourceipaddress=row.source_address or "",
            sourceipaddressnetworkid=networks[row.network_id].uuid,
            fordisplay=row.display if ctx.caller.is_admin else None,
            loadbalancerrule=[
                PortsResponse(sourceport=row.public_port, instanceport=row.private_port, state=row.state)
            ],
            loadbalancerinstance=members[row.id],
            tags=tags[row.id],
            **owners[row.account_id],
        )
        for row in rows
    ]


def _members(session: Session, rows: Sequence[LoadBalancer]) -> dict[int, list[ServingResponse]]:
    found: dict[int, list[ServingResponse]] = {row.id: [] for row in rows}
    columns = LoadBalancerMember.load_balancer_id, LoadBalancerMember.address
    machine = VirtualMachine.uuid, VirtualMachine.name, VirtualMachine.state
    query = select(*columns, *machine).join(VirtualMachine).where(columns[0].in_(found)).order_by(columns[1])
    for number, address, uuid, name, state in session.execute(query):
        found[number].append(ServingResponse(id=uuid, name=name, ipaddress=address, state=state))
    return found


class CreateLoadBalancer(Command, name="createLoadBalancer", answer=one("loadbalancer", internal_views), job=True,
                         creates=True, instance="LoadBalancerRule", roles=EVERYONE, event="LB.CREATE"):  # fmt: skip
    """Balance connections from the tiers of a VPC to a port of an address of one of them."""

    algorithm: str = required(description="roundrobin, leastconn or source")
    instanceport: int = required()
    name: str = required(check=printable)
    networkid: Network = required()
    scheme: str = required(choices=(INTERNAL,))
    sourceipaddressnetworkid: Network = required()
    sourceport: int = required()
    sourceipaddress: str | None = optional(check=syntax.ipv4, description="of the tier; the lowest free one by default")
    description: str | None = optional(length=4096)
    fordisplay: bool | None = optional(True, admin=True)

    def run(self, ctx: Context) -> LoadBalancer:
        """Check, and make it."""
        network, session = self.networkid, ctx.session
        if network.vpc is None or self.sourceipaddressnetworkid.id != network.id:
            raise BadParameter(
                f"Invalid parameter sourceipaddressnetworkid value={self.sourceipaddressnetworkid.uuid}: it must be "
                f"networkid, and the tier of a VPC, as the address is one of the tier whose machines serve."
            )
        require_service(network, "Lb")
        must_balance(network, INTERNAL)
        rule = LoadBalancer(
            uuid=new_uuid(),
            account_id=network.account_id,
            domain_id=network.domain_id,
            network_id=network.id,
            name=self.name,
            description=self.description,
            algorithm=one_of(network, "algorithm", self.algorithm, "SupportedLBAlgorithms"),
            public_port=rule_text.port_range("sourceport", self.sourceport, "sourceport", None)[0],
            private_port=rule_text.port_range("instanceport", self.instanceport, "instanceport", None)[0],
            sources=[network.vpc.cidr],
            display=self.fordisplay is not False,
        )
        rule.source_address = self._address(session, network, rule)
        session.add(rule)
        must_be_possible(session, rule)
        ctx.touch(network)
        return rule

    def _address(self, session: Session, network: Network, rule: LoadBalancer) -> str:
        """Return the address that it answers at, which several of them may share by their ports."""
        assert network.cidr is not None
        mine = LoadBalancer.network_id == network.id, LoadBalancer.source_address == self.sourceipaddress
        others = session.scalars(select(LoadBalancer).where(*mine)).all() if self.sourceipaddress else []
        for other in others:
            if other.public_port == rule.public_port:
                raise RuleConflict(f"Load balancer {other.uuid} has port {rule.public_port} of {other.source_address}.")
        if others:
            return str(self.sourceipaddress)
        taken = set(session.scalars(select(NetworkAddress.address).where(NetworkAddress.network_id == network.id)))
        first, last = guest_range(network.cidr, network.start_ip, network.end_ip)
        chosen = self.sourceipaddress or first_free(first, last, taken | {network.gateway or ""})
        if chosen is None:
            raise NoAddress(f"Network {network.name} has no free address left in {first}-{last}.")
        if chosen in taken | {network.gateway} or not _within(network.cidr, chosen):
            raise BadParameter(
                f"Invalid parameter sourceipaddress value={chosen}: it must be a free address of {network.cidr}."
            )
        session.add(NetworkAddress(network_id=network.id, address=chosen))
        session.flush()
        return chosen


def _within(cidr: str, address: str) -> bool:
    try:
        guest_range(cidr, address, address)
    except ValueError:
        return False
    return True


def _internal(rule: LoadBalancer) -> LoadBalancer:
    if rule.source_address is None:
        raise BadParameter(
            f"Invalid parameter id value={rule.uuid}: it balances a public address, for the commands …LoadBalancerRule."
        )
    return rule


class UpdateLoadBalancer(Command, name="updateLoadBalancer", answer=one("loadbalancer", internal_views), job=True,
                         instance="LoadBalancerRule", roles=EVERYONE, event="LB.UPDATE"):  # fmt: skip
    """Change how an internal load balancer is shown."""

    id: LoadBalancer = required()
    customid: str | None = optional(admin=True)
    fordisplay: bool | None = optional(admin=True)

    def run(self, ctx: Context) -> LoadBalancer:
        """Change it."""
        rule = _internal(self.id)
        rule.display = rule.display if self.fordisplay is None else self.fordisplay
        if self.customid is not None:
            set_custom_id(ctx, rule, TAGGABLE, self.customid)
            ctx.touch(rule)
        return rule


class DeleteLoadBalancer(Command, name="deleteLoadBalancer", answer=success(), job=True, instance="LoadBalancerRule",
                         roles=EVERYONE, event="LB.DELETE"):  # fmt: skip
    """Delete an internal load balancer; its address is free where no other has it."""

    id: LoadBalancer = required()

    def run(self, ctx: Context) -> None:
        """Delete it."""
        rule = ctx.instance = _internal(self.id)
        ctx.touch(rule)
        network, address = rule.network_id, rule.source_address
        remove_balancers(ctx.session, LoadBalancer.id == rule.id)
        same = LoadBalancer.network_id == network, LoadBalancer.source_address == address
        if ctx.session.scalar(select(LoadBalancer.id).where(*same, LoadBalancer.id != rule.id).limit(1)) is None:
            there = NetworkAddress.network_id == network, NetworkAddress.address == address
            ctx.session.execute(delete(NetworkAddress).where(*there))


class ListLoadBalancers(BalancerListing, name="listLoadBalancers", answer=many("loadbalancer", internal_views),
                        roles=EVERYONE):  # fmt: skip
    """List internal load balancers."""

    sourceipaddressnetworkid: Network | None = matching(LoadBalancer.network_id)
    sourceipaddress: str | None = matching(LoadBalancer.source_address)
    scheme: str | None = optional(choices=(INTERNAL,))

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Leave out those of public addresses."""
        del ctx
        return query.where(LoadBalancer.source_address.is_not(None))
