"""Which addresses the guests of a network may get, as a pure choice."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from controlplane.network.guest_ranges import lowest_free, range_with, spans, subnet_facts, subnets
from controlplane.network.networks import Network
from controlplane.network.public_ips import VlanRange
from drivers.vocabulary import GuestSubnet


def one(third: int, first: int, last: int, **more: str) -> VlanRange:
    """A range of 10.0.THIRD.0/24, whose gateway is .1."""
    prefix = f"10.0.{third}"
    ends = {"start_ip": f"{prefix}.{first}", "end_ip": f"{prefix}.{last}"}
    return VlanRange(gateway=f"{prefix}.1", netmask="255.255.255.0", **ends, **more)


def network(**more: str) -> Network:
    return Network(name="n", guest_type="Shared", cidr="10.0.1.0/24", gateway="10.0.1.1", **more)


RANGES = st.lists(
    st.tuples(st.integers(1, 3), st.integers(2, 20), st.integers(0, 6)).map(
        lambda drawn: one(drawn[0], drawn[1], drawn[1] + drawn[2])
    ),
    min_size=1,
    max_size=4,
)


@given(RANGES, st.sets(st.tuples(st.integers(1, 3), st.integers(2, 26))))
def test_what_is_given_is_free_of_the_first_range_that_has_one_and_none_only_when_all_are_full(ranges, used):
    taken = {f"10.0.{third}.{last}" for third, last in used}
    every = [
        str(IPv4Address(number))
        for row in ranges
        for number in range(int(IPv4Address(row.start_ip)), int(IPv4Address(row.end_ip)) + 1)
    ]
    expected = next((address for address in every if address not in taken), None)
    assert lowest_free(network(), spans(network(), ranges), taken) == expected


@given(RANGES, st.integers(24, 30))
def test_what_is_reserved_is_given_to_nobody(ranges, length):
    part = IPv4Network(f"10.0.1.0/{length}")
    for first, last in spans(network(guest_cidr=str(part)), ranges):
        assert first in part
        assert last in part


def test_ranges_of_one_subnet_have_one_router_address_between_them():
    ranges = [
        one(1, 10, 19, router_ip="10.0.1.10"),
        one(2, 10, 19, router_ip="10.0.2.10"),
        one(1, 30, 39, router_ip=""),
    ]
    assert [len(rows) for rows in subnets(ranges).values()] == [2, 1]
    assert subnet_facts(ranges) == (
        GuestSubnet("10.0.1.0/24", "10.0.1.1", "10.0.1.10"),
        GuestSubnet("10.0.2.0/24", "10.0.2.1", "10.0.2.10"),
    )
    assert range_with(ranges, "10.0.2.77") is ranges[1]
    assert range_with(ranges, "10.0.3.1") is None
    assert range_with(ranges, "") is None
