"""What the tests share: a fresh database with the standard catalogue, and callers to run commands as."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlalchemy import create_engine, select

from controlplane import catalogue, demo_zone, rooms, run
from controlplane.api.caller import Caller
from controlplane.api.dispatch import Dispatcher
from controlplane.db import secrets
from controlplane.db.base import Base
from controlplane.db.session import Database
from controlplane.identity.callers import caller_of
from controlplane.identity.users import User
from controlplane.settings import Settings
from controlplane.work import workflows
from systemvm.fabric import Fabric
from tests.serving import free_port
from tests.spine.world import World


@dataclass
class Cloud:
    """A control plane without its sockets: commands go in as raw parameters, what is in the envelope comes out."""

    database: Database
    dispatcher: Dispatcher
    caller: Caller

    def __call__(self, command: str, **parameters: Any) -> dict[str, Any]:
        raw = {key.replace("__", "."): _text(value) for key, value in parameters.items()}
        return self.dispatcher.dispatch(self.caller, {"command": command, **raw}).body

    def raw(self, parameters: dict[str, str]) -> dict[str, Any]:
        """Send parameters whose names are no Python identifiers (``details[0].key``)."""
        return self.dispatcher.dispatch(self.caller, parameters).body

    def as_user(self, username: str) -> Cloud:
        """The same cloud, called by another user."""
        with self.database.read() as session:
            number = session.scalars(select(User.id).where(User.username == username)).one()
            return replace(self, caller=caller_of(session, number))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return str(value)


DIALECT = create_engine("sqlite://").dialect
COMPILED: dict[Any, Any] = {}
"""Each test has a database of its own, and all of one process share what SQLAlchemy has compiled for any of them."""


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the key and a database that holds the standard catalogue; the workflow engine is up for all tests."""
    folder = tmp_path_factory.mktemp("seeded")
    rooms.enter()
    secrets.load_key(folder / "key")
    database = Database(f"sqlite:///{folder / 'netspine.db'}")
    Base.metadata.create_all(database.engine)
    with database.write() as session:
        catalogue.fill(session, "password")
    workflows.launch(database, f"sqlite:///{folder / 'work.db'}", "test")
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    yield folder
    workflows.stop()


@pytest.fixture
def cloud(seeded: Path, tmp_path: Path) -> Iterator[Cloud]:
    """A fresh cloud with its catalogue and the root admin as the caller; workflows run."""
    secrets.load_key(seeded / "key")
    shutil.copy(seeded / "netspine.db", tmp_path / "netspine.db")
    database = Database(f"sqlite:///{tmp_path / 'netspine.db'}")
    database.engine.dialect = DIALECT
    database.engine.update_execution_options(compiled_cache=COMPILED)
    workflows.work_on(database)
    with database.read() as session:
        caller = caller_of(session, session.scalars(select(User.id).where(User.username == "admin")).one())
    yield Cloud(database, Dispatcher(database), caller)
    database.close()


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """A whole cloud in processes of its own: a zone of two hosts, made through the API by the public ``cs`` client."""
    fabric = Fabric(f"t{os.getpid()}-", ("host-1", "host-2"))
    with TemporaryDirectory(prefix="netspine-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the control plane has dropped root when it opens its own folder below
        place = run.Place(folder)
        with run.standing(Settings(port=free_port()), place, fabric) as cloud:
            zone = demo_zone.ensure_zone(cloud.client, run.specs_of(cloud), place.template)
            for resource in ("cpu", "mem"):  # its many guests are idle
                cloud.client.updateConfiguration(name=f"{resource}.overprovisioning.factor", value="10")
            yield World(cloud, zone["id"])
