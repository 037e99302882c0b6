"""Nobody speaks in another's name: what a guest forges is seen by no other guest, on its own host or on another."""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass

import pytest

from drivers.hypervisor.namespace.config import port_name
from drivers.hypervisor.namespace.filters import link_local
from drivers.security import PortFilter
from systemvm import netns
from tests.netns import frames
from tests.netns.frames import (
    ALL_NODES,
    DESTINATION,
    FRAGMENT,
    HOP,
    ICMP6,
    arp,
    bootp,
    ether,
    extension,
    fragment6,
    icmp6,
    ip4,
    ip6,
    option,
    udp,
)
from tests.netns.hosts import NET, nic, until, zone

pytestmark = pytest.mark.netns

MINE, OTHERS = nic(10), nic(11)
MAC, FOREIGN = MINE.mac, OTHERS.mac
OWN4, FOREIGN4 = "10.1.1.10", "10.1.1.11"
OWN6, FOREIGN6 = "2001:db8::10", "2001:db8::11"
LOCAL, FOREIGN_LOCAL = link_local(MAC), link_local(FOREIGN)
MARK = b"a-frame-of-this-test"
ANNOUNCED = bytes(4) + bytes(8)


def held(number, *addresses, **more):
    port = nic(number)
    return PortFilter(port.id, port.segment, port.mac, addresses or (f"10.1.1.{number}", f"2001:db8::{number}"), **more)


def v4(source, body=None, *, src=MAC, **more):
    return ether(src, 0x0800, ip4(source, udp(4000, 4001, MARK) if body is None else body, **more))


def v6(source, body=None, *, src=MAC, **more):
    return ether(src, 0x86DD, ip6(source, udp(4000, 4001, MARK) if body is None else body, **more), ALL_NODES)


def nd(source, kind, body, **more):
    return v6(source, icmp6(source, kind, body, **more), following=ICMP6, **more)


def target(address):
    return bytes(4) + frames.ip_address(address).packed


NA, NS, RS, RA, REDIRECT = 136, 135, 133, 134, 137
ROUTER = icmp6(LOCAL, RA, ANNOUNCED + option(1, MAC))
TAGGED = v4(OWN4)

