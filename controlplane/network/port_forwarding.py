"""Port forwarding rules."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.db.base import Created, Owned, Row
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.public_ips import PublicIp
from controlplane.reconcile.targets import Target


class PortForward(Created, Owned, Row):
    """A port forwarding rule (createPortForwardingRule). ``guest`` is the address on ``nic`` that it leads to."""

    __tablename__ = "port_forwards"

    network_id: Mapped[int] = mapped_column(ForeignKey("networks.id"), index=True)
    public_ip_id: Mapped[int] = mapped_column(ForeignKey("public_ips.id"), index=True)
    protocol: Mapped[str] = mapped_column(String(10))
    public_start: Mapped[int]
    public_end: Mapped[int]
    private_start: Mapped[int]
    private_end: Mapped[int]
    vm_id: Mapped[int] = mapped_column(ForeignKey("virtual_machines.id"), index=True)
    nic_id: Mapped[int] = mapped_column(ForeignKey("nics.id"))
    guest: Mapped[str] = mapped_column(String(40))
    sources: Mapped[list[str]] = mapped_column(default=list)
    display: Mapped[bool] = mapped_column(default=True)
    state: Mapped[str] = mapped_column(String(20), default="Active")
    network: Mapped[Network] = relationship()
    public_ip: Mapped[PublicIp] = relationship()
    nic: Mapped[Nic] = relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its network."""
        return session.get_one(Network, self.network_id).targets(session)
