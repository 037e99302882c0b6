"""Moving a VPC to other offerings, and the routers as machines of internal load balancers."""

from __future__ import annotations

import pytest

from controlplane.errors import BadParameter
from tests.api.vpc_world import TIER_INTERNAL, TIER_WITHOUT_LB, vpc_world


@pytest.fixture
def here(cloud):
    with vpc_world(cloud, hosts=2) as made:
        yield made


def other_offering(
    here, name="other", *, services="Dhcp,Dns,SourceNat,PortForwarding,NetworkACL,StaticNat,UserData", **more
):
    made = here.done(
        here.admin("createVPCOffering", name=name, displaytext=name, supportedservices=services, enable=True, **more)
    )
    return made["id"]


REDUNDANT = {
    "servicecapabilitylist[0].service": "SourceNat",
    "servicecapabilitylist[0].capabilitytype": "RedundantRouter",
    "servicecapabilitylist[0].capabilityvalue": "true",
}


def test_a_vpc_gets_another_offering_with_its_tiers_or_nothing_changes(here):
    vpc = here.vpc()["id"]
    tier = here.tier(vpc)["id"]
    slim = other_offering(here)
    before = here.admin("listVPCs", id=vpc, listall=True)["vpc"][0]
    with pytest.raises(BadParameter, match=r"tier web cannot keep its offering .* service Lb"):
        here.done(here.admin("migrateVPC", vpcid=vpc, vpcofferingid=slim))
    assert here.admin("listVPCs", id=vpc, listall=True)["vpc"][0] == before
    named = {
        "tiernetworkofferings[0].networkid": tier,
        "tiernetworkofferings[0].networkofferingid": here.offering(TIER_WITHOUT_LB),
    }
    given = {"command": "migrateVPC", "vpcid": vpc, "vpcofferingid": other_offering(
        here, "both", services="Dhcp,Dns,SourceNat,PortForwarding,NetworkACL,StaticNat,UserData,Vpn")}  # fmt: skip
    moved = here.done(here.admin.raw(given | named))
    assert moved["vpcofferingname"] == "both"
    assert moved["network"][0]["networkofferingname"] == TIER_WITHOUT_LB
    with pytest.raises(BadParameter, match="has it already"):
        here.admin("migrateVPC", vpcid=vpc, vpcofferingid=given["vpcofferingid"])
    assert (
        here.done(here.admin("migrateVPC", vpcid=vpc, vpcofferingid=given["vpcofferingid"], resume=True))["id"] == vpc
    )


def test_what_the_vpc_uses_is_not_taken_away(here):
    vpc = here.vpc()["id"]
    here.done(here.cloud("createVpnGateway", vpcid=vpc))
    with pytest.raises(BadParameter, match="it has no Vpn, and the VPC has a VPN gateway"):
        here.admin("migrateVPC", vpcid=vpc, vpcofferingid=other_offering(here))
    routed = here.done(
        here.admin("createVPCOffering", name="routed", networkmode="ROUTED", routingmode="Static", enable=True)
    )
    with pytest.raises(BadParameter, match="it is ROUTED Static, and the VPC is NATTED"):
        here.admin("migrateVPC", vpcid=vpc, vpcofferingid=routed["id"])
    with pytest.raises(BadParameter, match="each has networkid and networkofferingid"):
        here.admin.raw({"command": "migrateVPC", "vpcid": vpc, "vpcofferingid": here.vpc_offering(),
                        "tiernetworkofferings[0].networkid": vpc})  # fmt: skip


def test_a_second_router_comes_at_once_and_goes_with_the_next_restart(here):
    vpc = here.vpc()["id"]
    here.there.deploy(name="one", networkids=here.tier(vpc)["id"])
    default = here.vpc_offering()
    services = ",".join(one["name"] for one in here.admin("listVPCOfferings", id=default)["vpcoffering"][0]["service"])
    made = here.done(here.admin.raw({"command": "createVPCOffering", "name": "two", "displaytext": "two",
                                     "supportedservices": services, "enable": "true", **REDUNDANT}))  # fmt: skip
    moved = here.done(here.admin("migrateVPC", vpcid=vpc, vpcofferingid=made["id"]))
    assert (moved["redundantvpcrouter"], moved["restartrequired"]) == (True, False)
    assert here.admin("listRouters", vpcid=vpc, listall=True)["count"] == 2
    back = here.done(here.admin("migrateVPC", vpcid=vpc, vpcofferingid=default))
    assert (back["redundantvpcrouter"], back["restartrequired"]) == (False, True)
    here.done(here.cloud("restartVPC", id=vpc, cleanup=True))
    assert [row["isredundantrouter"] for row in here.admin("listRouters", vpcid=vpc, listall=True)["router"]] == [False]


def test_the_router_is_the_machine_of_an_internal_load_balancer(here):
    vpc = here.vpc()["id"]
    web = here.tier(vpc, networkofferingid=here.offering(TIER_INTERNAL))["id"]
    here.there.deploy(name="one", networkids=web)
    router = here.admin("listRouters", vpcid=vpc, listall=True)["router"][0]
    assert here.admin("listInternalLoadBalancerVMs", listall=True) == {}
    with pytest.raises(BadParameter, match="holds no internal load balancer"):
        here.admin("startInternalLoadBalancerVM", id=router["id"])
    given = {"name": "in", "sourceipaddressnetworkid": web, "networkid": web, "scheme": "Internal", "algorithm": "roundrobin",
             "sourceport": 80, "instanceport": 80, "sourceipaddress": "10.1.1.99"}  # fmt: skip
    here.done(here.cloud("createLoadBalancer", **given))
    (shown,) = here.admin("listInternalLoadBalancerVMs", networkid=web, listall=True)["internalloadbalancervm"]
    assert (shown["id"], shown["role"], shown["guestipaddress"]) == (router["id"], "INTERNAL_LB_VM", "10.1.1.99")
    assert here.admin("listInternalLoadBalancerVMs", forvpc=False, listall=True) == {}
    with pytest.raises(BadParameter, match=r"serves the whole VPC. deleteLoadBalancer ends one of them"):
        here.admin("stopInternalLoadBalancerVM", id=router["id"])
    here.done(here.admin("stopRouter", id=router["id"]))
    started = here.done(here.admin("startInternalLoadBalancerVM", id=router["id"]))
    assert (started["id"], started["state"]) == (router["id"], "Running")


def test_a_tenant_does_not_move_vpcs(here):
    vpc = here.vpc()["id"]
    with pytest.raises(Exception, match="not available"):
        here.cloud("migrateVPC", vpcid=vpc, vpcofferingid=here.vpc_offering())
