"""Containers: one guest's processes, its own files and its record, all in one folder.

The folder outlives the agent, and so do the processes. A container is known again by its record: process id, the time
that the process started and the machine's boot, which together are never used twice.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from systemvm import cgroup, launch, netns
from systemvm.cgroup import Limits

GRACE = 5.0
"""Seconds that a guest has to shut down by itself before it is killed."""

DRIVE = "drive"
"""The folder, beside the guest's own files, that it finds read-only at ``/run/config-2``; it may be empty."""

_STARTED = 19  # of the fields after the command's name in /proc/PID/stat: when it started, in clock ticks since boot
_LONGEST_START = 30.0


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a container since its last start.

    :param space: its network namespace.
    :param image: the template as the control plane named it.
    :param root: the folder of that template, unpacked, that its own files lie over.
    :param boot: which of its starts this is, as the control plane counts them.
    :param pid: of its init, 0 when it was stopped on purpose; ``started`` and ``machine`` make that unique.
    """

    name: str
    hostname: str
    space: str
    image: str
    root: str
    boot: int = 0
    pid: int = 0
    started: int = 0
    machine: str = ""

    @property
    def running(self) -> bool:
        """Whether its init is alive."""
        return self.pid > 0 and self.machine == _machine() and _started(self.pid) == self.started


def _machine() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _started(pid: int) -> int:
    """Return when the process started, -1 when there is none or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return -1 if fields[0] in "ZX" else int(fields[_STARTED])


@dataclass(frozen=True, slots=True)
class Container:
    """One guest on this machine.

    :param folder: its own; everything of it is below.
    """

    folder: Path

    @property
    def record(self) -> Record | None:
        """What is known of it; None when it was never started, or the record is damaged."""
        try:
            return Record(**json.loads((self.folder / "record.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, record: Record) -> None:
        """Replace the record in one step."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self.folder / "record.json.new"
        fresh.write_text(json.dumps(asdict(record)))
        fresh.replace(self.folder / "record.json")

    def start(self, record: Record, limits: Limits) -> None:
        """Start its init in ``record.space``, which is there already with the guest's cables.

        :raises RuntimeError: it did not start; the sentence says why.
        """
        folders = {name: self.folder / name for name in ("upper", "work", "root", DRIVE)}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700 if folder.name == DRIVE else 0o777)
        order = {name: str(folder) for name, folder in folders.items()} | {
            "lower": record.root,
            "netns": f"{netns.FOLDER}/{record.space}",
            "hostname": record.hostname,
            "console": str(self.folder / "console.log"),
            "cgroups": ":".join(str(path) for path in cgroup.ensure(record.space, limits)),
        }
        program = [sys.executable, "-I", "-S", launch.__file__, *(f"{name}={value}" for name, value in order.items())]
        done = subprocess.run(program, capture_output=True, text=True, timeout=_LONGEST_START, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it does not say why"]
            raise RuntimeError(f"{record.name} did not start: {said[-1]}.")
        pid = int(done.stdout)
        self.write(replace(record, pid=pid, started=_started(pid), machine=_machine()))

    def stop(self, grace: float = GRACE) -> None:
        """Ask it to shut down, kill it when it has not within ``grace`` seconds, and note that it was on purpose."""
        record = self.record
        if record is None:
            return
        _end(record, grace)
        cgroup.remove(record.space)
        self.write(replace(record, pid=0, started=0, machine=""))

    def wipe(self) -> None:
        """Forget its own files; it is stopped."""
        shutil.rmtree(self.folder / "upper", ignore_errors=True)
        shutil.rmtree(self.folder / "work", ignore_errors=True)

    def destroy(self) -> None:
        """End it at once and remove its files; repeatable."""
        self.stop(grace=0)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.exists():
            raise RuntimeError(f"The files of the guest in {self.folder} cannot be removed.")


def _end(record: Record, grace: float) -> None:
    try:
        handle = os.pidfd_open(record.pid) if record.pid else -1
    except ProcessLookupError:
        return
    if handle < 0:
        return
    try:
        if not record.running:  # asked after the handle was opened: the id cannot be another's from here on
            return
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, GRACE)):
            if patience:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)
            if patience and _wait(handle, patience):
                return
        raise RuntimeError(f"{record.name} (process {record.pid}) does not end.")
    finally:
        os.close(handle)


def _wait(handle: int, patience: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(patience * 1000))
