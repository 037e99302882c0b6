"""IPv6 from the API to the packet: addresses that guests make, rules of both directions, names and metadata."""

from __future__ import annotations

import base64
import json
from ipaddress import IPv6Network

import pytest

from controlplane.demo_zone import NOW
from controlplane.network.addressing import own_address
from systemvm import netns
from tests.spine.wire import answering
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]
ALONE = ("Dhcp", "Dns", "Firewall", "UserData")
CLIENT, STRANGER = "2001:db8:c::1", "2001:db8:c::2"
SHORT = 0.4
SETTLED = 15.0
"""Seconds that a guest may take for its address: its kernel looks for duplicates first (RFC 4862, 5.4)."""


def routed(world: World, network):
    """Do what the operator does upstream: route the network's /64 as ``ip6routes`` says."""
    (route,) = network["ip6routes"]
    done = world.beside("internet", "ip", "-6", "route", "replace", route["subnet"], "via", route["gateway"])
    assert done.returncode == 0, done
    return network


def addressed(world: World, guest) -> str:
    """Wait until the guest has the address that the API shows; return it."""
    wanted = guest["nic"][0]["ip6address"]
    where = f"vm/{guest['name']}"

    def there() -> bool:
        shown = json.loads(world.beside(where, "ip", "-6", "-j", "addr", "show", "scope", "global").stdout)
        found = [one for link in shown for one in link.get("addr_info", ()) if one.get("local") == wanted]
        return bool(found) and not found[0].get("tentative")

    until(there, SETTLED)
    return wanted


def pings(world: World, where: str, address: str, *options: str) -> bool:
    done = world.beside(where, "busybox", "ping6", "-c1", "-W1", *options, address)
    return done.returncode == 0


@pytest.fixture(scope="module")
def six(world: World):
    """A network of IPv6 alone."""
    return routed(world, world.network(world.offering(internetprotocol="IPv6", services=ALONE)))


@pytest.fixture(scope="module")
def pair(world: World, six):
    guests = [world.guest(six["id"], hostid=world.host(number)) for number in (1, 2)]
    for guest in guests:
        addressed(world, guest)
    return guests


def test_guests_of_a_network_without_ipv4_are_there_know_each_other_and_nothing_comes_in(world: World, six, pair):
    first, second = pair
    where = f"vm/{first['name']}"
    assert "ipaddress" not in first["nic"][0]
    assert "inet " not in world.run(where, "ip", "-4", "addr", "show", "dev", "eth0").stdout
    assert pings(world, where, second["nic"][0]["ip6address"]), "over the VXLAN, from host to host"
    assert pings(world, where, six["ip6gateway"])
    assert not world.ask(first["nic"][0]["ip6address"], 80, seconds=SHORT)
    assert not pings(world, "internet", first["nic"][0]["ip6address"])


def test_a_rule_opens_a_port_for_its_sources_and_closes_it_again(world: World, six, pair):
    first, second = (guest["nic"][0]["ip6address"] for guest in pair)
    made = {"networkid": six["id"], "protocol": "tcp", "startport": 80}
    ends = {"cidrlist": f"{CLIENT}/128", "destcidrlist": f"{first}/128"}
    rule = world.api.createIpv6FirewallRule(**made, **ends, **NOW)["firewallrule"]
    url = f"http://[{first}]/"
    assert world.curl(url, "--interface", CLIENT) == pair[0]["name"]
    assert not world.ask(first, 80, source=STRANGER, seconds=SHORT)
    assert not world.ask(second, 80, source=CLIENT, seconds=SHORT)
    assert not world.ask(first, 22, source=CLIENT, seconds=SHORT)
    world.api.updateIpv6FirewallRule(id=rule["id"], cidrlist=f"{STRANGER}/128", **NOW)
    assert not world.ask(first, 80, source=CLIENT, seconds=SHORT)
    assert world.curl(url, "--interface", STRANGER) == pair[0]["name"]
    world.api.deleteIpv6FirewallRule(id=rule["id"], **NOW)
    assert not world.ask(first, 80, source=STRANGER, seconds=SHORT)


def test_icmpv6_passes_where_a_rule_says_so(world: World, six, pair):
    address = pair[0]["nic"][0]["ip6address"]
    made = {"networkid": six["id"], "protocol": "icmp", "icmptype": 128, "icmpcode": 0}
    rule = world.api.createIpv6FirewallRule(**made, cidrlist=f"{CLIENT}/128", **NOW)["firewallrule"]
    assert pings(world, "internet", address, "-I", CLIENT)
    assert not pings(world, "internet", address, "-I", STRANGER)
    world.api.deleteIpv6FirewallRule(id=rule["id"], **NOW)
    assert not pings(world, "internet", address, "-I", CLIENT)


