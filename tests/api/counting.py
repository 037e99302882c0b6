"""Counting of queries, for lists whose cost must not grow with their rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event


@contextmanager
def queries(cloud: Any) -> Iterator[list[str]]:
    """Collect the statements that are run in the block."""
    seen: list[str] = []

    def note(_connection, _cursor, statement, *_rest):
        if statement.lstrip().upper().startswith("SELECT"):
            seen.append(statement)

    event.listen(cloud.database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(cloud.database.engine, "before_cursor_execute", note)
