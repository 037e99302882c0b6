"""The real agent against real namespaces: applied, unchanged, refused, broken, crashed, taken down."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from systemvm import netns
from systemvm.bundle import Bundle, Elements, File
from systemvm.services.kinds import KINDS
from tests.netns.agent_world import SKELETON, World, answer, connect, interfaces, serving, standing, until

pytestmark = pytest.mark.netns


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with standing(World(tmp_path, "a")) as world:
        yield world


def ruleset(world: World) -> str:
    return netns.run(world.router, ["nft", "-s", "list", "ruleset"])


def handle(world: World) -> str:
    """The table's handle: another one means that the table was made anew."""
    return netns.run(world.router, ["nft", "-a", "list", "tables"])


def test_a_bundle_becomes_packets(world: World) -> None:
    with serving(world.guest, 8000, b"one"), serving(world.guest, 8001, b"two"):
        outcome = world.door.apply(world.bundle(1, forward="8000"))
        assert outcome.status == "applied", outcome
        assert outcome.changed == tuple(service.name for service in KINDS["router"])
        assert answer(world.client, "198.51.100.1", 80) == b"one"
        assert world.door.apply(world.bundle(2, forward="8000")).status == "unchanged"
        table = handle(world)
        outcome = world.door.apply(world.bundle(3, forward="8001"))
        assert (outcome.status, outcome.changed) == ("applied", ("nft",))
        assert answer(world.client, "198.51.100.1", 80) == b"two"
        assert handle(world) == table, "a changed element replaced the whole table"


def test_an_older_generation_and_another_content_are_refused(world: World) -> None:
    assert world.door.apply(world.bundle(5, forward="8000")).status == "applied"
    before = ruleset(world)
    older = world.door.apply(world.bundle(4))
    assert older.status == "refused"
    assert "older than 5" in older.failures[0].reason
    world.door.applied.clear()
    world.door.want(world.bundle(5))  # the same generation, another state
    other = until(lambda: next((o for o in world.door.outcomes if (o.generation, o.status) == (5, "refused")), None))
    assert "another content" in other.failures[0].reason
    assert ruleset(world) == before


BROKEN = {
    "nftables.nft": (SKELETON.replace("policy drop", "policy dorp"), "nft", "line 16"),
    "dnsmasq/dnsmasq.conf": ("port=0\nno-resolv\nno-such-word=1\n", "dnsmasq", "line 3"),
    "haproxy/haproxy.cfg": ("global\n  maxconn 5\n  frobnicate\n", "haproxy", "line 3"),
    "metadata.json": ('{"networks": [{"address": "10.1.1", "guests": {}}]}', "metadata", "10.1.1"),
    "interfaces.json": ('{"interfaces": [\n{]}', "links", "line 2"),
}


@pytest.mark.parametrize("path", BROKEN)
def test_a_broken_file_changes_nothing(world: World, path: str) -> None:
    with serving(world.guest, 8000, b"one"):
        assert world.door.apply(world.bundle(1, forward="8000")).status == "applied"
        before, files = ruleset(world), (world.state / "targets/r-1/current/nftables.nft").stat().st_ino
        text, service, place = BROKEN[path]
        outcome = world.door.apply(world.bundle(2, File(path, text, service), forward="8001"))
        assert outcome.status == "failed"
        assert outcome.failures[0].unit == path
        assert path in outcome.failures[0].reason
        assert place in outcome.failures[0].reason, outcome.failures[0].reason
        assert ruleset(world) == before
        assert (world.state / "targets/r-1/current/nftables.nft").stat().st_ino == files
        assert answer(world.client, "198.51.100.1", 80) == b"one"
        assert world.door.apply(world.bundle(3, forward="8000")).status == "unchanged"


