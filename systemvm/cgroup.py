"""Limits of a guest: memory, processor time and number of processes, by whichever cgroup version the machine has.

The controllers are probed each time, because an administrator may mount or delegate them while the agent runs. A
machine without one of them still runs guests; :func:`missing` says what is then not limited. See cgroups(7).
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CONTROLLERS: Final = ("cpu", "memory", "pids")

_PERIOD: Final = 100_000  # µs, the kernel's default
_MIB: Final = 1024 * 1024
_ROOT_V2: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a guest may use.

    :param memory: MiB.
    :param cpus: processors' worth of time; ``mhz`` the weight of each against other guests.
    :param processes: how many processes and threads.
    """

    memory: int
    cpus: int
    mhz: int
    processes: int = 4096

    @property
    def shares(self) -> int:
        """The weight as cgroup v1 counts it (2 to 262144), which is cpus times MHz as in CloudStack's own agents."""
        return max(2, min(262_144, self.cpus * self.mhz))

    def files(self, controller: str, version: int) -> dict[str, str]:
        """Return the control files of one controller and what goes into them."""
        quota = self.cpus * _PERIOD
        if version == 1:
            settings = {
                "cpu": {"cpu.shares": str(self.shares), "cpu.cfs_quota_us": str(quota)},
                "memory": {"memory.limit_in_bytes": str(self.memory * _MIB)},
            }
        else:
            weight = 1 + (self.shares - 2) * 9_999 // 262_142  # the kernel's own conversion
            settings = {
                "cpu": {"cpu.weight": str(weight), "cpu.max": f"{quota} {_PERIOD}"},
                "memory": {"memory.max": str(self.memory * _MIB)},
            }
        return (settings | {"pids": {"pids.max": str(self.processes)}})[controller]


def controllers() -> dict[str, tuple[Path, int]]:
    """Return controller → (folder of its root group, version 1 or 2), for those that can be used here."""
    found: dict[str, tuple[Path, int]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        folder = Path(mount.split()[4])
        if kind == "cgroup":
            found |= {name: (folder, 1) for name in CONTROLLERS if name in options.split(",")}
        elif kind == "cgroup2":
            enabled = _enabled(folder)
            found |= {name: (folder, 2) for name in CONTROLLERS if name in enabled and name not in found}
    return found


def _enabled(root: Path) -> list[str]:
    """Hand the controllers down to the root's children, as far as the machine allows."""
    offered = (root / "cgroup.controllers").read_text().split()
    switch = root / "cgroup.subtree_control"
    for name in CONTROLLERS:
        if name in offered and name not in switch.read_text().split():
            with suppress(OSError):  # in a container: processes live in its root group
                switch.write_text(f"+{name}")
    return switch.read_text().split()


def missing() -> list[str]:
    """Return the controllers that this machine lacks."""
    there = controllers()
    return [name for name in CONTROLLERS if name not in there]


def ensure(name: str, limits: Limits) -> list[Path]:
    """Make the guest's groups with its limits; return the files into which a process writes 0 to join them."""
    doors = []
    for controller, (root, version) in controllers().items():
        group = root / f"netspine-{name}"
        group.mkdir(exist_ok=True)
        for file, value in limits.files(controller, version).items():
            (group / file).write_text(value)
        doors.append(group / "cgroup.procs")
    return list(dict.fromkeys(doors))


def remove(name: str, patience: float = 5.0) -> None:
    """Remove the guest's groups; repeatable.

    :param patience: seconds to wait for the last of its processes to be gone from the kernel's books.
    :raises OSError: something still runs in one of them.
    """
    deadline = time.monotonic() + patience
    for group in {root / f"netspine-{name}" for root, _ in controllers().values()}:
        while group.exists():
            try:
                group.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.002)
