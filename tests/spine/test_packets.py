"""From the API to the packet: each rule that a tenant makes is seen by real connections."""

from __future__ import annotations

from collections import Counter

import pytest

from controlplane.demo_zone import NOW
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def net(world: World):
    return world.network()


@pytest.fixture(scope="module")
def guests(world: World, net):
    return [world.guest(net["id"]) for _ in range(2)]


def test_a_guest_has_its_lease_its_name_and_the_way_out(world: World, net, guests):
    name, address = guests[0]["name"], guests[0]["nic"][0]["ipaddress"]
    assert address in until(lambda: world.run(f"vm/{name}", "ip", "-4", "addr").stdout)
    other = guests[1]
    answer = until(lambda: world.run(f"vm/{name}", "nslookup", other["name"]).stdout)
    assert other["nic"][0]["ipaddress"] in answer


def test_port_forwarding_leads_to_the_guest_and_its_removal_ends_it(world: World, net, guests):
    ip, guest = world.address(net["id"]), guests[0]
    assert world.curl(f"http://{ip['ipaddress']}:8080/") == ""
    rule = world.api.createPortForwardingRule(
        ipaddressid=ip["id"],
        protocol="tcp",
        publicport=8080,
        privateport=80,
        virtualmachineid=guest["id"],
        networkid=net["id"],
        **NOW,
    )["portforwardingrule"]
    assert until(lambda: world.curl(f"http://{ip['ipaddress']}:8080/")) == guest["name"]
    world.api.deletePortForwardingRule(id=rule["id"], **NOW)
    assert world.curl(f"http://{ip['ipaddress']}:8080/") == ""


def test_a_load_balancer_reaches_each_guest_in_turn(world: World, net, guests):
    ip = world.address(net["id"])
    rule = world.api.createLoadBalancerRule(
        publicipid=ip["id"], name="web", algorithm="roundrobin", publicport=80, privateport=80, **NOW
    )["loadbalancer"]
    world.api.assignToLoadBalancerRule(id=rule["id"], virtualmachineids=",".join(g["id"] for g in guests), **NOW)
    until(lambda: world.curl(f"http://{ip['ipaddress']}/"))
    seen = Counter(world.curl(f"http://{ip['ipaddress']}/") for _ in range(20))
    assert seen == {guest["name"]: 10 for guest in guests}
