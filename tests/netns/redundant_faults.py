"""Seeded faults on two redundant routers: what each cost, and whether two ever owned the addresses.

``python -m tests.netns.redundant_faults 100`` is the long form; the suite does ten.
"""

import itertools
import json
import random
import signal
import sys
import tempfile
import time

from tests.netns.redundant_lab import Lab, Traffic, until

MOVING = ("dies", "is killed", "is paused", "is cut off", "leaves")
STAYING = ("peers are cut", "no control plane", "peers flap")


def strike(lab, fault, first, chance):
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
    if fault == "peers flap":
        for _ in range(chance.randrange(3, 8)):
            undo = wires(first, "link")
            pause(chance.uniform(0.02, 0.4))
            undo()
            pause(chance.uniform(0.02, 0.3))
        return lambda: None
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


def pause(seconds):
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() >= end)


def settled(lab):
    """Wait until one holds the addresses, the other stands by, and the control plane's vote is free for a while."""
    quiet = [time.monotonic()]

    def still():
        if lab.owner() is None or lab.plane.holder:
            quiet[0] = time.monotonic()
        return time.monotonic() > quiet[0] + 0.3

    until(still, 15)


def owners(lab, since=0.0):
    """Return who sent frames with the shared MAC: a list of (owner, first, last), one for each change of hands."""
    frames = sorted(frame for frame in lab.captured if frame[0] >= since)
    spans = []
    for owner, group in itertools.groupby(frames, key=lambda frame: frame[1]):
        times = [frame[0] for frame in group]
        spans.append((owner, round(times[0] - since, 4), round(times[-1] - since, 4)))
    return spans


def one_fault(lab, traffic, seed):
    """Do what the seed says; return (fault, the longest silence in seconds, who spoke when)."""
    chance = random.Random(seed)
    fault = chance.choice(MOVING + STAYING)
    settled(lab)
    first = lab.owner()
    pause(chance.uniform(0, 0.2))
    began = time.monotonic()
    undo = strike(lab, fault, first, chance)
    if fault in MOVING:
        until(lab.other(first).holds, 5)
    pause(chance.uniform(0.3, 1.2))
    gap = traffic.gap(began)
    undo()
    first.ensure()
    pause(0.2)
    return fault, gap, owners(lab, began)


def run(count):
    """Do so many faults, one after the other; return what each cost.

    :raises AssertionError: two owned the addresses at a time, or a connection broke.
    """
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(folder)
        try:
            lab.bring_up()
            traffic, found = Traffic(lab), []
            for seed in range(count):
                fault, gap, spans = one_fault(lab, traffic, seed)
                assert len(spans) <= (2 if fault in MOVING else 1), f"seed {seed}, {fault}: {spans}"
                assert not traffic.broken, f"seed {seed}, {fault}: {traffic.broken}"
                found.append({"seed": seed, "fault": fault, "seconds": round(gap, 4)})
            return found
        finally:
            lab.close()


if __name__ == "__main__":
    for each in run(int(sys.argv[1])):
        print(json.dumps(each))
