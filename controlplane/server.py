"""The server: one process with its sockets, its database and its engine, without root's powers."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import socket
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import uvicorn

from controlplane.app import Duty, Stop, create_app
from controlplane.db.session import Database
from controlplane.settings import Settings
from controlplane.work import workflows
from controlplane.work.signals import signals

log = logging.getLogger(__name__)
DUTIES = ("controlplane.reconcile.sweep", "controlplane.reconcile.hosted")
"""Modules whose ``start(database)`` begins something that goes on in the background, and returns how to stop it."""
LATE_MODULES = (
    "_strptime",
    "anyio._backends._asyncio",
    "dbos._sys_db_sqlite",
    "encodings.idna",
    "fastapi.telemetry._runtime",
    "uvicorn.lifespan.on",
    "uvicorn.loops.asyncio",
)
LOOPBACK = "127.0.0.1"
BACKLOG = 2048


def serve(settings: Settings, database: Database, *, user: str = "", proxies: Sequence[str] = ()) -> None:
    """Answer requests until the process is told to end (SIGTERM, SIGINT).

    :param user: root becomes this user once the sockets and files are open; empty changes nothing.
    :param proxies: addresses of reverse proxies whose ``X-Forwarded-For`` is believed.
    :raises OSError: an address cannot be bound.
    :raises PermissionError: the user may not write the folder.
    """
    sockets = [listen(settings.address, settings.port)]
    if settings.integration_port:
        sockets.append(listen(LOOPBACK, settings.integration_port))
    duties: list[Duty] = [partial(_engine, settings, database), *_background(database)]
    app = create_app(database, integration_port=settings.integration_port, duties=duties)
    config = uvicorn.Config(
        app,
        log_config=None,
        loop="asyncio",
        access_log=False,  # its lines hold query strings, and those hold secrets
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        server_header=False,
        timeout_graceful_shutdown=3,
        backlog=BACKLOG,
    )
    config.load()
    _load_the_rest()
    if user and os.geteuid() == 0:
        become(user, settings.folder)
    _Server(config).run(sockets)
    database.close()


def _load_the_rest() -> None:
    """Import what is otherwise imported at its first use: the user may not be able to read where Python lies."""
    for name in LATE_MODULES:
        with contextlib.suppress(ModuleNotFoundError):  # another release of the library may have no such module
            import_module(name)


class _Server(uvicorn.Server):
    """Lets the agents' long polls go as soon as the process is told to end."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        signals.close()
        super().handle_exit(sig, frame)


def listen(address: str, port: int) -> socket.socket:
    """Open a listening TCP socket.

    :raises OSError: the sentence names address and port.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"Cannot listen on {address} port {port}: {error.strerror}") from error


def become(user: str, folder: Path) -> None:
    """Give up root for good: the process is this user from now on, and what it wrote so far belongs to it.

    :raises LookupError: there is no such user.
    :raises PermissionError: the user may not read the program, or not write the folder.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise LookupError(f"There is no user {user} on this machine: name another with --user.") from None
    ours = [folder, *(file for file in folder.iterdir() if file.is_file() and not file.is_symlink())]
    if (folder / "key").exists():  # a folder of ours, and not one that merely got named
        for path in ours:
            os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    for module in (os.__file__, __file__):
        if not os.access(module, os.R_OK):
            raise PermissionError(
                f"User {user} may not read {module}: have Python and Netspine where everybody may read them, "
                "or name another user with --user."
            )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"User {user} may not write {folder}: give it the folder, or name another with --user.")


def _engine(settings: Settings, database: Database) -> Stop:
    workflows.launch(database, f"sqlite:///{settings.folder / 'work.db'}", settings.name)
    return workflows.stop


def _background(database: Database) -> list[Duty]:
    return [partial(import_module(name).start, database) for name in DUTIES if find_spec(name)]
