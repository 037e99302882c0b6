"""Migrations: the newest revision is the schema that the program has, and each can be taken back."""

from __future__ import annotations

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from controlplane import migrations, rooms
from controlplane.db.base import Base


def test_the_newest_revision_is_the_schema_of_the_tables(tmp_path):
    rooms.enter()
    engine = create_engine(f"sqlite:///{tmp_path / 'new.db'}")
    migrations.upgrade(engine)
    migrations.upgrade(engine)
    with engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    engine.dispose()
    assert difference == []


def test_every_revision_can_be_taken_back(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'new.db'}")
    migrations.upgrade(engine)
    with engine.begin() as connection:
        config = migrations.configuration()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    left = inspect(engine).get_table_names()
    engine.dispose()
    assert left == ["alembic_version"]


def test_the_newest_revision_is_known_without_alembic_as_alembic_knows_it():
    script = ScriptDirectory.from_config(migrations.configuration())
    assert migrations.newest() == script.get_current_head()


def test_a_database_that_stands_there_is_left_alone(tmp_path, monkeypatch):
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    migrations.upgrade(engine)
    monkeypatch.setattr(command, "upgrade", lambda *_: pytest.fail("it was migrated again"))
    migrations.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(pytest.fail.Exception):
        migrations.upgrade(engine)
    engine.dispose()
