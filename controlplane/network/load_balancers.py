"""Load balancer rules: their rows, how they look, and what a provider is told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, ForeignKey, String, Text, UniqueConstraint, delete, select
from sqlalchemy.orm import Mapped, Session, joinedload, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import Caller
from controlplane.api.context import Context, owned_by
from controlplane.api.responses import Response
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.base import Base, Created, Owned, Row
from controlplane.db.secrets import Secret
from controlplane.identity.ownership import owner_fields
from controlplane.identity.tags import TagResponse, tags_of
from controlplane.network.claims import PortClaim
from controlplane.network.firewall import close_related
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.public_ips import ALLOCATING, PublicIp, clears_address, clears_network, clears_nic
from controlplane.network.routers import part_of_balancing
from controlplane.network.rule_text import limiting
from controlplane.network.rules import remove_rows, rows_by_id
from controlplane.reconcile.targets import Target
from controlplane.zone.zones import Zone
from drivers import balancing

TAGGABLE = "LoadBalancer"


class Certificate(Created, Owned, Row):
    """A TLS certificate with its key and chain (uploadSslCert); the key is encrypted and never shown."""

    __tablename__ = "ssl_certs"

    name: Mapped[str] = mapped_column(String(255))
    certificate: Mapped[str] = mapped_column(Text)
    chain: Mapped[str] = mapped_column(Text, default="")
    key: Mapped[str] = mapped_column(Secret)
    fingerprint: Mapped[str] = mapped_column(String(100))


class LoadBalancer(Created, Owned, Row):
    """A load balancer rule: of a public address (createLoadBalancerRule), or between tiers (createLoadBalancer).

    :ivar source_address: of a rule between tiers: the address of its own tier that it answers at.
    """

    __tablename__ = "load_balancers"
    __table_args__ = (UniqueConstraint("network_id", "source_address", "public_port"),)

    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str | None] = mapped_column(String(4096))
    network_id: Mapped[int] = mapped_column(ForeignKey("networks.id"), index=True)
    public_ip_id: Mapped[int | None] = mapped_column(ForeignKey("public_ips.id"), index=True)
    source_address: Mapped[str | None] = mapped_column(String(40))
    algorithm: Mapped[str] = mapped_column(String(20))
    protocol: Mapped[str] = mapped_column(String(20), default="tcp")
    public_port: Mapped[int]
    private_port: Mapped[int]
    sources: Mapped[list[str]] = mapped_column(default=list)
    settings: Mapped[dict[str, str]] = mapped_column(default=dict)
    certificate_id: Mapped[int | None] = mapped_column(ForeignKey("ssl_certs.id"), index=True)
    display: Mapped[bool] = mapped_column(default=True)
    state: Mapped[str] = mapped_column(String(20), default="Active")
    network: Mapped[Network] = relationship()
    public_ip: Mapped[PublicIp | None] = relationship()
    certificate: Mapped[Certificate | None] = relationship()
    members: Mapped[list[LoadBalancerMember]] = relationship(cascade="all, delete-orphan")
    stickiness: Mapped[StickinessPolicy | None] = relationship(cascade="all, delete-orphan")
    health: Mapped[HealthCheckPolicy | None] = relationship(cascade="all, delete-orphan")

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its network, or of the appliance that balances for its account there."""
        network = session.get_one(Network, self.network_id)
        return network.targets(session, part_of_balancing(self.account_id) if network.offering.elastic_lb else None)


class LoadBalancerMember(Base):
    """A guest's address behind a rule (assignToLoadBalancerRule)."""

    __tablename__ = "load_balancer_members"

    load_balancer_id: Mapped[int] = mapped_column(ForeignKey("load_balancers.id", ondelete="CASCADE"), primary_key=True)
    nic_id: Mapped[int] = mapped_column(ForeignKey("nics.id"), primary_key=True, index=True)
    address: Mapped[str] = mapped_column(String(40), primary_key=True)
    vm_id: Mapped[int] = mapped_column(ForeignKey("virtual_machines.id"), index=True)
    weight: Mapped[int] = mapped_column(default=1)


