"""Processes are killed and namespaces wiped while guests talk: packets go on, and what was acknowledged is there."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from cs import CloudStackException

from controlplane import run
from controlplane.demo_zone import NOW
from systemvm import netns
from tests.spine.wire import answering
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]
CONTROL, PACE = 0, 0.005
ENOUGH = 40


@dataclass
class Talk:
    """How many datagrams were sent, and which were never answered."""

    sent: int = 0
    lost: list[int] = field(default_factory=list)


@contextlib.contextmanager
def talking(world: World, address: str, port: int) -> Iterator[Talk]:
    """Send a datagram from the internet every few milliseconds and wait for its answer."""
    talk, done = Talk(), threading.Event()
    with netns.entered(world.space("internet")):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(1)
    sock.connect((address, port))

    def loop() -> None:
        while not done.wait(PACE):
            talk.sent += 1
            try:
                sock.send(b"?")
                sock.recv(2048)
            except OSError:
                talk.lost.append(talk.sent)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield talk
    finally:
        done.set()
        thread.join()
        sock.close()


@pytest.fixture(scope="module")
def shop(world: World):
    """A network with two guests on two hosts, a balancer, a forwarded port, and an address with a UDP answerer."""
    net = world.network()
    guests = [world.guest(net["id"], hostid=world.host(number)) for number in (1, 2)]
    ip, balanced = world.address(net["id"]), world.address(net["id"])
    world.forward(ip, guests[0], 80, 80)
    world.forward(ip, guests[0], 7000, 7000, protocol="udp")
    world.balance(balanced, guests, 80)
    until(lambda: world.curl(f"http://{ip['ipaddress']}/"))
    return net, guests, ip, balanced


@pytest.fixture
def talk(world: World, shop):
    _, guests, ip, _ = shop
    with answering(world.space(f"vm/{guests[0]['name']}"), udp=(7000,)):
        with talking(world, ip["ipaddress"], 7000) as found:
            until(lambda: found.sent > 10)
            yield found
            before = found.sent
            until(lambda: found.sent > before + 10)
    assert not found.lost


def kill(world: World, number: int) -> None:
    process = world.cloud.processes[number]
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def test_a_killed_control_plane_loses_no_packet_and_nothing_acknowledged(world: World, shop, talk):
    net, guests, ip, _ = shop
    acknowledged: dict[int, dict[str, str]] = {}
    done = threading.Event()

    def stream() -> None:
        where = {"ipaddressid": ip["id"], "virtualmachineid": guests[0]["id"], "openfirewall": True}
        for port in range(10_000, 20_000):
            if done.is_set():
                return
            with contextlib.suppress(CloudStackException, requests.RequestException):
                made = world.api.createPortForwardingRule(protocol="tcp", publicport=port, privateport=80, **where)
                acknowledged[port] = made

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        for goal in (ENOUGH, 2 * ENOUGH):
            until(lambda goal=goal: len(acknowledged) >= goal, 30)
            kill(world, CONTROL)
            run.start_again(world.cloud, CONTROL)
        until(lambda: len(acknowledged) >= 3 * ENOUGH, 30)
    finally:
        done.set()
        thread.join()
    for made in acknowledged.values():
        job = until(lambda made=made: _ended(world, made["jobid"]), 30)
        assert job["jobstatus"] == 1, job
    rules = world.api.listPortForwardingRules(ipaddressid=ip["id"], fetch_list=True, pagesize=500)
    assert {made["id"] for made in acknowledged.values()} <= {rule["id"] for rule in rules}
    assert {rule["state"] for rule in rules} == {"Active"}
    kernel = world.run(
        f"router/{world.router(net['id'])['name']}", "nft", "list", "map", "inet", "netspine", "dnat_ports"
    )
    for port in acknowledged:
        assert f"{ip['ipaddress']} . tcp . {port} " in kernel.stdout
    for port in random.sample(sorted(acknowledged), 5):
        assert world.curl(f"http://{ip['ipaddress']}:{port}/") == guests[0]["name"]


def _ended(world: World, job: str):
    found = world.api.queryAsyncJobResult(jobid=job)
    return found if found["jobstatus"] else None


def test_a_killed_control_plane_finishes_the_workflows_that_it_began(world: World, shop, talk):
    net, *_ = shop
    asked = [world.api.deployVirtualMachine(**_small(world, net)) for _ in range(3)]
    kill(world, CONTROL)
    run.start_again(world.cloud, CONTROL)
    for made in asked:
        job = until(lambda made=made: _ended(world, made["jobid"]), 60)
        assert job["jobstatus"] == 1, job
        assert world.api.listVirtualMachines(id=made["id"])["virtualmachine"][0]["state"] == "Running"
        world.api.destroyVirtualMachine(id=made["id"], expunge=True, **NOW)


def _small(world: World, net) -> dict[str, str]:
    template = world.api.listTemplates(templatefilter="all", name="busybox")["template"][0]["id"]
    size = world.api.listServiceOfferings(name="Small Instance")["serviceoffering"][0]["id"]
    return {"zoneid": world.zone, "templateid": template, "serviceofferingid": size, "networkids": net["id"]}


def standing(world: World, router: str) -> tuple[str, set[str]]:
    """Return the router's packet filter with its handles, and the processes that serve it."""
    rules = world.run(f"router/{router}", "nft", "-s", "-a", "list", "ruleset").stdout
    return rules, set(_pids(world, f"router/{router}"))


