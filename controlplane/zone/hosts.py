"""Hosts: where guests and appliances run."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.db.base import Created, Removable, Row
from controlplane.db.secrets import Secret
from controlplane.reconcile.targets import Target
from controlplane.zone.clusters import Cluster


class Host(Created, Removable, Row):
    """A host (addHost).

    A host with an agent is added with the agent's token as its password, and is ``Up`` once the agent has said hello;
    one without is reached by the control plane at its URL.

    :ivar resource_state: ``Enabled``, ``Disabled``, ``Maintenance``, ``PrepareForMaintenance`` …: the operator's wish.
    :ivar state: ``Up``, ``Down``, ``Disconnected``, ``Alert``, ``Connecting``: what is known of it.
    :ivar memory: bytes; ``mhz`` is of one processor.
    """

    __tablename__ = "hosts"

    name: Mapped[str] = mapped_column(String(255), index=True)
    url: Mapped[str] = mapped_column(String(1024))
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    pod_id: Mapped[int] = mapped_column(ForeignKey("pods.id"), index=True)
    cluster_id: Mapped[int] = mapped_column(ForeignKey("clusters.id"), index=True)
    hypervisor: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20), default="Connecting")
    resource_state: Mapped[str] = mapped_column(String(40), default="Enabled")
    target_id: Mapped[int | None] = mapped_column(ForeignKey("targets.id"))
    address: Mapped[str] = mapped_column(String(60), default="")
    username: Mapped[str] = mapped_column(String(255), default="")
    password: Mapped[str | None] = mapped_column(Secret)
    cpus: Mapped[int] = mapped_column(default=0)
    mhz: Mapped[int] = mapped_column(default=0)
    memory: Mapped[int] = mapped_column(default=0)
    tags: Mapped[list[str]] = mapped_column(default=list)
    details: Mapped[dict[str, str]] = mapped_column(default=dict)
    cluster: Mapped[Cluster] = relationship()
    target: Mapped[Target | None] = relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the host's own target."""
        return [session.get_one(Target, self.target_id)] if self.target_id else []
