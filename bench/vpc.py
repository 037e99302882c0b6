"""VPCs: twelve tiers from nothing, and a list of a thousand rules swapped for another."""

from __future__ import annotations

from itertools import count

from bench.cloud import Cloud
from bench.figures import Bar, Figure, timed, until

TIERS, RULES, TIMES, SWAPS, BATCH = 12, 1000, 3, 6, 100
SERVICES = "Dhcp,Dns,UserData,SourceNat,NetworkACL,PortForwarding,StaticNat"
_numbers = count(1)


def vpcs(cloud: Cloud) -> list[Figure]:
    """Make VPCs of twelve tiers, and swap the list of one of them."""
    caller, ready, swapped = cloud.caller, list[float](), list[float]()
    caller.call("updateConfiguration", name="vpc.max.networks", value=TIERS)
    for name in ("networks", "vpcs", "public.ips"):
        caller.call("updateConfiguration", name=f"max.account.{name}", value=-1)
    offering = caller.call(
        "createNetworkOffering", name="tier", guestiptype="Isolated", traffictype="Guest", supportedservices=SERVICES,
        forvpc=True, ispersistent=True, enable=True,
    )["networkoffering"]["id"]  # fmt: skip
    made = []
    for _ in range(TIMES):
        with timed(ready):
            made.append(_vpc(cloud, offering))
            until(lambda: _implemented(cloud, made[-1]), 60, 0.02)
    tier = caller.call("listNetworks", vpcid=made[0])["network"][0]["id"]
    lists = [_list(cloud, made[0], first) for first in (1000, 20_000)]
    for number in range(SWAPS):
        with timed(swapped):
            caller.job("replaceNetworkACLList", aclid=lists[number % 2], networkid=tier)
    for vpc in made:
        for network in caller.call("listNetworks", vpcid=vpc)["network"]:
            caller.job("deleteNetwork", id=network["id"])
        caller.job("deleteVPC", id=vpc)
    return [
        Figure(f"a VPC of {TIERS} tiers: createVPC → its router serves all", "ms", ready, [Bar("median", 3000)]),
        Figure(f"replaceNetworkACLList: {RULES} rules for {RULES} others", "ms", swapped, [Bar("worst", 1000)]),
    ]


def _vpc(cloud: Cloud, offering: str) -> str:
    given = {"name": f"vpc-{next(_numbers)}", "zoneid": cloud.zone, "cidr": "10.2.0.0/16"}
    chosen = cloud.caller.call("listVPCOfferings", name="Default VPC offering")["vpcoffering"][0]["id"]
    vpc = str(cloud.caller.job("createVPC", vpcofferingid=chosen, **given)["vpc"]["id"])
    for number in range(1, TIERS + 1):
        place = {"gateway": f"10.2.{number}.1", "netmask": "255.255.255.0", "zoneid": cloud.zone}
        cloud.caller.call("createNetwork", name=f"tier-{number}", vpcid=vpc, networkofferingid=offering, **place)
    return vpc


def _implemented(cloud: Cloud, vpc: str) -> bool:
    tiers = cloud.caller.call("listNetworks", vpcid=vpc)["network"]
    return all(tier["state"] == "Implemented" for tier in tiers)


def _list(cloud: Cloud, vpc: str, first: int) -> str:
    acl = cloud.caller.job("createNetworkACLList", vpcid=vpc, name=f"from {first}")["networkacllist"]["id"]
    for start in range(0, RULES, BATCH):
        rules: dict[str, object] = {}
        for index in range(BATCH):
            port = first + start + index
            rules |= {f"rules[{index}].protocol": "tcp", f"rules[{index}].startport": port}
            rules[f"rules[{index}].cidrlist"] = f"198.51.{port % 250}.0/24"
        cloud.caller.job("importNetworkACL", aclid=acl, **rules)
    return str(acl)
