"""Real packets through the rendered rules: what passes, with which addresses, and what does not."""

import socket
from dataclasses import replace

import pytest

from drivers.balancing import LoadBalancer, Member
from drivers.network.virtual_router import VirtualRouter
from drivers.vocabulary import EgressRule, IngressRule, PortForward, StaticNat
from systemvm import netns
from tests.golden.router.cases import ANY, FIRST, SECOND, appliance, network, two_ranges, uid
from tests.netns.router_lab import Lab, ask, ping, until

pytestmark = pytest.mark.netns
UDP = socket.SOCK_DGRAM
STRANGER = "198.51.100.7"


@pytest.fixture(scope="module")
def lab():
    lab = Lab()
    for guest in (lab.g5, lab.g6):
        for port in (22, 80, 9000, 9001, 9002, 7005):
            lab.serve(guest, port)
        lab.serve(guest, 53, UDP)
    lab.serve(lab.outside, 5000)
    lab.serve(lab.outside, 5001)
    lab.serve(lab.outside, 5000, UDP)
    yield lab
    lab.remove()


@pytest.fixture
def routed(lab):
    def apply(facts=None, **more):
        router = VirtualRouter()
        lab.apply(router.render(router.plan(facts or appliance(network(**more)))))
        return lab

    return apply


def ingress(number, address=FIRST, protocol="tcp", start=1, end=65535, *, sources=ANY):
    return IngressRule(uid(6, number), address, protocol, start, end, sources)


def forward(number, port, private, guest="10.1.1.5", end=None, **more):
    end = end or port
    return PortForward(
        uid(8, number), FIRST, more.pop("protocol", "tcp"), port, end, guest, private, private + end - port, **more
    )


def test_source_nat_shows_the_public_address(routed):
    lab = routed()
    assert ask(lab.g5, "203.0.113.1", 5000) == [FIRST, 5000, "o"]
    assert ping(lab.g5, "203.0.113.1")


def test_nothing_comes_in_without_a_rule(routed):
    lab = routed(forwards=(forward(1, 2222, 22),))
    assert ask(lab.outside, FIRST, 2222) is None
    assert not ping(lab.outside, FIRST)


def test_a_forward_passes_once_ingress_allows_it_and_keeps_the_source(routed):
    lab = routed(forwards=(forward(1, 2222, 22),), ingress=(ingress(1, start=2222, end=2222),))
    assert ask(lab.outside, FIRST, 2222) == ["203.0.113.1", 22, "g5"]
    assert ask(lab.outside, FIRST, 22) is None
    assert ask(lab.outside, SECOND, 2222) is None


def test_a_range_keeps_its_offsets(routed):
    lab = routed(
        forwards=(forward(1, 8000, 9000, end=8002), forward(2, 9000, 9000, "10.1.1.6", end=9002)), ingress=(ingress(1),)
    )
    assert [ask(lab.outside, FIRST, 8000 + n) for n in range(3)] == [["203.0.113.1", 9000 + n, "g5"] for n in range(3)]
    assert ask(lab.outside, FIRST, 9001) == ["203.0.113.1", 9001, "g6"]
    assert ask(lab.outside, FIRST, 8003) is None


def test_udp_is_forwarded(routed):
    lab = routed(forwards=(forward(1, 5353, 53, protocol="udp"),), ingress=(ingress(1, protocol="udp"),))
    assert ask(lab.outside, FIRST, 5353, kind=UDP) == ["203.0.113.1", 53, "g5"]
    assert ask(lab.outside, FIRST, 5353) is None


def test_a_forward_is_for_its_sources_only(routed):
    lab = routed(
        forwards=(
            forward(1, 2222, 22, sources=("198.51.100.0/24",)),
            forward(2, 22, 22, "10.1.1.6", sources=("198.51.100.7/32",)),
            forward(3, 2222, 22, "10.1.1.6"),
        ),
        ingress=(ingress(1),),
    )
    assert ask(lab.outside, FIRST, 2222, STRANGER) == [STRANGER, 22, "g5"]
    assert ask(lab.outside, FIRST, 2222) == ["203.0.113.1", 22, "g6"]
    assert ask(lab.outside, FIRST, 22, STRANGER) == [STRANGER, 22, "g6"]
    assert ask(lab.outside, FIRST, 22) is None


