"""Workflows: durable functions that survive the process, on DBOS.

A workflow is a plain function of a :class:`Flow`. Each ``flow.step`` is one transaction on our database, done at least
once and skipped when it is known to be done; between steps a workflow waits for targets without holding anything. The
engine keeps its own books in a database of its own, so that it never stands in the way of ours; a job's UUID is the
workflow's, so starting it twice is starting it once.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.db.session import Database, after_commit
from controlplane.errors import ApiError, Unavailable
from controlplane.work import jobs
from controlplane.work.deferred import deferred
from controlplane.work.jobs import PENDING, Job, JobProblem
from controlplane.work.signals import signals

with deferred("psycopg", "errors"):  # 9 MB, for an engine whose books are in PostgreSQL: ours are in SQLite
    from dbos import DBOS, DBOSConfig, SetWorkflowID

log = logging.getLogger(__name__)
VERSION = "1"
"""Raised when a workflow's steps change, so that old ones are finished by code that knows them."""
THREADS = 32

Result = TypeVar("Result")
Workflow = Callable[["Flow"], None]
_workflows: dict[str, Workflow] = {}
_engine: list[Database] = []
Reached = Callable[[Session, int], int]
_settled: list[Reached] = []


def workflow(name: str) -> Callable[[Workflow], Workflow]:
    """Register, as a decorator, a durable function under this name."""

    def register(function: Workflow) -> Workflow:
        assert name not in _workflows, f"there are two workflows {name}"
        _workflows[name] = function
        return function

    return register


def settled_by(reader: Reached) -> None:
    """Have a target's newest generation with an outcome read by the reconciler's layer."""
    _settled[:] = [reader]


class Flow:
    """One run of a workflow.

    :ivar job: the job's UUID, ``subject`` its object's, ``arguments`` what the command handed over.
    """

    def __init__(self, database: Database, job: Job) -> None:
        self._database = database
        self.job = job.uuid
        self.subject = job.instance_uuid
        self.arguments = job.parameters

    def step(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run ``function(session, *arguments)`` in one transaction, once; the result must be plain data.

        :raises ApiError: as the function does; it is remembered, too.
        """

        def transaction() -> tuple[Result | None, dict[str, Any] | None]:
            try:
                with self._database.write() as session:
                    return function(session, *arguments), None
            except ApiError as error:
                return None, {"kind": type(error).__name__, "status": error.status, "text": error.text}

        result, problem = DBOS.run_step({"name": function.__name__}, transaction)
        if problem is not None:
            error = ApiError(problem["text"])
            error.status = problem["status"]
            raise error
        return result  # type: ignore[return-value]

    def note(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run ``function(session, *arguments)`` in a transaction that is no step: it says how far the work has come.

        It runs again when the workflow does, and the next step overtakes it.
        """
        with self._database.write() as session:
            function(session, *arguments)

    def wait(self, targets: Sequence[Sequence[int]], seconds: float = 60.0) -> None:
        """Wait until each (target number, generation) has an outcome; the next step reads what it was.

        :raises Unavailable: one has none after this long.
        """

        def ready() -> bool:
            with self._database.read() as session:
                return all(_settled[0](session, number) >= generation for number, generation in targets)

        if not signals.wait([f"target/{number}" for number, _ in targets], ready, seconds):
            raise Unavailable(f"No agent has applied the change within {seconds:.0f} s: is the host connected?")

    def wait_for_job(self, uuid: str, seconds: float) -> bool:
        """Wait until another job has ended, well or not; False when the time ran out first."""

        def ended() -> bool:
            with self._database.read() as session:
                return session.scalar(select(Job.status).where(Job.uuid == uuid)) != PENDING

        return signals.wait([f"job/{uuid}"], ended, seconds)


def start_after_commit(session: Session, job: Job) -> None:
    """Have the job's workflow begin once the transaction is safe, and once earlier jobs on the same object are done."""
    uuid = job.uuid
    after_commit(session, lambda: _start(uuid))


def _start(uuid: str) -> None:
    if not _engine:
        return  # a process that only answers requests: the one with an engine finds the row
    database = _engine[0]
    with database.write() as session:
        job = session.scalars(select(Job).where(Job.uuid == uuid)).one()
        if job.status != PENDING or _blocked(session, job):
            return
        job.started = True
    with SetWorkflowID(uuid):
        DBOS.start_workflow(_run, uuid)


def _blocked(session: Session, job: Job) -> bool:
    earlier = select(Job.id).where(Job.serial == job.serial, Job.status == PENDING, Job.id < job.id)
    return bool(job.serial) and session.scalar(earlier.limit(1)) is not None


@DBOS.workflow(name="job")
def _run(uuid: str) -> None:
    database = _engine[0]
    with database.read() as session:
        job = session.scalars(select(Job).where(Job.uuid == uuid)).one()
    error, trace = None, ""
    try:
        _workflows[job.workflow](Flow(database, job))
    except ApiError as refused:
        error = refused
    except Exception:
        trace = traceback.format_exc()
        log.exception("Job %s (%s) failed", uuid, job.command)
        error = ApiError(f"{job.command} failed on the server's side; the log has the reason under job {uuid}.")
    DBOS.run_step({"name": "end"}, _end, uuid, error.status if error else 0, error.text if error else "", trace)
    _start_next(job.serial)


def _end(uuid: str, status: int, text: str, trace: str) -> None:
    with _engine[0].write() as session:
        job = session.scalars(select(Job).where(Job.uuid == uuid)).one()
        if job.status != PENDING:
            return
        if not status:
            jobs.succeed(session, job)
            return
        error = ApiError(text)
        error.status = status
        jobs.fail(session, job, error)
        if trace:
            session.add(JobProblem(job_id=job.id, trace=trace))


def _start_next(serial: str) -> None:
    if not serial:
        return
    with _engine[0].read() as session:
        waiting = select(Job.uuid).where(Job.serial == serial, Job.status == PENDING).order_by(Job.id).limit(1)
        uuid = session.scalar(waiting)
    if uuid is not None:
        _start(uuid)


def launch(database: Database, url: str, name: str) -> None:
    """Start the engine: what this process left unfinished goes on, and what nobody began is begun.

    :param url: of the engine's own database.
    :param name: of this process: its unfinished workflows are its own to resume.
    """
    config = DBOSConfig(
        name="netspine",
        system_database_url=url,
        application_version=VERSION,
        executor_id=name,
        log_level="WARNING",
        max_executor_threads=THREADS,
        notification_listener_polling_interval_sec=1.0,
        use_listen_notify=False,
    )
    work_on(database)
    DBOS(config=config)
    DBOS.launch()
    start_unstarted()


def work_on(database: Database) -> None:
    """Have the engine work on the jobs of this database from now on."""
    _engine[:] = [database]


def start_unstarted() -> None:
    """Begin the workflows of jobs that were committed and never begun, for whatever reason."""
    with _engine[0].read() as session:
        waiting = select(Job).where(Job.status == PENDING, Job.workflow != "").order_by(Job.id)
        uuids = [job.uuid for job in session.scalars(waiting)]
    for uuid in uuids:
        if DBOS.get_workflow_status(uuid) is None:
            _start(uuid)


def stop() -> None:
    """Stop the engine; unfinished workflows go on at the next launch."""
    DBOS.destroy(workflow_completion_timeout_sec=2)
    _engine.clear()
