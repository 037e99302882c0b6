"""Events: who changed which object when, and what came of it (listEvents).

Every command with an ``event`` leaves exactly one event per change: a synchronous one when it is done, a job one when
it is scheduled and one when it ends, whose ``parentid`` is the former. They are written in the very transactions of the
change and of the job's end, so that there is none without the other. A refused call changes nothing and leaves none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, cast

from sqlalchemy import ForeignKey, Select, String, Table, and_, delete, exists, insert, or_, select, update
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from controlplane.api.caller import EVERYONE
from controlplane.api.command import REGISTRY, Command, many, success
from controlplane.api.context import Context, visible
from controlplane.api.dispatch import on_change
from controlplane.api.envelope import text_for
from controlplane.api.parameters import matching, optional
from controlplane.api.responses import Response
from controlplane.db.base import Created, Owned, Row
from controlplane.errors import BadParameter
from controlplane.identity import removal
from controlplane.identity.ownership import OwnedListing, owner_fields
from controlplane.identity.users import User
from controlplane.work.jobs import FAILED, Job, on_end

INFO, WARN, ERROR = "INFO", "WARN", "ERROR"
CREATED, SCHEDULED, COMPLETED = "Created", "Scheduled", "Completed"
_DESCRIPTION = 1024


class Event(Created, Owned, Row):
    """An event. It belongs to the owner of the object, or to the account of who made it happen.

    :ivar user_id: who made it happen.
    :ivar job_id: of a job's events; ``parent_uuid`` of the second one is the first.
    :ivar error: why it failed, with ``code`` its number; tenants are not told the inside of the cloud.
    """

    __tablename__ = "events"

    type: Mapped[str] = mapped_column(String(60), index=True)
    level: Mapped[str] = mapped_column(String(10), default=INFO)
    state: Mapped[str] = mapped_column(String(20))
    description: Mapped[str] = mapped_column(String(_DESCRIPTION))
    error: Mapped[str] = mapped_column(String(_DESCRIPTION), default="")
    code: Mapped[int] = mapped_column(default=0)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    job_id: Mapped[int | None] = mapped_column(ForeignKey("async_jobs.id", ondelete="SET NULL"), index=True)
    parent_uuid: Mapped[str | None] = mapped_column(String(40), index=True)
    resource_type: Mapped[str] = mapped_column(String(40), default="")
    resource_uuid: Mapped[str] = mapped_column(String(40), default="", index=True)
    resource_name: Mapped[str] = mapped_column(String(255), default="")
    archived: Mapped[bool] = mapped_column(default=False)


_events = cast("Table", Event.__table__)
removal.HISTORY.add(Event)


def _record(ctx: Context, command: Command, job: Job | None) -> None:
    subject = ctx.instance
    name = _name_of(subject)
    words = _words(type(command).command)
    named = " ".join(part for part in (f"'{name}'" if name else "", f"({subject.uuid})" if subject else "") if part)
    sentence = f"{words} {named}".rstrip() + (f": {ctx.note}" if ctx.note else "")
    owner = subject if isinstance(subject, Owned) else ctx.caller
    state = SCHEDULED if job else CREATED if command.command.startswith("create") else COMPLETED
    event = {
        "type": ctx.event or command.event,
        "state": state,
        "description": sentence[:_DESCRIPTION],
        "account_id": owner.account_id,
        "domain_id": owner.domain_id,
        "user_id": ctx.caller.user_id,
        "job_id": job.id if job else None,
        "resource_type": command.instance or (type(subject).__name__ if subject else ""),
        "resource_uuid": subject.uuid if subject else "",
        "resource_name": name,
    }
    ctx.session.execute(insert(_events), event)  # as a plain row: nobody looks at it again here


def _record_end(session: Session, ending: Sequence[Job]) -> None:
    jobs = {job.id: job for job in ending}
    query = select(Event).where(Event.job_id.in_(jobs), Event.state == SCHEDULED).order_by(Event.id)
    session.add_all(_end_of(begun, jobs[begun.job_id or 0]) for begun in session.scalars(query))


def _end_of(begun: Event, job: Job) -> Event:
    failed = job.status == FAILED
    return Event(
        type=begun.type,
        level=ERROR if failed else INFO,
        state=COMPLETED,
        description=f"{'Failed' if failed else 'Done'}: {begun.description}"[:_DESCRIPTION],
        error=str((job.result or {}).get("errortext", ""))[:_DESCRIPTION] if failed else "",
        code=job.code if failed else 0,
        account_id=begun.account_id,
        domain_id=begun.domain_id,
        user_id=begun.user_id,
        job_id=job.id,
        parent_uuid=begun.uuid,
        resource_type=begun.resource_type,
        resource_uuid=begun.resource_uuid,
        resource_name=begun.resource_name,
    )


on_change(_record)
on_end(_record_end)


def _name_of(row: Any) -> str:
    """Return what people call the object."""
    names = (getattr(row, column, None) for column in ("name", "username", "address"))
    return next((name[:255] for name in names if isinstance(name, str) and name), "")


@cache
def _words(command: str) -> str:
    """Write a command as a sentence begins: ``createPortForwardingRule`` → ``Create port forwarding rule``."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", command)
    words = " ".join(part if part.isupper() and len(part) > 1 else part.lower() for part in parts)
    return words[:1].upper() + words[1:]


