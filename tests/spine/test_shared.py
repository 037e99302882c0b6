"""Shared networks: guests of several accounts on one link whose gateway is the operator's, and a router that serves."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import traffic
from controlplane.demo_zone import NOW
from systemvm import links, netns
from systemvm.services.segments import group
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]
OFFERING, VNI, EDGE = "DefaultSharedNetworkOffering", 300, "at/edge"
FIRST = {"gateway": "10.8.1.1", "netmask": "255.255.255.0", "startip": "10.8.1.10", "endip": "10.8.1.12"}
SECOND = {"gateway": "10.8.2.1", "netmask": "255.255.255.0", "startip": "10.8.2.10", "endip": "10.8.2.20"}
SIX = {"ip6gateway": "2001:db8:8::1", "ip6cidr": "2001:db8:8::/64"}
MOST = 2
"""Lost pings to each of the router's addresses while it is replaced."""
HELD = (("10.8.1.1", 24), ("10.8.2.1", 24), ("2001:db8:8::1", 64))


@pytest.fixture(scope="module")
def edge(world: World) -> Iterator[str]:
    """The operator's gateway: a machine on the underlay with an address in each subnet, which passes packets on."""
    space = world.space(EDGE)
    netns.ensure(space)
    try:
        with netns.netlink(world.space("underlay")) as ip:
            peer = {"ifname": "und0", "net_ns_fd": space, "mtu": 1600}
            bridge = links.index(ip, "br0")
            ip.link("add", ifname="edge", kind="veth", mtu=1600, master=bridge, state="up", peer=peer)
        with netns.netlink(space) as ip:
            wire = links.index(ip, "und0")
            ip.link("set", index=wire, state="up")
            ip.addr("add", index=wire, address="172.31.255.250", prefixlen=24)
            vxlan = {"vxlan_id": VNI, "vxlan_local": "172.31.255.250", "vxlan_group": group(VNI), "vxlan_link": wire}
            ip.link("add", ifname="out0", kind="vxlan", mtu=1500, vxlan_port=4789, **vxlan)
            out = links.index(ip, "out0")
            ip.link("set", index=out, state="up")
            for address, length in HELD:
                ip.addr("add", index=out, address=address, prefixlen=length, flags=2 if ":" in address else 0)
        with netns.entered(space):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        yield space
    finally:
        netns.ensure_no(space)


@pytest.fixture(scope="module")
def shared(world: World, edge: str) -> Any:
    """A network for the whole zone, with room for two guests."""
    del edge
    return world.network(OFFERING, vlan=VNI, **FIRST, **SIX)


@pytest.fixture(scope="module")
def owners(world: World) -> list[dict[str, str]]:
    """Two accounts, as deployVirtualMachine names them."""
    root = world.api.listDomains(name="ROOT")["domain"][0]["id"]
    for name in ("ann", "ben"):
        world.api.createAccount(
            username=name, account=name, firstname=name, lastname=name, email="a@example.test", password="password-1",
            accounttype=0, domainid=root,
        )  # fmt: skip
    return [{"account": name, "domainid": root} for name in ("ann", "ben")]


@pytest.fixture(scope="module")
def pair(world: World, shared: Any, owners: list[dict[str, str]]) -> list[Any]:
    """A guest of each account, each on a host of its own, with user data."""
    found = []
    for number, owner in enumerate(owners, start=1):
        secret = base64.b64encode(f"of {owner['account']}".encode()).decode()
        found.append(world.guest(shared["id"], hostid=world.host(number), userdata=secret, **owner))
    return found


@pytest.fixture(scope="module")
def third(world: World, shared: Any, pair: list[Any], owners: list[dict[str, str]]) -> Any:
    """A guest that the first range has no address left for."""
    del pair
    refused = world.refused("deployVirtualMachine", **world.wanted(shared["id"]), **owners[0])
    assert "has no free address left in 10.8.1.10-10.8.1.12" in refused
    world.api.createVlanIpRange(networkid=shared["id"], forvirtualnetwork=False, **SECOND)
    return world.guest(shared["id"], hostid=world.host(2), **owners[0])


