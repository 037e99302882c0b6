"""Memory: of the control plane, an agent, and a router's own processes."""

from __future__ import annotations

import re
from pathlib import Path

from bench.cloud import Cloud
from bench.figures import Bar, Figure
from systemvm import netns


def processes(cloud: Cloud, network: str, when: str) -> list[Figure]:
    """Read what the control plane, the agent and a router without load balancers take."""
    control, agent = (process.pid for process in cloud.standing.processes[:2])
    space = cloud.fabric.prefix + cloud.router(network)["name"]
    own = _inside(space)
    names = ", ".join(Path(f"/proc/{pid}/comm").read_text().strip() for pid in own)
    return [
        Figure(f"control plane, {when}: resident", "MB", [_megabytes(control, "Rss")], [Bar("worst", 120)]),
        Figure(f"control plane, {when}: proportional (PSS)", "MB", [_megabytes(control, "Pss")]),
        Figure(
            "a router without load balancers: proportional (PSS)",
            "MB",
            [sum(_megabytes(pid, "Pss") for pid in own)],
            [Bar("worst", 5)],
            note=f"its processes: {names}",
        ),
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
    for name in sorted(path.name for path in Path("/proc").iterdir()):
        if name.isdigit():
            try:
                if Path(f"/proc/{name}/ns/net").stat().st_ino == wanted:
                    found.append(int(name))
            except OSError:
                continue
    return found
