"""Redundant routers under faults: one owner at most, ever; the other takes over in time; connections stay."""

import itertools
import signal
import time

import pytest

from tests.netns.redundant_lab import Lab, Traffic, until

pytestmark = pytest.mark.netns


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path)
    try:
        yield made
    finally:
        made.close()


def owners(lab, since=0.0):
    """Return who sent frames with the shared MAC, in order: a list of (owner, first, last) without repetition."""
    frames = sorted(frame for frame in lab.captured if frame[0] >= since)
    spans = []
    for owner, group in itertools.groupby(frames, key=lambda frame: frame[1]):
        times = [frame[0] for frame in group]
        spans.append((owner, times[0], times[-1]))
    return spans


def test_one_of_two_holds_the_addresses_and_the_other_says_nothing(lab):
    first = lab.bring_up()
    traffic = Traffic(lab)
    until(lambda: len(traffic.back) > 50)
    lab.over.set()
    assert {frame[1] for frame in lab.captured} == {first.number}
    assert first.observe() == "PRIMARY"
    assert lab.other(first).observe() == "BACKUP"


def strike(lab, fault, first):
    """Do it to the owner of the addresses, or to its surroundings; return how it is undone."""
    if fault == "dies":
        first.signal(signal.SIGKILL)
        return wires(first, "guest", "public", "link")
    if fault == "is killed":  # its links stay: the gate alone shuts it up
        first.signal(signal.SIGKILL, only_lease=True)
        return lambda: None
    if fault == "is paused":
        first.signal(signal.SIGSTOP)
        return lambda: first.signal(signal.SIGCONT)
    if fault == "is cut off":
        lab.plane.cut.add(first.number)
        undo = wires(first, "link")
        return lambda: (lab.plane.cut.discard(first.number), undo())
    if fault == "peers are cut":
        return wires(first, "link")
    if fault == "no control plane":
        lab.plane.cut |= {0, 1}
        return lab.plane.cut.clear
    assert fault == "leaves", fault
    first.applier.remove(first.applier.ledger.get(first.uuid))
    return lambda: first.apply(lab.members)


def wires(member, *names):
    for name in names:
        member.wire(name, up=False)
    return lambda: [member.wire(name, up=True) for name in names]


MOVING = ("dies", "is killed", "is paused", "is cut off", "leaves")
STAYING = ("peers are cut", "no control plane")


def settled(lab):
    """Wait until one holds the addresses, the other may follow, and the control plane's vote is free."""
    until(lambda: lab.owner() and not lab.plane.holder and all(member.holds() or True for member in lab.members))


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
    undo = strike(lab, fault, first)
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


@pytest.mark.parametrize("fault", STAYING)
def test_what_the_owner_survives_moves_nothing(lab, fault):
    first = lab.bring_up()
    traffic = Traffic(lab)
    settled(lab)
    began = time.monotonic()
    undo = strike(lab, fault, first)
    until(lambda: time.monotonic() > began + 3)
    undo()
    until(lambda: time.monotonic() > began + 4)
    assert lab.owner() is first
    assert traffic.gap(began) < 0.2
    one_after_the_other(lab, began, 1)
