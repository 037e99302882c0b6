"""Routed mode from the API to the packet: a prefix that a real FRR learns, guests without NAT, and what a rule opens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bench import traffic
from controlplane.demo_zone import NOW
from systemvm import netns
from systemvm.services import HostSettings, Place, frr
from tests.spine.test_redundant import keeper
from tests.spine.wire import answering
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]
SERVICES = ("Dhcp", "Dns", "Firewall", "UserData")
CLIENT, SHORT = "198.51.100.1", 0.4
UPSTREAM = """log stdout
router bgp 65000
 bgp router-id 203.0.113.1
 no bgp ebgp-requires-policy
 neighbor guests peer-group
 neighbor guests remote-as external
 bgp listen range 203.0.113.0/24 peer-group guests
exit
"""


@pytest.fixture
def upstream(world: World, tmp_path: Path):
    """FRR in the internet's namespace: it takes sessions of every router of the public range."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    tmp_path.chmod(0o777)  # its daemons become a user of their own
    (tmp_path / "zebra.conf").write_text("log stdout\n")
    (tmp_path / "bgpd.conf").write_text(UPSTREAM)
    daemons = []
    for name in ("zebra", "bgpd"):
        argv = [f"/usr/lib/frr/{name}", "-f", str(tmp_path / f"{name}.conf"), "-i", str(tmp_path / f"{name}.pid")]
        argv += ["-z", str(tmp_path / "z"), "--vty_socket", str(tmp_path), "-P", "0"]
        daemons.append(netns.popen(world.space("internet"), argv, cwd=tmp_path, stdin=-3, stdout=-3, stderr=-3))
        until(lambda name=name: (tmp_path / f"{name}.vty").exists())
    yield
    for process in reversed(daemons):
        process.terminate()
        process.wait(10)


def learned(world: World) -> dict[str, str]:
    shown = json.loads(world.beside("internet", "ip", "-4", "-j", "route", "show", "proto", "bgp").stdout)
    return {route["dst"]: route["gateway"] for route in shown}


@pytest.fixture(scope="module")
def routed(world: World) -> str:
    """An offering of networks that are announced; the zone has prefixes, numbers and a peer for them."""
    api = world.api
    api.createIpv4SubnetForZone(zoneid=world.zone, subnet="10.200.0.0/16", **NOW)
    api.createASNRange(zoneid=world.zone, startasn=64512, endasn=64520)
    api.createBgpPeer(zoneid=world.zone, asnumber=65000, ipaddress="203.0.113.1", **NOW)
    return world.offering(SERVICES, networkmode="ROUTED", routingmode="Dynamic", egressdefaultpolicy=True)


@pytest.mark.usefixtures("upstream")
def test_a_prefix_is_learned_while_its_network_is_there_and_guests_are_reached_as_the_rules_say(world: World, routed):
    api = world.api
    net = world.network(routed, cidrsize=26)
    guest = world.guest(net["id"])
    where, address = f"vm/{guest['name']}", guest["nic"][0]["ipaddress"]
    (shown,) = api.listNetworks(id=net["id"])["network"]
    assert shown["ip4routes"] == [{"subnet": net["cidr"], "gateway": shown["ip4routes"][0]["gateway"]}]
    until(lambda: learned(world) == {net["cidr"]: shown["ip4routes"][0]["gateway"]}, 30)
    until(lambda: address in world.run(where, "ip", "-4", "addr", "show", "dev", "eth0").stdout)
    assert not world.ask(address, 80, seconds=SHORT)
    rule = api.createRoutingFirewallRule(networkid=net["id"], protocol="tcp", startport=80, **NOW)
    assert until(lambda: world.curl(f"http://{address}/")) == guest["name"]
    with answering(world.space("internet"), tcp=(4065,)):
        assert until(lambda: world.ask(CLIENT, 4065, where=where)) == f"4065 {address}", "with its own address"
    api.deleteRoutingFirewallRule(id=next(iter(rule.values()))["id"], **NOW)
    assert not world.ask(address, 80, seconds=SHORT)
    api.destroyVirtualMachine(id=guest["id"], expunge=True, **NOW)
    api.deleteNetwork(id=net["id"], **NOW)
    until(lambda: not learned(world))


