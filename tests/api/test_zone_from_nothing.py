"""A zone from nothing, by one API script (ZON2), and what each step refuses."""

from __future__ import annotations

import pytest

from controlplane.errors import BadParameter, InUse, MissingParameter, RuleConflict
from tests.api.zone_steps import DNS, TOKEN, add_host, enable_router, job, make_zone


def test_zone_from_nothing(cloud):
    zone = cloud("createZone", name="north", networktype="Advanced", **DNS)["zone"]
    assert zone["allocationstate"] == "Disabled"
    assert (zone["dns1"], zone["networktype"], zone["dhcpprovider"]) == (DNS["dns1"], "Advanced", "VirtualRouter")
    with pytest.raises(BadParameter, match="cannot be enabled: it has no enabled physical network"):
        cloud("updateZone", id=zone["id"], allocationstate="Enabled")
    made = job(
        cloud,
        "createPhysicalNetwork",
        name="p1",
        zoneid=zone["id"],
        vlan="5000-5999,7000-7100",
        isolationmethods="VXLAN",
    )
    physical = made["physicalnetwork"]
    assert physical["vlan"] == "5000-5999,7000-7100"
    assert (physical["state"], physical["isolationmethods"]) == ("Disabled", "VXLAN")
    for traffic in ("Guest", "Public", "Management"):
        added = job(
            cloud, "addTrafficType", physicalnetworkid=physical["id"], traffictype=traffic, kvmnetworklabel="br0"
        )
        assert added["traffictype"] == {
            "id": added["id"],
            "physicalnetworkid": physical["id"],
            "traffictype": traffic,
            "kvmnetworklabel": "br0",
        }
    (provider,) = cloud("listNetworkServiceProviders", physicalnetworkid=physical["id"], name="VirtualRouter")[
        "networkserviceprovider"
    ]
    assert provider["state"] == "Disabled"
    assert "Lb" in provider["servicelist"]
    with pytest.raises(BadParameter, match="not ready: enable its element"):
        cloud("updateNetworkServiceProvider", id=provider["id"], state="Enabled")
    enable_router(cloud, physical["id"])
    job(cloud, "updatePhysicalNetwork", id=physical["id"], state="Enabled")
    pod = cloud(
        "createPod", zoneid=zone["id"], name="p", gateway="10.0.0.1", netmask="255.255.255.0", startip="10.0.0.9"
    )["pod"]
    assert (pod["startip"], pod["endip"]) == (["10.0.0.9"], ["10.0.0.9"])
    public = cloud(
        "createVlanIpRange",
        zoneid=zone["id"],
        forvirtualnetwork=True,
        vlan="100",
        gateway="192.0.2.1",
        netmask="255.255.255.0",
        startip="192.0.2.10",
        endip="192.0.2.19",
    )["vlan"]
    assert (public["vlan"], public["cidr"]) == ("vlan://100", "192.0.2.0/24")
    (cluster,) = cloud(
        "addCluster",
        zoneid=zone["id"],
        podid=pod["id"],
        clustername="c",
        clustertype="CloudManaged",
        hypervisor="simulator",
    )["cluster"]
    assert cluster["hypervisortype"] == "Simulator"
    (host,) = cloud(
        "addHost",
        zoneid=zone["id"],
        podid=pod["id"],
        clusterid=cluster["id"],
        hypervisor="Simulator",
        url="http://sim-1/?cpus=4&mhz=1000&memory=2048&latency_ms=5",
    )["host"]
    assert (host["state"], host["resourcestate"], host["cpunumber"], host["memorytotal"]) == (
        "Up",
        "Enabled",
        4,
        2 << 30,
    )
    enabled = cloud("updateZone", id=zone["id"], allocationstate="Enabled")["zone"]
    assert enabled["allocationstate"] == "Enabled"
    (listed,) = cloud("listZones", showcapacities=True, name="north")["zone"]
    capacity = {item["type"]: (item["capacitytotal"], item["capacityused"]) for item in listed["capacity"]}
    assert capacity[4] == (10, 0)
    assert capacity[7] == (1101, 0)
    assert capacity[1] == (4000, 0)
    assert capacity[0] == (2 << 30, 0)
    assert capacity[5] == (1, 0)


def test_a_zone_is_deleted_from_the_inside_out(cloud):
    zone = make_zone(cloud)
    host = add_host(cloud, zone)
    with pytest.raises(InUse, match=r"still has the pod .*, the host .*, the address range .*, the physical network"):
        cloud("deleteZone", id=zone.id)
    with pytest.raises(InUse, match="still has the hosts sim-1"):
        cloud("deleteCluster", id=zone.cluster)
    with pytest.raises(InUse, match="still has the clusters c"):
        cloud("deletePod", id=zone.pod)
    with pytest.raises(InUse, match="it has address ranges"):
        cloud("deletePhysicalNetwork", id=zone.physical)
    cloud("deleteHost", id=host["id"])
    cloud("deleteCluster", id=zone.cluster)
    cloud("deletePod", id=zone.pod)
    cloud("deleteVlanIpRange", id=zone.range)
    job(cloud, "deletePhysicalNetwork", id=zone.physical)
    assert cloud("deleteZone", id=zone.id) == {"success": True}
    assert cloud("listZones") == {}
    make_zone(cloud)  # every name is free again


