"""Capacity: how much of each kind there is in a place, and how much of it is given away.

A place is a zone, a pod or a cluster. Each kind is measured with a fixed number of queries, grouped by the smallest
place that it is known for, whatever the number of hosts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from controlplane.api.responses import Response
from controlplane.db.configuration import GLOBAL, ConfigurationValue, Setting, define

Place = Literal["zone", "pod", "cluster"]
MEMORY, CPU, STORAGE, STORAGE_ALLOCATED, PUBLIC_IP, PRIVATE_IP, SECONDARY, VLAN, DIRECT_IP, LOCAL, CORES = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    90,
)
NAMES = {
    MEMORY: "MEMORY",
    CPU: "CPU",
    STORAGE: "STORAGE",
    STORAGE_ALLOCATED: "STORAGE_ALLOCATED",
    PUBLIC_IP: "VIRTUAL_NETWORK_PUBLIC_IP",
    PRIVATE_IP: "PRIVATE_IP",
    SECONDARY: "SECONDARY_STORAGE",
    VLAN: "VLAN",
    DIRECT_IP: "DIRECT_ATTACHED_PUBLIC_IP",
    LOCAL: "LOCAL_STORAGE",
    CORES: "CPU_CORE",
}
"""CloudStack's kinds of capacity by number; memory and storage are in bytes, CPU in MHz."""

CPU_FACTOR = define(
    "cpu.overprovisioning.factor",
    "1.0",
    "How many times the processors' MHz are given to machines; a cluster's cpuOvercommitRatio wins",
    scopes=("Cluster",),
)
MEMORY_FACTOR = define(
    "mem.overprovisioning.factor",
    "1.0",
    "How many times the memory is given to machines; a cluster's memoryOvercommitRatio wins",
    scopes=("Cluster",),
)
HOLDING = ("Starting", "Running", "Stopping", "Migrating")
"""The states in which a machine holds its host's processors and memory."""


@dataclass(kw_only=True)
class CapacityResponse(Response):
    """How much of one kind a place has."""

    type: int
    name: str
    capacitytotal: int
    capacityused: int
    capacityallocated: int
    percentused: str
    zoneid: str | None = None
    zonename: str | None = None
    podid: str | None = None
    podname: str | None = None
    clusterid: str | None = None
    clustername: str | None = None
    tag: str | None = None


@dataclass(slots=True)
class Amount:
    """What there is of a kind, and how much of it is given away."""

    total: int = 0
    used: int = 0


class Ratios(NamedTuple):
    """A cluster's over-provisioning."""

    cpu: float
    memory: float


Amounts = dict[int, dict[int, Amount]]
"""By a place's number, by kind."""


def ratios_of(session: Session, clusters: Iterable[Any]) -> dict[int, Ratios]:
    """Return the over-provisioning factors by cluster number: its details, or the settings in its scope."""
    names = CPU_FACTOR.name, MEMORY_FACTOR.name
    query = select(ConfigurationValue).where(ConfigurationValue.name.in_(names))
    values = {(row.name, row.scope, row.scope_id): row.value for row in session.scalars(query)}

    def factor(cluster: Any, detail: str, setting: Setting) -> float:
        everywhere = values.get((setting.name, GLOBAL, 0), setting.default)
        return float(cluster.details.get(detail) or values.get((setting.name, "Cluster", cluster.id), everywhere))

    return {
        cluster.id: Ratios(
            factor(cluster, "cpuOvercommitRatio", CPU_FACTOR), factor(cluster, "memoryOvercommitRatio", MEMORY_FACTOR)
        )
        for cluster in clusters
    }


