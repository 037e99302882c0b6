"""Redundant routers in the whole cloud: two hosts, the control plane's vote, and what the API shows of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from typing import Any

import pytest

from bench import traffic
from controlplane.demo_zone import NOW
from systemvm import bpf
from tests.spine.world import ISOLATED, World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]
TCP, OUT = 7001, 7003
HEALED = 30


@pytest.fixture(scope="module")
def pair(world: World):
    """A redundant network with a guest, and the routers' names."""
    offering = world.offering(
        servicecapabilitylist=[
            {"service": "SourceNat", "capabilitytype": "RedundantRouter", "capabilityvalue": "true"},
            {"service": "SourceNat", "capabilitytype": "SupportedSourceNatTypes", "capabilityvalue": "peraccount"},
        ]
    )
    net = world.network(offering)
    guest = world.guest(net["id"])
    address = world.address(net["id"])
    world.forward(address, guest, TCP, TCP)
    world.api.createEgressFirewallRule(networkid=net["id"], protocol="all", **NOW)
    return net, guest, address["ipaddress"]


def routers(world: World, net: Any) -> dict[str, Any]:
    """The routers by their state, once one holds the addresses and the other stands by."""

    def found():
        rows = world.api.listRouters(networkid=net["id"], listall=True)["router"]
        states = {row["redundantstate"]: row for row in rows}
        return states if {"PRIMARY", "BACKUP"} <= states.keys() else None

    return until(found, 30)


def holds(world: World, router: Any) -> bool:
    """Tell whether the router's gate is open, as the kernel has it."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        number = int((world.appliance(router) / "run" / "gate").read_text())
        descriptor = bpf.open_map(number)
        try:
            return bpf.clock() < bpf.get(descriptor)
        finally:
            os.close(descriptor)
    return False


def keeper(world: World, router: Any) -> int:
    """The process that renews the leases of the router's host."""
    return json.loads((world.appliance(router).parents[1] / "leases" / "run" / "leases.pid").read_text())[0]


def rules(world: World, name: str) -> str:
    """A router's packet filter as nft prints it; the elements of a set, which have no order, are put in one."""
    text = world.run(f"router/{name}", "nft", "-s", "list", "ruleset").stdout
    assert "table inet netspine" in text
    return re.sub(r"elements = \{([^}]*)\}", lambda found: str(sorted(map(str.strip, found[1].split(",")))), text)


def test_two_routers_on_two_hosts_of_which_one_holds_the_addresses(world: World, pair):
    net, _, _ = pair
    found = routers(world, net)
    assert found["PRIMARY"]["hostname"] != found["BACKUP"]["hostname"]
    assert all(row["isredundantrouter"] for row in found.values())
    assert holds(world, found["PRIMARY"])
    assert not holds(world, found["BACKUP"])
    assert net["redundantrouter"] is True


def test_a_connection_lives_on_when_the_owner_is_paused_and_there_is_never_a_second(world: World, pair):
    net, guest, address = pair
    found = routers(world, net)
    inside, internet = world.space(f"vm/{guest['name']}"), world.space("internet")
    paused = keeper(world, found["PRIMARY"])
    kernel = {row["name"]: rules(world, row["name"]) for row in found.values()}
    with traffic.echoing(inside, tcp=TCP):
        until(lambda: traffic.echoes(internet, address, TCP))
        with traffic.conversation(internet, address, TCP) as talk:
            until(lambda: talk.sent > 20)
            os.kill(paused, signal.SIGSTOP)
            try:
                began = time.monotonic()
                until(lambda: holds(world, found["BACKUP"]), 3)
                assert not holds(world, found["PRIMARY"])
                assert time.monotonic() - began < 2.5  # the bench holds it to 0.8 s; a busy machine has its time
                before = talk.sent
                until(lambda: talk.sent > before + 20)
            finally:
                os.kill(paused, signal.SIGCONT)
        assert not talk.failed
    after = until(lambda: (now := routers(world, net))["PRIMARY"]["name"] == found["BACKUP"]["name"] and now, 30)
    assert after["BACKUP"]["name"] == found["PRIMARY"]["name"]
    assert {name: rules(world, name) for name in kernel} == kernel


