"""Dispatch: from raw parameters to an answer, in one transaction.

The order of checks is CloudStack's: command known, role, map syntax, required parameters, conversion and access, and
then the command's own logic.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from controlplane.api.caller import Caller
from controlplane.api.command import REGISTRY, Command
from controlplane.api.context import Context, entity_name
from controlplane.api.parameters import Find, Parameter, Records, as_pairs, read_maps
from controlplane.api.responses import Response
from controlplane.api.visit import Visit
from controlplane.db.base import Row
from controlplane.db.session import Database
from controlplane.errors import ApiError, BadParameter, InUse, MissingParameter, Unauthenticated
from controlplane.reconcile.targets import touch
from controlplane.work import jobs, workflows
from controlplane.work.jobs import Job

log = logging.getLogger(__name__)
ATTEMPTS = 5
SERIALIZATION_FAILURES = ("40001", "40P01")
"""PostgreSQL's SQLSTATEs of transactions that would do well when run again (serialization failure, deadlock)."""
JOB_PATIENCE = timedelta(hours=1)
COMMON = {
    "command",
    "response",
    "apikey",
    "signature",
    "signatureversion",
    "expires",
    "sessionkey",
    "_",
    "ctxaccountid",
}

Recorder = Callable[[Context, Command, Job | None], None]
_recorders: list[Recorder] = []


def on_change(recorder: Recorder) -> None:
    """Have the recorder called in the transaction of every command that changed something."""
    _recorders.append(recorder)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer before it becomes JSON or XML: the envelope's name and what is in it."""

    envelope: str
    body: dict[str, Any]


class Dispatcher:
    """Runs commands against one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def dispatch(self, caller: Caller, raw: Mapping[str, str], visit: Visit | None = None) -> Reply:
        """Run the command that the parameters name.

        :param visit: the HTTP request, where there is one.
        :raises ApiError: it is refused; nothing has been changed.
        """
        command = command_for(named(raw, "command"), caller)()
        plain, maps = read_maps(raw)
        visit = visit or Visit()
        if type(command).prepare is not Command.prepare:
            with self.database.read() as session:
                ctx = Context(session, caller, visit=visit)
                fill(command, ctx, plain, maps)
                command.prepare(ctx)

        def transaction() -> dict[str, Any]:
            with (self.database.write if command.writes else self.database.read)() as session:
                ctx = Context(session, caller, visit=visit)
                fill(command, ctx, plain, maps)
                body = _run(command, ctx)
                session.flush()
            if ctx.refusal is not None:
                raise ctx.refusal
            return body

        return Reply(command.envelope, _again_if_others_won(transaction))


def _again_if_others_won(transaction: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a transaction, again where the database could not put it in order with others that ran beside it."""
    for _ in range(ATTEMPTS):
        try:
            return transaction()
        except IntegrityError as error:
            raise _conflict(error) from error
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", "") not in SERIALIZATION_FAILURES:
                raise
            log.info("Others changed the same rows: %s", error.orig)
    raise InUse(f"Others changed the same things at the same moment, {ATTEMPTS} times over: try again.")


def command_for(name: str, caller: Caller) -> type[Command]:
    """Return the command of this name.

    :raises Unauthenticated: there is none, or the caller's role does not allow it; one text for both.
    """
    command = REGISTRY.get(name)
    if command is None or (command.authenticated and not caller.may(name, command.roles)):
        raise Unauthenticated(f"The given command '{name}' either does not exist or is not available for user.")
    return command


def fill(command: Command, ctx: Context, plain: Mapping[str, str], maps: Mapping[str, list[dict[str, str]]]) -> None:
    """Give the command its parameters: read, resolved and checked."""
    for name in command.unsupported:
        if name.lower() in plain or name.lower() in maps:
            raise BadParameter(f"Parameter {name} of {command.command} is not supported by Netspine: leave it out.")
    parameters, lowered = command.parameters(), command.command.lower()
    if "page" in parameters:
        check_paging(plain)
    for parameter in parameters.values():
        key = parameter.name.lower()
        if parameter.declared.required and not (plain.get(key, "").strip() or maps.get(key)):
            raise MissingParameter(f"Unable to execute API command {lowered} due to missing parameter {parameter.name}")
    for parameter in parameters.values():
        key = parameter.name.lower()
        find = ctx.find_own if command.writes and not parameter.declared.uses else ctx.find
        setattr(command, parameter.name, _value(parameter, ctx, find, plain.get(key), maps.get(key)))


def check_paging(plain: Mapping[str, str]) -> None:
    """Check that ``page`` and ``pagesize`` come together; a page size of -1 (all) stands alone.

    :raises BadParameter: one of them is missing.
    """
    page, size = plain.get("page", "").strip(), plain.get("pagesize", "").strip()
    if bool(page) != bool(size) and (page or size != "-1"):
        missing = "pagesize" if page else "page"
        raise BadParameter(f"Invalid parameter {missing}: page and pagesize go together, so give {missing}, too.")