def test_an_element_that_only_the_kernel_refuses_restores_what_was_done_before_it(world: World) -> None:
    """The links are activated first: they go back too when the table is refused."""
    with serving(world.guest, 8000, b"one"):
        assert world.door.apply(world.bundle(1, forward="8000")).status == "applied"
        wrong = [f"198.51.{n // 250}.{n % 250} . tcp . 80" for n in range(600)]
        wrong.insert(577, "198.51.100.1 . nonsense . 80")
        links = interfaces()
        links["interfaces"][0]["addresses"].append("198.51.100.77/24")
        bundle = world.bundle(
            2,
            File("interfaces.json", json.dumps(links), "links"),
            elements=(Elements("allowed", tuple(sorted(wrong))),),
        )
        outcome = world.door.apply(bundle)
        assert outcome.status == "failed"
        assert "nonsense" in outcome.failures[0].reason, outcome
        assert "allowed" in outcome.failures[0].reason
        assert "198.51.100.77" not in netns.run(world.router, ["ip", "-4", "addr", "show", "eth0"])
        assert answer(world.client, "198.51.100.1", 80) == b"one"


def test_a_failed_bundle_is_tried_again_and_no_other_target_waits(world: World) -> None:
    """An interface that comes late: the bundle fails at first, and is applied without being pulled again."""
    late = interfaces()
    late["interfaces"].append({"mac": "02:00:00:00:00:03", "name": "eth2", "addresses": [], "mtu": 1500, "rate": 0})
    bundle = world.bundle(1, File("interfaces.json", json.dumps(late), "links"))
    world.door.want(bundle)
    second = world.prefix + "r-2"
    netns.ensure(second)
    other = Bundle("2" * 32, "r-2", "router", 1, (File("nftables.nft", SKELETON, "nft"),))
    assert world.door.apply(other, seconds=3).status == "applied"
    assert world.door.outcome(bundle).status == "failed"
    assert "eth2 (02:00:00:00:00:03)" in world.door.outcome(bundle).failures[0].reason
    netns.run(
        world.router,
        ["ip", "link", "add", "late", "address", "02:00:00:00:00:03", "type", "veth", "peer", "name", "latepeer"],
    )
    until(lambda: world.door.outcome(bundle).status == "applied", 20)


def test_outcomes_are_repeated_until_they_are_taken(world: World) -> None:
    world.door.refuse = {"outcome": 3}
    assert world.door.apply(world.bundle(1)).status == "applied"
    assert len([o for o in world.door.outcomes if o.generation == 1]) == 1


def test_an_agent_that_is_not_yet_known_keeps_asking(world: World) -> None:
    world.door.admitted = False
    world.end()
    world.start()
    time.sleep(0.5)
    world.door.admitted = True
    assert world.door.apply(world.bundle(1)).status == "applied"
    assert world.door.hellos[-1]["host"] == "h1"
    assert world.door.hellos[-1]["inventory"]["cpus"] > 0


def test_ending_the_agent_ends_no_packet(world: World) -> None:
    """kill -9 with traffic going on, a start again: nothing is applied anew, and not one answer is missing."""
    files = dnsmasq_files()
    with serving(world.guest, 8000, b"one"):
        bundle = world.bundle(1, *files, forward="8000")
        assert world.door.apply(bundle).status == "applied"
        lost, asked, ending = [], [0], threading.Event()

        def traffic() -> None:
            with connect(world.client, "198.51.100.1", 80) as line:
                line.recv(3)
                while not ending.wait(0.01):
                    line.sendall(b"x")
                    asked[0] += 1
                    with suppress(OSError):
                        if line.recv(1) == b"x":
                            continue
                    lost.append(asked[0])

        thread = threading.Thread(target=traffic, daemon=True)
        thread.start()
        before, dnsmasq = handle(world), world.pid("dnsmasq")
        world.end()
        until(lambda: asked[0] > 20)
        seen = len(world.door.observations)
        world.start()
        until(lambda: len(world.door.observations) > seen + 3)
        ending.set()
        thread.join()
        assert not lost
        assert handle(world) == before
        assert world.pid("dnsmasq") == dnsmasq
        assert not any("repaired" in name for o in world.door.observations[seen:] for name, _ in o.health)
        assert len([o for o in world.door.outcomes if o.target == world.target]) == 1
        assert world.door.hellos[-1]["ledger"] == {world.target: [1, bundle.digest]}


