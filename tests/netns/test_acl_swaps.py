"""Network ACL lists are swapped under a stream of new connections: no packet meets a list that is half there.

A list's elements are in maps with intervals, whose lookups and changes the kernel keeps apart by copies; so a packet
that comes just while a transaction takes effect is the one to look for. Every packet here is a connection of its own.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from drivers.network.virtual_router import VirtualRouter
from drivers.vpc import AclItem
from systemvm import netns
from systemvm.bundle import Bundle
from systemvm.services import HostSettings, Place, elements
from systemvm.services.nft import Nft, _skeleton
from tests.golden.router.cases import ANY, uid, vpc_routed
from tests.netns.router_lab import Lab, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]
_FORCE = 33
"""SO_RCVBUFFORCE, socket(7)."""
GUEST, ALLOWED, DENIED = "10.1.1.5", 9001, 9002


def acl(size: int, version: int) -> tuple[AclItem, ...]:
    """A list that denies one port and allows those around it; another version has none of the other's elements."""
    wide = 10 + version
    fodder = [
        AclItem(uid(50 + version, number), number, number % 3 > 0, True, "tcp", 10 * number + version, 10 * number + 5,
                (f"198.51.{number % 200}.{version}/32",))
        for number in range(3, size + 1)
    ]  # fmt: skip
    return (
        AclItem(uid(50 + version, 1), 1, False, True, "udp", DENIED, DENIED, ANY),
        AclItem(uid(50 + version, 2), 2, True, True, "udp", ALLOWED - wide, ALLOWED + wide, ANY),
        *fodder,
    )


class Swapped:
    """The lab's router with a list on its tier, which is changed as the agent changes it."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.nft, self.held = lab, Nft(), None
        self.place = Place("r", lab.router, lab.folder, HostSettings("h", "", "", lab.folder))

    def bundle(self, items: tuple[AclItem, ...]) -> Bundle:
        facts, router = vpc_routed(), VirtualRouter()
        web, *others = facts.networks
        rendered = router.render(router.plan(replace(facts, networks=(replace(web, acl=items), *others))))
        if self.held is None:
            self.lab.apply(rendered)
        return Bundle("t", "r", "router", 1, *rendered)

    def to(self, bundle: Bundle) -> float:
        begun = time.monotonic()
        assert self.nft.activate(self.place, self.held, bundle) == []
        self.held = bundle
        return time.monotonic() - begun


@pytest.fixture
def lab():
    lab = Lab()
    lab.ip(lab.outside, "link del o2", "route add 10.1.0.0/16 via 203.0.113.5")
    lab.ip(lab.switch, "link del s6")
    lab._wire(lab.g6, "eth0", lab.router, "02:00:00:00:01:02", "eth2")
    yield lab
    lab.remove()


class Stream:
    """Datagrams from outside to a port of the guest, each from another source port and with its own number."""

    def __init__(self, lab: Lab, port: int) -> None:
        self.sent, self.seen, self.port = 0, set[int](), port
        with netns.entered(lab.outside):
            self._out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        with netns.entered(lab.g5):
            self._in = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._in.setsockopt(socket.SOL_SOCKET, _FORCE, 1 << 24)
        self._in.bind((GUEST, port))
        self._in.settimeout(0.05)

    def send(self) -> None:
        source = 1024 + self.sent % 64000
        self._out.sendto(struct.pack(">HHHHI", source, self.port, 12, 0, self.sent), (GUEST, 0))
        self.sent += 1

    def read(self, ending: threading.Event) -> None:
        while True:
            try:
                self.seen.add(struct.unpack(">I", self._in.recv(64))[0])
            except TimeoutError:
                if ending.is_set():
                    return

    def close(self) -> None:
        self._out.close()
        self._in.close()


@contextmanager
def streams(lab: Lab):
    """Both streams, as fast as they can be sent; when the block is left all that will come has come."""
    allowed, denied = both = Stream(lab, ALLOWED), Stream(lab, DENIED)
    ending, read = threading.Event(), threading.Event()

    def pump() -> None:
        while not ending.is_set():
            for _ in range(20):
                allowed.send()
                denied.send()
            time.sleep(0.0005)

    threads = [threading.Thread(target=pump), *(threading.Thread(target=one.read, args=(read,)) for one in both)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: allowed.seen)
        yield both
    finally:
        ending.set()
        threads[0].join()
        time.sleep(0.1)
        read.set()
        for thread in threads[1:]:
            thread.join()
        for one in both:
            one.close()


@pytest.mark.parametrize(("size", "times"), [(200, 100), (1000, 25)])
def test_new_connections_are_judged_by_the_old_list_or_the_new_one(lab, size, times):
    router = Swapped(lab)
    bundles = [router.bundle(acl(size, version)) for version in (1, 2)]
    router.to(bundles[0])
    netns.run(lab.router, ["sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=1"])
    with streams(lab) as (allowed, denied):
        seconds = [router.to(bundles[number % 2]) for number in range(1, times + 1)]
    lost = allowed.sent - len(allowed.seen)
    print(f"{times} swaps of {size} rules, {max(seconds):.3f} s at most; {allowed.sent} packets, {lost} lost, "
          f"{len(denied.seen)} of {denied.sent} let in")  # fmt: skip
    assert lost == 0
    assert not denied.seen


def test_a_gap_would_be_seen(lab):
    router = Swapped(lab)
    bundles = [router.bundle(acl(200, version)) for version in (1, 2)]
    router.to(bundles[0])
    with streams(lab) as (allowed, denied):
        for number in range(1, 11):
            text = elements.changing(_skeleton(router.held).content, router.held, bundles[number % 2])
            gone, fresh = text.split("add element", 1)
            context = router.nft._kernel(router.place).context
            context.run(gone)
            context.run(f"add element{fresh}")
            router.held = bundles[number % 2]
    assert len(allowed.seen) < allowed.sent
    assert not denied.seen, "what no element names is dropped"


def test_what_a_reader_sees_in_between_is_not_what_packets_meet(lab):
    """Listings are put together from several messages: one may be of the moment in which a list takes the other's place.

    Whatever they say meanwhile, no packet is lost; and once nothing changes they say what was asked for.
    """
    router, found, ending = Swapped(lab), set[int](), threading.Event()
    bundles = [router.bundle(acl(200, version)) for version in (1, 2)]
    router.to(bundles[0])

    def listed() -> int:
        said = lab.nft("list", "map", "inet", "netspine", "acl_in_ports")
        return next(len(item["map"].get("elem", ())) for item in said if "map" in item)

    def read() -> None:
        while not ending.is_set():
            found.add(listed())

    whole = listed()
    reader = threading.Thread(target=read)
    reader.start()
    with streams(lab) as (allowed, denied):
        for number in range(1, 101):
            router.to(bundles[number % 2])
    ending.set()
    reader.join()
    print(f"{whole} elements; in between listings had {sorted(found)}")
    assert len(allowed.seen) == allowed.sent
    assert not denied.seen
    assert listed() == whole
