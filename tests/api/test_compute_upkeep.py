"""What is set right without a command: the sweep, observations, and targets without an agent."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.base import now
from controlplane.db.configuration import ConfigurationValue
from controlplane.network.nics import Nic
from controlplane.reconcile.hosted import Hosted
from controlplane.reconcile.sweep import DUTIES, Sweep
from controlplane.reconcile.targets import Target
from controlplane.storage.templates import Template
from controlplane.work.jobs import FAILED, PENDING, Job
from controlplane.work.signals import signals
from controlplane.zone.clusters import Cluster
from controlplane.zone.hosts import Host
from tests.api.compute_world import World, world


@pytest.fixture
def there(cloud):
    with world(cloud) as made:
        yield made


def put(there: World, vm: str, **values):
    with there.cloud.database.write() as session:
        row = session.scalars(select(VirtualMachine).where(VirtualMachine.uuid == vm)).one()
        for name, value in values.items():
            setattr(row, name, value)


def state(there: World, vm: str) -> str:
    return there.rows(VirtualMachine, VirtualMachine.uuid == vm)[0].state


def sweep(there: World) -> None:
    Sweep(there.cloud.database).once()


def test_a_job_past_its_deadline_fails_with_a_sentence(there):
    with there.cloud.database.write() as session:
        caller = there.cloud.caller
        who = {"account_id": caller.account_id, "domain_id": caller.domain_id, "user_id": caller.user_id}
        session.add(
            Job(
                **who,
                command="createNetwork",
                deadline=now() - timedelta(seconds=1),
                created=now() - timedelta(hours=1),
            )
        )
    sweep(there)
    (job,) = there.rows(Job)
    assert job.status == FAILED
    assert "createNetwork had no end after 59 minutes" in job.result["errortext"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"state": "Starting", "running": True}, "Running"),
        ({"state": "Starting", "running": False}, "Error"),
        ({"state": "Stopping", "running": False}, "Stopped"),
    ],
)
def test_a_machine_in_a_passing_state_that_nobody_works_on_is_settled(there, rows, expected):
    vm = there.deploy()
    put(there, vm["id"], **rows)
    sweep(there)
    assert state(there, vm["id"]) == expected


def test_an_expunge_goes_on_when_its_host_is_back(there, cloud):
    vm = there.deploy()
    for agent in there.agents:
        agent.refusing = True
    failed = there.job(cloud("destroyVirtualMachine", id=vm["id"], expunge="true"))
    assert "still to be expunged" in failed["errortext"]
    assert there.rows(Nic, Nic.vm_id.is_not(None)), "the address is kept while a host may still have the guest"
    for agent in there.agents:
        agent.refusing = False
        there.door.hello(agent.number, {})
        signals.notify(f"agent/{agent.number}")
    assert there.nobody_holds(vm["id"])
    assert signals.wait(["target/1"], lambda: sweep(there) or not there.rows(Nic, Nic.vm_id.is_not(None)), 10)
    assert there.rows(VirtualMachine)[0].removed is not None


def test_a_destroyed_machine_is_expunged_after_the_delay(there):
    vm = there.deploy()
    there.job(there.cloud("destroyVirtualMachine", id=vm["id"]))
    sweep(there)
    assert state(there, vm["id"]) == "Destroyed"
    with there.cloud.database.write() as session:
        session.add(ConfigurationValue(name="expunge.interval", value="1"))
        session.add(ConfigurationValue(name="expunge.delay", value="0"))
    gone = lambda: sweep(there) or there.rows(VirtualMachine)[0].removed is not None  # noqa: E731
    assert signals.wait(["target/1"], gone, 10)


def test_a_guest_that_stops_by_itself_is_stopped(there):
    vm = there.deploy()
    (agent,) = [agent for agent in there.agents if vm["id"] in agent.holds]
    target = there.rows(Target, Target.agent_id == agent.number, Target.kind == "host")[0].uuid
    agent.see(target, **{vm["id"]: "running"})
    assert state(there, vm["id"]) == "Running"
    agent.see(target, **{vm["id"]: "stopped"})
    assert state(there, vm["id"]) == "Stopped"
    assert there.job(there.cloud("startVirtualMachine", id=vm["id"]))["state"] == "Running"


def test_a_password_that_was_fetched_is_forgotten(there):
    with there.cloud.database.write() as session:
        session.query(Template).update({"password_enabled": True})
    vm = there.deploy()
    assert there.rows(VirtualMachine)[0].password == vm["password"]
    (router,) = there.rows(Target, Target.kind == "router")
    agent = next(agent for agent in there.agents if agent.number == router.agent_id)
    agent.see(router.uuid, **{f"{vm['id']}/password": "taken"})
    assert there.rows(VirtualMachine)[0].password is None


def test_a_simulated_host_is_driven_by_the_control_plane_itself(there):
    with there.cloud.database.write() as session:
        for host in session.scalars(select(Host)):
            host.hypervisor = "Simulator"
            host.target.kind, host.target.agent_id = "simulated-host", None
            host.details = {"fail_guests": "*"} if host.name == "host-1" else {}
        session.query(Cluster).update({"hypervisor": "Simulator"})
        session.query(Template).update({"hypervisor": "Simulator"})
    loop = Hosted(there.cloud.database)
    loop.start()
    try:
        vm = there.deploy()
        assert vm["state"] == "Running"
        (row,) = there.rows(VirtualMachine)
        assert there.rows(Host, Host.id == row.host_id)[0].name == "host-2"
        assert there.job(there.cloud("stopVirtualMachine", id=vm["id"]))["state"] == "Stopped"
    finally:
        loop.stop()


def test_the_duties_are_known():
    assert {"end_late_jobs", "settle_machines", "expunge_destroyed", "collect_idle_networks"} <= set(DUTIES)
    assert PENDING == 0
