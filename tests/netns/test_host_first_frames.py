"""The filter stands before a guest's first frame, and after whatever happens to the agent or its host."""

import fcntl
import os
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from drivers.hypervisor.namespace import Namespace
from drivers.security import GroupRule, PortFilter, SecurityGroup
from drivers.vocabulary import HostFacts, Shell
from systemvm import netns
from systemvm.apply import Applier
from systemvm.bundle import Bundle
from systemvm.ledger import Ledger
from systemvm.services import nft
from systemvm.services.kinds import KINDS, PARTIAL
from tests.netns.frames import arp, ether, ip4, udp
from tests.netns.hosts import NET, nic, until, zone

pytestmark = pytest.mark.netns

FOREIGN = nic(11).mac
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _UP, _SO_RCVBUFFORCE = 0x8913, 0x8914, 1, 33


def pad(frame):
    return frame.ljust(60, b"\0")


def held(number, groups=None):
    port = nic(number)
    return PortFilter(port.id, port.segment, port.mac, (f"10.1.1.{number}",), groups)


class Eager(threading.Thread):
    """Waits for a guest's namespace, takes its interface up and sends, before anything in the guest could."""

    def __init__(self, space, number):
        super().__init__(daemon=True)
        self.space, self.ended = space, threading.Event()
        mac, own = nic(number).mac, f"10.1.1.{number}"
        self.forged = [
            pad(ether(FOREIGN, 0x0800, ip4(own, udp(7, 7, b"early")))),
            pad(ether(mac, 0x0800, ip4("10.1.1.11", udp(7, 7, b"early")))),
            pad(ether(mac, 0x0806, arp(2, mac, "10.1.1.11"))),
        ]
        self.honest = pad(ether(mac, 0x0800, ip4(own, udp(7, 7, b"honest"))))
        self.start()

    def run(self):
        line = None
        while not self.ended.is_set():
            try:
                if line is None:
                    with netns.entered(self.space):
                        line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
                request = struct.pack("16sh14x", b"eth0", 0)
                flags = struct.unpack("16sh14x", fcntl.ioctl(line, _SIOCGIFFLAGS, request))[1]
                if not flags & _UP:
                    fcntl.ioctl(line, _SIOCSIFFLAGS, struct.pack("16sh14x", b"eth0", flags | _UP))
                for frame in (*self.forged, self.honest):
                    line.sendto(frame, ("eth0", 0))
            except OSError:
                time.sleep(0.0005)


def test_a_guest_that_forges_from_the_first_link_up_is_heard_by_nobody(tmp_path):
    with zone(f"tf{os.getpid()}-", tmp_path, "h1", "h2") as cloud:
        assert cloud.apply("h2", NET, cloud.guest(12), held(12)) == []
        cloud.address(12, "10.1.1.12")
        with netns.entered(f"{cloud.fabric.prefix}i-2-12-VM"):
            ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            ear.bind(("eth0", 3))
        ear.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
        ear.setblocking(False)
        began, starts, number = time.monotonic(), 0, 20
        while time.monotonic() - began < 30 and starts < 100:
            eager = Eager(f"{cloud.fabric.prefix}i-2-{number}-VM", number)
            assert cloud.apply("h1", NET, cloud.guest(number), held(number)) == []
            heard = []
            until(lambda heard=heard, honest=eager.honest: honest in hear(ear, heard))
            assert cloud.apply("h1", NET) == []  # it sends to its very end
            eager.ended.set()
            eager.join()
            assert not set(eager.forged) & set(hear(ear, heard))
            starts, number = starts + 1, 20 + (number - 19) % 200
        assert starts >= 10
        print(f"{starts} starts, no forged frame")


def hear(ear, heard):
    with suppress(BlockingIOError):
        while True:
            heard.append(ear.recv(4096))
    return heard


