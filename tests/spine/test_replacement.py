"""A router is replaced while guests and the internet talk: nothing is reset, next to nothing lost, and all is as before."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from bench import traffic
from bench.traffic import Counted
from controlplane.demo_zone import NOW
from systemvm import VERSION
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]
TCP, UDP, OUT = 7001, 7002, 7003
MOST = 2


@dataclass
class Shop:
    """A network with two guests, whose ports are forwarded, one of which has an address of its own, and a balancer."""

    net: Any
    guests: list[Any]
    forwarded: str
    static: str
    balanced: str


@pytest.fixture(scope="module")
def shop(world: World):
    net = world.network()
    guests = [world.guest(net["id"]) for _ in range(2)]
    forwarded, static, balanced = (world.address(net["id"]) for _ in range(3))
    world.forward(forwarded, guests[0], TCP, TCP)
    world.forward(forwarded, guests[0], UDP, UDP, protocol="udp")
    world.api.createFirewallRule(ipaddressid=static["id"], protocol="icmp", icmptype=-1, icmpcode=-1, **NOW)
    world.api.enableStaticNat(ipaddressid=static["id"], virtualmachineid=guests[1]["id"])
    world.balance(balanced, guests, 80)
    world.balance(balanced, guests[:1], TCP, privateport=TCP)
    world.api.createEgressFirewallRule(networkid=net["id"], protocol="all", **NOW)
    made = Shop(net, guests, *(ip["ipaddress"] for ip in (forwarded, static, balanced)))
    guest, internet = world.space(f"vm/{guests[0]['name']}"), world.space("internet")
    with traffic.echoing(guest, tcp=TCP, udp=UDP), traffic.echoing(internet, tcp=OUT):
        until(lambda: world.curl(f"http://{made.balanced}/"))
        until(lambda: world.pings("internet", made.static))
        until(lambda: traffic.echoes(internet, made.balanced, TCP))
        yield made


@pytest.fixture
def busy(world: World, shop: Shop):
    """All kinds of traffic through the network's router; what became of it by name, once the block has ended."""

    class Busy(dict[str, Counted]):
        def __enter__(self):
            self.stack = ExitStack()
            guest, internet = world.space(f"vm/{shop.guests[0]['name']}"), world.space("internet")
            self.resets = self.stack.enter_context(traffic.resets(internet, "br0"))
            talks = {
                "ping": traffic.pings(internet, shop.static),
                "udp": traffic.datagrams(internet, shop.forwarded, UDP),
                "tcp in": traffic.conversation(internet, shop.forwarded, TCP),
                "tcp out": traffic.conversation(guest, "203.0.113.1", OUT),
                "tcp balanced": traffic.conversation(internet, shop.balanced, TCP),
                "http": traffic.requests(internet, shop.balanced, 80),
                "http kept": traffic.requests(internet, shop.balanced, 80, keep=True),
            }
            for name, talk in talks.items():
                self[name] = self.stack.enter_context(talk)
            until(lambda: self.slow(dict.fromkeys(self, 0)) == [])
            return self

        def __exit__(self, *error):
            sent = {name: counted.sent for name, counted in self.items()}
            until(lambda: self.slow(sent) == [])
            self.stack.__exit__(*error)

        def slow(self, sent):
            return [name for name, counted in self.items() if counted.sent < sent[name] + 20 and not counted.failed]

    return Busy()


def rules(world: World, shop: Shop) -> str:
    """The router's packet filter as nft prints it; the elements of a set, which have no order, are put in one."""
    text = world.run(f"router/{world.router(shop.net['id'])['name']}", "nft", "-s", "list", "ruleset").stdout
    return re.sub(r"elements = \{([^}]*)\}", lambda found: str(sorted(map(str.strip, found[1].split(",")))), text)


def routers(world: World, shop: Shop) -> list[Any]:
    return world.api.listRouters(networkid=shop.net["id"], listall=True)["router"]


def counted(world: World, shop: Shop) -> list[int]:
    """The network's bytes in both directions; empty while none were seen."""
    found = world.api.listNetworks(id=shop.net["id"])["network"][0]
    return [found["receivedbytes"], found["sentbytes"]] if found["receivedbytes"] else []


@pytest.mark.parametrize("change", ["restart", "reboot", "upgrade"])
def test_a_restart_with_cleanup_a_reboot_and_an_upgrade_are_not_noticed(world: World, shop: Shop, busy, change):
    before, kernel = world.router(shop.net["id"]), rules(world, shop)
    shell = world.space(f"router/{before['name']}")
    count = until(lambda: counted(world, shop))
    assert kernel
    with busy:
        begun = time.monotonic()
        if change == "restart":
            world.api.restartNetwork(id=shop.net["id"], cleanup=True, **NOW)
        elif change == "upgrade":
            world.sql("UPDATE routers SET version = '0.0.9' WHERE uuid = ?", before["id"])
            assert routers(world, shop)[0]["requiresupgrade"] is True
            (job,) = world.api.upgradeRouterTemplate(zoneid=world.zone)["asyncjobs"]
            ended = until(lambda: (now := world.api.queryAsyncJobResult(**job))["jobstatus"] and now, 30)
            assert ended["jobstatus"] == 1, ended
            answer = ended["jobresult"]["router"]
        else:
            answer = world.api.rebootRouter(id=before["id"], **NOW)["router"]
        seconds = time.monotonic() - begun
    after = next(one for one in routers(world, shop) if one["state"] == "Running")
    assert (after["requiresupgrade"], after["version"]) == (False, VERSION)
    if change != "restart":
        assert {key: after[key] for key in ("id", "name", "created")} == {
            key: before[key] for key in ("id", "name", "created")
        }
        assert (answer["id"], answer["state"]) == (before["id"], "Running")
    else:
        assert after["id"] != before["id"]
    print(f"{seconds:.2f} s", {name: (c.sent, len(c.lost), round(c.longest, 3), c.failed) for name, c in busy.items()})
    assert busy.resets == []
    assert {name: counted.failed for name, counted in busy.items() if counted.failed} == {}
    assert max(len(busy[name].lost) for name in ("ping", "udp")) <= MOST
    assert rules(world, shop) == kernel
    macs = [{nic["macaddress"] for nic in router["nic"]} for router in (before, after)]
    assert macs[0] == macs[1]
    until(lambda: [one["id"] for one in routers(world, shop)] == [after["id"]], 20)
    until(lambda: shell not in world.kernel())
    assert world.space(f"router/{after['name']}") in world.kernel()
    until(lambda: all(now >= was for now, was in zip(counted(world, shop), count, strict=True)))
