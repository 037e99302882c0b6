"""Redundant networks: two routers on two hosts, the control plane's vote, and who must have learnt of whom before."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from controlplane.events.alerts import Alert
from controlplane.network import implement, leases
from controlplane.network.networks import Network
from controlplane.network.nics import NetworkAddress
from controlplane.network.redundancy import RouterPair, may_have_votes, roster
from controlplane.network.routers import Router
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.reconcile.targets import Found, Target, load_facts
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType, Vnet
from controlplane.zone.providers import NetworkServiceProvider
from drivers.redundancy import shared_mac
from tests.api.compute_world import world


@pytest.fixture
def there(cloud, request):
    leases._promised.clear()
    with world(cloud, hosts=getattr(request, "param", 2)) as made:
        with cloud.database.write() as session:
            physical = session.scalars(select(PhysicalNetwork)).one()
            physical.traffic_types.append(TrafficType(traffic="Guest"))
            physical.state = "Enabled"
            provider = NetworkServiceProvider(physical_network_id=physical.id, name="VirtualRouter", state="Enabled")
            session.add(provider)
            network = session.scalars(select(Network)).first()
            offering = session.get_one(NetworkOffering, network.offering_id)
            offering.capabilities = offering.capabilities | {"SourceNat": {"RedundantRouter": "true"}}
        yield made


def routers(there):
    return there.rows(Router, Router.removed.is_(None))


def facts(there, router):
    with there.cloud.database.read() as session:
        return load_facts(session, session.get_one(Target, router.target_id))


def shown(there):
    return {row["name"]: row for row in there.cloud.as_user("admin")("listRouters", listall=True)["router"]}


def vote(there, router, number=1, **more):
    """Ask for the vote as the router's host would."""
    with there.cloud.database.write() as session:
        row = session.get_one(Router, router.id)
        agent = session.get_one(Target, row.target_id).agent_id
        ask = {"owner": row.network.uuid, "router": row.uuid, "roster": roster(session, row), "round": number}
        body = {"asks": [ask | {"milliseconds": 450} | more], "releases": []}
        return leases.vote(session, agent, body)[row.uuid]


def release(there, router, number):
    with there.cloud.database.write() as session:
        row = session.get_one(Router, router.id)
        agent = session.get_one(Target, row.target_id).agent_id
        body = {"asks": [], "releases": [{"owner": row.network.uuid, "router": row.uuid, "round": number}]}
        leases.vote(session, agent, body)


def test_a_redundant_network_has_two_routers_on_two_hosts_with_the_same_addresses(there):
    there.deploy(name="one")
    one, two = routers(there)
    assert one.host_id != two.host_id
    assert (one.state, two.state) == ("Running", "Running")
    ours, theirs = facts(there, one), facts(there, two)
    assert {nic.address for nic in ours.nics if nic.traffic == "Guest"} == {
        nic.address for nic in theirs.nics if nic.traffic == "Guest"
    }
    assert [item.address for item in ours.addresses] == [item.address for item in theirs.addresses]
    assert not {nic.mac for nic in ours.nics} & {nic.mac for nic in theirs.nics}
    first, second = ({nic["traffictype"]: nic["macaddress"] for nic in row["nic"]} for row in shown(there).values())
    assert first.pop("Control") != second.pop("Control")
    assert (
        first
        == second
        == {
            nic.traffic: shared_mac(ours.redundancy.group, nic.segment) for nic in ours.nics if nic.traffic != "Control"
        }
    )
    assert {row["guestmacaddress"] for row in shown(there).values()} == {first["Guest"]}
    assert ours.redundancy.roster == theirs.redundancy.roster
    assert (ours.redundancy.peer, theirs.redundancy.peer) == (two.uuid, one.uuid)
    assert (ours.redundancy.peer_address, ours.redundancy.address) == (
        theirs.redundancy.address,
        theirs.redundancy.peer_address,
    )
    assert not ours.redundancy.sole
    assert there.cloud("listNetworks", id=there.network)["network"][0]["redundantrouter"] is True