def used_by_host(session: Session, *conditions: ColumnElement[bool]) -> dict[int, tuple[int, int, int]]:
    """Return by host number what its machines and routers hold: MHz, bytes of memory, processors.

    :param conditions: on Host.
    """
    from controlplane.compute.virtual_machines import VirtualMachine
    from controlplane.network.routers import Router
    from controlplane.offering.service_offerings import ServiceOffering
    from controlplane.zone.hosts import Host

    machines = (
        select(
            VirtualMachine.host_id,
            func.sum(VirtualMachine.cpus * VirtualMachine.mhz),
            func.sum(VirtualMachine.memory),
            func.sum(VirtualMachine.cpus),
        )
        .join(Host, Host.id == VirtualMachine.host_id)
        .where(VirtualMachine.state.in_(HOLDING), VirtualMachine.removed.is_(None), *conditions)
        .group_by(VirtualMachine.host_id)
    )
    routers = (
        select(
            Router.host_id,
            func.sum(ServiceOffering.cpus * ServiceOffering.mhz),
            func.sum(ServiceOffering.memory),
            func.sum(ServiceOffering.cpus),
        )
        .join(ServiceOffering, ServiceOffering.id == Router.service_offering_id)
        .join(Host, Host.id == Router.host_id)
        .where(Router.state.in_(HOLDING), Router.removed.is_(None), *conditions)
        .group_by(Router.host_id)
    )
    held: dict[int, tuple[int, int, int]] = {}
    found: Any
    for query in (machines, routers):
        for found in session.execute(query):
            host, mhz, mebibytes, cpus = found
            before = held.get(host, (0, 0, 0))
            held[host] = (before[0] + int(mhz), before[1] + (int(mebibytes) << 20), before[2] + int(cpus))
    return held


def measure(session: Session, place: Place, numbers: Sequence[int]) -> Amounts:
    """Return how much of each kind these zones, pods or clusters have.

    :param place: which of the three ``numbers`` are rows of; a kind that is not known so finely is left out.
    """
    amounts: Amounts = {number: defaultdict(Amount) for number in numbers}
    if numbers:
        _add_hosts(session, place, amounts)
        _add_pools(session, place, amounts)
        if place != "cluster":
            _add_private(session, place, amounts)
        if place == "pod":
            _add_guests_of_pods(session, amounts)
        if place == "zone":
            _add_public(session, amounts)
            _add_vnets(session, amounts)
    return amounts


def _add_hosts(session: Session, place: Place, amounts: Amounts) -> None:
    from controlplane.zone.clusters import Cluster
    from controlplane.zone.hosts import Host

    column = getattr(Host, f"{place}_id")
    within = column.in_(list(amounts)), Host.removed.is_(None)
    clusters = session.scalars(select(Cluster).where(Cluster.id.in_(select(Host.cluster_id).where(*within))))
    ratios = ratios_of(session, clusters)
    held = used_by_host(session, *within)
    offered = Host.resource_state == "Enabled"
    query = select(column, Host.cluster_id, Host.id, Host.cpus, Host.mhz, Host.memory, offered).where(*within)
    for number, cluster, host, cpus, mhz, memory, enabled in session.execute(query):
        for kind, total, used in zip(
            (CPU, MEMORY, CORES),
            (int(cpus * mhz * ratios[cluster].cpu), int(memory * ratios[cluster].memory), cpus),
            held.get(host, (0, 0, 0)),
            strict=True,
        ):
            amounts[number][kind].total += total if enabled else 0
            amounts[number][kind].used += used


def _add_pools(session: Session, place: Place, amounts: Amounts) -> None:
    from controlplane.storage.volumes import StoragePool, Volume

    column = getattr(StoragePool, f"{place}_id")
    within = column.in_(list(amounts)), StoragePool.removed.is_(None)
    local = StoragePool.scope == "HOST"
    pools = select(column, local, func.sum(StoragePool.capacity), func.sum(StoragePool.used)).where(*within)
    for number, is_local, capacity, used in session.execute(pools.group_by(column, local)):
        amount = amounts[number][LOCAL if is_local else STORAGE]
        amount.total, amount.used = int(capacity or 0), int(used or 0)
        if not is_local:
            amounts[number][STORAGE_ALLOCATED].total = int(capacity or 0)
    promised = select(column, local, func.sum(Volume.size)).join(StoragePool, StoragePool.id == Volume.pool_id)
    promised = promised.where(Volume.removed.is_(None), *within).group_by(column, local)
    for number, is_local, size in session.execute(promised):
        if is_local:
            amounts[number][LOCAL].used = max(amounts[number][LOCAL].used, int(size or 0))
        else:
            amounts[number][STORAGE_ALLOCATED].used = int(size or 0)


def _add_private(session: Session, place: Place, amounts: Amounts) -> None:
    from controlplane.zone.pods import Pod, addresses_of

    column = Pod.id if place == "pod" else Pod.zone_id
    query = select(column, Pod.start_ip, Pod.end_ip).where(column.in_(list(amounts)), Pod.removed.is_(None))
    for number, start, end in session.execute(query):
        amounts[number][PRIVATE_IP].total += addresses_of(start, end)


