"""A VPC's private gateway, static routes and MTU, from the API to the packet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from controlplane.demo_zone import NOW
from systemvm import netns
from tests.spine.wire import answering, ask
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]
SHORT = 0.4
VNI = 300
OWN, PEER, BEHIND = "172.16.9.2", "172.16.9.1", "172.20.5.5"


def vpc_of(world: World, name: str, cidr: str, **options):
    offering = world.api.listVPCOfferings(name="Default VPC offering")["vpcoffering"][0]["id"]
    made = {"name": name, "zoneid": world.zone, "vpcofferingid": offering, "cidr": cidr}
    return world.api.createVPC(**made, **options, **NOW)["vpc"]["id"]


def tier_of(world: World, vpc: str, gateway: str, **options):
    name = "DefaultIsolatedNetworkOfferingForVpcNetworks"
    return world.network(name, gateway=gateway, vpcid=vpc, netmask="255.255.255.0", **options)


def router_of(world: World, vpc: str):
    return world.api.listRouters(vpcid=vpc, listall=True)["router"][0]


def removed(world: World, guest, tier, vpc: str) -> None:
    world.api.destroyVirtualMachine(id=guest["id"], expunge=True, **NOW)
    world.api.deleteNetwork(id=tier["id"], **NOW)
    world.api.deleteVPC(id=vpc, **NOW)


@contextmanager
def machine_on(world: World, host: str) -> Iterator[str]:
    """A machine of the operator's on the VNI, with another network behind it, plugged in at a host; its namespace."""
    there, space = world.space(f"host/{host}"), world.space("at/peer")
    links = json.loads(netns.run(there, ["ip", "-d", "-j", "link"]))
    (bridge,) = [link["master"] for link in links if link.get("linkinfo", {}).get("info_data", {}).get("id") == VNI]
    netns.ensure(space)
    try:
        netns.run(there, ["ip", "link", "add", "peer0", "type", "veth", "peer", "name", "eth0", "netns", space])
        netns.run(there, ["ip", "link", "set", "peer0", "up", "master", bridge])
        for command in (
            "link set lo up",
            "link set eth0 up",
            f"addr add {PEER}/24 dev eth0",
            f"addr add {BEHIND}/32 dev lo",
            f"route add 10.9.0.0/16 via {OWN}",
        ):
            netns.run(space, ["ip", *command.split()])
        yield space
    finally:
        netns.ensure_no(space)


def test_a_private_gateway_and_a_static_route(world: World):
    api = world.api
    vpc = vpc_of(world, "private", "10.9.0.0/16")
    lists = {row["name"]: row["id"] for row in api.listNetworkACLLists()["networkacllist"]}
    tier = tier_of(world, vpc, "10.9.1.1", aclid=lists["default_allow"])
    guest = world.guest(tier["id"])
    at, inside = f"vm/{guest['name']}", guest["nic"][0]["ipaddress"]
    acl = api.createNetworkACLList(vpcid=vpc, name="peers", **NOW)["networkacllist"]["id"]
    rule = {"aclid": acl, "protocol": "tcp", "startport": 5000, "endport": 5000, "cidrlist": "172.16.9.0/24"}
    item = api.createNetworkACL(**rule, **NOW)["networkacl"]
    asked = {"vpcid": vpc, "ipaddress": OWN, "gateway": PEER, "netmask": "255.255.255.0", "vlan": f"vxlan://{VNI}"}
    gateway = api.createPrivateGateway(**asked, aclid=acl, sourcenatsupported=True, **NOW)["privategateway"]["id"]
    router = router_of(world, vpc)
    where = f"router/{router['name']}"

    def routes() -> str:
        return world.run(where, "ip", "route").stdout

    with (
        machine_on(world, router["hostname"]) as peer,
        answering(peer, tcp=(7000,)),
        answering(world.space(at), tcp=(5000, 5001)),
    ):
        assert until(lambda: ask(peer, inside, 5000, seconds=SHORT)) == f"5000 {PEER}"
        assert not ask(peer, inside, 5001, seconds=SHORT)
        assert not ask(peer, inside, 5000, source=BEHIND, seconds=SHORT)
        assert world.ask(PEER, 7000, where=at) == f"7000 {OWN}"

        assert "172.20.0.0/16" not in routes()
        assert not world.ask(BEHIND, 7000, where=at, seconds=SHORT)
        route = api.createStaticRoute(gatewayid=gateway, cidr="172.20.0.0/16", **NOW)["staticroute"]
        assert f"172.20.0.0/16 via {PEER} dev eth" in routes()
        assert world.ask(BEHIND, 7000, where=at) == f"7000 {OWN}"
        wider = rule | {"cidrlist": "172.20.0.0/16"}
        api.createNetworkACL(**wider, **NOW)
        assert ask(peer, inside, 5000, source=BEHIND) == f"5000 {BEHIND}"
        assert "denied" in world.refused("createStaticRoute", gatewayid=gateway, cidr="169.254.169.254/32")

        api.replaceNetworkACLList(aclid=lists["default_deny"], networkid=tier["id"], **NOW)
        assert not ask(peer, inside, 5000, seconds=SHORT)
        api.replaceNetworkACLList(aclid=lists["default_allow"], networkid=tier["id"], **NOW)
        assert ask(peer, inside, 5000) == f"5000 {PEER}"
        api.updateNetworkACLItem(id=item["id"], action="Deny", **NOW)
        assert not ask(peer, inside, 5000, seconds=SHORT)

        api.deleteStaticRoute(id=route["id"], **NOW)
        assert "172.20.0.0/16" not in routes()
        assert not world.ask(BEHIND, 7000, where=at, seconds=SHORT)
        api.deletePrivateGateway(id=gateway, **NOW)
        until(lambda: "172.16.9" not in world.run(where, "ip", "-br", "addr").stdout + routes())
        assert not world.ask(PEER, 7000, where=at, seconds=SHORT)
    removed(world, guest, tier, vpc)


