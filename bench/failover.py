"""Failover of redundant routers: how long a guest's packets stay away after each of a hundred seeded faults."""

from __future__ import annotations

from bench.figures import Bar, Figure

FAULTS = 100


def seeded_faults() -> list[Figure]:
    """Kill, pause, cut off and cut apart two routers that have real agents' services, one fault after the other.

    A fault after which two had owned the addresses, or an established connection had ended, ends the measure.
    """
    from tests.netns.redundant_faults import run

    found = run(FAULTS)
    samples = [float(str(each["seconds"])) * 1000 for each in found]
    note = "the longest silence of a flow through the routers; never two owners, no connection lost"
    return [Figure(f"failover, {FAULTS} seeded faults", "ms", samples, (Bar("p99", 800),), note=note)]
