"""Network namespaces: made, entered by one thread, and left again.

Entering binds only the calling thread, so threads may work in different namespaces at once; whatever is made inside
(a socket, a netlink handle, a child process) stays bound to that namespace after the thread has left it.
See network_namespaces(7) and setns(2).
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import IPRoute

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOLDER = "/run/netns"
_CLONE_NEWNET, _MS_BIND, _MNT_DETACH = 0x40000000, 4096, 2
_libc = ctypes.CDLL(None, use_errno=True)


def exists(name: str) -> bool:
    """Tell whether the namespace is there."""
    return os.path.ismount(f"{FOLDER}/{name}")


def inode(name: str) -> int:
    """Return what tells one making of the namespace from the next of the same name.

    :raises OSError: there is no such namespace.
    """
    return Path(f"{FOLDER}/{name}" if name else "/proc/thread-self/ns/net").stat().st_ino


def ensure(name: str) -> bool:
    """Make the namespace, with its loopback up, unless it is there; return whether it was made now.

    :raises OSError: the caller is not root, or the kernel has no more to give.
    """
    if exists(name):
        return False
    # A thread of its own is in the new namespace while it makes it, so that nobody else ever is.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_make, name).result()
    return True


def _make(name: str) -> None:
    """Make the namespace from inside it, and name it last: what has a name is whole."""
    _call(f"Cannot make namespace {name}", _libc.unshare(_CLONE_NEWNET))
    with IPRoute() as ip:
        ip.link("set", index=1, state="up")
    path = f"{FOLDER}/{name}"
    os.makedirs(FOLDER, exist_ok=True)  # noqa: PTH103 - these paths are names that the kernel is given
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
    source = b"/proc/thread-self/ns/net"
    _call(f"Cannot keep namespace {name}", _libc.mount(source, path.encode(), b"none", ctypes.c_ulong(_MS_BIND), None))


def ensure_no(name: str) -> None:
    """Remove the namespace, if it is there; the kernel frees its interfaces a little later."""
    path = f"{FOLDER}/{name}"
    if exists(name):
        _call(f"Cannot remove namespace {name}", _libc.umount2(path.encode(), _MNT_DETACH))
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108


def names(prefix: str = "") -> list[str]:
    """Return the names of all namespaces that begin with the prefix."""
    found = os.listdir(FOLDER) if os.path.isdir(FOLDER) else []  # noqa: PTH112, PTH208
    return sorted(name for name in found if name.startswith(prefix))


def _call(what: str, result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Put the calling thread into the namespace for the length of the block; the empty name is where it already is.

    :raises OSError: there is no such namespace, or the caller is not root.
    """
    if not name:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(f"{FOLDER}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there, name)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _setns(home, "its own namespace")
    finally:
        os.close(home)


def _setns(descriptor: int, name: str) -> None:
    _call(f"Cannot enter {name}", _libc.setns(descriptor, _CLONE_NEWNET))


@contextmanager
def netlink(name: str) -> Iterator[IPRoute]:
    """Open a netlink handle inside the namespace; the thread itself is back outside while the block runs."""
    with entered(name):
        ip = IPRoute()
    try:
        yield ip
    finally:
        ip.close()


def popen(name: str, argv: Sequence[str], **options: object) -> subprocess.Popen[bytes]:
    """Start a program inside the namespace; its file system is the caller's."""
    with entered(name):
        return subprocess.Popen(argv, **options)  # type: ignore[call-overload,no-any-return]


def run(name: str, argv: Sequence[str], *, text_in: str | None = None, timeout: float = 30) -> str:
    """Run a program inside the namespace and return what it printed.

    :param timeout: seconds.
    :raises RuntimeError: it ended with an error; the sentence holds what it said.
    """
    with entered(name):
        done = subprocess.run(argv, input=text_in, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise RuntimeError(f"{' '.join(argv)} in {name or 'this namespace'} ended with {done.returncode}: {said}")
    return done.stdout
