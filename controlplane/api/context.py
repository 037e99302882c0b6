"""The context: what a command may use while it runs, and what it says it touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from sqlalchemy import ColumnElement, Select, bindparam, select, true
from sqlalchemy.orm import Session

from controlplane.api.caller import Caller, Role
from controlplane.api.visit import Visit
from controlplane.db.base import Base, Owned, Row, now
from controlplane.errors import ApiError, BadParameter, Forbidden
from controlplane.reconcile.targets import Target

SomeRow = TypeVar("SomeRow", bound=Row)


class Touchable(Protocol):
    """A row that knows which targets its state is on."""

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets whose desired state this row is part of."""
        ...


@dataclass
class Context:
    """One call of one command.

    :ivar touched: the targets whose desired generation is raised when the command has run.
    :ivar workflow: name of the durable function that goes on with the work, ``arguments`` what it is given.
    :ivar serial: what the workflow must not share with another job at the same time (an object's UUID).
    :ivar instance: the row that the job and its event are about; by default what ``run`` returns, or the row of ``id``.
    :ivar event: the type of the event, where it is another one than the command's.
    :ivar note: what the event says beyond the command and its object; never a secret.
    :ivar refusal: what the caller is told instead of a result, although what the command wrote stays.
    :ivar visit: the HTTP request, for the commands that begin or end a session.
    """

    session: Session
    caller: Caller
    now: datetime = field(default_factory=now)
    touched: list[Target] = field(default_factory=list)
    workflow: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    serial: str = ""
    instance: Row | None = None
    event: str = ""
    note: str = ""
    refusal: ApiError | None = None
    visit: Visit = field(default_factory=Visit)

    def touch(self, *rows: Touchable) -> None:
        """Say that the desired state of whatever these rows are on has changed."""
        for row in rows:
            self.touched.extend(row.targets(self.session))

    def go_on(self, workflow: str, row: Row, **arguments: Any) -> None:
        """Hand the rest of the work to a durable workflow, one at a time for this row."""
        self.workflow, self.serial, self.instance = workflow, row.uuid, row
        self.arguments = arguments

    def find(self, table: type[Row], uuid: str, parameter: str = "id") -> Row:
        """Return the row with this UUID.

        :raises BadParameter: there is none, it has been removed, or the caller may not see it: the words are the same.
        """
        self.session.flush()
        row: Row | None = self.session.scalar(_one_of(table, self.caller), {"uuid": uuid.lower()})
        if row is None or getattr(row, "removed", None) is not None:
            raise BadParameter(
                f"Invalid parameter {parameter} value={uuid}: "
                f"no {entity_name(table)} with this id exists, or it is not yours to use."
            )
        return row

    def find_own(self, table: type[Row], uuid: str, parameter: str = "id") -> Row:
        """Return the row as :meth:`find` does, to be changed: so it must be in the caller's realm.

        :raises Forbidden: it is somebody else's, and the caller may only use it.
        """
        row = self.find(table, uuid, parameter)
        if getattr(table, "used_by_others", False):
            owned = select(table.id).where(table.id == row.id, owned_by(table, self.caller))
            if self.session.scalar(owned) is None:
                raise Forbidden(f"Invalid parameter {parameter} value={uuid}: it belongs to somebody else.")
        return row


@lru_cache(maxsize=256)
def _one_of(table: type[Row], caller: Caller) -> Select[Any]:
    """Return the query for one row by its ``uuid``; to write it down takes longer than to run it."""
    return select(table).where(table.uuid == bindparam("uuid"), visible(table, caller))


def visible(table: type[Row], caller: Caller) -> ColumnElement[bool]:
    """Return the condition for rows of the table that the caller may see.

    A table may bring its own rule as a class method ``visible_to(caller)``; owned rows follow their owner.
    """
    rule = getattr(table, "visible_to", None)
    if rule is not None:
        return rule(caller)  # type: ignore[no-any-return]
    return owned_by(table, caller) if issubclass(table, Owned) else true()


def owned_by(table: type[Any], caller: Caller) -> ColumnElement[bool]:
    """Return the condition for owned rows in the caller's realm: all, the domain's tree, or the account's own."""
    if caller.role is Role.ADMIN:
        return true()
    if caller.role in (Role.DOMAIN_ADMIN, Role.RESOURCE_ADMIN):
        domains = Base.metadata.tables["domains"]
        tree = select(domains.c.id).where(domains.c.path.startswith(caller.domain_path, autoescape=True))
        return table.domain_id.in_(tree)  # type: ignore[no-any-return]
    return table.account_id.in_((caller.account_id, *caller.projects))  # type: ignore[no-any-return]


def entity_name(table: type[Row]) -> str:
    """Return the table's name as a sentence has it: ``PortForward`` → ``port forward``."""
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in table.__name__)
    return words.strip()
