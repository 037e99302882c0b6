"""Disabled zones, pods, clusters and hosts: nothing new lands there, and what runs there goes on."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.errors import BadParameter, Forbidden
from controlplane.network.routers import Router
from controlplane.zone.clusters import Cluster
from controlplane.zone.hosts import Host
from controlplane.zone.pods import Pod
from tests.api.compute_world import second_network, world

ADMINS, ROUTERS = "allow.admin.vm.on.disabled.resources", "allow.router.on.disabled.resources"


@pytest.fixture
def there(cloud):
    with world(cloud, hosts=1) as made:
        yield made


def uuid_of(there, table):
    return there.rows(table)[0].uuid


def zone(cloud, there, state):
    return cloud("updateZone", id=there.zone, allocationstate=f"{state}d")


def pod(cloud, there, state):
    return cloud("updatePod", id=uuid_of(there, Pod), allocationstate=f"{state}d")


def cluster(cloud, there, state):
    return cloud("updateCluster", id=uuid_of(there, Cluster), allocationstate=f"{state}d")


def managed(cloud, there, state):
    return cloud(
        "updateCluster", id=uuid_of(there, Cluster), managedstate={"Enable": "Managed", "Disable": "Unmanaged"}[state]
    )


def host(cloud, there, state):
    return cloud("updateHost", id=there.hosts[0], allocationstate=state)


PLACES = [
    (zone, "host-1: its zone z1 is disabled"),
    (pod, "host-1: its pod pod is disabled"),
    (cluster, "host-1: its cluster c is disabled"),
    (managed, "host-1: its cluster c is Unmanaged"),
    (host, "host-1: it is disabled"),
]


@pytest.fixture(autouse=True)
def ready(cloud, there):
    """The zone can be enabled again: it has a physical network for guests."""
    from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType

    with cloud.database.write() as session:
        physical = session.scalars(select(PhysicalNetwork)).one()
        physical.traffic_types.append(TrafficType(traffic="Guest"))


@pytest.mark.parametrize(("place", "reason"), PLACES)
def test_nothing_new_lands_there_and_what_runs_is_served(cloud, there, place, reason):
    vm = there.deploy(name="one")
    stopped = there.deploy(name="two")
    there.job(there.cloud("stopVirtualMachine", id=stopped["id"]))
    place(cloud, there, "Disable")
    refused = there.job(there.cloud("startVirtualMachine", id=stopped["id"]))
    assert (refused["errorcode"], reason in refused["errortext"]) == (533, True), refused
    if place is zone:
        with pytest.raises(Forbidden, match="Zone z1 is Disabled: only a root admin can deploy"):
            there.deploy(name="three")
    else:
        assert reason in there.deploy(name="three")["errortext"]
    assert there.job(there.cloud("rebootVirtualMachine", id=vm["id"]))["state"] == "Running"
    assert any(vm["id"] in agent.holds for agent in there.agents)
    assert there.job(there.cloud("stopVirtualMachine", id=vm["id"]))["state"] == "Stopped"
    place(cloud, there, "Enable")
    assert there.job(there.cloud("startVirtualMachine", id=stopped["id"]))["state"] == "Running"


@pytest.mark.parametrize(("place", "reason"), PLACES)
def test_no_router_lands_there_either_unless_the_operator_says_so(cloud, there, place, reason):
    there.deploy(name="one")
    place(cloud, there, "Disable")
    refused = there.job(there.cloud("restartNetwork", id=there.network, cleanup=True))
    assert reason in refused["errortext"]
    (router,) = there.rows(Router, Router.removed.is_(None))
    assert router.state == "Running", "the old one goes on serving"
    cloud("updateConfiguration", name=ROUTERS, value="true")
    done = there.job(there.cloud("restartNetwork", id=there.network, cleanup=True))
    assert done is True or place is managed


@pytest.mark.parametrize(("place", "reason"), PLACES)
def test_machines_of_root_admins_land_there_where_the_operator_says_so(cloud, there, place, reason):
    place(cloud, there, "Disable")
    mine = {"cloud": cloud, "networkids": _admins_network(cloud, there)}
    refused = there.deploy(name="mine", **mine)
    assert reason in refused["errortext"]
    for name in (ADMINS, ROUTERS):
        cloud("updateConfiguration", name=name, value="true")
    done = there.deploy(name="again", **mine)
    if place is managed:
        assert reason in done["errortext"], "an unmanaged cluster takes nothing at all"
    else:
        assert done["state"] == "Running"


def _admins_network(cloud, there):
    from controlplane.identity.accounts import Account
    from controlplane.network.networks import Network

    uuid = second_network(there)
    with cloud.database.write() as session:
        row = session.scalars(select(Network).where(Network.uuid == uuid)).one()
        row.account_id = session.scalars(select(Account.id).where(Account.name == "admin")).one()
    return uuid


def test_tenants_make_nothing_in_a_disabled_zone(cloud, there):
    vm = there.deploy(name="one")
    zone(cloud, there, "Disable")
    offering = there.cloud("listNetworks", id=there.network)["network"][0]["networkofferingid"]
    with pytest.raises(BadParameter, match="zone z1 is disabled"):
        there.cloud("createNetwork", name="n", zoneid=there.zone, networkofferingid=offering)
    with pytest.raises(Forbidden, match="Zone z1 is disabled"):
        there.cloud("associateIpAddress", networkid=there.network)
    free = there.cloud("listPublicIpAddresses", state="Free")["publicipaddress"][0]
    with pytest.raises(Forbidden, match="Zone z1 is disabled"):
        there.cloud("reserveIpAddress", id=free["id"])
    assert there.cloud("listZones") == {}
    assert cloud("listZones")["zone"][0]["allocationstate"] == "Disabled"
    assert there.cloud("listVirtualMachines", id=vm["id"])["virtualmachine"][0]["state"] == "Running"


def test_lists_show_what_is_disabled(cloud, there):
    for place in (pod, cluster, managed, host):
        place(cloud, there, "Disable")
    assert cloud("listPods", allocationstate="Disabled")["pod"][0]["allocationstate"] == "Disabled"
    (shown,) = cloud("listClusters", allocationstate="Disabled", managedstate="Unmanaged")["cluster"]
    assert (shown["allocationstate"], shown["managedstate"]) == ("Disabled", "Unmanaged")
    assert cloud("listHosts", resourcestate="Disabled")["host"][0]["state"] == "Up"


def test_a_host_in_maintenance_takes_nothing_from_anybody(cloud, there):
    there.job(cloud("prepareHostForMaintenance", id=there.hosts[0]))
    for name in (ADMINS, ROUTERS):
        cloud("updateConfiguration", name=name, value="true")
    assert "host-1: it is in Maintenance" in there.deploy(name="one")["errortext"]
    with pytest.raises(BadParameter, match="host-1 is in Maintenance; use cancelHostMaintenance"):
        host(cloud, there, "Enable")
    there.job(cloud("cancelHostMaintenance", id=there.hosts[0]))
    assert there.deploy(name="two")["state"] == "Running"
    assert there.rows(Host)[0].resource_state == "Enabled"


def test_a_place_takes_no_other_state(cloud, there):
    with pytest.raises(BadParameter, match="allocationstate value=Off: it must be one of Enabled, Disabled"):
        cloud("updatePod", id=uuid_of(there, Pod), allocationstate="Off")
    with pytest.raises(BadParameter, match="managedstate value=Off: it must be one of Managed, Unmanaged"):
        cloud("updateCluster", id=uuid_of(there, Cluster), managedstate="Off")
