"""Network ACLs: the elements' verdict for a packet is that of the lowest number that matches it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.network.virtual_router import acl
from drivers.vocabulary import Network
from drivers.vpc import AclItem

TIER = IPv4Network("10.1.1.0/24")
NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17}


class Packet(NamedTuple):
    """A new connection's first packet, as one side of a tier sees it; ``first``/``second``: port, or type and code."""

    ingress: bool
    protocol: int
    first: int
    second: int
    other: int


def tier(*items):
    return Network("n", str(TIER), "10.1.1.1", "02:00:00:00:00:01", "", frozenset({"NetworkACL"}), acl=items)


def model(items, packet):
    """What CloudStack promises: the first match by number; else nothing comes in, and all leaves if no rule is egress."""
    there = sorted((item for item in items if item.ingress is packet.ingress), key=lambda item: (item.number, item.id))
    for item in there:
        if matches(item, packet):
            return item.allow, item.id
    return not packet.ingress and not there, ""


def matches(item, packet):
    if item.cidrs and not any(IPv4Address(packet.other) in IPv4Network(cidr) for cidr in item.cidrs):
        return False
    if item.protocol == "all":
        return True
    if NUMBERS.get(item.protocol, item.protocol) != (
        packet.protocol if item.protocol in NUMBERS else str(packet.protocol)
    ):
        return False
    if item.protocol in ("tcp", "udp"):
        return item.start == -1 or item.start <= packet.first <= item.end
    if item.protocol == "icmp":
        return item.start in (-1, packet.first) and (item.start == -1 or item.end in (-1, packet.second))
    return True


def span(text):
    if "/" in text or "." in text:
        if "-" in text:
            first, last = text.split("-")
            return int(IPv4Address(first)), int(IPv4Address(last))
        block = IPv4Network(text)
        return int(block[0]), int(block[-1])
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def judge(elements, packet):
    """What the kernel says: one look-up in the map that the chain asks, and drop where there is nothing."""
    kind = {6: "ports", 17: "ports", 1: "icmp"}.get(packet.protocol, "other")
    asked = {
        "ports": (packet.first,),
        "icmp": (packet.first, packet.second),
        "other": (packet.protocol,),
    }[kind]
    asked = (*asked, int(TIER[5]), packet.other)
    found = []
    for element in elements[f"acl_{'in' if packet.ingress else 'out'}_{kind}"]:
        key, _, verdict = element.rpartition(" : ")
        key, _, comment = key.partition(" counter comment ")
        parts = key.strip().split(" . ")
        if kind == "ports" and NUMBERS[parts.pop(0)] != packet.protocol:
            continue
        if all(low <= value <= high for value, (low, high) in zip(asked, map(span, parts), strict=True)):
            found.append((verdict in ("accept", "return"), comment.strip('"')))
    assert len(found) < 2, "two elements overlap"
    return found[0] if found else (False, "")


cidrs = st.lists(
    st.sampled_from(("0.0.0.0/0", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.128/25", "10.1.2.7/32", "198.51.100.0/24")),
    max_size=3,
    unique=True,
).map(tuple)
edges = st.sampled_from((1, 22, 79, 80, 81, 443, 1024, 65535))


@st.composite
def rules(draw):
    found = []
    for index in range(draw(st.integers(0, 8))):
        protocol = draw(st.sampled_from(("tcp", "udp", "icmp", "all", "47", "50", "6")))
        start = end = -1
        if protocol in ("tcp", "udp") and draw(st.booleans()):
            start, end = sorted((draw(edges), draw(edges)))
        if protocol == "icmp" and draw(st.booleans()):
            start, end = draw(st.sampled_from((0, 3, 8))), draw(st.sampled_from((-1, 0, 1)))
        if protocol == "6":
            protocol = "tcp"
        number = draw(st.integers(1, 1000).filter(lambda value: value not in [item.number for item in found]))
        item = AclItem(f"i{index}", number, draw(st.booleans()), draw(st.booleans()), protocol, start, end, draw(cidrs))
        found.append(item)
    return found


packets = st.builds(
    Packet,
    st.booleans(),
    st.sampled_from((6, 17, 1, 47, 50, 2)),
    edges | st.sampled_from((0, 3, 8)),
    st.sampled_from((0, 1, 2)),
    st.sampled_from(("10.1.2.7", "10.1.2.200", "10.1.3.1", "198.51.100.9", "8.8.8.8", "255.255.255.255")).map(
        lambda text: int(IPv4Address(text))
    ),
)


@settings(max_examples=400, deadline=None)
@given(rules(), st.lists(packets, min_size=1, max_size=20))
def test_the_elements_judge_as_the_numbers_say(items, probes):
    found = acl.elements(tier(*items))
    for packet in probes:
        if packet.protocol == 1 and packet.first > 255:
            continue
        assert judge(found, packet) == model(items, packet)


@settings(max_examples=50, deadline=None)
@given(rules(), st.randoms())
def test_the_order_of_rows_changes_nothing(items, chance):
    shuffled = list(items)
    chance.shuffle(shuffled)
    first, second = acl.elements(tier(*items)), acl.elements(tier(*shuffled))
    assert {name: sorted(texts) for name, texts in first.items()} == {
        name: sorted(texts) for name, texts in second.items()
    }


def test_a_tier_without_acl_lets_everything_through():
    free = Network("n", str(TIER), "10.1.1.1", "02:00:00:00:00:01", "", frozenset())
    assert judge(acl.elements(free), Packet(True, 6, 80, 0, 1))[0]
    assert judge(acl.elements(free), Packet(False, 50, 0, 0, 1))[0]


@pytest.mark.parametrize(
    ("item", "wrong"),
    [
        (AclItem("i", 1, True, True, "tpc"), "protocol 'tpc'"),
        (AclItem("i", 1, True, True, "256"), "protocol '256'"),
        (AclItem("i", 1, True, True, "tcp", 90, 80), "ports 90 to 80"),
        (AclItem("i", 1, True, True, "icmp", 300, 0), "ICMP type 300"),
        (AclItem("i", 1, True, True, "all", cidrs=("x",)), "CIDR"),
        (AclItem('i"', 1, True, True, "all"), "id"),
    ],
)
def test_what_cannot_be_is_refused(item, wrong):
    with pytest.raises(ValueError, match=wrong):
        acl.elements(tier(item))
