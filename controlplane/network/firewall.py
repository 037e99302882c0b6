"""Firewall rules: what may come in on a public address, and what may leave a guest network."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.db.base import Created, Owned, Row
from controlplane.network.networks import Network
from controlplane.network.public_ips import PublicIp
from controlplane.reconcile.targets import Target


class FirewallRule(Created, Owned, Row):
    """An ingress rule of a public address (createFirewallRule), or a network's egress rule (createEgressFirewallRule).

    :ivar public_ip_id: None on an egress rule.
    :ivar start: first port, and ``end`` the last one; None is any.
    :ivar related_uuid: the port forwarding or load balancer rule that opened it and takes it along when it goes.
    """

    __tablename__ = "firewall_rules"

    network_id: Mapped[int] = mapped_column(ForeignKey("networks.id"), index=True)
    public_ip_id: Mapped[int | None] = mapped_column(ForeignKey("public_ips.id"), index=True)
    protocol: Mapped[str] = mapped_column(String(10))
    start: Mapped[int | None]
    end: Mapped[int | None]
    icmp_type: Mapped[int | None]
    icmp_code: Mapped[int | None]
    sources: Mapped[list[str]] = mapped_column(default=list)
    destinations: Mapped[list[str]] = mapped_column(default=list)
    display: Mapped[bool] = mapped_column(default=True)
    related_uuid: Mapped[str | None] = mapped_column(String(40), index=True)
    state: Mapped[str] = mapped_column(String(20), default="Active")
    network: Mapped[Network] = relationship()
    public_ip: Mapped[PublicIp | None] = relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its network."""
        return session.get_one(Network, self.network_id).targets(session)
