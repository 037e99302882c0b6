"""Isolation: what makes a network a VLAN, a VNI or a segment of flows, and what its host is told of it."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.errors import BadParameter, InUse
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.reconcile.targets import Target, load_facts
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType
from controlplane.zone.providers import NetworkServiceProvider
from drivers.hypervisor.namespace import Namespace
from tests.api.compute_world import SERVICES, world


@pytest.fixture
def there(cloud):
    with world(cloud, hosts=1) as made:
        with cloud.database.write() as session:
            physical = session.scalars(select(PhysicalNetwork)).one()
            physical.traffic_types.append(TrafficType(traffic="Guest"))
            physical.isolation, physical.vnets = "VLAN", [[100, 199]]
            provider = NetworkServiceProvider(physical_network_id=physical.id, name="VirtualRouter", state="Enabled")
            session.add(provider)
        yield made


def physical(there):
    return there.cloud.as_user("admin")("listPhysicalNetworks")["physicalnetwork"][0]["id"]


def host_facts(there):
    with there.cloud.database.read() as session:
        return load_facts(session, session.scalars(select(Target).where(Target.kind == "host")).one())


def enable_ovs(there, admin):
    made = there.job(admin("addNetworkServiceProvider", physicalnetworkid=physical(there), name="ovs"))
    with pytest.raises(BadParameter, match="configureOvsElement"):
        admin("updateNetworkServiceProvider", id=made["id"], state="Enabled")
    (element,) = admin("listOvsElements", nspid=made["id"])["ovselement"]
    assert element["enabled"] is False
    assert there.job(admin("configureOvsElement", id=element["id"], enabled=True))["enabled"] is True
    assert there.job(admin("updateNetworkServiceProvider", id=made["id"], state="Enabled"))["state"] == "Enabled"
    return made["id"], element["id"]


def switched_offering(there, admin):
    given = SERVICES | {"Connectivity": ["Ovs"]}
    pairs = [(service, provider) for service, (provider,) in given.items()]
    listed = {
        f"serviceproviderlist[{index}].{key}": value
        for index, pair in enumerate(pairs)
        for key, value in zip(("service", "provider"), pair, strict=True)
    }
    offering = admin(
        "createNetworkOffering", name="flows", displaytext="flows", guestiptype="Isolated", traffictype="GUEST",
        supportedservices=",".join(given), **listed,
    )["networkoffering"]  # fmt: skip
    admin("updateNetworkOffering", id=offering["id"], state="Enabled")
    return offering["id"]


def test_a_zone_with_vlans_has_its_hosts_carry_them(there):
    there.deploy(name="one")
    network = there.cloud.as_user("admin")("listNetworks", listall=True)["network"][0]
    assert (network["broadcastdomaintype"], network["broadcasturi"]) == ("Vlan", "vlan://100")
    (segment,) = (found for found in host_facts(there).segments if found.traffic == "Guest")
    assert (segment.id, segment.uri) == (network["id"], "vlan://100")


def test_connectivity_by_ovs_has_hosts_hold_the_flows_of_who_lives_there(there, cloud):
    admin = there.cloud.as_user("admin")
    with pytest.raises(BadParameter, match="not enabled Ovs"):
        there.cloud("createNetwork", zoneid=there.zone, name="f", networkofferingid=switched_offering(there, admin))
    provider, element = enable_ovs(there, admin)
    offering = admin("listNetworkOfferings", name="flows")["networkoffering"][0]["id"]
    network = there.cloud("createNetwork", zoneid=there.zone, name="f", networkofferingid=offering)["network"]
    vm = there.deploy(name="one", networkids=network["id"])
    shown = admin("listNetworks", id=network["id"])["network"][0]
    assert (shown["broadcastdomaintype"], shown["broadcasturi"]) == ("Vswitch", "vs://100")
    assert admin("listVirtualMachines", id=vm["id"])["virtualmachine"][0]["nic"][0]["broadcasturi"] == "vs://100"
    facts = host_facts(there)
    (config,) = (found for found in Namespace().plan(facts).segments if found.kind == "vs")
    (shell,) = facts.shells
    (router,) = (nic.mac for nic in shell.nics if nic.segment == network["id"])
    assert (config.id, config.number) == (network["id"], 100)
    assert set(config.members) > {vm["nic"][0]["macaddress"], router}
    with pytest.raises(BadParameter, match="disable provider"):
        admin("configureOvsElement", id=element, enabled=False)
    with pytest.raises(BadParameter, match="element of provider Ovs"):
        admin("configureVirtualRouterElement", id=element, enabled=False)
    assert element not in {row["id"] for row in admin("listVirtualRouterElements").get("virtualrouterelement", [])}
    assert provider


def test_a_wire_has_a_vlan_once_plain_or_by_flows(there, cloud):
    admin = there.cloud.as_user("admin")
    enable_ovs(there, admin)
    offering = switched_offering(there, admin)
    given = {"zoneid": there.zone, "networkofferingid": offering}
    network = there.cloud("createNetwork", name="f", **given)["network"]
    there.deploy(name="one", networkids=network["id"])
    with cloud.database.write() as session:  # the operator narrows what networks are given by themselves
        physical = session.scalars(select(PhysicalNetwork)).one()
        physical.vnets = [[200, 299]]
        physical.traffic_types.append(TrafficType(traffic="Public"))
    block = {"gateway": "192.0.2.1", "netmask": "255.255.255.0", "startip": "192.0.2.9", "endip": "192.0.2.20"}
    with pytest.raises(InUse, match="vlan value=100: network f has vs://100 on the same wire"):
        admin("createVlanIpRange", zoneid=there.zone, vlan="vlan://100", forvirtualnetwork=True, **block)
    admin("createVlanIpRange", zoneid=there.zone, vlan="vlan://150", forvirtualnetwork=True, **block)
    with cloud.database.write() as session:
        session.scalars(select(NetworkOffering).where(NetworkOffering.uuid == offering)).one().specify_vlan = True
    with pytest.raises(InUse, match=r"public range .* has vlan://150 on the same wire"):
        admin("createNetwork", name="g", vlan=150, **given)
    assert admin("createNetwork", name="g", vlan=151, **given)["network"]["broadcasturi"] == "vs://151"


def test_flows_need_a_physical_network_that_isolates_by_vlan(there, cloud):
    admin = there.cloud.as_user("admin")
    enable_ovs(there, admin)
    with cloud.database.write() as session:
        row = session.scalars(select(PhysicalNetwork)).one()
        row.isolation, row.vnets = "VXLAN", [[5000, 5999]]
    with pytest.raises(BadParameter, match="p isolates by VXLAN, where Ovs needs VLAN"):
        there.cloud("createNetwork", zoneid=there.zone, name="f", networkofferingid=switched_offering(there, admin))
