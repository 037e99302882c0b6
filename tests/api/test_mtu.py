"""MTUs: bounded by the operator, changed where guests and routers run, and as before where a host cannot."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.errors import BadParameter
from controlplane.network.networks import Network
from controlplane.network.segments import segment_facts
from controlplane.zone.hosts import Host
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType
from controlplane.zone.providers import NetworkServiceProvider
from tests.api.compute_world import world

USERS = "allow.end.users.to.specify.vr.mtu"
PRIVATE, PUBLIC = "vr.private.interface.max.mtu", "vr.public.interface.max.mtu"


@pytest.fixture
def there(cloud):
    with world(cloud) as made:
        with cloud.database.write() as session:
            physical = session.scalars(select(PhysicalNetwork)).one()
            physical.traffic_types.append(TrafficType(traffic="Guest"))
            for name in ("VirtualRouter", "VpcVirtualRouter"):
                session.add(NetworkServiceProvider(physical_network_id=physical.id, name=name, state="Enabled"))
        yield made


def allow(cloud, there, **more):
    for name, value in more.items() or ((USERS, "true"),):
        cloud("updateConfiguration", name=name, value=value, zoneid=there.zone)


def made(caller, there, **more):
    offering = there.cloud("listNetworks", id=there.network)["network"][0]["networkofferingid"]
    return caller("createNetwork", name="n", zoneid=there.zone, networkofferingid=offering, **more)["network"]


def mtus(network):
    return network["privatemtu"], network["publicmtu"]


def test_a_zone_says_what_networks_may_have(cloud, there):
    cloud("updateConfiguration", name=PUBLIC, value=1450, zoneid=there.zone)
    (zone,) = there.cloud("listZones")["zone"]
    assert (zone["routerpublicinterfacemaxmtu"], zone["routerprivateinterfacemaxmtu"]) == (1450, 1500)
    assert zone["allowuserspecifyvrmtu"] is False
    allow(cloud, there)
    assert there.cloud("listZones")["zone"][0]["allowuserspecifyvrmtu"] is True


def test_networks_have_the_greatest_unless_another_is_chosen(cloud, there):
    cloud("updateConfiguration", name=PRIVATE, value=1400, zoneid=there.zone)
    assert mtus(made(there.cloud, there)) == (1400, 1500)
    assert mtus(made(cloud, there, privatemtu=1300, publicmtu=1350)) == (1300, 1350)


def test_tenants_choose_only_where_the_operator_lets_them(cloud, there):
    with pytest.raises(BadParameter, match=r"privatemtu value=1400: accounts choose no MTU in zone z1.*1500; leave"):
        made(there.cloud, there, privatemtu=1400)
    with pytest.raises(BadParameter, match="publicmtu value=1400: accounts choose no MTU"):
        there.cloud("updateNetwork", id=there.network, publicmtu=1400)
    allow(cloud, there)
    assert mtus(made(there.cloud, there, privatemtu=1400)) == (1400, 1500)
    with pytest.raises(BadParameter, match=rf"privatemtu value=1501: in zone z1 it is 1500 at most \({PRIVATE}\)"):
        made(there.cloud, there, privatemtu=1501)
    with pytest.raises(BadParameter, match=f"publicmtu value=9000: .*{PUBLIC}"):
        there.cloud("updateNetwork", id=there.network, publicmtu=9000)
    with pytest.raises(BadParameter, match="576 to 9000"):
        made(there.cloud, there, privatemtu=500)


def test_a_change_reaches_routers_hosts_and_guests_that_run(cloud, there):
    vm = there.deploy(name="one", cloud=there.cloud)
    changed = there.job(cloud("updateNetwork", id=there.network, privatemtu=1400, publicmtu=1420))
    assert mtus(changed) == (1400, 1420)
    (agent,) = [agent for agent in there.agents if vm["id"] in agent.holds]
    assert [port["mtu"] for port in agent.holds[vm["id"]]["ports"]] == [1400]
    (shell,) = [shell for agent in there.agents for shell in agent.shells.values()]
    assert {port["mtu"] for port in shell["ports"]} == {1400, 1420}


def test_a_host_that_cannot_carry_it_leaves_it_as_it_was(cloud, there):
    vm = there.deploy(name="one", cloud=there.cloud)
    (agent,) = [agent for agent in there.agents if vm["id"] in agent.holds]
    with cloud.database.read() as session:
        name = session.scalars(select(Host.name).where(Host.uuid == there.hosts[there.agents.index(agent)])).one()
    allow(cloud, there, **{PRIVATE: "9000"})
    agent.failing.add(name)
    refused = there.job(cloud("updateNetwork", id=there.network, privatemtu=9000))
    agent.failing.clear()
    assert "The MTU stays as it was." in refused["errortext"]
    assert f"{name} kept its former configuration" in refused["errortext"]
    assert mtus(there.cloud("listNetworks", id=there.network)["network"][0]) == (1500, 1500)


def test_public_segments_carry_what_the_routers_there_need(cloud, there):
    vm = there.deploy(name="one", cloud=there.cloud)
    assert vm["state"] == "Running"

    def public():
        with cloud.database.read() as session:
            found = [one for host in session.scalars(select(Host)) for one in segment_facts(session, host)]
        return [segment.mtu for segment in found if segment.traffic == "Public"]

    assert public() == [1500]
    with cloud.database.write() as session:
        session.scalars(select(Network)).one().public_mtu = 1400
    assert public() == [1500]
    allow(cloud, there, **{PUBLIC: "9000"})
    there.job(cloud("updateNetwork", id=there.network, publicmtu=3000))
    assert public() == [3000]


def test_a_stopped_network_is_changed_at_once(cloud, there):
    assert mtus(there.job(cloud("updateNetwork", id=there.network, privatemtu=1400))) == (1400, 1500)
