"""Security groups, seen by real packets between guests on two hosts: by CIDR, by group, in, out, and while they run."""

from __future__ import annotations

import signal
import time

import pytest

from controlplane import run
from controlplane.demo_zone import NOW
from tests.spine.wire import answering
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]
SHORT = 0.4
GUARDED = "DefaultSharedNetworkOfferingWithSGService"
AT_ONCE = 1.0
"""Seconds within which a change is to be in every kernel."""


def port(guest) -> str:
    """Where a guest is."""
    return f"vm/{guest['name']}"


def address(guest, number: int = 0) -> str:
    """A guest's address."""
    return guest["nic"][number]["ipaddress"]


class Groups:
    """What the tests do again and again."""

    def __init__(self, world: World) -> None:
        self.world, self.api = world, world.api

    def make(self, name: str) -> str:
        """Make a group; its id."""
        return self.api.createSecurityGroup(name=name)["securitygroup"]["id"]

    def allow(self, group: str, way: str = "Ingress", **rule) -> str:
        """Make one rule; its id. The job has ended: every host has it."""
        command = getattr(self.api, f"authorizeSecurityGroup{way}")
        made = command(securitygroupid=group, **rule, **NOW)["securitygroup"]
        (found,) = made[f"{way.lower()}rule"]
        return found["ruleid"]

    def revoke(self, rule: str, way: str = "Ingress") -> None:
        """Take a rule back."""
        getattr(self.api, f"revokeSecurityGroup{way}")(id=rule, **NOW)

    def put(self, guest, *groups: str) -> None:
        """Change a running guest's groups."""
        self.api.updateVirtualMachine(id=guest["id"], securitygroupids=",".join(groups))

    def named(self, name: str, account: str = "admin") -> dict[str, list[dict[str, str]]]:
        """The parameter that names a group."""
        return {"usersecuritygrouplist": [{"account": account, "group": name}]}

    def reaches(self, here, there, number: int, **options) -> bool:
        """Whether a guest is answered by another."""
        where = options.pop("to", None) or address(there)
        return bool(self.world.ask(where, number, where=port(here), seconds=SHORT, **options))


@pytest.fixture(scope="module")
def groups(world: World):
    return Groups(world)


@pytest.fixture(scope="module")
def guarded(world: World):
    """Two guarded networks, the first with IPv6."""
    physical = world.api.listPhysicalNetworks(zoneid=world.zone)["physicalnetwork"][0]["id"]
    name = "SecurityGroupProvider"
    if not world.api.listNetworkServiceProviders(physicalnetworkid=physical, name=name):
        world.api.addNetworkServiceProvider(physicalnetworkid=physical, name=name, **NOW)
    provider = world.api.listNetworkServiceProviders(physicalnetworkid=physical, name=name)["networkserviceprovider"][0]
    world.api.updateNetworkServiceProvider(id=provider["id"], state="Enabled", **NOW)
    v6 = {"ip6gateway": "2001:db8:70::1", "ip6cidr": "2001:db8:70::/64"}
    made = [
        world.network(
            GUARDED, vlan=vlan, gateway=f"{block}.1", netmask="255.255.255.0", startip=f"{block}.10",
            endip=f"{block}.60", **more,
        )
        for vlan, block, more in (("7701", "10.70.1", v6), ("7702", "10.70.2", {}))
    ]  # fmt: skip
    yield [net["id"] for net in made]
    for net in made:
        world.api.deleteNetwork(id=net["id"], **NOW)


@pytest.fixture(scope="module")
def pair(world: World, guarded):
    """A guest on each host, in the default group."""
    made = [world.guest(guarded[0], hostid=world.host(number)) for number in (1, 2)]
    yield made
    for guest in made:
        world.api.destroyVirtualMachine(id=guest["id"], expunge=True, **NOW)


@pytest.fixture
def group(groups, request, pair):
    """A group of the test's own that the second guest is in, and no other; afterwards it is in the default one."""
    name = f"g-{request.node.name[:40]}"
    made = groups.make(name)
    groups.put(pair[1], made)
    yield made, name
    default = groups.api.listSecurityGroups(securitygroupname="default")["securitygroup"][0]["id"]
    for guest in pair:
        groups.put(guest, default)
    groups.api.deleteSecurityGroup(id=made)


