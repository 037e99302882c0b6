"""Counting of queries, for lists whose cost must not grow with their rows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event


@contextmanager
def queries(cloud: Any) -> Iterator[list[str]]:
    """Collect the questions that this thread asks in the block: workflows and duties have theirs at any time."""
    seen: list[str] = []
    me = threading.get_ident()

    def note(_connection, _cursor, statement, *_rest):
        if threading.get_ident() == me and statement.lstrip().upper().startswith("SELECT"):
            seen.append(statement)

    event.listen(cloud.database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(cloud.database.engine, "before_cursor_execute", note)
