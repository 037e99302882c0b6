"""The sweep: finds what is not as desired without knowing why, so that nothing stays stuck.

A duty is a short function that looks through the rows and sets right what it finds; every room brings its own. It may
run in several processes at once and at any time, so it must be repeatable.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.db.base import now
from controlplane.db.session import Database
from controlplane.errors import Unavailable
from controlplane.work import jobs, workflows
from controlplane.work.jobs import PENDING, Job

log = logging.getLogger(__name__)
TICK = 1.0

Work = Callable[[Session], None]


@dataclass(slots=True)
class Duty:
    """Something that is looked after every so many seconds, in one transaction."""

    name: str
    seconds: float
    work: Work
    due: float = field(default=0.0)


DUTIES: dict[str, Duty] = {}
"""Every duty by its name."""


def duty(seconds: float) -> Callable[[Work], Work]:
    """Register, as a decorator, a function ``work(session)`` that is called every so many seconds."""

    def register(work: Work) -> Work:
        assert work.__name__ not in DUTIES, f"there are two duties {work.__name__}"
        DUTIES[work.__name__] = Duty(work.__name__, seconds, work)
        return work

    return register


class Sweep:
    """The thread of one process that does the duties, one after the other."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present duty."""
        self._ending.set()
        self._thread.join()

    def once(self) -> None:
        """Do every duty now."""
        for each in DUTIES.values():
            self._do(each)
        workflows.start_unstarted()

    def _run(self) -> None:
        begun = time.monotonic()
        for each in DUTIES.values():
            each.due = begun + each.seconds
        next_start = begun + START_SECONDS
        while not self._ending.wait(TICK):
            moment = time.monotonic()
            for each in DUTIES.values():
                if each.due <= moment and not self._ending.is_set():
                    self._do(each)
                    each.due = time.monotonic() + each.seconds
            if next_start <= moment:
                workflows.start_unstarted()
                next_start = moment + START_SECONDS

    def _do(self, each: Duty) -> None:
        try:
            with self._database.write() as session:
                each.work(session)
        except Exception:
            log.exception("The duty %s failed; next try in %s s", each.name, each.seconds)


START_SECONDS = 15.0
"""How often it is looked for workflows that were committed and never begun."""


@duty(10)
def end_late_jobs(session: Session) -> None:
    """Fail the jobs that are past their deadline."""
    late = select(Job).where(Job.status == PENDING, Job.deadline < now()).order_by(Job.id)
    for job in session.scalars(late):
        assert job.deadline is not None
        minutes = int((job.deadline - job.created).total_seconds() / 60)
        jobs.fail(session, job, Unavailable(f"{job.command} had no end after {minutes} minutes and was given up."))


def start(database: Database) -> Callable[[], None]:
    """Begin the sweep, and return how it is ended."""
    sweep = Sweep(database)
    sweep.start()
    return sweep.stop