def test_nothing_comes_in_until_a_rule_lets_it_and_no_more_when_it_is_revoked(world: World, groups, pair, group):
    here, there = pair
    with answering(world.space(port(there)), tcp=(5000, 5001), udp=(5000,)):
        assert not groups.reaches(here, there, 5000)
        assert not world.pings(port(here), address(there))
        begun = time.monotonic()
        rule = groups.allow(group[0], protocol="tcp", startport=5000, endport=5000, cidrlist=f"{address(here)}/32")
        assert time.monotonic() - begun < 2 * AT_ONCE, "the job, polls of its client included"
        assert groups.reaches(here, there, 5000)
        assert not groups.reaches(here, there, 5001)
        assert not groups.reaches(here, there, 5000, udp=True)
        assert not world.pings(port(here), address(there))
        ping = groups.allow(group[0], protocol="icmp", icmptype=-1, icmpcode=-1, cidrlist="10.70.1.0/24")
        assert world.pings(port(here), address(there))
        groups.revoke(rule)
        assert not groups.reaches(here, there, 5000)
        groups.revoke(ping)
        assert not world.pings(port(here), address(there))


def test_a_rule_for_others_lets_nobody_else_in(world: World, groups, pair, group):
    here, there = pair
    with answering(world.space(port(there)), tcp=(5002,), udp=(5002,)):
        groups.allow(group[0], protocol="all", cidrlist="10.70.1.200/29")
        assert not groups.reaches(here, there, 5002)
        groups.allow(group[0], protocol="udp", startport=5002, cidrlist="0.0.0.0/0")
        assert groups.reaches(here, there, 5002, udp=True)
        assert not groups.reaches(here, there, 5002)


def test_a_rule_by_group_follows_its_members_within_a_second(world: World, groups, pair, group):
    here, there = pair
    clients = groups.make("clients")
    rule = groups.allow(group[0], protocol="tcp", startport=5003, **groups.named("clients"))
    default = groups.api.listSecurityGroups(securitygroupname="default")["securitygroup"][0]["id"]
    with answering(world.space(port(there)), tcp=(5003,)):
        assert not groups.reaches(here, there, 5003)
        for put, wanted in ((clients, True), (default, False), (clients, True)):
            begun = time.monotonic()
            groups.put(here, put)
            until(lambda wanted=wanted: groups.reaches(here, there, 5003) == wanted, seconds=3)
            assert time.monotonic() - begun < AT_ONCE + SHORT, "the last try may have begun a moment before"
        more = groups.api.addIpToNic(nicid=here["nic"][0]["id"], **NOW)["nicsecondaryip"]
        world.beside(port(here), "ip", "addr", "add", f"{more['ipaddress']}/24", "dev", "eth0")
        assert until(lambda: groups.reaches(here, there, 5003, source=more["ipaddress"]), seconds=2)
        groups.api.removeIpFromNic(id=more["id"], **NOW)
        assert not groups.reaches(here, there, 5003, source=more["ipaddress"])
        world.beside(port(here), "ip", "addr", "del", f"{more['ipaddress']}/24", "dev", "eth0")
        assert "group" in world.refused("deleteSecurityGroup", id=clients)
    groups.revoke(rule)
    groups.put(here, default)
    groups.api.deleteSecurityGroup(id=clients)


def test_a_running_guest_changes_its_groups_within_a_second(world: World, groups, pair, group):
    here, there = pair
    other = groups.make("other")
    groups.allow(other, protocol="tcp", startport=5004, cidrlist="10.70.1.0/24")
    with answering(world.space(port(there)), tcp=(5004,)):
        for put, wanted in (((group[0], other), True), ((group[0],), False), ((other,), True)):
            begun = time.monotonic()
            groups.put(there, *put)
            until(lambda wanted=wanted: groups.reaches(here, there, 5004) == wanted, seconds=3)
            assert time.monotonic() - begun < AT_ONCE + SHORT
    groups.put(there, group[0])
    groups.api.deleteSecurityGroup(id=other)


