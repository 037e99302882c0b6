"""A VPC with all that one can have: replaced, damaged by hand, robbed of its daemons, and deleted."""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from controlplane.demo_zone import NOW
from systemvm.services.wireguard import _handle
from tests.spine.test_life import KEPT, changed, left
from tests.spine.test_nothing_lost import _pids
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]
HEALED = 30.0
"""Seconds in which an agent has found and mended what is wrong."""
DAEMONS = {"charon-systemd", "wireguard-go", "haproxy", "dnsmasq"}
PEER = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="
RECORDS = KEPT | {"networks", "routers", "vpcs", "tags", "alerts", "resource_counts", "host_claims"}


class Estate(NamedTuple):
    """What was made, and what kernel and database had before."""

    vpc: str
    tier: str
    guest: Any
    customer: str
    web: str
    vpn: str
    kernel: dict[str, list[str]]
    rows: dict[str, int]


@pytest.fixture(scope="module")
def estate(world: World) -> Estate:
    kernel, rows, api = world.kernel(), world.rows(), world.api
    offering = api.listVPCOfferings(name="Default VPC offering")["vpcoffering"][0]["id"]
    said = {"name": "estate", "zoneid": world.zone, "vpcofferingid": offering, "cidr": "10.71.0.0/16"}
    vpc = api.createVPC(**said, **NOW)["vpc"]["id"]
    acl = api.createNetworkACLList(vpcid=vpc, name="estate", **NOW)["networkacllist"]["id"]
    lines = [{"protocol": "tcp", "startport": 80}, {"protocol": "icmp", "cidrlist": "10.71.0.0/16"},
             {"protocol": "47", "action": "deny", "cidrlist": "198.51.100.0/24"},
             {"protocol": "udp", "startport": 53, "endport": 60, "traffictype": "egress"}]  # fmt: skip
    api.importNetworkACL(aclid=acl, rules=lines, **NOW)
    inside = {"gateway": "10.71.1.1", "netmask": "255.255.255.0", "vpcid": vpc, "aclid": acl}
    tier = world.network("DefaultIsolatedNetworkOfferingForVpcNetworks", **inside)["id"]
    guest = world.guest(tier)
    ip = api.associateIpAddress(vpcid=vpc, **NOW)["ipaddress"]
    world.forward(ip, guest, 2222, 22, networkid=tier)
    world.balance(ip, [guest], 80, networkid=tier)
    where = {"ipaddress": "172.29.0.2", "gateway": "172.29.0.1", "netmask": "255.255.255.0", "vlan": "vxlan://9071"}
    plugged = api.createPrivateGateway(vpcid=vpc, **where, **NOW)["privategateway"]["id"]
    api.createStaticRoute(gatewayid=plugged, cidr="172.30.0.0/16", **NOW)
    wireguard = api.createWireguardVpn(vpcid=vpc, **NOW)["wireguardvpn"]["id"]
    api.addWireguardPeer(wireguardvpnid=wireguard, name="laptop", **NOW)
    api.addWireguardPeer(wireguardvpnid=wireguard, name="site", publickey=PEER, remotecidrlist="10.72.0.0/16", **NOW)
    own = api.createVpnGateway(vpcid=vpc, **NOW)["vpngateway"]["id"]
    terms = {"ipsecpsk": "a very secret key", "ikepolicy": "aes128-sha256;modp2048", "esppolicy": "aes128-sha256"}
    office = {"name": "office", "gateway": "198.51.100.200", "cidrlist": "10.73.0.0/16"} | terms
    customer = api.createVpnCustomerGateway(**office, **NOW)["vpncustomergateway"]["id"]
    api.createVpnConnection(s2scustomergatewayid=customer, s2svpngatewayid=own, **NOW)
    until(lambda: world.curl(f"http://{ip['ipaddress']}/") == guest["name"], 15)
    return Estate(vpc, tier, guest, customer, ip["ipaddress"], wireguard, kernel, rows)


def router(world: World, estate: Estate) -> str:
    return world.api.listRouters(vpcid=estate.vpc, listall=True)["router"][0]["name"]


