"""A router beside the operator's gateway: guests with public addresses, and guests without, on one shared network.

The outside is the operator's, too: it has the shared network's gateway 10.1.1.1, and 10.1.2.7 is a guest of another pod.
"""

import socket

import pytest

from drivers.network.virtual_router import VirtualRouter
from systemvm import netns
from tests.golden.router.cases import SECOND, elastic
from tests.netns.router_lab import Lab, ask, ping

pytestmark = pytest.mark.netns
UDP = socket.SOCK_DGRAM
STRANGER, NEIGHBOUR = "198.51.100.7", "10.1.2.7"


@pytest.fixture(scope="module")
def lab():
    lab = Lab()
    router = VirtualRouter()
    lab._wire(lab.switch, "s9", lab.outside, "02:00:00:00:00:09", "o9")
    lab.ip(lab.switch, "link set s9 master br0")
    lab.ip(lab.outside, "addr add 10.1.1.1/24 dev o9", f"addr add {NEIGHBOUR}/32 dev lo")
    for guest in (lab.g5, lab.g6):
        lab.ip(guest, "route replace default via 10.1.1.2")
        lab.serve(guest, 22)
        lab.serve(guest, 53, UDP)
    for kind in (socket.SOCK_STREAM, UDP):
        for address in (STRANGER, NEIGHBOUR):
            lab.serve(lab.outside, 5000, kind, address=address)
    lab.apply(router.render(router.plan(elastic())))
    yield lab
    lab.remove()


def test_a_guest_with_a_public_address_leaves_with_it(lab):
    for kind in (socket.SOCK_STREAM, UDP):
        assert ask(lab.g6, STRANGER, 5000, kind=kind) == [SECOND, 5000, "o"]
    assert ping(lab.g6, STRANGER)


def test_its_public_address_leads_to_it_and_keeps_the_source(lab):
    assert ask(lab.outside, SECOND, 22, STRANGER) == [STRANGER, 22, "g6"]
    assert ask(lab.outside, SECOND, 53, STRANGER, kind=UDP) == [STRANGER, 53, "g6"]
    assert ping(lab.outside, SECOND, STRANGER)


def test_a_guest_without_one_leaves_as_itself_by_the_operators_gateway(lab):
    for kind in (socket.SOCK_STREAM, UDP):
        assert ask(lab.g5, STRANGER, 5000, kind=kind) == ["10.1.1.5", 5000, "o"]
    assert ping(lab.g5, STRANGER)


def test_between_pods_both_are_known_by_their_own_addresses(lab):
    for guest, address in ((lab.g5, "10.1.1.5"), (lab.g6, "10.1.1.6")):
        for kind in (socket.SOCK_STREAM, UDP):
            assert ask(guest, NEIGHBOUR, 5000, kind=kind) == [address, 5000, "o"]
        assert ask(lab.outside, address, 22, NEIGHBOUR) == [NEIGHBOUR, 22, guest[len(lab.prefix) :]]
        assert ask(lab.outside, address, 53, NEIGHBOUR, kind=UDP) == [NEIGHBOUR, 53, guest[len(lab.prefix) :]]


def test_what_came_by_the_operators_gateway_is_answered_by_it(lab):
    """A stranger whom the operator lets in to a guest's own address: that is no connection of this router."""
    for address, name in (("10.1.1.5", "g5"), ("10.1.1.6", "g6")):
        assert ask(lab.outside, address, 22, STRANGER) == [STRANGER, 22, name]


def test_a_neighbour_is_reached_by_its_public_address(lab):
    assert ask(lab.g5, SECOND, 22) == ["10.1.1.2", 22, "g6"], "without a public address: the router answers for it"
    assert ask(lab.g6, SECOND, 22) == [SECOND, 22, "g6"]
    assert ask(lab.outside, SECOND, 22, NEIGHBOUR) == [NEIGHBOUR, 22, "g6"]


def test_no_guest_is_seen_outside_under_its_own_address(lab):
    with netns.entered(lab.outside):
        seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        seen.bind(("o0", 0x0800))
    with seen:
        for guest in (lab.g5, lab.g6):
            for target in (STRANGER, "203.0.113.1", "203.0.113.99", NEIGHBOUR):
                ask(guest, target, 5000, timeout=0.2)
        seen.settimeout(0.2)
        sources = set()
        try:
            while True:
                sources.add(socket.inet_ntoa(seen.recv(2048)[26:30]))
        except TimeoutError:
            pass
    assert SECOND in sources
    assert not {source for source in sources if source.startswith("10.1.1.")}
