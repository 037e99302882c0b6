"""A host's filter, decided from facts: it passes what the rules say, one by one, and no rule stops another's."""

import random as chance
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.hypervisor.namespace import Namespace, groups, rule_pieces
from drivers.hypervisor.namespace.config import port_name
from drivers.hypervisor.namespace.filters import link_local
from drivers.intervals import disjoint
from drivers.security import GroupMembers, GroupRule, PortFilter, SecurityGroup
from drivers.vocabulary import HostFacts, Segment
from systemvm.services import elements
from systemvm.verdicts import SETS, First, Judge

NET = Segment("net", "vxlan://5001", "Guest")
DRIVER = Namespace()
OWN = {4: "10.1.1.5", 6: "2001:db8::5"}
MAC = "02:00:00:00:00:05"

# Few values, so that rules overlap, nest, touch and repeat each other.
CIDRS = st.sampled_from(
    [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.1.0/24",
        "10.1.1.128/25",
        "10.1.1.9/32",
        "10.1.1.9/8",
        "10.2.0.0/15",
        "::/0",
        "2001:db8::/32",
        "2001:db8::/64",
        "2001:db8::9/128",
    ]
)
PORTS = st.sampled_from([0, 1, 21, 22, 23, 80, 65534, 65535])
OCTETS = st.sampled_from([-1, 0, 3, 8, 128, 255])
NAMES = st.sampled_from(["a", "b", "c"])
ODD = st.one_of(st.integers(-3, 70000), st.sampled_from([-1, 255, 256, 65536]))


def rules(numbers, **more):
    ported = st.tuples(st.sampled_from(["tcp", "udp"]), PORTS, PORTS).map(lambda r: (r[0], min(r[1:]), max(r[1:])))
    whole = st.sampled_from([("tcp", -1, -1), ("all", -1, -1), ("47", 0, 0), ("6", 0, 0), ("17", 9, 9), ("1", 0, 0)])
    icmp = st.tuples(st.sampled_from(["icmp", "icmpv6"]), OCTETS, OCTETS)
    heads = st.one_of(ported, whole, icmp, *more.get("heads", ()))
    ends = st.one_of(
        st.tuples(st.lists(more.get("cidrs", CIDRS), max_size=3).map(tuple), st.just("")),
        st.tuples(st.just(()), NAMES),
    )
    return st.builds(lambda n, head, end: GroupRule(f"rule-{n}", *head, *end), numbers, heads, ends)


MEMBERS = st.fixed_dictionaries(
    {
        name: st.lists(st.sampled_from(["10.1.1.9", "10.1.1.10", "192.0.2.1", "2001:db8::9", "2001:db8::a"]))
        for name in ("a", "b", "c")
    }
)
FAR = {
    4: st.sampled_from(["10.1.1.9", "10.1.1.10", "10.1.1.200", "10.3.0.1", "192.0.2.1"]),
    6: st.sampled_from(["2001:db8::9", "2001:db8::a", "2001:db8:0:1::1", "2001:db9::1"]),
}


@st.composite
def packets(draw):
    version = draw(st.sampled_from([4, 6]))
    protocol = draw(st.sampled_from([6, 17, 1, 58, 47, 0, 255]))
    first, second = draw(st.tuples(PORTS, PORTS)), draw(st.tuples(OCTETS, OCTETS))
    icmp = protocol == {4: 1, 6: 58}[version]
    pair = tuple(max(value, 0) for value in second) if icmp else first if protocol in (6, 17) else (0, 0)
    ends = [int(ip_address(draw(FAR[version]))), int(ip_address(OWN[version]))]
    return First(version, *ends, protocol, *pair)


def told(rule, packet, far, members):
    """Say of one rule alone whether it lets a packet pass, whose other end is ``far``."""
    protocol = {"6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6"}.get(rule.protocol, rule.protocol)
    whole = protocol != rule.protocol or protocol == "all"
    numbers = {"tcp": {6}, "udp": {17}, "icmp": {{4: 1, 6: 58}[packet.version]}, "icmpv6": {58}}
    if protocol == "icmpv6" and packet.version == 4:
        return False
    if protocol != "all" and packet.protocol not in numbers.get(
        protocol, {int(protocol) if protocol.isdigit() else -1}
    ):
        return False
    if protocol in ("tcp", "udp") and not whole and (rule.start, rule.end) != (-1, -1):
        fits = rule.start <= packet.second <= rule.end
    elif protocol in ("icmp", "icmpv6") and not whole:
        fits = rule.start in (-1, packet.first) and rule.end in (-1, packet.second)
    else:
        fits = True
    address = ip_address(far.to_bytes({4: 4, 6: 16}[packet.version], "big"))
    near = any(address in ip_network(cidr, strict=False) for cidr in rule.cidrs)
    return fits and (near or any(address == ip_address(text) for text in members.get(rule.group, ())))


