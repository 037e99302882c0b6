"""What the agent makes of a router's bundle with IPv6: addresses, routes, metadata, and back to IPv4 alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.network.virtual_router import VirtualRouter
from drivers.vocabulary import ApplianceFacts, Metadata
from systemvm import netns
from systemvm.bundle import Bundle
from tests.golden.router.cases import INNER, network, uid, with_v6
from tests.netns.agent_world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]
ASKER, OWN = "2001:db8:1::5", "2001:db8:1::1"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, "v6")
    made.build()
    try:
        made.start()
        yield made
    finally:
        made.destroy()


def facts(*, v6: bool, vm: str = "5") -> ApplianceFacts:
    """The golden router, on the interfaces of this world."""
    guest = Metadata(uid(3, 5), "10.1.1.5", (("instance-id", vm),), sources6=(ASKER, "fe80::5"))
    net = network(metadata=(guest,))
    found = with_v6(net) if v6 else replace(with_v6(net), networks=(net,), dns6=())
    inner = found.nics[1]._replace(mac=World.inside)
    outer = found.nics[0] if v6 else found.nics[0]._replace(address6="", gateway6="")
    assert found.nics[1].mac == INNER
    return replace(found, nics=(outer, inner), networks=(replace(found.networks[0], nic=World.inside),))


def bundle(world: World, generation: int, **more: object) -> Bundle:
    router = VirtualRouter()
    files, elements = router.render(router.plan(facts(**more)))
    return Bundle(world.target, world.name, "router", generation, files, elements)


def shown(world: World, *words: str) -> str:
    return netns.run(world.router, ["ip", "-6", *words])


def metadata(world: World, server: str, source: str, path: str = "/latest/meta-data/instance-id") -> str:
    with netns.entered(world.guest):
        line = socket.socket(socket.AF_INET6)
        scope = socket.if_nametoindex("e0")
    with line:
        line.settimeout(2)
        try:
            line.bind((source, 0, 0, scope if source.startswith("fe80") else 0))
            line.connect((server, 80, 0, scope if server.startswith("fe80") else 0))
            line.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = b"".join(iter(lambda: line.recv(4096), b""))
        except OSError:
            return ""
    head, _, body = answer.decode().partition("\r\n\r\n")
    return body if " 200 " in head else head.split()[1]


def test_ipv6_comes_stays_and_goes(world: World) -> None:
    assert world.door.apply(bundle(world, 1, v6=False)).status == "applied"
    assert not shown(world, "addr").strip()
    assert world.door.apply(bundle(world, 2, v6=True)).status == "applied"
    said = shown(world, "addr")
    for address in ("2001:db8::5/64", f"{OWN}/64", "fe80::a9fe:a9fe/64"):
        assert address in said
    assert "tentative" not in said
    assert "default via 2001:db8::1 dev eth0" in shown(world, "route")
    after = len(world.door.observations)
    until(lambda: len(world.door.observations) > after + 3)
    said = [name for seen in world.door.observations[after:] for name, _ in seen.health]
    assert not [name for name in said if name.endswith("/repaired")], "what is there is what was wanted"
    netns.run(world.router, ["ip", "-6", "addr", "del", f"{OWN}/64", "dev", "eth1"])
    until(lambda: f"{OWN}/64" in shown(world, "addr"))
    assert world.door.apply(bundle(world, 3, v6=False)).status == "applied"
    assert not shown(world, "addr").strip()


def test_a_guest_is_known_by_its_own_and_by_its_link_local_address(world: World) -> None:
    netns.run(world.guest, ["ip", "addr", "add", f"{ASKER}/64", "dev", "e0", "nodad"])
    netns.run(world.guest, ["ip", "addr", "add", "2001:db8:1::6/64", "dev", "e0", "nodad"])
    for address in ("fe80::5", "fe80::6"):
        netns.run(world.guest, ["ip", "addr", "add", f"{address}/64", "dev", "e0", "nodad"])
    assert world.door.apply(bundle(world, 1, v6=True, vm="one")).status == "applied"
    for server, own, other in ((OWN, ASKER, "2001:db8:1::6"), ("fe80::a9fe:a9fe", "fe80::5", "fe80::6")):
        until(lambda server=server, own=own: metadata(world, server, own) == "one")
        assert metadata(world, server, other) == "404"
    assert world.door.apply(bundle(world, 2, v6=True, vm="two")).status == "applied"
    until(lambda: metadata(world, "fe80::a9fe:a9fe", "fe80::5") == "two")
