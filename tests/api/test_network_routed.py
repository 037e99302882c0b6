"""Routed networks: their subnets, the routing firewall, AS numbers, BGP peers, and what their routers are told."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from controlplane.errors import BadParameter, InUse, NoAddress, RuleConflict, Unsupported
from controlplane.network.as_numbers import AsNumber
from controlplane.network.bgp_peers import BgpPeer
from controlplane.network.facts import router_facts
from controlplane.network.ipv4_subnets import GuestSubnet, first_gap
from controlplane.network.routing_firewall import RoutingFirewallRule
from controlplane.reconcile.targets import Target
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType
from controlplane.zone.providers import NetworkServiceProvider
from drivers.routing import Bgp
from drivers.routing import BgpPeer as PeerFact
from tests.api.compute_world import world
from tests.api.counting import queries

SERVICES = "Dhcp,Dns,Firewall,UserData"
TIER = "Dhcp,Dns,NetworkACL,UserData"


@pytest.fixture
def there(cloud):
    with world(cloud, hosts=1) as made:
        with cloud.database.write() as session:
            physical = session.scalars(select(PhysicalNetwork)).one()
            physical.traffic_types += [TrafficType(traffic="Guest"), TrafficType(traffic="Public")]
            physical.state = "Enabled"
            for name in ("VirtualRouter", "VpcVirtualRouter"):
                session.add(NetworkServiceProvider(physical_network_id=physical.id, name=name, state="Enabled"))
        made.admin = cloud
        yield made


def subnet(there, text="10.200.0.0/16", **more):
    return there.job(there.admin("createIpv4SubnetForZone", zoneid=there.zone, subnet=text, **more))


def offering(there, routing="Static", services=SERVICES, **more):
    given = {"guestiptype": "Isolated", "traffictype": "Guest", "enable": True, "networkmode": "ROUTED"} | more
    given |= {
        "name": f"{routing}-{services}-{'-'.join(sorted(more))}",
        "supportedservices": services,
        "routingmode": routing,
    }
    return there.admin("createNetworkOffering", **given)["networkoffering"]


def network(there, routing="Static", name="r1", **more):
    cloud, asked = more.pop("cloud", there.cloud), more.pop("asked", {})
    chosen = more.pop("offering", None)
    if chosen is None:
        listed = there.admin("listNetworkOfferings", routingmode=routing).get("networkoffering")
        chosen = (listed[0] if listed else offering(there, routing, **asked))["id"]
    given = {"cidrsize": 26} | more
    given = {key: value for key, value in given.items() if value is not None}
    return cloud("createNetwork", name=name, zoneid=there.zone, networkofferingid=chosen, **given)["network"]


def rule(there, made, **more):
    cloud = more.pop("cloud", there.cloud)
    return there.job(cloud("createRoutingFirewallRule", networkid=made["id"], **more))


def numbers(there, first=64512, last=64515):
    return there.admin("createASNRange", zoneid=there.zone, startasn=first, endasn=last)["asnumberrange"]


def peer(there, address="198.51.100.1", **more):
    given = {"zoneid": there.zone, "asnumber": 65000, "ipaddress": address, "password": "s3cret"} | more
    return there.job(there.admin("createBgpPeer", **given))


def facts(there):
    with there.cloud.database.write() as session:
        target = session.scalars(select(Target).where(Target.kind == "router", ~Target.absent)).one()
        return router_facts(session, target)


def test_an_offering_says_how_its_networks_are_routed(there):
    made = offering(there, "dynamic", specifyasnumber=True)
    assert (made["networkmode"], made["routingmode"], made["specifyasnumber"]) == ("ROUTED", "Dynamic", True)
    assert "Gateway" in {service["name"] for service in made["service"]}
    plain = there.admin("listNetworkOfferings", name="DefaultIsolatedNetworkOfferingWithSourceNatService")
    assert plain["networkoffering"][0]["networkmode"] == "NATTED"


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"services": f"{SERVICES},SourceNat"}, "SourceNat"),
        ({"services": f"{SERVICES},Lb"}, "Lb"),
        ({"networkmode": "NATTED"}, "routingmode"),
        ({"specifyasnumber": True}, "specifyasnumber"),
        ({"internetprotocol": "IPv6"}, "ROUTED"),
        ({"guestiptype": "Shared", "specifyipranges": True}, "Shared"),
        ({"networkmode": "BRIDGED"}, "networkmode"),
    ],
)
def test_an_offering_that_contradicts_itself_is_refused(there, wrong, word):
    with pytest.raises(BadParameter, match=word):
        offering(there, **wrong)


def test_networks_get_the_lowest_free_parts_of_the_zones_subnets_and_give_them_back(there):
    subnet(there, "10.200.0.0/24")
    one, two = network(there), network(there, name="r2", cidrsize=27)
    assert (one["cidr"], one["gateway"], one["ip4routing"]) == ("10.200.0.0/26", "10.200.0.1", "Static")
    assert two["cidr"] == "10.200.0.64/27"
    listed = there.admin("listIpv4SubnetsForGuestNetwork", networkid=two["id"])["ipv4subnetsforguestnetwork"]
    assert [(part["subnet"], part["state"], part["networkname"]) for part in listed] == [
        ("10.200.0.64/27", "Allocated", "r2")
    ]
    assert there.job(there.cloud("deleteNetwork", id=one["id"])) is True
    assert network(there, name="r3")["cidr"] == "10.200.0.0/26"
    with pytest.raises(NoAddress, match="/25"):
        network(there, name="r4", cidrsize=25) and network(there, name="r5", cidrsize=25)


def test_a_network_may_name_its_cidr(there):
    subnet(there)
    named = {"cidrsize": None, "netmask": "255.255.255.0"}
    assert network(there, gateway="10.200.7.1", **named)["cidr"] == "10.200.7.0/24"
    with pytest.raises(RuleConflict, match="overlaps"):
        network(there, gateway="10.200.7.1", **named)
    with pytest.raises(BadParameter, match="must lie in"):
        network(there, gateway="10.99.0.1", **named)
    with pytest.raises(BadParameter, match="both"):
        network(there, gateway="10.200.8.1", netmask="255.255.255.0")
    with pytest.raises(BadParameter, match="cidrsize"):
        network(there, cidrsize=None)
    with pytest.raises(BadParameter, match=r"routed.ipv4.network.min.cidr.size"):
        network(there, cidrsize=16)


def test_an_ordinary_network_has_no_part_in_this(there):
    plain = there.admin("listNetworkOfferings", name="DefaultIsolatedNetworkOfferingWithSourceNatService")
    number = plain["networkoffering"][0]["id"]
    for wrong in ({"cidrsize": 26}, {"cidrsize": None, "asnumber": 64512}):
        with pytest.raises(BadParameter, match="does not have"):
            network(there, offering=number, **wrong)
    made = network(there, offering=number, cidrsize=None)
    assert "ip4routing" not in made
    with pytest.raises(Unsupported, match="not routed"):
        rule(there, made, protocol="tcp")


@given(
    st.lists(st.tuples(st.integers(24, 29), st.integers(0, 31)), max_size=12).map(
        lambda found: [IPv4Network(((10 << 24) + (place << 32 - size) % 256, size)) for size, place in found]
    ),
    st.integers(22, 30),
)
def test_a_gap_is_the_lowest_block_that_overlaps_nothing(taken, size):
    whole = IPv4Network("10.0.0.0/24")
    fits = [
        block
        for block in (whole.subnets(new_prefix=size) if size >= 24 else ())
        if not any(block.overlaps(other) for other in taken)
    ]
    assert first_gap(whole, taken, size) == (fits[0] if fits else None)


@pytest.mark.parametrize("wrong", ["10.200.0.0/7", "10.200.0.1/24", "10.200.0.0/30", "224.0.0.0/16", "x", "::/64"])
def test_what_is_no_subnet_is_refused(there, wrong):
    with pytest.raises(BadParameter, match="subnet"):
        subnet(there, wrong)


def test_subnets_never_overlap_and_stay_while_they_are_used(there):
    made = subnet(there)
    with pytest.raises(RuleConflict, match="overlaps"):
        subnet(there, "10.200.4.0/24")
    with pytest.raises(RuleConflict, match="public range"):
        subnet(there, "203.0.113.0/24")
    one = network(there)
    with pytest.raises(InUse, match=r"10\.200\.0\.0/26"):
        there.job(there.admin("deleteIpv4SubnetForZone", id=made["id"]))
    with pytest.raises(InUse, match="outside"):
        there.job(there.admin("updateIpv4SubnetForZone", id=made["id"], subnet="10.200.128.0/17"))
    wider = there.job(there.admin("updateIpv4SubnetForZone", id=made["id"], subnet="10.200.0.0/15"))
    assert wider["subnet"] == "10.200.0.0/15"
    assert there.job(there.cloud("deleteNetwork", id=one["id"])) is True
    assert there.rows(GuestSubnet) == []
    assert there.job(there.admin("deleteIpv4SubnetForZone", id=made["id"])) is True


def test_a_part_set_aside_by_hand_is_used_first_and_stays(there):
    made = subnet(there)
    part = there.job(there.admin("createIpv4SubnetForGuestNetwork", parentid=made["id"], subnet="10.200.9.0/26"))
    assert part["state"] == "Free"
    with pytest.raises(RuleConflict, match="overlaps"):
        there.job(there.admin("createIpv4SubnetForGuestNetwork", parentid=made["id"], subnet="10.200.9.0/25"))
    with pytest.raises(BadParameter, match="lie in"):
        there.job(there.admin("createIpv4SubnetForGuestNetwork", parentid=made["id"], subnet="10.9.9.0/25"))
    sized = there.job(there.admin("createIpv4SubnetForGuestNetwork", parentid=made["id"], cidrsize=28))
    assert sized["subnet"] == "10.200.0.0/28"
    one = network(there)
    assert one["cidr"] == "10.200.9.0/26"
    with pytest.raises(InUse, match="r1"):
        there.job(there.admin("deleteIpv4SubnetForGuestNetwork", id=part["id"]))
    there.job(there.cloud("deleteNetwork", id=one["id"]))
    (kept,) = there.admin("listIpv4SubnetsForGuestNetwork", id=part["id"])["ipv4subnetsforguestnetwork"]
    assert kept["state"] == "Free"
    assert there.job(there.admin("deleteIpv4SubnetForGuestNetwork", id=part["id"])) is True


def test_a_dedicated_subnet_is_for_its_account_alone(there):
    account = there.cloud("listAccounts")["account"][0]
    mine = {"account": account["name"], "domainid": account["domainid"]}
    made = subnet(there, "10.201.0.0/16", **mine)
    assert made["account"] == account["name"]
    common = subnet(there)
    assert network(there)["cidr"].startswith("10.201.")
    assert network(there, cloud=there.admin, name="a1")["cidr"].startswith("10.200.")
    with pytest.raises(InUse, match="another account"):
        there.job(there.admin("dedicateIpv4SubnetForZone", id=common["id"], **mine))
    with pytest.raises(BadParameter, match="release"):
        there.job(there.admin("dedicateIpv4SubnetForZone", id=made["id"], **mine))
    assert "account" not in there.job(there.admin("releaseIpv4SubnetForZone", id=made["id"]))
    with pytest.raises(Exception, match="listIpv4SubnetsForZone"):
        there.cloud("listIpv4SubnetsForZone")


def test_the_router_is_told_of_rules_and_the_upstream_of_the_way(there):
    subnet(there)
    one = network(there, asked={"ispersistent": True})
    inward = rule(there, one, protocol="tcp", startport=22, endport=25, cidrlist="192.0.2.0/24")
    rule(there, one, protocol="icmp", icmptype=8, destcidrlist="10.200.0.0/27")
    outward = rule(there, one, protocol="udp", startport=53, traffictype="Egress", destcidrlist="192.0.2.53/32")
    assert (inward["traffictype"], inward["cidrlist"], outward["traffictype"]) == ("Ingress", "192.0.2.0/24", "Egress")
    (net,) = facts(there).networks
    assert net.routed
    assert [(one.protocol, one.start, one.end, one.sources, one.destinations) for one in net.ingress4] == [
        ("tcp", 22, 25, ("192.0.2.0/24",), ()),
        ("icmp", 8, -1, (), ("10.200.0.0/27",)),
    ]
    assert [(one.protocol, one.start, one.sources, one.destinations) for one in net.egress] == [
        ("udp", 53, (), ("192.0.2.53/32",))
    ]
    assert "SourceNat" not in net.services
    (shown,) = there.cloud("listNetworks", id=one["id"])["network"]
    (address,) = facts(there).addresses
    assert shown["ip4routes"] == [{"subnet": one["cidr"], "gateway": address.address}]


def test_rules_are_refused_shown_changed_and_removed(there):
    subnet(there)
    one = network(there)
    first = rule(there, one, protocol="tcp", startport=22)
    with pytest.raises(RuleConflict, match=first["id"]):
        rule(there, one, protocol="tcp", startport=20, endport=30)
    with pytest.raises(BadParameter, match="destcidrlist"):
        rule(there, one, protocol="tcp", startport=80, destcidrlist="10.9.0.0/16")
    with pytest.raises(BadParameter, match="cidrlist"):
        rule(there, one, protocol="tcp", startport=80, traffictype="Egress", cidrlist="10.9.0.0/16")
    with pytest.raises(BadParameter, match="startport"):
        rule(there, one, protocol="icmp", startport=80)
    with pytest.raises(Unsupported, match="createRoutingFirewallRule"):
        there.cloud("createEgressFirewallRule", networkid=one["id"], protocol="tcp")
    changed = there.job(there.admin("updateRoutingFirewallRule", id=first["id"], fordisplay=False))
    assert changed["fordisplay"] is False
    assert len(there.cloud("listRoutingFirewallRules", networkid=one["id"], traffictype="ingress")["firewallrule"]) == 1
    bob = there.admin.as_user("bob")
    assert bob("listRoutingFirewallRules", listall=True) == {}
    with pytest.raises(BadParameter, match="networkid"):
        rule(there, one, cloud=bob, protocol="udp")
    for command in ("deleteRoutingFirewallRule", "updateRoutingFirewallRule"):
        with pytest.raises(BadParameter, match="id"):
            bob(command, id=first["id"])
    assert there.job(there.cloud("deleteRoutingFirewallRule", id=first["id"])) is True
    rule(there, one, protocol="all")
    there.job(there.cloud("deleteNetwork", id=one["id"]))
    assert there.rows(RoutingFirewallRule) == []


def test_as_numbers_are_given_and_come_back(there):
    made = numbers(there)
    for wrong in ((64515, 64600), (64000, 65000)):
        with pytest.raises(RuleConflict, match="overlaps"):
            numbers(there, *wrong)
    for wrong in ((0, 5), (9, 8), (1, 4294967295), (1, 200000)):
        with pytest.raises(BadParameter, match="endasn"):
            numbers(there, *wrong)
    subnet(there)
    one = network(there, "Dynamic")
    assert one["asnumber"] == 64512
    chosen = offering(there, "Dynamic", specifyasnumber=True)["id"]
    two = network(there, offering=chosen, asnumber=64514, name="r2")
    assert (two["asnumber"], two["ip4routing"]) == (64514, "Dynamic")
    with pytest.raises(InUse, match="64514"):
        network(there, offering=chosen, asnumber=64514)
    with pytest.raises(BadParameter, match="no such number"):
        network(there, offering=chosen, asnumber=1)
    with pytest.raises(BadParameter, match="wants one"):
        network(there, offering=chosen)
    with pytest.raises(BadParameter, match="chooses"):
        network(there, "Dynamic", offering=None if not one else one["networkofferingid"], asnumber=64515)
    used = there.cloud("listASNumbers", isallocated=True)["asnumber"]
    assert [(row["asnumber"], row["associatednetworkname"]) for row in used] == [(64512, "r1"), (64514, "r2")]
    assert len(there.cloud("listASNumbers", isallocated=False)["asnumber"]) == 2
    bob = there.admin.as_user("bob")
    assert [row["asnumber"] for row in bob("listASNumbers")["asnumber"]] == [64513, 64515]
    with pytest.raises(InUse, match="64512"):
        there.admin("deleteASNRange", id=made["id"])
    with pytest.raises(InUse, match="r1"):
        there.admin("releaseASNumber", zoneid=there.zone, asnumber=64512)
    for gone in (one, two):
        there.job(there.cloud("deleteNetwork", id=gone["id"]))
    with pytest.raises(BadParameter, match="free already"):
        there.admin("releaseASNumber", zoneid=there.zone, asnumber=64512)
    assert there.admin("deleteASNRange", id=made["id"])["success"]
    assert there.rows(AsNumber) == []


def test_peers_are_told_to_the_routers_of_the_networks_that_have_them(there):
    subnet(there)
    numbers(there)
    first = peer(there)
    assert "password" not in first
    one = network(there, "Dynamic", asked={"ispersistent": True})
    told = PeerFact("198.51.100.1", "", 65000, "s3cret")
    assert facts(there).bgp == Bgp(64512, (told,))
    second = peer(there, "198.51.100.2", asnumber=65001, **{"details[0].EBGP_MultiHop": "4"})
    assert [one.hops for one in facts(there).bgp.peers] == [1, 4]
    there.job(there.admin("changeBgpPeersForNetwork", networkid=one["id"], bgppeerids=second["id"]))
    assert [one.number for one in facts(there).bgp.peers] == [65001]
    with pytest.raises(InUse, match="r1"):
        there.job(there.admin("deleteBgpPeer", id=second["id"]))
    there.job(there.admin("changeBgpPeersForNetwork", networkid=one["id"]))
    assert len(facts(there).bgp.peers) == 2
    changed = there.job(there.admin("updateBgpPeer", id=second["id"], asnumber=65002, cleanupdetails=True))
    assert (changed["asnumber"], "details" in changed) == (65002, False)
    assert there.job(there.admin("deleteBgpPeer", id=second["id"])) is True
    assert facts(there).bgp.peers == (told,)
    there.job(there.cloud("deleteNetwork", id=one["id"]))
    assert there.job(there.admin("deleteBgpPeer", id=first["id"])) is True
    assert there.rows(BgpPeer) == []


def test_a_dedicated_peer_is_for_its_account_alone(there):
    account = there.cloud("listAccounts")["account"][0]
    mine = {"account": account["name"], "domainid": account["domainid"]}
    subnet(there)
    numbers(there)
    own = peer(there, "198.51.100.9", **mine)
    common = peer(there)
    network(there, "Dynamic", asked={"ispersistent": True}, cloud=there.admin)
    assert [one.address for one in facts(there).bgp.peers] == ["198.51.100.1"]
    with pytest.raises(BadParameter, match="somebody else"):
        network(there, "Dynamic", cloud=there.admin, bgppeerids=own["id"])
    (listed,) = there.admin("listBgpPeers", isdedicated=True)["bgppeer"]
    assert listed["account"] == account["name"]
    with pytest.raises(BadParameter, match="not dedicated"):
        there.job(there.admin("releaseBgpPeer", id=common["id"]))
    there.job(there.admin("releaseBgpPeer", id=own["id"]))
    assert len(facts(there).bgp.peers) == 2
    there.job(there.admin("dedicateBgpPeer", id=common["id"], **mine))
    assert [one.address for one in facts(there).bgp.peers] == ["198.51.100.9"]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"password": "with space"}, "password"),
        ({"password": "two\nlines"}, "password"),
        ({"asnumber": 0}, "asnumber"),
        ({"details[0].EBGP_MultiHop": "256"}, "EBGP_MultiHop"),
        ({"details[0].weight": "1"}, "weight"),
        ({"ipaddress": "198.51.100.300"}, "ipaddress"),
    ],
)
def test_a_peer_that_cannot_be_is_refused(there, wrong, word):
    with pytest.raises(BadParameter, match=word):
        peer(there, **wrong)
    assert there.rows(BgpPeer) == []


def test_two_peers_never_share_an_address(there):
    peer(there)
    with pytest.raises(RuleConflict, match="this address"):
        peer(there)


def test_a_routed_vpc_has_its_cidr_of_the_zone_and_its_tiers_are_announced(there):
    subnet(there)
    numbers(there)
    peer(there)
    made = there.job(
        there.admin("createVPCOffering", name="routed", networkmode="ROUTED", routingmode="Dynamic", enable=True)
    )
    assert (made["networkmode"], made["routingmode"]) == ("ROUTED", "Dynamic")
    assert "SourceNat" not in {service["name"] for service in made["service"]}
    given = {"zoneid": there.zone, "vpcofferingid": made["id"], "name": "shop"}
    with pytest.raises(BadParameter, match="cidrsize"):
        there.cloud("createVPC", **given)
    vpc = there.job(there.cloud("createVPC", cidrsize=24, **given))
    assert (vpc["cidr"], vpc["asnumber"], vpc["ip4routing"]) == ("10.200.0.0/24", 64512, "Dynamic")
    (shown,) = vpc["bgppeers"]
    assert (shown["asnumber"], shown["ipaddress"]) == (65000, "198.51.100.1")
    tiers = offering(there, "Dynamic", TIER, forvpc=True)["id"]
    more = {"vpcid": vpc["id"], "gateway": "10.200.0.1", "netmask": "255.255.255.128", "cidrsize": None}
    static = offering(there, "Static", TIER, forvpc=True)["id"]
    with pytest.raises(BadParameter, match="ROUTED Static"):
        network(there, offering=static, **more)
    with pytest.raises(BadParameter, match="from its VPC"):
        network(there, offering=tiers, **{**more, "cidrsize": 26})
    web = network(there, offering=tiers, name="web", **more)
    assert web["asnumber"] == 64512
    assert web["bgppeers"] == vpc["bgppeers"]
    found = facts(there)
    assert found.bgp.number == 64512
    (own,) = there.cloud("listPublicIpAddresses", vpcid=vpc["id"])["publicipaddress"]
    assert own["issourcenat"] is False, "nothing is translated there"
    assert there.cloud("listPublicIpAddresses", vpcid=vpc["id"], issourcenat=True) == {}
    assert there.cloud("listPublicIpAddresses", vpcid=vpc["id"], issourcenat=False)["count"] == 1
    with pytest.raises(BadParameter, match="changeBgpPeersForVpc"):
        there.job(there.admin("changeBgpPeersForNetwork", networkid=web["id"]))
    assert there.job(there.admin("changeBgpPeersForVpc", vpcid=vpc["id"]))["ipaddress"] == "198.51.100.1"
    there.job(there.cloud("deleteNetwork", id=web["id"]))
    there.job(there.cloud("deleteVPC", id=vpc["id"]))
    assert there.rows(GuestSubnet) == []


def test_an_offering_of_another_mode_is_no_choice_for_a_network(there):
    subnet(there)
    one = network(there)
    plain = there.admin("listNetworkOfferings", name="DefaultIsolatedNetworkOfferingWithSourceNatService")
    with pytest.raises(BadParameter, match="NATTED"):
        there.job(there.cloud("updateNetwork", id=one["id"], networkofferingid=plain["networkoffering"][0]["id"]))


def test_lists_ask_the_same_number_of_questions_for_any_number_of_rows(there):
    subnet(there)
    numbers(there)
    peer(there)
    network(there, "Dynamic")
    lists = (
        "listIpv4SubnetsForZone",
        "listIpv4SubnetsForGuestNetwork",
        "listASNumbers",
        "listBgpPeers",
        "listNetworks",
    )
    before = {name: _asked(there, name) for name in lists}
    for number in range(3):
        network(there, "Dynamic", name=f"n{number}")
        subnet(there, f"10.20{number + 1}.0.0/16")
        peer(there, f"198.51.100.{number + 5}")
    assert {name: _asked(there, name) for name in lists} == before


def _asked(there, name):
    with queries(there.cloud) as seen:
        there.admin(name, **({"listall": True} if name == "listNetworks" else {}))
    return len(seen)
