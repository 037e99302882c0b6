"""Disabled hosts, pods, clusters and zones: what runs there keeps its traffic, and nothing new comes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest

from controlplane.demo_zone import NOW
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]


@contextmanager
def disabled(world: World, what: str, number: str, off: str = "Disabled", on: str = "Enabled"):
    """Have a place disabled for a while."""
    change = getattr(world.api, f"update{what}")
    change(id=number, allocationstate=off)
    try:
        yield
    finally:
        change(id=number, allocationstate=on)


@pytest.fixture
def shop(world: World):
    """A network with a guest on the first host, with an address."""
    net = world.network()
    guest, ip = world.guest(net["id"], hostid=world.host(1)), world.address(net["id"])
    world.forward(ip, guest, 80, 80)
    until(lambda: world.curl(f"http://{ip['ipaddress']}/") == guest["name"])
    yield net, guest, ip
    world.api.destroyVirtualMachine(id=guest["id"], expunge=True, **NOW)
    world.api.deleteNetwork(id=net["id"], **NOW)


def served(world: World, shop: Any) -> bool:
    _, guest, ip = shop
    return world.curl(f"http://{ip['ipaddress']}/") == guest["name"]


def refusal(world: World, net: Any) -> str:
    """Return why a guest cannot be deployed now; nothing of it is left."""
    template = world.api.listTemplates(templatefilter="executable", zoneid=world.zone)["template"][0]["id"]
    offering = world.api.listServiceOfferings(name="Small Instance")["serviceoffering"][0]["id"]
    wanted = {"zoneid": world.zone, "templateid": template, "serviceofferingid": offering, "networkids": net["id"]}
    text = world.refused("deployVirtualMachine", name="unwanted", **wanted)
    for machine in world.api.listVirtualMachines(name="unwanted").get("virtualmachine", ()):
        world.api.destroyVirtualMachine(id=machine["id"], expunge=True, **NOW)
    return text


def test_a_disabled_host_keeps_what_it_has_and_gets_nothing_new(world: World, shop):
    net, guest, _ = shop
    with disabled(world, "Host", world.host(1), "Disable", "Enable"):
        assert served(world, shop)
        other = world.guest(net["id"])
        assert other["hostname"] == "host-2"
        world.api.destroyVirtualMachine(id=other["id"], expunge=True, **NOW)
        world.api.rebootVirtualMachine(id=guest["id"], **NOW)
        until(lambda: served(world, shop))
        world.api.stopVirtualMachine(id=guest["id"], **NOW)
        assert "host-1: it is disabled" in world.refused("startVirtualMachine", id=guest["id"])
    world.api.startVirtualMachine(id=guest["id"], **NOW)
    until(lambda: served(world, shop))


def test_a_disabled_zone_pod_or_cluster_is_the_same_for_all_its_hosts(world: World, shop):
    pod = world.api.listPods(zoneid=world.zone)["pod"][0]
    cluster = world.api.listClusters(zoneid=world.zone)["cluster"][0]
    for what, number, name in (
        ("Pod", pod["id"], f"its pod {pod['name']}"),
        ("Cluster", cluster["id"], f"its cluster {cluster['name']}"),
        ("Zone", world.zone, "its zone zone-1"),
    ):
        with disabled(world, what, number):
            text = refusal(world, shop[0])
            assert all(f"host-{host}: {name} is disabled" in text for host in (1, 2)), text
            assert served(world, shop), what
            assert f"{name} is disabled" in world.refused("restartNetwork", id=shop[0]["id"], cleanup=True)
            assert served(world, shop), what
