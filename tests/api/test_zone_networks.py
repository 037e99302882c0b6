"""Physical networks, traffic types, providers and ranges: what changes, and what is refused while it is used."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.errors import BadParameter, InUse, RuleConflict
from controlplane.identity.accounts import Account
from controlplane.network.networks import Network
from controlplane.network.public_ips import PublicIp
from controlplane.network.vnets import take_vnet
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.zone.dedicated_vnets import ranges_for
from controlplane.zone.physical_networks import PhysicalNetwork, Vnet
from drivers import registry
from tests.api.people import Company
from tests.api.zone_steps import job, make_zone


def a_network(session, vnet=150):
    """A row of an implemented network that has a VLAN."""
    physical = session.scalars(select(PhysicalNetwork)).first()
    owner = session.scalars(select(Account).where(Account.name == "admin")).one()
    offering = session.scalars(
        select(NetworkOffering).where(NetworkOffering.name == "DefaultIsolatedNetworkOfferingWithSourceNatService")
    ).one()
    network = Network(
        name="web",
        zone_id=physical.zone_id,
        physical_network_id=physical.id,
        offering_id=offering.id,
        guest_type="Isolated",
        state="Implemented",
        vnet=vnet,
        account_id=owner.id,
        domain_id=owner.domain_id,
    )
    session.add(network)
    session.flush()
    session.add(Vnet(physical_network_id=physical.id, number=vnet, network_id=network.id))
    return network


def test_ranges_of_a_physical_network_grow_and_shrink(cloud):
    zone = make_zone(cloud)
    grown = job(cloud, "updatePhysicalNetwork", id=zone.physical, vlan="300-309,100-199,200-210")["physicalnetwork"]
    assert grown["vlan"] == "100-210,300-309"
    with cloud.database.write() as session:
        a_network(session)
    with pytest.raises(InUse, match="networks use 150; the ranges must keep"):
        cloud("updatePhysicalNetwork", id=zone.physical, vlan="100-149")
    for vlan, text in (("abc", "is no range"), ("1-5,3-9", "is in two"), ("4000-5000", "not within the VLAN numbers")):
        with pytest.raises(BadParameter, match=text):
            cloud("updatePhysicalNetwork", id=zone.physical, vlan=vlan)
    assert job(cloud, "updatePhysicalNetwork", id=zone.physical, vlan="150")["physicalnetwork"]["vlan"] == "150"
    cloud(
        "createVlanIpRange",
        zoneid=zone.id,
        forvirtualnetwork=True,
        vlan="77",
        gateway="203.0.113.1",
        netmask="255.255.255.0",
        startip="203.0.113.9",
    )
    with pytest.raises(BadParameter, match=r"77 is the VLAN of the address range 203.0.113.9-203.0.113.9"):
        cloud("updatePhysicalNetwork", id=zone.physical, vlan="70-80,150")
    with pytest.raises(InUse, match="networks use it: web"):
        cloud("deletePhysicalNetwork", id=zone.physical)
    for parameters, text in (
        ({"isolationmethods": "GRE"}, "must be one of VLAN, VXLAN"),
        ({"isolationmethods": "VLAN,VXLAN"}, "must be one of"),
        ({"name": "net"}, "the zone has a physical network of it"),
        ({"tags": "a b"}, "the tag 'a b'"),
        ({"networkspeed": "3G"}, "must be one of 10M"),
        ({"domainid": "x"}, "not supported"),
    ):
        with pytest.raises(BadParameter, match=text):
            cloud("createPhysicalNetwork", **{"zoneid": zone.id, "name": "other"} | parameters)


def test_traffic_types_and_their_labels(cloud):
    zone = make_zone(cloud)
    types = {row["traffictype"]: row["id"] for row in _types(cloud, zone.physical)}
    other = job(cloud, "createPhysicalNetwork", name="second", zoneid=zone.id, tags="fast")["id"]
    for physical, traffic, text in (
        (zone.physical, "Guest", "carries it already"),
        (other, "Public", "physical network net carries it in this zone"),
        (other, "Guest", "each must have tags"),
        (other, "Control", "must be one of Guest, Public"),
    ):
        with pytest.raises(BadParameter, match=text):
            cloud("addTrafficType", physicalnetworkid=physical, traffictype=traffic)
    job(cloud, "updatePhysicalNetwork", id=zone.physical, tags="slow")
    job(cloud, "addTrafficType", physicalnetworkid=other, traffictype="Guest", xennetworklabel="xenbr1")
    with pytest.raises(BadParameter, match="letters, digits"):
        cloud("updateTrafficType", id=types["Guest"], kvmnetworklabel="br0;reboot")
    labelled = job(cloud, "updateTrafficType", id=types["Guest"], kvmnetworklabel="br7")["traffictype"]
    assert labelled["kvmnetworklabel"] == "br7"
    with cloud.database.write() as session:
        a_network(session)
        address = session.scalars(select(PublicIp).limit(1)).one()
        address.state = "Allocated"
    with pytest.raises(InUse, match="cannot have its label changed while it is in use: network web"):
        cloud("updateTrafficType", id=types["Guest"], kvmnetworklabel="br8")
    job(cloud, "updateTrafficType", id=types["Guest"], kvmnetworklabel="br7")  # nothing changes
    with pytest.raises(InUse, match=r"in use: address 198\.51\.1\.10"):
        cloud("updateTrafficType", id=types["Public"], kvmnetworklabel="br8")
    with pytest.raises(InUse, match="cannot be deleted while it is in use"):
        cloud("deleteTrafficType", id=types["Public"])
    with cloud.database.write() as session:
        session.scalars(select(PublicIp).limit(1)).one().state = "Free"
    with pytest.raises(InUse, match="delete its address ranges first"):
        cloud("deleteTrafficType", id=types["Public"])
    job(cloud, "deleteTrafficType", id=types["Management"])
    assert {row["traffictype"] for row in _types(cloud, zone.physical)} == {"Guest", "Public"}
    assert cloud("listTrafficTypeImplementors")["count"] == 4


def _types(cloud, physical):
    return cloud("listTrafficTypes", physicalnetworkid=physical)["traffictype"]


def test_providers_are_the_installed_drivers(cloud):
    zone = make_zone(cloud)
    found = cloud("listNetworkServiceProviders", physicalnetworkid=zone.physical)["networkserviceprovider"]
    providers = {provider["name"]: provider for provider in found}
    assert set(providers) == set(registry.network_providers()) - {
        "Ovs",
        "SecurityGroupProvider",
    }  # by hand, or with security groups
    provider = providers["VirtualRouter"]
    element = cloud("listVirtualRouterElements", nspid=provider["id"])["virtualrouterelement"][0]
    assert element == {"id": element["id"], "nspid": provider["id"], "enabled": True}
    with pytest.raises(BadParameter, match="no such provider is installed; there are"):
        cloud("addNetworkServiceProvider", physicalnetworkid=zone.physical, name="NiciraNvp")
    with pytest.raises(BadParameter, match="has it already"):
        cloud("addNetworkServiceProvider", physicalnetworkid=zone.physical, name="virtualrouter")
    with pytest.raises(BadParameter, match=r"provider VirtualRouter has .* only"):
        cloud("updateNetworkServiceProvider", id=provider["id"], servicelist="SecurityGroup")
    with pytest.raises(BadParameter, match="it has its element"):
        cloud("createVirtualRouterElement", nspid=provider["id"])
    with pytest.raises(BadParameter, match="disable provider"):
        cloud("configureVirtualRouterElement", id=element["id"], enabled=False)
    with cloud.database.write() as session:
        a_network(session)
    with pytest.raises(InUse, match="it serves the networks web"):
        cloud("deleteNetworkServiceProvider", id=provider["id"])
    with cloud.database.write() as session:
        session.scalars(select(Network)).one().removed = session.scalars(select(Network)).one().created
    job(cloud, "deleteNetworkServiceProvider", id=provider["id"])
    left = cloud("listVirtualRouterElements").get("virtualrouterelement", [])
    assert provider["id"] not in {each["nspid"] for each in left}
    again = job(cloud, "addNetworkServiceProvider", physicalnetworkid=zone.physical, name="VirtualRouter")
    assert again["networkserviceprovider"]["state"] == "Disabled"
    services = {row["name"]: row for row in cloud("listSupportedNetworkServices")["networkservice"]}
    assert {"Dhcp", "Dns", "Firewall", "Lb", "PortForwarding", "SourceNat", "StaticNat", "UserData"} <= set(services)
    algorithms = {item["name"]: item["value"] for item in services["Lb"]["capability"]}["SupportedLBAlgorithms"]
    assert algorithms == "roundrobin,leastconn,source"
    assert cloud("listSupportedNetworkServices", provider="none") == {}


def test_public_ranges_have_a_row_for_each_address(cloud):
    zone = make_zone(cloud)
    with cloud.database.read() as session:
        addresses = list(session.scalars(select(PublicIp.address).order_by(PublicIp.number)))
    assert addresses == [f"198.51.1.{number}" for number in range(10, 20)]
    wider = cloud("updateVlanIpRange", id=zone.range, startip="198.51.1.5", endip="198.51.1.12")["vlan"]
    assert (wider["startip"], wider["endip"]) == ("198.51.1.5", "198.51.1.12")
    with cloud.database.write() as session:
        rows = list(session.scalars(select(PublicIp).order_by(PublicIp.number)))
        assert [row.address for row in rows] == [f"198.51.1.{number}" for number in range(5, 13)]
        admin = session.scalars(select(Account).where(Account.name == "admin")).one()
        rows[0].state, rows[0].account_id, rows[0].domain_id = "Allocated", admin.id, admin.domain_id
    for parameters, text in (
        ({"startip": "198.51.1.6"}, r"must keep the addresses that are in use: 198\.51\.1\.5"),
        ({"gateway": "198.51.1.2"}, "Gateway and netmask cannot change"),
        ({"forsystemvms": True}, "addresses of it are in use"),
    ):
        with pytest.raises(InUse, match=text):
            cloud("updateVlanIpRange", id=zone.range, **parameters)
    with pytest.raises(InUse, match=r"addresses are in use: 198\.51\.1\.5"):
        cloud("deleteVlanIpRange", id=zone.range)
    given = {"zoneid": zone.id, "gateway": "198.51.1.1", "netmask": "255.255.255.0"}
    second = cloud("createVlanIpRange", **given, startip="198.51.1.13", endip="198.51.1.14", forsystemvms=True)["vlan"]
    assert second["forsystemvms"] is True
    with pytest.raises(RuleConflict, match="overlap"):
        cloud("updateVlanIpRange", id=second["id"], startip="198.51.1.12")
    assert cloud("listVlanIpRanges", vlan="untagged")["count"] == 2
    assert cloud("listVlanIpRanges", vlan="9") == {}


def test_dedicating_addresses_and_vlans(cloud):
    zone, company = make_zone(cloud), Company(cloud)
    sales, sam = company.domain("sales"), company.account("sam")
    mine = cloud("dedicatePublicIpRange", id=zone.range, domainid=sales, account="sam")["vlan"]
    assert (mine["account"], mine["domainid"]) == ("sam", sales)
    assert cloud("listVlanIpRanges", account="sam", domainid=sales)["count"] == 1
    with pytest.raises(BadParameter, match="dedicated already"):
        cloud("dedicatePublicIpRange", id=zone.range, domainid=sales)
    cloud("releasePublicIpRange", id=zone.range)
    with pytest.raises(BadParameter, match="is not dedicated"):
        cloud("releasePublicIpRange", id=zone.range)
    with cloud.database.write() as session:
        first = session.scalars(select(PublicIp).limit(1)).one()
        admin = session.scalars(select(Account).where(Account.name == "admin")).one()
        first.state, first.account_id, first.domain_id = "Allocated", admin.id, admin.domain_id
    with pytest.raises(InUse, match="in use by another account"):
        cloud("dedicatePublicIpRange", id=zone.range, domainid=sales)

    place = {"physicalnetworkid": zone.physical, "account": "sam", "domainid": sales}
    dedicated = cloud("dedicateGuestVlanRange", vlanrange="120-129", **place)["dedicatedguestvlanrange"]
    assert (dedicated["guestvlanrange"], dedicated["account"]) == ("120-129", "sam")
    for vlans, text in (
        ("125-130", "120-129 is dedicated already"),
        ("90-105", "has 100-199"),
        ("1,3", "give one range"),
    ):
        with pytest.raises(BadParameter, match=text):
            cloud("dedicateGuestVlanRange", vlanrange=vlans, **place)
    with cloud.database.write() as session:
        a_network(session)
        network = session.scalars(select(PhysicalNetwork)).one()
        account = session.scalars(select(Account).where(Account.uuid == sam["id"])).one()
        assert ranges_for(session, network, account.id) == [[[120, 129]], [[100, 119], [130, 199]]]
        assert ranges_for(session, network, 1)[0] == []
    with pytest.raises(InUse, match="network web of another account uses it"):
        cloud("dedicateGuestVlanRange", vlanrange="149-151", **place)
    with pytest.raises(InUse, match="120-129 are dedicated"):
        cloud("updatePhysicalNetwork", id=zone.physical, vlan="130-199")
    assert cloud("listDedicatedGuestVlanRanges", zoneid=zone.id, guestvlanrange="120-129")["count"] == 1
    with cloud.database.write() as session:
        sams = session.scalars(select(Account).where(Account.uuid == sam["id"])).one()
        system = session.scalars(select(Account).where(Account.name == "system")).one()
        for owner, number in ((sams, 120), (sams, 121), (system, 100), (system, 101)):
            web = a_network(session, number + 60)
            web.account_id = owner.id
            take_vnet(session, web)
            assert web.vnet == number
    job(cloud, "releaseDedicatedGuestVlanRange", id=dedicated["id"])
    assert cloud("listDedicatedGuestVlanRanges") == {}
