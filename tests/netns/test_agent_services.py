"""What the services of a router do, seen from its clients and guests; and what heals them."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import dns.message
import pytest

from systemvm import netns
from systemvm.bundle import Bundle, Elements, File, Observation
from tests.netns.agent_world import SKELETON, World, answer, connect, interfaces, serving, standing, until

pytestmark = pytest.mark.netns
RULE = "aaaaaaaa-0000-4000-8000-000000000001"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with standing(World(tmp_path, "s")) as world:
        yield world


def shape(world: World) -> list[tuple[object, ...]]:
    """What the links of the router are, but for what the kernel decides a moment later."""
    found = json.loads(netns.run(world.router, ["ip", "-j", "link"]))
    return [(link["ifname"], link["mtu"], link["qdisc"], link.get("address")) for link in found]


def repaired(world: World, service: str, after: int, seconds: float = 10) -> str:
    """Wait until an observation names a repair, and return what it says of it."""

    def found() -> str | None:
        said = (dict(seen.health).get(f"{service}/repaired") for seen in world.door.observations[after:])
        return next((what for what in said if what), None)

    return until(found, seconds, f"no observation names a repair of {service}")


def test_links_are_brought_to_what_is_wanted_and_only_that(world: World) -> None:
    assert world.door.apply(world.bundle(1)).status == "applied"
    first = shape(world)
    wanted = interfaces(
        interfaces=[
            {
                "mac": World.public,
                "name": "eth0",
                "addresses": ["198.51.100.2/24", "198.51.100.3/32", "2001:db8::1/64"],
                "mtu": 1400,
                "rate": 50,
            },
            {"mac": World.inside.upper(), "name": "eth1", "addresses": ["10.1.1.1/24"], "mtu": 1500, "rate": 0},
        ],
        routes=[
            {"to": "0.0.0.0/0", "via": "198.51.100.8", "dev": "eth0"},
            {"to": "10.7.0.0/16", "via": "10.1.1.5", "dev": "eth1", "table": 77},
        ],
        rules=[{"from": "10.1.1.0/24", "table": 77, "priority": 500}],
        sysctls={"net.ipv4.ip_forward": "1", "net.ipv4.conf.eth0.rp_filter": "1"},
    )
    assert world.door.apply(world.bundle(2, File("interfaces.json", json.dumps(wanted), "links"))).status == "applied"
    addresses = netns.run(world.router, ["ip", "-o", "addr", "show", "eth0", "scope", "global"])
    assert [word.split()[3] for word in addresses.splitlines()] == [
        "198.51.100.2/24",
        "198.51.100.3/32",
        "2001:db8::1/64",
    ]
    assert "mtu 1400" in netns.run(world.router, ["ip", "link", "show", "eth0"])
    assert "via 198.51.100.8" in netns.run(world.router, ["ip", "route", "show", "default"])
    assert "10.7.0.0/16 via 10.1.1.5" in netns.run(world.router, ["ip", "route", "show", "table", "77"])
    assert "500:\tfrom 10.1.1.0/24 lookup 77" in netns.run(world.router, ["ip", "rule"])
    assert "rate 50Mbit" in netns.run(world.router, ["tc", "qdisc", "show", "dev", "eth0"])
    assert netns.run(world.router, ["cat", "/proc/sys/net/ipv4/conf/eth0/rp_filter"]).strip() == "1"
    assert world.door.apply(world.bundle(3)).status == "applied"
    assert shape(world) == first
    assert netns.run(world.router, ["ip", "rule"]).count("lookup") == 3
    assert netns.run(world.router, ["ip", "route", "show", "table", "all", "proto", "static"]).count("via") == 1


def test_a_moved_address_is_learnt_at_once(world: World) -> None:
    """The client holds a stale neighbour entry; the announcement replaces it without a question."""
    stale = "ip neigh replace 198.51.100.50 lladdr 02:00:00:00:00:99 dev e0 nud reachable"
    netns.run(world.client, stale.split())
    moved = interfaces()
    moved["interfaces"][0]["addresses"].append("198.51.100.50/24")
    assert world.door.apply(world.bundle(1, File("interfaces.json", json.dumps(moved), "links"))).status == "applied"
    until(lambda: World.public in netns.run(world.client, ["ip", "neigh", "show", "198.51.100.50"]), 2)


def test_a_rate_holds(world: World) -> None:
    shaped = interfaces()
    shaped["interfaces"][0]["rate"] = 20
    assert (
        world.door.apply(world.bundle(1, File("interfaces.json", json.dumps(shaped), "links"), forward="8000")).status
        == "applied"
    )
    size = 4_000_000
    with serving(world.guest, 8000, b"x" * size), connect(world.client, "198.51.100.1", 80, timeout=10) as line:
        began, got = time.monotonic(), 0
        while got < size:
            got += len(line.recv(1 << 16))
        rate = size * 8 / (time.monotonic() - began) / 1e6
    assert 14 < rate < 24, f"{rate:.1f} Mbit/s"


def test_what_was_broken_is_repaired_and_named(world: World) -> None:
    """R7: flush nft, remove an address and a route, edit a file, delete the table's chain."""
    with serving(world.guest, 8000, b"one"):
        assert world.door.apply(world.bundle(1, forward="8000")).status == "applied"
        until(lambda: (o := world.door.seen(world.target)) and ("nft", "") in o.health)
        for service, damage, word in (
            ("nft", ["nft", "flush", "ruleset"], "table ip netspine"),
            (
                "nft",
                ["nft", "add element ip netspine dnat_forward { 198.51.100.1 . tcp . 99 : 10.1.1.5 . 8000 }"],
                "table",
            ),
            ("nft", ["nft", "flush", "chain", "ip", "netspine", "prerouting"], "table"),
            ("links", ["ip", "addr", "del", "198.51.100.1/24", "dev", "eth0"], "198.51.100.1/24"),
            ("links", ["ip", "link", "set", "eth1", "down"], "eth1"),
        ):
            after = len(world.door.observations)
            netns.run(world.router, damage)
            assert word in repaired(world, service, after), damage
            until(lambda: answer(world.client, "198.51.100.1", 80) == b"one", 5)
        after = len(world.door.observations)
        file = world.state / "targets/r-1/current/nftables.nft"
        file.write_text("table ip other { }")
        assert "nftables.nft" in repaired(world, "files", after)
        assert file.read_text() == SKELETON


