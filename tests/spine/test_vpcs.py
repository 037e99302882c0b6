"""A VPC with a web and a db tier, from the API to the packet."""

from __future__ import annotations

import pytest

from controlplane.demo_zone import NOW
from tests.spine.wire import answering
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]
SHORT = 0.4
TIER = "DefaultIsolatedNetworkOfferingForVpcNetworks"


def test_a_web_and_a_db_tier(world: World):
    api = world.api
    offering = api.listVPCOfferings(name="Default VPC offering")["vpcoffering"][0]["id"]
    made = {"name": "shop", "zoneid": world.zone, "vpcofferingid": offering, "cidr": "10.7.0.0/16"}
    vpc = api.createVPC(**made, **NOW)["vpc"]["id"]
    acl = api.createNetworkACLList(vpcid=vpc, name="db", **NOW)["networkacllist"]["id"]
    rule = {"aclid": acl, "protocol": "tcp", "startport": 5432, "cidrlist": "10.7.1.0/24"}
    item = api.createNetworkACL(**rule, **NOW)["networkacl"]
    allow = api.listNetworkACLLists(name="default_allow")["networkacllist"][0]["id"]
    inside = {"vpcid": vpc, "netmask": "255.255.255.0"}
    web = world.network(TIER, gateway="10.7.1.1", aclid=allow, **inside)
    db = world.network(TIER, gateway="10.7.2.1", aclid=acl, **inside)
    front, back = world.guest(web["id"]), world.guest(db["id"])
    at, there = f"vm/{front['name']}", back["nic"][0]["ipaddress"]
    with answering(world.space(f"vm/{back['name']}"), tcp=(5432, 5433)):
        assert world.ask(there, 5432, where=at) == f"5432 {front['nic'][0]['ipaddress']}"
        assert not world.ask(there, 5433, where=at, seconds=SHORT)
        assert not world.pings(at, there)
        api.updateNetworkACLItem(id=item["id"], action="Deny", **NOW)
        assert not world.ask(there, 5432, where=at, seconds=SHORT)
        api.replaceNetworkACLList(aclid=allow, networkid=db["id"], **NOW)
        assert world.ask(there, 5433, where=at)
        ip = api.associateIpAddress(vpcid=vpc, **NOW)["ipaddress"]
        world.forward(ip, back, 2222, 5432)
        world.balance(ip, [front], 80, networkid=web["id"])
        assert world.curl(f"http://{ip['ipaddress']}/") == front["name"]
        assert world.ask(ip["ipaddress"], 2222, source="198.51.100.7") == "5432 198.51.100.7"
        api.restartVPC(id=vpc, cleanup=True, **NOW)
        assert world.curl(f"http://{ip['ipaddress']}/") == front["name"]
        assert world.ask(ip["ipaddress"], 2222, source="198.51.100.7") == "5432 198.51.100.7"
    for guest in (front, back):
        api.destroyVirtualMachine(id=guest["id"], expunge=True, **NOW)
    for tier in (web, db):
        api.deleteNetwork(id=tier["id"], **NOW)
    api.deleteVPC(id=vpc, **NOW)
    ((row, removed),) = world.sql("SELECT id, removed FROM vpcs WHERE uuid = ?", vpc)
    assert removed
    until(lambda: not world.sql("SELECT id FROM public_ips WHERE vpc_id = ?", row))


def test_an_internal_load_balancer_answers_the_vpc_alone(world: World):
    api = world.api
    offering = api.listVPCOfferings(name="Default VPC offering")["vpcoffering"][0]["id"]
    made = {"name": "inner", "zoneid": world.zone, "vpcofferingid": offering, "cidr": "10.8.0.0/16"}
    vpc = api.createVPC(**made, **NOW)["vpc"]["id"]
    lists = {row["name"]: row["id"] for row in api.listNetworkACLLists()["networkacllist"]}
    inside = {"vpcid": vpc, "netmask": "255.255.255.0", "aclid": lists["default_allow"]}
    web = world.network(TIER, gateway="10.8.1.1", **inside)
    app = world.network(f"{TIER}WithInternalLB", gateway="10.8.2.1", **inside)
    front, back = world.guest(web["id"]), world.guest(app["id"])
    asked = {"name": "app", "algorithm": "roundrobin", "scheme": "Internal", "sourceport": 8080, "instanceport": 5000}
    asked |= {"networkid": app["id"], "sourceipaddressnetworkid": app["id"], "sourceipaddress": "10.8.2.100"}
    rule = api.createLoadBalancer(**asked, **NOW)["loadbalancer"]
    at, vip = f"vm/{front['name']}", "10.8.2.100"
    with answering(world.space(f"vm/{back['name']}"), tcp=(5000,)):
        api.assignToLoadBalancerRule(id=rule["id"], virtualmachineids=back["id"], **NOW)
        assert until(lambda: world.ask(vip, 8080, where=at, seconds=SHORT)).startswith("5000 ")
        assert world.ask(vip, 8080, where=f"vm/{back['name']}").startswith("5000 ")
        assert not world.ask(vip, 8080, seconds=SHORT)
        api.replaceNetworkACLList(aclid=lists["default_deny"], networkid=app["id"], **NOW)
        assert not world.ask(vip, 8080, where=at, seconds=SHORT)
    for guest in (front, back):
        api.destroyVirtualMachine(id=guest["id"], expunge=True, **NOW)
    for tier in (web, app):
        api.deleteNetwork(id=tier["id"], **NOW)
    api.deleteVPC(id=vpc, **NOW)
    assert not world.sql("SELECT id FROM load_balancers WHERE uuid = ?", rule["id"])
