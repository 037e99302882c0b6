"""Jobs: what an asynchronous command answers with, and how it ends.

A job ends in one of three ways: at once, when it touched nothing; in the very transaction that stores the last outcome
it waits for; or at the end of its workflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, cast

from sqlalchemy import ForeignKey, String, Table, Text, bindparam, delete, insert, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.db.base import Base, Created, Owned, Row, now
from controlplane.db.secrets import SecretJson
from controlplane.db.session import after_commit
from controlplane.errors import ApiError, Unavailable
from controlplane.work.signals import signals

PENDING, SUCCEEDED, FAILED, CANCELLED = 0, 1, 2, 3


class Job(Created, Owned, Row):
    """An asynchronous job (queryAsyncJobResult).

    :ivar workflow: the durable function that does the work; empty when it only waits for targets.
    :ivar serial: jobs with the same value run one after the other, in the order of their numbers.
    :ivar started: a workflow's: it has been handed to the engine.
    """

    __tablename__ = "async_jobs"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    command: Mapped[str] = mapped_column(String(100))
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    instance_type: Mapped[str] = mapped_column(String(40), default="")
    instance_uuid: Mapped[str] = mapped_column(String(40), default="", index=True)
    status: Mapped[int] = mapped_column(default=PENDING, index=True)
    code: Mapped[int] = mapped_column(default=0)
    result: Mapped[dict[str, Any] | None] = mapped_column(SecretJson)
    completed: Mapped[datetime | None]
    deadline: Mapped[datetime | None]
    workflow: Mapped[str] = mapped_column(String(60), default="")
    serial: Mapped[str] = mapped_column(String(60), default="", index=True)
    started: Mapped[bool] = mapped_column(default=False)


class JobWait(Base):
    """A job waits until a target has reached a generation."""

    __tablename__ = "job_waits"

    job_id: Mapped[int] = mapped_column(ForeignKey("async_jobs.id", ondelete="CASCADE"), primary_key=True)
    target_id: Mapped[int] = mapped_column(ForeignKey("targets.id"), primary_key=True, index=True)
    generation: Mapped[int]


_waits = cast("Table", JobWait.__table__)
_SO_FAR = _waits.c.target_id == bindparam("target"), _waits.c.generation <= bindparam("reached")
_OF_JOBS = _waits.c.job_id.in_(bindparam("jobs", expanding=True))
_WAITING = select(Job).join(JobWait).where(*_SO_FAR).order_by(Job.id)
_OVER, _END, _OTHERS = (
    delete(_waits).where(*_SO_FAR),
    delete(_waits).where(_OF_JOBS),
    select(_waits.c.job_id).where(_OF_JOBS),
)
Results = dict[int, dict[str, Any] | ApiError]
"""Job number → what it answers, or why it cannot."""
Renderer = Callable[[Session, Sequence[Job]], Results]
Ended = Callable[[Session, Sequence[Job]], None]
_renderer: list[Renderer] = []
_listeners: list[Ended] = []


def render_results_with(renderer: Renderer) -> None:
    """Have the results of jobs written by the API layer, which knows the commands' answers."""
    _renderer[:] = [renderer]


def on_end(listener: Ended) -> None:
    """Have the listener called, in the same transaction, whenever jobs end; the ``status`` of each says how."""
    _listeners.append(listener)


def wait_for(session: Session, job: Job, targets: Iterable[tuple[int, int]]) -> None:
    """Have the job end when all of these (target number, generation) are reached."""
    waits = [{"job_id": job.id, "target_id": target, "generation": number} for target, number in targets]
    if waits:
        session.execute(insert(_waits), waits)


def succeed(session: Session, *ending: Job) -> None:
    """End jobs well: the result of each is its command's answer, as things are now."""
    results, good = _renderer[0](session, ending), []
    for job in ending:
        result = results[job.id]
        if isinstance(result, ApiError):
            fail(session, job, result)
        else:
            job.result = result
            good.append(job)
    _end(session, good, SUCCEEDED)


def fail(session: Session, job: Job, error: ApiError) -> None:
    """End the job with an error."""
    job.code = error.status
    job.result = {"errorcode": error.status, "errortext": error.text}
    _end(session, [job], FAILED)


def _end(session: Session, ending: Sequence[Job], status: int) -> None:
    if not ending:
        return
    for job in ending:
        job.status, job.completed = status, now()
        after_commit(session, partial(signals.notify, f"job/{job.uuid}"))
    session.flush()
    session.execute(_END, {"jobs": [job.id for job in ending]})
    for listener in _listeners:
        listener(session, ending)
    if any(job.serial for job in ending):
        after_commit(session, partial(signals.notify, "serial"))


def reached(session: Session, target: int, generation: int, refused: Mapping[str, str] = MappingProxyType({})) -> None:
    """Take note that a target stands at a generation: jobs that waited for nothing else end well, all at once.

    :param refused: UUID of what the target stands without → why; the jobs about these end with that.
    """
    waiting = _waiting(session, target, generation)
    found = [job for job in waiting if job.instance_uuid not in refused]
    for job in waiting if len(found) < len(waiting) else ():
        if job.instance_uuid in refused:
            fail(session, job, Unavailable(refused[job.instance_uuid]))
    if not found:
        return
    session.flush()
    session.execute(_OVER, {"target": target, "reached": generation})
    others = set(session.scalars(_OTHERS, {"jobs": [job.id for job in found]}))
    succeed(session, *(job for job in found if job.id not in others))


def missed(session: Session, target: int, generation: int, error: ApiError) -> None:
    """Take note that a target refused a generation: the jobs that waited for it end with the reason."""
    for job in _waiting(session, target, generation):
        fail(session, job, error)


def _waiting(session: Session, target: int, generation: int) -> list[Job]:
    return list(session.scalars(_WAITING, {"target": target, "reached": generation}))


class JobProblem(Base):
    """What the server itself knows of a failed job beyond the sentence for its caller: for ``netspine why``."""

    __tablename__ = "job_problems"

    job_id: Mapped[int] = mapped_column(ForeignKey("async_jobs.id", ondelete="CASCADE"), primary_key=True)
    trace: Mapped[str] = mapped_column(Text)