def test_sigterm_leaves_everything_running(world: World) -> None:
    with serving(world.guest, 8000, b"one"):
        assert world.door.apply(world.bundle(1, *dnsmasq_files(), forward="8000")).status == "applied"
        world.end(signal.SIGTERM)
        assert answer(world.client, "198.51.100.1", 80) == b"one"
        os.kill(world.pid("dnsmasq"), 0)


def test_an_apply_that_was_cut_off_is_repaired(world: World) -> None:
    """The mark of a swap without its end, files of nobody, and a kernel that holds something else."""
    with serving(world.guest, 8000, b"one"):
        assert world.door.apply(world.bundle(1, forward="8000")).status == "applied"
        world.end()
        folder = world.state / "targets/r-1"
        (folder / "applying").touch()
        (folder / "current/nftables.nft").write_text("half")
        netns.run(world.router, ["nft", "flush map ip netspine dnat_forward"])
        world.start()
        until(lambda: answer(world.client, "198.51.100.1", 80) == b"one")
        until(lambda: not (folder / "applying").exists())
        assert (folder / "current/nftables.nft").read_text() == SKELETON


def test_connections_of_a_changed_translation_are_settled(world: World) -> None:
    """An open UDP flow goes to the new guest port at once; a flow of an unchanged rule keeps its entry."""
    elements = lambda port: (  # noqa: E731
        Elements(
            "dnat_forward",
            tuple(
                sorted((f"198.51.100.1 . udp . 53 : 10.1.1.5 . {port}", "198.51.100.1 . udp . 99 : 10.1.1.5 . 9999"))
            ),
        ),
    )
    with netns.entered(world.guest):
        lines = {port: socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for port in (5301, 5302, 9999)}
    for port, line in lines.items():
        line.bind(("10.1.1.5", port))
        line.settimeout(0.5)
    with netns.entered(world.client):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.bind(("198.51.100.9", 4444))
    assert world.door.apply(world.bundle(1, elements=elements(5301))).status == "applied"
    client.sendto(b"a", ("198.51.100.1", 53))
    client.sendto(b"a", ("198.51.100.1", 99))
    assert lines[5301].recv(9) == b"a"
    assert lines[9999].recv(9) == b"a"
    kept = conntrack(world, 99)
    assert world.door.apply(world.bundle(2, elements=elements(5302))).status == "applied"
    client.sendto(b"b", ("198.51.100.1", 53))
    assert lines[5302].recv(9) == b"b"
    assert conntrack(world, 99) == kept
    assert world.door.apply(world.bundle(3, elements=(Elements("dnat_forward", ()),))).status == "applied"
    assert conntrack(world, 53) == conntrack(world, 99) == ""


def conntrack(world: World, port: int) -> str:
    listed = netns.run(world.router, ["conntrack", "-L", "-o", "id", "-p", "udp", "--orig-port-dst", str(port)])
    return "".join(word for word in listed.split() if word.startswith("id="))


