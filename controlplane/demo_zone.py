"""The zone that ``netspine run`` makes: an ordinary API script, through an ordinary client, as an operator would.

Each function finds what is there by its name and makes only what is missing, so a second run finds the same cloud.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cs import CloudStack

ZONE, VPC, TEMPLATE = "zone-1", "example", "busybox"
CIDR = "10.1.0.0/16"
TIERS = {"web": ("10.1.1", ("web-1", "web-2")), "db": ("10.1.2", ("db-1",))}
"""The example's tiers: the beginning of their addresses, and their guests."""
PROVIDERS = ("VirtualRouter", "VpcVirtualRouter", "InternalLbVm", "ConfigDrive")
GATEWAY6, PUBLIC6, PREFIX6 = "2001:db8:ffff::1", "2001:db8:ffff::/64", "2001:db8:1000::/48"
VNIS, PUBLIC_START, PUBLIC_END = "5001-5999", "203.0.113.10", "203.0.113.250"
NOW = {"fetch_result": True}


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A host to be added: its name, and the token that its agent shows."""

    name: str
    token: str


def ensure(items: dict[str, Any], key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the one item of a list answer, or what ``make`` makes.

    :param key: the item's key in both answers.
    """
    found: list[dict[str, Any]] = items.get(key, [])
    if found:
        return found[0]
    made: Any = make()[key]
    item: dict[str, Any] = made[0] if isinstance(made, list) else made
    return item


def ensure_zone(cloud: CloudStack, hosts: list[HostSpec], template: Path) -> dict[str, Any]:
    """Make an advanced zone that isolates its guest networks by VXLAN, with its hosts and the guests' template."""
    zone = ensure(
        cloud.listZones(name=ZONE),
        "zone",
        lambda: cloud.createZone(
            name=ZONE,
            networktype="Advanced",
            dns1="203.0.113.1",
            internaldns1="203.0.113.1",
            guestcidraddress="10.1.1.0/24",
            localstorageenabled=True,
        ),
    )
    physical = ensure(
        cloud.listPhysicalNetworks(zoneid=zone["id"]),
        "physicalnetwork",
        lambda: cloud.createPhysicalNetwork(
            zoneid=zone["id"], name="physical-1", isolationmethods="VXLAN", vlan=VNIS, **NOW
        ),
    )
    ensure_services(cloud, physical["id"], PROVIDERS)
    pod = _ensure_pod(cloud, zone["id"])
    _ensure_addresses(cloud, zone["id"])
    ensure_hosts(cloud, pod, hosts)
    finish(cloud, zone, len(hosts), template)
    return zone


def finish(cloud: CloudStack, zone: dict[str, Any], hosts: int, template: Path) -> None:
    """Wait for the agents of so many hosts, register the guests' template, and enable the zone."""
    up = {"zoneid": zone["id"], "state": "Up", "type": "Routing"}
    wait_for(lambda: len(cloud.listHosts(**up).get("host", [])) >= hosts, "The agent of every host")
    _ensure_template(cloud, zone["id"], template)
    if zone["allocationstate"] != "Enabled":
        cloud.updateZone(id=zone["id"], allocationstate="Enabled")


def ensure_services(cloud: CloudStack, physical: str, providers: Iterable[str]) -> None:
    """Have a physical network carry all traffic, with these providers, and enable it."""
    present = {row["traffictype"] for row in cloud.listTrafficTypes(physicalnetworkid=physical).get("traffictype", [])}
    for traffic in ("Management", "Guest", "Public"):
        if traffic not in present:
            cloud.addTrafficType(physicalnetworkid=physical, traffictype=traffic, **NOW)
    for name in providers:
        _ensure_provider(cloud, physical, name)
    if cloud.listPhysicalNetworks(id=physical)["physicalnetwork"][0]["state"] != "Enabled":
        cloud.updatePhysicalNetwork(id=physical, state="Enabled", **NOW)