def planned(port, found, members):
    facts = HostFacts("h", "h", (NET,), (), (), (), (port,), found, tuple(map(GroupMembers, members, members.values())))
    return DRIVER.plan(facts)


def judge(config, port):
    zone = config.segments[0].zone
    return Judge({port_name(port.nic): zone}, config.filters.elements), zone


@settings(deadline=None, max_examples=80)
@given(
    st.lists(rules(st.integers(0, 99)), max_size=6),
    st.lists(rules(st.integers(0, 99)), max_size=6),
    MEMBERS,
    st.lists(packets(), min_size=1, max_size=20),
)
def test_a_connection_may_begin_where_one_of_the_rules_says_so(first, second, members, sent):
    port = PortFilter("n", "net", MAC, tuple(OWN.values()), ("g1", "g2"))
    members = {name: tuple(sorted(set(texts))) for name, texts in members.items()}
    found = (SecurityGroup("g1", tuple(first), ()), SecurityGroup("g2", tuple(second), tuple(second)))
    config = planned(port, found, members)
    assert config.filters.refused == ()
    asked, zone = judge(config, port)
    for packet in sent:
        inward = any(told(rule, packet, packet.source, members) for rule in first + second)
        assert asked.judges(zone, packet) == inward, packet
        back = packet._replace(source=packet.destination, destination=packet.source)
        outward = not second or any(told(rule, back, back.destination, members) for rule in second)
        assert asked.judges(zone, back) == outward, back


STRANGE = st.one_of(
    CIDRS,
    st.sampled_from(["", "10.0.0.0/33", "0/0", "::/129", "fe80::1%eth0/64", "10.0.0.1 }", "x", "1.2.3.4/-1", "٣/8"]),
)
HEADS = (
    st.tuples(st.sampled_from(["tcp", "udp", "icmp", "icmpv6", "all", "esp", "", "256", "-1", "²", "tcp }"]), ODD, ODD),
)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(rules(st.integers(0, 99), cidrs=STRANGE, heads=HEADS), max_size=12),
    st.dictionaries(NAMES, st.lists(STRANGE, max_size=3).map(tuple)),
    st.lists(packets(), min_size=1, max_size=10),
)
def test_what_one_tenant_wrote_changes_nothing_for_another(odd, members, sent):
    mine, other = (
        PortFilter("n", "net", MAC, tuple(OWN.values()), ("mine",)),
        SecurityGroup("odd", tuple(odd), tuple(odd)),
    )
    strange = PortFilter("o", "net", "02:00:00:00:00:06", ("10.1.1.6",), ("odd",))
    good = SecurityGroup(
        "mine", (GroupRule("r", "tcp", 22, 22, ("10.1.1.0/24",)), GroupRule("s", "udp", 1, 80, (), "d")), ()
    )
    known = {"d": ("10.1.1.200",)}
    alone, zone = judge(planned(mine, (good,), known), mine)
    all_members = tuple(map(GroupMembers, members | known, (members | known).values()))
    facts = HostFacts("h", "h", (NET,), (), (), (), (mine, strange), (good, other), all_members)
    config = DRIVER.plan(facts)
    _, found = DRIVER.render(config)
    assert not [bad for entry in found for bad in elements.unsafe(entry.items)]
    together = Judge({port_name("n"): zone}, config.filters.elements)
    assert [together.judges(zone, packet) for packet in sent] == [alone.judges(zone, packet) for packet in sent]
    assert {unit for unit, _ in config.filters.refused} <= {rule.id for rule in odd} | {"odd"} | set(members)


SHREDS = {
    "nested ports": lambda n: GroupRule(f"s{n}", "tcp", n, 65535 - n, (f"10.{n % 250}.0.0/{9 + n % 20}",)),
    "overlapping ports of many": lambda n: GroupRule(f"s{n}", "tcp", n, 30000 + n, (f"10.{n % 250}.{n // 250}.0/24",)),
    "one port for each of nested networks": lambda n: GroupRule(f"s{n}", "tcp", n, n, (f"10.0.0.0/{8 + n % 24}",)),
    "overlapping ports of groups": lambda n: GroupRule(f"s{n}", "tcp", n, 30000 + n, (), f"h{n % 8}"),
    "single ports": lambda n: GroupRule(f"s{n}", "tcp", n, n, (f"10.{n % 250}.{n // 250}.0/24",)),
}


