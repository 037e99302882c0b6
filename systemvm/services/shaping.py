"""Shaping: a token bucket (tc-tbf(8)) on what leaves through an interface, at the rate that its offering names."""

from __future__ import annotations

from typing import Any

from pyroute2 import IPRoute

_ROOT = 0xFFFFFFFF
_LATENCY = "50ms"


def set_rate(ip: IPRoute, name: str, index: int, rate: int) -> list[str]:
    """Make the rate so and return what was changed.

    :param rate: Mbit/s; 0 is unlimited.
    """
    there = _rate(ip, index)
    goal = rate * 125_000
    if there == goal:
        return []
    if not goal:
        ip.tc("del", index=index, parent=_ROOT)
    else:
        # A bucket of 10 ms at the rate, and never less than a few frames, keeps up with coarse timers.
        burst = max(goal // 100, 16_384)
        ip.tc("replace", "tbf", index, handle=0x10000, rate=goal, burst=burst, latency=_LATENCY)
    return [f"rate of {name}"]


def _rate(ip: IPRoute, index: int) -> int:
    """Return the rate in bytes a second that is in force, 0 where there is none."""
    for qdisc in ip.get_qdiscs(index=index):
        if qdisc["parent"] == _ROOT and qdisc.get_attr("TCA_KIND") == "tbf":
            options: Any = qdisc.get_attr("TCA_OPTIONS")
            return int(options.get_attr("TCA_TBF_PARMS")["rate"])
    return 0