def test_a_namespace_that_was_made_anew_is_filled_again(world: World) -> None:
    """A rebooted shell: same name, another namespace; a daemon in the old one serves nobody."""
    assert (
        world.door.apply(world.bundle(1, *dnsmasq("02:00:00:00:00:aa,10.1.1.77,vm1"), forward="8000")).status
        == "applied"
    )
    old = world.pid("dnsmasq")
    netns.ensure_no(world.router)
    for outside in (world.client, world.guest):
        with netns.netlink(outside) as ip:
            for link in ip.get_links(ifname="e0"):
                ip.link("del", index=link["index"])
    netns.ensure(world.router)
    world.plug(world.client, "198.51.100.9/24", world.public, "p")
    world.plug(world.guest, "10.1.1.5/24", world.inside, "g")
    netns.run(world.guest, ["ip", "route", "add", "default", "via", "10.1.1.1"])
    with serving(world.guest, 8000, b"one"):
        until(lambda: answer(world.client, "198.51.100.1", 80) == b"one", 15)
        until(lambda: world.pid("dnsmasq") not in (None, old))
        until(lambda: not Path(f"/proc/{old}").exists())


def dnsmasq(*hosts: str, conf: str = "") -> tuple[File, ...]:
    text = "no-resolv\nno-hosts\nbind-dynamic\ninterface=eth1\nexcept-interface=lo\nleasefile-ro\ndhcp-authoritative\n"
    text += "dhcp-range=10.1.1.0,static,infinite\n" + conf
    names = "".join(f"{host.split(',')[1]} {host.split(',')[2]}\n" for host in hosts)
    return (
        File("dnsmasq/dnsmasq.conf", text, "dnsmasq"),
        File("dnsmasq/dhcp-hosts", "".join(f"{host}\n" for host in hosts), "dnsmasq"),
        File("dnsmasq/hosts", names, "dnsmasq"),
    )


def lease(world: World, mac: str) -> str:
    """What DHCP gives to a MAC on the guest's segment; empty where it gives nothing."""
    netns.run(world.guest, ["ip", "link", "set", "e0", "address", mac])
    argv = ["busybox", "udhcpc", "-f", "-q", "-n", "-i", "e0", "-t", "3", "-T", "1", "-s", "/bin/true"]
    with netns.entered(world.guest):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    return said.partition("lease of ")[2].partition(" ")[0]