def _ensure_provider(cloud: CloudStack, physical: str, name: str) -> None:
    providers = cloud.listNetworkServiceProviders(physicalnetworkid=physical, name=name)
    provider = providers["networkserviceprovider"][0]
    if provider["state"] != "Enabled":
        for element in cloud.listVirtualRouterElements(nspid=provider["id"]).get("virtualrouterelement", []):
            cloud.configureVirtualRouterElement(id=element["id"], enabled=True, **NOW)
        cloud.updateNetworkServiceProvider(id=provider["id"], state="Enabled", **NOW)


def _ensure_pod(cloud: CloudStack, zone: str) -> dict[str, Any]:
    return ensure(
        cloud.listPods(zoneid=zone),
        "pod",
        lambda: cloud.createPod(
            zoneid=zone,
            name="pod-1",
            gateway="172.31.254.1",
            netmask="255.255.255.0",
            startip="172.31.254.10",
            endip="172.31.254.99",
        ),
    )


def _ensure_addresses(cloud: CloudStack, zone: str) -> None:
    if not cloud.listVlanIpRanges(zoneid=zone):
        cloud.createVlanIpRange(
            zoneid=zone,
            forvirtualnetwork=True,
            vlan="untagged",
            gateway="203.0.113.1",
            netmask="255.255.255.0",
            startip=PUBLIC_START,
            endip=PUBLIC_END,
            ip6gateway=GATEWAY6,
            ip6cidr=PUBLIC6,
        )
    if not cloud.listGuestNetworkIpv6Prefixes(zoneid=zone):
        cloud.createGuestNetworkIpv6Prefix(zoneid=zone, prefix=PREFIX6, **NOW)


def ensure_hosts(cloud: CloudStack, pod: dict[str, Any], hosts: Iterable[HostSpec]) -> None:
    """Have a cluster in the pod, with these hosts."""
    where = {"zoneid": pod["zoneid"], "podid": pod["id"]}
    named = {"clustername": f"cluster-{pod['name']}", "clustertype": "CloudManaged", "hypervisor": "LXC"}
    cluster = ensure(cloud.listClusters(podid=pod["id"]), "cluster", lambda: cloud.addCluster(**where, **named))
    where["clusterid"] = cluster["id"]
    for host in hosts:
        if not cloud.listHosts(name=host.name):
            cloud.addHost(url=f"http://{host.name}", username="agent", password=host.token, hypervisor="LXC", **where)


def wait_for(ready: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Ask until it is ready.

    :raises TimeoutError: it is not in this time.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} is not ready after {seconds:.0f} s: the logs say why.")
        time.sleep(0.1)


def _ensure_template(cloud: CloudStack, zone: str, template: Path) -> None:
    if cloud.listTemplates(templatefilter="all", name=TEMPLATE, zoneid=zone):
        return
    cloud.updateConfiguration(name="template.import.folder", value=str(template.parent.absolute()))
    os_types = cloud.listOsTypes(description="Other Linux (64-bit)")["ostype"]
    cloud.registerTemplate(
        name=TEMPLATE,
        displaytext="BusyBox, which answers HTTP on port 80 with its host name",
        format="TAR",
        hypervisor="LXC",
        ostypeid=os_types[0]["id"],
        url=template.absolute().as_uri(),
        zoneid=zone,
        ispublic=True,
        isfeatured=True,
        passwordenabled=True,
    )
    wait_for(lambda: cloud.listTemplates(templatefilter="all", name=TEMPLATE)["template"][0]["isready"], "The template")


@dataclass(frozen=True, slots=True)
class Example:
    """What the example consists of, for people to try: addresses by what they are for."""

    vpc: str
    balancer: str
    guests: dict[str, str]
    router: str


