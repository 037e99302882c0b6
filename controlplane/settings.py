"""What the process is told from outside: a few environment variables, read once.

Everything an operator changes at run time is a configuration row instead (``updateConfiguration``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

FIRST_LOGIN = "admin-password"
"""The file in the folder that holds the first admin's password, as it was made."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How this control-plane process runs.

    :param folder: holds the database, the key file and whatever else must survive (``NETSPINE_DIR``).
    :param database: SQLAlchemy URL; SQLite below ``folder`` by default (``NETSPINE_DATABASE_URL``).
    :param address: where the API and the agents' door listen (``NETSPINE_ADDRESS``), ``port`` the TCP port.
    :param integration_port: the unauthenticated port, on loopback only; 0 means that there is no socket at all.
    :param prefix: of the names of the namespaces that ``netspine run`` makes (``NETSPINE_PREFIX``).
    :param name: of this process among several; decides which durable work it adopts (``NETSPINE_NAME``).
    """

    folder: Path = field(default_factory=lambda: Path("var"))
    database: str = ""
    address: str = "127.0.0.1"
    port: int = 8080
    integration_port: int = 0
    name: str = "control-1"
    prefix: str = "ns-"

    @property
    def database_url(self) -> str:
        """The database's SQLAlchemy URL."""
        return self.database or f"sqlite:///{self.folder / 'netspine.db'}"

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the environment.

        :raises ValueError: a port is no number.
        """
        env = os.environ
        return cls(
            folder=Path(env.get("NETSPINE_DIR", "var")),
            database=env.get("NETSPINE_DATABASE_URL", ""),
            address=env.get("NETSPINE_ADDRESS", "127.0.0.1"),
            port=int(env.get("NETSPINE_PORT", "8080")),
            integration_port=int(env.get("NETSPINE_INTEGRATION_PORT", "0")),
            prefix=env.get("NETSPINE_PREFIX", "ns-"),
            name=env.get("NETSPINE_NAME", "control-1"),
        )