def resolve(world: World, name: str) -> str:
    query = dns.message.make_query(name, "A").to_wire()
    with netns.entered(world.guest):
        line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with line:
        line.settimeout(1)
        line.sendto(query, ("10.1.1.1", 53))
        found = dns.message.from_wire(line.recv(4096)).answer
    return found[0][0].to_text() if found else ""


def test_dhcp_and_dns_follow_the_files_and_the_daemon_is_kept(world: World) -> None:
    one, two = "02:00:00:00:00:a1,10.1.1.21,vm1", "02:00:00:00:00:a2,10.1.1.22,vm2"
    assert world.door.apply(world.bundle(1, *dnsmasq(one))).status == "applied"
    pid = world.pid("dnsmasq")
    assert lease(world, "02:00:00:00:00:a1") == "10.1.1.21"
    assert lease(world, "02:00:00:00:00:a2") == ""
    outcome = world.door.apply(world.bundle(2, *dnsmasq(one, two)))
    assert (outcome.status, outcome.changed) == ("applied", ("dnsmasq",))
    assert lease(world, "02:00:00:00:00:a2") == "10.1.1.22"
    assert resolve(world, "vm2.") == "10.1.1.22"
    assert world.door.apply(world.bundle(3, *dnsmasq(two))).status == "applied"
    until(lambda: resolve(world, "vm1.") == "", 3)
    assert world.pid("dnsmasq") == pid, "host files alone restarted it"
    assert world.door.apply(world.bundle(4, *dnsmasq(two, conf="cache-size=77\n"))).status == "applied"
    assert world.pid("dnsmasq") != pid
    assert resolve(world, "vm2.") == "10.1.1.22"
    assert not [name for seen in world.door.observations for name, _ in seen.health if "repaired" in name]


def test_an_address_goes_to_its_new_owner_though_the_old_one_has_a_lease(world: World) -> None:
    assert world.door.apply(world.bundle(1, *dnsmasq("02:00:00:00:00:a1,10.1.1.21,vm1"))).status == "applied"
    assert lease(world, "02:00:00:00:00:a1") == "10.1.1.21"
    pid = world.pid("dnsmasq")
    assert world.door.apply(world.bundle(2, *dnsmasq("02:00:00:00:00:a2,10.1.1.21,vm2"))).status == "applied"
    assert world.pid("dnsmasq") == pid, "the lease was not released but dnsmasq restarted"
    assert lease(world, "02:00:00:00:00:a2") == "10.1.1.21"


def haproxy(port: int, *more: str) -> File:
    """Two members: one that a busy machine does not take for dead, and one that is dead and soon known to be."""
    text = f"""global
  stats socket unix@../run/haproxy.sock mode 600 level admin expose-fd listeners
defaults
  mode tcp
  retries 3
  option redispatch 1
  timeout connect 1s
  timeout client 30s
  timeout server 30s
frontend lb_{RULE}_in
  bind 198.51.100.1:81
  default_backend lb_{RULE}
backend lb_{RULE}
  server vm-a 10.1.1.5:{port} check inter 1000 fall 10
  server vm-b 10.1.1.5:9 check inter 100
"""
    return File("haproxy/haproxy.cfg", text + "".join(more), "haproxy")


def test_a_load_balancer_is_reloaded_without_a_lost_connection(world: World) -> None:
    with serving(world.guest, 8000, b"one"), serving(world.guest, 8001, b"two"):
        assert world.door.apply(world.bundle(1, haproxy(8000))).status == "applied"
        pid = world.pid("haproxy")
        until(lambda: answer(world.client, "198.51.100.1", 81) == b"one")
        # until vm-b is known to be down, haproxy may come upon it more than once, and waits a second between
        answers = [answer(world.client, "198.51.100.1", 81, timeout=10) for _ in range(30)]
        world.door.want(world.bundle(2, haproxy(8001)))
        while not any(o.generation == 2 for o in world.door.outcomes) or len(answers) < 50:
            answers.append(answer(world.client, "198.51.100.1", 81, timeout=10))
        assert set(answers) <= {b"one", b"two"}
        assert answer(world.client, "198.51.100.1", 81) == b"two"
        assert world.pid("haproxy") == pid
        seen = until(
            lambda: (o := world.door.seen(world.target)) and dict(o.states).get(f"{RULE}/vm-b") == "DOWN" and o
        )
        assert dict(seen.states)[f"{RULE}/vm-a"] == "UP"
        least = 30 + answers.count(b"two") * 0.8  # sessions of the old worker after the reload began are not counted
        until(
            lambda: {name: packets for name, packets, _ in world.door.observations[-1].counters}.get(RULE, 0) >= least
        )
        assert world.door.apply(world.bundle(3)).status == "applied"
        assert world.pid("haproxy") is None
        assert answer(world.client, "198.51.100.1", 81) == b""


