"""Migrations: how a database of an older Netspine becomes one of this, and back.

``upgrade`` is all that runs by itself, when the control plane starts. A new revision is written by
``python -m controlplane.migrations "what changes"`` and read before it is committed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

if TYPE_CHECKING:
    from alembic.config import Config

FOLDER = Path(__file__).parent


def upgrade(engine: Engine) -> None:
    """Bring the database to this program's schema; nothing happens where it has it."""
    from alembic import command  # only who migrates pays for it

    with engine.begin() as connection:
        config = configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def configuration() -> Config:
    """Return Alembic's configuration."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    return config