def test_lease_processes_that_are_killed_come_back_and_connections_live_on(world: World, pair):
    net, guest, address = pair
    inside, internet = world.space(f"vm/{guest['name']}"), world.space("internet")
    with traffic.echoing(inside, tcp=TCP):
        until(lambda: traffic.echoes(internet, address, TCP))
        with traffic.conversation(internet, address, TCP) as talk:
            for role in ("BACKUP", "PRIMARY"):
                found = routers(world, net)
                killed = keeper(world, found[role])
                kernel = {row["name"]: rules(world, row["name"]) for row in found.values()}
                os.kill(killed, signal.SIGKILL)
                until(lambda router=found[role], killed=killed: keeper(world, router) != killed, HEALED)
                until(lambda: sum(holds(world, row) for row in routers(world, net).values()) == 1, HEALED)
                before = talk.sent
                until(lambda before=before: talk.sent > before + 20)
                assert {name: rules(world, name) for name in kernel} == kernel
        assert not talk.failed


def test_both_are_made_anew_and_the_addresses_stay(world: World, pair):
    net, guest, address = pair
    before, inside = routers(world, net), world.space(f"vm/{guest['name']}")
    with traffic.echoing(inside, tcp=TCP):
        with traffic.pings(inside, "203.0.113.1") as pings:
            until(lambda: pings.sent > 20)
            world.api.restartNetwork(id=net["id"], cleanup=True, **NOW)
            after = routers(world, net)
        print(f"lost {len(pings.lost)} of {pings.sent}, {pings.gap} in a row")
        assert pings.gap < 200  # a second; who leaves in order is followed at once
        assert not {row["name"] for row in before.values()} & {row["name"] for row in after.values()}
        until(lambda: traffic.echoes(world.space("internet"), address, TCP))


def test_it_goes_back_to_one_router_without_a_gap(world: World, pair):
    net, guest, address = pair
    api = world.api
    routers(world, net)
    inside, internet = world.space(f"vm/{guest['name']}"), world.space("internet")
    single = api.listNetworkOfferings(name=ISOLATED)["networkoffering"][0]["id"]
    changed = api.updateNetwork(id=net["id"], networkofferingid=single, **NOW)["network"]
    assert changed["restartrequired"] is True
    macs = {nic["macaddress"] for nic in routers(world, net)["PRIMARY"]["nic"] if nic["traffictype"] != "Control"}
    with traffic.echoing(inside, tcp=TCP):
        until(lambda: traffic.echoes(internet, address, TCP))
        with (
            traffic.conversation(internet, address, TCP) as talk,
            traffic.echoing(internet, tcp=OUT),
            traffic.conversation(inside, "203.0.113.1", OUT) as out,
            traffic.pings(inside, "203.0.113.1") as pings,
        ):
            until(lambda: talk.sent > 20 and pings.sent > 20)
            api.restartNetwork(id=net["id"], cleanup=True, **NOW)
            before = talk.sent
            until(lambda: talk.sent > before + 20)
    print(f"lost {len(pings.lost)} of {pings.sent}, longest {talk.longest:.3f} s")
    assert not talk.failed
    assert not out.failed
    assert len(pings.lost) <= 2
    (router,) = until(
        lambda: len(rows := api.listRouters(networkid=net["id"], listall=True)["router"]) == 1 and rows, 20
    )
    assert router["isredundantrouter"] is False
    assert {nic["macaddress"] for nic in router["nic"]} == macs
    assert {nic["traffictype"] for nic in router["nic"]} == {"Guest", "Public"}
    assert api.listNetworks(id=net["id"])["network"][0]["restartrequired"] is False
    assert not world.sql("SELECT owner FROM router_pairs")