def _pids(world: World, where: str) -> dict[str, str]:
    """Return the processes in a place's network namespace: number → name."""
    inode = netns.inode(world.space(where))
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "ns/net").stat().st_ino == inode:
                found[folder.name] = (folder / "comm").read_text().strip()
    return found


def test_a_killed_agent_loses_no_packet_and_touches_nothing_when_it_is_back(world: World, shop, talk):
    net, guests, ip, _ = shop
    router = world.router(net["id"])["name"]
    before = standing(world, router)
    logs = {host: world.cloud.place.log(f"agent-{host}") for host in world.cloud.fabric.hosts}
    read = {host: log.stat().st_size for host, log in logs.items()}
    for number in (1, 2):
        kill(world, number)
    sent = talk.sent
    until(lambda: talk.sent > sent + 50)
    when = datetime.now(UTC).replace(tzinfo=None).isoformat(" ")
    for number in (1, 2):
        run.start_again(world.cloud, number)
    until(lambda: all(_settled(world)) and _observed_since(world, when), 20)
    assert standing(world, router) == before
    for host, log in logs.items():
        assert ": applied" not in log.read_text()[read[host] :]
    kill(world, 1)
    kill(world, 2)
    job = world.api.createPortForwardingRule(
        ipaddressid=ip["id"], virtualmachineid=guests[1]["id"], protocol="tcp", publicport=99, privateport=80
    )["jobid"]
    for number in (1, 2):
        run.start_again(world.cloud, number)
    assert until(lambda: _ended(world, job), 20)["jobstatus"] == 1
    assert world.curl(f"http://{ip['ipaddress']}:99/") == guests[1]["name"]


def _settled(world: World) -> list[bool]:
    query = "SELECT desired_generation, applied_generation FROM targets"
    return [desired == applied for desired, applied in world.sql(query)]


def _observed_since(world: World, when: str) -> bool:
    """Tell whether every target was read back since then."""
    return world.sql("SELECT min(at) FROM observations JOIN targets ON target_id = targets.id")[0][0] > when


def test_killed_daemons_are_back_soon(world: World, shop):
    net, guests, _, balanced = shop
    where = f"router/{world.router(net['id'])['name']}"
    wanted = {"dnsmasq", "haproxy"}
    killed = {pid: name for pid, name in _pids(world, where).items() if name in wanted}
    assert set(killed.values()) == wanted
    for pid in killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    asks = ("nslookup", "-type=a", guests[1]["name"], "10.1.1.1")
    until(lambda: guests[1]["nic"][0]["ipaddress"] in world.run(f"vm/{guests[0]['name']}", *asks).stdout, 30)
    until(lambda: world.curl(f"http://{balanced['ipaddress']}/"), 30)
    assert not killed.keys() & _pids(world, where).keys()


def test_wiped_namespaces_are_rebuilt_from_the_intent(world: World, shop):
    net, guests, ip, balanced = shop
    names = [f"router/{world.router(net['id'])['name']}", *(f"vm/{guest['name']}" for guest in guests)]
    for where in names:
        space = world.space(where)
        for pid in _pids(world, where):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        netns.ensure_no(space)
    for number in (1, 2):
        links = world.beside(f"host/host-{number}", "ip", "-br", "link").stdout.split()
        for link in (name for name in links if name.startswith("brvx-")):
            world.beside(f"host/host-{number}", "ip", "link", "del", link)
    assert not world.ask(ip["ipaddress"], 80, seconds=0.4)
    until(lambda: world.curl(f"http://{ip['ipaddress']}/") == guests[0]["name"], 30)
    seen = set()
    until(lambda: seen.add(world.curl(f"http://{balanced['ipaddress']}/")) or {g["name"] for g in guests} <= seen, 30)
    until(lambda: world.pings(names[1], guests[1]["nic"][0]["ipaddress"]), 30)


def test_what_fails_its_check_leaves_the_old_one_and_the_job_says_where(world: World, shop, talk):
    net, guests, ip, _ = shop
    router = world.router(net["id"])["name"]
    before = standing(world, router)
    ((good,),) = world.sql("SELECT dhcp_options FROM virtual_machines WHERE uuid = ?", guests[0]["id"])
    spoil = "UPDATE virtual_machines SET dhcp_options = ? WHERE uuid = ?"
    world.sql(spoil, json.dumps({net["id"]: {"3": "no address"}}), guests[0]["id"])  # the API would refuse it
    wanted = {"ipaddressid": ip["id"], "virtualmachineid": guests[0]["id"], "protocol": "tcp", "privateport": 80}
    said = world.refused("createPortForwardingRule", **wanted, publicport=98)
    assert re.search(r"dnsmasq/dnsmasq\.conf line \d+: .*address", said), said
    assert router in said
    assert standing(world, router) == before
    assert world.curl(f"http://{ip['ipaddress']}/") == guests[0]["name"]
    assert not world.ask(ip["ipaddress"], 98, seconds=0.4)
    world.sql(spoil, good, guests[0]["id"])
    world.api.createPortForwardingRule(**wanted, publicport=97, **NOW)
    assert world.curl(f"http://{ip['ipaddress']}:97/") == guests[0]["name"]
    assert world.curl(f"http://{ip['ipaddress']}:98/") == guests[0]["name"], "the former change is part of the whole"
