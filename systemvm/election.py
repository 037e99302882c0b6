"""Who of two redundant routers may hold their common addresses: a lease that a majority of three voters gives.

The voters are the two routers themselves and the control plane. A vote is a promise to vote for nobody else for a
while, by the voter's own clock; a lease is the holder's own vote and one of the others', counted from before it was
asked for, by the holder's own clock. Two majorities of three have a voter in common, and that one has promised: hence
never two holders, whatever stops, is cut off or comes late. In quiet times the holder lives on its peer's votes alone,
so the control plane may be away; it is asked only when the peer is silent.

Everything here is pure: events and the time go in, actions come out. Times are nanoseconds of a clock since boot.
A holder's lease is worth nothing by itself: it is the deadline of a gate that the kernel keeps (``systemvm.gate``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

_MS = 1_000_000
INTERVAL = 75 * _MS
"""Between two questions of a holder to its peer."""
LEASE = 450 * _MS
"""What a peer's vote is worth, from when it was asked for."""
MARGIN = 30 * _MS
"""How much longer a voter keeps its promise: clocks may differ in speed by a fifteenth."""
SUSPECT = 190 * _MS
"""A holder whose peer has been silent for so long asks the control plane as well."""
PLANE_LEASE = 2000 * _MS
"""What the control plane's vote is worth once the peer has been silent for ``GONE``; before, it is ``LEASE``."""
GONE = 2000 * _MS
PLANE_INTERVAL, PLANE_RETRY = 500 * _MS, 120 * _MS
"""Between two questions to the control plane: with a long lease, and otherwise."""
CALM = 500 * _MS
"""The control plane gets its vote back when the peer has answered for so long."""


class Ask(NamedTuple):
    """Ask the peer for its vote.

    :param round: counts the questions; an answer names it.
    :param holding: the one who asks holds the lease now.
    """

    round: int
    holding: bool


class AskPlane(NamedTuple):
    """Ask the control plane for its vote, for so many ns.

    It adds the margin of a fifteenth, and shortens no promise that it made before.
    """

    round: int
    length: int


class ReleasePlane(NamedTuple):
    """Give the control plane its vote back, as far as it was given for questions up to this round."""

    round: int


Action = Ask | AskPlane | ReleasePlane
State = Literal["PRIMARY", "BACKUP"]