def test_a_vpcs_mtu_is_that_of_the_packets(world: World):
    vpc = vpc_of(world, "narrow", "10.10.0.0/16", publicmtu=1400)
    lists = {row["name"]: row["id"] for row in world.api.listNetworkACLLists()["networkacllist"]}
    tier = tier_of(world, vpc, "10.10.1.1", aclid=lists["default_allow"], privatemtu=1450)
    guest = world.guest(tier["id"])
    at = f"vm/{guest['name']}"

    def pinged(address: str, mtu: int) -> str:
        """Send one packet of this size that nobody may cut into fragments."""
        done = world.beside(at, "ping", "-M", "do", "-n", "-c1", "-W1", "-s", str(mtu - 28), address)
        return "answered" if done.returncode == 0 else done.stdout + done.stderr

    until(lambda: pinged("203.0.113.1", 1400) == "answered")
    assert "mtu = 1400" in pinged("203.0.113.1", 1401)
    assert pinged("10.10.1.1", 1450) == "answered"
    assert "mtu=1450" in pinged("10.10.1.1", 1451)
    shown = world.run(f"router/{router_of(world, vpc)['name']}", "ip", "-o", "link").stdout
    assert {mtu for mtu in ("1400", "1450") if f"mtu {mtu} " in shown} == {"1400", "1450"}
    world.api.updateVPC(id=vpc, publicmtu=1300, **NOW)
    assert "mtu = 1300" in pinged("203.0.113.1", 1301)
    world.api.updateNetwork(id=tier["id"], privatemtu=1350, **NOW)
    for where in (at, f"router/{router_of(world, vpc)['name']}"):
        assert "mtu 1350 " in world.run(where, "ip", "-o", "link").stdout
    assert pinged("10.10.1.1", 1350) == "answered"
    assert "mtu=1350" in pinged("10.10.1.1", 1351)
    wide = {"name": "vr.private.interface.max.mtu", "zoneid": world.zone}
    assert "it is 1500 at most (vr.private.interface.max.mtu)" in world.refused(
        "updateNetwork", id=tier["id"], privatemtu=1600
    )
    world.api.updateConfiguration(value="9000", **wide)
    try:
        refused = world.refused("updateNetwork", id=tier["id"], privatemtu=1600)
    finally:
        world.api.updateConfiguration(value="1500", **wide)
    assert "frames of 1600 bytes need an MTU of 1650 on und0, which has 1600" in refused
    assert world.api.listNetworks(id=tier["id"])["network"][0]["privatemtu"] == 1350
    until(lambda: pinged("10.10.1.1", 1350) == "answered")
    removed(world, guest, tier, vpc)
