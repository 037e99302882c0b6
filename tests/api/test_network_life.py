"""Networks: made, restarted, counted, collected and deleted, with the agents' part played over their own door."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from controlplane.errors import BadParameter, InUse
from controlplane.network import implement
from controlplane.network.networks import Network
from controlplane.network.public_ips import PublicIp
from controlplane.network.routers import Router
from controlplane.reconcile.targets import Target
from controlplane.work.signals import signals
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType, Vnet
from controlplane.zone.providers import NetworkServiceProvider
from systemvm.bundle import Observation
from tests.api.compute_world import world


@pytest.fixture
def there(cloud):
    with world(cloud, hosts=1) as made:
        with cloud.database.write() as session:
            physical = session.scalars(select(PhysicalNetwork)).one()
            physical.traffic_types.append(TrafficType(traffic="Guest"))
            physical.state = "Enabled"
            provider = NetworkServiceProvider(physical_network_id=physical.id, name="VirtualRouter", state="Enabled")
            session.add(provider)
        yield made


def until(check):
    assert signals.wait([f"target/{number}" for number in range(1, 50)], check, 10)


def shown(there):
    return there.cloud("listNetworks", id=there.network)["network"][0]


def routers(there):
    return there.rows(Router, Router.removed.is_(None))


def test_the_first_machine_implements_the_network_and_its_job_ends_when_the_router_serves(there):
    assert shown(there)["state"] == "Allocated"
    there.deploy(name="one")
    (router,) = routers(there)
    assert (shown(there)["state"], router.state) == ("Implemented", "Running")
    (address,) = there.rows(PublicIp, PublicIp.source_nat)
    assert address.state == "Allocated"


def test_a_restart_with_cleanup_makes_a_new_router_with_the_same_addresses(there):
    there.deploy(name="one")
    (old,) = routers(there)
    before = [row.address for row in there.rows(PublicIp, PublicIp.source_nat)]
    assert there.job(there.cloud("restartNetwork", id=there.network, cleanup=True)) is True
    (new,) = routers(there)
    assert new.name != old.name
    assert new.state == "Running"
    assert [row.address for row in there.rows(PublicIp, PublicIp.source_nat)] == before
    assert there.rows(Target, Target.name == old.name) == []


def test_what_a_router_counted_outlives_it(there):
    there.deploy(name="one")
    name = there.network.replace("-", "")

    def counts(received, sent):
        (router,) = routers(there)
        (target,) = there.rows(Target, Target.id == router.target_id)
        seen = Observation(target.uuid, counters=((f"in_{name}", 1, received), (f"out_{name}", 1, sent)))
        there.door.observations(there.agents[0].number, [seen])

    counts(1000, 200)
    counts(1500, 300)
    assert (shown(there)["receivedbytes"], shown(there)["sentbytes"]) == (1500, 300)
    there.job(there.cloud("restartNetwork", id=there.network, cleanup=True))
    assert (shown(there)["receivedbytes"], shown(there)["sentbytes"]) == (1500, 300)
    counts(70, 8)
    assert (shown(there)["receivedbytes"], shown(there)["sentbytes"]) == (1570, 308)


def test_an_idle_network_is_collected_and_one_with_a_machine_never(there):
    vm = there.deploy(name="one")

    def collect(later):
        with there.cloud.database.write() as session:
            for network in session.query(Network):
                network.idle_since = network.idle_since and network.idle_since - timedelta(seconds=later)
            implement.collect_idle_networks(session)

    collect(10_000)
    collect(10_000)
    assert shown(there)["state"] == "Implemented"
    there.job(there.cloud("stopVirtualMachine", id=vm["id"]))
    collect(0)
    assert shown(there)["state"] == "Implemented"
    collect(10_000)
    until(lambda: shown(there)["state"] == "Allocated")
    assert routers(there) == []
    assert there.rows(Vnet, Vnet.network_id.is_not(None)) == []
    there.job(there.cloud("startVirtualMachine", id=vm["id"]))
    assert shown(there)["state"] == "Implemented"


def test_a_network_with_machines_is_not_deleted_and_without_them_leaves_nothing(there, cloud):
    vm = there.deploy(name="one")
    with pytest.raises(InUse, match="one have interfaces"):
        there.cloud("deleteNetwork", id=there.network)
    there.job(there.cloud("destroyVirtualMachine", id=vm["id"]))
    there.job(cloud("expungeVirtualMachine", id=vm["id"]))
    assert there.job(there.cloud("deleteNetwork", id=there.network)) is True
    assert routers(there) == []
    assert there.rows(Vnet) == []
    assert there.rows(PublicIp, PublicIp.state != "Free") == []
    assert there.cloud("listNetworks") == {}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"gateway": "10.1.1.1"}, "go together"),
        ({"gateway": "10.1.1.0", "netmask": "255.255.255.0"}, "must not be the first"),
        ({"gateway": "10.1.1.1", "netmask": "255.0.255.0"}, "netmask value=255.0.255.0"),
        ({"gateway": "fe80::1", "netmask": "255.255.255.0"}, "gateway"),
        ({"startip": "10.9.9.9"}, "must lie inside"),
        ({"networkdomain": "a b"}, "networkdomain"),
        ({"networkdomain": "evil\nserver=8.8.8.8"}, "networkdomain"),
        ({"name": "a\nb"}, "name"),
        ({"publicmtu": 20}, "publicmtu"),
        ({"vlan": "100"}, "vlan"),
        ({"vpcid": "x"}, "vpcid"),
    ],
)
def test_a_bad_network_is_refused_by_name_and_nothing_is_made(there, given, names):
    offering = shown(there)["networkofferingid"]
    wanted = {"name": "n", "zoneid": there.zone, "networkofferingid": offering} | given
    with pytest.raises(BadParameter, match=names):
        there.cloud("createNetwork", **wanted)
    assert len(there.rows(Network)) == 1


def test_another_accounts_network_does_not_exist(there):
    bob = there.cloud.as_user("bob")
    assert bob("listNetworks") == {}
    assert there.cloud("listNetworks", listall=True, retrieveonlyresourcecount=True) == {"count": 1}
    for command in ("deleteNetwork", "updateNetwork", "restartNetwork"):
        with pytest.raises(BadParameter, match="no network with this id exists"):
            bob(command, id=there.network)


def test_routers_are_stopped_started_rebooted_and_destroyed(there, cloud):
    there.deploy(name="one")
    (router,) = routers(there)
    assert there.job(cloud("stopRouter", id=router.uuid))["state"] == "Stopped"
    with pytest.raises(BadParameter, match="is Stopped"):
        cloud("stopRouter", id=router.uuid)
    assert there.job(cloud("startRouter", id=router.uuid))["state"] == "Running"
    rebooted = there.job(cloud("rebootRouter", id=router.uuid))
    assert (rebooted["id"], rebooted["name"], rebooted["state"]) == (router.uuid, router.name, "Running")
    (after,) = [row for row in routers(there) if row.retired is None]
    assert after.id != router.id
    assert [row.name for row in there.rows(Target, Target.id == after.target_id)] == [f"{router.name}-{after.id}"]
    assert after.replaces_id in (router.id, None)
    assert there.job(cloud("rebootRouter", id=router.uuid, forced=True))["state"] == "Running"
    (again,) = [row for row in routers(there) if row.retired is None]
    assert (again.id, again.boot) == (after.id, 1)
    there.job(cloud("destroyRouter", id=router.uuid))
    assert routers(there) == []
    there.job(cloud("restartNetwork", id=there.network, cleanup=True))
    assert [row.state for row in routers(there)] == ["Running"]
