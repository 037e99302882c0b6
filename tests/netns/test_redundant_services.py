"""What a redundant pair serves besides IPv4 to one network: tiers of a VPC, IPv6, tunnels; across a change of hands."""

import hashlib
import itertools
import json
import random
import time
from dataclasses import replace

import pytest

from drivers.network.virtual_router import VirtualRouter
from drivers.vocabulary import Network, Nic, PortForward
from drivers.vpc import AclItem, Vpc
from drivers.wireguard import Passage, Wireguard, WireguardPeer
from systemvm import netns
from systemvm.apply import Applier
from systemvm.bundle import Bundle
from systemvm.ledger import Ledger
from systemvm.services import HostSettings
from systemvm.services.kinds import KINDS
from tests.netns import router_lab, vpn_lab
from tests.netns.redundant_faults import owners, settled, strike
from tests.netns.redundant_lab import GUEST, OUTSIDE, OWNER, PUBLIC, Lab, Traffic, answering, balanced, uid, until
from tests.netns.router_lab import ping
from tests.netns.wireguard_lab import Client, genkey

pytestmark = pytest.mark.netns
OTHER = uid(2, 9)


@pytest.fixture
def make(tmp_path):
    """Make a lab whose members' facts are shaped; it is taken down afterwards."""
    made = []

    def lab(shape):
        made.append(Lab(tmp_path / "lab", shape))
        return made[0]

    yield lab
    for each in made:
        each.close()


def hand_over(lab, fault="is paused"):
    """Have the other take over; return (how it is undone, the new owner, when it began)."""
    settled(lab)
    first = lab.owner()
    began = time.monotonic()
    undo = strike(lab, fault, first, random.Random(1))
    until(lab.other(first).holds, 2)
    return undo, lab.other(first), began


def one_after_the_other(lab, since, most):
    spans = owners(lab, since)
    assert len(spans) <= most, spans


# Tiers of a VPC

ALL = AclItem(uid(12, 1), 1, True, True, "all", cidrs=("0.0.0.0/0",))


def tier(number, name, mac, **more):
    services = frozenset({"NetworkACL", "SourceNat", "PortForwarding"})
    acl = (ALL, ALL._replace(id=uid(12, 2), number=2, ingress=False))
    return Network(name, f"10.1.{number}.0/24", f"10.1.{number}.1", mac, "cs1.example", services, acl=acl, **more)


class TwoTiers:
    """Facts of a VPC of one or two tiers, with a port that leads into the first."""

    count = 2

    def __call__(self, member, facts):
        web, other = member.mac("eth0"), member.mac("eth3")
        forward = PortForward(uid(8, 1), PUBLIC, "tcp", 7000, 7000, GUEST, 7000, 7000)
        second = Nic(uid(4, 3), other, OTHER, "Guest", "10.1.2.1", 24, "", 3, OTHER)
        return replace(
            facts,
            nics=(*facts.nics, second)[: 2 + self.count],
            addresses=tuple(address._replace(network="") for address in facts.addresses),
            networks=(tier(1, OWNER, web, forwards=(forward,)), tier(2, OTHER, other))[: self.count],
            vpc=Vpc(uid(14, 1), "shop", "10.1.0.0/16", "cs1.example"),
        )


