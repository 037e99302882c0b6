"""Targets: whatever a bundle is made for, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, cast

from sqlalchemy import ForeignKey, String, Table, Text, bindparam, update
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship
from sqlalchemy.orm.attributes import set_committed_value

from controlplane.db.base import Base, Created, Row, now
from controlplane.db.session import after_commit
from controlplane.errors import Unavailable
from controlplane.work import jobs
from controlplane.work.signals import signals
from controlplane.work.workflows import settled_by
from drivers.vocabulary import ApplianceFacts, HostFacts
from systemvm.bundle import Outcome


class Agent(Created, Row):
    """An agent that pulls bundles for the targets it serves.

    :ivar token: SHA-256 of the token that it shows; the token itself is nowhere.
    :ivar inventory: what it last said of its machine.
    """

    __tablename__ = "agents"

    name: Mapped[str] = mapped_column(String(255), unique=True)
    token: Mapped[str] = mapped_column(String(64))
    inventory: Mapped[dict[str, Any]] = mapped_column(default=dict)
    seen: Mapped[datetime | None]


class Target(Created, Row):
    """Something that is to be in a desired state.

    :ivar kind: ``router``, ``host`` …: names the driver (``drivers.registry.by_kind``) and the facts.
    :ivar agent_id: who pulls for it; None when the control plane itself applies its bundles.
    :ivar applier: without an agent: the kind whose hosted driver applies the bundles; empty is the target's own kind.
    :ivar failed_generation: the newest generation that could not be brought about, with ``reason``.
    :ivar failures: of the applied generation: unit (a guest's or rule's UUID) → reason.
    :ivar refused: what the newest bundle had to leave out, in the same form.
    :ivar absent: it is to be taken down; the row goes when that is done.
    """

    __tablename__ = "targets"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - a number that was waited for is never another's

    kind: Mapped[str] = mapped_column(String(40), index=True)
    name: Mapped[str] = mapped_column(String(255))
    agent_id: Mapped[int | None] = mapped_column(ForeignKey("agents.id"), index=True)
    applier: Mapped[str] = mapped_column(String(40), default="")
    desired_generation: Mapped[int] = mapped_column(default=1)
    applied_generation: Mapped[int] = mapped_column(default=0)
    failed_generation: Mapped[int] = mapped_column(default=0)
    digest: Mapped[str] = mapped_column(String(64), default="")
    absent: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str] = mapped_column(Text, default="")
    failures: Mapped[dict[str, str]] = mapped_column(default=dict)
    refused: Mapped[dict[str, str]] = mapped_column(default=dict)
    applied: Mapped[datetime | None]
    agent: Mapped[Agent | None] = relationship(lazy="joined")

    @property
    def settled_generation(self) -> int:
        """The newest generation with an outcome, good or bad."""
        return max(self.applied_generation, self.failed_generation)


class Found(Base):
    """What was last read back from a target."""

    __tablename__ = "observations"

    target_id: Mapped[int] = mapped_column(ForeignKey("targets.id", ondelete="CASCADE"), primary_key=True)
    at: Mapped[datetime] = mapped_column(default=now)
    health: Mapped[dict[str, str]] = mapped_column(default=dict)
    states: Mapped[dict[str, str]] = mapped_column(default=dict)
    counters: Mapped[dict[str, Any]] = mapped_column(default=dict)


_targets = cast("Table", Target.__table__)
_RAISE = (  # built once: it is a part of every change
    update(_targets)
    .where(_targets.c.id == bindparam("target"))
    .values(desired_generation=_targets.c.desired_generation + 1)
    .returning(_targets.c.desired_generation)
)
Facts = ApplianceFacts | HostFacts
_loaders: dict[str, Callable[[Session, Target], Facts]] = {}
Listener = Callable[[Session, Target], None]
_removers: dict[str, Listener] = {}
_settled: dict[str, list[Listener]] = {}
_refusing: dict[str, list[Listener]] = {}


def facts_of(kind: str) -> Callable[[Callable[[Session, Target], Facts]], Callable[[Session, Target], Facts]]:
    """Register, as a decorator, the query function that loads the facts of this kind of target."""

    def register(loader: Callable[[Session, Target], Facts]) -> Callable[[Session, Target], Facts]:
        _loaders[kind] = loader
        return loader

    return register


def load_facts(session: Session, target: Target) -> Facts:
    """Read what is wanted of the target, from one snapshot."""
    return _loaders[target.kind](session, target)


def on_settled(kind: str) -> Callable[[Listener], Listener]:
    """Register, as a decorator, what learns that a target of this kind stands at its desired generation."""

    def register(listener: Listener) -> Listener:
        _settled.setdefault(kind, []).append(listener)
        return listener

    return register


def on_refused(kind: str) -> Callable[[Listener], Listener]:
    """Register, as a decorator, what learns that the ``refused`` of a target of this kind are others than before."""

    def register(listener: Listener) -> Listener:
        _refusing.setdefault(kind, []).append(listener)
        return listener

    return register


def refuse(session: Session, target: Target, refused: dict[str, str]) -> None:
    """Take note of what the target's newest bundle leaves out; nothing happens where that is known."""
    if target.refused == refused:
        return
    target.refused = refused
    for listener in _refusing.get(target.kind, ()):
        listener(session, target)


def on_gone(kind: str) -> Callable[[Listener], Listener]:
    """Register, as a decorator, what is done with the rows behind a target of this kind once it has been taken down."""

    def register(remover: Listener) -> Listener:
        _removers[kind] = remover
        return remover

    return register


def touch(session: Session, targets: Sequence[Target]) -> list[tuple[int, int]]:
    """Raise the desired generation of these targets and wake whoever serves them.

    :return: (target number, generation) of each, for a job to wait for.
    """
    session.flush()
    raised: list[tuple[int, int]] = []
    for target in sorted({target.id: target for target in targets}.values(), key=lambda target: target.id):
        generation: int = session.execute(_RAISE, {"target": target.id}).scalar_one()
        set_committed_value(target, "desired_generation", generation)
        raised.append((target.id, generation))
        after_commit(session, partial(signals.notify, f"agent/{target.agent_id}" if target.agent_id else "hosted"))
    return raised


def settle(session: Session, target: Target, outcome: Outcome) -> None:
    """Store what came of a bundle, and end the jobs that waited for it, in this one transaction."""
    if outcome.status in ("applied", "unchanged"):
        if outcome.generation < target.applied_generation:
            return
        target.applied_generation, target.digest, target.applied = outcome.generation, outcome.digest, now()
        target.failures = target.refused | {failure.unit: failure.reason for failure in outcome.failures}
        if target.failed_generation <= outcome.generation:
            target.reason = ""
        newest = outcome.generation >= target.desired_generation
        for listener in _settled.get(target.kind, ()) if newest else ():
            listener(session, target)
        jobs.reached(session, target.id, outcome.generation, target.refused)
        if target.absent and newest:
            remove = _removers.get(target.kind)
            if remove is not None:
                remove(session, target)
    elif outcome.generation > target.failed_generation:
        target.failed_generation = outcome.generation
        target.reason = "; ".join(f"{failure.unit}: {failure.reason}" for failure in outcome.failures)
        error = Unavailable(f"{target.name} kept its former configuration. {target.reason}")
        jobs.missed(session, target.id, outcome.generation, error)
    after_commit(session, partial(signals.notify, f"target/{target.id}"))


def _settled_generation(session: Session, number: int) -> int:
    target = session.get(Target, number)
    return target.settled_generation if target else 1 << 62  # a target that is gone has nothing left to do


settled_by(_settled_generation)
