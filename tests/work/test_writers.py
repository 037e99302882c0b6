"""Writers queue in one process: who reads for others can tell that what it reads is about to change."""

import threading
import time

from sqlalchemy import text

from controlplane.db.session import Database


def test_writers_that_wait_are_seen(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")

    def write():
        with database.write() as session:
            session.execute(text("SELECT 1"))

    second = threading.Thread(target=write)
    with database.write() as session:
        session.execute(text("SELECT 1"))
        assert not database.crowded
        second.start()
        deadline = time.monotonic() + 10
        while not database.crowded:
            assert time.monotonic() < deadline
    second.join(10)
    assert not database.crowded
    database.close()
