"""What an LXC host is to hold, decided from facts."""

import json
import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.hypervisor.namespace import Namespace
from drivers.hypervisor.namespace.config import APPLIANCES, SegmentConfig, port_name
from drivers.network.virtual_router.redundancy import shared_mac
from drivers.security import PortFilter
from drivers.vocabulary import Guest, HostFacts, Nic, Segment, Shell
from systemvm.bundle import Bundle
from systemvm.services.segments import group, wanted

DRIVER = Namespace()
NET = Segment("net", "vxlan://5001", "Guest")


def nic(identity="n", segment="net", device=0):
    return Nic(identity, "02:00:00:00:00:01", segment, "Guest", "10.1.1.2", 24, "10.1.1.1", device)


def guest(identity="g", *nics, **more):
    return Guest(identity, f"i-2-{identity}-VM", "vm", "/t.tar", 1, 500, 64, nics or (nic(),), **more)


def facts(*things):
    return HostFacts("h", "h", *(tuple(t for t in things if isinstance(t, kind)) for kind in (Segment, Guest, Shell)))


@given(st.uuids())
def test_a_port_has_a_name_that_the_kernel_takes_and_that_follows_from_the_nic(identity):
    name = port_name(str(identity))
    assert len(name) <= 15
    assert name == port_name(str(identity))
    assert name != port_name(str(uuid.UUID(int=identity.int ^ 1)))


@given(st.one_of(st.integers(1, 2**24 - 1).map("vxlan://{}".format), st.integers(1, 4094).map("vlan://{}".format)))
def test_a_segment_has_names_that_the_kernel_takes(uri):
    config = SegmentConfig.of(Segment("s", uri, "Guest", "a-label-that-is-much-longer-than-a-name"))
    assert len(config.bridge) <= 15
    assert len(config.device) <= 15
    assert uri.endswith(str(config.number))


def test_segments_of_different_uplinks_do_not_share_a_bridge():
    kinds = [("Public", ""), ("Guest", ""), ("Guest", "eth7")]
    for uri in ("vlan://100", "vlan://untagged"):
        configs = [SegmentConfig.of(Segment("s", uri, traffic, label)) for traffic, label in kinds]
        assert len({config.bridge for config in configs}) == 3


@pytest.mark.parametrize("uri", ["vxlan://0", "vxlan://16777216", "vlan://4095", "vlan://1٢", "stt://1", "vlan://", ""])
def test_other_segments_are_refused_by_name(uri):
    with pytest.raises(ValueError, match="Segment s is"):
        DRIVER.plan(facts(Segment("s", uri, "Guest")))


@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(chance: random.Random):
    segments = [Segment(f"net{n}", f"vxlan://{n}", "Guest") for n in range(1, 5)]
    guests = [guest(f"g{n}", nic("a", "net1"), nic("b", "net2", 1)) for n in range(4)]
    shells = [Shell(f"r{n}", f"r-{n}-VM", (nic("c", "net3"), nic("d", "net1", 1))) for n in range(3)]
    want = DRIVER.render(DRIVER.plan(HostFacts("h", "h", tuple(segments), tuple(guests), tuple(shells))))
    for rows in (segments, guests, shells):
        chance.shuffle(rows)
    assert DRIVER.render(DRIVER.plan(HostFacts("h", "h", tuple(segments), tuple(guests), tuple(shells)))) == want


def test_one_more_guest_is_one_more_file():
    before, _ = DRIVER.render(DRIVER.plan(facts(NET, guest("a"))))
    after, _ = DRIVER.render(DRIVER.plan(facts(NET, guest("a"), guest("b", nic("o")))))
    assert {file.path for file in set(after) - set(before)} == {"guests/b.json"}
    assert set(before) <= set(after)
    content = json.loads(next(file.content for file in after if file.path == "guests/b.json"))
    assert content["ports"][0]["port"] == port_name("o")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (guest("g", nic("n", "elsewhere")), "segment elsewhere, which is not among the facts"),
        (guest("g", nic("a"), nic("b")), "same device number"),
        (guest("../g"), "cannot be the name"),
        (guest(""), "cannot be the name"),
        (Shell("r", "r/1", (nic(),)), "cannot be the name"),
    ],
)
def test_facts_that_cannot_be_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        DRIVER.plan(facts(NET, wrong))