@dataclass(kw_only=True)
class EventResponse(Response):
    """An event."""

    id: str
    type: str
    level: str
    state: str
    description: str
    created: datetime
    username: str
    account: str
    domain: str
    domainid: str
    domainpath: str
    archived: bool
    parentid: str | None = None
    resourceid: str | None = None
    resourcetype: str | None = None
    resourcename: str | None = None


def event_views(ctx: Context, rows: Sequence[Event]) -> list[EventResponse]:
    """Show events; why something failed in the words that are meant for who asks."""
    owners = owner_fields(ctx, rows)
    users = select(User.id, User.username).where(User.id.in_({row.user_id for row in rows}))
    names: dict[int, str] = {number: name for number, name in ctx.session.execute(users)}
    return [
        EventResponse(
            id=row.uuid,
            type=row.type,
            level=row.level,
            state=row.state,
            description=_description(ctx, row),
            created=row.created,
            username=names.get(row.user_id, ""),
            archived=row.archived,
            parentid=row.parent_uuid,
            resourceid=row.resource_uuid or None,
            resourcetype=row.resource_type or None,
            resourcename=row.resource_name or None,
            **owners[row.account_id],
        )
        for row in rows
    ]


def _description(ctx: Context, row: Event) -> str:
    if not row.error:
        return row.description
    return f"{row.description}. {text_for(row.code, row.error, admin=ctx.caller.is_admin)}"


