"""A process that dies at any step of a replacement leaves the old or the new router serving: never none, never both."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import joinedload

from controlplane.network import replacement
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.routers import Router
from controlplane.reconcile import targets
from controlplane.reconcile.targets import Target
from controlplane.work import workflows
from controlplane.work.signals import signals
from controlplane.zone.hosts import Host
from systemvm.bundle import Observation
from tests.api.compute_world import World, world
from tests.work import test_compute_crashes as crashes


@pytest.fixture
def there(cloud, tmp_path):
    with world(cloud) as made:
        made.relaunch = lambda: (  # type: ignore[attr-defined]
            workflows.stop(),
            workflows.launch(cloud.database, f"sqlite:///{tmp_path / 'work.db'}", "test"),
        )
        made.deploy(name="one")
        yield made


def restart(there: World) -> dict[str, Any]:
    return there.cloud("restartNetwork", id=there.network, cleanup=True)


def lit(there: World) -> list[str]:
    """The routers whose interfaces are in their segments, on any host, as the rows have it."""
    rows = there.rows(Router, Router.removed.is_(None), Router.running)
    return [row.name for row in rows if not row.dark]


def plugged(there: World) -> list[str]:
    """The same, as the hosts were told."""
    return [name for agent in there.agents for name, shell in agent.shells.items() if not shell["dark"]]


def settled(there: World) -> bool:
    return not there.rows(Target, Target.desired_generation > Target.applied_generation)


def rest(there: World) -> None:
    """Wait until every host and router stands where it should."""
    assert signals.wait([f"target/{number}" for number in range(1, 200)], lambda: settled(there), 10)


def good(there: World) -> None:
    """One router serves, with the interfaces, and nothing else is left."""
    rest(there)
    (router,) = there.rows(Router, Router.removed.is_(None))
    assert (router.state, router.dark, router.retired, router.replaces_id) == ("Running", False, None, None)
    assert lit(there) == plugged(there) == [router.name]
    nics = there.rows(Nic, Nic.router_id.is_not(None))
    assert {nic.router_id for nic in nics} == {router.id}
    assert sorted(nic.device for nic in nics) == [0, 2]
    assert [name for agent in there.agents for name in agent.shells] == [router.name]


@pytest.mark.timeout(300)
def test_a_replacement_that_dies_at_any_step_leaves_exactly_one_serving(there, monkeypatch):
    macs = {nic.mac for nic in there.rows(Nic, Nic.router_id.is_not(None))}
    seen = set()
    strike = crashes.Death._strike

    def watched(death):
        assert len(lit(there)) == 1
        seen.add(tuple(sorted((row.dark, bool(row.retired)) for row in there.rows(Router, Router.removed.is_(None)))))
        strike(death)

    monkeypatch.setattr(crashes.Death, "_strike", watched)

    def check(job):
        assert job is True
        good(there)
        assert {nic.mac for nic in there.rows(Nic, Nic.router_id.is_not(None))} == macs

    assert crashes.after_a_death_at_every_step(there, monkeypatch, lambda: restart(there), check) > 7
    assert {((False, False),), ((False, False), (True, False)), ((False, False), (True, True))} <= seen


@pytest.mark.timeout(300)
def test_a_move_to_another_host_that_dies_at_any_step_never_has_two_serving(there, monkeypatch):
    def act():
        with there.cloud.database.write() as session:
            (router,) = session.scalars(select(Router).where(Router.removed.is_(None)))
            session.execute(update(Host).values(resource_state="Enabled"))
            session.execute(update(Host).where(Host.id == router.host_id).values(resource_state="Disabled"))
        there.left = router.host_id
        return restart(there)

    def check(job):
        assert job is True
        good(there)
        (router,) = there.rows(Router, Router.removed.is_(None))
        assert router.host_id != there.left

    strike = crashes.Death._strike
    monkeypatch.setattr(crashes.Death, "_strike", lambda death: len(lit(there)) <= 1 and strike(death))
    assert crashes.after_a_death_at_every_step(there, monkeypatch, act, check) > 7


def test_a_new_router_that_cannot_be_made_leaves_the_old_one_and_says_why(there):
    (old,) = there.rows(Router, Router.removed.is_(None))
    for agent in there.agents:
        agent.failing = {f"r-{old.id + 1}-VM"}
    failed = there.job(restart(there))
    assert failed["errorcode"] == 534
    assert "line 1: no" in failed["errortext"]
    assert "the old one goes on serving" in failed["errortext"]
    good(there)
    assert lit(there) == [old.name]
    assert there.job(restart(there)) is True
    good(there)
    assert lit(there) != [old.name]


def prepared(there: World) -> Router:
    """Have a router made in the dark, and return the one that it is to replace."""
    (old,) = there.rows(Router, Router.removed.is_(None))
    with there.cloud.database.write() as session:
        replacement.prepare(session, old.uuid)
    rest(there)
    return old


def test_what_changes_meanwhile_reaches_both(there):
    old = prepared(there)
    with there.cloud.database.read() as session:
        network = session.scalars(select(Network).where(Network.uuid == there.network)).one()
        names = {target.name for target in network.targets(session)}
    assert names == {old.name, f"r-{old.id + 1}-VM"}
    before = {row.name: row.desired_generation for row in there.rows(Target)}
    with there.cloud.database.write() as session:
        network = session.scalars(select(Network).where(Network.uuid == there.network)).one()
        targets.touch(session, list(network.targets(session)))
    rest(there)
    after = {row.name: row.applied_generation for row in there.rows(Target)}
    assert all(after[name] > before[name] for name in names)
    with there.cloud.database.write() as session:
        replacement.give_up(session, old.uuid)
    good(there)


@pytest.mark.parametrize("end", ["stopRouter", "destroyRouter"])
def test_a_router_that_is_ended_meanwhile_is_not_replaced(there, cloud, end):
    old = prepared(there)
    there.job(cloud(end, id=old.uuid))
    with there.cloud.database.write() as session:
        replacement.cut_over(session, old.uuid)
    rest(there)
    assert lit(there) == plugged(there) == []
    assert not there.rows(Router, Router.removed.is_(None), Router.dark)
    assert there.job(restart(there)) is True
    good(there)


def test_a_network_that_is_deleted_meanwhile_takes_both_along(there, cloud):
    prepared(there)
    (vm,) = cloud("listVirtualMachines", listall=True)["virtualmachine"]
    there.job(cloud("destroyVirtualMachine", id=vm["id"], expunge="true"))
    there.job(cloud("deleteNetwork", id=there.network))
    rest(there)
    assert not there.rows(Router, Router.removed.is_(None))
    assert not there.rows(Nic, Nic.router_id.is_not(None))
    assert [name for agent in there.agents for name in agent.shells] == []
    (network,) = there.rows(Network)
    assert network.vnet is None


def test_a_replacement_that_nobody_works_on_is_given_up(there, monkeypatch):
    old = prepared(there)
    with there.cloud.database.write() as session:
        replacement.remove_stranded_routers(session)
    assert len(there.rows(Router, Router.removed.is_(None))) == 2, "it may still be worked on"
    monkeypatch.setattr(replacement, "STRANDED", replacement.timedelta(0))
    with there.cloud.database.write() as session:
        replacement.remove_stranded_routers(session)
    good(there)
    assert lit(there) == [old.name]


def test_counters_go_on_over_a_replacement(there):
    def see(router, **counters):
        agent = there.agents[0] if router.target.agent_id == there.agents[0].number else there.agents[1]
        found = tuple((name, *count) for name, count in counters.items())
        there.door.observations(agent.number, [Observation(router.target.uuid, counters=found)])

    name = there.network.replace("-", "")
    old = routers(there)[0]
    see(old, **{f"in_{name}": (3, 700), f"out_{name}": (1, 50)})
    there.job(restart(there))
    rest(there)
    new = routers(there)[0]
    see(new, **{f"in_{name}": (1, 300)})
    shown = there.cloud("listNetworks", id=there.network)["network"][0]
    assert (shown["receivedbytes"], shown["sentbytes"]) == (1000, 50)


def routers(there: World) -> list[Router]:
    with there.cloud.database.read() as session:
        query = select(Router).where(Router.removed.is_(None)).options(joinedload(Router.target))
        return list(session.scalars(query))
