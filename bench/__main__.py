"""``python -m bench``: hold a cloud up, measure, print the table, and write everything to ``bench/out/``."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import FrameType

from bench import (
    balancing,
    bring_up,
    failover,
    forwarding,
    groups,
    large,
    memory,
    port_filters,
    replacement,
    requests,
    vpc,
    wireguard,
)
from bench.cloud import Cloud, Guest, standing
from bench.figures import Figure, table

LIMIT = 8 * 60
"""Seconds after which a run ends, measured or not."""
LONG = ("failover", "groups")
"""Parts that are measured only when they are named."""
OUT = Path(__file__).parent / "out"


def main(argv: list[str]) -> int:
    """Measure; return 0 when every bar was met.

    :param argv: names of the parts to measure; none is all of them but the long ones.
    """
    if os.geteuid():
        print("The measures make network namespaces: run them as root.", file=sys.stderr)
        return 2
    signal.signal(signal.SIGALRM, _late)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.alarm(LIMIT)
    begun, busy, found = time.monotonic(), _busy(), list[Figure]()
    try:
        with standing() as cloud:
            for name, part in _parts(cloud).items():
                if name in argv or (not argv and name not in LONG):
                    print(f"{time.monotonic() - begun:6.1f} s  {name}", file=sys.stderr, flush=True)
                    found += part()
            signal.alarm(0)
    finally:
        own = os.times()
        spent = own.user + own.system + own.children_user + own.children_system
        _write(found, time.monotonic() - begun, max(0.0, _busy() - busy - spent))
    return 0 if all(figure.met is not False for figure in found) else 1


def _late(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"The measures did not end within {LIMIT} s.")


def _parts(cloud: Cloud) -> dict[str, Callable[[], list[Figure]]]:
    """Return the parts by name, in their order."""

    @cache
    def small() -> tuple[str, Guest]:
        network = str(cloud.network()["id"])
        return network, cloud.guest(network)

    @cache
    def site() -> large.Site:
        return large.prepare(cloud)

    return {
        "memory": lambda: memory.processes(cloud, small()[0], "first start"),
        "idle": lambda: memory.started_again(cloud, small()[0]),
        "requests": lambda: requests.calls(cloud),
        "rule": lambda: forwarding.one_rule(cloud, *small()),
        "burst": lambda: forwarding.burst(cloud, *small()),
        "wireguard": lambda: wireguard.tunnels(cloud, *small()),
        "balancers": lambda: balancing.edits(cloud, small()[0]),
        "vpc": lambda: vpc.vpcs(cloud),
        "router": lambda: bring_up.router(cloud),
        "guests": lambda: bring_up.guests(cloud),
        "hosts": lambda: bring_up.hosts(cloud),
        "chain": lambda: large.whole_chain(cloud, site()),
        "load": lambda: large.from_nothing(cloud, site()),
        "lists": lambda: requests.lists(cloud, site()),
        "swaps": lambda: large.swaps(cloud, site()),
        "failover": failover.seeded_faults,
        "filters": lambda: port_filters.measures(cloud),
        "groups": groups.changes,
        "replacement": lambda: replacement.vpc_under_load(cloud),
        "after": lambda: memory.control_plane(cloud, "after all this"),
    }


def _busy() -> float:
    """Return the seconds that all processors together have worked since the machine started."""
    user, nice, system, _idle, _waiting, *interrupts = Path("/proc/stat").read_text().splitlines()[0].split()[1:8]
    return sum(map(int, (user, nice, system, *interrupts))) / os.sysconf("SC_CLK_TCK")


def _write(found: list[Figure], seconds: float, others: float) -> None:
    """Print the table, and keep all samples.

    :param others: processor seconds that went to what is not of this run, guests and daemons aside.
    """
    processors = os.cpu_count() or 1
    share = others / (seconds * processors)
    head = f"{len(found)} figures in {seconds:.0f} s on {processors} processors, of which others took {share:.0%}."
    print(f"\n{head} The more they take, the more ratios say than milliseconds.\n\n{table(found)}")
    OUT.mkdir(exist_ok=True)
    about = {"at": datetime.now(UTC).isoformat(), "seconds": seconds, "processors": processors, "others": share,
             "python": platform.python_version(), "kernel": platform.release()}  # fmt: skip
    text = json.dumps(about | {"figures": [figure.to_json() for figure in found]}, indent=1)
    (OUT / "figures.json").write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
