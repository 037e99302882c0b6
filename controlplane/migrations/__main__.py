"""Write a new revision: the difference between the newest one and the tables as the program has them."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from alembic import command
from sqlalchemy import create_engine

from controlplane.migrations import configuration, upgrade


def main(message: str) -> None:
    """Write the revision, with this message as its name."""
    with TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{Path(folder) / 'newest.db'}")
        upgrade(engine)
        with engine.connect() as connection:
            config = configuration()
            config.attributes["connection"] = connection
            command.revision(config, message, autogenerate=True)


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "change")
