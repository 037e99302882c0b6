"""Networks of type L2: no router, no addresses; what guests on them have, and what is refused by name."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.compute.drive_facts import drive_facts
from controlplane.compute.port_facts import port_facts
from controlplane.db.base import now
from controlplane.errors import ApiError, BadParameter, InUse, Unsupported
from controlplane.network.implement import collect_idle_networks
from controlplane.network.networks import Network
from controlplane.network.routers import Router
from controlplane.network.segments import segment_facts
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.zone.hosts import Host
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType, Vnet
from controlplane.zone.providers import NetworkServiceProvider
from tests.api.compute_world import world

PLAIN, VLAN = "DefaultL2NetworkOffering", "DefaultL2NetworkOfferingVlan"
DRIVE, DRIVE_VLAN = "DefaultL2NetworkOfferingConfigDrive", "DefaultL2NetworkOfferingConfigDriveVlan"


@pytest.fixture
def there(cloud):
    with world(cloud, hosts=1) as made:
        with cloud.database.write() as session:
            physical = session.scalars(select(PhysicalNetwork)).one()
            physical.traffic_types.append(TrafficType(traffic="Guest"))
            for name in ("VirtualRouter", "ConfigDrive"):
                session.add(NetworkServiceProvider(physical_network_id=physical.id, name=name, state="Enabled"))
        yield made


def network(there, cloud, offering=PLAIN, **given):
    """Make a network of a catalogue's offering."""
    found = cloud.as_user("alice") if cloud is there.cloud else cloud
    (offered,) = found("listNetworkOfferings", name=offering)["networkoffering"]
    given = {"name": "wire", "zoneid": there.zone, "networkofferingid": offered["id"]} | given
    return cloud("createNetwork", **given)["network"]


def facts(there, load):
    with there.cloud.database.read() as session:
        return load(session, session.scalars(select(Host)).one())


def test_the_catalogues_offerings_are_enabled_as_far_as_they_go(there, cloud):
    listed = {row["name"]: row for row in cloud("listNetworkOfferings", guestiptype="L2")["networkoffering"]}
    assert {row["state"] for row in listed.values()} == {"Enabled"}
    assert sorted(listed) == sorted((PLAIN, VLAN, DRIVE, DRIVE_VLAN))
    assert [listed[name]["specifyvlan"] for name in (PLAIN, VLAN)] == [False, True]
    (service,) = listed[DRIVE]["service"]
    assert (service["name"], service["provider"][0]["name"]) == ("UserData", "ConfigDrive")


def test_a_tenant_makes_one_and_its_guests_have_nics_without_addresses(there):
    made = network(there, there.cloud)
    assert (made["type"], made["state"], made["acltype"]) == ("L2", "Allocated", "Account")
    assert not {"cidr", "gateway", "netmask"} & made.keys()
    vm = there.deploy(name="one", networkids=made["id"])
    assert vm["state"] == "Running"
    (nic,) = vm["nic"]
    assert (nic["networkid"], nic["type"], nic["isdefault"]) == (made["id"], "L2", True)
    assert nic["macaddress"]
    assert not {"ipaddress", "netmask", "gateway", "ip6address"} & nic.keys()
    assert there.cloud("listNetworks", id=made["id"])["network"][0]["state"] == "Implemented"
    assert there.rows(Router) == []
    (segment,) = facts(there, segment_facts)
    assert (segment.id, segment.uri, segment.hub) == (made["id"], "vxlan://5000", False)
    (port,) = facts(there, port_facts).filters
    assert (port.mac, port.addresses, port.forged) == (nic["macaddress"], None, False)


def test_an_address_on_it_is_refused_by_name(there):
    made = network(there, there.cloud)
    four, six = {"ipaddress": "10.1.1.5"}, {"ip6address": "2001:db8::5"}
    with pytest.raises(BadParameter, match=r"ipaddress value=10\.1\.1\.5: network wire gives no IPv4 .* L2"):
        there.cloud("deployVirtualMachine", **machine(there, made), **four)
    with pytest.raises(BadParameter, match=r"ip6address value=2001:db8::5: network wire gives no IPv6 .* L2"):
        there.cloud("deployVirtualMachine", **machine(there, made), **six)
    with pytest.raises(BadParameter, match=r"gives no IPv4 .* L2"):
        there.cloud(
            "deployVirtualMachine",
            **machine(there, made, **{"iptonetworklist[0].networkid": made["id"], "iptonetworklist[0].ip": "10.1.1.5"}),
        )
    vm = there.deploy(name="two")
    with pytest.raises(BadParameter, match=r"ipaddress value=10\.1\.1\.5"):
        there.cloud("addNicToVirtualMachine", virtualmachineid=vm["id"], networkid=made["id"], **four)
    both = there.job(there.cloud("addNicToVirtualMachine", virtualmachineid=vm["id"], networkid=made["id"]))
    nic = both["nic"][1]
    assert "ipaddress" not in nic
    with pytest.raises(BadParameter, match="gives no IPv4"):
        there.cloud("addIpToNic", nicid=nic["id"])
    there.job(there.cloud("stopVirtualMachine", id=vm["id"]))
    with pytest.raises(BadParameter, match="gives no IPv4"):
        there.cloud("updateVmNicIp", nicid=nic["id"], ipaddress="10.1.1.5")


