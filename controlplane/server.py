"""The server: one process with its sockets, its database and its engine, without root's powers."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import pwd
import socket
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import uvicorn

from controlplane.api.words import describe_field
from controlplane.app import Duty, Stop, create_app
from controlplane.db.session import Database
from controlplane.settings import Settings
from controlplane.work import workflows
from controlplane.work.signals import signals
from drivers.registry import by_kind

log = logging.getLogger(__name__)
DUTIES = ("controlplane.reconcile.sweep", "controlplane.reconcile.hosted")
"""Modules whose ``start(database)`` begins something that goes on in the background, and returns how to stop it."""
LOOPBACK = "127.0.0.1"
BACKLOG = 2048
M_ARENA_MAX = -8
"""See mallopt(3) and malloc.h."""
YOUNG_OBJECTS = 20_000
"""How many objects are made, beyond those that went, before the garbage collector looks through them."""


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
    if user and os.geteuid() == 0:
        become(user, settings.folder)
    _settle_memory()
    _Server(config).run(sockets)
    database.close()


def keep_readable() -> dict[str, str]:
    """Let this process find Python's modules and its own files by handles, too: the user may not reach where they lie.

    A checkout or an interpreter in root's own home is closed to everybody else, but what is open already stays open.

    :return: the path by which each folder is found from now on.
    """
    describe_field("")  # read the words from where they are
    by_kind()
    handles = {}
    for folder in dict.fromkeys(os.path.realpath(entry) for entry in sys.path):
        if Path(folder).is_dir():
            handles[folder] = f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_DIRECTORY)}"
    sys.path += handles.values()
    for module in list(sys.modules.values()):
        for place in list(getattr(module, "__path__", ())):
            for folder, handle in handles.items():
                if Path(place).is_relative_to(folder):
                    module.__path__.append(f"{handle}/{Path(place).relative_to(folder)}")
    return handles


def _settle_memory() -> None:
    """Give back what only the start needed, and have the garbage collector leave alone what was loaded for good.

    By default it walks through every module's objects again and again while ten thousand rows are read: half of the
    time that a large router's bundle takes.
    """
    gc.collect()
    with contextlib.suppress(AttributeError):  # another C library than glibc
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        library.mallopt(M_ARENA_MAX, 1)  # Python's threads take turns: an arena for each would only be more to keep
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


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
        opened = socket.create_server((address, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"Cannot listen on {address} port {port}: {error.strerror}") from error
    # asyncio does so only for sockets made with the protocol's number; without, each answer waits 40 ms for an ACK
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def become(user: str, folder: Path) -> None:
    """Give up root for good: the process is this user from now on, and what it wrote so far belongs to it.

    :raises LookupError: there is no such user.
    :raises PermissionError: the user may not read the program, or write the folder.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise LookupError(f"There is no user {user} on this machine: name another with --user.") from None
    ours = [folder, *(file for file in folder.iterdir() if file.is_file() and not file.is_symlink())]
    if (folder / "key").exists():  # a folder of ours, and not one that merely got named
        for path in ours:
            os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    handles = keep_readable()
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    closed = [place for place, handle in handles.items() if not os.access(handle, os.R_OK | os.X_OK)]
    if closed:
        raise PermissionError(f"User {user} may not read {', '.join(closed)}: open it to all, or name another --user.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"User {user} may not write {folder}: give it the folder, or name another with --user.")


def _engine(settings: Settings, database: Database) -> Stop:
    workflows.launch(database, f"sqlite:///{settings.folder / 'work.db'}", settings.name)
    return workflows.stop


def _background(database: Database) -> list[Duty]:
    return [partial(import_module(name).start, database) for name in DUTIES if find_spec(name)]
