"""Redundant routers under faults: one owner at most, ever; the other takes over in time; connections stay."""

import random
import time

import pytest

from tests.netns.redundant_faults import MOVING, one_fault, owners, settled, strike
from tests.netns.redundant_lab import Lab, Traffic, answering, balanced, until

pytestmark = pytest.mark.netns


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_one_of_two_holds_the_addresses_and_the_other_says_nothing(lab):
    first = lab.bring_up()
    traffic = Traffic(lab)
    until(lambda: len(traffic.back) > 50)
    lab.over.set()
    assert {frame[1] for frame in lab.captured} == {first.number}
    assert first.observe() == "PRIMARY"
    assert lab.other(first).observe() == "BACKUP"


def one_after_the_other(lab, since, most):
    """Assert that no owner spoke while another did: each change is one change, however many frames there are."""
    spans = owners(lab, since)
    assert len(spans) <= most, [
        (owner, round(first - since, 3), round(last - since, 3)) for owner, first, last in spans
    ]


@pytest.mark.parametrize("fault", MOVING)
def test_the_other_takes_over_and_connections_stay(lab, fault):
    first = lab.bring_up()
    second = lab.other(first)
    traffic = Traffic(lab)
    settled(lab)
    until(lambda: len(traffic.turns) > 50)
    began = time.monotonic()
    undo = strike(lab, fault, first, random.Random(1))
    until(second.holds, 2)
    before = len(traffic.turns)
    until(lambda: len(traffic.turns) > before + 20)
    gap = traffic.gap(began)
    undo()
    first.ensure()
    until(lambda: lab.owner() is second and first.observe() == "BACKUP")
    print(f"{fault}: {gap:.3f} s")
    assert not traffic.broken
    assert gap < 0.8
    one_after_the_other(lab, began, 2)


@pytest.mark.parametrize("fault", ["peers are cut", "no control plane"])
def test_what_the_owner_survives_moves_nothing(lab, fault):
    first = lab.bring_up()
    traffic = Traffic(lab)
    settled(lab)
    began = time.monotonic()
    undo = strike(lab, fault, first, random.Random(1))
    until(lambda: time.monotonic() > began + 3)
    undo()
    until(lambda: time.monotonic() > began + 4)
    assert lab.owner() is first
    assert traffic.gap(began) < 1
    one_after_the_other(lab, began, 1)


@pytest.mark.timeout(180)
def test_balanced_guests_are_reached_at_once_though_the_one_who_stood_by_could_not_check_them(lab):
    first = lab.bring_up(balanced=True)
    second = lab.other(first)
    answering(lab)
    until(lambda: balanced(lab), 30)
    until(lambda: second.health() == {"DOWN"}, 60)
    strike(lab, "is paused", first, random.Random(1))
    until(second.holds, 2)
    began = time.monotonic()
    until(lambda: balanced(lab))
    assert time.monotonic() - began < 3  # by its checks alone it would take 4 s
    until(lambda: time.monotonic() > began + 6)
    assert second.health() == {"UP"}  # its checks reach them now


@pytest.mark.timeout(180)
def test_ten_seeded_faults(lab):
    lab.bring_up()
    traffic = Traffic(lab)
    until(lambda: len(traffic.turns) > 20)
    for seed in range(10):
        fault, gap, spans = one_fault(lab, traffic, seed)
        assert not traffic.broken, (seed, fault)
        assert gap < 0.8, (seed, fault)
        assert len(spans) <= (2 if fault in MOVING else 1), (seed, fault, spans)
