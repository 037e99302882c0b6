"""WireGuard from the API to the packet: a person's device, and two networks joined, with wg(8) alone at the far end."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from bench.wireguard import device
from controlplane.demo_zone import NOW
from tests.spine import wire
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]
SHORT = 0.4


@pytest.fixture
def vpn(world: World, net: Any, guests: Any) -> Iterator[Any]:
    made = world.api.createWireguardVpn(networkid=net["id"], **NOW)["wireguardvpn"]
    yield made
    with suppress(Exception):
        world.api.deleteWireguardVpn(id=made["id"], **NOW)


def add(world: World, vpn: Any, name: str, **parameters: Any) -> Any:
    return world.api.addWireguardPeer(wireguardvpnid=vpn["id"], name=name, **parameters, **NOW)["wireguardpeer"]


def test_a_device_reaches_a_guest_and_is_cut_off_when_it_is_removed(world: World, net, guests, vpn):
    first, second = (guest["nic"][0]["ipaddress"] for guest in guests)
    peer = add(world, vpn, "laptop", acl=[{"cidr": f"{first}/32", "protocol": "tcp", "startport": 80}])
    told = world.api.getWireguardPeerConfiguration(id=peer["id"])
    began = time.monotonic()
    with device(world.space("internet"), 6, told["configuration"]) as space:
        answer = subprocess.run(["ip", "netns", "exec", space, "curl", "-s", "-m", "3", f"http://{first}/"],
                                capture_output=True, text=True, check=False)  # fmt: skip
        print(f"up and served in {time.monotonic() - began:.3f} s")
        assert answer.stdout.strip() == guests[0]["name"]
        with wire.answering(world.space(f"vm/{guests[1]['name']}"), tcp=(4000,)):
            assert not wire.ask(space, second, 4000, seconds=SHORT)
            world.api.updateWireguardPeer(id=peer["id"], cidrlist=f"{second}/32", **NOW)
            assert wire.ask(space, second, 4000) == f"4000 {peer['ipaddress']}"
            seen = until(lambda: [p for p in world.api.listWireguardPeers(id=peer["id"])["wireguardpeer"]
                                  if p["state"] == "Connected" and p["receivedbytes"]])  # fmt: skip
            assert seen[0]["lastendpoint"].startswith("172.31.6.2:")
            began = time.monotonic()
            world.api.removeWireguardPeer(id=peer["id"], **NOW)
            assert not wire.ask(space, second, 4000, seconds=SHORT)
            print(f"cut off {time.monotonic() - began:.3f} s after the call, {SHORT} s of it waited for an answer")
            assert time.monotonic() - began < 5


def test_two_networks_are_joined(world: World, net, guests, vpn):
    far = world.network(gateway="10.77.0.1", netmask="255.255.255.0")
    there = world.guest(far["id"])
    other = world.api.createWireguardVpn(networkid=far["id"], cidr="10.251.0.0/24", **NOW)["wireguardvpn"]
    here = guests[0]["nic"][0]["ipaddress"]
    for mine, its, behind in ((vpn, other, far["cidr"]), (other, vpn, net["cidr"])):
        add(world, mine, "site", publickey=its["publickey"], remotecidrlist=behind,
            endpoint=f"{its['publicip']}:{its['port']}")  # fmt: skip
    with wire.answering(world.space(f"vm/{there['name']}"), tcp=(4000,)):
        answer = until(lambda: world.ask(there["nic"][0]["ipaddress"], 4000, where=f"vm/{guests[0]['name']}"))
        assert answer == f"4000 {here}"  # no translation in between
    assert world.pings(f"vm/{there['name']}", here)
    world.api.deleteWireguardVpn(id=other["id"], **NOW)
    assert not world.pings(f"vm/{there['name']}", here)


def test_a_tunnel_goes_on_while_its_router_is_replaced(world: World, net, guests, vpn):
    told = world.api.getWireguardPeerConfiguration(id=add(world, vpn, "desk")["id"])
    address = guests[0]["nic"][0]["ipaddress"]
    with device(world.space("internet"), 8, told["configuration"]) as space:
        assert until(lambda: _served(space, address)) == guests[0]["name"]
        before = world.router(net["id"])["name"]
        ping = ["ip", "netns", "exec", space, "ping", "-D", "-i", "0.1", "-W", "1", address]
        with subprocess.Popen(ping, stdout=subprocess.PIPE, text=True) as pinging:
            world.api.restartNetwork(id=net["id"], cleanup=True, **NOW)
            assert world.router(net["id"])["name"] != before
            assert _served(space, address) == guests[0]["name"]
            pinging.send_signal(signal.SIGINT)
            said = pinging.communicate(timeout=10)[0]
        times = [float(line[1:].partition("]")[0]) for line in said.splitlines() if "bytes from" in line]
        gap = max(after - before for before, after in pairwise(times))
        print(f"longest silence of {len(times)} pings while the router was replaced: {gap:.3f} s")
        assert gap < 2


def test_a_device_reaches_the_tiers_of_a_vpc_as_their_lists_allow(world: World):
    physical = world.api.listPhysicalNetworks(zoneid=world.zone)["physicalnetwork"][0]["id"]
    named = {"name": "VpcVirtualRouter", "physicalnetworkid": physical}
    provider = world.api.listNetworkServiceProviders(**named)["networkserviceprovider"][0]
    if provider["state"] != "Enabled":
        for element in world.api.listVirtualRouterElements(nspid=provider["id"])["virtualrouterelement"]:
            world.api.configureVirtualRouterElement(id=element["id"], enabled=True, **NOW)
        world.api.updateNetworkServiceProvider(id=provider["id"], state="Enabled", **NOW)
    offering = world.api.listVPCOfferings(name="Default VPC offering")["vpcoffering"][0]["id"]
    made = {"name": "wg-shop", "displaytext": "wg-shop", "cidr": "10.66.0.0/16", "zoneid": world.zone}
    vpc = world.api.createVPC(vpcofferingid=offering, **made, **NOW)["vpc"]
    lists = world.api.listNetworkACLLists()["networkacllist"]
    acls = {acl["name"]: acl["id"] for acl in lists}
    tier = world.network("DefaultIsolatedNetworkOfferingForVpcNetworks", vpcid=vpc["id"], gateway="10.66.1.1",
                         netmask="255.255.255.0", aclid=acls["default_allow"])  # fmt: skip
    guest = world.guest(tier["id"])
    vpn = world.api.createWireguardVpn(vpcid=vpc["id"], cidr="10.252.0.0/24", **NOW)["wireguardvpn"]
    told = world.api.getWireguardPeerConfiguration(id=add(world, vpn, "phone")["id"])
    with device(world.space("internet"), 7, told["configuration"]) as space:
        address = guest["nic"][0]["ipaddress"]
        assert until(lambda: _served(space, address)) == guest["name"]
        world.api.replaceNetworkACLList(networkid=tier["id"], aclid=acls["default_deny"], **NOW)
        assert not _served(space, address)


def _served(space: str, address: str) -> str:
    argv = ["ip", "netns", "exec", space, "curl", "-s", "-m", "1", f"http://{address}/"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
