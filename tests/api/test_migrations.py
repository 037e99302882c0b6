"""Migrations: the newest revision is the schema that the program has, and each can be taken back."""

from __future__ import annotations

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect

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
