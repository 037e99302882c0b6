"""Hosts: where guests and appliances run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, ForeignKey, String, UniqueConstraint, and_, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.db.base import Created, Removable, Row, now
from controlplane.db.configuration import define
from controlplane.db.secrets import Secret
from controlplane.reconcile.door import on_hello
from controlplane.reconcile.sweep import duty
from controlplane.reconcile.targets import Agent, Target
from controlplane.zone.clusters import Cluster

PING_INTERVAL = define(
    "ping.interval", 60, "Seconds between two signs of life that an agent is expected to give", within=(1, 3600)
)
PING_TIMEOUT = define(
    "ping.timeout", "2.5", "After how many ping.interval without a sign of life a host counts as disconnected"
)


class Host(Created, Removable, Row):
    """A host (addHost).

    A host with an agent is added with the agent's token as its password, and is ``Up`` once the agent has said hello;
    one without is reached by the control plane at its URL.

    :ivar resource_state: ``Enabled``, ``Disabled``, ``Maintenance``, ``PrepareForMaintenance`` …: the operator's wish.
    :ivar state: ``Connecting`` until the agent said hello, then ``Up``; whether it still is so, :func:`state_of` says.
    :ivar memory: bytes; ``mhz`` is of one processor.
    """

    __tablename__ = "hosts"
    __table_args__ = (UniqueConstraint("zone_id", "name", "removed_key"),)

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
    memory: Mapped[int] = mapped_column(BigInteger, default=0)
    version: Mapped[str | None] = mapped_column(String(60))
    arch: Mapped[str] = mapped_column(String(20), default="x86_64")
    os_category_id: Mapped[int | None] = mapped_column(ForeignKey("os_categories.id"))
    annotation: Mapped[str | None] = mapped_column(String(255))
    annotated: Mapped[datetime | None]
    tags: Mapped[list[str]] = mapped_column(default=list)
    details: Mapped[dict[str, str]] = mapped_column(default=dict)
    removed_key: Mapped[int] = mapped_column(default=0)
    cluster: Mapped[Cluster] = relationship()
    target: Mapped[Target | None] = relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the host's own target."""
        return [session.get_one(Target, self.target_id)] if self.target_id else []


def patience(session: Session) -> timedelta:
    """Return how long a host without a sign of life still counts as connected."""
    return timedelta(seconds=PING_INTERVAL.number(session) * float(PING_TIMEOUT.text(session)))


def state_of(host: Host, oldest: datetime) -> str:
    """Return what is known of a host: ``Up``, ``Connecting``, ``Disconnected`` or ``Removed``.

    :param oldest: when its agent must have been seen since: now less :func:`patience`.
    """
    if host.removed:
        return "Removed"
    agent = host.target.agent if host.target else None
    if host.state != "Up" or agent is None:
        return host.state
    return "Up" if agent.seen and agent.seen >= oldest else "Disconnected"


def is_up(oldest: datetime) -> ColumnElement[bool]:
    """Return the condition that :func:`state_of` would say ``Up``."""
    silent = select(Target.id).join(Agent, Agent.id == Target.agent_id)
    silent = silent.where(or_(Agent.seen.is_(None), Agent.seen < oldest))
    unheard = and_(Host.target_id.is_not(None), Host.target_id.in_(silent))
    return and_(Host.removed.is_(None), Host.state == "Up", ~unheard)


@duty(5)
def notice_silent_hosts(session: Session) -> None:
    """Write down which hosts have gone silent, and which are heard of again."""
    oldest = now() - patience(session)
    heard = select(Target.id).join(Agent, Agent.id == Target.agent_id)
    gone = or_(Agent.seen.is_(None), Agent.seen < oldest)
    live = Host.removed.is_(None)
    for host in session.scalars(select(Host).where(live, Host.state == "Up", Host.target_id.in_(heard.where(gone)))):
        host.state = "Disconnected"
    back = select(Host).where(live, Host.state == "Disconnected", Host.target_id.in_(heard.where(Agent.seen >= oldest)))
    for host in session.scalars(back):
        host.state = "Up"


@on_hello
def take_inventory(session: Session, agent: Agent) -> None:
    """Put down what the agent said of its machine: the host is up, with these processors and this memory."""
    query = select(Host).join(Target).where(Target.agent_id == agent.id, Host.removed.is_(None))
    for host in session.scalars(query):
        _take(host, agent.inventory)
        host.state = "Up"
        ensure_local_pool(session, host, agent.inventory)


def _take(host: Host, said: Mapping[str, Any]) -> None:
    for column in ("cpus", "mhz", "memory"):
        value = said.get(column)
        if isinstance(value, (int, float)) and value > 0:
            setattr(host, column, int(value))
    for column, key in (("version", "version"), ("arch", "arch")):
        if isinstance(said.get(key), str):
            setattr(host, column, said[key])
    if isinstance(said.get("tunnel"), str) and said["tunnel"]:
        host.address = said["tunnel"]


def ensure_local_pool(session: Session, host: Host, said: Mapping[str, Any]) -> None:
    """Have a pool for the host's own disk; its size is what the host says of it.

    :param said: may have ``disk`` and ``disk_used``, in bytes.
    """
    from controlplane.storage.volumes import StoragePool

    query = select(StoragePool).where(
        StoragePool.host_id == host.id, StoragePool.scope == "HOST", StoragePool.removed.is_(None)
    )
    pool = session.scalar(query)
    if pool is None:
        pool = StoragePool(
            name=f"{host.name} Local Storage",
            type="Filesystem",
            scope="HOST",
            zone_id=host.zone_id,
            pod_id=host.pod_id,
            cluster_id=host.cluster_id,
            host_id=host.id,
            address=host.address,
            path="/",
        )
        session.add(pool)
    pool.capacity = int(said.get("disk") or pool.capacity or 0)
    pool.used = int(said.get("disk_used") or pool.used or 0)
    session.flush()
