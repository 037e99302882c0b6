"""Replacement: a VPC with 50 rules is restarted with cleanup while all kinds of traffic pass its router."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from bench import traffic
from bench.cloud import Cloud, Guest
from bench.figures import Bar, Figure, until
from bench.traffic import Counted

RULES, ROUNDS = 50, 5
ECHO, OUT, WEB = 7001, 7003, 80
LOST, WINDOW = 2, 200
ENOUGH = 2 * WINDOW
INTERNET = "203.0.113.1"


def vpc_under_load(cloud: Cloud) -> list[Figure]:
    """Restart it a few times; count what was reset, lost and refused."""
    vpc, guest, addresses = _prepare(cloud)
    seconds: list[float] = []
    lost: list[float] = []
    resets: list[str] = []
    failed: list[str] = []
    pauses: list[float] = []
    with traffic.echoing(guest.space, tcp=ECHO, udp=ECHO), traffic.echoing(cloud.fabric.internet, tcp=OUT):
        until(lambda: traffic.echoes(cloud.fabric.internet, addresses["forwarded"], ECHO), 10)
        for _ in range(ROUNDS):
            with traffic.resets(cloud.fabric.internet, "br0") as seen:
                found = _round(cloud, vpc, seconds, _talks(cloud, guest, addresses))
            resets += seen
            failed += [f"{name}: {what}" for name, counted in found.items() for what in counted.failed]
            lost += [float(_worst(counted)) for counted in found.values()]
            pauses += [counted.longest * 1000 for counted in found.values()]
    return [
        Figure(f"VPC of {RULES} rules: restart with cleanup under load", "ms", [1000 * each for each in seconds]),
        Figure("… TCP resets seen on the internet", "x", [float(len(resets))], [Bar("worst", 0)], note=str(resets[:3])),
        Figure("… requests and connections that failed", "x", [float(len(failed))], [Bar("worst", 0)],
               note=str(failed[:3])),
        Figure(f"… packets lost of any {WINDOW} in a row, 200 a second", "x", lost, [Bar("worst", LOST)]),
        Figure("… longest that anything waited for its answer", "ms", pauses),
    ]  # fmt: skip


def _prepare(cloud: Cloud) -> tuple[str, Guest, dict[str, str]]:
    call, job = cloud.caller.call, cloud.caller.job
    offering = call("listVPCOfferings", name="Default VPC offering")["vpcoffering"][0]["id"]
    given = {"name": "bench", "displaytext": "bench", "cidr": "10.8.0.0/16", "zoneid": cloud.zone}
    vpc = str(job("createVPC", vpcofferingid=offering, **given)["vpc"]["id"])
    tier = call("listNetworkOfferings", name="DefaultIsolatedNetworkOfferingForVpcNetworks")["networkoffering"][0]
    acl = call("listNetworkACLLists", name="default_allow")["networkacllist"][0]["id"]
    wish = {"gateway": "10.8.1.1", "netmask": "255.255.255.0", "aclid": acl, "vpcid": vpc}
    network = str(cloud.network(networkofferingid=tier["id"], **wish)["id"])
    guest = cloud.guest(network)
    addresses = {name: _address(cloud, vpc) for name in ("forwarded", "static", "balanced")}
    rule = {"ipaddressid": addresses["forwarded"]["id"], "virtualmachineid": guest.id, "networkid": network}
    jobs = []
    for number in range(RULES - 2):
        wanted = {"protocol": "udp" if number % 2 else "tcp", "publicport": ECHO + number // 2}
        jobs.append(call("createPortForwardingRule", privateport=wanted["publicport"], **wanted, **rule)["jobid"])
    for each in jobs:
        cloud.caller.result(each)
    call("enableStaticNat", ipaddressid=addresses["static"]["id"], virtualmachineid=guest.id, networkid=network)
    balancer = {"name": "web", "algorithm": "roundrobin", "publicport": WEB, "privateport": WEB, "networkid": network}
    made = job("createLoadBalancerRule", publicipid=addresses["balanced"]["id"], **balancer)["loadbalancer"]
    job("assignToLoadBalancerRule", id=made["id"], virtualmachineids=guest.id)
    return vpc, guest, {name: address["ipaddress"] for name, address in addresses.items()}


def _address(cloud: Cloud, vpc: str) -> dict[str, Any]:
    made: dict[str, Any] = cloud.caller.job("associateIpAddress", zoneid=cloud.zone, vpcid=vpc)["ipaddress"]
    return made


def _talks(cloud: Cloud, guest: Guest, addresses: dict[str, str]) -> dict[str, Any]:
    internet, forwarded = cloud.fabric.internet, addresses["forwarded"]
    return {
        "ping": traffic.pings(internet, addresses["static"]),
        "udp": traffic.datagrams(internet, forwarded, ECHO),
        "tcp in": traffic.conversation(internet, forwarded, ECHO),
        "tcp out": traffic.conversation(guest.space, INTERNET, OUT),
        "http": traffic.requests(internet, addresses["balanced"], WEB),
        "http kept": traffic.requests(internet, addresses["balanced"], WEB, keep=True),
    }


def _round(cloud: Cloud, vpc: str, seconds: list[float], talks: dict[str, Any]) -> dict[str, Counted]:
    with ExitStack() as stack:
        found: dict[str, Counted] = {name: stack.enter_context(talk) for name, talk in talks.items()}
        until(lambda: found["ping"].sent > ENOUGH, 10)
        begun = time.monotonic()
        cloud.caller.job("restartVPC", id=vpc, cleanup="true")
        seconds.append(time.monotonic() - begun)
        sent = found["ping"].sent
        until(lambda: found["ping"].sent > sent + ENOUGH, 10)
    return found


def _worst(counted: Counted) -> int:
    """Return how many were lost at most among so many in a row."""
    return max((sum(first <= each < first + WINDOW for each in counted.lost) for first in counted.lost), default=0)
