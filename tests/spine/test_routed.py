"""Routed mode from the API to the packet: a prefix that a real FRR learns, guests without NAT, and what a rule opens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controlplane.demo_zone import NOW
from systemvm import netns
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


@pytest.mark.usefixtures("upstream")
def test_a_prefix_is_learned_while_its_network_is_there_and_guests_are_reached_as_the_rules_say(world: World):
    api = world.api
    api.createIpv4SubnetForZone(zoneid=world.zone, subnet="10.200.0.0/16", **NOW)
    api.createASNRange(zoneid=world.zone, startasn=64512, endasn=64520)
    api.createBgpPeer(zoneid=world.zone, asnumber=65000, ipaddress="203.0.113.1", **NOW)
    chosen = world.offering(SERVICES, networkmode="ROUTED", routingmode="Dynamic", egressdefaultpolicy=True)
    net = world.network(chosen, cidrsize=26)
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