class ListEvents(OwnedListing, name="listEvents", answer=many("event", event_views), roles=EVERYONE):
    """List events, the newest first."""

    table = Event
    keywords = (Event.description, Event.type)
    tags = None

    id: Event | None = matching(Event.id)
    type: str | None = matching(Event.type)
    level: str | None = matching(Event.level, choices=(INFO, WARN, ERROR))
    state: str | None = matching(Event.state, choices=(CREATED, SCHEDULED, COMPLETED))
    resourceid: str | None = matching(Event.resource_uuid)
    resourcetype: str | None = matching(Event.resource_type)
    startid: Event | None = optional(description="an event: it and those that follow from it")
    startdate: datetime | None = optional()
    enddate: datetime | None = optional(description="a date without a time is that whole day")
    archived: bool | None = optional(False, description="archived ones, too")
    entrytime: int | None = optional(description="seconds: jobs that began at most so long ago and have not ended")
    duration: int | None = optional(description="seconds, with entrytime: and that began at least so long ago")

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep the time and the state that are asked for."""
        if not self.archived and self.id is None:
            query = query.where(~Event.archived)
        if self.startid is not None:
            query = query.where(or_(Event.id == self.startid.id, Event.parent_uuid == self.startid.uuid))
        query = query.where(*between(Event.created, self.startdate, self.enddate))
        return self._unfinished(ctx, query)

    def _unfinished(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        if (self.entrytime is None) != (self.duration is None):
            raise BadParameter("Invalid parameter entrytime: entrytime and duration go together.")
        if self.entrytime is None or self.duration is None:
            return query
        if not 0 <= self.duration < self.entrytime:
            raise BadParameter(f"Invalid parameter duration value={self.duration}: it must be from 0 to entrytime.")
        end = aliased(Event)
        ended = exists().where(end.parent_uuid == Event.uuid)
        first, last = (ctx.now - timedelta(seconds=seconds) for seconds in (self.entrytime, self.duration))
        return query.where(Event.state == SCHEDULED, Event.created.between(first, last), ~ended)


def between(column: Any, start: datetime | None, end: datetime | None) -> list[Any]:
    """Return the conditions for a time from ``start`` to ``end``.

    An end at midnight is what a date without a time is read as: it means the whole day.

    :raises BadParameter: the end is before the start.
    """
    if end is not None and (end.hour, end.minute, end.second) == (0, 0, 0):
        end += timedelta(days=1) - timedelta(microseconds=1)
    if start is not None and end is not None and end < start:
        raise BadParameter(f"Invalid parameter enddate value={end:%Y-%m-%d}: it is before startdate {start:%Y-%m-%d}.")
    return [*([column >= start] if start else []), *([column <= end] if end else [])]


class _SomeEvents(Command):
    """Events chosen by their ids, or by type and time."""

    ids: list[Event] | None = optional()
    type: str | None = optional()
    startdate: datetime | None = optional()
    enddate: datetime | None = optional(description="a date without a time is that whole day")

    def chosen(self, ctx: Context) -> Any:
        """Return the condition for those that were chosen and that are the caller's to change.

        :raises BadParameter: nothing was chosen.
        """
        if not any((self.ids, self.type, self.startdate, self.enddate)):
            raise BadParameter("Invalid parameter ids: give ids, or a type, startdate or enddate.")
        conditions = [visible(Event, ctx.caller), *between(Event.created, self.startdate, self.enddate)]
        if self.ids:
            conditions.append(Event.id.in_([row.id for row in self.ids]))
        if self.type:
            conditions.append(Event.type == self.type)
        return and_(*conditions)


class ArchiveEvents(_SomeEvents, name="archiveEvents", answer=success(), roles=EVERYONE):
    """Take events out of the list; ``archived=true`` shows them still."""

    def run(self, ctx: Context) -> None:
        """Mark the rows."""
        ctx.session.execute(update(Event).where(self.chosen(ctx)).values(archived=True))


class DeleteEvents(_SomeEvents, name="deleteEvents", answer=success(), roles=EVERYONE):
    """Delete events."""

    def run(self, ctx: Context) -> None:
        """Delete the rows."""
        ctx.session.execute(delete(Event).where(self.chosen(ctx)))


@dataclass(kw_only=True)
class EventTypeResponse(Response):
    """A type of event."""

    name: str


def event_type_views(ctx: Context, rows: Sequence[str]) -> list[EventTypeResponse]:
    """Show types of events."""
    del ctx
    return [EventTypeResponse(name=name) for name in rows]


class ListEventTypes(Command, name="listEventTypes", answer=many("eventtype", event_type_views), roles=EVERYONE):
    """List the types of events that there can be."""

    writes = False

    def run(self, ctx: Context) -> list[str]:
        """Return the types that commands leave."""
        del ctx
        left = (one for command in REGISTRY.values() for one in (command.event, *command.other_events))
        return sorted({one for one in left if one})
