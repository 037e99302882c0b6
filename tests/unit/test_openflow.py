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


ROLES = {"i": 901, "c": 902, "d": 903, "p": 900}
"""A private VLAN: an isolated lane, two communities and a promiscuous one below the primary VLAN 900."""


def hears(sender, receiver):
    """RFC 5517: everybody and a promiscuous port hear each other, and the ports of a community do."""
    return "p" in (sender, receiver) or (sender == receiver and sender != "i")


def private(role, *members):
    below = tuple(sorted(set(ROLES.values()) - {900})) if role == "p" else ()
    return Lane(role, ROLES[role], members, 900, below, alone=role == "i")


def best(table, port, vlan, destination):
    """What the switch sends on: of the flows that match, those of the highest priority."""
    ranked = {}
    for flow in table:
        ranked.setdefault(int(flow.partition("priority=")[2].split(",")[0].split()[0]), []).append(flow)
    for _, flows_ in sorted(ranked.items(), reverse=True):
        for flow in flows_:
            if found := everywhere(flow, port, vlan, destination):
                return found
    return set()


def everywhere(flow, port, vlan, destination):
    """As :func:`switch`, for one flow that may have several outputs."""
    match, _, actions = flow.partition(" actions=")
    plain = f"{match} actions=output:1"
    if actions == "drop" or not switch([plain], port, vlan, destination):
        return set()
    out, tag = set(), 0 if "pop_vlan" in actions else vlan
    for action in actions.split(","):
        if action.startswith("set_field:"):
            tag = int(action.split(":")[1].split("-")[0]) & 0xFFF
        elif action.startswith("output:"):
            out.add((int(action.split(":")[1]), tag))
    return out


@given(st.sets(st.sampled_from(sorted(ROLES))), st.sampled_from(sorted(ROLES)))
def test_a_private_vlan_carries_what_its_roles_may_hear_on_one_host(here, sender):
    macs = {role: f"02:00:00:00:00:{number & 0xFF:02x}" for role, number in ROLES.items()}
    table = flows(private(role, macs[role]) for role in here)
    if sender not in here:
        return
    near = {(ROLES[role], 0) for role in here if role != sender and hears(sender, role)}
    tagged = (UPLINK, ROLES[sender])
    assert best(table, ROLES[sender], 0, "ff:ff:ff:ff:ff:ff") == near | {tagged}
    assert best(table, ROLES[sender], 0, "02:99:99:99:99:99") == {tagged}
    assert best(table, ROLES[sender], ROLES[sender], "ff:ff:ff:ff:ff:ff") == set()
    for role in here - {sender}:
        expected = {(ROLES[role], 0)} if hears(sender, role) else {tagged}
        assert best(table, ROLES[sender], 0, macs[role]) == expected


@given(st.sets(st.sampled_from(sorted(ROLES))), st.sampled_from(sorted(ROLES)))
def test_a_private_vlan_carries_what_its_roles_may_hear_between_hosts(here, sender):
    macs = {role: f"02:00:00:00:00:{number & 0xFF:02x}" for role, number in ROLES.items()}
    table = flows(private(role, macs[role]) for role in here)
    there = {(ROLES[role], 0) for role in here if hears(sender, role)}
    assert best(table, UPLINK, ROLES[sender], "ff:ff:ff:ff:ff:ff") == there
    assert best(table, UPLINK, ROLES[sender], "02:99:99:99:99:99") == set()
    for role in here:
        expected = {(ROLES[role], 0)} if hears(sender, role) else set()
        assert best(table, UPLINK, ROLES[sender], macs[role]) == expected


def test_a_mac_that_two_routers_share_is_sought_on_other_hosts_too():
    shared = "0e:00:00:00:00:00/ff:00:00:00:00:00"
    table = flows([private("i", "02:00:00:00:00:01"), private("p", shared)])
    assert best(table, 901, 0, "0e:11:22:33:44:55") == {(900, 0), (UPLINK, 901)}


def test_a_lane_whose_members_have_any_mac_is_sent_what_nobody_else_has():
    """Its members may speak as whom they like, but do not take what is addressed to another lane's."""
    free = Lane("i", 901, None, 900, alone=True)
    table = flows([free, private("p", "02:00:00:00:00:01")])
    assert best(table, UPLINK, 900, "02:99:99:99:99:99") == {(901, 0)}
    assert best(table, UPLINK, 900, "02:00:00:00:00:01") == {(900, 0)}
    assert best(table, UPLINK, 900, "ff:ff:ff:ff:ff:ff") == {(900, 0), (901, 0)}
    assert best(table, UPLINK, 901, "02:99:99:99:99:99") == set()
    assert best(table, 900, 0, "02:99:99:99:99:99") == {(901, 0), (UPLINK, 900)}
    assert best(table, 900, 0, "ff:ff:ff:ff:ff:ff") == {(901, 0), (UPLINK, 900)}
    matches = [flow.partition(" actions=")[0] for flow in table]
    assert len(matches) == len(set(matches))