def test_nothing_leaves_by_default_but_what_a_rule_names(world: World, six, pair):
    where, other = (f"vm/{guest['name']}" for guest in pair)
    address = pair[0]["nic"][0]["ip6address"]
    with answering(world.space("internet"), tcp=(4061, 4062), v6=True):
        assert not world.ask(CLIENT, 4061, where=where, seconds=SHORT)
        made = {"networkid": six["id"], "protocol": "tcp", "startport": 4061, "traffictype": "Egress"}
        ends = {"cidrlist": f"{address}/128", "destcidrlist": f"{CLIENT}/128"}
        rule = world.api.createIpv6FirewallRule(**made, **ends, **NOW)["firewallrule"]
        assert world.ask(CLIENT, 4061, where=where) == f"4061 {address}", "with its own address"
        assert not world.ask(CLIENT, 4062, where=where, seconds=SHORT)
        assert not world.ask(STRANGER, 4061, where=where, seconds=SHORT)
        assert not world.ask(CLIENT, 4061, where=other, seconds=SHORT)
        world.api.deleteIpv6FirewallRule(id=rule["id"], **NOW)
        assert not world.ask(CLIENT, 4061, where=where, seconds=SHORT)


def test_user_data_and_names_reach_a_guest_without_ipv4(world: World, six, pair):
    script = "#!/bin/sh\necho seen >/www/told\n"
    guest = world.guest(six["id"], userdata=base64.b64encode(script.encode()).decode())
    where = f"vm/{guest['name']}"
    address = addressed(world, guest)
    until(lambda: world.run(where, "cat", "/www/told").stdout.strip() == "seen", SETTLED)
    assert guest["password"]
    until(lambda: "$6$" in world.run(where, "cat", "/etc/shadow").stdout)
    name = f"{pair[0]['name']}.{six['networkdomain']}"
    assert pair[0]["nic"][0]["ip6address"] in world.run(where, "nslookup", name).stdout
    url = f"http://[fe80::a9fe:a9fe%{_index(world, where)}]/latest/meta-data/ipv6"
    assert world.beside(where, "curl", "-gs", "-m", "2", url).stdout.strip() == address


def _index(world: World, where: str) -> int:
    (link,) = json.loads(world.beside(where, "ip", "-j", "link", "show", "dev", "eth0").stdout)
    return link["ifindex"]


def _made_of(prefix: str, mac: str) -> str:
    return own_address(IPv6Network(prefix), mac)


def test_dhcpv6_gives_the_address_that_was_asked_for(world: World, six, tmp_path):
    asked = six["ip6cidr"].replace("::/64", "::77")
    guest = world.guest(six["id"], ip6address=asked)
    assert guest["nic"][0]["ip6address"] == asked
    space = world.space(f"vm/{guest['name']}")
    own = guest["nic"][0] | {"ip6address": _made_of(six["ip6cidr"], guest["nic"][0]["macaddress"])}
    addressed(world, guest | {"nic": [own]})  # its link is settled, as the client's own script would wait for
    leases, script = tmp_path / "leases", tmp_path / "script"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    words = ["dhclient", "-6", "-1", "-d", "-D", "LL", "-lf", str(leases), "-sf", str(script)]
    process = netns.popen(space, [*words, "-pf", str(tmp_path / "pid"), "eth0"], stdout=-3, stderr=-3)
    try:
        until(lambda: leases.exists() and asked in leases.read_text(), SETTLED)
    finally:
        process.kill()
        process.wait()


def test_a_guest_of_a_dual_stack_network_has_both_and_keeps_both_when_its_router_is_replaced(world: World):
    net = routed(world, world.network(world.offering(internetprotocol="DualStack", egressdefaultpolicy=True)))
    guest = world.guest(net["id"])
    where, address = f"vm/{guest['name']}", addressed(world, guest)
    four = guest["nic"][0]["ipaddress"]
    until(lambda: four in world.run(where, "ip", "-4", "addr", "show", "dev", "eth0").stdout)
    world.api.createIpv6FirewallRule(networkid=net["id"], protocol="tcp", startport=80, **NOW)
    ip = world.address(net["id"])
    world.forward(ip, guest, 80, 80)
    for _ in range(2):
        with answering(world.space("internet"), tcp=(4063,), v6=True), answering(world.space("internet"), tcp=(4064,)):
            until(lambda: world.ask(CLIENT, 4063, where=where) == f"4063 {address}")
            assert until(lambda: world.ask("198.51.100.1", 4064, where=where)).startswith("4064 203.0.113.")
        assert until(lambda: world.curl(f"http://[{address}]/")) == guest["name"]
        assert world.curl(f"http://{ip['ipaddress']}/") == guest["name"]
        before = world.router(net["id"])["id"]
        world.api.restartNetwork(id=net["id"], cleanup=True, **NOW)
        assert world.router(net["id"])["id"] != before


