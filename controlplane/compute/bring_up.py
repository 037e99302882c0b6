"""Bringing a machine up: networks first, then a host, the next one if that fails, and a clean end if all do.

Each step is one transaction and may run twice; what is decided is decided in a step, from rows, so that a workflow
that is taken up again after a crash goes the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.compute.choice import PLANNERS, Want
from controlplane.compute.counting import count, count_stopped
from controlplane.compute.outcomes import Waits, latest, machine, networks_of, standing, trouble
from controlplane.compute.placement import choose_host, machines_anywhere, no_host, pick_host
from controlplane.compute.release import let_go, root_volume
from controlplane.compute.virtual_machines import GONE, VirtualMachine
from controlplane.db.base import now
from controlplane.errors import ApiError, BadParameter, NoCapacity, Unavailable
from controlplane.network import elastic_ips
from controlplane.network.implement import ensure_implemented
from controlplane.network.pod_networks import by_pods, full_hosts, placed, settle_in
from controlplane.network.routers import part_of_pod
from controlplane.reconcile.targets import Target, touch
from controlplane.work.workflows import Flow, workflow
from controlplane.zone.hosts import Host

Refused = dict[str, str]
PATIENCE = 60.0
"""Seconds that a host or a router has to answer."""


@workflow("startMachine")
def start_machine(flow: Flow) -> None:
    """Start a machine; a deployed one that no host can start ends in state Error."""
    arguments = flow.arguments
    try:
        bring_up(flow, arguments)
    except ApiError as error:
        flow.step(give_up, flow.subject, error.text, bool(arguments.get("deploying")))
        raise


def bring_up(flow: Flow, arguments: dict[str, Any]) -> None:
    """Do the steps of a start.

    :param arguments: where the caller wants it: ``host``, ``pod`` and ``cluster`` numbers, ``planner``.
    :raises ApiError: no host started it; the sentence has every host's reasons.
    """
    waits = flow.step(prepare, flow.subject, arguments)
    if waits is None:
        return
    settle(flow, waits)
    refused: dict[str, str] = {}
    while True:
        host, waits_host = flow.step(put_on_host, flow.subject, waits, arguments, refused)
        settle(flow, waits_host)
        reason = flow.step(judge, flow.subject, waits_host)
        if not reason:
            return
        refused = refused | {str(host): reason}
        waits = flow.step(move_pod, flow.subject, waits, arguments, refused)
        settle(flow, waits)


def settle(flow: Flow, waits: Sequence[Sequence[int]]) -> None:
    """Wait for the targets, at most :data:`PATIENCE`; the step that follows reads how it went."""
    try:
        flow.wait(waits, PATIENCE)
    except Unavailable:
        return


def prepare(session: Session, uuid: str, arguments: dict[str, Any], refused: Refused | None = None) -> Waits | None:
    """Mark the machine Starting and have its networks made; where addresses depend on the pod, that is chosen now.

    :param refused: host number → why it could not start the guest.
    :return: what to wait for until the routers know the guest; None when it runs already.
    :raises NoCapacity: no host would do as things are now: better known before a router is made for it.
    """
    vm = machine(session, uuid)
    if vm.state in GONE:
        raise BadParameter(
            f"Invalid parameter id value={vm.uuid}: instance {vm.name} is {vm.state}: it cannot be started."
        )
    if vm.state == "Running":
        return None
    count(session, vm)
    full = {str(number): reason for number, reason in full_hosts(session, vm).items()}
    want = _want(session, vm, arguments, full | (refused or {}))
    choice = choose_host(session, vm.zone_id, want if refused else replace(want, pod_id=_pod(session, vm, want)))
    if choice.host is None:
        raise NoCapacity(no_host(session, vm.zone_id, choice))
    vm.state, vm.updated = "Starting", now()
    settle_in(session, vm, choice.host.pod_id)
    elastic_ips.associate(session, vm)
    pairs: list[Any] = []
    for network in networks_of(session, vm):
        pod = choice.host.pod_id if by_pods(network) else None
        pairs += ensure_implemented(session, network, pod)
        pairs += standing(network.targets(session, part_of_pod(pod) if pod is not None else None))
    return latest(pairs)


def _pod(session: Session, vm: VirtualMachine, want: Want) -> int | None:
    """Return the pod that is asked for, or that the machine's addresses are of."""
    return want.pod_id or placed(session, vm)


