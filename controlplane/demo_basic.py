"""A basic zone, as ``netspine run --zone basic`` makes it: one flat network, pods, security groups, elastic addresses.

An ordinary API script, like :mod:`controlplane.demo_zone`: a second run finds the same cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cs import CloudStack

from controlplane.demo_zone import (
    NOW,
    PUBLIC_END,
    PUBLIC_START,
    HostSpec,
    ensure,
    ensure_guest,
    ensure_hosts,
    ensure_services,
    finish,
)

ZONE, NETWORK, BALANCER = "basic-1", "guests", "web"
OFFERING = "DefaultSharedEIPandELBNetworkOffering"
PROVIDERS = ("VirtualRouter", "SecurityGroupProvider")
NETMASK = "255.255.255.0"


@dataclass(frozen=True, slots=True)
class PodSpec:
    """A pod to be made.

    :param subnet: the first three numbers of its guests' /24; the operator's gateway there is its first address.
    """

    name: str
    subnet: str
    hosts: tuple[HostSpec, ...]

    @property
    def gateway(self) -> str:
        """The operator's gateway of the pod's guests."""
        return f"{self.subnet}.1"


def ensure_zone(cloud: CloudStack, pods: Sequence[PodSpec], template: Path, offering: str = OFFERING) -> dict[str, Any]:
    """Make a basic zone with its network, pods, hosts and the guests' template.

    :param offering: name of the network's offering.
    """
    zone = ensure(
        cloud.listZones(name=ZONE),
        "zone",
        lambda: cloud.createZone(
            name=ZONE, networktype="Basic", dns1="203.0.113.1", internaldns1="203.0.113.1", localstorageenabled=True
        ),
    )
    physical = ensure(
        cloud.listPhysicalNetworks(zoneid=zone["id"]),
        "physicalnetwork",
        lambda: cloud.createPhysicalNetwork(zoneid=zone["id"], name="physical-1", **NOW),
    )
    ensure_services(cloud, physical["id"], PROVIDERS)
    network = _ensure_network(cloud, zone["id"], offering)
    for pod in pods:
        _ensure_pod(cloud, zone["id"], network["id"], pod)
    _ensure_public(cloud, zone["id"])
    finish(cloud, zone, sum(len(pod.hosts) for pod in pods), template)
    return zone


def _ensure_network(cloud: CloudStack, zone: str, offering: str) -> dict[str, Any]:
    offerings = cloud.listNetworkOfferings(name=offering)["networkoffering"]
    return ensure(
        cloud.listNetworks(zoneid=zone, type="Shared"),
        "network",
        lambda: cloud.createNetwork(
            name=NETWORK, displaytext="All guests", zoneid=zone, networkofferingid=offerings[0]["id"]
        ),
    )


def _ensure_pod(cloud: CloudStack, zone: str, network: str, spec: PodSpec) -> None:
    """Make a pod: its hosts' own addresses, and beside them in the same subnet its guests'."""
    inside = {"gateway": spec.gateway, "netmask": NETMASK}
    own = {"startip": f"{spec.subnet}.2", "endip": f"{spec.subnet}.9"}
    pod = ensure(
        cloud.listPods(zoneid=zone, name=spec.name),
        "pod",
        lambda: cloud.createPod(zoneid=zone, name=spec.name, **inside, **own),
    )
    if not cloud.listVlanIpRanges(podid=pod["id"]):
        guests = {"startip": f"{spec.subnet}.10", "endip": f"{spec.subnet}.250"}
        cloud.createVlanIpRange(
            zoneid=zone, podid=pod["id"], networkid=network, forvirtualnetwork=False, **inside, **guests
        )
    ensure_hosts(cloud, pod, spec.hosts)


def _ensure_public(cloud: CloudStack, zone: str) -> None:
    if not cloud.listVlanIpRanges(zoneid=zone, forvirtualnetwork=True):
        outside = {"gateway": "203.0.113.1", "netmask": NETMASK, "startip": PUBLIC_START, "endip": PUBLIC_END}
        cloud.createVlanIpRange(zoneid=zone, forvirtualnetwork=True, vlan="untagged", **outside)


@dataclass(frozen=True, slots=True)
class Example:
    """What the example consists of, for people to try.

    :ivar guests: name → address in its pod; ``public`` name → its elastic address.
    """

    balancer: str
    guests: dict[str, str]
    public: dict[str, str]
    routers: tuple[str, ...]


def ensure_example(cloud: CloudStack, zone: str, pods: Sequence[PodSpec]) -> Example:
    """Make a guest in each pod, open port 80 and ping for everybody, and balance the guests behind one address."""
    network = cloud.listNetworks(zoneid=zone, type="Shared")["network"][0]["id"]
    numbers = {row["name"]: row["id"] for row in cloud.listPods(zoneid=zone)["pod"]}
    guests = {
        f"web-{place}": ensure_guest(cloud, zone, network, f"web-{place}", podid=numbers[pod.name])
        for place, pod in enumerate(pods, start=1)
    }
    _ensure_open(cloud)
    rule = _ensure_balancer(cloud, network, [guest["id"] for guest in guests.values()])
    routers = cloud.listRouters(zoneid=zone, listall=True)["router"]
    return Example(
        rule["publicip"],
        {name: guest["nic"][0]["ipaddress"] for name, guest in guests.items()},
        {name: guest["publicip"] for name, guest in guests.items()},
        tuple(router["name"] for router in routers),
    )


def _ensure_open(cloud: CloudStack) -> None:
    """Have the caller's default security group let port 80 and ping in, as far as it does not."""
    group = cloud.listSecurityGroups(securitygroupname="default")["securitygroup"][0]
    if not group.get("ingressrule"):
        wanted = (
            {"protocol": "TCP", "startport": 80, "endport": 80},
            {"protocol": "ICMP", "icmptype": -1, "icmpcode": -1},
        )
        for rule in wanted:
            cloud.authorizeSecurityGroupIngress(securitygroupid=group["id"], cidrlist="0.0.0.0/0", **rule, **NOW)


def _ensure_balancer(cloud: CloudStack, network: str, guests: Sequence[str]) -> dict[str, Any]:
    """Balance port 80; the first rule brings an appliance and a public address of its own along."""
    found = cloud.listLoadBalancerRules(networkid=network, name=BALANCER).get("loadbalancerrule")
    if found:
        rule: dict[str, Any] = found[0]
        return rule
    wanted = {"name": BALANCER, "algorithm": "roundrobin", "publicport": 80, "privateport": 80, "networkid": network}
    made: dict[str, Any] = cloud.createLoadBalancerRule(**wanted, **NOW)["loadbalancer"]
    cloud.assignToLoadBalancerRule(id=made["id"], virtualmachineids=",".join(guests), **NOW)
    return made