TIER = "Dhcp,Dns,UserData,SourceNat,NetworkACL,PortForwarding,StaticNat"


@pytest.fixture(scope="module")
def shop(world: World):
    """A dual-stack VPC with a web tier that the internet may reach, and a db tier that only the web tier may."""
    physical = world.api.listPhysicalNetworks(zoneid=world.zone)["physicalnetwork"][0]["id"]
    found = world.api.listNetworkServiceProviders(physicalnetworkid=physical, name="VpcVirtualRouter")
    if found["networkserviceprovider"][0]["state"] != "Enabled":
        given = found["networkserviceprovider"][0]["id"]
        element = world.api.listVirtualRouterElements(nspid=given)["virtualrouterelement"][0]["id"]
        world.api.configureVirtualRouterElement(id=element, enabled=True, **NOW)
        world.api.updateNetworkServiceProvider(id=given, state="Enabled", **NOW)
    whole = world.api.createVPCOffering(name="dual", displaytext="dual", internetprotocol="DualStack", **NOW)
    whole = whole["vpcoffering"]["id"]
    world.api.updateVPCOffering(id=whole, state="Enabled", **NOW)
    providers = [{"service": service, "provider": "VpcVirtualRouter"} for service in TIER.split(",")]
    part = world.api.createNetworkOffering(
        name="dual tier", displaytext="dual tier", guestiptype="Isolated", traffictype="Guest", forvpc=True,
        internetprotocol="DualStack", supportedservices=TIER, serviceproviderlist=providers, enable=True,
    )["networkoffering"]["id"]  # fmt: skip
    vpc = world.api.createVPC(
        name="shop", displaytext="shop", cidr="10.7.0.0/16", zoneid=world.zone, vpcofferingid=whole, **NOW
    )["vpc"]["id"]
    tiers, lists = [], []
    for number, name in enumerate(("web", "db"), start=1):
        acl = world.api.createNetworkACLList(name=name, vpcid=vpc, **NOW)["networkacllist"]["id"]
        where = {"gateway": f"10.7.{number}.1", "netmask": "255.255.255.0", "vpcid": vpc, "aclid": acl}
        tier = world.api.createNetwork(name=name, zoneid=world.zone, networkofferingid=part, **where)["network"]
        tiers.append(routed(world, tier))
        lists.append(acl)
    sources = (f"{CLIENT}/128", tiers[0]["ip6cidr"])
    for acl, source in zip(lists, sources, strict=True):
        item = {"aclid": acl, "protocol": "tcp", "startport": 80, "endport": 80, "number": 1, "cidrlist": source}
        world.api.createNetworkACL(**item, **NOW)
    return tiers, lists


def test_the_tiers_of_a_vpc_follow_their_lists_over_ipv6(world: World, shop):
    (web, db), lists = shop
    front, back = world.guest(web["id"]), world.guest(db["id"])
    first, second = addressed(world, front), addressed(world, back)
    assert world.curl(f"http://[{first}]/", "--interface", CLIENT) == front["name"]
    assert not world.ask(first, 80, source=STRANGER, seconds=SHORT)
    assert not world.ask(second, 80, source=CLIENT, seconds=SHORT)
    where = f"vm/{front['name']}"
    assert world.beside(where, "curl", "-gs", "-m", "2", f"http://[{second}]/").stdout.strip() == back["name"]
    assert not world.ask(first, 80, where=f"vm/{back['name']}", seconds=SHORT)
    item = {"aclid": lists[1], "protocol": "icmp", "icmptype": 128, "icmpcode": 0, "number": 2}
    assert not pings(world, where, second)
    world.api.createNetworkACL(**item, cidrlist="::/0", **NOW)
    assert pings(world, where, second)
    assert pings(world, "internet", second, "-I", STRANGER)
