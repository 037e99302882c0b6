"""The flows of a virtual switch: read as a switch reads them, they carry each frame to its segment and to no other."""

import re

from hypothesis import given
from hypothesis import strategies as st

from systemvm.openflow import UPLINK, Lane, flows

macs = (
    st.integers(1, 2**40 - 1)
    .map(lambda number: f"02:{number:010x}")
    .map(lambda text: ":".join([text[:2], *(text[i : i + 2] for i in range(3, 13, 2))]))
)
lanes = st.dictionaries(st.integers(1, 4094), st.none() | st.sets(macs, max_size=4), max_size=6).map(
    lambda found: [Lane(f"p{vlan}", vlan, None if who is None else tuple(sorted(who))) for vlan, who in found.items()]
)


def number(mac):
    return int(mac.replace(":", ""), 16)


def switch(table, port, vlan, destination):
    """Return (port, VLAN) of all that a frame becomes: a reading of ovs-fields(7) of its own, for these matches."""
    out = set()
    for flow in table:
        match, _, actions = flow.partition(" actions=")
        wants = dict(part.split("=", 1) for part in match.split(","))
        if wants.get("in_port", str(port)) != str(port) or wants.get("dl_vlan", str(vlan)) != str(vlan):
            continue
        if "vlan_tci" in wants and vlan:
            continue
        if "dl_dst" in wants:
            want, _, mask = wants["dl_dst"].partition("/")
            bits = number(mask) if mask else 2**48 - 1
            if number(destination) & bits != number(want) & bits:
                continue
        if actions == "drop":
            continue
        tagged = re.search(r"set_field:(\d+)->vlan_vid", actions)
        out.add((int(actions.rpartition("output:")[2]), int(tagged[1]) & 0xFFF if tagged else 0))
    return out


@given(lanes, st.sampled_from(["ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01", "02:99:99:99:99:99"]), st.integers(1, 4094))
def test_each_frame_goes_to_its_own_segment_only(found, destination, stranger):
    table = flows(found)
    for lane in found:
        assert switch(table, lane.vlan, 0, destination) == {(UPLINK, lane.vlan)}
        assert switch(table, lane.vlan, lane.vlan, destination) == set()  # a guest cannot put a tag on by itself
        group = number(destination) >> 40 & 1
        expected = {(lane.vlan, 0)} if group or lane.members is None else set()
        assert switch(table, UPLINK, lane.vlan, destination) == expected
        for mac in lane.members or ():
            assert switch(table, UPLINK, lane.vlan, mac) == {(lane.vlan, 0)}
    if stranger not in {lane.vlan for lane in found}:
        assert switch(table, UPLINK, stranger, destination) == set()
    assert switch(table, UPLINK, 0, destination) == set()


@given(lanes, st.randoms(use_true_random=False))
def test_the_order_of_segments_does_not_matter(found, chance):
    before = flows(found)
    chance.shuffle(found)
    assert flows(found) == before
    assert "priority=0 actions=drop" in before
