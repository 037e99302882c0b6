"""One shell takes over from another: whatever fails when, it is done at last, and never do both have a segment."""

import os
import socket
import time

import pytest

from bench import traffic
from drivers.vocabulary import Shell
from systemvm import links, netns
from systemvm.ports import Bay
from systemvm.services import drain, handover, haproxy
from tests.netns.hosts import NET, PUBLIC, nic, zone

pytestmark = pytest.mark.netns
NICS = nic(1, NET), nic(1, PUBLIC, 2)
OWN, INTERNET = "203.0.113.9", "203.0.113.1"


def shell(name, **more):
    return Shell(f"target-{name}", name, NICS, boot=1, **more)


@pytest.fixture
def place(tmp_path):
    with zone(f"th{os.getpid()}-", tmp_path, "host-1") as made:
        yield made


def space(place, name):
    return place.fabric.prefix + name


def plugged(place):
    """Which of the two is in which segment, by the bridge's name."""
    found = {}
    with netns.netlink(place.fabric.namespace("host-1")) as ip:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
        for link in ip.get_links():
            alias = link.get_attr("IFLA_IFALIAS") or ""
            if " port of " in alias and link.get_attr("IFLA_MASTER"):
                found.setdefault(names[link.get_attr("IFLA_MASTER")], []).append(
                    alias.split()[4][len(place.fabric.prefix) :]
                )
    return found


def serve(place, name):
    """Give a shell the address that the router has."""
    netns.run(space(place, name), ["ip", "addr", "add", f"{OWN}/24", "dev", "eth2"])


def both(place):
    """An old shell in its segments, and a new one in the dark that has the same addresses."""
    assert place.apply("host-1", NET, PUBLIC, shell("old")) == []
    serve(place, "old")
    assert place.apply("host-1", NET, PUBLIC, shell("old"), shell("new", dark=True)) == []
    serve(place, "new")


def turn(place):
    return place.apply("host-1", NET, PUBLIC, shell("old", dark=True), shell("new", follows="old"))


def loose(place, name):
    return handover._loose(space(place, name))


def macs(place, name):
    with netns.netlink(space(place, name)) as ip:
        return {link.get_attr("IFLA_IFNAME"): link.get_attr("IFLA_ADDRESS") for link in ip.get_links()}


def test_the_new_shell_takes_the_place_of_the_old_one(place):
    both(place)
    assert macs(place, "old") == macs(place, "new")
    assert {tuple(who) for who in plugged(place).values()} == {("old",)}
    assert place.states("host-1") == {"target-old": "running", "target-new": "drained"}
    assert turn(place) == []
    assert {tuple(who) for who in plugged(place).values()} == {("new",)}
    assert len(plugged(place)) == 2
    assert place.states("host-1") == {"target-old": "drained", "target-new": "running"}
    assert place.ensure("host-1") == [], "it is done once"
    before = plugged(place)
    assert place.apply("host-1", NET, PUBLIC, shell("new")) == []
    assert not netns.exists(space(place, "old"))
    assert plugged(place) == before
    assert "drain" not in netns.run(place.fabric.namespace("host-1"), ["nft", "list", "ruleset"])


def once(monkeypatch, owner, name, after):
    """Have a function fail once, before or after its work."""
    real, calls = getattr(owner, name), []

    def failing(*args, **more):
        calls.append(1)
        if len(calls) > 1:
            return real(*args, **more)
        if after:
            real(*args, **more)
        raise RuntimeError("cut off")

    monkeypatch.setattr(owner, name, failing)


STEPS = [
    (handover._Carried, "more"), (handover, "_keep_neighbours"), (haproxy, "adopt"), (drain, "prepare"), (Bay, "move"),
    (links, "remaster"), (drain, "begin"), (handover, "announce_addresses"), (haproxy, "retire"),
]  # fmt: skip


@pytest.mark.parametrize("after", [False, True])
def test_cut_off_at_any_step_it_is_brought_to_its_end(place, monkeypatch, after):
    for owner, name in STEPS:
        both(place)
        once(monkeypatch, owner, name, after)
        (failure,) = turn(place)
        assert "new cannot take over from old: cut off" in failure.reason
        for bridge, who in plugged(place).items():
            assert len(who) == 1, (bridge, who, name)
        assert netns.exists(space(place, "old"))
        done = place.ensure("host-1")
        assert any("took over" in line for line in done), (name, done, turn(place))
        assert {tuple(who) for who in plugged(place).values()} == {("new",)}
        assert len(plugged(place)) == 2
        assert loose(place, "new") == "1"
        assert place.ensure("host-1") == []
        assert place.apply("host-1", NET, PUBLIC) == []


def test_a_connection_to_the_old_shell_itself_ends_there_and_a_new_one_at_the_new(place):
    both(place)
    internet = place.fabric.internet
    with traffic.echoing(space(place, "old"), tcp=7000):
        with traffic.resets(internet, "br0") as resets, traffic.conversation(internet, OWN, 7000) as talk:
            _until(lambda: talk.sent > 10)
            with traffic.echoing(space(place, "new"), tcp=7001):
                assert turn(place) == []
                said = talk.sent
                _until(lambda: talk.sent > said + 50 or talk.failed)
                assert place.states("host-1")["target-old"] == "dark"
                assert traffic.echoes(internet, OWN, 7001)
                assert not traffic.echoes(internet, OWN, 7000), "nobody listens there in the new one"
        _until(lambda: place.states("host-1")["target-old"] == "drained")
    assert talk.failed == []
    assert all(":7001 >" in line or ":7000 >" in line for line in resets)


def test_the_old_shell_says_nothing_of_its_own_any_more(place):
    both(place)
    assert turn(place) == []
    with netns.entered(space(place, "old")):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    from tests.spine.wire import listening

    with listening(place.fabric.internet, "br0") as frames, sock:
        for _ in range(20):
            sock.sendto(b"here I am", ("203.0.113.255", 9999))
        assert traffic.echoes(place.fabric.internet, OWN, 1) is False
    assert not [frame for frame in frames if b"here I am" in frame]


def _until(true, seconds=10):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
