"""IPv6: a zone's prefixes, networks with a /64 of them, what their guests get, and rules."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest
from sqlalchemy import select

from controlplane.errors import BadParameter, InUse, NoAddress, RuleConflict, Unsupported
from controlplane.network.facts import router_facts
from controlplane.network.ipv6 import RouterAddress6
from controlplane.network.ipv6_firewall import Ipv6FirewallRule
from controlplane.network.ipv6_prefixes import Ipv6Subnet
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.reconcile.targets import Target
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType
from controlplane.zone.providers import NetworkServiceProvider
from drivers.vocabulary import Ipv6Rule
from tests.api.compute_world import world
from tests.api.counting import queries

ALONE = "Dhcp,Dns,Firewall,UserData"
DUAL = f"{ALONE},SourceNat,StaticNat,PortForwarding,Lb"
MAC = "02:00:00:00:00:2a"


@pytest.fixture
def there(cloud):
    with world(cloud, hosts=1) as made:
        with cloud.database.write() as session:
            physical = session.scalars(select(PhysicalNetwork)).one()
            physical.traffic_types += [TrafficType(traffic="Guest"), TrafficType(traffic="Public")]
            physical.state = "Enabled"
            provider = NetworkServiceProvider(physical_network_id=physical.id, name="VirtualRouter", state="Enabled")
            session.add(provider)
        made.admin = cloud
        yield made


def prefix(there, text="2001:db8:1000::/62"):
    return there.job(there.admin("createGuestNetworkIpv6Prefix", zoneid=there.zone, prefix=text))


def outside(there, **more):
    given = {"ip6gateway": "2001:db8:ffff::1", "ip6cidr": "2001:db8:ffff::/64"} | more
    return there.admin("createVlanIpRange", zoneid=there.zone, forvirtualnetwork=True, **given)["vlan"]


def offering(there, protocol="DualStack", services=DUAL, **more):
    given = {"name": f"{protocol}-{len(services)}", "guestiptype": "Isolated", "traffictype": "Guest", "enable": True}
    answer = there.admin(
        "createNetworkOffering", internetprotocol=protocol, supportedservices=services, **(given | more)
    )
    return answer["networkoffering"]["id"]


def network(there, protocol="DualStack", services=DUAL, **more):
    listed = there.admin("listNetworkOfferings", name=f"{protocol}-{len(services)}").get("networkoffering")
    chosen = listed[0]["id"] if listed else offering(there, protocol, services)
    cloud = more.pop("cloud", there.cloud)
    return cloud("createNetwork", name="six", zoneid=there.zone, networkofferingid=chosen, **more)["network"]


@pytest.fixture
def ready(there):
    prefix(there)
    outside(there)
    return there


def test_a_prefix_is_shown_with_what_is_left_of_it(there):
    made = prefix(there)
    assert {"prefix": "2001:db8:1000::/62", "totalsubnets": 4, "usedsubnets": 0, "availablesubnets": 4}.items() <= (
        made.items()
    )
    outside(there)
    network(there)
    (listed,) = there.cloud("listGuestNetworkIpv6Prefixes", zoneid=there.zone)["guestnetworkipv6prefix"]
    assert (listed["usedsubnets"], listed["availablesubnets"]) == (1, 3)


@pytest.mark.parametrize(
    "wrong",
    ["2001:db8::/65", "2001:db8::/31", "2001:db8::1/64", "2001:db8::", "10.0.0.0/8", "ff00::/32", "fe80::/64", "x"],
)
def test_what_is_no_prefix_is_refused(there, wrong):
    with pytest.raises(BadParameter, match="prefix"):
        prefix(there, wrong)


@pytest.mark.parametrize("other", ["2001:db8:1000::/62", "2001:db8::/32", "2001:db8:1000:2::/64", "2001:db8:ffff::/48"])
def test_a_prefix_that_is_taken_is_refused(ready, other):
    with pytest.raises(RuleConflict, match="overlaps"):
        prefix(ready, other)


def test_only_operators_give_prefixes(there):
    with pytest.raises(Exception, match="createGuestNetworkIpv6Prefix"):
        there.cloud("createGuestNetworkIpv6Prefix", zoneid=there.zone, prefix="2001:db8:1000::/62")


def test_a_prefix_that_is_in_use_stays_and_one_that_is_not_goes(ready):
    made = network(ready)
    (listed,) = ready.cloud("listGuestNetworkIpv6Prefixes")["guestnetworkipv6prefix"]
    with pytest.raises(InUse, match="six"):
        ready.admin("deleteGuestNetworkIpv6Prefix", id=listed["id"])
    assert ready.job(ready.cloud("deleteNetwork", id=made["id"])) is True
    assert ready.rows(Ipv6Subnet) == ready.rows(RouterAddress6) == []
    assert ready.job(ready.admin("deleteGuestNetworkIpv6Prefix", id=listed["id"])) is True
    assert ready.cloud("listGuestNetworkIpv6Prefixes") == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"ip6gateway": None},
        {"ip6cidr": None},
        {"ip6gateway": "2001:db8:eeee::1"},
        {"ip6cidr": "2001:db8:ffff::/127"},
        {"ip6cidr": "2001:db8:ffff::5/64"},
        {"startipv6": "2001:db8:ffff::9", "endipv6": "2001:db8:ffff::8"},
        {"startipv6": "2001:db8:ffff::1", "endipv6": "2001:db8:ffff::8"},
        {"startipv6": "2001:db8:eeee::9"},
        {"endipv6": "2001:db8:ffff::8"},
        {"gateway": "198.51.100.1"},
    ],
)
def test_a_public_range_that_does_not_fit_together_is_refused(there, wrong):
    given = {key: value for key, value in wrong.items() if value is not None}
    taken = {key for key, value in wrong.items() if value is None}
    whole = {"ip6gateway": "2001:db8:ffff::1", "ip6cidr": "2001:db8:ffff::/64"} | given
    with pytest.raises(BadParameter):
        there.admin(
            "createVlanIpRange", zoneid=there.zone, forvirtualnetwork=True,
            **{key: value for key, value in whole.items() if key not in taken},
        )  # fmt: skip


def test_a_range_of_both_families_is_one_range_and_one_of_ipv6_can_change(there):
    both = outside(there, gateway="198.51.100.1", netmask="255.255.255.0", startip="198.51.100.8", vlan="7")
    assert (both["cidr"], both["ip6cidr"]) == ("198.51.100.0/24", "2001:db8:ffff::/64")
    with pytest.raises(RuleConflict, match="overlaps"):
        outside(there)
    six = outside(there, ip6gateway="fe80::1", ip6cidr="2001:db8:fffe::/64", startipv6="2001:db8:fffe::10")
    assert "gateway" not in six
    assert (six["startipv6"], six["endipv6"]) == ("2001:db8:fffe::10",) * 2
    prefix(there)
    made = network(there, "IPv6", ALONE)
    assert made["ip6routes"] == [{"subnet": made["ip6cidr"], "gateway": "2001:db8:ffff::2"}]
    there.admin("updateVlanIpRange", id=six["id"], endipv6="2001:db8:fffe::20")
    with pytest.raises(InUse, match="2001:db8:ffff::2"):
        there.admin("updateVlanIpRange", id=both["id"], startipv6="2001:db8:ffff::10", endipv6="2001:db8:ffff::20")
    with pytest.raises(InUse, match="six"):
        there.admin("deleteVlanIpRange", id=both["id"])
    assert there.admin("deleteVlanIpRange", id=six["id"])["success"] in (True, "true")


def test_a_dual_stack_network_has_a_64_and_the_route_that_leads_to_it(ready):
    made = network(ready)
    assert made["internetprotocol"] == "DualStack"
    assert made["cidr"]
    assert (made["ip6cidr"], made["ip6gateway"]) == ("2001:db8:1000::/64", "2001:db8:1000::1")
    assert made["ip6routing"] == "Static"
    assert made["ip6routes"] == [{"subnet": "2001:db8:1000::/64", "gateway": "2001:db8:ffff::2"}]
    other = network(ready, displaytext="other")
    assert (other["ip6cidr"], other["ip6routes"][0]["gateway"]) == ("2001:db8:1000:1::/64", "2001:db8:ffff::3")
    ready.job(ready.cloud("deleteNetwork", id=made["id"]))
    assert network(ready)["ip6cidr"] == "2001:db8:1000::/64", "the lowest free one"


def test_without_a_prefix_or_with_all_taken_there_is_none(there):
    outside(there)
    with pytest.raises(NoAddress, match="createGuestNetworkIpv6Prefix"):
        network(there)
    prefix(there, "2001:db8:1000::/64")
    network(there)
    with pytest.raises(NoAddress, match="no /64 left"):
        network(there)
    prefix(there, "2001:db8:2000::/64")
    assert network(there)["ip6cidr"] == "2001:db8:2000::/64"


def test_without_a_public_range_there_is_none_and_nothing_is_half_made(there):
    prefix(there)
    with pytest.raises(NoAddress, match="createVlanIpRange"):
        network(there)
    assert there.rows(Ipv6Subnet) == []
    assert len(there.rows(Network)) == 1


def test_an_mtu_that_ipv6_cannot_have_is_refused(cloud, ready):
    cloud("updateConfiguration", name="allow.end.users.to.specify.vr.mtu", value="true")
    with pytest.raises(BadParameter, match="1280"):
        network(ready, privatemtu=1279)
    made = network(ready, privatemtu=1280)
    with pytest.raises(BadParameter, match="1280"):
        ready.cloud("updateNetwork", id=made["id"], publicmtu=900)


@pytest.mark.parametrize("service", ["SourceNat", "Lb"])
def test_services_that_translate_need_ipv4(there, service):
    with pytest.raises(BadParameter, match="internetprotocol"):
        offering(there, "IPv6", f"{ALONE},{service}")


def test_a_network_without_addresses_has_no_internet_protocol(there):
    drive = {"serviceproviderlist[0].service": "UserData", "serviceproviderlist[0].provider": "ConfigDrive"}
    with pytest.raises(BadParameter, match="internetprotocol"):
        offering(there, "DualStack", "UserData", guestiptype="L2", **drive)


def test_a_guest_has_the_address_that_its_mac_makes_or_the_one_it_asks_for(ready):
    made = network(ready)
    nic = ready.deploy(name="one", networkids=made["id"], macaddress=MAC)["nic"][0]
    assert nic["ip6address"] == "2001:db8:1000::ff:fe00:2a"
    assert (nic["ip6cidr"], nic["ip6gateway"]) == (made["ip6cidr"], made["ip6gateway"])
    asked = ready.deploy(name="two", networkids=made["id"], ip6address="2001:db8:1000::77")["nic"][0]
    assert asked["ip6address"] == "2001:db8:1000::77"
    with pytest.raises(BadParameter, match="taken"):
        ready.deploy(name="three", networkids=made["id"], ip6address="2001:db8:1000::77")
    with pytest.raises(BadParameter, match="must lie in"):
        ready.deploy(name="three", networkids=made["id"], ip6address="2001:db8:1000:1::77")
    with pytest.raises(BadParameter, match="has it"):
        ready.deploy(name="three", networkids=made["id"], ip6address="2001:db8:1000::1")
    with pytest.raises(BadParameter, match="has no IPv6"):
        ready.deploy(name="three", ip6address="2001:db8:1000::78")


def facts_of(there, network_id):
    with there.admin.database.read() as session:
        row = session.scalars(select(Network).where(Network.uuid == network_id)).one()
        (target,) = row.targets(session)
        return router_facts(session, session.get_one(Target, target.id))


def test_a_network_of_ipv6_alone_has_no_ipv4_anywhere(ready):
    made = network(ready, "IPv6", ALONE, ip6dns1="2001:db8:53::1")
    assert not {"cidr", "gateway", "netmask"} & made.keys()
    assert made["ip6dns1"] == "2001:db8:53::1"
    vm = ready.deploy(name="one", networkids=made["id"], macaddress=MAC, userdata="SGk=")
    assert vm["state"] == "Running"
    assert "ipaddress" not in vm["nic"][0]
    facts = facts_of(ready, made["id"])
    assert facts.addresses == ()
    assert facts.dns6 == ("2001:db8:53::1",)
    assert {nic.address6 for nic in facts.nics if nic.traffic == "Public"} == {"2001:db8:ffff::2"}
    (net,) = facts.networks
    assert (net.cidr, net.cidr6, net.gateway6) == ("", made["ip6cidr"], made["ip6gateway"])
    assert [lease.address6 for lease in net.leases] == [vm["nic"][0]["ip6address"]]
    assert net.metadata[0].sources6 == (vm["nic"][0]["ip6address"], "fe80::ff:fe00:2a")
    (router,) = ready.admin("listRouters", networkid=made["id"], listall=True)["router"]
    shown = {nic["traffictype"]: nic["ip6address"] for nic in router["nic"]}
    assert shown == {"Guest": made["ip6gateway"], "Public": "2001:db8:ffff::2"}
    with pytest.raises(BadParameter, match="IPv6 alone"):
        ready.cloud("createEgressFirewallRule", networkid=made["id"], protocol="all")
    with pytest.raises(Unsupported):
        ready.cloud("associateIpAddress", networkid=made["id"])
    with pytest.raises(BadParameter, match="no IPv4"):
        ready.deploy(name="two", networkids=made["id"], ipaddress="10.1.1.5")
    with pytest.raises(BadParameter, match="IPv6 alone"):
        network(ready, "IPv6", ALONE, gateway="10.1.1.1", netmask="255.255.255.0")


def test_what_is_the_networks_own_outlives_its_router(ready):
    made = network(ready)
    ready.deploy(name="one", networkids=made["id"])
    before = facts_of(ready, made["id"])
    assert ready.job(ready.cloud("restartNetwork", id=made["id"], cleanup=True)) is True
    after = facts_of(ready, made["id"])
    assert [nic.address6 for nic in after.nics] == [nic.address6 for nic in before.nics]
    assert after.networks[0].gateway6 == before.networks[0].gateway6


def test_a_network_of_ipv4_can_become_dual_stack_while_it_runs_and_not_the_other_way(ready):
    ready.deploy(name="one")
    wanted = offering(ready)
    shown = ready.job(ready.cloud("updateNetwork", id=ready.network, networkofferingid=wanted))
    assert shown["ip6cidr"] == "2001:db8:1000::/64"
    (nic,) = ready.cloud("listVirtualMachines", name="one")["virtualmachine"][0]["nic"]
    assert IPv6Address(nic["ip6address"]) in IPv6Network(shown["ip6cidr"])
    facts = facts_of(ready, ready.network)
    assert facts.networks[0].leases[0].address6 == nic["ip6address"]
    with pytest.raises(BadParameter, match="it is IPv4, and the network is DualStack"):
        ready.cloud("updateNetwork", id=ready.network, networkofferingid=offering(ready, "IPv4"))


@pytest.fixture
def six(ready):
    return network(ready)["id"]


def rule(there, six, **parameters):
    return there.job(there.cloud("createIpv6FirewallRule", networkid=six, **parameters))


def test_a_rule_is_shown_as_it_was_made_and_told_to_the_router(ready, six):
    made = rule(ready, six, protocol="TCP", startport=80, endport=90, cidrlist="2001:db8:c::7/48,2001:db8:C::/48")
    assert {
        "protocol": "tcp", "startport": 80, "endport": 90, "cidrlist": "2001:db8:c::/48", "destcidrlist": "::/0",
        "traffictype": "Ingress", "networkid": six, "state": "Active",
    }.items() <= made.items()  # fmt: skip
    icmp = rule(ready, six, protocol="58", icmptype=128, icmpcode=0)
    out = rule(ready, six, protocol="all", traffictype="egress", cidrlist="2001:db8:1000::5/128")
    listed = ready.cloud("listIpv6FirewallRules", networkid=six)
    assert {one["id"] for one in listed["firewallrule"]} == {made["id"], icmp["id"], out["id"]}
    assert ready.cloud("listIpv6FirewallRules", networkid=six, traffictype="Egress")["count"] == 1
    assert ready.cloud("listFirewallRules") == ready.cloud("listEgressFirewallRules") == {}
    ready.deploy(name="one", networkids=six)
    (net,) = facts_of(ready, six).networks
    assert net.ingress6 == (
        Ipv6Rule(made["id"], "tcp", 80, 90, ("2001:db8:c::/48",), ()),
        Ipv6Rule(icmp["id"], "icmp", 128, 0, (), ()),
    )
    assert net.egress6 == (Ipv6Rule(out["id"], "all", -1, -1, ("2001:db8:1000::5/128",), ()),)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"protocol": "gre"}, "protocol"),
        ({"protocol": "tcp", "startport": 0}, "startport"),
        ({"protocol": "tcp", "startport": 9, "endport": 8}, "endport"),
        ({"protocol": "tcp", "endport": 8}, "endport"),
        ({"protocol": "tcp", "icmptype": 128}, "icmptype"),
        ({"protocol": "icmp", "icmptype": 256}, "icmptype"),
        ({"protocol": "icmp", "startport": 1}, "startport"),
        ({"protocol": "all", "startport": 1}, "startport"),
        ({"protocol": "all", "cidrlist": "10.0.0.0/8"}, "IPv6 CIDRs"),
        ({"protocol": "all", "cidrlist": "fe80::1%eth0/64"}, "IPv6 CIDRs"),
        ({"protocol": "all", "cidrlist": "2001:db8::"}, "IPv6 CIDRs"),
        ({"protocol": "all", "destcidrlist": "2001:db8::/64"}, "must lie in"),
        ({"protocol": "all", "traffictype": "Egress", "cidrlist": "2001:db8::/64"}, "must lie in"),
        ({"protocol": "all", "traffictype": "sideways"}, "traffictype"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(ready, six, wrong, said):
    with pytest.raises(BadParameter, match=said):
        rule(ready, six, **wrong)
    assert ready.rows(Ipv6FirewallRule) == []


def test_rules_of_ipv4_do_not_take_ipv6_and_networks_of_ipv4_have_no_ipv6_rules(ready, six):
    ip = ready.job(ready.cloud("associateIpAddress", networkid=six))["id"]
    with pytest.raises(BadParameter, match="createIpv6FirewallRule"):
        ready.cloud("createFirewallRule", ipaddressid=ip, protocol="tcp", startport=1, cidrlist="2001:db8::/64")
    four = network(ready, "IPv4")["id"]
    with pytest.raises(Unsupported, match="has no IPv6"):
        ready.cloud("createIpv6FirewallRule", networkid=four, protocol="all")


def test_two_rules_on_the_same_packets_conflict_and_a_rule_can_change_in_place(ready, six):
    made = rule(ready, six, protocol="tcp", startport=80, endport=90)
    for other in ({"startport": 85}, {}, {"startport": 1, "endport": 80}):
        with pytest.raises(RuleConflict, match=made["id"]):
            rule(ready, six, protocol="tcp", **other)
    other = rule(ready, six, protocol="tcp", startport=91)
    with pytest.raises(RuleConflict, match=made["id"]):
        ready.cloud("updateIpv6FirewallRule", id=other["id"], startport=90)
    changed = ready.job(
        ready.cloud("updateIpv6FirewallRule", id=made["id"], protocol="udp", cidrlist="2001:db8:c::/48")
    )
    assert (changed["protocol"], changed["cidrlist"]) == ("udp", "2001:db8:c::/48")
    assert "startport" not in changed
    with pytest.raises(BadParameter, match="other direction"):
        ready.cloud("updateIpv6FirewallRule", id=made["id"], traffictype="Egress")
    assert ready.job(ready.cloud("deleteIpv6FirewallRule", id=made["id"])) is True
    assert ready.cloud("listIpv6FirewallRules", networkid=six)["count"] == 1


def test_nobody_else_sees_or_touches_a_rule(ready, six):
    made = rule(ready, six, protocol="all")
    bob = ready.admin.as_user("bob")
    assert bob("listIpv6FirewallRules") == {}
    for call in (
        lambda: bob("createIpv6FirewallRule", networkid=six, protocol="all"),
        lambda: bob("deleteIpv6FirewallRule", id=made["id"]),
        lambda: bob("updateIpv6FirewallRule", id=made["id"], startport=1),
    ):
        with pytest.raises(BadParameter, match="not yours to use"):
            call()


def test_lists_cost_the_same_for_one_row_and_for_many(ready, six):
    def cost(command):
        with queries(ready.admin) as seen:
            ready.cloud(command)
        return len(seen)

    rule(ready, six, protocol="tcp", startport=1)
    commands = ("listIpv6FirewallRules", "listNetworks", "listGuestNetworkIpv6Prefixes")
    before = [cost(command) for command in commands]
    for port in range(2, 6):
        rule(ready, six, protocol="tcp", startport=port)
    network(ready)
    prefix(ready, "2001:db8:3000::/60")
    assert [cost(command) for command in commands] == before


def test_the_rules_go_with_their_network(ready, six):
    rule(ready, six, protocol="all")
    assert ready.job(ready.cloud("deleteNetwork", id=six)) is True
    assert ready.rows(Ipv6FirewallRule) == []
    assert ready.rows(Nic, Nic.address6 != "") == []
