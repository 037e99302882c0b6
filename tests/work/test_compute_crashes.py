"""A process that dies after any step of a machine's workflow leaves it done or unwound, and leaks nothing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.session import after_commit
from controlplane.errors import ApiError
from controlplane.identity.limits import ResourceCount
from controlplane.network.nics import NetworkAddress, Nic
from controlplane.work import workflows
from controlplane.work.jobs import Job
from controlplane.work.workflows import Flow
from tests.api.compute_world import World, world

STEP = Flow.step
KINDS = ("user_vm", "cpu", "memory", "volume")


class Died(BaseException):
    """The process is gone: nothing may catch it."""


class Death:
    """Strikes once, at the n-th step: after its transaction (it is not known to be done), or once it is known."""

    def __init__(self, step: int, *, known: bool) -> None:
        self.left, self.known = step, known
        self.struck = threading.Event()

    def step(self, flow: Flow, function: Callable[..., Any], *arguments: Any) -> Any:
        self.left -= 1
        if self.left != 0:
            return STEP(flow, function, *arguments)
        if self.known:
            with suppress(ApiError):
                STEP(flow, function, *arguments)
            self._strike()

        def doomed(session: Any, *given: Any) -> Any:
            after_commit(session, self._strike)
            try:
                return function(session, *given)
            except ApiError:
                self._strike()

        doomed.__name__ = function.__name__
        return STEP(flow, doomed, *arguments)

    def _strike(self) -> None:
        self.struck.set()
        raise Died


@pytest.fixture
def there(cloud, tmp_path):
    with world(cloud) as made:
        made.relaunch = lambda: (  # type: ignore[attr-defined]
            workflows.stop(),
            workflows.launch(cloud.database, f"sqlite:///{tmp_path / 'work.db'}", "test"),
        )
        yield made


def after_a_death_at_every_step(there: World, monkeypatch: Any, act: Callable[[], dict[str, Any]], check: Any) -> int:
    """Do it again and again, dying one step later each time, until it is done before death comes."""
    for known in (False, True):
        for number in range(1, 12):
            death = Death(number, known=known)
            monkeypatch.setattr(Flow, "step", lambda flow, *rest, death=death: death.step(flow, *rest))
            answer = act()
            struck = _until(there, death, answer["jobid"])
            monkeypatch.setattr(Flow, "step", STEP)
            if struck:
                there.relaunch()  # type: ignore[attr-defined]
            check(there.job(answer))
            if not struck:
                break
    return number


def _until(there: World, death: Death, job: str) -> bool:
    while not death.struck.wait(0.05):
        if there.rows(Job, Job.uuid == job)[0].status:
            return False
    return True


def leaks(there: World) -> tuple[Counter[str], dict[str, int]]:
    """What is taken beyond the machines that are there."""
    taken = Counter(row.address for row in there.rows(NetworkAddress))
    used = Counter(nic.address for nic in there.rows(Nic) if nic.network_id)
    mine = ResourceCount.owner == "Account", ResourceCount.kind.in_(KINDS), ResourceCount.count != 0
    counts = {row.kind: row.count for row in there.rows(ResourceCount, *mine)}
    live = [vm for vm in there.rows(VirtualMachine, VirtualMachine.removed.is_(None)) if vm.state != "Error"]
    expected = {"user_vm": len(live), "cpu": len(live), "memory": 128 * len(live), "volume": len(live)}
    assert counts == {kind: number for kind, number in expected.items() if number}
    return taken - used, counts


@pytest.mark.timeout(300)
def test_a_deploy_that_dies_at_any_step_ends_running(there, monkeypatch):
    def check(vm):
        assert vm["state"] == "Running"
        assert sum(vm["id"] in agent.holds for agent in there.agents) == 1
        assert leaks(there)[0] == Counter()

    given = {"zoneid": there.zone, "serviceofferingid": there.offering, "templateid": there.template}
    act = lambda: there.cloud("deployVirtualMachine", networkids=there.network, **given)  # noqa: E731
    assert after_a_death_at_every_step(there, monkeypatch, act, check) > 3


@pytest.mark.timeout(300)
def test_a_deploy_that_fails_and_dies_at_any_step_leaves_nothing(there, monkeypatch):
    for agent in there.agents:
        agent.broken = {"*"}

    def check(failed):
        assert failed["errorcode"] == 533
        assert "host-1" in failed["errortext"]
        assert "host-2" in failed["errortext"]
        assert leaks(there)[0] == Counter()
        assert there.nobody_holds()
        assert {vm.state for vm in there.rows(VirtualMachine)} == {"Error"}

    given = {"zoneid": there.zone, "serviceofferingid": there.offering, "templateid": there.template}
    act = lambda: there.cloud("deployVirtualMachine", networkids=there.network, **given)  # noqa: E731
    assert after_a_death_at_every_step(there, monkeypatch, act, check) > 6


@pytest.mark.timeout(300)
def test_an_expunge_that_dies_at_any_step_leaves_nothing(there, cloud, monkeypatch):
    machines = [there.deploy()["id"] for _ in range(6)]
    act = lambda: cloud("destroyVirtualMachine", id=machines.pop(), expunge="true")  # noqa: E731

    def check(gone):
        assert gone["state"] == "Expunging"
        assert leaks(there)[0] == Counter()
        assert gone["nic"] == []
        assert there.nobody_holds(gone["id"])

    assert after_a_death_at_every_step(there, monkeypatch, act, check) > 2
