"""The election under faults: a world of two routers and a control plane, with clocks, delays, losses, pauses, crashes.

Every gate that was ever open is noted in the world's own time; two routers' gates may never overlap.
"""

import heapq
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from systemvm.election import INTERVAL, LEASE, MARGIN, Ask, AskPlane, Member

MS = 1_000_000
STEP = 10 * MS
ROSTER = "a/0,b/0"


class Clock:
    """A clock that began somewhere else and runs a little fast or slow."""

    def __init__(self, chance):
        self.offset, self.rate = chance.randrange(1, 10**12), 1 + chance.uniform(-0.03, 0.03)

    def read(self, world):
        return int(self.offset + world * self.rate)

    def back(self, own):
        return (own - self.offset) / self.rate


class Router:
    def __init__(self, world, name, rank):
        self.world, self.name, self.rank = world, name, rank
        self.clock = Clock(world.chance)
        self.noted, self.kernel = 0, 0  # the gate's deadline, by its own clock; survives the process
        self.paused, self.inbox, self.opened = False, [], []
        self.member = Member.fresh(self.now, ROSTER, peer=True, sole=False, rank=rank)

    @property
    def now(self):
        return self.clock.read(self.world.time)

    def restart(self):
        self.inbox.clear()
        how = {"peer": True, "sole": False, "rank": self.rank}
        self.member = Member.restarted(self.now, self.kernel, ROSTER, **how)

    def wake(self):
        for message in self.inbox:
            self.take(message)
        self.inbox.clear()
        if not self.paused:
            self.do(self.member.tick(self.now))

    def take(self, message):
        kind, *rest = message
        if kind == "ask":
            number, roster, rank, holding = rest
            vote, actions = self.member.asked_by_peer(self.now, number, roster, rank, holding=holding)
            self.do(actions)
            self.world.send(self.name, "peer", ("answer", number, vote))
        elif kind == "answer":
            self.do(self.member.answered(self.now, rest[0], vote=rest[1]))
        else:
            self.do(self.member.plane_answered(rest[0], rest[1], vote=rest[2]))

    def do(self, actions):
        self.kernel = self.member.gate  # before anything is said to anybody
        if self.kernel == self.noted:
            return self._say(actions)
        self.noted = self.kernel
        self.opened.append((self.world.time, max(self.world.time, self.clock.back(self.kernel))))
        return self._say(actions)

    def _say(self, actions):
        for action in actions:
            if isinstance(action, Ask):
                self.world.send(self.name, "peer", ("ask", action.round, ROSTER, self.rank, action.holding))
            elif isinstance(action, AskPlane):
                self.world.send(self.name, "plane", ("ask", self.name, action.round, action.length))
            else:
                self.world.send(self.name, "plane", ("release", self.name, action.round, 0))

    def holds(self):
        return self.now < self.kernel