def ensure_example(cloud: CloudStack, zone: str) -> Example:
    """Make a VPC of two tiers: web, two guests behind a load balancer on port 80, and db, which only web reaches."""
    offering = cloud.listVPCOfferings(name="Default VPC offering")["vpcoffering"][0]
    made = {"name": VPC, "displaytext": "The example", "zoneid": zone, "vpcofferingid": offering["id"], "cidr": CIDR}
    vpc = ensure(cloud.listVPCs(name=VPC, zoneid=zone), "vpc", lambda: cloud.createVPC(**made, **NOW))
    guests: dict[str, dict[str, Any]] = {}
    tiers: dict[str, dict[str, Any]] = {}
    for name, (prefix, machines) in TIERS.items():
        tiers[name] = _ensure_tier(cloud, vpc, name, prefix)
        guests |= {machine: ensure_guest(cloud, zone, tiers[name]["id"], machine) for machine in machines}
    web = [guests[machine]["id"] for machine in TIERS["web"][1]]
    rule = _ensure_balancer(cloud, vpc, tiers["web"]["id"], web)
    routers = cloud.listRouters(vpcid=vpc["id"], listall=True)["router"]
    addresses = {name: guest["nic"][0]["ipaddress"] for name, guest in guests.items()}
    return Example(VPC, rule["publicip"], addresses, routers[0]["name"])


def _ensure_tier(cloud: CloudStack, vpc: dict[str, Any], name: str, prefix: str) -> dict[str, Any]:
    offerings = cloud.listNetworkOfferings(name="DefaultIsolatedNetworkOfferingForVpcNetworks")["networkoffering"]
    acl = _ensure_acl(cloud, vpc["id"], name)
    return ensure(
        cloud.listNetworks(vpcid=vpc["id"], keyword=name),
        "network",
        lambda: cloud.createNetwork(
            name=name,
            displaytext=f"The {name} tier",
            zoneid=vpc["zoneid"],
            vpcid=vpc["id"],
            aclid=acl["id"],
            networkofferingid=offerings[0]["id"],
            gateway=f"{prefix}.1",
            netmask="255.255.255.0",
        ),
    )


def _ensure_acl(cloud: CloudStack, vpc: str, tier: str) -> dict[str, Any]:
    """Make the tier's list: everybody may ping and open port 80 of web; only web may reach db."""
    found = ensure(
        cloud.listNetworkACLLists(vpcid=vpc, name=tier),
        "networkacllist",
        lambda: cloud.createNetworkACLList(vpcid=vpc, name=tier, description=f"Of the {tier} tier", **NOW),
    )
    if not cloud.listNetworkACLs(aclid=found["id"]):
        source = "0.0.0.0/0" if tier == "web" else f"{TIERS['web'][0]}.0/24"
        for rule in ({"protocol": "tcp", "startport": 80, "endport": 80}, {"protocol": "icmp"}):
            cloud.createNetworkACL(aclid=found["id"], traffictype="Ingress", cidrlist=source, **rule, **NOW)
    return found


def ensure_guest(cloud: CloudStack, zone: str, network: str, name: str, **more: Any) -> dict[str, Any]:
    """Have a small guest on the network."""
    template = cloud.listTemplates(templatefilter="all", name=TEMPLATE, zoneid=zone)["template"][0]
    offering = cloud.listServiceOfferings(name="Small Instance")["serviceoffering"][0]
    return ensure(
        cloud.listVirtualMachines(name=name, networkid=network),
        "virtualmachine",
        lambda: cloud.deployVirtualMachine(
            name=name,
            zoneid=zone,
            templateid=template["id"],
            serviceofferingid=offering["id"],
            networkids=network,
            **more,
            **NOW,
        ),
    )


def _ensure_balancer(cloud: CloudStack, vpc: dict[str, Any], network: str, guests: list[str]) -> dict[str, Any]:
    found = cloud.listLoadBalancerRules(networkid=network).get("loadbalancerrule")
    if found:
        rule: dict[str, Any] = found[0]
        return rule
    address = cloud.associateIpAddress(vpcid=vpc["id"], **NOW)["ipaddress"]
    made: dict[str, Any] = cloud.createLoadBalancerRule(
        publicipid=address["id"],
        networkid=network,
        name="web",
        algorithm="roundrobin",
        publicport=80,
        privateport=80,
        **NOW,
    )["loadbalancer"]
    cloud.assignToLoadBalancerRule(id=made["id"], virtualmachineids=",".join(guests), **NOW)
    return made