def test_a_vpc_of_two_tiers_changes_hands_and_gains_and_loses_tiers(make):
    tiers = TwoTiers()
    lab = make(tiers)
    for member in lab.members:
        member.plug("eth3", "other")
    db = f"{lab.prefix}db"
    netns.ensure(db)
    try:
        lab.cable("db", "other", db, "eth0", "02:00:00:00:09:07", "10.1.2.7/24", "10.1.2.1")
        lab.bring_up()
        traffic = Traffic(lab)
        answering(lab)
        until(lambda: balanced(lab))
        assert ping(lab.guest, "10.1.2.7", timeout=2)
        assert ping(db, OUTSIDE, timeout=2)
        undo, second, began = hand_over(lab, "dies")
        until(lambda: ping(db, OUTSIDE, timeout=0.2) and ping(lab.guest, "10.1.2.7", timeout=0.2), 3)
        until(lambda: balanced(lab))
        gap = traffic.gap(began)
        print(f"VPC changed hands: {gap:.3f} s")
        assert gap < 0.8
        undo()
        lab.other(second).ensure()
        until(lambda: lab.owner() is second and lab.other(second).observe() == "BACKUP")
        for tiers.count in (1, 2, 1):
            began = time.monotonic()
            for member in lab.members:
                member.apply(lab.members)
                assert lab.owner() is second
            assert ping(db, OUTSIDE, timeout=1) is (tiers.count == 2)
            assert balanced(lab)
            assert traffic.gap(began) < 0.3
            one_after_the_other(lab, began, 1)
        assert not traffic.broken
    finally:
        netns.ensure_no(db)


# IPv6

OUTSIDE6 = "2001:db8::1"


def dual_stack(member, facts):
    guest, link, public = facts.nics
    (net,) = facts.networks
    net = replace(net, services=net.services | {"Dhcp", "Dns"}, cidr6="2001:db8:1::/64", gateway6="2001:db8:1::1")
    return replace(
        facts,
        nics=(guest, link, public._replace(address6="2001:db8::5", prefix6=64, gateway6=OUTSIDE6)),
        networks=(replace(net, egress_allow=True),),
    )


def default_routes(name):
    found = json.loads(netns.run(name, ["ip", "-6", "-j", "route", "show", "default"]))
    return {hop["gateway"] for route in found for hop in (route, *route.get("nexthops", ())) if "gateway" in hop}


def test_ipv6_changes_hands_and_its_connections_stay(make):
    lab = make(dual_stack)
    router_lab.Lab.ip(
        lab.outside, f"addr add {OUTSIDE6}/64 dev eth0 nodad", "route add 2001:db8:1::/64 via 2001:db8::5"
    )
    lab.bring_up()
    address = until(lambda: [text for text in addresses(lab.guest) if text.startswith("2001:db8:1")], 10)
    assert address == ["2001:db8:1::ff:fe00:905"]
    (before,) = until(lambda: default_routes(lab.guest), 10)
    # whoever answers for the addresses must answer for the one that is the guests' next hop, too
    assert [addresses(member.space, "link") for member in lab.members] == [[before]] * 2
    traffic = Traffic(lab, OUTSIDE6)
    until(lambda: len(traffic.turns) > 50)
    for fault in ("is paused", "dies"):
        undo, second, began = hand_over(lab, fault)
        turns = len(traffic.turns)
        until(lambda turns=turns: len(traffic.turns) > turns + 20)
        gap = traffic.gap(began)
        print(f"IPv6, {fault}: {gap:.3f} s")
        undo()
        lab.other(second).ensure()
        until(lambda second=second: lab.owner() is second and lab.other(second).observe() == "BACKUP")
        assert gap < 0.8
        one_after_the_other(lab, began, 2)
        assert default_routes(lab.guest) == {before}
    assert not traffic.broken


def addresses(name, scope="global"):
    found = json.loads(netns.run(name, ["ip", "-6", "-j", "addr", "show", "dev", "eth0", "scope", scope]))
    infos = itertools.chain.from_iterable(link.get("addr_info", ()) for link in found)
    return [info["local"] for info in infos if "local" in info and not info.get("tentative")]


# A site-to-site VPN