@pytest.mark.parametrize("make", SHREDS.values(), ids=SHREDS)
def test_ten_thousand_odd_rules_are_not_many_more_elements(make):
    group = SecurityGroup("g", tuple(map(make, range(10_000))), ())
    config = planned(PortFilter("n", "net", MAC, tuple(OWN.values()), ("g",)), (group,), {})
    assert config.filters.refused == ()
    assert 1 <= sum(len(items) for name, items in config.filters.elements.items() if name.startswith("in_")) <= 21_000


def test_rules_that_cut_each_other_into_shreds_let_nothing_pass_and_say_so(monkeypatch):
    monkeypatch.setattr(rule_pieces, "disjoint", lambda boxes, _=0: disjoint(boxes, 500))
    wild = chance.Random(1)
    nets = [f"10.{wild.randrange(4)}.0.0/{wild.randrange(8, 33)}" for _ in range(900)]
    shreds = [GroupRule(f"s{n}", "tcp", 7 * n, 7 * n + wild.randrange(900), (net,)) for n, net in enumerate(nets)]
    mine = PortFilter("n", "net", MAC, tuple(OWN.values()), ("good",))
    theirs = PortFilter("m", "net", MAC, ("10.1.1.6",), ("bad",))
    good = SecurityGroup("good", (GroupRule("r", "all", -1, -1, ("0.0.0.0/0",)),), ())
    groups_ = (SecurityGroup("bad", tuple(shreds), ()), good)
    config = DRIVER.plan(HostFacts("h", "h", (NET,), (), (), (), (mine, theirs), groups_, ()))
    asked, zone = judge(config, mine)
    packet = First(4, int(ip_address("192.0.2.1")), int(ip_address(OWN[4])), 6, 1, 22)
    assert asked.judges(zone, packet)
    assert {unit for unit, _ in config.filters.refused} == {"bad", *(rule.id for rule in shreds)}


def test_numbers_are_never_shared_and_stay_when_others_come():
    keys = [("profile", str(n)) for n in range(3000)]
    few, many = groups.numbered(keys[:1500], 0xFFFF), groups.numbered(keys, 0xFFFF)
    assert len(set(many.values())) == len(many)
    assert set(many.values()) <= set(range(1, 0x10000))
    assert sum(many[key] == number for key, number in few.items()) > 1400
    assert len(set(groups.numbered(keys[:50], 50).values())) == 50


def test_one_more_member_is_one_more_element():
    port = PortFilter("n", "net", MAC, tuple(OWN.values()), ("g",))
    found = (SecurityGroup("g", tuple(GroupRule(f"r{n}", "tcp", n, n, (), "h") for n in range(1, 200)), ()),)
    before = planned(port, found, {"h": ("10.1.1.9",)}).filters.elements
    after = planned(port, found, {"h": ("10.1.1.10", "10.1.1.9")}).filters.elements
    changed = {name: set(after[name]) - set(before[name]) for name in after if after[name] != before[name]}
    assert {name: len(items) for name, items in changed.items()} == {"circles4": 1}


def test_what_decides_is_what_a_revocation_looks_at():
    port = PortFilter("n", "net", MAC, tuple(OWN.values()), ("g",))
    names = set(planned(port, (), {}).filters.elements)
    assert names > SETS
    assert names - SETS == {
        "lladdrs", "macs", "ports", "refused", "requests", "senders", "solicitors", "targets", "zones",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("port", "sentence"),
    [
        (PortFilter("n", "net", "02:00:00:00:00:0g", ()), "The MAC '02:00:00:00:00:0g' of NIC n is refused"),
        (PortFilter("n", "net", MAC, ("10.1.1.256",)), "'10.1.1.256' does not appear to be an IPv4 or IPv6 address"),
    ],
)
def test_a_port_that_cannot_be_held_sends_nothing_and_says_why(port, sentence):
    config = DRIVER.plan(HostFacts("h", "h", (NET,), (), (), (), (port,)))
    assert not any(config.filters.elements.values())
    assert config.filters.refused[0][0] == "n"
    assert sentence in config.filters.refused[0][1]


def test_an_interface_gives_itself_this_address():
    assert link_local("02:00:4c:4f:4f:50") == "fe80::4cff:fe4f:4f50"
