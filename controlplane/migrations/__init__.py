"""Migrations: how a database of an older Netspine becomes one of this, and back.

``upgrade`` is all that runs by itself, when the control plane starts. A new revision is written by
``python -m controlplane.migrations "what changes"`` and read before it is committed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, inspect, text

if TYPE_CHECKING:
    from alembic.config import Config

FOLDER = Path(__file__).parent
_TABLE = "alembic_version"
_REVISION = re.compile(r'^revision = "(\w+)"', re.MULTILINE)
_FORMER = re.compile(r'^down_revision = "(\w+)"', re.MULTILINE)


def upgrade(engine: Engine) -> None:
    """Bring the database to this program's schema; nothing happens where it has it."""
    if _stands_at(engine) == newest():
        return
    from alembic import command  # only who migrates pays for it: 20 MB that stay until the process ends

    with engine.begin() as connection:
        config = configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def newest() -> str:
    """Return the newest revision there is a file for; empty where there is none yet."""
    files = [path.read_text(encoding="utf-8") for path in (FOLDER / "versions").glob("*.py")]
    known, former = ({found[1] for file in files if (found := each.search(file))} for each in (_REVISION, _FORMER))
    heads = sorted(known - former)
    if len(heads) > 1:
        raise RuntimeError(f"Several revisions claim to be the newest, {', '.join(heads)}: one must follow the other.")
    return heads[0] if heads else ""


def _stands_at(engine: Engine) -> str:
    """Return the revision that the database has; empty where it has none yet."""
    if not inspect(engine).has_table(_TABLE):
        return ""
    with engine.connect() as connection:
        return str(connection.scalar(text(f"SELECT version_num FROM {_TABLE}")) or "")  # noqa: S608 - our own name


def configuration() -> Config:
    """Return Alembic's configuration."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    return config