def _add_public(session: Session, amounts: Amounts) -> None:
    from controlplane.network.public_ips import PublicIp, VlanRange

    taken = func.sum(case((PublicIp.state != "Free", 1), else_=0))
    query = select(PublicIp.zone_id, func.count(), taken).join(VlanRange, VlanRange.id == PublicIp.range_id)
    mine = PublicIp.zone_id.in_(list(amounts)), VlanRange.portable_range_id.is_(None)
    for number, total, used in session.execute(query.where(*mine).group_by(PublicIp.zone_id)):
        amounts[number][PUBLIC_IP] = Amount(int(total), int(used or 0))
    _add_direct(session, amounts)


def _add_direct(session: Session, amounts: Amounts) -> None:
    """Add the addresses of the Shared networks' ranges, and those that guests and routers have there."""
    from controlplane.network.networks import Network
    from controlplane.network.nics import NetworkAddress
    from controlplane.network.public_ips import VlanRange

    ranges = select(VlanRange.zone_id, VlanRange.start_ip, VlanRange.end_ip)
    here = VlanRange.zone_id.in_(list(amounts)), VlanRange.network_id.is_not(None), VlanRange.gateway != ""
    for number, start, end in session.execute(ranges.where(*here)):
        amounts[number][DIRECT_IP].total += int(IPv4Address(end)) - int(IPv4Address(start)) + 1
    shared = Network.guest_type == "Shared", NetworkAddress.address.not_like("%:%")
    taken = select(Network.zone_id, func.count()).join(NetworkAddress, NetworkAddress.network_id == Network.id)
    mine = taken.where(*shared, Network.zone_id.in_(list(amounts)))
    for number, used in session.execute(mine.group_by(Network.zone_id)):
        amounts[number][DIRECT_IP].used = int(used)


def _add_guests_of_pods(session: Session, amounts: Amounts) -> None:
    """Add the addresses of the ranges that pods of basic zones have for guests, and those that are taken."""
    from controlplane.network.nics import NetworkAddress, Nic
    from controlplane.network.public_ips import VlanRange
    from controlplane.zone.pods import addresses_of

    here = VlanRange.pod_id.in_(list(amounts)), VlanRange.network_id.is_not(None), VlanRange.gateway != ""
    columns = VlanRange.pod_id, VlanRange.start_ip, VlanRange.end_ip, VlanRange.router_ip
    for number, start, end, router in session.execute(select(*columns).where(*here)):
        amount = amounts[number or 0][DIRECT_IP]
        amount.total, amount.used = amount.total + addresses_of(start, end), amount.used + bool(router)
    taken = select(Nic.pod_id, func.count()).join(NetworkAddress, NetworkAddress.nic_id == Nic.id)
    for number, used in session.execute(taken.where(Nic.pod_id.in_(list(amounts))).group_by(Nic.pod_id)):
        amounts[number or 0][DIRECT_IP].used += int(used)


def _add_vnets(session: Session, amounts: Amounts) -> None:
    from controlplane.zone.physical_networks import PhysicalNetwork, Vnet

    query = select(PhysicalNetwork.zone_id, PhysicalNetwork.vnets).where(PhysicalNetwork.zone_id.in_(list(amounts)))
    for number, ranges in session.execute(query):
        amounts[number][VLAN].total += sum(last - first + 1 for first, last in ranges)
    taken = (
        select(PhysicalNetwork.zone_id, func.count())
        .join(Vnet, Vnet.physical_network_id == PhysicalNetwork.id)
        .where(PhysicalNetwork.zone_id.in_(list(amounts)))
        .group_by(PhysicalNetwork.zone_id)
    )
    for number, used in session.execute(taken):
        amounts[number][VLAN].used = int(used)


def response_of(kind: int, amount: Amount, **where: str) -> CapacityResponse:
    """Return the response of one amount; ``where`` are the fields that name the place."""
    share = 100 * amount.used / amount.total if amount.total else 0.0
    return CapacityResponse(
        type=kind,
        name=NAMES[kind],
        capacitytotal=amount.total,
        capacityused=amount.used,
        capacityallocated=amount.used,
        percentused=f"{share:.2f}".rstrip("0").rstrip("."),
        **where,
    )


def responses_by_place(session: Session, place: Place, numbers: Sequence[int]) -> dict[int, list[CapacityResponse]]:
    """Return the capacity of each of these places, as ``showcapacities`` adds it to a list."""
    found = measure(session, place, numbers)
    return {
        number: [response_of(kind, amount) for kind, amount in sorted(kinds.items())] for number, kinds in found.items()
    }
