"""Network namespaces: made, entered by one thread, and left again.

Entering binds only the calling thread, so threads may work in different namespaces at once; whatever is made inside
(a socket, a netlink handle, a child process) stays bound to that namespace after the thread has left it.
See network_namespaces(7) and setns(2).
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import IPRoute
from pyroute2 import netns as _netns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOLDER = "/run/netns"
_CLONE_NEWNET = 0x40000000
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
    """Make the namespace, with its loopback up, unless it is there; return whether it was made now."""
    if exists(name):
        return False
    _netns.create(name)
    with entered(name), IPRoute() as ip:
        ip.link("set", index=1, state="up")
    return True


def ensure_no(name: str) -> None:
    """Remove the namespace, if it is there; the kernel frees its interfaces a little later."""
    if exists(name):
        _netns.remove(name)


def names(prefix: str = "") -> list[str]:
    """Return the names of all namespaces that begin with the prefix."""
    return sorted(name for name in _netns.listnetns() if name.startswith(prefix))


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
    if _libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"Cannot enter {name}: {os.strerror(number)}")


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
