"""Deferred imports: nothing is loaded for what never comes, and everything is there when it does."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENGINE = """
import sys
from pathlib import Path
from controlplane import rooms
from controlplane.db import secrets
from controlplane.db.base import Base
from controlplane.db.session import Database
from controlplane.work import workflows

rooms.enter()
folder = Path(sys.argv[1])
secrets.load_key(folder / "key")
database = Database(f"sqlite:///{folder / 'netspine.db'}")
Base.metadata.create_all(database.engine)
workflows.launch(database, f"sqlite:///{folder / 'work.db'}", "test")
workflows.stop()
print(sorted(name for name in sys.modules if name.startswith("psycopg")))
from dbos import _utils
import psycopg
from psycopg.types.array import ListDumper
assert _utils.psycopg.OperationalError is psycopg.OperationalError
from dbos import _sys_db
assert _sys_db.pg_errors.UniqueViolation is psycopg.errors.UniqueViolation
print("the same")
"""


def test_the_engine_runs_without_the_driver_of_a_database_that_it_does_not_use(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ENGINE, str(tmp_path)], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.stdout.splitlines() == ["[]", "the same"], done.stderr


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that tells when it is loaded."""
    folder = tmp_path / "lazily"
    folder.mkdir()
    (folder / "__init__.py").write_text("import sys\nsys.loaded = ['lazily']\nVALUE = 1\n")
    (folder / "parts.py").write_text("import sys\nsys.loaded.append('parts')\nclass Oops(Exception): pass\n")
    (tmp_path / "user.py").write_text("import lazily\nfrom lazily import parts\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "loaded", [], raising=False)
    yield
    for name in ("user", "lazily", "lazily.parts"):
        sys.modules.pop(name, None)


def test_a_package_is_loaded_when_it_is_looked_into(package):
    from controlplane.work.deferred import deferred

    with deferred("lazily", "parts"):
        import user
    assert sys.loaded == []
    assert "lazily" not in sys.modules
    assert user.lazily.VALUE == 1
    assert sys.loaded == ["lazily"]
    with pytest.raises(user.parts.Oops):
        raise user.parts.Oops
    import lazily.parts

    assert user.parts.Oops is lazily.parts.Oops
    with pytest.raises(AttributeError):
        _ = user.lazily.missing


def test_a_package_that_is_there_is_not_stood_for(package):
    import lazily

    from controlplane.work.deferred import deferred

    with deferred("lazily", "parts"):
        import user
    assert user.lazily is lazily
    assert sys.loaded == ["lazily", "parts"]
