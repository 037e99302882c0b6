"""Connections are carried from one namespace to another with their translation, and go on there."""

import itertools
import os
import socket
from contextlib import ExitStack

import pytest

from systemvm import netns
from systemvm.conntrack import REPLY, STATUS, Entry, Table

pytestmark = pytest.mark.netns
_numbers = itertools.count()

RULES = """
table ip t {
 chain pre { type nat hook prerouting priority dstnat; ip daddr 203.0.113.9 tcp dport 80 dnat to 10.1.1.5:8080; }
 chain post { type nat hook postrouting priority srcnat; oifname "out" ip saddr 10.1.1.0/24 snat to 203.0.113.9; }
 chain through { type filter hook forward priority 0; policy drop; ct state established,related accept; ct status dnat accept; iifname "in" accept; }
}
"""


class Lab:
    """A client and a guest, each on a cable to either of two routers, of which one is plugged."""

    def __init__(self, stack):
        prefix = f"tc{os.getpid()}n{next(_numbers)}"
        self.client, self.guest, self.old, self.new = (prefix + part for part in ("c", "g", "a", "b"))
        for name in (self.client, self.guest, self.old, self.new):
            netns.ensure(name)
            stack.callback(netns.ensure_no, name)
        for router in (self.old, self.new):
            for end, device, address in ((self.client, "out", "203.0.113.9/24"), (self.guest, "in", "10.1.1.1/24")):
                at = f"{device}{router[-1]}"
                self.ip(
                    end,
                    f"link add {at} type veth peer name {device} address 02:00:00:00:00:0{len(device)} netns {router}",
                )
                self.ip(router, f"link set {device} up", f"addr add {address} dev {device}")
            netns.run(router, ["sysctl", "-qw", "net.ipv4.ip_forward=1"])
            netns.run(router, ["nft", "-f", "-"], text_in=RULES)
        self.plug(self.old)

    @staticmethod
    def ip(name, *commands):
        for command in commands:
            netns.run(name, ["ip", *command.split()])

    def plug(self, router):
        """Have the client's and the guest's cable lead to this router alone."""
        for end, device, own in ((self.client, "out", "203.0.113.1/24"), (self.guest, "in", "10.1.1.5/24")):
            for each in (self.old, self.new):
                self.ip(end, f"addr flush dev {device}{each[-1]}", f"link set {device}{each[-1]} down")
            self.ip(end, f"link set {device}{router[-1]} up", f"addr add {own} dev {device}{router[-1]}")
        self.ip(self.guest, "route add default via 10.1.1.1")


@pytest.fixture
def lab():
    with ExitStack() as stack:
        yield Lab(stack)


def inside(namespace, make):
    with netns.entered(namespace):
        return make()


def said(entries):
    """What two tables must have in common; the kernel's own bookkeeping aside."""
    return {(entry.orig, entry.reply, entry.parts[3][-1] & 0x36) for entry in entries}


def converse(lab):
    """Open a forwarded connection, one from the guest, and a datagram's flow from it; return all ends."""
    server = inside(lab.guest, lambda: socket.create_server(("10.1.1.5", 8080)))
    outside = inside(lab.client, lambda: socket.create_server(("203.0.113.1", 7)))
    udp = inside(lab.client, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.bind(("203.0.113.1", 53))
    caller = inside(lab.client, lambda: socket.create_connection(("203.0.113.9", 80), 5, ("203.0.113.1", 4444)))
    leaving = inside(lab.guest, lambda: socket.create_connection(("203.0.113.1", 7), 5, ("10.1.1.5", 5555)))
    asking = inside(lab.guest, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    asking.connect(("203.0.113.1", 53))
    asking.send(b"?")
    peer = udp.recvfrom(9)[1]
    udp.sendto(b"!", peer)
    for end in (asking, udp):
        end.settimeout(5)
    assert asking.recv(9) == b"!"
    answering, arrived = server.accept()[0], outside.accept()[0]
    return [(caller, answering), (leaving, arrived)], (asking, udp, peer), [server, outside]


def test_translated_connections_go_on_where_they_were_carried_to(lab):
    pairs, (asking, udp, peer), servers = converse(lab)
    for one, other in pairs:
        one.sendall(b"before")
        assert other.recv(99) == b"before"
    with Table(lab.old) as old, Table(lab.new) as new:
        entries = list(old.entries())
        assert new.load(entries) == {}
        assert said(new.entries()) == said(entries)
        assert {entry.reply.destination for entry in new.entries()} == {
            socket.inet_aton("203.0.113.1"), socket.inet_aton("203.0.113.9")
        }  # fmt: skip
        assert new.load(entries) == {}, "a second time it is brought to the same state"
        assert said(new.entries()) == said(entries)
    lab.plug(lab.new)
    for one, other in pairs:
        for sender, receiver in ((one, other), (other, one)):
            receiver.settimeout(5)
            sender.sendall(b"after")
            assert receiver.recv(99) == b"after"
    udp.sendto(b"late", peer)
    assert asking.recv(9) == b"late"
    for each in (asking, udp, *servers, *itertools.chain(*pairs)):
        each.close()


def test_pings_with_the_same_number_keep_theirs(lab):
    netns.run(lab.guest, ["busybox", "ping", "-c1", "-W5", "203.0.113.1"])
    with Table(lab.old) as old, Table(lab.new) as new:
        entries = [entry for entry in old.entries() if entry.orig.protocol == 1]
        assert len(entries) == 1
        assert new.load(entries) == {}
        (carried,) = new.entries()
        assert carried.parts[REPLY] == entries[0].parts[REPLY]


def test_what_cannot_be_made_is_counted_and_the_rest_is_made(lab):
    pairs, (asking, udp, _), servers = converse(lab)
    with Table(lab.old) as old, Table(lab.new) as new:
        entries = list(old.entries())
        tcp, udp_one = (next(e for e in entries if e.orig.protocol == number) for number in (6, 17))
        mixed = tcp.parts | {STATUS: (8).to_bytes(4, "big"), REPLY: udp_one.parts[REPLY]}
        broken = Entry(tcp.family, mixed)
        assert sum(new.load([broken, *entries]).values()) == 1
        assert said(new.entries()) == said(entries)
        assert sum(map(new.delete, list(new.entries()))) == len(entries)
        assert list(new.entries()) == []
    for each in (asking, udp, *servers, *itertools.chain(*pairs)):
        each.close()