METADATA = {
    "10.1.1.5": {
        "vm": "vm-1",
        "items": {"instance-id": "i-1", "public-keys/0/openssh-key": "ssh-rsa A", "local-hostname": "one"},
        "user_data": base64.b64encode(b"#!/bin/sh\n").decode(),
        "password": "s3cret",
    },
    "10.1.1.6": {"vm": "vm-2", "items": {"instance-id": "i-2"}, "password": "other"},
}


def metadata(**change: dict) -> File:
    """Two networks: the second's guests have the same addresses, and are others."""
    other = {"10.1.1.5": {"vm": "vm-3", "items": {"instance-id": "i-3"}, "password": "third"}}
    networks = [
        {"address": "10.1.1.1", "interface": "eth1", "guests": METADATA | change},
        {"address": "10.1.2.1", "interface": "eth2", "guests": other},
    ]
    return File("metadata.json", json.dumps({"networks": networks}), "metadata", secret=True)


def get(world: World, path: str, port: int = 80, headers: str = "", source: str = "10.1.1.5") -> tuple[int, str]:
    """One HTTP request from an address of the guest's namespace: status and body."""
    with netns.entered(world.guest):
        line = socket.socket()
    with line:
        line.settimeout(2)
        line.bind((source, 0))
        line.connect(("10.1.1.1", port))
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        said = b"".join(iter(lambda: line.recv(4096), b"")).decode()
    head, _, body = said.partition("\r\n\r\n")
    return int(head.split()[1]), body


def password(world: World, request: str, source: str = "10.1.1.5") -> tuple[int, str]:
    return get(world, "/", 8080, f"DomU_Request: {request}\r\n", source)


def test_metadata_is_each_guests_own(world: World) -> None:
    for address in ("10.1.1.6/24", "10.1.1.7/24"):
        netns.run(world.guest, ["ip", "addr", "add", address, "dev", "e0"])
    assert world.door.apply(world.bundle(1, metadata())).status == "applied"
    until(lambda: answer(world.guest, "10.1.1.1", 80, b"GET / HTTP/1.0\r\n\r\n"))
    assert get(world, "/latest/meta-data/instance-id") == (200, "i-1")
    assert get(world, "/1.0/meta-data/instance-id", source="10.1.1.6") == (200, "i-2")
    assert get(world, "/latest/meta-data/") == (200, "instance-id\nlocal-hostname\npublic-keys/")
    assert get(world, "/latest/meta-data/public-keys/0/openssh-key") == (200, "ssh-rsa A")
    assert get(world, "/latest/user-data") == (200, "#!/bin/sh\n")
    assert get(world, "/latest/") == (200, "meta-data/\nuser-data")
    for path in ("/latest/meta-data/instance-id", "/latest/user-data", "/latest/", "/latest/meta-data/../../vm-1"):
        assert get(world, path, source="10.1.1.7") == (404, "")
    assert get(world, "/latest/user-data", source="10.1.1.6") == (404, "")
    assert get(world, "/latest/meta-data/nothing") == (404, "")
    memory = Path(f"/proc/{world.pid('metadata')}/status").read_text()
    kilobytes = int(memory.partition("VmRSS:")[2].split()[0])
    print(f"metadata server: {kilobytes} kB")
    assert kilobytes <= 20_480


