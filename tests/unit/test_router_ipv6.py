"""IPv6 rules as set elements: every packet has the one rule that a reader would name, and bad facts are refused."""

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.network.virtual_router import VirtualRouter, ipv6
from drivers.quarantine import plan_around
from drivers.vocabulary import Ipv6Rule
from tests.golden.router.cases import network, uid, vpc_dual_stack, with_v6

BLOCK = IPv6Network("2001:db8:1::/64")
NEAR = ("2001:db8:1::/64", "2001:db8:1::/65", "2001:db8:1::5/128", "2001:db8:1:0:8000::/65", "2001:db8::/32")
FAR = ("::/0", "2001:db8:c::/48", "2001:db8:c:1::/64", "2001:db8:d::7/128")
STRANGERS = ("2001:db8:c::1", "2001:db8:c:1::9", "2001:db8:d::7", "fd00::1")
GUESTS = ("2001:db8:1::5", "2001:db8:1::6", "2001:db8:1:0:ffff::1")
PORTS = (1, 22, 80, 443, 65535)


@st.composite
def rules(draw):
    found = []
    for number in range(draw(st.integers(0, 7))):
        protocol = draw(st.sampled_from(("tcp", "udp", "icmp", "all")))
        first, last = -1, -1
        if protocol in ("tcp", "udp") and draw(st.booleans()):
            first, last = sorted(draw(st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS))))
        if protocol == "icmp":
            first = draw(st.sampled_from((-1, 1, 128)))
            last = -1 if first == -1 else draw(st.sampled_from((-1, 0, 3)))
        ends = (draw(st.lists(st.sampled_from(items), max_size=2, unique=True)) for items in (FAR, NEAR))
        found.append(Ipv6Rule(uid(12, number), protocol, first, last, *map(tuple, ends)))
    return found


def holds(text, value):
    """Whether an element's part (address, prefix, range or number) holds a value."""
    if "/" in text:
        return IPv6Address(value) in IPv6Network(text)
    if text.startswith("0-") or text.replace("-", "").isdigit():
        first, _, last = text.partition("-")
        return int(first) <= value <= int(last or first)
    first, _, last = text.partition("-")
    return int(IPv6Address(first)) <= int(IPv6Address(value)) <= int(IPv6Address(last or first))


def named(rule, source, guest, port):
    return (
        (not rule.sources or any(IPv6Address(source) in IPv6Network(item) for item in rule.sources))
        and (not rule.destinations or any(IPv6Address(guest) in IPv6Network(item) for item in rule.destinations))
        and (rule.start == -1 or rule.start <= port <= rule.end)
    )


@settings(max_examples=60, deadline=None)
@given(rules())
def test_every_packet_has_the_first_rule_that_names_it_and_no_other(made):
    found = ipv6._elements("ingress", made, (int(BLOCK.network_address), int(BLOCK.broadcast_address)))
    for protocol in ("tcp", "udp"):
        for source in STRANGERS:
            for guest in GUESTS:
                for port in PORTS:
                    first = next((r for r in made if r.protocol == protocol and named(r, source, guest, port)), None)
                    hits = []
                    for item in found.get("ingress_ports6", ()):
                        key, _, comment = item.partition(" counter comment ")
                        of, ports, sources, guests = key.split(" . ")
                        if of == protocol and holds(ports, port) and holds(sources, source) and holds(guests, guest):
                            hits.append(comment.strip('"'))
                    assert hits == ([first.id] if first else [])


@settings(max_examples=40, deadline=None)
@given(rules())
def test_no_rule_of_a_tenant_keeps_a_plan_from_being_made(made):
    facts = with_v6(network(), ingress6=tuple(made), egress6=tuple(made))
    odd = Ipv6Rule(uid(12, 99), "gre", -1, -1, ("10.0.0.0/8",), ())
    router = VirtualRouter()
    wanted = replace(facts.networks[0], ingress6=(*made, odd), egress6=(), egress_allow=False)
    _, refused = plan_around(router.plan, replace(facts, networks=(wanted,)))
    assert set(refused) == {odd.id}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cidr6": "2001:db8:1::/48"}, "a /64 must hold it"),
        ({"gateway6": "2001:db8:2::1"}, "a /64 must hold it"),
        ({"gateway6": "2001:db8:1::1%eth0"}, "IPv6 address"),
        ({"cidr6": "10.0.0.0/8"}, "IPv6 CIDR"),
        ({"mtu": 1279}, "1280"),
        ({"ingress6": (Ipv6Rule(uid(12, 1), "tcp", 1, 2, ("10.0.0.0/8",), ()),)}, "IPv6 CIDR"),
        ({"ingress6": (Ipv6Rule(uid(12, 1), "tcp", 1, 2, (), ("2001:db8:2::/64",)),)}, "not on its network"),
        ({"ingress6": (Ipv6Rule("a\nb", "tcp", 1, 2, (), ()),)}, "id"),
        ({"leases": (network().leases[0]._replace(address6="2001:db8:2::5"),)}, "is not in"),
        ({"leases": (network().leases[0]._replace(address6="2001:db8:1::5\n"),)}, "IPv6 address"),
    ],
)
def test_what_cannot_be_is_refused_by_name(change, said):
    facts = with_v6(network())
    with pytest.raises(ValueError, match=said):
        VirtualRouter().plan(replace(facts, networks=(replace(facts.networks[0], **change),)))


def test_a_router_without_a_network_that_has_ipv6_has_none_itself():
    facts = vpc_dual_stack()
    bare = tuple(replace(net, cidr6="", gateway6="") for net in facts.networks)
    config = VirtualRouter().plan(replace(facts, networks=bare))
    assert not [route for route in config.links.routes if ":" in route["to"]]
    assert not [one for interface in config.links.interfaces for one in interface.addresses if ":" in one]
    assert config.links.sysctls["net.ipv6.conf.all.disable_ipv6"] == "1"
    assert not [name for name in config.ruleset.elements if name.endswith("6")]
