"""The choice of a host: candidates and a wish go in, a host and every refused host's reasons come out. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

FIRST_FIT = "firstfit"
DISPERSING = "userdispersing"
CONCENTRATED = "userconcentratedpod_firstfit"
LEAST_CONSUMED = "firstfitleastconsumed"
RANDOM = "random"
ALGORITHMS = (RANDOM, FIRST_FIT, DISPERSING, CONCENTRATED, LEAST_CONSUMED)
"""Values of ``vm.allocation.algorithm``. Random is by a digest of the machine's UUID, so it is the same each time."""
PLANNERS = {
    "FirstFitPlanner": FIRST_FIT,
    "UserDispersingPlanner": DISPERSING,
    "UserConcentratedPodPlanner": CONCENTRATED,
}
"""CloudStack's deployment planners, and the order that each of them tries hosts in."""


class Candidate(NamedTuple):
    """A host as the choice sees it.

    :param closed: why nothing can be put on it (host down or in maintenance, cluster not managed); empty means open.
    :param disabled: which of its zone, pod and cluster the operator has disabled, or the host itself; empty is none.
    :param arch: empty where the host has not said.
    :param mhz: speed of one processor; ``total_mhz`` of all of them with over-provisioning.
    :param total_memory: MiB, with over-provisioning, as for the ``used`` ones.
    :param guests: how many machines and routers it holds, of ``most_guests`` that its hypervisor is given at most.
    :param own: how many machines of the wish's account it holds already, ``own_pod`` its pod.
    """

    id: int
    name: str
    pod_id: int
    cluster_id: int
    hypervisor: str
    closed: str = ""
    disabled: str = ""
    arch: str = ""
    tags: frozenset[str] = frozenset()
    cpus: int = 0
    mhz: int = 0
    total_mhz: int = 0
    total_memory: int = 0
    used_mhz: int = 0
    used_memory: int = 0
    guests: int = 0
    most_guests: int = 1 << 30
    own: int = 0
    own_pod: int = 0


@dataclass(frozen=True, slots=True)
class Want:
    """What a machine wants of its host.

    :param cpus: processors of ``mhz`` each; ``memory`` in MiB.
    :param hypervisor: empty is any, as for ``arch``.
    :param tags: host tags that the host must have, all of them.
    :param host_id: this host and no other; likewise ``cluster_id`` and ``pod_id``.
    :param account_id: whose machines are dispersed or kept together.
    :param algorithm: one of :data:`ALGORITHMS`; empty is what the operator has set.
    :param prefer: the host that is tried first where it will do.
    :param avoid: host number → why it is not to be taken.
    :param machine: UUID of the machine that is placed.
    :param anywhere: disabled places will do, too.
    """

    cpus: int = 1
    mhz: int = 500
    memory: int = 256
    hypervisor: str = ""
    arch: str = ""
    tags: tuple[str, ...] = ()
    host_id: int | None = None
    cluster_id: int | None = None
    pod_id: int | None = None
    account_id: int | None = None
    algorithm: str = ""
    prefer: int | None = None
    avoid: Mapping[int, str] = field(default_factory=dict)
    machine: str = ""
    anywhere: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """What came of it: the chosen host, if any, and (host's name, reasons) of each that would not do."""

    host: Candidate | None
    refused: tuple[tuple[str, str], ...]


def choose(candidates: Iterable[Candidate], want: Want) -> Choice:
    """Choose a host; the order in which the candidates come never matters."""
    fitting: list[Candidate] = []
    refused: list[tuple[str, str]] = []
    for host in sorted(candidates, key=lambda host: host.id):
        reasons = objections(host, want)
        if reasons:
            refused.append((host.name, ", ".join(reasons)))
        else:
            fitting.append(host)
    order = _ORDERS[want.algorithm or FIRST_FIT]
    best = min(fitting, key=lambda host: (host.id != want.prefer, order(host, want), host.id), default=None)
    return Choice(best, tuple(refused))


def objections(host: Candidate, want: Want) -> list[str]:
    """Return every reason why this host will not do; none means that it will."""
    disabled = "" if want.anywhere else host.disabled
    found = [reason for reason in (host.closed, disabled, want.avoid.get(host.id, "")) if reason]
    found += _wrong_place(host, want)
    if want.hypervisor and host.hypervisor.lower() != want.hypervisor.lower():
        found.append(f"its hypervisor is {host.hypervisor}, not {want.hypervisor}")
    if want.arch and host.arch and host.arch != want.arch:
        found.append(f"its architecture is {host.arch}, not {want.arch}")
    missing = sorted(set(want.tags) - host.tags)
    if missing:
        found.append(f"it lacks the host tag {', '.join(missing)}")
    return found + _too_small(host, want)


def _wrong_place(host: Candidate, want: Want) -> list[str]:
    places = [(want.host_id, host.id, "host"), (want.cluster_id, host.cluster_id, "cluster")]
    places += [(want.pod_id, host.pod_id, "pod")]
    return [f"another {what} was asked for" for wanted, has, what in places if wanted is not None and wanted != has]


def _too_small(host: Candidate, want: Want) -> list[str]:
    found = []
    if host.guests >= host.most_guests:
        found.append(
            f"it holds {host.guests} machines and routers, and its hypervisor is given {host.most_guests} at most"
        )
    if want.cpus > host.cpus:
        found.append(f"it has {host.cpus} processors, and {want.cpus} are needed")
    if want.mhz > host.mhz:
        found.append(f"its processors have {host.mhz} MHz, and {want.mhz} are needed")
    free_mhz, free_memory = host.total_mhz - host.used_mhz, host.total_memory - host.used_memory
    if want.cpus * want.mhz > free_mhz:
        found.append(f"{free_mhz} of its {host.total_mhz} MHz are free, and {want.cpus * want.mhz} are needed")
    if want.memory > free_memory:
        found.append(f"{free_memory} of its {host.total_memory} MiB are free, and {want.memory} are needed")
    return found


def _consumed(host: Candidate, _want: Want) -> Sequence[Any]:
    return (max(host.used_mhz / max(1, host.total_mhz), host.used_memory / max(1, host.total_memory)),)


def _by_digest(host: Candidate, want: Want) -> Sequence[Any]:
    return (hashlib.blake2b(f"{want.machine}/{host.id}".encode(), digest_size=8).digest(),)


_ORDERS: dict[str, Callable[[Candidate, Want], Sequence[Any]]] = {
    FIRST_FIT: lambda _host, _want: (),
    DISPERSING: lambda host, _want: (host.own, host.own_pod),
    CONCENTRATED: lambda host, _want: (-host.own_pod, host.pod_id, -host.own),
    LEAST_CONSUMED: _consumed,
    RANDOM: _by_digest,
}