def filters(world: World, estate: Estate) -> str:
    """The router's packet filter as nft prints it; the elements of a set, which have no order, are put in one."""
    text = world.run(f"router/{router(world, estate)}", "nft", "-s", "list", "ruleset").stdout
    return re.sub(r"elements = \{([^}]*)\}", lambda found: str(sorted(map(str.strip, found[1].split(",")))), text)


def routes(world: World, estate: Estate) -> list[str]:
    said = world.beside(f"router/{router(world, estate)}", "ip", "-4", "route", "show", "table", "all").stdout
    return sorted(line for line in said.splitlines() if "local" not in line.split() and "broadcast" not in line.split())


def tunnel(world: World, estate: Estate) -> tuple[str, list[str]]:
    """Return the name that wg(8) knows the router's tunnel by, and its peers with their addresses."""
    place = f"router/{router(world, estate)}"
    handle = _handle(SimpleNamespace(namespace=world.space(place)), f"wg{estate.vpn[:8]}")
    lines = world.beside(place, "wg", "show", handle, "allowed-ips").stdout.splitlines()
    return handle, sorted(lines)


def standing(world: World, estate: Estate) -> tuple[str, list[str], list[str]]:
    return filters(world, estate), routes(world, estate), tunnel(world, estate)[1]


def daemons(world: World, estate: Estate) -> dict[str, str]:
    found = _pids(world, f"router/{router(world, estate)}")
    return {pid: name for pid, name in found.items() if name in DAEMONS}


def test_what_is_taken_away_by_hand_comes_back(world: World, estate: Estate):
    where, before = f"router/{router(world, estate)}", standing(world, estate)
    handle, peers = tunnel(world, estate)
    assert [line.split()[1:] for line in peers if line.startswith(PEER)] == [["10.250.0.3/32", "10.72.0.0/16"]]
    (element,) = re.findall(r"tcp \. 80 \. 10\.71\.1\.0/24 \. 0\.0\.0\.0/0", before[0])
    damages = (
        ("nft", "delete", "element", "inet", "netspine", "acl_in_ports", f"{{ {element} }}"),
        ("wg", "set", handle, "peer", PEER, "remove"),
        ("ip", "route", "del", "172.30.0.0/16"),
    )
    for damage in damages:
        done = world.beside(where, *damage)
        assert done.returncode == 0, done  # it was there, and the agent may have it back before anyone looks
    until(lambda: standing(world, estate) == before, HEALED)


def test_killed_daemons_of_a_vpc_are_back_with_all_that_they_had(world: World, estate: Estate):
    before, killed = standing(world, estate), daemons(world, estate)
    assert set(killed.values()) == DAEMONS
    for pid in killed:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)

    def back() -> bool:
        now = daemons(world, estate)
        return set(now.values()) == DAEMONS and not now.keys() & killed.keys() and standing(world, estate) == before

    until(back, HEALED)
    until(lambda: world.curl(f"http://{estate.web}/") == estate.guest["name"], HEALED)


def test_a_new_router_of_a_vpc_has_the_same_rules_routes_and_peers(world: World, estate: Estate):
    before, name = standing(world, estate), router(world, estate)
    world.api.restartVPC(id=estate.vpc, cleanup=True, **NOW)
    assert router(world, estate) != name
    assert standing(world, estate) == before
    assert set(daemons(world, estate).values()) == DAEMONS


def test_of_a_deleted_vpc_nothing_is_left(world: World, estate: Estate):
    api, name = world.api, router(world, estate)
    assert "office" in world.refused("deleteVpnCustomerGateway", id=estate.customer)
    api.destroyVirtualMachine(id=estate.guest["id"], expunge=True, **NOW)
    api.deleteNetwork(id=estate.tier, **NOW)
    api.deleteVPC(id=estate.vpc, **NOW)
    api.deleteVpnCustomerGateway(id=estate.customer, **NOW)
    until(lambda: not left(estate.kernel, world.kernel()), 20)
    assert changed(estate.rows, world.rows()) <= RECORDS
    until(lambda: name not in str([list(folder.rglob("*")) for folder in world.states]))
    mine = str(world.cloud.place.folder), f"/{name}/"  # another cloud on the machine may have a router of this name
    until(lambda: not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _mentions(path, *mine)], 20)


def _mentions(path: Path, *words: str) -> bool:
    with suppress(OSError):
        text = path.read_bytes().decode(errors="replace")
        return all(word in text for word in words)
    return False
