"""Load balancers are changed under load: no request fails, counters go on, and who is taken away is seen off."""

import http.client
import itertools
import socket
import threading
from dataclasses import replace

import pytest

from drivers.balancing import Member, Stickiness
from drivers.network.virtual_router import VirtualRouter
from drivers.vocabulary import IngressRule
from systemvm import netns, tree
from systemvm.bundle import Bundle
from systemvm.services import HostSettings, Place
from systemvm.services.haproxy import Haproxy, _ask
from tests.golden.router.cases import ANY, FIRST, appliance, balancer, network, uid
from tests.netns.router_lab import Lab, fetch, until

pytestmark = pytest.mark.netns
A, B = (Member(uid(3, number), f"10.1.1.{number}") for number in (5, 6))
RULE = uid(10, 1)
COOKIE = Stickiness("a", "LbCookie", (("cookie-name", "KEEP"),))


class Balancer:
    """The lab's router with load balancers, applied as the agent does."""

    def __init__(self, lab):
        self.lab, self.service, self.held = lab, Haproxy(), None
        self.place = Place("r", lab.router, lab.folder, HostSettings("h", "", "", lab.folder))
        lab.apply(self._rendered((self.rule(A, B), self.rule(A, B, number=2))))

    def _rendered(self, rules):
        router = VirtualRouter()
        opened = (IngressRule(uid(6, 1), FIRST, "tcp", 80, 81, ANY),)
        return router.render(router.plan(appliance(network(balancers=rules, ingress=opened))))

    def rule(self, *members, number=1, **more):
        return replace(balancer(number, 79 + number, members=members), private_port=8000, **more)

    def apply(self, *rules):
        """Apply, and return how often haproxy was reloaded for it."""
        before = until(self.workers) if self.held else set()
        rendered = self._rendered(rules)
        new = Bundle("t", "r", "router", 1, *rendered)
        staged = tree.stage(self.place, new)
        assert self.service.check(self.place, staged, new) == []
        tree.swap(self.place, staged, new)
        assert self.service.activate(self.place, self.held, new) == []
        self.held = new
        return len(until(self.workers) - before)

    def workers(self):
        said = _ask(self.place, "master.sock", "show proc").splitlines()
        return {line.split()[0] for line in said if " worker " in line}

    def servers(self):
        said = _ask(self.place, "haproxy.sock", "show servers state").splitlines()
        return {row.split()[3][-1] for row in said[2:] if RULE in row}


@pytest.fixture
def balanced():
    lab = Lab()
    for guest in (lab.g5, lab.g6):
        lab.serve(guest, 8000, http=True)
    found = Balancer(lab)
    yield found
    found.service.remove(found.place)
    lab.remove()


def asked(balanced, port=80, **more):
    answer = fetch(balanced.lab.outside, FIRST, port, **more)
    return answer and answer[0][2]


class Load:
    """Clients that ask again and again; they know what came of every request."""

    def __init__(self, lab, *, keep, clients=3):
        self.lab, self.keep, self.over = lab, keep, threading.Event()
        self.done, self.failed = itertools.count(), []
        self.threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        self.total = 0
        for thread in self.threads:
            thread.start()

    def _ask(self):
        with netns.entered(self.lab.outside):  # this thread's own: its sockets are of the outside
            while not self.over.is_set():
                client = http.client.HTTPConnection(FIRST, 80, timeout=10)
                try:
                    for _ in range(self.keep):
                        client.request("GET", "/")
                        response = client.getresponse()
                        response.read()
                        if response.status != 200:
                            self.failed.append(response.status)
                        self.total = next(self.done)
                        if response.will_close or self.over.is_set():
                            break
                except (OSError, http.client.HTTPException) as error:
                    self.failed.append(repr(error))
                finally:
                    client.close()

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.parametrize("keep", [1, 100], ids=["a connection each", "connections that are kept"])
def test_no_request_fails_during_twenty_changes(balanced, keep):
    balanced.apply(balanced.rule(A, B))
    until(lambda: {asked(balanced) for _ in range(4)} == {"g5", "g6"})
    changes = [
        (balanced.rule(A, B._replace(weight=5)),),
        (balanced.rule(A),),
        (balanced.rule(A, B),),
        (balanced.rule(B),),
        (balanced.rule(A, B), balanced.rule(A, number=2)),
        (balanced.rule(A, B, algorithm="leastconn"),),
        (balanced.rule(A._replace(weight=9), B, algorithm="leastconn"),),
        (balanced.rule(A, B, settings=(("maxconn", "500"),)),),
        (balanced.rule(A, B, stickiness=COOKIE),),
        (balanced.rule(A, B),),
    ]
    load, reloads = Load(balanced.lab, keep=keep), 0
    try:
        for number, change in enumerate(changes * 2):
            reloads += balanced.apply(*change)
            until(lambda number=number: load.total > 100 * number or load.failed, 60)
        until(lambda: load.total >= 2000 or load.failed, 60)
    finally:
        load.end()
    print(f"{load.total} requests, {len(changes) * 2} changes of which {reloads} reloads, {len(load.failed)} failed")
    assert load.failed == []
    assert load.total >= 2000
    assert reloads < len(changes) * 2


def test_weights_and_servers_change_as_it_runs_and_the_counters_go_on(balanced):
    assert balanced.apply(balanced.rule(A, B)) == 1
    assert {asked(balanced) for _ in range(10)} == {"g5", "g6"}
    assert balanced.apply(balanced.rule(A._replace(weight=0), B)) == 0
    assert {asked(balanced) for _ in range(10)} == {"g6"}
    assert balanced.apply(balanced.rule(B)) == 0
    until(lambda: balanced.service.ensure(balanced.place, balanced.held) == [] and balanced.servers() == {"6"})
    assert balanced.apply(balanced.rule(A, B)) == 0
    until(lambda: {asked(balanced) for _ in range(6)} == {"g5", "g6"})
    seen = balanced.service.observe(balanced.place, balanced.held)
    assert {unit.rpartition(".")[2]: state for unit, state in seen.states} == {"5": "UP", "6": "UP"}
    counted = {name: packets for name, packets, _ in seen.counters}[RULE]
    assert counted >= 26
    assert balanced.apply(balanced.rule(A, B, algorithm="leastconn")) == 1
    seen = balanced.service.observe(balanced.place, balanced.held)
    assert {name: packets for name, packets, _ in seen.counters}[RULE] >= counted


def test_who_is_taken_away_ends_what_it_began(balanced):
    def rule(*members):
        return replace(balanced.rule(*members), port=81, private_port=8100)

    with netns.entered(balanced.lab.g5):
        slow = socket.create_server(("10.1.1.5", 8100))
    with slow:
        balanced.apply(rule(A, B._replace(weight=0)))
        with netns.entered(balanced.lab.outside):
            client = socket.create_connection((FIRST, 81), timeout=5)
        with client:
            client.sendall(b"one")
            line = until(lambda: next((one for one in _accepted(slow) if one.recv(3) == b"one"), None))
            with line:
                assert balanced.apply(rule(B)) == 0
                balanced.service.ensure(balanced.place, balanced.held)
                assert balanced.servers() == {"5", "6"}
                states = balanced.service.observe(balanced.place, balanced.held).states
                assert {unit[-1] for unit, _ in states} == {"6"}
                line.sendall(b"two")
                assert client.recv(3) == b"two"
    until(lambda: balanced.service.ensure(balanced.place, balanced.held) == [] and balanced.servers() == {"6"})


def _accepted(server):
    """Yield connections, those of health checks too."""
    server.settimeout(5)
    while True:
        line, _ = server.accept()
        line.settimeout(5)
        yield line
