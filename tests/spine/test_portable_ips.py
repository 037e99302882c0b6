"""Portable addresses move between networks within two seconds, and never do two routers answer for one."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from controlplane.demo_zone import NOW
from tests.spine.wire import answering, listening
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]
FIRST, LAST = "203.0.113.251", "203.0.113.253"
SHORT, LONGEST = 0.4, 2.0
TIER = "DefaultIsolatedNetworkOfferingForVpcNetworks"
QUARANTINE = "public.ip.address.quarantine.duration"
IPV4, ARP = b"\x08\x00", b"\x08\x06"


@pytest.fixture(scope="module")
def pool(world: World):
    """A portable range beside the zone's public one, on the same wire."""
    wanted = {"regionid": 1, "startip": FIRST, "endip": LAST, "gateway": "203.0.113.1", "netmask": "255.255.255.0"}
    made = world.api.createPortableIpRange(**wanted, **NOW)["portableiprange"]["id"]
    yield made
    world.api.deletePortableIpRange(id=made, **NOW)


@pytest.fixture(scope="module")
def shops(world: World):
    """Two networks with a guest each, on two hosts."""
    networks = [world.network() for _ in range(2)]
    guests = [world.guest(net["id"], hostid=world.host(number)) for number, net in enumerate(networks, 1)]
    yield list(zip(networks, guests, strict=True))
    for net, guest in zip(networks, guests, strict=True):
        world.api.destroyVirtualMachine(id=guest["id"], expunge=True, **NOW)
        world.api.deleteNetwork(id=net["id"], **NOW)


@contextmanager
def portable(world: World, **where: Any) -> Iterator[Any]:
    ip = world.api.associateIpAddress(isportable=True, **where, **NOW)["ipaddress"]
    yield ip
    world.api.disassociateIpAddress(id=ip["id"], **NOW)
    until(lambda: not world.sql("SELECT 1 FROM public_ips WHERE uuid = ? AND state != 'Free'", ip["id"]))


def owners(frames: list[bytes], address: str) -> list[bytes]:
    """Return the MACs that spoke as an address, by ARP or IP, in the order in which each took it up."""
    asked, found = socket.inet_aton(address), []
    for frame in frames:
        kind = frame[12:14]
        speaker = frame[28:32] if kind == ARP else frame[26:30] if kind == IPV4 else b""
        if speaker == asked and (not found or found[-1] != frame[6:12]):
            found.append(frame[6:12])
    return found


def test_an_address_moves_between_networks_and_the_old_path_is_silent(world: World, pool, shops):
    (web, front), (_, back) = shops
    with portable(world, networkid=web["id"]) as ip:
        address = ip["ipaddress"]
        assert (address, ip["isportable"]) == (FIRST, True)
        world.api.enableStaticNat(ipaddressid=ip["id"], virtualmachineid=front["id"])
        world.api.createFirewallRule(ipaddressid=ip["id"], protocol="tcp", startport=80, endport=80, **NOW)
        until(lambda: world.curl(f"http://{address}/") == front["name"])
        with listening(world.space("internet"), "br0") as frames:
            begun = time.monotonic()
            world.api.enableStaticNat(ipaddressid=ip["id"], virtualmachineid=back["id"])
            until(lambda: world.curl(f"http://{address}/", "-m", "0.3") == back["name"], LONGEST)
            assert time.monotonic() - begun < LONGEST
            (shown,) = world.api.listPublicIpAddresses(id=ip["id"])["publicipaddress"]
            assert (shown["state"], shown["virtualmachineid"]) == ("Allocated", back["id"])
            for _ in range(5):
                assert world.curl(f"http://{address}/") == back["name"]
        assert len(owners(frames, address)) == 2, "the old router spoke, then the new one, and never the old one again"
        old = f"router/{world.router(web['id'])['name']}"
        assert address not in world.run(old, "ip", "addr").stdout + world.run(old, "nft", "list", "ruleset").stdout
        mac = world.router(web["id"])["publicmacaddress"]
        assert not world.api.listPublicIpAddresses(associatednetworkid=web["id"], isstaticnat=True)
        world.beside("internet", "ip", "neigh", "replace", address, "lladdr", mac, "dev", "br0", "nud", "permanent")
        try:
            assert not world.curl(f"http://{address}/", "-m", "1"), "the old router leads nobody to it any more"
        finally:
            world.beside("internet", "ip", "neigh", "del", address, "dev", "br0")
        until(lambda: world.curl(f"http://{address}/") == back["name"])
    assert not world.ask(address, 80, seconds=SHORT)