FORGED = {
    "MAC": v4(OWN4, src=FOREIGN),
    "MAC of nobody": v4(OWN4, src="02:aa:aa:aa:aa:aa"),
    "IPv4": v4(FOREIGN4),
    "IPv4 of nobody": v4("192.0.2.9"),
    "IPv4 unspecified": v4("0.0.0.0"),
    "IPv4 to everyone, unspecified": v4("0.0.0.0", to="255.255.255.255"),
    "IPv4 first fragment": v4(FOREIGN4, udp(4000, 4001, MARK.ljust(24)), fragment=0x2000),
    "IPv4 later fragment": v4(FOREIGN4, MARK, fragment=4),
    "IPv6 named IPv4": ether(MAC, 0x0800, ip6(FOREIGN6, udp(1, 2, MARK))),
    "IPv4 named IPv6": ether(MAC, 0x86DD, ip4(FOREIGN4, udp(1, 2, MARK))),
    "IPv6": v6(FOREIGN6),
    "IPv6 link-local": v6(FOREIGN_LOCAL),
    "IPv6 unspecified": v6("::"),
    "IPv6 behind options": v6(FOREIGN6, extension(frames.UDP, udp(1, 2, MARK)), following=DESTINATION),
    "ARP sender's address": ether(MAC, 0x0806, arp(1, MAC, FOREIGN4)),
    "ARP answer": ether(MAC, 0x0806, arp(2, MAC, FOREIGN4)),
    "ARP sender's MAC": ether(MAC, 0x0806, arp(2, FOREIGN, OWN4)),
    "ARP announcement": ether(MAC, 0x0806, arp(1, MAC, FOREIGN4, target=FOREIGN4)),
    "ARP probe with another's MAC": ether(MAC, 0x0806, arp(1, FOREIGN, "0.0.0.0")),
    "ARP of odd sizes": ether(MAC, 0x0806, arp(2, MAC, OWN4, sizes=(4, 6))),
    "ARP of other hardware": ether(MAC, 0x0806, arp(2, MAC, OWN4, hardware=6)),
    "ARP of other operations": ether(MAC, 0x0806, arp(8, MAC, OWN4)),
    "RARP": ether(MAC, 0x8035, arp(3, FOREIGN, FOREIGN4)),
    "NA of another's address": nd(LOCAL, NA, target(FOREIGN6) + option(2, MAC)),
    "NA of another's MAC": nd(OWN6, NA, target(OWN6) + option(2, FOREIGN)),
    "NA with a second option": nd(OWN6, NA, target(OWN6) + option(2, MAC) + option(2, FOREIGN)),
    "NS of another's MAC": nd(OWN6, NS, target(FOREIGN6) + option(1, FOREIGN)),
    "NS with a nonce before": nd(OWN6, NS, target(FOREIGN6) + option(14, MAC) + option(1, FOREIGN)),
    "NS that denies an address": nd("::", NS, target(FOREIGN6)),
    "NA behind options": v6(OWN6, extension(ICMP6, icmp6(OWN6, NA, target(FOREIGN6))), following=DESTINATION),
    "NA behind hop-by-hop": v6(OWN6, extension(ICMP6, icmp6(OWN6, NA, target(FOREIGN6))), following=HOP),
    "NA in a fragment": v6(OWN6, fragment6(ICMP6, icmp6(OWN6, NA, target(FOREIGN6))), following=FRAGMENT),
    "RS of another's MAC": nd(LOCAL, RS, bytes(4) + option(1, FOREIGN)),
    "RA": v6(LOCAL, ROUTER, following=ICMP6),
    "RA behind options": v6(LOCAL, extension(ICMP6, ROUTER), following=DESTINATION),
    "RA behind hop-by-hop": v6(LOCAL, extension(ICMP6, ROUTER), following=HOP),
    "RA in one fragment": v6(LOCAL, fragment6(ICMP6, ROUTER), following=FRAGMENT),
    "RA whose head is cut off": v6(
        LOCAL, fragment6(DESTINATION, bytes((ICMP6, 3)) + bytes(6) + MARK[:8], more=True), following=FRAGMENT
    ),
    "RA whose type is cut off": v6(LOCAL, fragment6(DESTINATION, extension(ICMP6, b""), more=True), following=FRAGMENT),
    "redirect": nd(LOCAL, REDIRECT, target(LOCAL) + bytes(16)),
    "DHCP server": v4(OWN4, udp(67, 68, bootp(2, FOREIGN, MARK))),
    "DHCP server elsewhere": v4(OWN4, udp(6767, 68, bootp(2, FOREIGN, MARK))),
    "DHCP server to the relay's port": v4(OWN4, udp(67, 67, bootp(2, FOREIGN, MARK))),
    "DHCP server in fragments": v4(OWN4, udp(67, 68, bootp(2, FOREIGN, MARK))[:64], fragment=0x2000),
    "DHCP server without an address": v4("0.0.0.0", udp(67, 68, bootp(2, FOREIGN, MARK)), to="255.255.255.255"),
    "DHCPv6 server": v6(LOCAL, udp(547, 546, MARK)),
    "DHCPv6 server elsewhere": v6(LOCAL, udp(6767, 546, MARK)),
    "DHCPv6 server behind options": v6(LOCAL, extension(frames.UDP, udp(547, 546, MARK)), following=DESTINATION),
    "DHCP discovery for another": v4("0.0.0.0", udp(68, 67, bootp(1, FOREIGN, MARK)), to="255.255.255.255"),
    "DHCP request for another": v4(OWN4, udp(68, 67, bootp(1, FOREIGN, MARK))),
    "DHCP discovery cut short": v4("0.0.0.0", udp(68, 67, MARK[:8]), to="255.255.255.255"),
    "VLAN": TAGGED[:12] + b"\x81\x00\x00\x07" + TAGGED[12:],
    "VLAN 0": TAGGED[:12] + b"\x81\x00\x00\x00" + TAGGED[12:],
    "provider's VLAN": TAGGED[:12] + b"\x88\xa8\x00\x07" + TAGGED[12:],
    "VLAN in VLAN": TAGGED[:12] + b"\x81\x00\x00\x07\x81\x00\x00\x08" + TAGGED[12:],
    "old QinQ": TAGGED[:12] + b"\x91\x00\x00\x07" + TAGGED[12:],
    "PPPoE": ether(MAC, 0x8864, MARK),
    "MPLS": ether(MAC, 0x8847, MARK),
    "LLDP": ether(MAC, 0x88CC, MARK, "01:80:c2:00:00:0e"),
    "spanning tree": ether(MAC, 38, b"\x42\x42\x03" + MARK, "01:80:c2:00:00:00"),
    "SNAP": ether(MAC, 38, b"\xaa\xaa\x03\0\0\0\x08\0" + ip4(FOREIGN4, udp(1, 2, MARK))),
    "test protocol": ether(MAC, 0x88B5, MARK),
}
KEPT = {"LLDP", "spanning tree"}
"""What the kernel's bridge keeps to itself, also without a filter."""
ALLOWED = {
    "IPv4": v4(OWN4),
    "IPv4 first fragment": v4(OWN4, udp(4000, 4001, MARK.ljust(24)), fragment=0x2000),
    "IPv4 later fragment": v4(OWN4, MARK, fragment=4),
    "IPv6": v6(OWN6),
    "IPv6 link-local": v6(LOCAL),
    "IPv6 behind options": v6(OWN6, extension(frames.UDP, udp(1, 2, MARK)), following=DESTINATION),
    "IPv6 later fragment": v6(OWN6, fragment6(ICMP6, MARK, offset=4), following=FRAGMENT),
    "ARP": ether(MAC, 0x0806, arp(1, MAC, OWN4)),
    "ARP probe": ether(MAC, 0x0806, arp(1, MAC, "0.0.0.0", target=OWN4)),
    "NS": nd(OWN6, NS, target(FOREIGN6) + option(1, MAC)),
    "NS of one's own": nd("::", NS, target(OWN6)),
    "NS of one's own with a nonce": nd("::", NS, target(LOCAL) + option(14, MAC)),
    "NA": nd(OWN6, NA, target(OWN6) + option(2, MAC)),
    "NA without MAC": nd(LOCAL, NA, target(LOCAL)),
    "RS": nd(LOCAL, RS, bytes(4) + option(1, MAC)),
    "echo": nd(OWN6, 128, MARK),
    "MLD": v6("::", extension(ICMP6, icmp6("::", 143, bytes(4))), following=HOP),
    "DHCP discovery": v4("0.0.0.0", udp(68, 67, bootp(1, MAC, MARK)), to="255.255.255.255"),
    "DHCP renewal": v4(OWN4, udp(68, 67, bootp(1, MAC, MARK)), to="10.1.1.1"),
    "DHCPv6": v6(LOCAL, udp(546, 547, MARK)),
}


