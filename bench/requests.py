"""The API alone: signed calls over a connection that is open."""

from __future__ import annotations

from bench.cloud import Cloud
from bench.figures import Bar, Figure, Raw, timed
from bench.large import Site

CALLS, NETWORKS, LISTS, PAGE = 400, 40, 40, 500


def calls(cloud: Cloud) -> list[Figure]:
    """Time a call that reads, and one that writes."""
    health: list[float] = []
    zones: list[float] = []
    made: list[float] = []
    for _ in range(CALLS):
        with timed(health):
            cloud.caller.health()
        with timed(zones):
            cloud.caller.call("listZones")
    networks = []
    for _ in range(NETWORKS):
        with timed(made):
            networks.append(cloud.network()["id"])
    for network in networks:
        cloud.caller.job("deleteNetwork", id=network)
    raw = Raw("GET /healthz", health)
    return [
        Figure("listZones, signed", "ms", zones, raw=raw),
        Figure("createNetwork", "ms", made, raw=raw),
    ]


def lists(cloud: Cloud, site: Site) -> list[Figure]:
    """List page after page of the ten thousand rules."""
    samples: list[float] = []
    for number in range(LISTS):
        with timed(samples):
            found = cloud.caller.call(
                "listPortForwardingRules",
                ipaddressid=site.address["id"],
                listall="true",
                page=number % 20 + 1,
                pagesize=PAGE,
            )
        if len(found["portforwardingrule"]) != PAGE:
            raise RuntimeError(f"A page of {PAGE} rules has {len(found['portforwardingrule'])}.")
    return [Figure(f"list {PAGE} of 10,000 port forwarding rules", "ms", samples, [Bar("p95", 100)])]