def test_the_control_plane_votes_for_one_until_its_promise_is_over_or_given_back(there):
    there.deploy(name="one")
    one, two = routers(there)
    assert vote(there, one, 7)
    assert not vote(there, two, 1)
    release(there, one, 6)  # an old one, overtaken by the question that followed it
    assert not vote(there, two, 2)
    release(there, one, 7)
    assert vote(there, two, 3)
    (pair,) = there.rows(RouterPair)
    assert (pair.holder, pair.epoch) == (two.uuid, 2)


def test_a_promise_holds_though_the_process_or_the_clock_was_set_anew(there):
    there.deploy(name="one")
    one, two = routers(there)
    assert vote(there, one, milliseconds=2000)
    leases._promised.clear()  # another process: only the database knows
    assert not vote(there, two)
    with there.cloud.database.write() as session:
        pair = session.scalars(select(RouterPair)).one()
        pair.until -= timedelta(hours=1)  # the clock went on by an hour
    assert vote(there, two)


def test_a_short_promise_takes_nothing_from_a_longer_one(there):
    there.deploy(name="one")
    one, _ = routers(there)
    assert vote(there, one, 1, milliseconds=2000)
    (before,) = there.rows(RouterPair)
    assert vote(there, one, 2, milliseconds=1)
    (after,) = there.rows(RouterPair)
    assert after.until == before.until


def test_no_vote_for_another_roster_another_host_or_what_was_removed(there):
    there.deploy(name="one")
    one, two = routers(there)
    assert not vote(there, one, roster=f"{one.uuid}/0")
    with there.cloud.database.write() as session:
        other = session.get_one(Target, two.target_id).agent_id
        row = session.get_one(Router, one.id)
        ask = {"owner": row.network.uuid, "router": row.uuid, "roster": roster(session, row), "round": 1}
        body = {"asks": [ask | {"milliseconds": 450}], "releases": []}
        assert leases.vote(session, other, body) == {one.uuid: False}
        implement.remove_router(session, row)
        mine = session.get_one(Target, row.target_id).agent_id
        assert leases.vote(session, mine, body) == {one.uuid: False}


def test_who_comes_to_another_waits_until_that_one_has_learnt_of_it(there):
    there.deploy(name="one")
    one, two = routers(there)
    assert there.job(there.cloud.as_user("admin")("destroyRouter", id=two.uuid))
    assert facts(there, one).redundancy.sole
    with there.cloud.database.write() as session:
        network = session.scalars(select(Network).where(Network.uuid == there.network)).one()
        waits = implement.ensure_implemented(session, network)
        fresh = session.scalars(select(Router).where(Router.removed.is_(None)).order_by(Router.id.desc())).first()
        assert waits
        assert not may_have_votes(session, fresh)
        mine = session.get_one(Target, one.target_id)
        generation = mine.desired_generation
        mine.applied_generation = generation
        session.flush()
        assert may_have_votes(session, fresh)


def test_the_gateway_stays_taken_when_the_router_it_was_taken_for_goes(there):
    there.deploy(name="one")
    one, _ = routers(there)
    gateway = there.cloud("listNetworks", id=there.network)["network"][0]["gateway"]
    assert there.job(there.cloud.as_user("admin")("destroyRouter", id=one.uuid))
    assert there.rows(NetworkAddress, NetworkAddress.address == gateway)


def test_a_router_that_stops_is_out_of_the_roster_and_comes_back_as_another(there):
    there.deploy(name="one")
    one, two = routers(there)
    assert there.job(there.cloud.as_user("admin")("stopRouter", id=two.uuid))
    assert facts(there, one).redundancy.roster == ((one.uuid, 0),)
    assert facts(there, one).redundancy.sole
    assert there.job(there.cloud.as_user("admin")("startRouter", id=two.uuid))
    assert set(facts(there, one).redundancy.roster) == {(one.uuid, 0), (two.uuid, 1)}


