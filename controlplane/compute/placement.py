"""Placement: which host a machine goes to, from the rows as they are, so that parallel deploys never overbook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ForeignKey, Select, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.compute.choice import ALGORITHMS, RANDOM, Candidate, Choice, Want, choose
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.base import Base
from controlplane.db.configuration import define
from controlplane.errors import NoCapacity
from controlplane.identity.accounts import Account
from controlplane.network.routers import Router
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.zone.capacity import CPU_FACTOR, MEMORY_FACTOR
from controlplane.zone.clusters import Cluster
from controlplane.zone.hosts import Host
from controlplane.zone.hypervisors import most_guests
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone

__all__ = ["Choice", "Want", "choose", "choose_host", "no_host", "pick_host"]

ALGORITHM = define(
    "vm.allocation.algorithm",
    RANDOM,
    "Order in which hosts are tried for a new machine",
    scopes=("Zone",),
    choices=ALGORITHMS,
)
ADMINS_ANYWHERE = define(
    "allow.admin.vm.on.disabled.resources",
    False,
    "Machines of root admins are put on disabled hosts and into disabled zones, pods and clusters, too",
)
ROUTERS_ANYWHERE = define(
    "allow.router.on.disabled.resources",
    False,
    "Routers are put on disabled hosts and into disabled zones, pods and clusters, too",
)
ROOT_ADMIN = 1
ROUTER_MHZ, ROUTER_MEMORY = 500, 256
_COLUMNS: tuple[Any, ...] = (
    Host.id,
    Host.name,
    Host.pod_id,
    Host.cluster_id,
    Host.hypervisor,
    Host.state,
    Host.resource_state,
    Host.cpus,
    Host.mhz,
    Host.memory,
    Host.tags,
    Host.details,
    Cluster.name.label("cluster"),
    Cluster.allocation_state.label("cluster_state"),
    Cluster.managed_state,
    Cluster.details.label("cluster_details"),
    Pod.name.label("pod"),
    Pod.allocation_state.label("pod_state"),
    Zone.name.label("zone"),
    Zone.allocation_state.label("zone_state"),
)
_HOLDS = VirtualMachine.host_id.is_not(None), VirtualMachine.running | (VirtualMachine.state == "Stopping")


class HostClaim(Base):
    """How often something was put on a host: whoever puts something there writes this row, and so holds its lock."""

    __tablename__ = "host_claims"

    host_id: Mapped[int] = mapped_column(ForeignKey("hosts.id"), primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


def pick_host(session: Session, zone_id: int, want: Want) -> Host:
    """Return the host for a machine, and hold its lock until the transaction ends.

    :raises NoCapacity: none will do; the sentence names every host with its reasons.
    """
    choice = choose_host(session, zone_id, want)
    if choice.host is None:
        raise NoCapacity(no_host(session, zone_id, choice))
    claimed = session.execute(
        update(HostClaim).where(HostClaim.host_id == choice.host.id).values(count=HostClaim.count + 1)
    )
    if claimed.rowcount == 0:  # type: ignore[attr-defined]
        session.add(HostClaim(host_id=choice.host.id, count=1))
        session.flush()
    return session.get_one(Host, choice.host.id)


def choose_host(session: Session, zone_id: int, want: Want) -> Choice:
    """Say which host a machine would get now, and why each other one will not do; nothing is held."""
    if not want.algorithm:
        want = replace(want, algorithm=ALGORITHM.text(session, zone=zone_id))
    return choose(_candidates(session, zone_id, want), want)


def no_host(session: Session, zone_id: int, choice: Choice) -> str:
    """Say why no host would do, naming each with its reasons."""
    zone = session.get_one(Zone, zone_id).name
    if not choice.refused:
        return f"Zone {zone} has no host: add one, or let its agent connect."
    return f"No host of zone {zone} will do. " + "; ".join(f"{name}: {reasons}" for name, reasons in choice.refused)


def _candidates(session: Session, zone_id: int, want: Want) -> list[Candidate]:
    hosts = session.execute(_hosts().where(Host.zone_id == zone_id)).all()
    used = _used(session, zone_id, want.machine)
    own = _own(session, zone_id, want.account_id)
    pods: dict[int, int] = {}
    for host in hosts:
        pods[host.pod_id] = pods.get(host.pod_id, 0) + own.get(host.id, 0)
    factors = float(CPU_FACTOR.text(session)), float(MEMORY_FACTOR.text(session))
    most = {kind: most_guests(session, kind) for kind in {host.hypervisor for host in hosts}}
    return [
        _candidate(host, used.get(host.id, (0, 0, 0)), (own.get(host.id, 0), pods[host.pod_id]), factors)._replace(
            most_guests=most[host.hypervisor]
        )
        for host in hosts
    ]


def _hosts() -> Select[Any]:
    """Return the query for hosts with what their places say of them."""
    query = select(*_COLUMNS).join(Cluster, Host.cluster_id == Cluster.id).join(Pod, Host.pod_id == Pod.id)
    return query.join(Zone, Host.zone_id == Zone.id).where(Host.removed.is_(None))


def machines_anywhere(session: Session, account_id: int) -> bool:
    """Tell whether an account's machines may be put where the operator has disabled a place."""
    return session.get_one(Account, account_id).type == ROOT_ADMIN and ADMINS_ANYWHERE.flag(session)