def move_pod(session: Session, uuid: str, routers: Waits, arguments: dict[str, Any], refused: Refused) -> Waits:
    """Choose among all pods again where the machine's addresses hold it in one, now that a host there has failed.

    :return: what to wait for until the routers know the guest.
    """
    if placed(session, machine(session, uuid)) is None:
        return routers
    return prepare(session, uuid, arguments, refused) or routers


def put_on_host(
    session: Session, uuid: str, routers: Waits, arguments: dict[str, Any], refused: Refused
) -> tuple[int, Waits]:
    """Choose a host and have it hold the running guest.

    :param refused: host number → why it could not start the guest.
    :return: the host's number, and what to wait for.
    :raises NoCapacity: there is no host left.
    :raises Unavailable: a router does not know the guest.
    """
    vm = machine(session, uuid)
    problem = trouble(session, routers)
    if problem:
        raise Unavailable(f"The network of instance {vm.name} is not ready. {problem}")
    former = vm.host_id
    want = _want(session, vm, arguments, refused)
    host = pick_host(session, vm.zone_id, replace(want, pod_id=placed(session, vm) or want.pod_id))
    touched: list[Target] = []
    if former is not None and former != host.id:
        touched += session.get_one(Host, former).targets(session)
    vm.host_id, vm.running, vm.state = host.id, True, "Starting"
    vm.boot += 1
    own = host.targets(session)
    raised = touch(session, [*touched, *own])
    numbers = {target.id for target in own}
    return host.id, [list(pair) for pair in raised if pair[0] in numbers]


def judge(session: Session, uuid: str, waits: Waits) -> str:
    """Read what became of the guest: it is Running then, or the reason is returned."""
    vm = machine(session, uuid)
    reason = trouble(session, waits, [vm.uuid, *(network.uuid for network in networks_of(session, vm))])
    if reason:
        vm.running = False
        return reason
    started(session, vm)
    return ""


def started(session: Session, vm: VirtualMachine) -> None:
    """Write down that the guest runs, and that its disk is on its host."""
    vm.state, vm.last_host_id, vm.error, vm.updated = "Running", vm.host_id, None, now()
    volume = root_volume(session, vm)
    if volume is not None:
        volume.state = "Ready"


def give_up(session: Session, uuid: str, text: str, deploying: bool) -> None:
    """Leave nothing of a start that failed: Stopped, or Error with all addresses given back."""
    vm = machine(session, uuid)
    if vm.state in GONE or (vm.state == "Running" and vm.running):
        return
    touched = list(vm.targets(session))
    vm.running, vm.error, vm.updated, vm.told_password = False, text, now(), None
    volume = root_volume(session, vm)
    if volume is None or volume.state != "Ready":
        vm.host_id = None
    if deploying:
        vm.state = "Error"
        touched += let_go(session, vm)
    else:
        vm.state = "Stopped"
        count_stopped(session, vm)
        touched += elastic_ips.give_back(session, vm)
    touch(session, touched)


def _want(session: Session, vm: VirtualMachine, arguments: dict[str, Any], refused: Refused) -> Want:
    volume = root_volume(session, vm)
    pinned = vm.host_id if volume is not None and volume.state == "Ready" else None
    wanted = arguments.get("host")
    if pinned is not None and wanted not in (None, pinned):
        where = session.scalars(select(Host.name).where(Host.id == pinned)).one()
        raise BadParameter(f"Invalid parameter hostid: the root disk of instance {vm.name} is on host {where}.")
    offering = vm.offering
    return Want(
        cpus=vm.cpus,
        mhz=vm.mhz,
        memory=vm.memory,
        hypervisor=vm.hypervisor,
        arch=vm.template.arch,
        tags=tuple(offering.host_tags),
        host_id=pinned or wanted,
        pod_id=arguments.get("pod"),
        cluster_id=arguments.get("cluster"),
        account_id=vm.account_id,
        algorithm=PLANNERS.get(arguments.get("planner") or offering.deployment_planner or "", ""),
        prefer=vm.host_id or (vm.last_host_id if arguments.get("lasthost", True) else None),
        avoid={int(number): reason for number, reason in refused.items()},
        machine=vm.uuid,
        anywhere=machines_anywhere(session, vm.account_id),
    )
