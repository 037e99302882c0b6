"""A basic zone made from nothing: two pods, two accounts on one flat network, security groups, elastic addresses."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from controlplane import demo_basic, run
from controlplane.demo_zone import NOW
from controlplane.settings import Settings
from systemvm.fabric import Fabric, Flat
from tests.serving import free_port
from tests.spine.test_tenant import account
from tests.spine.wire import answering
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]
SOON, MOVED = 1.0, 2.0
"""Seconds in which a group's rule is in the packets, and in which a public address moves."""
STRANGER = "198.51.100.1"


@pytest.fixture(scope="module")
def basic() -> Iterator[World]:
    """A cloud of its own, with three hosts in two pods."""
    hosts = ("host-1", "host-2", "host-3")
    pods = (Flat("10.11.0.1/24", hosts[:2]), Flat("10.12.0.1/24", hosts[2:]))
    fabric = Fabric(f"tb{os.getpid()}-", hosts, pods=pods)
    with TemporaryDirectory(prefix="netspine-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the control plane has dropped root when it opens its own folder below
        place = run.Place(folder)
        with run.standing(Settings(port=free_port()), place, fabric) as cloud:
            zone = demo_basic.ensure_zone(cloud.client, run.pods_of(cloud), place.template)
            again = demo_basic.ensure_zone(cloud.client, run.pods_of(cloud), place.template)
            assert again["id"] == zone["id"], "a second run of the script finds the same"
            for resource in ("cpu", "mem"):
                cloud.client.updateConfiguration(name=f"{resource}.overprovisioning.factor", value="10")
            yield World(cloud, zone["id"])


class Tenant(NamedTuple):
    own: World
    guests: list[Any]

    def allow(self, **rule: Any) -> str:
        group = self.own.api.listSecurityGroups(securitygroupname="default")["securitygroup"][0]["id"]
        made = self.own.api.authorizeSecurityGroupIngress(securitygroupid=group, **rule, **NOW)["securitygroup"]
        return str(made["ingressrule"][-1]["ruleid"])


def guest(own: World, host: int, root: World, **options: Any) -> Any:
    """A guest on a host, with no network named; the operator puts it there for the account."""
    template = own.api.listTemplates(templatefilter="executable", zoneid=own.zone)["template"][0]["id"]
    size = own.api.listServiceOfferings(name="Small Instance")["serviceoffering"][0]["id"]
    name = own.api.listAccounts()["account"][0]["name"]
    domain = own.api.listAccounts()["account"][0]["domainid"]
    where = {"zoneid": own.zone, "templateid": template, "serviceofferingid": size, "hostid": root.host(host)}
    said = {"account": name, "domainid": domain, "name": f"{name}-{host}"} | options
    return root.api.deployVirtualMachine(**where, **said, **NOW)["virtualmachine"]


@pytest.fixture(scope="module")
def alice(basic: World) -> Tenant:
    own = account(basic, "alice")
    return Tenant(own, [guest(own, host, basic) for host in (1, 3)])


@pytest.fixture(scope="module")
def bob(basic: World) -> Tenant:
    own = account(basic, "bob")
    return Tenant(own, [guest(own, host, basic) for host in (2,)])


def inner(guest: Any) -> str:
    return str(guest["nic"][0]["ipaddress"])


def reaches(world: World, where: str, address: str) -> bool:
    """Tell whether port 80 of an address answers there, by the machine's own curl in the place's namespace."""
    return bool(world.beside(where, "curl", "-s", "-m", "1", f"http://{address}/").stdout)


def test_guests_of_two_accounts_share_the_flat_network_of_their_pod(basic: World, alice: Tenant, bob: Tenant):
    near, far = alice.guests
    (theirs,) = bob.guests
    assert near["nic"][0]["networkid"] == theirs["nic"][0]["networkid"] == far["nic"][0]["networkid"]
    assert inner(near).rpartition(".")[0] == inner(theirs).rpartition(".")[0] == "10.11.0"
    assert inner(far).startswith("10.12.0.")
    assert [group["name"] for group in near["securitygroup"]] == ["default"]
    routers = basic.api.listRouters(zoneid=basic.zone, listall=True)["router"]
    assert {router["guestipaddress"].rpartition(".")[0] for router in routers} == {"10.11.0", "10.12.0"}
    for one in (near, far):
        said = basic.run(f"vm/{one['name']}", "ip", "-4", "route").stdout
        assert f"src {inner(one)}" in said or inner(one) in basic.run(f"vm/{one['name']}", "ip", "addr").stdout


def test_nothing_comes_in_until_a_rule_says_so_and_then_within_a_second(basic: World, alice: Tenant, bob: Tenant):
    near, far = alice.guests
    (theirs,) = bob.guests
    for source, target in ((theirs, near), (near, theirs), (theirs, far), (near, far)):
        assert not reaches(basic, f"vm/{source['name']}", inner(target))
    began = time.monotonic()
    alice.allow(protocol="TCP", startport=80, endport=80, cidrlist=f"{inner(theirs)}/32")
    until(lambda: reaches(basic, f"vm/{theirs['name']}", inner(near)), SOON)
    print(f"an ingress rule is in the packets after {time.monotonic() - began:.3f} s")
    assert reaches(basic, f"vm/{theirs['name']}", inner(far)), "between pods it is known by its own address"
    assert not reaches(basic, f"vm/{near['name']}", inner(far)), "the rule names another"
    assert not reaches(basic, f"vm/{near['name']}", inner(theirs))


def test_every_guest_has_a_public_address_both_ways(basic: World, alice: Tenant):
    alice.allow(protocol="TCP", startport=80, endport=80, cidrlist="198.51.100.0/24")
    for one in alice.guests:
        until(lambda one=one: basic.curl(f"http://{one['publicip']}/", "--interface", STRANGER) == one["name"])
        with answering(basic.space("internet"), tcp=(4000,)):
            assert basic.ask(STRANGER, 4000, where=f"vm/{one['name']}") == f"4000 {one['publicip']}"


def test_another_address_takes_its_place_within_two_seconds(basic: World, alice: Tenant):
    one, other = alice.guests
    own = alice.own
    ip = own.api.associateIpAddress(zoneid=own.zone, **NOW)["ipaddress"]
    assert not reaches(basic, "internet", ip["ipaddress"])
    for target in (one, other, one):
        began = time.monotonic()
        own.api.enableStaticNat(ipaddressid=ip["id"], virtualmachineid=target["id"])
        url = f"http://{ip['ipaddress']}/"
        asked = ("-m", "0.3", "--interface", STRANGER)
        until(lambda url=url, target=target, asked=asked: basic.curl(url, *asked) == target["name"], MOVED)
        print(f"an address moved after {time.monotonic() - began:.3f} s")
        with answering(basic.space("internet"), tcp=(4001,)):
            assert basic.ask(STRANGER, 4001, where=f"vm/{target['name']}") == f"4001 {ip['ipaddress']}"
        own.api.disableStaticNat(ipaddressid=ip["id"], **NOW)
        seen = own.api.listVirtualMachines(id=target["id"])["virtualmachine"][0]["publicip"]
        assert seen != ip["ipaddress"]
        until(lambda seen=seen, target=target: basic.curl(f"http://{seen}/", "--interface", STRANGER) == target["name"])
    own.api.disassociateIpAddress(id=ip["id"], **NOW)


def test_the_first_rule_brings_a_load_balancer_along_and_the_last_takes_it_away(basic: World, alice: Tenant):
    own, network = alice.own, alice.guests[0]["nic"][0]["networkid"]
    rules = {"algorithm": "roundrobin", "privateport": 80, "networkid": network}
    made = own.api.createLoadBalancerRule(name="web", publicport=80, **rules, **NOW)["loadbalancer"]
    machines = ",".join(one["id"] for one in alice.guests)
    own.api.assignToLoadBalancerRule(id=made["id"], virtualmachineids=machines, **NOW)
    (appliance,) = [
        row for row in basic.api.listRouters(zoneid=basic.zone, listall=True)["router"] if row["role"] == "LB"
    ]
    assert (appliance["account"], appliance["state"]) == ("alice", "Running")
    url = f"http://{made['publicip']}/"
    assert basic.curl(url) == "", "the members' groups do not let the appliance in yet"
    alice.allow(protocol="TCP", startport=80, endport=80, cidrlist=f"{appliance['guestipaddress']}/32")
    names = {one["name"] for one in alice.guests}
    answered: set[str] = set()
    until(lambda: names <= (answered.add(basic.curl(url)) or answered), 15)
    second = own.api.createLoadBalancerRule(
        name="more", publicport=8080, publicipid=made["publicipid"], **rules, **NOW
    )["loadbalancer"]
    own.api.assignToLoadBalancerRule(id=second["id"], virtualmachineids=machines, **NOW)
    until(lambda: basic.curl(f"http://{made['publicip']}:8080/") in names, 15)
    own.api.deleteLoadBalancerRule(id=made["id"], **NOW)
    assert basic.curl(f"http://{made['publicip']}:8080/") in names
    own.api.deleteLoadBalancerRule(id=second["id"], **NOW)
    until(lambda: not [space for space in basic.kernel() if space.endswith(appliance["name"])])
    seen = basic.api.listPublicIpAddresses(ipaddress=made["publicip"], allocatedonly=False)["publicipaddress"][0]
    until(
        lambda: (
            basic.api.listPublicIpAddresses(id=seen["id"], allocatedonly=False)["publicipaddress"][0]["state"] == "Free"
        ),
        35,
    )
    assert not [row for row in basic.api.listRouters(zoneid=basic.zone, listall=True)["router"] if row["role"] == "LB"]


def test_the_scripts_example_answers_and_a_second_run_finds_it(basic: World):
    pods = run.pods_of(basic.cloud)
    made = demo_basic.ensure_example(basic.api, basic.zone, pods)
    assert demo_basic.ensure_example(basic.api, basic.zone, pods) == made
    for name, address in made.public.items():
        until(lambda name=name, address=address: basic.curl(f"http://{address}/") == name)
    until(lambda: basic.curl(f"http://{made.balancer}/") in made.public, 15)
    assert set(made.guests) == {"web-1", "web-2"}
