"""Observations: what was last read back from targets, with counters that survive a router's replacement."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

from controlplane.db.base import now
from controlplane.reconcile.targets import Found, Target
from systemvm.bundle import Observation

Listener = Callable[[Session, Target, Observation], None]
_listeners: dict[str, list[Listener]] = {}


def on_observation(kind: str) -> Callable[[Listener], Listener]:
    """Register, as a decorator, a function that learns of each observation of this kind of target."""

    def register(listener: Listener) -> Listener:
        _listeners.setdefault(kind, []).append(listener)
        return listener

    return register


def store(session: Session, target: Target, observation: Observation) -> None:
    """Keep the observation; a counter that fell was made anew, and goes on from where it was.

    Each counter is kept as ``[packets, bytes, last packets, last bytes]``: the totals, and what was read last.
    """
    found = session.get(Found, target.id) or Found(target_id=target.id, counters={})
    counters = dict(found.counters)
    for name, packets, size in observation.counters:
        total_packets, total_size, last_packets, last_size = counters.get(name, (0, 0, 0, 0))
        fresh = packets < last_packets or size < last_size
        counters[name] = (
            total_packets + packets - (0 if fresh else last_packets),
            total_size + size - (0 if fresh else last_size),
            packets,
            size,
        )
    found.counters, found.at = counters, now()
    found.health, found.states = dict(observation.health), dict(observation.states)
    session.add(found)
    for listener in _listeners.get(target.kind, ()):
        listener(session, target, observation)


def inherit(session: Session, target: int, former: Found) -> None:
    """Add the totals of a target that goes to those of the one, by its number, that took its place."""
    found = session.get(Found, target) or Found(target_id=target, health={}, states={}, counters={})
    counters = dict(found.counters)
    for name, (packets, size, *_) in former.counters.items():
        own = counters.get(name, (0, 0, 0, 0))
        counters[name] = (own[0] + packets, own[1] + size, own[2], own[3])
    found.counters = counters
    session.add(found)
