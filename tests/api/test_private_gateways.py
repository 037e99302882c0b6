"""Private gateways and static routes, and what the public addresses of a VPC may be used for."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Network

import pytest
from sqlalchemy import select

from controlplane.errors import BadParameter, InUse, RuleConflict, Unsupported
from controlplane.network.nics import Nic
from controlplane.network.port_forwarding import PortForward
from controlplane.network.private_gateways import PrivateGateway, StaticRoute
from controlplane.network.public_ips import PublicIp
from controlplane.network.vpn_connections import VpnConnection
from controlplane.network.wireguard_peers import WireguardPeer
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType, Vnet
from tests.api.test_vpcs import facts
from tests.api.vpc_world import TIER_INTERNAL, vpc_world


@pytest.fixture
def here(cloud):
    with vpc_world(cloud) as made:
        yield made


@pytest.fixture
def vpc(here):
    return here.vpc()["id"]


def gateway(here, vpc, **given):
    asked = {"vpcid": vpc, "ipaddress": "172.16.1.2", "gateway": "172.16.1.1", "netmask": "255.255.255.0"}
    return here.done(here.admin("createPrivateGateway", **{**asked, "vlan": "vxlan://300", **given}))


def test_a_private_gateway_is_an_interface_of_the_router(here, vpc):
    made = gateway(here, vpc, sourcenatsupported=True)
    assert (made["ipaddress"], made["vlan"], made["aclname"]) == ("172.16.1.2", "vxlan://300", "default_deny")
    assert (made["sourcenatsupported"], made["state"], made["account"]) == (True, "Ready", "alice")
    known = facts(here, vpc)
    (side,) = known.vpc.gateways
    (nic,) = [nic for nic in known.nics if nic.mac == side.nic]
    assert (nic.address, nic.prefix, nic.traffic, side.source_nat) == ("172.16.1.2", 24, "Guest", True)
    assert here.cloud("listPrivateGateways", vpcid=vpc)["privategateway"][0].get("vlan") is None
    route = here.done(here.cloud("createStaticRoute", gatewayid=made["id"], cidr="172.20.0.0/16"))
    assert (route["nexthop"], route["vpcgatewayid"]) == ("172.16.1.1", made["id"])
    assert facts(here, vpc).vpc.routes[0][1:] == ("172.20.0.0/16", "172.16.1.1")
    with pytest.raises(InUse, match=r"172\.20\.0\.0/16"):
        here.cloud("deletePrivateGateway", id=made["id"])
    here.done(here.cloud("deleteStaticRoute", id=route["id"]))
    here.done(here.cloud("deletePrivateGateway", id=made["id"]))
    assert facts(here, vpc).vpc.gateways == facts(here, vpc).vpc.routes == ()
    assert here.there.rows(Vnet) == here.there.rows(Nic, Nic.private_gateway_id.is_not(None)) == []


def test_gateways_come_back_with_a_new_router_and_go_with_the_vpc(here, vpc):
    made = gateway(here, vpc)
    here.done(here.cloud("createStaticRoute", gatewayid=made["id"], cidr="172.20.0.0/16"))
    here.done(here.cloud("restartVPC", id=vpc, cleanup=True))
    assert [item.address for item in facts(here, vpc).vpc.gateways] == ["172.16.1.2"]
    here.done(here.cloud("deleteVPC", id=vpc))
    assert here.there.rows(PrivateGateway) == here.there.rows(StaticRoute) == here.there.rows(Vnet) == []


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ({"ipaddress": "172.16.2.2"}, r"an address of 172\.16\.1\.0/24"),
        ({"ipaddress": "172.16.1.1"}, "besides the gateway"),
        ({"ipaddress": "10.1.9.2", "gateway": "10.1.9.1"}, r"overlaps 10\.1\.0\.0/16, which VPC shop has"),
        ({"vlan": "red"}, "a VLAN or VNI"),
        ({"netmask": "255.0.255.0"}, "netmask"),
    ],
)
def test_a_gateway_that_cannot_be_is_refused_and_leaves_nothing(here, vpc, given, right):
    with pytest.raises(BadParameter, match=right):
        gateway(here, vpc, **given)
    assert here.there.rows(PrivateGateway) == here.there.rows(Vnet) == []


def test_numbers_and_addresses_are_not_given_twice(here, vpc):
    web = here.tier(vpc)
    here.there.deploy(name="front", networkids=web["id"])
    (taken,) = here.there.rows(Vnet)
    with pytest.raises(InUse, match="guest network web has it"):
        gateway(here, vpc, vlan=taken.number)
    gateway(here, vpc)
    with pytest.raises(BadParameter, match="overlaps"):
        gateway(here, vpc, vlan=301, ipaddress="172.16.1.3")
    other = here.vpc("other", cidr="10.2.0.0/16")["id"]
    with pytest.raises(InUse, match="has it there already"):
        gateway(here, other)
    assert gateway(here, other, ipaddress="172.16.1.3")["ipaddress"] == "172.16.1.3"
    with pytest.raises(BadParameter, match="root admin"):
        here.cloud(
            "createPrivateGateway", vpcid=vpc, ipaddress="172.17.1.2", gateway="172.17.1.1", netmask="255.255.0.0"
        )


def test_routes_that_take_something_away_are_refused(here, vpc):
    made = gateway(here, vpc)
    here.admin("updateConfiguration", name="denied.routes", value="192.168.0.0/16")
    here.done(here.cloud("createStaticRoute", gatewayid=made["id"], cidr="172.20.0.0/16"))
    for cidr, right in (
        ("0.0.0.0/0", "public gateway"),
        ("10.1.2.0/24", "which VPC shop itself has"),
        ("192.168.7.0/24", "denied"),
        ("169.254.169.254/32", "denied"),
        ("203.0.113.0/24", "public range"),
        ("172.20.5.0/24", "static route"),
        ("172.20.5.1/24", "no host bits"),
    ):
        with pytest.raises(BadParameter, match=right):
            here.cloud("createStaticRoute", gatewayid=made["id"], cidr=cidr)
    web = here.tier(vpc)
    for hop in ("10.1.1.1", "8.8.8.8", "172.16.1.2"):
        with pytest.raises(BadParameter, match="nexthop"):
            here.cloud("createStaticRoute", vpcid=vpc, nexthop=hop, cidr="172.30.0.0/16")
    assert web["gateway"] == "10.1.1.1"
    route = here.done(here.cloud("createStaticRoute", vpcid=vpc, nexthop="10.1.1.7", cidr="172.30.0.0/16"))
    assert route["nexthop"] == "10.1.1.7"
    assert len(here.cloud("listStaticRoutes", vpcid=vpc)["staticroute"]) == 2


def test_a_gateway_has_an_acl_of_its_own(here, vpc):
    made = gateway(here, vpc)
    acl = here.done(here.cloud("createNetworkACLList", name="peers", vpcid=vpc))["id"]
    item = here.done(here.cloud("createNetworkACL", aclid=acl, protocol="tcp", startport=22))
    here.done(here.cloud("replaceNetworkACLList", aclid=acl, gatewayid=made["id"]))
    assert [rule.id for rule in facts(here, vpc).vpc.gateways[0].acl] == [item["id"]]
    with pytest.raises(InUse, match=r"private gateway 172\.16\.1\.2"):
        here.cloud("deleteNetworkACLList", id=acl)
    bob = here.admin.as_user("bob")
    assert bob("listPrivateGateways", listall=True) == bob("listStaticRoutes", listall=True) == {}
    with pytest.raises(BadParameter, match="no private gateway with this id"):
        bob("deletePrivateGateway", id=made["id"])


def test_one_address_carries_rules_of_two_tiers(here, vpc):
    web, db = here.tier(vpc), here.tier(vpc, "db", 2)
    front = here.there.deploy(name="front", networkids=web["id"])
    back = here.there.deploy(name="back", networkids=db["id"])
    address = here.done(here.cloud("associateIpAddress", vpcid=vpc))
    ports = {"protocol": "tcp", "publicport": 80, "privateport": 8080}
    here.done(here.cloud("createPortForwardingRule", ipaddressid=address["id"], virtualmachineid=front["id"], **ports))
    with pytest.raises(BadParameter, match="say which of its tiers"):
        here.cloud(
            "createLoadBalancerRule",
            publicipid=address["id"],
            name="db",
            algorithm="roundrobin",
            publicport=443,
            privateport=443,
        )
    rule = here.done(
        here.cloud("createLoadBalancerRule", publicipid=address["id"], networkid=db["id"], name="db",
                   algorithm="roundrobin", publicport=443, privateport=443)
    )  # fmt: skip
    here.done(here.cloud("assignToLoadBalancerRule", id=rule["id"], virtualmachineids=back["id"]))
    nets = {net.cidr: net for net in facts(here, vpc).networks}
    assert [item.public_start for item in nets["10.1.1.0/24"].forwards] == [80]
    assert [item.members[0].address for item in nets["10.1.2.0/24"].balancers] == [back["nic"][0]["ipaddress"]]
    with pytest.raises(RuleConflict, match="port 443"):
        here.cloud("createPortForwardingRule", ipaddressid=address["id"], virtualmachineid=front["id"],
                   protocol="tcp", publicport=443, privateport=443)  # fmt: skip
    other = here.tier(here.vpc("other", cidr="10.1.0.0/16")["id"], "x")
    with pytest.raises(BadParameter, match="no tier of the VPC"):
        here.cloud("createLoadBalancerRule", publicipid=address["id"], networkid=other["id"], name="x",
                   algorithm="roundrobin", publicport=81, privateport=81)  # fmt: skip
    here.done(here.cloud("disassociateIpAddress", id=address["id"]))
    assert here.there.rows(PortForward) == []
    assert all(not net.forwards and not net.balancers for net in facts(here, vpc).networks)


def test_static_nat_takes_an_address_for_one_tier(here, vpc):
    web = here.tier(vpc)
    front = here.there.deploy(name="front", networkids=web["id"])
    address = here.done(here.cloud("associateIpAddress", vpcid=vpc))["id"]
    here.cloud("enableStaticNat", ipaddressid=address, virtualmachineid=front["id"])
    shown = here.cloud("listPublicIpAddresses", id=address)["publicipaddress"][0]
    assert (shown["associatednetworkname"], shown["vpcid"]) == ("web", vpc)
    assert [item.guest for item in facts(here, vpc).networks[0].static_nats] == [front["nic"][0]["ipaddress"]]
    here.done(here.admin("destroyVirtualMachine", id=front["id"], expunge=True))
    (row,) = here.there.rows(PublicIp, PublicIp.uuid == address)
    assert (row.static_nat, row.network_id, row.state) == (False, None, "Allocated")


def test_a_tier_with_internal_balancing_has_no_public_rules(here, vpc):
    web = here.tier(vpc, networkofferingid=here.offering(TIER_INTERNAL))
    address = here.done(here.cloud("associateIpAddress", vpcid=vpc))["id"]
    with pytest.raises(Unsupported, match="has Internal load balancing"):
        here.cloud("createLoadBalancerRule", publicipid=address, networkid=web["id"], name="x", algorithm="roundrobin",
                   publicport=81, privateport=81)  # fmt: skip


class Ways:
    """A VPC with what all kinds of ways hang on, and how each is made for a CIDR."""

    def __init__(self, here, vpc):
        self.here, self.vpc, self.cloud, self.done = here, vpc, here.cloud, here.done
        self.plugged = gateway(here, vpc)["id"]
        self.source_nat = self.cloud("listPublicIpAddresses", vpcid=vpc)["publicipaddress"][0]["id"]
        self.wireguard = self.done(self.cloud("createWireguardVpn", vpcid=vpc, cidr="10.250.0.0/24"))["id"]
        self.own = self.done(self.cloud("createVpnGateway", vpcid=vpc))["id"]
        self.numbers = itertools.count(10)

    def route(self, cidr):
        self.done(self.cloud("createStaticRoute", gatewayid=self.plugged, cidr=cidr))

    def plug(self, cidr):
        block = IPv4Network(cidr)
        given = {"ipaddress": block[2], "gateway": block[1], "netmask": block.netmask}
        gateway(self.here, self.vpc, vlan=next(self.numbers), **given)

    def peer(self, cidr):
        name = f"s{next(self.numbers)}"
        self.done(self.cloud("addWireguardPeer", wireguardvpnid=self.wireguard, name=name, remotecidrlist=cidr))

    def tunnel(self, cidr):
        terms = {"ipsecpsk": "a very secret key", "ikepolicy": "aes128-sha1;modp1536", "esppolicy": "aes256-sha256"}
        at = f"198.51.100.{next(self.numbers)}"
        office = self.done(self.cloud("createVpnCustomerGateway", gateway=at, cidrlist=cidr, **terms))["id"]
        self.done(self.cloud("createVpnConnection", s2scustomergatewayid=office, s2svpngatewayid=self.own))

    def dial(self, cidr):
        block = IPv4Network(cidr)
        self.done(self.cloud("createRemoteAccessVpn", publicipid=self.source_nat, iprange=f"{block[1]}-{block[9]}"))

    def rows(self):
        return [
            len(self.here.there.rows(table)) for table in (StaticRoute, PrivateGateway, WireguardPeer, VpnConnection)
        ]

    def refused(self, make, cidr):
        before = self.rows()
        with pytest.raises((BadParameter, RuleConflict), match=r"Invalid parameter \w+ value=.*(overlaps|outside)"):
            make(cidr)
        assert before == self.rows()


def test_no_two_ways_of_a_vpc_lead_to_the_same_addresses(here, vpc):
    ways = Ways(here, vpc)
    made = {ways.route: "172.20.0.0/16", ways.peer: "10.8.0.0/16", ways.tunnel: "10.9.0.0/16", ways.dial: "10.7.0.0/24"}
    for make, cidr in made.items():
        make(cidr)
    others = {"plug": "172.16.1.0/24", "wireguard": "10.250.0.0/24", "vpc": "10.1.0.0/16"}
    for make in (ways.route, ways.plug, ways.peer, ways.tunnel):
        for cidr in [*made.values(), *others.values()]:
            if (make, cidr) != (ways.plug, made[ways.route]):  # how to get to the next router, within a wider route
                ways.refused(make, str(next(IPv4Network(cidr).subnets(new_prefix=26))))
    ways.cloud("deleteRemoteAccessVpn", publicipid=ways.source_nat)
    for cidr in {*made.values(), *others.values()} - {made[ways.dial]}:
        ways.refused(ways.dial, cidr)
    ways.dial(made[ways.dial])


def test_a_public_range_that_comes_later_is_in_no_ways_way(here, vpc):
    ways = Ways(here, vpc)
    made = {ways.route: "172.20.0.0/16", ways.peer: "10.8.0.0/16", ways.tunnel: "10.9.0.0/16", ways.dial: "10.7.0.0/24"}
    for make, cidr in made.items():
        make(cidr)
    admin = here.there.cloud.as_user("admin")
    with here.there.cloud.database.write() as session:
        physical = session.scalars(select(PhysicalNetwork)).first()
        physical.traffic_types.append(TrafficType(traffic="Public"))
    for cidr in (*made.values(), "172.16.1.0/24", "192.0.2.0/24"):
        block = next(IPv4Network(cidr).subnets(new_prefix=26))
        given = {"gateway": block[1], "netmask": block.netmask, "startip": block[9], "endip": block[20], "vlan": "600"}
        given |= {"zoneid": here.there.zone, "forvirtualnetwork": True}
        if cidr == "192.0.2.0/24":
            assert admin("createVlanIpRange", **given)["vlan"]["startip"] == "192.0.2.9"
            continue
        with pytest.raises(RuleConflict, match=r"startip .*overlaps"):
            admin("createVlanIpRange", **given)


def test_the_longer_prefix_of_a_route_may_be_a_private_gateways(here, vpc):
    ways = Ways(here, vpc)
    ways.route("172.16.0.0/18")
    ways.route("172.20.0.0/16")
    ways.plug("172.20.1.0/24")
    ways.refused(ways.plug, "172.20.0.0/15")


def test_a_peer_is_not_in_its_own_way(here, vpc):
    ways = Ways(here, vpc)
    ways.peer("10.8.0.0/16")
    (kept,) = ways.cloud("listWireguardPeers")["wireguardpeer"]
    changed = ways.done(ways.cloud("updateWireguardPeer", id=kept["id"], remotecidrlist="10.8.0.0/17"))
    assert changed["remotecidrlist"] == "10.8.0.0/17"