def test_ingress_is_for_its_sources_only_and_each_rule_counts_its_own(routed):
    lab = routed(
        forwards=(forward(1, 2222, 22),),
        ingress=(
            ingress(1, start=1, end=4000, sources=("198.51.100.0/24",)),
            ingress(2, start=2000, sources=("192.0.2.0/24",)),
        ),
    )
    assert ask(lab.outside, FIRST, 2222, STRANGER) == [STRANGER, 22, "g5"]
    assert ask(lab.outside, FIRST, 2222) is None
    found = lab.nft("list", "set", "inet", "netspine", "ingress_ports")
    elements = [item["elem"] for entry in found if "set" in entry for item in entry["set"]["elem"]]
    packets = {}
    for element in elements:
        packets[element["comment"]] = packets.get(element["comment"], 0) + element["counter"]["packets"]
    assert packets == {uid(6, 1): 1, uid(6, 2): 0}


def test_static_nat_goes_both_ways(routed):
    lab = routed(static_nats=(StaticNat(uid(1, 2), SECOND, "10.1.1.6"),), ingress=(ingress(1, SECOND),))
    assert ask(lab.outside, SECOND, 7005) == ["203.0.113.1", 7005, "g6"]
    assert ask(lab.g6, "203.0.113.1", 5000) == [SECOND, 5000, "o"]
    assert ask(lab.g5, "203.0.113.1", 5000) == [FIRST, 5000, "o"]


def test_hairpin_reaches_forward_and_static_nat(routed):
    lab = routed(
        forwards=(forward(1, 2222, 22),),
        static_nats=(StaticNat(uid(1, 2), SECOND, "10.1.1.6"),),
        ingress=(ingress(1), ingress(2, SECOND)),
        egress_allow=False,
    )
    assert ask(lab.g6, FIRST, 2222) == ["10.1.1.1", 22, "g5"]
    assert ask(lab.g5, FIRST, 2222) == ["10.1.1.1", 22, "g5"]
    assert ask(lab.g5, SECOND, 80) == ["10.1.1.1", 80, "g6"]
    assert ask(lab.g6, SECOND, 80) == ["10.1.1.1", 80, "g6"]


def test_icmp_by_type_and_code(routed):
    echo = ingress(1, protocol="icmp", start=8, end=0, sources=("203.0.113.0/24",))
    lab = routed(ingress=(echo,), static_nats=(StaticNat(uid(1, 2), SECOND, "10.1.1.6"),))
    assert ping(lab.outside, FIRST)
    assert not ping(lab.outside, FIRST, STRANGER)
    assert not ping(lab.outside, SECOND)
    lab = routed(ingress=(ingress(1, protocol="icmp", start=13, end=-1),))
    assert not ping(lab.outside, FIRST)


def test_all_opens_every_protocol(routed):
    nat = (StaticNat(uid(1, 2), SECOND, "10.1.1.6"),)
    lab = routed(ingress=(ingress(1, SECOND, "all", -1, -1),), static_nats=nat)
    assert ping(lab.outside, SECOND)
    assert ask(lab.outside, SECOND, 80) == ["203.0.113.1", 80, "g6"]
    assert ask(lab.outside, SECOND, 53, kind=UDP) == ["203.0.113.1", 53, "g6"]


def test_egress_is_closed_by_default_where_the_offering_says_so(routed):
    lab = routed(egress_allow=False)
    assert ask(lab.g5, "203.0.113.1", 5000) is None
    assert not ping(lab.g5, "203.0.113.1")


def test_egress_rules_open_what_is_closed(routed):
    lab = routed(
        egress_allow=False,
        egress=(
            EgressRule(uid(7, 1), "tcp", 5000, 5000, ("10.1.1.5/32",), ("203.0.113.0/24",)),
            EgressRule(uid(7, 2), "icmp", 8, 0, ("10.1.1.6/32",), ()),
        ),
    )
    assert ask(lab.g5, "203.0.113.1", 5000) == [FIRST, 5000, "o"]
    assert ask(lab.g5, STRANGER, 5000) is None
    assert ask(lab.g5, "203.0.113.1", 5001) is None
    assert ask(lab.g6, "203.0.113.1", 5000) is None
    assert ask(lab.g5, "203.0.113.1", 5000, kind=UDP) is None
    assert ping(lab.g6, "203.0.113.1")
    assert not ping(lab.g5, "203.0.113.1")


def test_egress_rules_close_what_is_open(routed):
    lab = routed(egress=(EgressRule(uid(7, 1), "tcp", 5000, 5000, (), (f"{STRANGER}/32",)),))
    assert ask(lab.g5, STRANGER, 5000) is None
    assert ask(lab.g5, STRANGER, 5001) == [FIRST, 5001, "o"]
    assert ask(lab.g5, "203.0.113.1", 5000) == [FIRST, 5000, "o"]