class World:
    def __init__(self, seed):
        self.chance, self.time, self.count = random.Random(seed), 0, itertools.count()
        self.routers = {name: Router(self, name, rank) for rank, name in enumerate("ab")}
        self.plane_clock, self.holder, self.until, self.round = Clock(self.chance), "", 0, 0
        self.cut, self.slow, self.queue = set(), 0, []

    def send(self, origin, where, message):
        to = ("b" if origin == "a" else "a") if where == "peer" else where
        lost = "plane" not in (origin, to) and self.chance.random() < 0.02  # the control plane is asked over TCP
        if frozenset((origin, to)) in self.cut or lost:
            return
        delay = self.chance.randrange(1, 8 + self.slow) * MS
        heapq.heappush(self.queue, (self.time + delay, next(self.count), to, message))

    def deliver(self, to, message):
        if to != "plane":
            self.routers[to].inbox.append(message)
            if not self.routers[to].paused:
                self.routers[to].wake()
            return
        kind, name, number, length = message
        now = self.plane_clock.read(self.time)
        if kind == "release":
            if self.holder == name and self.round <= number:
                self.holder = ""
            return
        vote = self.holder in ("", name) or now >= self.until
        if vote:
            former = self.until if self.holder == name else 0  # a short promise takes nothing from a longer one
            self.holder, self.until, self.round = name, max(former, now + length + length // 15), number
        self.send("plane", name, ("plane", number, length, vote))

    def run(self, milliseconds):
        end = self.time + milliseconds * MS
        while self.time < end:
            self.time += STEP
            while self.queue and self.queue[0][0] <= self.time:
                _, _, to, message = heapq.heappop(self.queue)
                self.deliver(to, message)
            for router in self.routers.values():
                if not router.paused:
                    router.wake()

    def check(self):
        """Assert that no two spans of open gates overlap, of any two routers."""
        spans = []
        for router in self.routers.values():
            for (start, end), following in itertools.zip_longest(router.opened, router.opened[1:]):
                real = min(end, following[0]) if following else end  # a gate may be shut before its time
                if real > start:
                    spans.append((start, real, router.name))
        spans.sort()
        for one, other in itertools.pairwise(spans):
            assert one[2] == other[2] or one[1] <= other[0], f"both at {other[0] / 1e9:.3f} s"


FAULTS = ("pause", "cut peers", "cut plane", "isolate", "restart", "slow", "flap", "calm", "kill plane")


def strike(world, fault, name, length):
    other = "b" if name == "a" else "a"
    pairs = {
        "cut peers": [("a", "b")], "cut plane": [(name, "plane")], "isolate": [(name, other), (name, "plane")],
        "kill plane": [("a", "plane"), ("b", "plane")],
    }  # fmt: skip
    router = world.routers[name]
    if fault == "pause":
        router.paused = True
        world.run(length)
        router.paused = False
        router.wake()
    elif fault in pairs:
        cut = {frozenset(pair) for pair in pairs[fault]}
        world.cut |= cut
        world.run(length)
        world.cut -= cut
    elif fault == "restart":
        router.restart()
        world.run(length)
    elif fault == "slow":
        world.slow = 400
        world.run(length)
        world.slow = 0
    elif fault == "flap":
        for _ in range(6):
            world.cut ^= {frozenset("ab")}
            world.run(length // 6)
    else:
        world.run(length)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    story=st.lists(st.tuples(st.sampled_from(FAULTS), st.sampled_from("ab"), st.integers(10, 2500)), max_size=12),
)
def test_there_are_never_two_owners_and_in_the_end_there_is_one(seed, story):
    world = World(seed)
    world.run(1000)
    for fault, name, length in story:
        strike(world, fault, name, length)
    world.cut.clear()
    world.run(4000)
    held = [name for name, router in world.routers.items() if router.holds()]
    world.check()
    assert len(held) == 1, "nobody holds the addresses though nothing is wrong any more"


def owner(world):
    return next(router for router in world.routers.values() if router.holds())


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("fault", ["pause", "isolate"])
def test_the_other_takes_over_within_eight_tenths_of_a_second(fault, seed):
    world = World(seed)
    world.run(3000 + seed)
    first = owner(world)
    second = next(router for router in world.routers.values() if router is not first)
    if fault == "pause":
        first.paused = True
    else:
        world.cut = {frozenset("ab"), frozenset((first.name, "plane"))}
    began = world.time
    while not second.holds():
        world.run(10)
        assert world.time - began < 800 * MS
    world.check()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("fault", ["cut peers", "kill plane", "cut plane"])
def test_one_cut_alone_takes_the_addresses_from_nobody(fault, seed):
    world = World(seed)
    world.run(3000)
    first = owner(world)
    cut = {"cut peers": ["ab"], "kill plane": [("a", "plane"), ("b", "plane")], "cut plane": [(first.name, "plane")]}
    world.cut = {frozenset(pair) for pair in cut[fault]}
    for _ in range(500):
        world.run(10)
        assert first.holds()


def test_the_control_plane_is_left_alone_in_quiet_times():
    world = World(3)
    world.run(3000)
    assert world.holder == ""


def test_a_router_that_leaves_hands_over_at_once():
    world = World(3)
    world.run(3000)
    first = owner(world)
    second = next(router for router in world.routers.values() if router is not first)
    first.do(first.member.leave())
    second.member.peer_left(first.member.round, ROSTER)
    world.run(60)
    assert second.holds()
    world.check()


def test_votes_of_another_roster_do_not_count():
    now = 10**12
    old = Member.fresh(now, "a/0,b/0", peer=True, sole=False, rank=0)
    assert old.asked_by_peer(now, 1, "a/0,c/0", 1, holding=True) == (False, [])
    old.tick(now)
    number = old.round
    old.change(now, "a/0,c/0", peer=True, sole=False, rank=0)
    old.answered(now + INTERVAL, number, vote=True)
    assert not old.holds(now + INTERVAL)


def test_a_change_of_the_roster_has_settled_once_no_former_vote_is_in_force():
    now = 10**12
    member = Member.fresh(now, "a/0,b/0", peer=True, sole=False, rank=0)
    member.tick(now)
    member.answered(now, member.round - 1, vote=True)
    assert member.holds(now)
    member.change(now, "a/0", peer=False, sole=False, rank=0)
    assert not member.settled(now + LEASE - MARGIN)
    assert member.settled(now + LEASE)


def test_the_only_router_needs_nobody():
    now = 10**12
    member = Member.fresh(now, "a/0", peer=False, sole=True, rank=0)
    assert member.tick(now) == []
    assert member.holds(now)