def at(guest: Any) -> str:
    return f"vm/{guest['name']}"


def address(guest: Any) -> str:
    return str(guest["nic"][0]["ipaddress"])


def leased(world: World, guest: Any) -> None:
    """Wait until the guest has by DHCP what the API says of it."""
    nic = guest["nic"][0]
    until(lambda: f"default via {nic['gateway']}" in world.run(at(guest), "ip", "route").stdout)
    shown = json.loads(world.beside(at(guest), "ip", "-4", "-j", "addr", "show", "dev", "eth0").stdout)
    (entry,) = shown[0]["addr_info"]
    assert (entry["local"], entry["prefixlen"]) == (nic["ipaddress"], 24)


def looked_up(world: World, guest: Any, name: str) -> str:
    return world.run(at(guest), "nslookup", name).stdout


def read(world: World, guest: Any, url: str) -> str:
    return world.run(at(guest), "wget", "-qO-", url).stdout.strip()


def test_guests_of_two_accounts_lease_see_each_other_and_leave_by_the_operators_gateway(world: World, pair, shared):
    assert [guest["account"] for guest in pair] == ["ann", "ben"]
    for guest, other in (pair, reversed(pair)):
        leased(world, guest)
        assert guest["nic"][0]["gateway"] == "10.8.1.1"
        until(lambda guest=guest, other=other: world.pings(at(guest), address(other)))
        assert world.pings(at(guest), "10.8.1.1")
        assert address(other) in until(lambda guest=guest, other=other: looked_up(world, guest, other["name"]))
    router = world.router(shared["id"])
    assert (router["guestipaddress"], "publicip" in router) == ("10.8.1.10", False)
    assert [nic["traffictype"] for nic in router["nic"]] == ["Guest"]


def test_each_guest_reads_about_itself_only(world: World, pair):
    for guest, owner in zip(pair, ("ann", "ben"), strict=True):
        url = "http://10.8.1.10/latest/user-data"
        assert until(lambda guest=guest, url=url: read(world, guest, url)) == f"of {owner}"
        assert read(world, guest, "http://10.8.1.10/latest/meta-data/local-hostname") == guest["name"]


def test_the_router_forwards_nothing(world: World, pair):
    where, far = at(pair[0]), "203.0.113.1"
    assert world.beside(where, "ip", "route", "add", far, "via", "10.8.1.10").returncode == 0
    assert not world.pings(where, far)
    assert world.beside(where, "ip", "route", "del", far).returncode == 0


def test_the_second_range_serves_dhcp_once_the_first_is_full(world: World, third, pair, shared):
    leased(world, third)
    assert (address(third), third["nic"][0]["gateway"]) == ("10.8.2.11", "10.8.2.1")
    assert world.pings(at(third), "10.8.2.1")
    until(lambda: world.pings(at(third), address(pair[0])))
    assert world.pings(at(pair[1]), address(third))
    assert "nameserver 10.8.2.10" in world.run(at(third), "cat", "/etc/resolv.conf").stdout
    assert address(pair[0]) in looked_up(world, third, pair[0]["name"])
    assert address(third) in until(lambda: looked_up(world, pair[0], third["name"]))
    assert read(world, third, "http://10.8.2.10/latest/meta-data/local-hostname") == third["name"]
    answer = looked_up(world, third, "data-server")
    assert "10.8.1.10" not in answer, "of the router's addresses a guest is told the one on its own subnet"
    assert world.api.listVlanIpRanges(networkid=shared["id"])["count"] == 2


