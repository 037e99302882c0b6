"""Private VLANs with packets: who hears whom on one host and between two, and which tag is on the wire."""

import os
import re
from itertools import permutations

import pytest

from drivers.vocabulary import Nic, Segment, Shell
from systemvm.openflow import flows
from systemvm.ovs import Vswitch
from systemvm.services.segments import wanted
from tests.netns.hosts import until, zone
from tests.netns.test_host_vlans import capture

pytestmark = pytest.mark.netns

ISOLATED = Segment("i", "pvlan://900-i901", "Guest")
COMMUNITY = Segment("c", "pvlan://900-c902", "Guest")
OTHERS = Segment("d", "pvlan://900-c903", "Guest")
PROMISCUOUS = Segment("p", "pvlan://900-p900", "Guest", secondaries=(901, 902, 903))
SEGMENTS = (ISOLATED, COMMUNITY, OTHERS, PROMISCUOUS)
WHERE = {
    "h1": {1: ISOLATED, 2: ISOLATED, 3: COMMUNITY, 4: COMMUNITY, 5: OTHERS, 6: PROMISCUOUS},
    "h2": {7: ISOLATED, 8: COMMUNITY, 9: OTHERS, 10: PROMISCUOUS},
}
SEGMENT = {number: segment.id for on in WHERE.values() for number, segment in on.items()}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    with zone(f"tl{os.getpid()}-", tmp_path_factory.mktemp("zone"), *WHERE) as made:
        for host, members in WHERE.items():
            shells = [member(number, segment) for number, segment in members.items()]
            assert made.apply(host, *SEGMENTS, *shells) == []
        for number in SEGMENT:
            made.exec(f"router/r-{number}-VM", "ip", "address", "add", f"10.1.1.{number}/24", "dev", "eth0")
        yield made


def member(number, segment):
    mac = f"02:00:00:00:09:{number:02x}"
    return Shell(f"m-{number}", f"r-{number}-VM", (Nic(f"n-{number}", mac, segment.id, "Guest", "", 0, "", 0),))


def pings(cloud, one, other):
    line = ("busybox", "ping", "-c", "1", "-W", "1", f"10.1.1.{other}")
    return " 0% packet loss" in cloud.exec(f"router/r-{one}-VM", *line, fails=True)


def may(one, other):
    """RFC 5517."""
    here, there = SEGMENT[one], SEGMENT[other]
    return "p" in (here, there) or (here == there and here != "i")


def test_who_reaches_whom(cloud):
    for one, other in permutations(SEGMENT, 2):
        if may(one, other):
            until(lambda one=one, other=other: pings(cloud, one, other), 5)
    refused = [(one, other) for one, other in permutations(SEGMENT, 2) if one < other and not may(one, other)]
    assert len(refused) == 24
    assert [pair for pair in refused if pings(cloud, *pair)] == []


def test_an_isolated_member_does_not_even_hear_another_s_broadcasts(cloud):
    """Its neighbour on the same bridge, that on the other host, and a community there; the promiscuous one does."""
    mac, deaf = "02:00:00:00:09:01", [f"{cloud.fabric.prefix}r-{number}-VM" for number in (2, 7, 8)]
    with (
        capture(deaf[0], "eth0", f"ether src {mac}") as near,
        capture(deaf[1], "eth0", f"ether src {mac}") as far,
        capture(deaf[2], "eth0", f"ether src {mac}") as community,
        capture(f"{cloud.fabric.prefix}r-10-VM", "eth0", f"ether src {mac}") as gateway,
    ):
        assert not pings(cloud, 1, 77)
    assert (near, far, community) == ([], [], [])
    assert any("10.1.1.77" in line for line in gateway)


def test_the_tag_on_the_wire_says_the_role(cloud):
    for one, other, tags in ((1, 10, {"901", "900"}), (3, 8, {"902"}), (6, 7, {"900", "901"})):
        with capture(cloud.fabric.underlay, "h1", "vlan and icmp") as wire:
            assert pings(cloud, one, other)
        assert {tag for line in wire for tag in re.findall(r" vlan (\d+)", line)} == tags


def test_the_flows_read_back_equal_the_model_and_nothing_is_to_be_repaired(cloud):
    for host in WHERE:
        lanes = [segment.lane for segment in wanted(cloud.bundles[host])]
        assert Vswitch(cloud.place(host)).flows("und0") == flows(lanes)
        assert cloud.ensure(host) == []


def test_a_member_that_changes_its_role_is_plugged_anew_as_what_it_is(cloud):
    """The last test of the module: it leaves the zone changed."""
    members = {number: segment for number, segment in WHERE["h1"].items() if number != 3}
    shells = [member(number, segment) for number, segment in (members | {3: ISOLATED}).items()]
    assert cloud.apply("h1", *SEGMENTS, *shells) == []
    assert not pings(cloud, 3, 4)
    assert not pings(cloud, 3, 1)
    until(lambda: pings(cloud, 3, 10))
    shells = [member(number, segment) for number, segment in (members | {3: COMMUNITY}).items()]
    assert cloud.apply("h1", *SEGMENTS, *shells) == []
    until(lambda: pings(cloud, 3, 4))
    assert cloud.ensure("h1") == []
