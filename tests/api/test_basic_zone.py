"""Basic zones: one network, pods with their ranges, guests with addresses of their pod, a router in each."""

from __future__ import annotations

import pytest

from controlplane.errors import BadParameter, InUse, RuleConflict
from tests.api.zone_steps import DNS, enable_router, job

SG = "DefaultSharedNetworkOfferingWithSGService"
MASK = "255.255.255.0"


def pod(cloud, zone, name, net, **more):
    given = {"gateway": f"10.{net}.0.1", "netmask": MASK, "startip": f"10.{net}.0.2", "endip": f"10.{net}.0.9"}
    return cloud("createPod", zoneid=zone, name=name, **(given | more))["pod"]["id"]


def basic(cloud, offering=SG):
    zone = cloud("createZone", name="flat", networktype="Basic", **DNS)["zone"]
    assert (zone["networktype"], zone["securitygroupsenabled"]) == ("Basic", True)
    physical = job(cloud, "createPhysicalNetwork", name="net", zoneid=zone["id"])["id"]
    for traffic in ("Guest", "Public", "Management"):
        job(cloud, "addTrafficType", physicalnetworkid=physical, traffictype=traffic)
    enable_router(cloud, physical)
    (groups,) = cloud("listNetworkServiceProviders", physicalnetworkid=physical, name="SecurityGroupProvider")[
        "networkserviceprovider"
    ]
    job(cloud, "updateNetworkServiceProvider", id=groups["id"], state="Enabled")
    job(cloud, "updatePhysicalNetwork", id=physical, state="Enabled")
    found = cloud("listNetworkOfferings", name=offering)["networkoffering"][0]["id"]
    network = cloud("createNetwork", name="guests", zoneid=zone["id"], networkofferingid=found)["network"]
    return zone["id"], physical, network


def guest_range(cloud, zone, pod, **given):
    asked = {"zoneid": zone, "podid": pod, "forvirtualnetwork": False} | given
    return cloud("createVlanIpRange", **asked)["vlan"]


def test_the_only_network_is_shared_untagged_and_for_all(cloud):
    zone, physical, network = basic(cloud)
    assert (network["type"], network["acltype"], network["vlan"]) == ("Shared", "Domain", "untagged")
    offerings = {row["name"]: row["id"] for row in cloud("listNetworkOfferings")["networkoffering"]}
    refused = (
        ({}, "has its only network, guests"),
        (
            {"networkofferingid": offerings["DefaultIsolatedNetworkOfferingWithSourceNatService"]},
            "its network is Shared",
        ),
    )
    for given, text in refused:
        asked = {"name": "n", "zoneid": zone, "networkofferingid": offerings[SG]} | given
        with pytest.raises(BadParameter, match=text):
            cloud("createNetwork", **asked)
    with pytest.raises(BadParameter, match="is Basic and has its physical network"):
        cloud("createPhysicalNetwork", name="second", zoneid=zone)
    with pytest.raises(BadParameter, match="a Basic zone has no guest VLANs"):
        cloud("updatePhysicalNetwork", id=physical, vlan="100-199")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"gateway": "10.9.0.1", "netmask": MASK, "startip": "10.9.0.10"}, "guests' addresses come with the pods"),
        ({"vlan": "100"}, "its guests have no tags"),
        ({"acltype": "Account"}, "its network is for all accounts"),
    ],
)
def test_what_such_a_network_cannot_be(cloud, given, text):
    zone, _, network = basic(cloud)
    job(cloud, "deleteNetwork", id=network["id"])
    offering = cloud("listNetworkOfferings", name=SG)["networkoffering"][0]["id"]
    with pytest.raises(BadParameter, match=text):
        cloud("createNetwork", name="n", zoneid=zone, networkofferingid=offering, **given)


def test_a_pods_range_lies_in_the_pod_and_in_no_other(cloud):
    zone, _, network = basic(cloud)
    first, second = pod(cloud, zone, "pod-1", 1), pod(cloud, zone, "pod-2", 2)
    made = guest_range(cloud, zone, first, startip="10.1.0.10", endip="10.1.0.20")
    assert (made["networkid"], made["podid"], made["gateway"]) == (network["id"], first, "10.1.0.1")
    assert (made["forvirtualnetwork"], made["vlan"]) == (False, "vlan://untagged")
    for which, given, text in (
        (second, {"startip": "10.1.0.30", "endip": "10.1.0.40"}, "10.1.0.30 is no host address of 10.2.0.0/24"),
        (second, {"gateway": "10.1.0.1", "netmask": MASK, "startip": "10.1.0.30"}, "of pod pod-1"),
        (first, {"startip": "10.1.0.15", "endip": "10.1.0.30"}, "overlap the range 10.1.0.10-10.1.0.20"),
        (first, {"startip": "10.1.0.5", "endip": "10.1.0.9"}, "which pod pod-1 has for system VMs"),
        (first, {"gateway": "10.1.0.254", "netmask": MASK, "startip": "10.1.0.30"}, "whose gateway is 10.1.0.1"),
        (None, {"gateway": "10.3.0.1", "netmask": MASK, "startip": "10.3.0.30"}, "name the pod"),
        (first, {"startip": "10.1.0.30", "vlan": "7"}, "the network is on untagged"),
        (first, {"startip": "10.1.0.30", "account": "admin", "domainid": root(cloud)}, "can be dedicated"),
    ):
        asked = {"zoneid": zone, "forvirtualnetwork": False} | ({"podid": which} if which else {}) | given
        with pytest.raises((BadParameter, RuleConflict), match=text):
            cloud("createVlanIpRange", **asked)
    apart = {"gateway": "10.4.0.1", "netmask": MASK, "startip": "10.4.0.10", "endip": "10.4.0.20"}
    assert guest_range(cloud, zone, second, **apart)["podname"] == "pod-2"
    with pytest.raises(RuleConflict, match=r"10.4.0.0/24 overlaps 10.4.0.0/24 of pod pod-2"):
        pod(cloud, zone, "pod-3", 4)
    with pytest.raises(RuleConflict, match=r"overlap the range 10\.1\.0\.10-10\.1\.0\.20 of the pod's guests"):
        cloud("updatePod", id=first, endip="10.1.0.12")
    with pytest.raises(InUse, match=r"its guests have the range 10\.1\.0\.10"):
        cloud("deletePod", id=first)
    assert {row["id"] for row in cloud("listVlanIpRanges", podid=first)["vlaniprange"]} == {made["id"]}
    with pytest.raises(RuleConflict, match="which pod pod-1 has for system VMs"):
        cloud("updateVlanIpRange", id=made["id"], startip="10.1.0.9")
    assert cloud("updateVlanIpRange", id=made["id"], endip="10.1.0.99")["vlan"]["endip"] == "10.1.0.99"
    cloud("deleteVlanIpRange", id=made["id"])
    cloud("deletePod", id=first)


def root(cloud):
    return cloud("listDomains", name="ROOT")["domain"][0]["id"]
