"""Load balancing: requests that go on while the rules are changed."""

from __future__ import annotations

import http.client
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.cloud import Cloud
from bench.figures import Bar, Figure, timed, until
from systemvm import netns

REQUESTS, EDITS, CLIENTS, KEPT = 10_000, 100, 4, 20
PORT = 80


@dataclass
class Load:
    """What came of the requests so far."""

    done: int = 0
    failed: list[str] = field(default_factory=list)
    slowest: float = 0.0


def edits(cloud: Cloud, network: str) -> list[Figure]:
    """Change a load balancer over and over under load: no request may fail."""
    guests = [cloud.guest(network) for _ in range(2)]
    address = cloud.address(network)
    rule = _rule(cloud, address["id"], PORT)
    _members(cloud, "assignToLoadBalancerRule", rule, [guest.id for guest in guests])
    with netns.entered(cloud.fabric.internet):
        until(lambda: _asks(address["ipaddress"], 1, Load()))
    taken: list[float] = []
    changes = _changes(cloud, address["id"], rule, [guest.id for guest in guests])
    with _asking(cloud.fabric.internet, address["ipaddress"]) as load:
        for number, change in enumerate(itertools.islice(itertools.cycle(changes), EDITS), 1):
            with timed(taken):
                change()
            until(lambda number=number: load.done >= number * REQUESTS // EDITS or load.failed, 60)  # type: ignore[misc]
    name = f"{load.done} HTTP requests during {EDITS} edits of load balancers"
    note = load.failed[0] if load.failed else f"half of the clients keep their connection for {KEPT} requests"
    cloud.caller.job("disassociateIpAddress", id=address["id"])
    return [
        Figure(f"{name}: failed", "", [float(len(load.failed))], [Bar("worst", 0)], note=note),
        Figure("… an edit: call → job done", "ms", taken),
    ]


def _rule(cloud: Cloud, address: str, port: int) -> str:
    wanted = {"name": f"bench-{port}", "algorithm": "roundrobin", "publicport": port, "privateport": 80}
    made = cloud.caller.job("createLoadBalancerRule", publicipid=address, **wanted)["loadbalancer"]
    return str(made["id"])


def _members(cloud: Cloud, command: str, rule: str, guests: list[str]) -> None:
    cloud.caller.job(command, id=rule, virtualmachineids=",".join(guests))


def _changes(cloud: Cloud, address: str, rule: str, guests: list[str]) -> list[Callable[[], object]]:
    """Return edits that end where they began: members, algorithms, and a rule beside this one."""
    beside: list[str] = []

    def algorithm(name: str) -> object:
        return cloud.caller.job("updateLoadBalancerRule", id=rule, algorithm=name)

    def add() -> None:
        beside.append(_rule(cloud, address, PORT + 1))

    return [
        lambda: _members(cloud, "removeFromLoadBalancerRule", rule, guests[:1]),
        lambda: _members(cloud, "assignToLoadBalancerRule", rule, guests[:1]),
        lambda: algorithm("leastconn"),
        lambda: _members(cloud, "removeFromLoadBalancerRule", rule, guests[1:]),
        lambda: _members(cloud, "assignToLoadBalancerRule", rule, guests[1:]),
        lambda: algorithm("source"),
        add,
        lambda: _members(cloud, "assignToLoadBalancerRule", beside[-1], guests),
        lambda: algorithm("roundrobin"),
        lambda: cloud.caller.job("deleteLoadBalancerRule", id=beside.pop()),
    ]


@contextmanager
def _asking(space: str, address: str) -> Iterator[Load]:
    """Have clients ask for the length of the block, each for itself."""
    load, ending = Load(), threading.Event()

    def ask(kept: int) -> None:
        with netns.entered(space):  # this thread's own
            while not ending.is_set():
                _asks(address, kept, load)

    threads = [threading.Thread(target=ask, args=(KEPT if number % 2 else 1,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def _asks(address: str, requests: int, load: Load) -> bool:
    """Ask over one connection, and note what came of it; return whether all was well."""
    client = http.client.HTTPConnection(address, PORT, timeout=10)
    try:
        for _ in range(requests):
            client.request("GET", "/")
            response = client.getresponse()
            response.read()
            load.done += 1
            if response.status != http.client.OK:
                load.failed.append(f"the answer was {response.status}")
                return False
            if response.will_close:
                break
    except (OSError, http.client.HTTPException) as error:
        load.failed.append(repr(error))
        return False
    finally:
        client.close()
    return True