@dataclass
class Member:
    """One router's part in it.

    :ivar roster: names the members; only votes of the same roster count.
    :ivar peer: there is another member.
    :ivar sole: there is no other, and none of a former roster is left: its own vote is a majority.
    :ivar rank: of two that want the lease and have it not, the one of the lower rank goes first.
    :ivar gate: the lease ends then; it is held until then.
    :ivar promised: its own vote is the peer's until then.
    :ivar round: the newest question; rises over restarts, too, as it begins with the clock.
    """

    roster: str
    peer: bool
    sole: bool
    rank: int
    promised: int
    gate: int = 0
    based: int = 0
    leaving: bool = False
    plane: bool = False
    round: int = 0
    void: int = 0
    heard: int = 0
    calm: int = 0
    asked: int = 0
    asked_plane: int = 0
    asked_length: int = 0
    waiting: bool = False
    voted: int = 0
    since: dict[int, int] = field(default_factory=dict)

    @classmethod
    def fresh(cls, now: int, roster: str, *, peer: bool, sole: bool, rank: int) -> Member:
        """Return a member that has never promised anything."""
        return cls(roster, peer, sole, rank, promised=0, round=now, void=now)

    @classmethod
    def restarted(cls, now: int, gate: int, roster: str, *, peer: bool, sole: bool, rank: int) -> Member:
        """Return a member that forgot what it promised: it waits until that is over, or goes on where it held.

        :param gate: the deadline that is in force; whoever holds the lease has promised nobody anything.
        """
        promised = 0 if now < gate else now + LEASE + MARGIN
        return cls(roster, peer, sole, rank, promised=promised, gate=gate, round=now, void=now)

    def holds(self, now: int) -> bool:
        """Tell whether it holds the lease."""
        return now < self.gate

    def change(self, now: int, roster: str, *, peer: bool, sole: bool, rank: int) -> None:
        """Take another roster; votes that were asked for under the former one count no more."""
        if roster != self.roster:
            self._void()
            self.based = max(self.based, min(self.gate, now + LEASE))
            self.heard = 0
        self.roster, self.peer, self.sole, self.rank = roster, peer, sole, rank

    def settled(self, now: int) -> bool:
        """Tell whether nothing rests on a vote of a former roster any more."""
        return now >= self.based

    def leave(self) -> list[Action]:
        """Give the lease up, and want it no more while ``leaving``: others need not wait."""
        self.leaving, self.gate = True, 0
        self._void()
        return self._give_back()

    def tick(self, now: int) -> list[Action]:
        """Do what is due."""
        if self.leaving or now < self.promised:
            return []
        if self.sole:
            self.gate = now + LEASE
            return self._give_back()
        actions: list[Action] = []
        if self.peer and now >= self.asked + INTERVAL:
            self.asked = now
            actions.append(Ask(self._begin(now), self.holds(now)))
        if self._wants_plane(now):
            self.asked_plane, self.waiting = now, True
            self.asked_length = PLANE_LEASE if self._alone(now) else LEASE
            actions.append(AskPlane(self._begin(now), self.asked_length))
        return actions

    def _wants_plane(self, now: int) -> bool:
        long = self.plane and self.asked_length == PLANE_LEASE
        pause = PLANE_INTERVAL if long or self.waiting else PLANE_RETRY
        if now < self.asked_plane + pause:
            return False
        return self.plane or not self.holds(now) or not self.peer or now >= self.heard + SUSPECT

    def _alone(self, now: int) -> bool:
        return not self.peer or now >= self.heard + GONE

    def _begin(self, now: int) -> int:
        self.round += 1
        self.since[self.round] = now
        for old in [number for number, begun in self.since.items() if begun < now - 2 * PLANE_LEASE]:
            del self.since[old]
        return self.round

    def _void(self) -> None:
        """Let no vote count that was asked for until now."""
        self.void, self.waiting = self.round, False
        self.since.clear()

    def _give_back(self) -> list[Action]:
        had, self.plane = self.plane, False
        return [ReleasePlane(self.round)] if had else []

    def asked_by_peer(
        self, now: int, number: int, roster: str, rank: int, *, holding: bool
    ) -> tuple[bool, list[Action]]:
        """Decide on the peer's question; return whether it has the vote, and what is to be done."""
        if roster != self.roster or self.holds(now):
            return False, []
        candidate = not self.leaving and now >= self.promised
        if candidate and not holding and self.rank < rank:
            return False, []
        self._void()
        self.promised, self.voted = now + LEASE + MARGIN, number
        return True, self._give_back()

    def peer_left(self, number: int, roster: str) -> None:
        """Take note that the peer, as of this round, holds nothing and wants nothing: the promise to it is void."""
        if roster == self.roster and number >= self.voted > 0:
            self.promised = 0

    def answered(self, now: int, number: int, *, vote: bool) -> list[Action]:
        """Take the peer's answer."""
        begun = self.since.get(number)
        if begun is None or number <= self.void or not vote:
            return []
        if self.heard < now - SUSPECT:
            self.calm = now
        self.heard = now
        end = begun + LEASE
        if self.plane and now >= self.calm + CALM and end > now:
            self._void()  # a vote of the control plane that is under way may not count after it was given back
            self.gate = end
            return self._give_back()
        self.gate = max(self.gate, end)
        return []

    def plane_silent(self) -> None:
        """Take note that the control plane could not be asked."""
        self.waiting = False

    def plane_answered(self, number: int, length: int, *, vote: bool) -> list[Action]:
        """Take the control plane's answer."""
        begun = self.since.get(number)
        if begun is None or number <= self.void:
            return [ReleasePlane(number)] if vote and not self.plane else []
        self.waiting = False
        self.plane = vote
        if vote:
            self.gate = max(self.gate, begun + length)
        return []