BAD_ZONES = [
    ({"name": "z\nx"}, BadParameter, "one line of text"),
    ({"name": 'a"b'}, BadParameter, "without quotes"),
    ({"dns1": "dns.example.org"}, BadParameter, "dns1 value=dns.example.org: it must be an IPv4 address"),
    ({"networktype": "Fancy"}, BadParameter, "must be one of Advanced, Basic"),
    ({"guestcidraddress": "10.1.1.1/24"}, BadParameter, "no host bits"),
    ({"domain": "-bad-"}, BadParameter, "must be a DNS domain"),
    ({"ip6dns1": "10.0.0.1"}, BadParameter, "must be an IPv6 address"),
    ({"domainid": "7bd4b0f0-0000-4000-8000-000000000000"}, BadParameter, "no domain with this id"),
    ({"dns1": ""}, MissingParameter, "missing parameter dns1"),
    ({"networktype": "Basic", "guestcidraddress": "10.0.0.0/8"}, BadParameter, "Basic zone has none"),
    ({"storageaccessgroups": "a"}, BadParameter, "not supported"),
]


def test_createzone_refuses(cloud):
    for parameters, error, text in BAD_ZONES:
        with pytest.raises(error, match=text):
            cloud("createZone", **{"name": "z", "networktype": "Advanced"} | DNS | parameters)
    assert cloud("listZones") == {}


def test_zone_names_are_taken_once(cloud):
    make_zone(cloud)
    with pytest.raises(BadParameter, match="there is a zone with this name"):
        cloud("createZone", name="z1", networktype="Advanced", **DNS)


BAD_RANGES = [
    ({"startip": "198.51.1.15", "endip": "198.51.1.30"}, RuleConflict, "overlap the range 198.51.1.10-198.51.1.19"),
    ({"startip": "198.51.1.30", "endip": "198.51.1.20"}, BadParameter, "leads backwards"),
    ({"startip": "198.51.2.30"}, BadParameter, "no host address of 198.51.1.0/24"),
    ({"startip": "198.51.1.1", "endip": "198.51.1.5"}, BadParameter, "holds the gateway"),
    ({"startip": "198.51.1.30", "gateway": "198.51.1.2"}, RuleConflict, "with gateway 198.51.1.2 overlaps"),
    ({"startip": "198.51.1.30", "vlan": "50"}, RuleConflict, "on VLAN untagged already"),
    ({"startip": "198.51.1.30", "vlan": "150"}, BadParameter, "one of the guest networks' VLANs 100-199"),
    ({"startip": "198.51.1.30", "vlan": "5000"}, BadParameter, "VLAN from 1 to 4094"),
    ({"startip": "198.51.1.30", "netmask": "255.0.255.0"}, BadParameter, "netmask"),
    ({"startip": ""}, BadParameter, "IPv4|must be given"),
    ({"startip": "198.51.1.255"}, BadParameter, "no host address"),
    ({"startip": "198.51.1.30", "forvirtualnetwork": "false"}, BadParameter, "needs its shared network"),
]


def test_ranges_that_are_refused(cloud):
    zone = make_zone(cloud)
    given = {"zoneid": zone.id, "forvirtualnetwork": True, "gateway": "198.51.1.1", "netmask": "255.255.255.0"}
    for parameters, error, text in BAD_RANGES:
        with pytest.raises(error, match=text):
            cloud("createVlanIpRange", **given | parameters)
    assert cloud("listVlanIpRanges")["count"] == 1


def test_a_host_with_an_agent_needs_a_token_of_its_own(cloud):
    zone = make_zone(cloud, hypervisor="LXC")
    place = {"hypervisor": "LXC", "url": "http://h1", "username": "root"}
    with pytest.raises(BadParameter, match="it is the agent's token"):
        add_host(cloud, zone, **place, password="short")
    assert add_host(cloud, zone, **place, password=TOKEN)["state"] == "Connecting"
    with pytest.raises(BadParameter, match="another host's agent has this token"):
        add_host(cloud, zone, **place | {"url": "lxc://h2"}, password=TOKEN)
    with pytest.raises(BadParameter, match="there is a host h1"):
        add_host(cloud, zone, **place, password=TOKEN + "2")
    with pytest.raises(BadParameter, match="cluster c is of LXC hosts"):
        add_host(cloud, zone)
    with pytest.raises(BadParameter, match="no driver for it is installed; there are LXC, Simulator"):
        add_host(cloud, zone, hypervisor="Zfoo")
    with pytest.raises(BadParameter, match="must be http://NAME"):
        add_host(cloud, zone, **place | {"url": "http://"}, password=TOKEN + "3")
