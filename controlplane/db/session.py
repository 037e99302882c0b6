"""Sessions: short transactions, and what happens after their commit.

SQLite has one writer: writers queue on a lock of this process first, which is fair and costs nothing, and on SQLite's
own lock only against other processes. PostgreSQL transactions are REPEATABLE READ, so that facts are one snapshot.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session

AfterCommit = Callable[[], None]


class Database:
    """One database, opened once a process.

    :param url: an SQLAlchemy URL; ``sqlite:///path`` or ``postgresql+psycopg://…``.
    """

    def __init__(self, url: str) -> None:
        self.embedded = url.startswith("sqlite")
        if self.embedded:
            self.engine = create_engine(
                url, connect_args={"timeout": 30, "check_same_thread": False}, pool_size=20, hide_parameters=True
            )
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            self.engine = create_engine(
                url, pool_size=20, isolation_level="REPEATABLE READ", pool_pre_ping=True, hide_parameters=True
            )
        self._writer = threading.RLock()
        self._queue = threading.Lock()
        self._queued = 0

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session on one snapshot; nothing is written."""
        with Session(self.engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a session whose changes are committed at the block's end, or undone by an exception in it."""
        options = {"writes": True} if self.embedded else {}
        with self._turn() if self.embedded else nullcontext():
            with Session(self.engine.execution_options(**options), expire_on_commit=False) as session:
                with session.begin():
                    yield session
        for action in session.info.pop("after_commit", ()):
            action()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for this process's other writers."""
        with self._queue:
            self._queued += 1
        with self._writer:
            with self._queue:
                self._queued -= 1
            yield

    @property
    def crowded(self) -> bool:
        """Whether writers wait for each other: what is read now will have changed in a moment."""
        return self._queued > 0

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def after_commit(session: Session, action: AfterCommit) -> None:
    """Have the action called once the session's transaction is safe; never when it is undone."""
    session.info.setdefault("after_commit", []).append(action)


def engine_of(session: Session) -> Engine:
    """Return the engine that the session works on."""
    bind = session.get_bind()
    assert isinstance(bind, Engine)
    return bind


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say, not where the driver guesses
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    # a writer that began as a reader could fail half-way, when another process wrote in between
    immediate = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
