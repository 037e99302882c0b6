"""IPv6 of VPCs: tiers with a /64 each, one router address for all of them, and lists that name both families."""

from __future__ import annotations

import pytest

from controlplane.errors import BadParameter, InUse
from controlplane.network.ipv6 import RouterAddress6
from controlplane.network.vpcs import Vpc
from controlplane.reconcile.targets import Target, load_facts
from controlplane.work.signals import signals
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType
from tests.api.vpc_world import vpc_world

SERVICES = "Dhcp,Dns,UserData,SourceNat,NetworkACL,PortForwarding,StaticNat"


@pytest.fixture
def here(cloud):
    cloud("updateConfiguration", name="allow.end.users.to.specify.vr.mtu", value="true")
    with vpc_world(cloud) as made:
        with cloud.database.write() as session:
            physical = session.query(PhysicalNetwork).one()
            if all(row.traffic != "Public" for row in physical.traffic_types):
                physical.traffic_types.append(TrafficType(traffic="Public"))
        zone = made.there.zone
        made.done(cloud("createGuestNetworkIpv6Prefix", zoneid=zone, prefix="2001:db8:1000::/56"))
        six = {"ip6gateway": "fe80::1", "ip6cidr": "2001:db8:ffff::/64"}
        made.range = cloud("createVlanIpRange", zoneid=zone, forvirtualnetwork=True, **six)["vlan"]["id"]
        yield made


def vpc_offering(here):
    answer = here.admin("createVPCOffering", name="dual", internetprotocol="dualstack", enable=True)
    return here.done(answer)


def tier_offering(here, protocol="DualStack"):
    return here.admin(
        "createNetworkOffering", name=f"{protocol} tier", guestiptype="Isolated", traffictype="Guest", forvpc=True,
        enable=True, supportedservices=SERVICES, internetprotocol=protocol,
    )["networkoffering"]["id"]  # fmt: skip


def facts(here):
    with here.cloud.database.read() as session:
        return load_facts(session, session.query(Target).filter_by(kind="router").one())


def test_tiers_have_a_64_each_and_share_their_routers_address(here):
    offering = vpc_offering(here)
    assert offering["internetprotocol"] == "DualStack"
    vpc = here.vpc(vpcofferingid=offering["id"], ip6dns1="2001:db8:53::1")["id"]
    tier = tier_offering(here)
    web = here.tier(vpc, networkofferingid=tier)
    db = here.tier(vpc, "db", 2, networkofferingid=tier)
    here.there.deploy(name="front", networkids=web["id"])
    here.there.deploy(name="back", networkids=db["id"])
    assert [web["ip6cidr"], db["ip6cidr"]] == ["2001:db8:1000::/64", "2001:db8:1000:1::/64"]
    shown = here.cloud("listVPCs", id=vpc)["vpc"][0]
    assert shown["ip6dns1"] == "2001:db8:53::1"
    routes = [{"subnet": block, "gateway": "2001:db8:ffff::1"} for block in (web["ip6cidr"], db["ip6cidr"])]
    assert shown["ip6routes"] == routes
    known = facts(here)
    assert known.dns6 == ("2001:db8:53::1",)
    assert {(nic.address6, nic.gateway6) for nic in known.nics if nic.traffic == "Public"} == {
        ("2001:db8:ffff::1", "fe80::1")
    }
    assert sorted(net.gateway6 for net in known.networks) == ["2001:db8:1000:1::1", "2001:db8:1000::1"]
    assert all(len(net.leases) == 1 and net.leases[0].address6 for net in known.networks)
    (router,) = here.admin("listRouters", vpcid=vpc, listall=True)["router"]
    assert {nic["ip6address"] for nic in router["nic"]} == {
        "2001:db8:1000::1", "2001:db8:1000:1::1", "2001:db8:ffff::1",
    }  # fmt: skip
    with pytest.raises(BadParameter, match="1280"):
        here.cloud("updateVPC", id=vpc, publicmtu=1000)
    with pytest.raises(InUse, match="shop"):
        here.admin("deleteVlanIpRange", id=here.range)


def test_what_a_vpc_has_of_ipv6_is_free_when_it_is_gone(here):
    vpc = here.vpc(vpcofferingid=vpc_offering(here)["id"])["id"]
    assert here.there.rows(RouterAddress6) == [], "taken with the first tier that has IPv6"
    web = here.tier(vpc, networkofferingid=tier_offering(here))
    here.done(here.cloud("deleteNetwork", id=web["id"]))
    assert len(here.there.rows(RouterAddress6)) == 1, "the VPC's own, whatever tiers come and go"
    here.done(here.cloud("deleteVPC", id=vpc))
    names = [f"target/{number}" for number in range(1, 50)]
    assert signals.wait(names, lambda: not here.there.rows(RouterAddress6), 10)
    assert here.there.rows(Vpc, Vpc.removed.is_(None)) == []


def test_a_vpc_of_ipv4_has_no_tier_with_ipv6_and_none_has_ipv6_alone(here):
    vpc = here.vpc()["id"]
    with pytest.raises(BadParameter, match="it is DualStack, and offering Default VPC offering of VPC shop is IPv4"):
        here.tier(vpc, networkofferingid=tier_offering(here))
    with pytest.raises(BadParameter, match="internetprotocol"):
        here.admin("createVPCOffering", name="six", internetprotocol="IPv6")


def test_a_list_takes_cidrs_of_both_families(here):
    vpc = here.vpc(vpcofferingid=vpc_offering(here)["id"])["id"]
    acl = here.done(here.cloud("createNetworkACLList", name="both", vpcid=vpc))["id"]
    given = {"aclid": acl, "protocol": "tcp", "startport": 80, "endport": 80, "number": 1}
    item = here.done(here.cloud("createNetworkACL", **given, cidrlist="2001:DB8:c::7/48,198.51.100.0/24"))
    assert item["cidrlist"] == "198.51.100.0/24,2001:db8:c::/48"
    with pytest.raises(BadParameter, match="IPv6 CIDRs"):
        here.cloud("createNetworkACL", **(given | {"number": 2}), cidrlist="2001:db8::zz/48")
