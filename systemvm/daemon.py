"""Daemons that outlive the agent: started in their own session, known again by pid and start time, never by name.

A pid alone may belong to somebody else by now; with its start time (field 22 of proc_pid_stat(5)) and the machine's
boot it cannot. A daemon whose namespace was made anew serves nobody: it counts as gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from systemvm import netns

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_ONCE_NOTED = ("sh", "-c", 'read -r go && exec "$@" </dev/null', "sh")
"""Becomes the program that follows once a line comes in: an agent that dies before its note leaves no daemon behind."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """One daemon of one target.

    :param name: names its pid file and its log.
    :param namespace: the network namespace that it lives in; empty is the agent's own.
    :param run: the folder of pid file and log.
    """

    name: str
    namespace: str
    run: Path

    @property
    def log(self) -> Path:
        """What it printed since it was started."""
        return self.run / f"{self.name}.log"

    @property
    def _note(self) -> Path:
        return self.run / f"{self.name}.pid"

    def start(self, argv: Sequence[str], folder: Path) -> int:
        """Start it and return its pid; nothing of the agent's is left open in it.

        :param folder: its working directory.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            process = netns.popen(
                self.namespace,
                [*_ONCE_NOTED, *argv],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process.returncode = 0  # it is to outlive us: no warning when the object goes away
        self.note(process.pid)
        process.communicate(b"go\n")
        return process.pid

    def note(self, pid: int) -> None:
        """Write down that this process is the daemon, to know it again later."""
        fresh = self._note.with_suffix(".new")
        fresh.write_text(json.dumps([pid, _born(pid), _BOOT.read_text().strip()]), encoding="ascii")
        fresh.replace(self._note)

    def pid(self) -> int | None:
        """Return its pid while it runs, None once it does not, or where it lives in a namespace that was replaced."""
        pid = self._alive()
        if pid is not None and self.namespace and not self._at_home(pid):
            return None
        return pid

    def _alive(self) -> int | None:
        try:
            pid, born, boot = json.loads(self._note.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return pid if born and _born(pid) == born and boot == _BOOT.read_text().strip() else None

    def _at_home(self, pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/ns/net").stat().st_ino == netns.inode(self.namespace)
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> bool:
        """Send it a signal; return whether it was there to get it."""
        pid = self._alive()
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    def kill(self, timeout: float = 5) -> None:
        """End it without a word to it, and wait until it is gone: its sockets are closed then; repeatable."""
        if self.signal(signal.SIGKILL):
            self._gone(timeout)

    def stop(self, timeout: float = 5) -> None:
        """End it, by force after the timeout in seconds, together with its own children; repeatable."""
        pid = self._alive()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            if not self._gone(timeout):
                os.killpg(pid, signal.SIGKILL)
                self._gone(timeout)
        self._note.unlink(missing_ok=True)

    def _gone(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while self._alive() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def said(self, lines: int = 3) -> str:
        """Return the last lines that it printed, for a reason."""
        try:
            return " / ".join(self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-lines:])
        except OSError:
            return ""


def _born(pid: int) -> str:
    """Return the start time of a process in clock ticks since boot; empty when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