def machine(there, made, **more):
    given = {"zoneid": there.zone, "serviceofferingid": there.offering, "templateid": there.template}
    given |= {} if "iptonetworklist[0].ip" in more else {"networkids": made["id"]}
    return given | more


@pytest.mark.parametrize("given", [{"gateway": "10.1.1.1", "netmask": "255.255.255.0"}, {"startip": "10.1.1.5"},
                                   {"ip6cidr": "2001:db8::/64"}, {"sourcenatipaddress": "203.0.113.11"}])  # fmt: skip
def test_addresses_of_the_network_are_refused_by_name(there, given):
    with pytest.raises(BadParameter, match=next(iter(given))):
        network(there, there.cloud, **given)


def test_a_vlan_is_named_where_the_offering_wants_it_and_nowhere_else(there, cloud):
    with pytest.raises(BadParameter, match="wants one named"):
        network(there, cloud, VLAN)
    with pytest.raises(BadParameter, match="chooses the VLAN itself"):
        network(there, cloud, vlan="77")
    with pytest.raises(BadParameter, match="5000-5999"):
        network(there, cloud, VLAN, vlan="5001")
    made = network(there, cloud, VLAN, vlan="77")
    assert (made["vlan"], made["broadcasturi"]) == ("77", "vxlan://77")
    with pytest.raises(InUse, match="network wire has it"):
        network(there, cloud, VLAN, vlan="77", name="second")


def test_a_network_on_which_nothing_runs_gives_its_number_back(there, cloud):
    made = network(there, there.cloud)
    vm = there.deploy(name="one", networkids=made["id"])
    with pytest.raises(InUse, match="one have interfaces"):
        there.cloud("deleteNetwork", id=made["id"])
    there.job(there.cloud("stopVirtualMachine", id=vm["id"]))
    with cloud.database.write() as session:
        collect_idle_networks(session)
        row = session.scalars(select(Network).where(Network.uuid == made["id"])).one()
        row.idle_since = now().replace(year=2020)
        collect_idle_networks(session)
    (row,) = there.rows(Network, Network.uuid == made["id"])
    assert (row.state, row.vnet) == ("Allocated", None)
    assert [vnet.number for vnet in there.rows(Vnet)] == []
    assert there.job(there.cloud("startVirtualMachine", id=vm["id"]))["state"] == "Running"
    there.job(cloud("destroyVirtualMachine", id=vm["id"], expunge=True))
    assert there.job(there.cloud("deleteNetwork", id=made["id"]))
    assert there.rows(Network, Network.uuid == made["id"], Network.removed.is_(None)) == []


@pytest.mark.parametrize("flags", [{}, {"cleanup": True}, {"livepatch": True}, {"makeredundant": True}])
def test_a_restart_is_refused_as_there_is_no_router(there, flags):
    made = network(there, there.cloud)
    there.deploy(name="one", networkids=made["id"])
    with pytest.raises(BadParameter, match="no router"):
        there.cloud("restartNetwork", id=made["id"], **flags)


def test_what_needs_a_router_is_refused_with_the_offering_s_name(there):
    made = network(there, there.cloud)
    for command, given in (
        ("associateIpAddress", {"networkid": made["id"]}),
        ("createEgressFirewallRule", {"networkid": made["id"], "protocol": "all"}),
    ):
        with pytest.raises((Unsupported, BadParameter), match=PLAIN):
            there.cloud(command, **given)


def test_what_an_update_would_change_of_addresses_is_refused(there, cloud):
    made = network(there, there.cloud)
    for given in ({"guestvmcidr": "10.1.1.0/25"}, {"sourcenatipaddress": "203.0.113.11"}, {"dns1": "192.0.2.1"},
                  {"ip6dns1": "2001:db8::53"}, {"networkdomain": "x.test"}, {"publicmtu": 1400}):  # fmt: skip
        with pytest.raises(ApiError, match=f"{next(iter(given))}.*L2"):
            there.cloud("updateNetwork", id=made["id"], **given)
    (isolated,) = cloud("listNetworkOfferings", name="iso")["networkoffering"]
    with pytest.raises(BadParameter, match="Isolated networks, and the network is L2"):
        there.cloud("updateNetwork", id=made["id"], networkofferingid=isolated["id"])
    assert there.job(cloud("updateNetwork", id=made["id"], name="cable", privatemtu=1400))["name"] == "cable"