def test_a_restart_with_cleanup_makes_both_anew_one_after_the_other(there):
    there.deploy(name="one")
    before = {router.name for router in routers(there)}
    assert there.job(there.cloud("restartNetwork", id=there.network, cleanup=True)) is True
    after = routers(there)
    assert len(after) == 2
    assert not before & {router.name for router in after}
    assert len({router.host_id for router in after}) == 2


def test_a_network_is_made_redundant(there):
    with there.cloud.database.write() as session:
        session.scalars(select(NetworkOffering).where(NetworkOffering.id == 1)).first()
        network = session.scalars(select(Network).where(Network.uuid == there.network)).one()
        network.offering.capabilities = {}
    there.deploy(name="one")
    assert len(routers(there)) == 1
    assert facts(there, routers(there)[0]).redundancy is None
    assert there.job(there.cloud("restartNetwork", id=there.network, makeredundant=True)) is True
    one, two = routers(there)
    assert one.host_id != two.host_id
    assert facts(there, one).redundancy.peer == two.uuid


@pytest.mark.parametrize("there", [1], indirect=True)
def test_where_there_is_no_second_host_one_serves_alone_and_an_operator_is_told(there):
    there.deploy(name="one")
    (only,) = routers(there)
    assert only.state == "Running"
    assert facts(there, only).redundancy.sole
    (alert,) = there.rows(Alert, Alert.resolved.is_(None))
    assert "has one router instead of two" in alert.subject
    assert only.name in alert.description


def test_the_state_shown_is_what_was_read_back_and_of_two_primaries_the_later(there):
    there.deploy(name="one")
    one, two = routers(there)
    assert {row["redundantstate"] for row in shown(there).values()} == {"UNKNOWN"}
    with there.cloud.database.write() as session:
        for router, state, back in ((one, "PRIMARY", 4), (two, "BACKUP", 3)):
            found = session.get(Found, router.target_id) or Found(target_id=router.target_id)
            found.states, found.at = {"redundancy": state}, implement.now() - timedelta(seconds=back)
            session.add(found)
    views = shown(there)
    assert (views[one.name]["redundantstate"], views[two.name]["redundantstate"]) == ("PRIMARY", "BACKUP")
    assert views[one.name]["isredundantrouter"] is True
    with there.cloud.database.write() as session:
        session.get_one(Found, two.target_id).states = {"redundancy": "PRIMARY"}
    views = shown(there)
    assert (views[one.name]["redundantstate"], views[two.name]["redundantstate"]) == ("UNKNOWN", "PRIMARY")


def test_a_network_that_shuts_down_gives_the_number_of_its_link_back(there):
    there.deploy(name="one")
    assert there.rows(Vnet, Vnet.network_id.is_(None))
    with there.cloud.database.write() as session:
        network = session.scalars(select(Network).where(Network.uuid == there.network)).one()
        assert implement.remove_routers(session, network)
        network.state = "Shutdown"
        for target in session.scalars(select(Target).where(Target.absent)).all():
            implement.router_is_gone(session, target)
        assert session.scalars(select(Vnet).where(Vnet.network_id.is_(None))).all() == []
        assert session.scalars(select(RouterPair)).all() == []


def test_a_network_whose_offering_became_redundant_gets_its_second_router_at_the_restart(there):
    with there.cloud.database.write() as session:
        session.scalars(select(Network).where(Network.uuid == there.network)).one().offering.capabilities = {}
    there.deploy(name="one")
    (single,) = routers(there)
    with there.cloud.database.write() as session:
        offering = session.scalars(select(Network).where(Network.uuid == there.network)).one().offering
        offering.capabilities = {"SourceNat": {"RedundantRouter": "true"}}
    assert there.job(there.cloud("restartNetwork", id=there.network, cleanup=True)) is True
    one, two = (router for router in routers(there) if router.retired is None)
    assert single.id not in (one.id, two.id)
    assert facts(there, one).redundancy.peer == two.uuid
    assert two.votes_after