class StickinessPolicy(Created, Row):
    """How clients stay with a member (createLBStickinessPolicy); a rule has one at most."""

    __tablename__ = "stickiness_policies"
    __table_args__ = (UniqueConstraint("load_balancer_id"),)

    load_balancer_id: Mapped[int] = mapped_column(ForeignKey("load_balancers.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(255))
    method: Mapped[str] = mapped_column(String(40))
    description: Mapped[str | None] = mapped_column(String(4096))
    params: Mapped[dict[str, str]] = mapped_column(default=dict)
    display: Mapped[bool] = mapped_column(default=True)

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """Whoever sees the rule sees its policies."""
        return cls.load_balancer_id.in_(select(LoadBalancer.id).where(owned_by(LoadBalancer, caller)))

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of the rule's network."""
        return session.get_one(LoadBalancer, self.load_balancer_id).targets(session)


class HealthCheckPolicy(Created, Row):
    """How members are watched (createLBHealthCheckPolicy); times in seconds; a rule has one at most."""

    __tablename__ = "health_check_policies"
    __table_args__ = (UniqueConstraint("load_balancer_id"),)

    load_balancer_id: Mapped[int] = mapped_column(ForeignKey("load_balancers.id", ondelete="CASCADE"))
    path: Mapped[str] = mapped_column(String(255), default="")
    interval: Mapped[int] = mapped_column(default=5)
    timeout: Mapped[int] = mapped_column(default=2)
    healthy: Mapped[int] = mapped_column(default=2)
    unhealthy: Mapped[int] = mapped_column(default=10)
    description: Mapped[str | None] = mapped_column(String(4096))
    display: Mapped[bool] = mapped_column(default=True)

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """Whoever sees the rule sees its policies."""
        return cls.load_balancer_id.in_(select(LoadBalancer.id).where(owned_by(LoadBalancer, caller)))

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of the rule's network."""
        return session.get_one(LoadBalancer, self.load_balancer_id).targets(session)


dispatch.JOB_TABLES["LoadBalancerRule"] = LoadBalancer
dispatch.JOB_TABLES["LBStickinessPolicy"] = StickinessPolicy
dispatch.JOB_TABLES["LBHealthCheckPolicy"] = HealthCheckPolicy


@dataclass(kw_only=True)
class BalancerResponse(Response):
    """A load balancer rule. Ports are texts, as CloudStack's clients expect them."""

    id: str
    name: str
    description: str | None = None
    algorithm: str
    protocol: str
    publicip: str
    publicipid: str
    publicport: str
    privateport: str
    cidrlist: str
    networkid: str
    zoneid: str
    zonename: str
    state: str
    fordisplay: bool | None = None
    account: str
    domain: str
    domainid: str
    domainpath: str
    tags: list[TagResponse]


def balancer_views(ctx: Context, rows: Sequence[LoadBalancer]) -> list[BalancerResponse]:
    """Show load balancer rules."""
    columns = PublicIp.id, PublicIp.uuid, PublicIp.address, PublicIp.zone_id
    addresses = rows_by_id(ctx.session, columns, (row.public_ip_id for row in rows))
    zones = rows_by_id(ctx.session, (Zone.id, Zone.uuid, Zone.name), (item.zone_id for item in addresses.values()))
    networks = rows_by_id(ctx.session, (Network.id, Network.uuid), (row.network_id for row in rows))
    owners, tags, admin = owner_fields(ctx, rows), tags_of(ctx, TAGGABLE, rows), ctx.caller.is_admin
    found = []
    for row in rows:
        address = addresses[row.public_ip_id or 0]
        found.append(
            BalancerResponse(
                id=row.uuid,
                name=row.name,
                description=row.description,
                algorithm=row.algorithm,
                protocol=row.protocol,
                publicip=address.address,
                publicipid=address.uuid,
                publicport=str(row.public_port),
                privateport=str(row.private_port),
                cidrlist=",".join(row.sources),
                networkid=networks[row.network_id].uuid,
                zoneid=zones[address.zone_id].uuid,
                zonename=zones[address.zone_id].name,
                state=row.state,
                fordisplay=row.display if admin else None,
                tags=tags[row.id],
                **owners[row.account_id],
            )
        )
    return found


def remove_balancers(session: Session, condition: ColumnElement[bool]) -> None:
    """Remove load balancer rules with all that hangs on them; the firewall rules that they opened, too."""
    for uuid in session.scalars(select(LoadBalancer.uuid).where(condition)).all():
        close_related(session, uuid)
        session.execute(delete(PortClaim).where(PortClaim.rule_uuid == uuid))
    rules = select(LoadBalancer.id).where(condition)
    for part, taggable in ((StickinessPolicy, "LBStickinessPolicy"), (HealthCheckPolicy, "LBHealthCheckPolicy")):
        remove_rows(session, part, taggable, part.load_balancer_id.in_(rules))
    session.execute(delete(LoadBalancerMember).where(LoadBalancerMember.load_balancer_id.in_(rules)))
    remove_rows(session, LoadBalancer, TAGGABLE, condition)


@clears_address
def clear_address(session: Session, ip: PublicIp) -> None:
    """Remove the load balancer rules of an address that is given back."""
    remove_balancers(session, LoadBalancer.public_ip_id == ip.id)


@clears_network
def clear_network(session: Session, network: Network) -> None:
    """Remove the load balancer rules of a network that goes: a tier's address stays with its VPC."""
    remove_balancers(session, LoadBalancer.network_id == network.id)


@clears_nic
def clear_nic(session: Session, nic: Nic) -> list[Network]:
    """Take a NIC out of the rules that it serves."""
    served = select(LoadBalancerMember.load_balancer_id).where(LoadBalancerMember.nic_id == nic.id)
    networks = select(Network).where(Network.id.in_(select(LoadBalancer.network_id).where(LoadBalancer.id.in_(served))))
    found = list(session.scalars(networks))
    session.execute(delete(LoadBalancerMember).where(LoadBalancerMember.nic_id == nic.id))
    return found


def balancer_facts(
    session: Session, network_id: int, rule_id: int | None = None, account_id: int | None = None
) -> tuple[balancing.LoadBalancer, ...]:
    """Return the network's load balancer rules, or just one of them; their number costs no further query.

    :param rule_id: the only rule wanted.
    :param account_id: whose rules alone are wanted.
    """
    query = select(LoadBalancer).where(LoadBalancer.network_id == network_id).order_by(LoadBalancer.id)
    if account_id is not None:
        query = query.where(LoadBalancer.account_id == account_id)
    if rule_id is not None:
        query = query.where(LoadBalancer.id == rule_id)
    parts = joinedload(LoadBalancer.public_ip), joinedload(LoadBalancer.stickiness), joinedload(LoadBalancer.health)
    all_of_it = session.scalars(query.options(*parts, joinedload(LoadBalancer.certificate)))
    rules = [rule for rule in all_of_it if rule.public_ip is None or rule.public_ip.state != ALLOCATING]
    if not rules:
        return ()
    columns = LoadBalancerMember.load_balancer_id, VirtualMachine.uuid, LoadBalancerMember.address
    members: dict[int, list[balancing.Member]] = {}
    within = LoadBalancerMember.load_balancer_id.in_(
        select(LoadBalancer.id).where(LoadBalancer.network_id == network_id)
    )
    found = select(*columns, LoadBalancerMember.weight).join(VirtualMachine).where(within)
    for number, uuid, address, weight in session.execute(found.order_by(VirtualMachine.id, columns[2])):
        members.setdefault(number, []).append(balancing.Member(uuid, address, weight))
    return tuple(_fact(rule, members.get(rule.id, [])) for rule in rules)


def _fact(rule: LoadBalancer, members: list[balancing.Member]) -> balancing.LoadBalancer:
    sticky, health, certificate = rule.stickiness, rule.health, rule.certificate
    return balancing.LoadBalancer(
        id=rule.uuid,
        name=rule.name,
        address=rule.public_ip.address if rule.public_ip else rule.source_address or "",
        port=rule.public_port,
        private_port=rule.private_port,
        algorithm=rule.algorithm,
        protocol=rule.protocol,
        members=tuple(members),
        sources=limiting(rule.sources),
        internal=rule.public_ip is None,
        stickiness=balancing.Stickiness(sticky.name, sticky.method, _pairs(sticky.params)) if sticky else None,
        health=balancing.HealthCheck(health.path, health.interval, health.timeout, health.healthy, health.unhealthy)
        if health
        else None,
        certificate=balancing.Certificate(certificate.uuid, certificate.certificate, certificate.chain, certificate.key)
        if certificate
        else None,
        settings=_pairs(rule.settings),
    )


def _pairs(values: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(values.items()))