def bundle(cloud, generation, *numbers):
    facts = HostFacts(
        "h1",
        "h1",
        (NET,),
        tuple(cloud.guest(number) for number in numbers),
        (Shell("router-1", "r-1-VM", (nic(1),)),),
        (),
        tuple(held(number, ("web",)) for number in numbers),
        (SecurityGroup("web", (GroupRule("r", "tcp", 22, 22, ("10.0.0.0/8",)),), ()),),
    )
    driver = Namespace()
    files, elements = driver.render(driver.plan(facts))
    return Bundle("h1", "h1", "host", generation, files, elements)


def ruleset(cloud):
    return netns.run(cloud.fabric.namespace("h1"), ["nft", "--stateless", "list", "ruleset"])


@pytest.fixture
def host(tmp_path):
    with zone(f"tf{os.getpid()}-", tmp_path, "h1") as cloud:
        settings = cloud.fabric.settings("h1", tmp_path / "h1")
        yield cloud, lambda: Applier(settings, Ledger(tmp_path / "h1" / "ledger"), KINDS, PARTIAL)


def test_the_rules_stay_over_a_new_agent_and_come_back_with_a_new_host(host):
    cloud, agent = host
    wanted = bundle(cloud, 1, 10, 11)
    outcome = agent().apply(wanted)
    assert (outcome.status, outcome.failures) == ("applied", ())
    before = ruleset(cloud)
    assert "10.1.1.10" in before
    second = agent()
    assert second.apply(wanted).status == "unchanged"
    assert second.ensure(wanted) == []
    assert ruleset(cloud) == before
    # the machine starts anew: no namespace, no interface and no rule is left
    for name in netns.names(f"{cloud.fabric.prefix}"):
        if name.endswith(("-h1", "-VM")):
            netns.ensure_no(name)
    for pid in [cloud.pid("h1", guest) for guest in ("guest-10", "guest-11")]:
        with suppress(ProcessLookupError):
            os.kill(pid, 9)
    until(lambda: cloud.fabric.ensure() or True)
    third = agent()
    said = [service for service, _ in third.ensure(wanted)]
    assert said.index("nft") < said.index("shells") < said.index("guests")
    assert ruleset(cloud) == before
    assert until(lambda: third.ensure(wanted) == [])


def test_no_guest_starts_where_its_filter_cannot_be(host, monkeypatch):
    cloud, agent = host
    wanted = bundle(cloud, 1, 10)
    broken = tuple(
        replace(entry, items=("vif1 . 10.1.1.300",)) if entry.name == "speakers4" else entry
        for entry in wanted.elements
    )
    first = agent()
    outcome = first.apply(replace(wanted, elements=broken))
    assert outcome.status == "failed"
    assert "speakers4" in outcome.failures[0].reason
    assert not netns.exists(f"{cloud.fabric.prefix}i-2-10-VM")
    assert first.apply(replace(wanted, generation=2)).status == "applied"
    # a guest whose host lost everything is not started again before its filter is there
    cloud_space = f"{cloud.fabric.prefix}i-2-10-VM"
    netns.run(cloud.fabric.namespace("h1"), ["nft", "flush", "ruleset"])
    os.kill(cloud.pid("h1", "guest-10"), 9)
    netns.ensure_no(cloud_space)
    with monkeypatch.context() as patch:
        patch.setattr(nft.elements, "replacing", lambda *_: "this is not nft")
        said = first.ensure(replace(wanted, generation=2))
        assert [service for service, _ in said][-1] == "nft"
        assert not netns.exists(cloud_space)
    until(lambda: first.ensure(replace(wanted, generation=2)) == [])
    assert netns.exists(cloud_space)


def test_the_filter_leaves_nothing_behind(host):
    cloud, agent = host
    only = agent()
    assert only.apply(bundle(cloud, 1, 10)).status == "applied"
    assert "table inet netspine" in ruleset(cloud)
    assert "table bridge netspine" in ruleset(cloud)
    assert only.apply(Bundle("h1", "h1", "host", 2, absent=True)).status == "applied"
    assert ruleset(cloud) == ""
    assert not [link for link in cloud.links("h1") if "brvx" in link]