def test_the_router_itself_is_closed(routed):
    lab = routed(ingress=(ingress(1), ingress(2, protocol="udp")))
    lab.serve(lab.router, 80)
    lab.serve(lab.router, 2000)
    assert ask(lab.g5, "10.1.1.1", 80) == ["10.1.1.5", 80, "r"]
    assert ask(lab.g5, "169.254.169.254", 80) == ["10.1.1.5", 80, "r"]
    assert ask(lab.g5, "10.1.1.1", 2000) is None
    assert ask(lab.outside, FIRST, 80) is None
    assert ping(lab.g5, "10.1.1.1")


def test_private_addresses_are_not_reached_from_outside(routed):
    lab = routed(ingress=(ingress(1),))
    lab.ip(lab.outside, "route replace 10.1.1.0/24 via 203.0.113.5")
    try:
        assert ask(lab.outside, "10.1.1.5", 80) is None
        assert not ping(lab.outside, "10.1.1.1")
    finally:
        lab.ip(lab.outside, "route del 10.1.1.0/24")


def test_a_guest_with_a_foreign_address_gets_nowhere(routed):
    lab = routed()
    lab.ip(lab.g5, "addr add 10.9.9.9/32 dev eth0")
    netns.run(lab.outside, ["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.o0.rp_filter=0"])
    try:
        with netns.entered(lab.outside):
            server = socket.socket(socket.AF_INET, UDP)
        with server:
            server.bind(("203.0.113.1", 6000))
            server.settimeout(2)
            ask(lab.g5, "203.0.113.1", 6000, "10.9.9.9", kind=UDP, timeout=0.1)
            ask(lab.g5, "203.0.113.1", 6000, "10.1.1.5", kind=UDP, timeout=0.1)
            assert server.recvfrom(16)[1][0] == FIRST, "the one that was sent first never came"
    finally:
        lab.ip(lab.g5, "addr del 10.9.9.9/32 dev eth0")
        netns.run(lab.outside, ["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1"])


def test_bytes_are_counted_for_address_and_network(routed):
    lab = routed(forwards=(forward(1, 2222, 22),), ingress=(ingress(1),))
    network_id, address_id = uid(2, 1).replace("-", ""), uid(1, 1).replace("-", "")
    assert ask(lab.outside, FIRST, 2222)
    assert ask(lab.outside, SECOND, 2222) is None
    counted = until(
        lambda: [lab.counter(f"{way}_{item}") for way in ("in", "out") for item in (network_id, address_id)]
    )
    assert counted[0] == counted[1] > 0
    assert counted[2] == counted[3] > 0
    assert lab.counter(f"in_{uid(1, 2).replace('-', '')}") == 0


def test_a_second_range_answers_through_its_own_gateway(routed):
    facts = two_ranges()
    net = network(static_nats=facts.networks[0].static_nats, ingress=(ingress(1, "192.0.2.9"),))
    lab = routed(replace(facts, networks=(net,)))
    # Asked by an address that is behind both gateways: only the mark brings the answer back on the wire it came by.
    assert ask(lab.outside, "192.0.2.9", 7005, STRANGER) == [STRANGER, 7005, "g5"]
    assert ask(lab.g5, "192.0.2.1", 5000) == ["192.0.2.9", 5000, "o"]
    assert ask(lab.g5, STRANGER, 5000) == ["192.0.2.9", 5000, "o"]
    assert ask(lab.g6, STRANGER, 5000) == [FIRST, 5000, "o"]


def test_udp_takes_turns(routed):
    members = (Member(uid(3, 5), "10.1.1.5"), Member(uid(3, 6), "10.1.1.6"))
    turns = LoadBalancer(uid(10, 1), "a", FIRST, 5353, 53, "roundrobin", "udp", members)
    fixed = LoadBalancer(uid(10, 2), "b", FIRST, 5454, 53, "source", "udp", members)
    lab = routed(balancers=(turns, fixed), ingress=(ingress(1, protocol="udp"),))
    answers = [ask(lab.outside, FIRST, 5353, kind=UDP) for _ in range(20)]
    assert sorted(answer[2] for answer in answers) == ["g5"] * 10 + ["g6"] * 10
    assert len({ask(lab.outside, FIRST, 5454, kind=UDP)[2] for _ in range(10)}) == 1