def test_with_an_egress_rule_nothing_else_leaves(world: World, groups, pair, group):
    here, there = pair
    default = groups.api.listSecurityGroups(securitygroupname="default")["securitygroup"][0]["id"]
    groups.put(here, group[0], default)
    opened = groups.allow(group[0], protocol="all", cidrlist="0.0.0.0/0")
    with answering(world.space(port(here)), tcp=(5005, 5006)):
        assert groups.reaches(there, here, 5005)
        rule = groups.allow(group[0], "Egress", protocol="tcp", startport=5005, cidrlist=f"{address(here)}/32")
        assert groups.reaches(there, here, 5005)
        assert not groups.reaches(there, here, 5006)
        groups.revoke(rule, "Egress")
        assert groups.reaches(there, here, 5006)
    groups.revoke(opened)


def test_names_and_leases_are_had_whatever_the_egress_rules_say(world: World, groups, pair, group):
    rule = groups.allow(group[0], "Egress", protocol="tcp", startport=1, endport=1, cidrlist="192.0.2.1/32")
    guest = pair[1]
    server = world.router(guest["nic"][0]["networkid"])["nic"][0]["ipaddress"]
    found = until(lambda: world.run(port(guest), "nslookup", pair[0]["name"], server).stdout, seconds=5)
    assert address(pair[0]) in found
    groups.revoke(rule, "Egress")


def test_ipv6_is_guarded_like_ipv4(world: World, groups, pair, group):
    here, there = pair
    to = there["nic"][0]["ip6address"]
    until(lambda: world.beside(port(there), "ip", "-6", "addr", "show", "to", f"{to}/128").stdout, seconds=30)
    mine = here["nic"][0]["ip6address"]
    until(lambda: world.beside(port(here), "ip", "-6", "addr", "show", "to", f"{mine}/128").stdout, seconds=30)
    with answering(world.space(port(there)), tcp=(5007,), v6=True):
        assert not groups.reaches(here, there, 5007, to=to)
        rule = groups.allow(group[0], protocol="tcp", startport=5007, cidrlist="2001:db8:70::/64")
        assert groups.reaches(here, there, 5007, to=to)
        groups.revoke(rule)
        assert not groups.reaches(here, there, 5007, to=to)
        clients = groups.allow(group[0], protocol="tcp", startport=5007, **groups.named("default"))
        assert until(lambda: groups.reaches(here, there, 5007, to=to), seconds=2)
        groups.revoke(clients)


def test_a_machine_with_two_guarded_nics_is_guarded_on_both(world: World, groups, guarded, pair, group):
    two = world.guest(f"{guarded[0]},{guarded[1]}", hostid=world.host(2), securitygroupids=group[0])
    near = world.guest(guarded[1], hostid=world.host(1))
    both = groups.allow(group[0], protocol="tcp", startport=5008, **groups.named("default"))
    with answering(world.space(port(two)), tcp=(5008, 5009)):
        assert until(lambda: groups.reaches(pair[0], two, 5008), seconds=10), "its interfaces have their leases"
        assert until(lambda: groups.reaches(near, two, 5008, to=address(two, 1)), seconds=10)
        groups.revoke(both)
        assert not groups.reaches(pair[0], two, 5008)
        assert not groups.reaches(near, two, 5008, to=address(two, 1))
        rule = groups.allow(group[0], protocol="tcp", startport=5009, cidrlist=f"{address(near)}/32")
        assert groups.reaches(near, two, 5009, to=address(two, 1))
        assert not groups.reaches(near, two, 5008, to=address(two, 1))
        assert not groups.reaches(pair[0], two, 5009)
    groups.revoke(rule)
    for guest in (two, near):
        world.api.destroyVirtualMachine(id=guest["id"], expunge=True, **NOW)


def test_a_host_agent_that_starts_again_keeps_the_rules(world: World, groups, pair, group):
    here, there = pair
    rule = groups.allow(group[0], protocol="tcp", startport=5010, cidrlist=f"{address(here)}/32")
    with answering(world.space(port(there)), tcp=(5010, 5011)):
        assert groups.reaches(here, there, 5010)
        agent = world.cloud.processes[2]
        agent.send_signal(signal.SIGKILL)
        agent.wait(10)
        assert groups.reaches(here, there, 5010)
        assert not groups.reaches(here, there, 5011)
        run.start_again(world.cloud, 2)
        assert groups.reaches(here, there, 5010)
        assert not groups.reaches(here, there, 5011)
        closed = groups.allow(group[0], protocol="tcp", startport=5011, cidrlist=f"{address(here)}/32")
        assert groups.reaches(here, there, 5011), "and it goes on"
        groups.revoke(closed)
    groups.revoke(rule)