def test_an_address_moves_into_a_vpc_and_out_again(world: World, pool, shops):
    web, front = shops[0]
    api = world.api
    offering = api.listVPCOfferings(name="Default VPC offering")["vpcoffering"][0]["id"]
    made = {"name": "harbour", "zoneid": world.zone, "vpcofferingid": offering, "cidr": "10.44.0.0/16"}
    vpc = api.createVPC(**made, **NOW)["vpc"]["id"]
    allow = api.listNetworkACLLists(name="default_allow")["networkacllist"][0]["id"]
    tier = world.network(TIER, gateway="10.44.1.1", netmask="255.255.255.0", vpcid=vpc, aclid=allow)
    inner = world.guest(tier["id"])
    with portable(world, networkid=web["id"]) as ip:
        address = ip["ipaddress"]
        api.enableStaticNat(ipaddressid=ip["id"], virtualmachineid=front["id"])
        for guest in (inner, front):
            begun = time.monotonic()
            api.enableStaticNat(ipaddressid=ip["id"], virtualmachineid=guest["id"])
            if guest is front:  # the tier has ACLs instead, so nothing was open when it came back
                api.createFirewallRule(ipaddressid=ip["id"], protocol="tcp", startport=80, endport=80, **NOW)
            until(lambda guest=guest: world.curl(f"http://{address}/", "-m", "0.3") == guest["name"], LONGEST)
            assert time.monotonic() - begun < LONGEST
    api.destroyVirtualMachine(id=inner["id"], expunge=True, **NOW)
    api.deleteNetwork(id=tier["id"], **NOW)
    api.deleteVPC(id=vpc, **NOW)


@pytest.fixture
def elsewhere(world: World):
    """A portable range of a subnet of its own, whose gateway is out there, too."""
    gateway, mask = "192.0.2.129", "255.255.255.128"
    world.beside("internet", "ip", "address", "add", f"{gateway}/25", "dev", "br0")
    wanted = {"regionid": 1, "startip": "192.0.2.140", "endip": "192.0.2.141", "gateway": gateway, "netmask": mask}
    made = world.api.createPortableIpRange(**wanted, **NOW)["portableiprange"]["id"]
    yield
    world.api.deletePortableIpRange(id=made, **NOW)
    world.beside("internet", "ip", "address", "del", f"{gateway}/25", "dev", "br0")


def test_an_address_of_another_subnet_is_its_guests_both_ways(world: World, shops, elsewhere):
    for net, guest in shops:
        with portable(world, networkid=net["id"], ipaddress="192.0.2.140") as ip:
            world.api.enableStaticNat(ipaddressid=ip["id"], virtualmachineid=guest["id"])
            world.api.createFirewallRule(ipaddressid=ip["id"], protocol="tcp", startport=80, endport=80, **NOW)
            until(lambda ip=ip, guest=guest: world.curl(f"http://{ip['ipaddress']}/") == guest["name"])
            rule = world.api.createEgressFirewallRule(networkid=net["id"], protocol="all", **NOW)["firewallrule"]
            with answering(world.space("internet"), tcp=(7100,)):
                seen = until(lambda guest=guest: world.ask("203.0.113.1", 7100, where=f"vm/{guest['name']}"))
            assert seen == f"7100 {ip['ipaddress']}"
            world.api.deleteEgressFirewallRule(id=rule["id"], **NOW)


def test_a_freed_address_is_nobody_elses_for_a_while(world: World, shops):
    (web, front), _ = shops
    api = world.api
    other = api.createAccount(
        accounttype=0, email="o@example.com", firstname="O", lastname="O", username="other", password="password"
    )["account"]
    theirs = world.network(account="other", domainid=other["domainid"])
    ip = world.address(web["id"])
    api.enableStaticNat(ipaddressid=ip["id"], virtualmachineid=front["id"])
    api.createFirewallRule(ipaddressid=ip["id"], protocol="tcp", startport=80, endport=80, **NOW)
    until(lambda: world.curl(f"http://{ip['ipaddress']}/") == front["name"])
    api.updateConfiguration(name=QUARANTINE, value="10")
    try:
        api.disassociateIpAddress(id=ip["id"], **NOW)
        assert not world.ask(ip["ipaddress"], 80, seconds=SHORT)
        until(lambda: world.sql("SELECT 1 FROM public_ips WHERE uuid = ? AND state = 'Free'", ip["id"]))
        wanted = {"networkid": theirs["id"], "ipaddress": ip["ipaddress"]}
        assert "in quarantine until" in world.refused("associateIpAddress", **wanted)
        (held,) = api.listQuarantinedIps()["quarantinedip"]
        assert (held["ipaddress"], held["previousownername"]) == (ip["ipaddress"], "admin")
        api.removeQuarantinedIp(id=held["id"], removalreason="the test ends")
        got = api.associateIpAddress(**wanted, **NOW)["ipaddress"]
        assert (got["ipaddress"], got["account"]) == (ip["ipaddress"], "other")
    finally:
        api.updateConfiguration(name=QUARANTINE, value="0")
        api.deleteAccount(id=other["id"], **NOW)
