"""What changes under way: a flow that began before its rule, and a network's offering."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import pytest

from controlplane.demo_zone import NOW
from systemvm import netns
from tests.spine.wire import answering
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]
SOON = 1.0
MEBIBYTE = 1 << 20


def reply(sock: socket.socket) -> str:
    """Send a datagram on the flow, and return what comes back within 50 ms."""
    with contextlib.suppress(OSError):
        sock.send(b"?")
        return sock.recv(2048).decode()
    return ""


@pytest.mark.parametrize("opened", [False, True], ids=["closed before", "open before"])
def test_a_udp_flow_that_began_before_its_rule_is_led_within_a_second(world: World, net, guests, opened):
    ip, port = world.address(net["id"]), 6000 + opened
    with netns.entered(world.space("internet")):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock, answering(world.space(f"vm/{guests[0]['name']}"), udp=(port,)):
        sock.settimeout(0.05)
        sock.bind(("198.51.100.3", 0))
        sock.connect((ip["ipaddress"], port))
        if opened:  # the router itself takes the flow: an entry that only settling conntrack ends
            rule = {"protocol": "udp", "startport": port, "endport": port, "cidrlist": "0.0.0.0/0"}
            world.api.createFirewallRule(ipaddressid=ip["id"], **rule, **NOW)
        assert [reply(sock) for _ in range(10)] == [""] * 10
        world.forward(ip, guests[0], port, port, protocol="udp", openfirewall=not opened)
        done = time.monotonic()
        until(lambda: reply(sock) == f"{port} 198.51.100.3")
        assert time.monotonic() - done < SOON


def test_another_offering_is_in_the_packets_when_its_job_is_done(world: World):
    closed, opened = world.offering(), world.offering(egressdefaultpolicy=True, networkrate=50)
    net = world.network(closed)
    guest = world.guest(net["id"])
    router = world.api.listRouters(networkid=net["id"])["router"][0]["id"]
    where, outside = f"vm/{guest['name']}", "203.0.113.1"
    until(lambda: world.run(where, "ip", "route").stdout)
    assert not world.pings(where, outside)

    def change(offering: str) -> None:
        wanted = world.api.listNetworkOfferings(name=offering)["networkoffering"][0]["id"]
        shown = world.api.updateNetwork(id=net["id"], networkofferingid=wanted, **NOW)["network"]
        assert (shown["networkofferingname"], shown["state"]) == (offering, "Implemented")

    change(opened)
    assert world.pings(where, outside)
    assert "rate 50Mbit" in world.run(f"router/{world.api.listRouters(id=router)['router'][0]['name']}",
                                      "tc", "qdisc", "show").stdout  # fmt: skip
    change(closed)
    assert not world.pings(where, outside)
    assert [row["id"] for row in world.api.listRouters(networkid=net["id"])["router"]] == [router]


def test_traffic_of_excluded_networks_is_nobodys_bill(world: World, net, guests):
    setting = {"name": "network.usage.excluded.cidrs", "zoneid": world.zone}
    world.api.updateConfiguration(value="198.51.100.2/32, nonsense,192.0.2.0/24", **setting)
    try:
        ip = world.address(net["id"])
        world.forward(ip, guests[0], 8100, 80)
        router = f"router/{world.router(net['id'])['name']}"
        where = f"vm/{guests[0]['name']}"
        world.run(where, "sh", "-c", f"head -c {MEBIBYTE} /dev/zero >/www/billed")

        def billed(source: str) -> int:
            """Fetch a MiB from this address, and return by how much the counters of address and network grew."""
            url = f"http://{ip['ipaddress']}:8100/billed"
            before = counted()
            done = world.beside("internet", "curl", "-s", "--interface", source, "-o", "/dev/null", "-w",
                                "%{size_download}", url)  # fmt: skip
            assert int(done.stdout) == MEBIBYTE
            return counted() - before

        def counted() -> int:
            names = [f"{way}_{row['id'].replace('-', '')}" for row in (ip, net) for way in ("in", "out")]
            said = world.run(router, "nft", "-j", "list", "counters").stdout
            found = {item["counter"]["name"]: item["counter"]["bytes"]
                     for item in json.loads(said)["nftables"] if "counter" in item}  # fmt: skip
            return sum(found[name] for name in names)

        assert billed("198.51.100.2") < 5000  # the network has other guests
        assert 2 * MEBIBYTE < billed("198.51.100.3") < 2.5 * MEBIBYTE
    finally:
        world.api.updateConfiguration(value="", **setting)