class Site:
    """The other end: a router of its own (203.0.113.6) with a guest (10.2.1.5)."""

    def __init__(self, lab, folder):
        self.prefix = f"{lab.prefix}s-"
        self.router, self.guest = f"{self.prefix}r-b", f"{self.prefix}g"
        netns.ensure(self.router)
        netns.ensure(self.guest)
        lab.cable("site", "public", self.router, "x0", "02:00:00:00:02:01")
        ip = router_lab.Lab.ip
        ip(self.guest, f"link add eth0 type veth peer name x1 address 02:00:00:00:02:02 netns {self.router}")
        ip(self.guest, "link set eth0 up", "addr add 10.2.1.5/24 dev eth0", "route add default via 10.2.1.1")
        self.applier = Applier(HostSettings("site", "", self.prefix, folder), Ledger(folder / "ledger"), KINDS)
        driver = VirtualRouter()
        wanted = vpn_lab.facts("b", vpn_lab.tunnel("b"))
        self.bundle = Bundle(wanted.target, wanted.name, "router", 1, *driver.render(driver.plan(wanted)))

    def apply(self):
        outcome = self.applier.apply(self.bundle)
        assert outcome.status == "applied", outcome

    def remove(self):
        self.applier.remove(self.bundle)
        netns.ensure_no(self.guest)
        netns.ensure_no(self.router)


def test_only_the_holder_has_the_tunnel_and_the_other_has_it_soon_after(make, tmp_path):
    lab = make(lambda _, facts: replace(facts, tunnels=(vpn_lab.tunnel("a"),)))
    site = Site(lab, tmp_path / "site")
    connection = vpn_lab.CONNECTION["a"]
    try:
        site.apply()
        lab.bring_up()
        lab.tend()
        until(lambda: lab.owner().states()[connection] == "Connected" and ping(lab.guest, "10.2.1.5", timeout=0.3), 10)
        for fault in ("is paused", "dies"):
            undo, second, began = hand_over(lab, fault)
            until(lambda: ping(lab.guest, "10.2.1.5", timeout=0.2), 10)
            print(f"{fault}: tunnel again after {time.monotonic() - began:.3f} s")
            assert second.states()[connection] == "Connected"
            assert ping(site.guest, GUEST, timeout=1)
            undo()
            until(lambda second=second: lab.other(second).states()[connection] == "Disconnected")
            one_after_the_other(lab, began, 2)
    finally:
        lab.over.set()
        site.remove()


# WireGuard

OWN, THEIRS = genkey(), genkey()


class Beyond(Client):
    """A site in the outside itself, which the router dials: 203.0.113.1, port 51821."""

    def __init__(self, lab):
        self.space, self.process = lab.outside, None
        self.handle = "tc" + hashlib.sha256(self.space.encode()).hexdigest()[:12]
        self.lab = lab
        lab.ip = router_lab.Lab.ip


def dialling(_, facts):
    peer = WireguardPeer(
        uid(13, 1),
        THEIRS[1],
        "10.250.0.2",
        endpoint=f"{OUTSIDE}:51821",
        keepalive=25,
        passages=(Passage("10.1.1.0/24"),),
    )
    tunnel = Wireguard(uid(12, 1), PUBLIC, 51820, "10.250.0.1", "10.250.0.0/24", 1420, OWN[0], (peer,))
    return replace(facts, wireguards=(tunnel,))


def test_the_holder_shakes_hands_with_the_peers_that_it_knows_the_place_of(make):
    lab = make(dialling)
    site = Beyond(lab)
    try:
        own = f"[Interface]\nPrivateKey = {THEIRS[0]}\nListenPort = 51821\n"
        site.up(f"{own}[Peer]\nPublicKey = {OWN[1]}\nAllowedIPs = 10.1.1.0/24, 10.250.0.1/32\n", "10.250.0.2/32")
        lab.bring_up()
        lab.tend()
        until(lambda: ping(lab.outside, GUEST, "10.250.0.2", timeout=0.2), 15)
        for fault in ("is paused", "dies"):
            undo, second, began = hand_over(lab, fault)
            until(lambda: ping(lab.outside, GUEST, "10.250.0.2", timeout=0.2), 10)
            took = time.monotonic() - began
            print(f"{fault}: handshake after {took:.3f} s")
            assert took < 5
            assert f"{uid(13, 1)}/handshake" in second.states()
            undo()
            one_after_the_other(lab, began, 2)
    finally:
        lab.over.set()
        site.down()
