"""Virtual routers: the appliances that serve guest networks."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.db.base import Created, Owned, Removable, Row
from controlplane.network.networks import Network
from controlplane.reconcile.targets import Target
from controlplane.zone.hosts import Host


class Router(Created, Removable, Owned, Row):
    """A virtual router (listRouters).

    :ivar name: ``r-12-VM``; also its target's and its namespace's.
    :ivar state: ``Starting``, ``Running``, ``Stopping``, ``Stopped``.
    :ivar running: what is wanted.
    :ivar boot: a higher number makes its shell anew.
    """

    __tablename__ = "routers"

    name: Mapped[str] = mapped_column(String(255), default="")
    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"), index=True)
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    host_id: Mapped[int | None] = mapped_column(ForeignKey("hosts.id"), index=True)
    target_id: Mapped[int | None] = mapped_column(ForeignKey("targets.id"), index=True)
    service_offering_id: Mapped[int | None] = mapped_column(ForeignKey("service_offerings.id"))
    provider: Mapped[str] = mapped_column(String(60), default="VirtualRouter")
    state: Mapped[str] = mapped_column(String(20), default="Starting")
    running: Mapped[bool] = mapped_column(default=True)
    boot: Mapped[int] = mapped_column(default=0)
    network: Mapped[Network | None] = relationship()
    host: Mapped[Host | None] = relationship()
    target: Mapped[Target | None] = relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return its own target and its host's, which holds its shell."""
        found = [session.get_one(Target, self.target_id)] if self.target_id else []
        if self.host_id:
            found += session.get_one(Host, self.host_id).targets(session)
        return found
