"""Memory: of the control plane, an agent, and a router's own processes."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from bench.cloud import Cloud
from bench.figures import Bar, Figure
from controlplane import run
from systemvm import netns


def started_again(cloud: Cloud, network: str) -> list[Figure]:
    """Start the control plane anew, on the database that the first start had to make, and read all of it again."""
    control = cloud.standing.processes[0]
    control.terminate()
    control.wait(20)
    run.start_again(cloud.standing, 0)
    return processes(cloud, network, "started again")


def processes(cloud: Cloud, network: str, when: str) -> list[Figure]:
    """Read what the control plane, the agent and a router without load balancers take."""
    control, agent = (process.pid for process in cloud.standing.processes[:2])
    space = cloud.fabric.prefix + cloud.router(network)["name"]
    own = _inside(space)
    names = ", ".join(Path(f"/proc/{pid}/comm").read_text().strip() for pid in own)
    router = sum(_megabytes(pid, "Pss") for pid in own)
    return [
        Figure(f"control plane, {when}: resident", "MB", [_megabytes(control, "Rss")], [Bar("worst", 120)]),
        Figure(f"control plane, {when}: proportional (PSS)", "MB", [_megabytes(control, "Pss")]),
        Figure("a router without load balancers: proportional (PSS)", "MB", [router], [Bar("worst", 5)],
               note=f"its processes: {names}"),
        Figure(f"the host's agent, {when}: resident", "MB", [_megabytes(agent, "Rss")]),
    ]  # fmt: skip


def control_plane(cloud: Cloud, when: str) -> list[Figure]:
    """Read what the control plane and the agent take, for information."""
    control, agent = (process.pid for process in cloud.standing.processes[:2])
    return [
        Figure(f"control plane, {when}: resident", "MB", [_megabytes(control, "Rss")]),
        Figure(f"the host's agent, {when}: resident", "MB", [_megabytes(agent, "Rss")]),
    ]


def _megabytes(pid: int, which: str) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(rf"^{which}:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def _inside(space: str) -> list[int]:
    """Return the processes in a namespace."""
    wanted, found = netns.inode(space), []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if (process / "ns/net").stat().st_ino == wanted:
                found.append(int(process.name))
    return found