def named(raw: Mapping[str, str], wanted: str) -> str:
    """Return the parameter whose name is this in lower case; empty when it is not there."""
    return next((value for name, value in raw.items() if name.lower() == wanted), "")


def _value(
    parameter: Parameter, ctx: Context, find: Find, text: str | None, records: list[dict[str, str]] | None
) -> Any:
    declared = parameter.declared
    if parameter.type == "map":
        if records is None:
            return declared.default
        value: Any = Records(records) if parameter.records else as_pairs(records)
        return parameter.vetted(value)
    blank_is_absent = parameter.type != "string"
    if text is None or (blank_is_absent and not text.strip()):
        return declared.default
    if declared.admin and not ctx.caller.is_admin:
        raise BadParameter(f"Parameter {parameter.name} may only be given by a root admin.")
    return parameter.convert(text, find)


def _run(command: Command, ctx: Context) -> dict[str, Any]:
    result = command.run(ctx)
    ctx.session.flush()
    if ctx.refusal is not None:
        return {}
    if ctx.instance is None:
        subjects = (result, getattr(command, "id", None))
        ctx.instance = next((row for row in subjects if isinstance(row, Row)), None)
    job = _job(command, ctx) if command.job else None
    for recorder in _recorders if command.event and ctx.caller.user_id else ():
        recorder(ctx, command, job)
    raised = touch(ctx.session, ctx.touched) if command.writes else []
    if job is None:
        return render(command, ctx, result)
    _set_off(ctx, job, raised)
    reference = {"jobid": job.uuid}
    return reference | {"id": job.instance_uuid} if command.creates else reference


def _job(command: Command, ctx: Context) -> Job:
    job = Job(
        account_id=ctx.caller.account_id,
        domain_id=ctx.caller.domain_id,
        user_id=ctx.caller.user_id,
        command=command.command,
        parameters=ctx.arguments,
        instance_type=command.instance,
        instance_uuid=ctx.instance.uuid if ctx.instance is not None else "",
        deadline=ctx.now + JOB_PATIENCE,
        workflow=ctx.workflow,
        serial=ctx.serial,
    )
    ctx.session.add(job)
    ctx.session.flush()
    return job


def _set_off(ctx: Context, job: Job, raised: list[tuple[int, int]]) -> None:
    if ctx.workflow:
        workflows.start_after_commit(ctx.session, job)
    elif raised:
        jobs.wait_for(ctx.session, job, raised)
    else:
        jobs.succeed(ctx.session, job)


def render(command: Command, ctx: Context, result: Any) -> dict[str, Any]:
    """Return what is inside the envelope for a command's result."""
    answer = command.answer
    if answer.kind == "success":
        return {"success": True} | ({"displaytext": result} if result else {})
    if answer.kind == "flat":
        assert isinstance(result, Response)
        return result.to_json()
    assert answer.view is not None
    if answer.kind == "one":
        (response,) = answer.view(ctx, [result])
        return {answer.key: response.to_json()}
    rows, count = result if isinstance(result, tuple) else (result, len(result))
    shown = [response.to_json() for response in answer.view(ctx, rows)] if rows else []
    if not count:
        return {}
    return {"count": count} | ({answer.key: shown} if shown else {})


def render_jobs(session: Session, ending: Sequence[Job]) -> jobs.Results:
    """Return the results of jobs that went well: each command's answer about the object, as it is now.

    What is gone is the error of its job. Jobs of one command and one user are answered together.
    """
    groups: dict[tuple[str, int], list[Job]] = {}
    for job in ending:
        groups.setdefault((job.command, job.user_id), []).append(job)
    results: jobs.Results = {}
    for (command, user), group in groups.items():
        results |= _answers(session, REGISTRY[command], user, group)
    return results


def _answers(session: Session, command: type[Command], user: int, group: Sequence[Job]) -> jobs.Results:
    answer = command.answer
    if answer.kind == "success":
        return {job.id: {"success": True} for job in group}
    assert answer.view is not None
    table = JOB_TABLES[command.instance]
    rows = session.scalars(select(table).where(table.uuid.in_([job.instance_uuid for job in group]))).all()
    views = answer.view(Context(session, CALLERS[0](session, user)), rows) if rows else []
    shown = {row.uuid: view.to_json() for row, view in zip(rows, views, strict=True)}
    gone = InUse(f"The {entity_name(table)} was deleted before the change was in force.")
    many = answer.kind == "many"
    return {
        job.id: ({"count": 1, answer.key: [shown[uuid]]} if many else {answer.key: shown[uuid]})
        if uuid in shown
        else gone
        for job in group
        for uuid in [job.instance_uuid]
    }


CALLERS: list[Callable[[Session, int], Caller]] = []
"""How the caller of a job is made again from its user's number; filled in by the identity package."""
JOB_TABLES: dict[str, type[Row]] = {}
"""The table behind each ``instance`` type name; filled in where the tables are."""


jobs.render_results_with(render_jobs)


def _conflict(error: IntegrityError) -> ApiError:
    log.info("Refused by the database: %s", error.orig)
    return InUse(f"Somebody else has just taken what this needs, or it is still used: {error.orig}.")
