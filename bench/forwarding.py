"""Port forwarding: one rule after the other, and many from several clients at once."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from bench.cloud import Cloud, Guest, serving
from bench.figures import Bar, Figure, Raw, timed
from systemvm import netns
from systemvm.libnftables import Context

RULES, BURST, CLIENTS = 120, 200, 8
FIRST_PORT, BURST_PORT, WORD_PORT = 2000, 4000, 8000
PATIENCE = 0.1
"""Seconds that one try to connect has: what is dropped is only sent again after a second."""


def connects(address: str, port: int, seconds: float = PATIENCE) -> bool:
    """Tell whether a TCP connection from the calling thread's namespace is taken."""
    with suppress(OSError), socket.create_connection((address, port), timeout=seconds):
        return True
    return False


def wait_for_connection(address: str, port: int, seconds: float = 5.0) -> None:
    """Connect until it is taken.

    :raises TimeoutError: it never is.
    """
    deadline = time.monotonic() + seconds
    while not connects(address, port):
        if time.monotonic() > deadline:
            raise TimeoutError(f"No connection to {address}:{port} passes after {seconds:g} s.")


def wish(address: str, guest: Guest, port: int, inside: int = 80) -> dict[str, object]:
    """Return the parameters of a port forwarding rule to a port of the guest."""
    given = {"ipaddressid": address, "protocol": "tcp", "publicport": port, "privateport": inside}
    return given | {"virtualmachineid": guest.id}


def one_rule(cloud: Cloud, network: str, guest: Guest) -> list[Figure]:
    """Make rule after rule, and take the time until a connection from the internet passes."""
    address = cloud.address(network)
    whole: list[float] = []
    accepted: list[float] = []
    raw = _element_samples(Context(cloud.host_space))
    for port in range(FIRST_PORT, FIRST_PORT + RULES):
        with timed(whole):
            with timed(accepted):
                job = cloud.caller.call("createPortForwardingRule", **wish(address["id"], guest, port))["jobid"]
            cloud.caller.result(job)
            with netns.entered(cloud.fabric.internet):
                wait_for_connection(address["ipaddress"], port)
    bars = Bar("median", 100), Bar("p99", 300)
    primitive = Raw("libnftables adding one element", raw)
    return [
        Figure("one rule: signed request → job done and a connection passes", "ms", whole, bars, primitive),
        Figure("… of it: until the call is answered (row and job are safe)", "ms", accepted),
    ]


def _element_samples(context: Context) -> list[float]:
    """Take the time of adding one element to a map by itself, in a table of its own."""
    samples: list[float] = []
    context.run("table ip bench { map m { type inet_service : ipv4_addr; }; }")
    try:
        for port in range(1, 101):
            with timed(samples):
                context.run(f"add element ip bench m {{ {port} : 10.0.0.1 }}")
    finally:
        context.run("delete table ip bench")
        context.close()
    return samples


def burst(cloud: Cloud, network: str, guest: Guest) -> list[Figure]:
    """Have several clients make rules at once; all must be in the kernel in time, and every job end well."""
    address = cloud.address(network)
    ports = range(BURST_PORT, BURST_PORT + BURST)
    callers = [cloud.another() for _ in range(CLIENTS)]
    for caller in callers:
        caller.call("listCapabilities")  # the connection is open before the clock starts

    def share(number: int) -> list[str]:
        wishes = [wish(address["id"], guest, port, WORD_PORT) for port in ports[number::CLIENTS]]
        return [str(callers[number].call("createPortForwardingRule", **each)["jobid"]) for each in wishes]

    begun = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        jobs = [job for part in pool.map(share, range(CLIENTS)) for job in part]
    answered = time.perf_counter() - begun
    with serving(guest.space, WORD_PORT, b"!"), netns.entered(cloud.fabric.internet):
        for port in ports:
            wait_for_connection(address["ipaddress"], port)
    passed = time.perf_counter() - begun
    for job in jobs:
        cloud.caller.result(job)
    ended = time.perf_counter() - begun
    for caller in callers:
        caller.close()
    name = f"{BURST} rules by {CLIENTS} clients at once: first request → "
    return [
        Figure(f"{name}all calls answered", "ms", [answered * 1000]),
        Figure(f"{name}a connection through each passes", "ms", [passed * 1000], [Bar("worst", 2000)]),
        Figure(f"{name}each job seen to have ended well, one after the other", "ms", [ended * 1000]),
    ]
