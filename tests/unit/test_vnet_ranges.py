"""Ranges of VLANs and VNIs: reading, joining and taking away."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.zone.vnet_ranges import holds, joined, overlap, parse, text_of, without

numbers = st.sets(st.integers(1, 60))


def ranges_of(wanted: set[int]) -> list[list[int]]:
    return joined([number, number] for number in wanted)


def numbers_of(ranges: list[list[int]]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


def test_ranges_are_read_sorted_and_joined():
    assert parse("7000-7100, 5000-5999,6000") == [[5000, 6000], [7000, 7100]]
    assert text_of([[5000, 5999], [7000, 7000]]) == "5000-5999,7000"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a-b", "is no range"),
        ("10-5", "leads backwards"),
        ("0-5", "not within the VLAN numbers 1-4094"),
        ("4000-4095", "not within"),
        ("1-5,5-9", "5 is in two"),
        ("1--5", "is no range"),
        ("", "is no range"),
        ("１-5", "is no range"),  # noqa: RUF001 - digits of another script
    ],
)
def test_what_is_no_range_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        parse(text, "VLAN")


@given(numbers)
def test_reading_undoes_writing(wanted):
    ranges = ranges_of(wanted)
    assert numbers_of(ranges) == wanted
    if wanted:
        assert parse(text_of(ranges)) == ranges
    assert all(one[1] + 1 < other[0] for one, other in pairwise(ranges))


@given(numbers, numbers)
def test_ranges_are_sets(one, other):
    assert numbers_of(overlap(ranges_of(one), ranges_of(other))) == one & other
    assert numbers_of(without(ranges_of(one), ranges_of(other))) == one - other
    assert all(holds(ranges_of(one), number) == (number in one) for number in range(62))