def test_the_multicast_group_follows_from_the_vni():
    assert group(5001) == "239.0.19.137"
    assert group(2**24 - 1) == "239.255.255.255"


def test_the_members_of_a_segment_of_flows_are_those_who_live_here():
    segments = (Segment("s", "vs://300", "Guest"), Segment("t", "vlan://301", "Guest"))
    guests = (guest("g1", nic("a", "s")), guest("g2", nic("b", "t")))
    router = Shell("r", "r-1-VM", (nic("c", "s")._replace(mac="02:00:00:00:00:0c"), nic("d", "t", 1)))
    config = DRIVER.plan(HostFacts("h", "h", segments, guests, (router,)))
    assert config.segments[0].kind == "vs"
    assert config.segments[0].members == (guests[0].nics[0].mac, "02:00:00:00:00:0c", APPLIANCES)
    assert config.segments[1].members == ()
    plain = DRIVER.plan(HostFacts("h", "h", segments, guests, ()))
    assert plain.segments[0].members == (guests[0].nics[0].mac,)


def test_the_shared_macs_of_routers_are_among_those_of_appliances():
    prefix, _, mask = APPLIANCES.partition("/")
    assert mask == "ff:00:00:00:00:00"
    assert shared_mac("group", "segment")[:2] == prefix[:2]


PRIVATE = (
    Segment("i", "pvlan://900-i901", "Guest"),
    Segment("c", "pvlan://900-c902", "Guest"),
    Segment("p", "pvlan://900-p900", "Guest", secondaries=(901, 902)),
)


def test_a_private_vlan_is_segments_of_one_primary_vlan():
    guests = (guest("g1", nic("a", "i")), guest("g2", nic("b", "c")))
    router = Shell("r", "r-1-VM", (nic("c", "p")._replace(mac="02:00:00:00:00:0c"),))
    config = DRIVER.plan(HostFacts("h", "h", PRIVATE, guests, (router,)))
    community, isolated, promiscuous = config.segments
    assert [segment.number for segment in config.segments] == [902, 901, 900]
    assert {segment.primary for segment in config.segments} == {900}
    assert (isolated.alone, community.alone, promiscuous.alone) == (True, False, False)
    assert (promiscuous.secondaries, isolated.secondaries) == ((901, 902), ())
    assert promiscuous.members == ("02:00:00:00:00:0c", APPLIANCES)
    assert [port.isolated for one in config.guests for port in one.ports] == [True, False]
    assert len({segment.bridge for segment in config.segments}) == 3
    assert all(len(f"o{segment.device}") <= 15 for segment in config.segments)


def test_networks_that_share_a_vlan_share_its_bridge_and_its_members():
    shared = (Segment("s", "vs://300", "Guest"), Segment("t", "vs://300", "Guest"))
    guests = (guest("g1", nic("a", "s")), guest("g2", nic("b", "t")._replace(mac="02:00:00:00:00:02")))
    one, other = DRIVER.plan(HostFacts("h", "h", shared, guests, ())).segments
    assert one.bridge == other.bridge
    assert one.members == other.members == ("02:00:00:00:00:01", "02:00:00:00:00:02")


@pytest.mark.parametrize("uri", ["pvlan://900", "pvlan://900-i900", "pvlan://900-p901", "pvlan://900-x901",
                                 "pvlan://0-i901", "pvlan://900-c4095"])  # fmt: skip
def test_what_is_no_private_vlan_is_refused_by_name(uri):
    with pytest.raises(ValueError, match="Segment s is"):
        DRIVER.plan(facts(Segment("s", uri, "Guest")))


def test_where_guests_may_send_as_anybody_the_switch_lets_everything_in():
    segment, port = Segment("s", "vs://300", "Guest"), nic("a", "s")
    filters = (PortFilter(port.id, "s", port.mac, None, forged=True),)
    rendered = DRIVER.render(DRIVER.plan(HostFacts("h", "h", (segment,), (guest("g1", port),), (), filters=filters)))
    (read,) = wanted(Bundle("h", "h", "host", 1, *rendered))
    assert read.lane.members is None
    plain = DRIVER.render(DRIVER.plan(HostFacts("h", "h", (segment,), (guest("g1", port),), ())))
    assert wanted(Bundle("h", "h", "host", 1, *plain))[0].lane.members == (port.mac,)