class Announced:
    """A network whose prefix the upstream has learned, with a guest that may be pinged, and what became of both."""

    def __init__(self, world: World, offering: str) -> None:
        self.world, self.net = world, world.network(offering, cidrsize=26)
        self.guest = world.guest(self.net["id"])
        self.address = self.guest["nic"][0]["ipaddress"]
        world.api.createRoutingFirewallRule(networkid=self.net["id"], protocol="icmp", icmptype=8, icmpcode=0, **NOW)
        until(lambda: learned(world), 30)
        until(lambda: world.pings("internet", self.address), 30)

    def routers(self):
        return self.world.api.listRouters(networkid=self.net["id"], listall=True)["router"]

    def states(self) -> dict[str, str]:
        """How each router's session stands, as its own bgpd tells; empty until it has announced its prefix, too.

        A peer forgets what it kept of a router that goes again before that (RFC 4724, 4.2).
        """
        found = {}
        for router in self.routers():
            with suppress(StopIteration):  # it is being made, or taken away
                folder = self.world.appliance(router)
                place = Place(router["name"], "", folder, HostSettings("h", "", "", folder))
                peers = [family.get("peers", {}).get("203.0.113.1", {}) for family in frr._families(place) or []]
                found[router["name"]] = next((peer["state"] for peer in peers if peer.get("pfxSnt")), "")
        return found

    @contextmanager
    def steady(self, most: int):
        """See that the upstream never forgets the prefix, and how many pings of 200 a second are lost."""
        world = self.world
        argv = ["ip", "-4", "monitor", "route"]
        watch = netns.popen(world.space("internet"), argv, stdout=subprocess.PIPE, stderr=-3, text=True)
        try:
            with traffic.pings(world.space("internet"), self.address) as pings:
                until(lambda: pings.sent > 100)
                yield
                sent = pings.sent
                until(lambda: pings.sent > sent + 100)
        finally:
            watch.terminate()
            said = watch.communicate()[0]
        print(f"lost {len(pings.lost)} of {pings.sent}")
        assert f"Deleted {self.net['cidr']}" not in said, said
        assert len(pings.lost) <= most
        assert self.net["cidr"] in learned(world)

    def established(self) -> bool:
        return "Established" in self.states().values()


@pytest.mark.usefixtures("upstream")
def test_a_prefix_stays_while_its_router_is_replaced_doubled_and_followed(world: World, routed):
    there, api = Announced(world, routed), world.api
    with there.steady(most=2):
        api.restartNetwork(id=there.net["id"], cleanup=True, **NOW)
        until(there.established, 30)
    with there.steady(most=2):
        api.rebootRouter(id=there.routers()[0]["id"], **NOW)
        until(there.established, 30)
    api.restartNetwork(id=there.net["id"], makeredundant=True, **NOW)
    until(lambda: {"PRIMARY", "BACKUP"} == {row["redundantstate"] for row in there.routers()}, 40)
    until(lambda: world.pings("internet", there.address), 30)
    until(there.established, 30)
    with there.steady(most=200):
        (primary,) = (row for row in there.routers() if row["redundantstate"] == "PRIMARY")
        paused = keeper(world, primary)
        os.kill(paused, signal.SIGSTOP)
        try:
            other = next(row for row in there.routers() if row["id"] != primary["id"])
            until(lambda: there.states().get(other["name"]) == "Established", 30)
        finally:
            os.kill(paused, signal.SIGCONT)
    roles = {other["id"]: "PRIMARY", primary["id"]: "BACKUP"}
    until(lambda: {row["id"]: row["redundantstate"] for row in there.routers()} == roles, 40)
    with there.steady(most=200):
        api.restartNetwork(id=there.net["id"], cleanup=True, **NOW)
        until(there.established, 30)
    api.destroyVirtualMachine(id=there.guest["id"], expunge=True, **NOW)
    api.deleteNetwork(id=there.net["id"], **NOW)
    until(lambda: not learned(world), 60)