def test_ipv6_reaches_the_operators_gateway_and_the_other_guest(world: World, pair):
    first, second = (guest["nic"][0]["ip6address"] for guest in pair)

    def there(guest: Any, own: str) -> bool:
        shown = json.loads(world.beside(at(guest), "ip", "-6", "-j", "addr", "show", "scope", "global").stdout)
        found = [one for link in shown for one in link.get("addr_info", ()) if one.get("local") == own]
        return bool(found) and not found[0].get("tentative")

    for guest, own in ((pair[0], first), (pair[1], second)):
        until(lambda guest=guest, own=own: there(guest, own), 20)
    for far in (second, "2001:db8:8::1", "2001:db8:8::2"):
        done = world.beside(at(pair[0]), "busybox", "ping6", "-c1", "-W2", far)
        assert done.returncode == 0, (far, done)
    assert "default" not in world.beside(at(pair[0]), "ip", "-6", "route").stdout, "the router is nobody's way out"


def test_a_restart_with_cleanup_keeps_addresses_and_answers_on(world: World, pair, shared, third):
    before = world.router(shared["id"])
    spaces = [world.space(at(guest)) for guest in (pair[1], third)]
    with traffic.pings(spaces[0], "10.8.1.10") as near, traffic.pings(spaces[1], "10.8.2.10") as far:
        until(lambda: near.sent and far.sent)
        world.api.restartNetwork(id=shared["id"], cleanup=True, **NOW)
        enough = near.sent + 20, far.sent + 20
        until(lambda: near.sent > enough[0] and far.sent > enough[1])
    assert max(len(near.lost), len(far.lost)) <= MOST, (near, far)
    after = world.router(shared["id"])
    assert after["id"] != before["id"]
    assert [nic["ipaddress"] for nic in after["nic"]] == ["10.8.1.10"]
    assert address(pair[1]) in looked_up(world, pair[0], pair[1]["name"])
    assert address(third) in looked_up(world, third, third["name"])


def test_a_permitted_account_puts_a_guest_on_anothers_network(world: World, owners):
    ann, ben = owners
    net = world.network(**ann)
    assert "was not permitted" in world.refused("deployVirtualMachine", **world.wanted(net["id"]), **ben)
    world.api.createNetworkPermissions(networkid=net["id"], accounts="ben")
    guest = world.guest(net["id"], **ben)
    leased(world, guest)
    world.api.removeNetworkPermissions(networkid=net["id"], accounts="ben")
    assert "was not permitted" in world.refused("deployVirtualMachine", **world.wanted(net["id"]), **ben)


def test_a_guest_on_a_shared_and_a_private_network_reaches_both(world: World, owners, third, shared):
    del third
    alone = world.network(**owners[0])
    near = world.guest(alone["id"], **owners[0])
    both = world.guest(f"{alone['id']},{shared['id']}", **owners[0])
    inner, outer = both["nic"]
    assert (inner["networkid"], outer["networkid"]) == (alone["id"], shared["id"])
    until(lambda: world.pings(at(both), near["nic"][0]["ipaddress"]))
    until(lambda: world.pings(at(both), outer["gateway"]))
    routes = world.run(at(both), "ip", "route").stdout
    assert [line.split()[2] for line in routes.splitlines() if line.startswith("default")] == [inner["gateway"]]
    assert not world.pings(at(near), outer["gateway"]), "nobody leads from the one to the other"
    for guest in (near, both):
        world.api.destroyVirtualMachine(id=guest["id"], expunge=True, **NOW)


def test_deletion_frees_everything(world: World, pair, third, shared):
    for guest in (*pair, third):
        world.api.destroyVirtualMachine(id=guest["id"], expunge=True, **NOW)
    world.api.deleteNetwork(id=shared["id"], **NOW)
    number = f"vxlan{VNI}"
    until(lambda: not any(number in line for lines in world.kernel().values() for line in lines), 30)
    for table in ("network_addresses", "vlan_ranges"):
        query = f"SELECT count(*) FROM {table} WHERE network_id = (SELECT id FROM networks WHERE uuid = ?)"
        assert world.sql(query, shared["id"]) == [(0,)]