def test_user_data_is_on_a_drive(there):
    made = network(there, there.cloud, DRIVE)
    vm = there.deploy(name="one", networkids=made["id"], userdata="aGVsbG8=")
    (drive,) = facts(there, drive_facts)
    assert (drive.vm, drive.user_data) == (vm["id"], "aGVsbG8=")
    items = dict(drive.items)
    assert (items["local-ipv4"], items["local-hostname"]) == ("", "one")
    (link,) = drive.links
    assert (link.mac, link.method, link.address, link.gateway) == (vm["nic"][0]["macaddress"], "", "", "")


@pytest.mark.parametrize(("names", "forged", "hub"), [
    (["forgedTransmits"], True, False), (["macAddressChanges"], True, False), (["promiscuousMode"], False, True),
    ([], False, False),
])  # fmt: skip
def test_the_offering_s_port_policies_reach_the_host(there, cloud, names, forged, hub):
    details = {
        name: "true" if name in names else "false"
        for name in ("forgedTransmits", "macAddressChanges", "promiscuousMode")
    }
    made = offering(cloud, **{f"details[0].{name}": value for name, value in details.items()})
    assert made["details"] == details
    there.deploy(name="one", networkids=network(there, there.cloud, made["name"])["id"])
    (port,) = facts(there, port_facts).filters
    (segment,) = facts(there, segment_facts)
    assert (port.forged, segment.hub) == (forged, hub)


def offering(cloud, **more):
    given = {"name": "own", "displaytext": "own", "guestiptype": "L2", "traffictype": "Guest", "enable": True} | more
    return cloud("createNetworkOffering", **given)["networkoffering"]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"details[0].promiscuousMode": "maybe"}, "promiscuousMode is true or false"),
        ({"details[0].macLearning": "false"}, "macLearning cannot be false"),
        ({"supportedservices": "UserData"}, "VirtualRouter: an L2 network has no router"),
        ({"supportedservices": "Dhcp,UserData"}, "leave Dhcp out"),
        ({"specifyipranges": True}, "specifyipranges"),
        ({"egressdefaultpolicy": True}, "egressdefaultpolicy"),
    ],
)
def test_an_l2_offering_has_no_router_and_no_addresses(there, cloud, given, names):
    with pytest.raises(BadParameter, match=names):
        offering(cloud, **given)


def test_a_persistent_one_is_carried_at_once(there, cloud):
    offering(cloud, ispersistent=True)
    made = network(there, there.cloud, "own")
    assert made["state"] == "Implemented"
    with cloud.database.read() as session:
        row = session.scalars(select(NetworkOffering).where(NetworkOffering.name == "own")).one()
        assert row.persistent


def test_a_shared_network_by_drive_needs_no_router_and_says_each_subnet_s_gateway(there, cloud):
    by_drive = {}
    for number, service in enumerate(("Dhcp", "Dns", "UserData")):
        by_drive |= {f"serviceproviderlist[{number}].service": service}
        by_drive |= {f"serviceproviderlist[{number}].provider": "ConfigDrive"}
    given = {"guestiptype": "Shared", "supportedservices": "Dhcp,Dns,UserData", "specifyvlan": True}
    offering(cloud, **given, specifyipranges=True, **by_drive)
    first = {"gateway": "10.8.1.1", "netmask": "255.255.255.0", "startip": "10.8.1.10", "endip": "10.8.1.10"}
    second = {"gateway": "10.8.2.1", "netmask": "255.255.254.0", "startip": "10.8.2.10", "endip": "10.8.2.10"}
    made = network(there, cloud, "own", vlan="300", dns1="192.0.2.99", **first)
    cloud("createVlanIpRange", networkid=made["id"], forvirtualnetwork=False, **second)
    for name in ("one", "two"):
        there.deploy(name=name, networkids=made["id"])
    links = sorted(link for drive in facts(there, drive_facts) for link in drive.links)
    assert sorted((link.method, link.address, link.prefix, link.gateway) for link in links) == [
        ("static", "10.8.1.10", 24, "10.8.1.1"),
        ("static", "10.8.2.10", 23, "10.8.2.1"),
    ]
    assert {link.dns for link in links} == {("192.0.2.99",)}
    assert there.rows(Router) == []


def test_an_l2_network_can_have_another_l2_offering_while_its_guests_run(there, cloud):
    made = network(there, there.cloud)
    vm = there.deploy(name="one", networkids=made["id"], userdata="aGVsbG8=")
    assert facts(there, drive_facts) == ()
    (driven,) = cloud("listNetworkOfferings", name=DRIVE)["networkoffering"]
    changed = there.job(there.cloud("updateNetwork", id=made["id"], networkofferingid=driven["id"]))
    assert changed["networkofferingname"] == DRIVE
    assert [drive.vm for drive in facts(there, drive_facts)] == [vm["id"]]
    (host,) = there.rows(Host)
    with cloud.database.read() as session:
        assert (
            session.get(Host, host.id).target.desired_generation == session.get(Host, host.id).target.applied_generation
        )
    (named,) = cloud("listNetworkOfferings", name=VLAN)["networkoffering"]
    with pytest.raises(BadParameter, match="specifyvlan=true"):
        there.cloud("updateNetwork", id=made["id"], networkofferingid=named["id"])