@dataclass
class Wire:
    """A guest's end of its cable, heard and spoken on."""

    line: socket.socket

    @classmethod
    def of(cls, cloud, number):
        with netns.entered(f"{cloud.fabric.prefix}i-2-{number}-VM"):
            line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            line.bind(("eth0", 3))
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        line.settimeout(5)
        return cls(line)

    def send(self, frame):
        self.line.send(frame)

    def until(self, last):
        """Return all that came before one frame, without what the guests say by themselves."""
        found = []
        while True:
            frame, address = self.line.recvfrom(4096)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            if frame == last:
                return found
            found.append(frame)


def pad(frame):
    return frame.ljust(60, b"\0")


@pytest.fixture
def cloud(tmp_path):
    with zone(f"tf{os.getpid()}-", tmp_path, "h1", "h2") as made:
        yield made


def start(cloud, *mine, **more):
    filters = mine or (held(10),)
    assert cloud.apply("h1", NET, cloud.guest(10), cloud.guest(11), *filters, held(11)) == []
    assert cloud.apply("h2", NET, cloud.guest(12), held(12)) == []
    for number in (10, 11, 12):
        cloud.address(number, f"10.1.1.{number}")
    return Wire.of(cloud, 10), [Wire.of(cloud, 11), Wire.of(cloud, 12)]