def test_a_password_is_handed_out_once(world: World) -> None:
    netns.run(world.guest, ["ip", "addr", "add", "10.1.1.7/24", "dev", "e0"])
    assert world.door.apply(world.bundle(1, metadata())).status == "applied"
    until(lambda: answer(world.guest, "10.1.1.1", 8080, b"GET / HTTP/1.0\r\n\r\n"))
    assert password(world, "send_my_password", "10.1.1.7") == (400, "bad_request")
    assert password(world, "give_me_all") == (400, "bad_request")
    assert password(world, "send_my_password") == (200, "s3cret")
    assert password(world, "saved_password") == (200, "saved_password")
    assert password(world, "send_my_password") == (200, "saved_password")
    until(lambda: (o := world.door.seen(world.target)) and ("vm-1/password", "taken") in o.states)
    assert ("vm-2/password", "taken") not in world.door.seen(world.target).states
    os.kill(world.pid("metadata"), signal.SIGKILL)
    old = world.pid("metadata")
    until(lambda: world.pid("metadata") != old)
    until(lambda: answer(world.guest, "10.1.1.1", 8080, b"GET / HTTP/1.0\r\n\r\n"))
    assert world.door.apply(world.bundle(2, metadata(), forward="8000")).status == "applied"
    assert password(world, "send_my_password") == (200, "saved_password")
    fresh = metadata(**{"10.1.1.5": METADATA["10.1.1.5"] | {"password": "another"}})
    assert world.door.apply(world.bundle(3, fresh)).status == "applied"
    until(lambda: password(world, "send_my_password") == (200, "another"))
    secret = (world.state / "targets/r-1/current/metadata.json").stat().st_mode & 0o777
    assert secret == 0o600


@pytest.mark.parametrize("name", ["dnsmasq", "haproxy", "metadata"])
def test_a_killed_daemon_is_back(world: World, name: str) -> None:
    files = (*dnsmasq("02:00:00:00:00:a1,10.1.1.21,vm1"), haproxy(8000), metadata())
    assert world.door.apply(world.bundle(1, *files)).status == "applied"
    pid, after = world.pid(name), len(world.door.observations)
    os.kill(pid, signal.SIGKILL)
    assert f"{'the metadata server' if name == 'metadata' else name} was gone" in repaired(world, name, after)
    assert world.pid(name) != pid
    os.kill(world.pid(name), 0)
    checks = {
        "dnsmasq": lambda: resolve(world, "vm1."),
        "metadata": lambda: get(world, "/latest/meta-data/instance-id"),
    }
    if name in checks:
        until(lambda: quiet(checks[name]))
    until(lambda: (o := world.door.seen(world.target)) and dict(o.health)[name] == "")


def quiet(call: object) -> object:
    try:
        return call()
    except OSError:
        return None


def test_counters_only_rise(world: World) -> None:
    """The named counter and the rule's survive a changed element, a replaced skeleton and a new agent."""
    uuid = "bbbbbbbb-0000-4000-8000-000000000002"
    counted = SKELETON.replace(
        "    ct state est", "    ip daddr . ip protocol . tcp dport @allowed accept\n    ct state est"
    )

    def bundle(generation: int, note: str, *more: str) -> Bundle:
        items = (f'10.1.1.5 . tcp . 8000 counter comment "{uuid}"', *more)
        elements = (
            Elements("allowed", tuple(sorted(items))),
            Elements("dnat_forward", ("198.51.100.1 . tcp . 80 : 10.1.1.5 . 8000",)),
        )
        return world.bundle(generation, File("nftables.nft", counted + note, "nft"), elements=elements)

    def totals() -> dict[str, int]:
        return {name: packets for name, packets, _ in world.door.seen(world.target).counters}

    with serving(world.guest, 8000, b"one"):
        last = {"in_public": 0, uuid: 0}
        for generation, note, more in (
            (1, "", ()),
            (2, "", ("10.1.1.9 . tcp . 1",)),
            (3, "# other\n", ()),
            (4, "", ()),
        ):
            if generation == 4:
                world.end()
                world.start()
            assert world.door.apply(bundle(generation, note, *more)).status == "applied"
            assert answer(world.client, "198.51.100.1", 80) == b"one"
            until(
                lambda last=last: (
                    world.door.seen(world.target) and all(totals().get(name, 0) > last[name] for name in last)
                )
            )
            last = {name: totals()[name] for name in last}


def test_ten_thousand_observations_of_nobody(world: World) -> None:
    """An observation is the target's own: health of every service, no foreign target."""
    assert world.door.apply(world.bundle(1)).status == "applied"
    seen: Observation = until(lambda: world.door.seen(world.target))
    assert dict(seen.health) == {"links/eth0": "", "links/eth1": "", "nft": ""}
