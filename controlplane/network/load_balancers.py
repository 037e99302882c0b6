"""Load balancer rules, their members, stickiness, health checks and certificates."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.db.base import Base, Created, Owned, Row
from controlplane.db.secrets import Secret
from controlplane.network.networks import Network
from controlplane.network.public_ips import PublicIp
from controlplane.reconcile.targets import Target


class Certificate(Created, Owned, Row):
    """A TLS certificate with its key and chain (uploadSslCert); the key is encrypted and never shown."""

    __tablename__ = "ssl_certs"

    name: Mapped[str] = mapped_column(String(255))
    certificate: Mapped[str] = mapped_column(Text)
    chain: Mapped[str] = mapped_column(Text, default="")
    key: Mapped[str] = mapped_column(Secret)
    fingerprint: Mapped[str] = mapped_column(String(100))


class LoadBalancer(Created, Owned, Row):
    """A load balancer rule (createLoadBalancerRule)."""

    __tablename__ = "load_balancers"

    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str | None] = mapped_column(String(4096))
    network_id: Mapped[int] = mapped_column(ForeignKey("networks.id"), index=True)
    public_ip_id: Mapped[int] = mapped_column(ForeignKey("public_ips.id"), index=True)
    algorithm: Mapped[str] = mapped_column(String(20))
    protocol: Mapped[str] = mapped_column(String(20), default="tcp")
    public_port: Mapped[int]
    private_port: Mapped[int]
    sources: Mapped[list[str]] = mapped_column(default=list)
    settings: Mapped[dict[str, str]] = mapped_column(default=dict)
    certificate_id: Mapped[int | None] = mapped_column(ForeignKey("ssl_certs.id"))
    display: Mapped[bool] = mapped_column(default=True)
    state: Mapped[str] = mapped_column(String(20), default="Active")
    network: Mapped[Network] = relationship()
    public_ip: Mapped[PublicIp] = relationship()
    certificate: Mapped[Certificate | None] = relationship()
    members: Mapped[list[LoadBalancerMember]] = relationship(cascade="all, delete-orphan")
    stickiness: Mapped[StickinessPolicy | None] = relationship(cascade="all, delete-orphan")
    health: Mapped[HealthCheckPolicy | None] = relationship(cascade="all, delete-orphan")

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its network."""
        return session.get_one(Network, self.network_id).targets(session)


class LoadBalancerMember(Base):
    """A guest's address behind a rule (assignToLoadBalancerRule)."""

    __tablename__ = "load_balancer_members"

    load_balancer_id: Mapped[int] = mapped_column(ForeignKey("load_balancers.id", ondelete="CASCADE"), primary_key=True)
    nic_id: Mapped[int] = mapped_column(ForeignKey("nics.id"), primary_key=True)
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
