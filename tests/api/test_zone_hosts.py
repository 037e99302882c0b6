"""Hosts: hello and silence, maintenance, deletion, and who sees what of the physical cloud."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from controlplane.db.base import now
from controlplane.errors import BadParameter, InUse, Unauthenticated, Unavailable
from controlplane.identity.accounts import Account
from controlplane.network.routers import Router
from controlplane.reconcile.door import Door
from controlplane.reconcile.targets import Agent, Target
from controlplane.zone.hosts import Host, notice_silent_hosts
from systemvm.bundle import Outcome
from tests.api.counting import queries
from tests.api.people import Company, done
from tests.api.zone_steps import DNS, TOKEN, add_host, job, make_zone

INVENTORY = {"cpus": 4, "mhz": 2000, "memory": 8 << 30, "tunnel": "10.9.0.1", "version": "1.0", "disk": 100 << 30}


def shown(cloud, **parameters):
    return cloud("listHosts", **parameters).get("host", [])


def test_a_host_is_up_once_its_agent_said_hello_and_disconnected_when_it_is_silent(cloud):
    zone = make_zone(cloud, hypervisor="LXC")
    host = add_host(cloud, zone, hypervisor="LXC", url="http://h1", password=TOKEN)
    door = Door(cloud.database)
    number = door.agent_of(TOKEN)
    assert number is not None
    with cloud.database.read() as session:
        assert session.get_one(Agent, number).token != TOKEN
    with pytest.raises(Unavailable, match="its agent is not connected"):
        cloud("reconnectHost", id=host["id"])
    target = door.hello(number, {"inventory": INVENTORY, "ledger": {}})["target"]
    (up,) = shown(cloud, state="Up")
    assert (up["cpunumber"], up["cpuspeed"], up["memorytotal"]) == (4, 2000, 8 << 30)
    assert (up["ipaddress"], up["version"], up["state"]) == ("10.9.0.1", "1.0", "Up")
    (pool,) = cloud("listStoragePools", hostid=host["id"])["storagepool"]
    assert (pool["scope"], pool["type"], pool["disksizetotal"]) == ("HOST", "Filesystem", 100 << 30)

    waiting = cloud("reconnectHost", id=host["id"])
    bundles = door.pull(number, {})
    assert cloud("queryAsyncJobResult", jobid=waiting["jobid"])["jobstatus"] == 0
    (bundle,) = [item for item in bundles["bundles"] if item["target"] == target]
    digest = _digest(bundle)
    door.outcomes(number, [Outcome(target, bundle["generation"], digest, "applied")])
    assert done(cloud, waiting)["jobresult"]["host"]["id"] == host["id"]

    with cloud.database.write() as session:
        session.get_one(Agent, number).seen = now() - timedelta(seconds=151)
    (silent,) = shown(cloud)
    assert silent["state"] == "Disconnected"
    assert silent["disconnected"]
    assert shown(cloud, state="Up") == []
    assert len(shown(cloud, state="Disconnected")) == 1
    with cloud.database.write() as session:
        notice_silent_hosts(session)
        assert session.scalars(select(Host.state)).one() == "Disconnected"
        session.get_one(Agent, number).seen = now()
        notice_silent_hosts(session)
        assert session.scalars(select(Host.state)).one() == "Up"

    cloud("updateHostPassword", hostid=host["id"], username="root", password=TOKEN + "-new")
    assert door.agent_of(TOKEN) is None
    assert door.agent_of(TOKEN + "-new") == number
    cloud("updateHost", id=host["id"], name="h9")
    assert door.hello(number, {"inventory": INVENTORY})["target"] == target
    cloud("deleteHost", id=host["id"])
    assert door.agent_of(TOKEN + "-new") is None
    assert shown(cloud) == []
    assert cloud("listStoragePools") == {}
    assert add_host(cloud, zone, hypervisor="LXC", url="http://h9", password=TOKEN)["name"] == "h9"


def _digest(data):
    from systemvm.bundle import Bundle

    return Bundle.from_json(data).digest


def test_simulated_hosts_by_any_url(cloud):
    zone = make_zone(cloud)
    names = [
        add_host(cloud, zone, url)["name"] for url in ("http://sim/c0/h0", "http://sim/c0/h1", "sim-3", "10.0.0.7")
    ]
    assert names == ["sim-c0-h0", "sim-c0-h1", "sim-3", "10.0.0.7"]
    assert add_host(cloud, zone, "http://sim/c0/h0")["name"].startswith("sim-c0-h0-")
    assert {host["state"] for host in shown(cloud)} == {"Up"}
    assert [host["ipaddress"] for host in shown(cloud, name="10.0.0.7")] == ["10.0.0.7"]
    with pytest.raises(BadParameter, match="cpus=many must be a whole number from 1 to 1024"):
        add_host(cloud, zone, "http://sim?cpus=many")
    for extra, text in (
        ({"podid": "7bd4b0f0-0000-4000-8000-000000000000"}, "no pod with this id"),
        ({"clusterid": ""}, "by clusterid or by clustername"),
        ({"hosttags": "a b"}, "letters, digits"),
        ({"externaldetails[0].a": "b"}, "not supported"),
    ):
        with pytest.raises(BadParameter, match=text):
            add_host(cloud, zone, "http://other", **extra)
    made = add_host(cloud, zone, "http://other", clusterid="", clustername="c2", hosttags="ssd,fast,ssd")
    assert (made["clustername"], made["hosttags"]) == ("c2", "ssd,fast")
    assert [tag["name"] for tag in cloud("listHostTags")["hosttag"]] == ["fast", "ssd"]
    assert [row["name"] for row in cloud("listHypervisors")["hypervisor"]] == ["LXC", "Simulator"]
    assert [row["name"] for row in cloud("listHypervisors", zoneid=zone.id)["hypervisor"]] == ["Simulator"]

    host = cloud("updateHost", id=made["id"], allocationstate="Disable", hosttags="", annotation="to be sold")["host"]
    assert (host["resourcestate"], host["annotation"]) == ("Disabled", "to be sold")
    job(cloud, "prepareHostForMaintenance", id=made["id"])
    with pytest.raises(BadParameter, match="is in maintenance already"):
        cloud("prepareHostForMaintenance", id=made["id"])
    with pytest.raises(BadParameter, match="use cancelHostMaintenance"):
        cloud("updateHost", id=made["id"], allocationstate="Enable")
    assert job(cloud, "cancelHostMaintenance", id=made["id"])["host"]["resourcestate"] == "Enabled"
    with pytest.raises(BadParameter, match="is Enabled"):
        cloud("cancelHostMaintenance", id=made["id"])
    with cloud.database.read() as session:
        kinds = set(session.scalars(select(Target.kind)))
        agents = set(session.scalars(select(Target.agent_id)))
    assert (kinds, agents) == ({"simulated-host"}, {None})


def test_a_host_that_holds_something_stays(cloud):
    zone = make_zone(cloud)
    host = add_host(cloud, zone)
    with cloud.database.write() as session:
        row = session.scalars(select(Host)).one()
        owner = session.scalars(select(Account).where(Account.name == "admin")).one()
        router = Router(name="r-1-VM", zone_id=row.zone_id, host_id=row.id, state="Running")
        router.account_id, router.domain_id = owner.id, owner.domain_id
        session.add(router)
    with pytest.raises(InUse, match="router r-1-VM would have to be moved"):
        cloud("prepareHostForMaintenance", id=host["id"])
    for forced in (False, True):
        with pytest.raises(InUse, match="it holds the routers r-1-VM"):
            cloud("deleteHost", id=host["id"], forced=forced)
    assert shown(cloud)[0]["resourcestate"] == "Enabled"


def test_capacity_counts_with_overprovisioning(cloud):
    zone = make_zone(cloud)
    add_host(cloud, zone, "http://a?cpus=2&mhz=1000&memory=1024")
    add_host(cloud, zone, "http://b?cpus=4&mhz=1000&memory=1024")
    disabled = add_host(cloud, zone, "http://c?cpus=9")["id"]
    cloud("updateHost", id=disabled, allocationstate="Disable")
    totals = {row["type"]: row["capacitytotal"] for row in cloud("listCapacity", zoneid=zone.id)["capacity"]}
    assert totals == {0: 2 << 30, 1: 6000, 4: 10, 5: 11, 7: 100, 9: 0, 90: 6}
    cloud("updateConfiguration", name="cpu.overprovisioning.factor", value="2.0")
    (cpu,) = cloud("listCapacity", clusterid=zone.cluster, type=1)["capacity"]
    assert (cpu["capacitytotal"], cpu["name"], cpu["percentused"], cpu["clusterid"]) == (
        12000,
        "CPU",
        "0",
        zone.cluster,
    )
    (cluster,) = cloud("listClusters", showcapacities=True)["cluster"]
    assert cluster["cpuovercommitratio"] == "2.0"
    assert {row["type"] for row in cluster["capacity"]} == {0, 1, 9, 90}
    (pod,) = cloud("listPods", showcapacities=True)["pod"]
    assert {row["type"] for row in pod["capacity"]} == {0, 1, 5, 9, 90}


def test_tenants_see_zones_and_nothing_below(cloud):
    company = Company(cloud)
    make_zone(cloud)
    cloud("createZone", name="off", networktype="Advanced", **DNS)
    private = make_zone(cloud, "private", net=2)
    with cloud.database.write() as session:
        from controlplane.identity.domains import Domain
        from controlplane.zone.zones import Zone

        sales = session.scalars(select(Domain).where(Domain.uuid == company.domain("sales"))).one()
        session.scalars(select(Zone).where(Zone.uuid == private.id)).one().domain_id = sales.id
    assert [row["name"] for row in company("sam")("listZones")["zone"]] == ["z1", "private"]
    assert [row["name"] for row in company("eve")("listZones")["zone"]] == ["z1", "private"]
    larry = company("larry")
    (zone,) = larry("listZones")["zone"]
    assert set(zone) == {
        "id",
        "name",
        "networktype",
        "securitygroupsenabled",
        "allocationstate",
        "dhcpprovider",
        "localstorageenabled",
        "type",
        "tags",
        "allowuserspecifyvrmtu",
        "routerpublicinterfacemaxmtu",
        "routerprivateinterfacemaxmtu",
    }
    with pytest.raises(BadParameter, match="no zone with this id"):
        larry("listZones", id=private.id)
    for command in (
        "listHosts",
        "listPods",
        "listClusters",
        "listPhysicalNetworks",
        "listVlanIpRanges",
        "listCapacity",
    ):
        with pytest.raises(Unauthenticated):
            larry(command)


def test_lists_cost_the_same_for_any_number_of_rows(cloud):
    zone = make_zone(cloud)
    lists = {
        "listHosts": {},
        "listClusters": {"showcapacities": True},
        "listPods": {"showcapacities": True},
        "listZones": {"showcapacities": True},
        "listStoragePools": {},
        "listCapacity": {},
        "listVlanIpRanges": {},
        "listPhysicalNetworks": {},
        "listNetworkServiceProviders": {},
        "listVirtualRouterElements": {},
    }
    add_host(cloud, zone)
    before = {name: _cost(cloud, name, parameters) for name, parameters in lists.items()}
    for number in range(4):
        add_host(cloud, zone, f"http://more-{number}")
        cloud(
            "addHost",
            zoneid=zone.id,
            podid=zone.pod,
            clustername=f"c{number}",
            hypervisor="Simulator",
            url=f"x{number}",
        )
    other = make_zone(cloud, "z2", net=2)
    add_host(cloud, other, "http://there")
    assert {name: _cost(cloud, name, parameters) for name, parameters in lists.items()} == before


def _cost(cloud, name, parameters):
    with queries(cloud) as seen:
        cloud(name, **parameters)
    return len(seen)