def arrived(wire, ears, sent, last=None):
    """Return which of the named frames each ear got; a known frame of the guest at the end tells that all had time.

    :param last: who sends that one, where it is not the wire itself.
    """
    end = pad(v4(OWN4, udp(9, 9, os.urandom(20))))
    for frame in sent.values():
        wire.send(pad(frame))
    (last or wire).send(end)
    heard = [set(ear.until(end)) for ear in ears]
    return [{name for name, frame in sent.items() if pad(frame) in here or untagged(frame) in here} for here in heard]


def untagged(frame):
    """Return a tagged frame as a socket shows it, which takes the outermost 802.1Q or 802.1ad tag off."""
    return pad(frame)[:12] + pad(frame)[16:] if frame[12:14] in (b"\x81\x00", b"\x88\xa8") else None


def refused(cloud, host="h1"):
    seen = [s.observe(cloud.place(host), cloud.bundles[host]) for s in cloud.services if s.name == "nft"]
    return {name: packets for name, packets, _ in seen[0].counters}


def test_no_forged_frame_is_seen_by_anyone_and_each_is_counted(cloud):
    wire, ears = start(cloud)
    before = refused(cloud)["nic_net1100_refused"]
    assert arrived(wire, ears, FORGED) == [set(), set()]
    assert arrived(wire, ears, ALLOWED) == [set(ALLOWED), set(ALLOWED)]
    until(lambda: refused(cloud)["nic_net1100_refused"] - before >= len(FORGED) - len(KEPT))
    assert refused(cloud)["nic_net1110_refused"] == 0


def test_without_the_filter_every_forged_frame_would_be_seen(cloud):
    wire, ears = start(cloud)
    netns.run(cloud.fabric.namespace("h1"), ["nft", "flush", "ruleset"])
    for here in arrived(wire, ears, FORGED):
        assert set(FORGED) - KEPT <= here
    assert len(cloud.ensure("h1")) == 1
    assert arrived(wire, ears, FORGED) == [set(), set()]


def test_a_port_without_addresses_is_held_to_its_mac_alone(cloud):
    plain = PortFilter(MINE.id, MINE.segment, MINE.mac, None)
    wire, ears = start(cloud, plain)
    blocked = {name for name in FORGED if name.startswith("MAC") or "VLAN" in name} | KEPT
    for here in arrived(wire, ears, FORGED):
        assert here == set(FORGED) - blocked


def test_an_offering_that_lets_forge_holds_nothing_but_the_network(cloud):
    wire, ears = start(cloud, held(10, forged=True))
    blocked = {name for name in FORGED if "VLAN" in name} | KEPT
    for here in arrived(wire, ears, FORGED):
        assert here == set(FORGED) - blocked


def test_an_unknown_port_of_a_guest_neither_sends_nor_receives(cloud):
    wire, ears = start(cloud)
    space = cloud.fabric.namespace("h1")
    name = port_name("somebody's")
    netns.run(space, ["ip", "link", "add", name, "type", "veth", "peer", "stray"])
    for end in (name, "stray"):
        netns.run(space, ["ip", "link", "set", end, "up"])
    netns.run(space, ["ip", "link", "set", name, "master", "brvx-5001"])
    with netns.entered(space):
        stray = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        stray.bind(("stray", 3))
    until(lambda: "forwarding" in netns.run(space, ["bridge", "link", "show", "dev", name]))
    assert arrived(stray, ears, ALLOWED, wire) == [set(), set()]
    assert arrived(wire, ears, ALLOWED) == [set(ALLOWED), set(ALLOWED)]
    stray.setblocking(False)
    with suppress(BlockingIOError):
        while packet := stray.recvfrom(4096):
            assert packet[1][2] == socket.PACKET_OUTGOING


def test_a_guest_does_not_reach_its_host(cloud):
    wire, _ = start(cloud)
    space = cloud.fabric.namespace("h1")
    with netns.entered(space):
        inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        inside.bind(("172.31.255.1", 4001))
    bridge = netns.run(space, ["ip", "-br", "link", "show", "brvx-5001"]).split()[2]
    inside.setblocking(False)
    frame = ether(MAC, 0x0800, ip4(OWN4, udp(4000, 4001, MARK), to="172.31.255.1"), bridge)
    arrived(wire, [], {"to the host": frame})
    with pytest.raises(BlockingIOError):
        inside.recv(100)