def test_a_reader_sees_the_old_set_or_the_new_one(world: World) -> None:
    """Forty swaps under traffic. A gap would show as a refused connection: the router itself listens nowhere.

    An open connection of a translation that changes is settled, so it may end; one of an unchanged rule never does.
    """
    addresses = [f"198.51.100.{n}" for n in range(10, 60)]
    links = interfaces()
    links["interfaces"][0]["addresses"] += [f"{address}/24" for address in addresses]

    def bundle(generation: int) -> Bundle:
        items = [f"{address} . tcp . 80 : 10.1.1.5 . {8000 + generation % 2}" for address in addresses[1:]]
        items.append(f"{addresses[0]} . tcp . 80 : 10.1.1.5 . 8002")
        comment = f"# {generation}\n" if generation % 4 > 1 else ""  # half of them replace the skeleton too
        return world.bundle(
            generation,
            File("interfaces.json", json.dumps(links), "links"),
            File("nftables.nft", SKELETON + comment, "nft"),
            elements=(Elements("dnat_forward", tuple(sorted(items))),),
        )

    def read(seen: list[bytes], which: list[str], ending: threading.Event) -> None:
        while not ending.is_set():
            try:
                with connect(world.client, which[len(seen) % len(which)], 80, timeout=2.5) as line:
                    seen.append(line.recv(9))
            except ConnectionRefusedError:
                seen.append(b"refused")
            except OSError:
                seen.append(b"settled")

    ending = threading.Event()
    kept, moved = [], []
    with serving(world.guest, 8000, b"one"), serving(world.guest, 8001, b"two"), serving(world.guest, 8002, b"kept"):
        assert world.door.apply(bundle(1)).status == "applied"
        readers = [(kept, addresses[:1]), (moved, addresses[1:]), (moved, addresses[1:])]
        threads = [threading.Thread(target=read, args=(*each, ending), daemon=True) for each in readers]
        for thread in threads:
            thread.start()
        statuses = {world.door.apply(bundle(generation)).status for generation in range(2, 42)}
        ending.set()
        for thread in threads:
            thread.join()
    assert statuses == {"applied"}
    assert len(kept) > 50
    assert set(kept) == {b"kept"}
    assert {b"one", b"two"} <= set(moved) <= {b"one", b"two", b"settled"}
    assert moved.count(b"settled") < len(moved) / 5


def dnsmasq_files(host: str = "02:00:00:00:00:aa,10.1.1.5,vm1") -> tuple[File, ...]:
    conf = "port=0\nno-resolv\nbind-dynamic\ninterface=eth1\ndhcp-range=10.1.1.0,static\n"
    return File("dnsmasq/dnsmasq.conf", conf, "dnsmasq"), File("dnsmasq/dhcp-hosts", host + "\n", "dnsmasq")


def test_absent_leaves_nothing_behind(world: World) -> None:
    metadata = {
        "networks": [{"address": "10.1.1.1", "interface": "eth1", "guests": {"10.1.1.5": {"vm": "vm-1", "items": {}}}}]
    }
    files = (*dnsmasq_files(), File("metadata.json", json.dumps(metadata), "metadata"))
    bundle = world.bundle(1, *files, forward="8000")
    assert world.door.apply(bundle).status == "applied"
    pids = [world.pid(name) for name in ("dnsmasq", "metadata")]
    assert all(pids)
    gone = replace(bundle, generation=2, files=(), elements=(), absent=True)
    assert world.door.apply(gone).status == "applied"
    assert netns.run(world.router, ["nft", "list", "ruleset"]) == ""
    assert not [
        pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_text()
    ]
    left = [path for path in world.state.rglob("*") if path.is_file() and path.name not in ("agent.log", "token")]
    assert [path for path in left if path.parent.name != "run"] == []
    assert world.door.apply(replace(gone, generation=3)).status == "applied"


def test_a_target_that_is_no_longer_known_is_taken_down(world: World) -> None:
    assert world.door.apply(world.bundle(1, *dnsmasq_files())).status == "applied"
    pid = world.pid("dnsmasq")
    world.door.forget(world.target)
    until(lambda: ruleset(world) == "")
    until(lambda: not (world.state / "targets/r-1").exists())
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_clean_takes_everything_down(world: World) -> None:
    assert world.door.apply(world.bundle(1, *dnsmasq_files())).status == "applied"
    world.clean()
    assert ruleset(world) == ""
    assert not list((world.state / "ledger").iterdir())


def test_a_bundle_of_many_changes_collapses(world: World) -> None:
    """Fifty generations in a burst end in the newest, and need not all be applied."""
    for generation in range(1, 51):
        world.door.want(world.bundle(generation, forward=str(8000 + generation)))
    assert world.door.outcome(world.bundle(50)).status == "applied"
    assert "8050" in ruleset(world)


def test_no_path_leaves_the_targets_folder(world: World) -> None:
    outcome = world.door.apply(world.bundle(1, File("../../../evil", "x", "nft")))
    assert outcome.status == "failed"
    assert "evil" in outcome.failures[0].reason
    assert not list(world.state.parent.rglob("evil"))
