"""What a running bgpd is told, so that it has another configuration."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.network.virtual_router import VirtualRouter
from drivers.routing import BgpPeer
from systemvm.services.bgp_changes import difference, read
from tests.golden.router.cases import routed_bgp

PEERS = st.lists(
    st.builds(
        BgpPeer,
        address=st.sampled_from(["203.0.113.1", "203.0.113.2", "198.51.100.9"]),
        address6=st.sampled_from(["", "2001:db8::1"]),
        number=st.sampled_from([65000, 65001]),
        password=st.sampled_from(["", "one", "two"]),
        hops=st.sampled_from([1, 2]),
    ),
    min_size=1,
    max_size=3,
    unique_by=(lambda peer: peer.address, lambda peer: peer.address6 or peer.address),
)
CIDRS = st.sampled_from(["10.1.1.0/24", "10.1.2.0/25"])


def conf(peers, cidr="10.1.1.0/24"):
    facts = routed_bgp(*peers, number=64512)
    (net,) = facts.networks
    facts = replace(facts, networks=(replace(net, cidr=cidr, leases=(), ingress4=(), egress=()),))
    files, _ = VirtualRouter().render(VirtualRouter().plan(facts))
    return next(file.content for file in files if file.path == "frr/bgpd.conf")


def told(text, steps):
    """What a daemon with this configuration has after these commands: lines with their blocks."""
    lines, blocks = set(read(text)), ()
    for step in steps:
        if step == "exit":
            blocks = blocks[:-1]
        elif step.startswith(("router bgp", "address-family")):
            blocks = (*blocks, step)
        elif step.startswith("no neighbor") and " remote-as " in step:
            address = step.split()[2]
            lines = {(part, line) for part, line in lines if line.split()[:2] != ["neighbor", address]}
        elif step.startswith("no ") and (blocks, step.removeprefix("no ")) in lines:
            lines.discard((blocks, step.removeprefix("no ")))
        else:
            assert not step.startswith("no "), f"{step} takes back what is not there"
            lines.add((blocks, step))
    return lines


@settings(deadline=None)
@given(PEERS, PEERS, CIDRS, CIDRS)
def test_the_difference_makes_the_new_configuration_of_the_old_one(before, after, one, two):
    old, new = conf(before, one), conf(after, two)
    assert told(old, difference(old, new)) == set(read(new))


def test_a_prefix_is_announced_and_taken_back_without_a_word_about_peers():
    peers = [BgpPeer("203.0.113.1", "", 65000)]
    steps = difference(conf(peers), conf(peers, "10.1.2.0/25"))
    assert "no network 10.1.1.0/24" in steps
    assert "network 10.1.2.0/25" in steps
    assert not [step for step in steps if "neighbor" in step]


def test_another_as_needs_another_daemon():
    text = conf([BgpPeer("203.0.113.1", "", 65000)])
    assert difference(text, text) == []
    assert difference(text, text.replace("router bgp 64512", "router bgp 64513")) is None