def takes_routers(session: Session, host: Host) -> bool:
    """Tell whether a router may be put on the host, as far as the operator's wishes go."""
    row = session.execute(_hosts().where(Host.id == host.id)).first()
    if row is None or _withdrawn(row):
        return False
    return not _disabled(row) or ROUTERS_ANYWHERE.flag(session)


def _candidate(host: Any, used: tuple[int, int, int], own: tuple[int, int], factors: tuple[float, float]) -> Candidate:
    cpu_factor = _ratio(host.cluster_details, "cpuOvercommitRatio", factors[0])
    memory_factor = _ratio(host.cluster_details, "memoryOvercommitRatio", factors[1])
    return Candidate(
        host.id,
        host.name,
        host.pod_id,
        host.cluster_id,
        host.hypervisor,
        closed=_closed(host),
        disabled=_disabled(host),
        arch=host.details.get("arch", ""),
        tags=frozenset(host.tags),
        cpus=host.cpus,
        mhz=host.mhz,
        total_mhz=int(host.cpus * host.mhz * cpu_factor),
        total_memory=int((host.memory >> 20) * memory_factor),
        used_mhz=used[0],
        used_memory=used[1],
        guests=used[2],
        own=own[0],
        own_pod=own[1],
    )


def _closed(host: Any) -> str:
    return f"it is {host.state}" if host.state != "Up" else _withdrawn(host)


def _withdrawn(host: Any) -> str:
    if host.resource_state not in ("Enabled", "Disabled"):
        return f"it is in {host.resource_state}"
    return f"its cluster {host.cluster} is {host.managed_state}" if host.managed_state != "Managed" else ""


def _disabled(host: Any) -> str:
    """Return which place above the host is disabled, or that it is itself; the widest first."""
    places = {
        f"its zone {host.zone}": host.zone_state,
        f"its pod {host.pod}": host.pod_state,
        f"its cluster {host.cluster}": host.cluster_state,
        "it": host.resource_state,
    }
    return next((f"{place} is disabled" for place, state in places.items() if state == "Disabled"), "")


def _ratio(details: dict[str, str], name: str, otherwise: float) -> float:
    try:
        return float(details.get(name, otherwise))
    except ValueError:
        return otherwise


def _used(session: Session, zone_id: int, but: str) -> dict[int, tuple[int, int, int]]:
    """Return what the machines (all but one) and routers on each host have been promised: (MHz, MiB), and how many."""
    machines = select(
        VirtualMachine.host_id,
        func.sum(VirtualMachine.cpus * VirtualMachine.mhz),
        func.sum(VirtualMachine.memory),
        func.count(),
    )
    machines = machines.where(VirtualMachine.zone_id == zone_id, *_HOLDS, VirtualMachine.uuid != but)
    promised = list(session.execute(machines.group_by(VirtualMachine.host_id)))
    mhz = func.sum(func.coalesce(ServiceOffering.cpus * ServiceOffering.mhz, ROUTER_MHZ))
    memory = func.sum(func.coalesce(ServiceOffering.memory, ROUTER_MEMORY))
    routers = (
        select(Router.host_id, mhz, memory, func.count())
        .outerjoin(ServiceOffering, Router.service_offering_id == ServiceOffering.id)
        .where(Router.zone_id == zone_id, Router.host_id.is_not(None), Router.running, Router.removed.is_(None))
        .group_by(Router.host_id)
    )
    used: dict[int, tuple[int, int, int]] = {}
    for host, more_mhz, more_memory, more in (*promised, *session.execute(routers)):
        old_mhz, old_memory, old = used.get(host or 0, (0, 0, 0))
        used[host or 0] = old_mhz + int(more_mhz), old_memory + int(more_memory), old + int(more)
    return used


def _own(session: Session, zone_id: int, account_id: int | None) -> dict[int, int]:
    if account_id is None:
        return {}
    query = select(VirtualMachine.host_id, func.count()).where(
        VirtualMachine.zone_id == zone_id,
        VirtualMachine.account_id == account_id,
        *_HOLDS,
    )
    rows: Sequence[Any] = session.execute(query.group_by(VirtualMachine.host_id)).all()
    return {row[0]: row[1] for row in rows}
