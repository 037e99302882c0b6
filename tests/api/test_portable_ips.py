"""Portable addresses: the region's, moved from network to network, and never two networks' at once."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from controlplane.errors import BadParameter, InUse, LimitReached, NoAddress, RuleConflict, Unsupported
from controlplane.events.events import Event
from controlplane.identity.limits import ResourceCount, ResourceLimit
from controlplane.network.firewall import FirewallRule, ingress_facts
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.public_ips import PublicIp, VlanRange, addresses_facts
from controlplane.network.static_nat import IpForward, static_nat_facts
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType
from controlplane.zone.zones import Zone
from tests.api.ground import lay

RANGE = {"gateway": "198.51.100.1", "netmask": "255.255.255.0"}


@pytest.fixture
def ground(cloud):
    laid = lay(cloud)
    with cloud.database.write() as session:
        session.add(TrafficType(physical_network_id=laid.numbers["physical"], traffic="Public"))
    return laid


@pytest.fixture
def pool(ground):
    """A portable range of four addresses on VLAN 7."""
    return portable(ground)["id"]


@pytest.fixture
def alice(ground):
    return ground.account("alice")


def portable(ground, first="198.51.100.10", last="198.51.100.13", vlan="7", **more):
    made = RANGE | {"regionid": 1, "startip": first, "endip": last, "vlan": vlan} | more
    return ground.done(ground.cloud("createPortableIpRange", **made))


def taken(ground, cloud, network, **more):
    return ground.done(cloud("associateIpAddress", networkid=network, isportable=True, **more))


def row_of(ground, ip):
    (row,) = ground.rows(PublicIp, PublicIp.uuid == ip["id"])
    return row


def known_to(ground, network):
    """The public addresses and the static NATs that a network's router is told of."""
    with ground.cloud.database.read() as session:
        row = session.get_one(Network, ground.numbers[network])
        nats = [(nat[1], nat[2]) for nat in static_nat_facts(session, row.id)]
        return [fact.address for fact in addresses_facts(session, row)], nats


def test_this_cloud_is_one_region(ground, alice):
    (region,) = alice("listRegions")["region"]
    assert (region["id"], region["name"], region["portableipserviceenabled"]) == (1, "Local", False)
    changed = ground.cloud("updateRegion", id=1, name="North", endpoint="https://north.example/client/")["region"]
    assert (changed["name"], changed["endpoint"]) == ("North", "https://north.example/client/")
    with pytest.raises(BadParameter, match="id value=2: this cloud is region 1, the only one"):
        ground.cloud("updateRegion", id=2, name="South")
    portable(ground)
    assert alice("listRegions", name="North")["region"][0]["portableipserviceenabled"]


def test_a_range_is_listed_with_its_addresses_and_who_has_them(ground, pool, alice):
    network = ground.network("alice")
    ip = taken(ground, alice, network)
    assert (ip["ipaddress"], ip["isportable"], ip["associatednetworkid"]) == ("198.51.100.10", True, network)
    assert not ground.done(alice("associateIpAddress", networkid=network))["isportable"]
    (shown,) = ground.cloud("listPortableIpRanges", regionid=1)["portableiprange"]
    assert (shown["id"], shown["vlan"], shown["startip"], shown["regionid"]) == (pool, "vlan://7", "198.51.100.10", 1)
    assert [one["state"] for one in shown["portableipaddress"]] == ["Allocated", "Free", "Free", "Free"]
    first = shown["portableipaddress"][0]
    assert (first["ipaddress"], first["networkid"], first["zoneid"]) == ("198.51.100.10", network, ground.zone)
    assert ground.cloud("listPortableIpRanges", regionid=2) == {}
    assert ground.cloud("listPortableIpRanges", keyword="nowhere") == {}


def test_what_a_portable_range_is_in_a_zone_is_nobodys_to_see(ground, pool, alice):
    before = ground.cloud("listVlanIpRanges")["count"]
    free = alice("listPublicIpAddresses", state="Free")["count"]
    taken(ground, alice, ground.network("alice"))
    assert ground.cloud("listVlanIpRanges")["count"] == before
    (hidden,) = ground.rows(VlanRange, VlanRange.portable_range_id.is_not(None))
    with pytest.raises(BadParameter, match="no vlan range with this id"):
        ground.cloud("deleteVlanIpRange", id=hidden.uuid)
    (ip,) = alice("listPublicIpAddresses")["publicipaddress"]
    ground.done(alice("disassociateIpAddress", id=ip["id"]))
    for caller in (alice, ground.cloud):
        assert caller("listPublicIpAddresses", state="Free", listall=True)["count"] == free


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"regionid": 2}, "regionid value=2: this cloud is region 1"),
        ({"first": "198.51.100.1"}, "198.51.100.1"),
        ({"vlan": "5000"}, "vlan value=5000: it must be untagged, or a VLAN from 1 to 4094"),
        ({"last": "198.51.101.1"}, "198.51.101.1"),
        ({"first": "203.0.113.12", "last": "203.0.113.13", "gateway": "203.0.113.1", "vlan": "untagged"}, "overlap"),
        ({"first": "203.0.113.99", "last": "203.0.113.99", "gateway": "203.0.113.1"}, "is on VLAN untagged already"),
    ],
)
def test_a_range_that_cannot_be_is_refused(ground, wrong, sentence):
    with pytest.raises((BadParameter, RuleConflict), match=sentence):
        portable(ground, **wrong)


def test_ranges_of_zones_keep_clear_of_portable_ones(ground, pool):
    wanted = RANGE | {"zoneid": ground.zone, "forvirtualnetwork": True, "vlan": "7"}
    with pytest.raises(RuleConflict, match=r"overlap the range 198\.51\.100\.10-198\.51\.100\.13"):
        ground.cloud("createVlanIpRange", startip="198.51.100.12", endip="198.51.100.20", **wanted)
    ground.cloud("createVlanIpRange", startip="198.51.100.20", endip="198.51.100.30", **wanted)
    with pytest.raises(RuleConflict, match="overlap the range"):
        portable(ground, "198.51.100.30", "198.51.100.31")


def test_a_wanted_address_is_given_once(ground, pool, alice):
    network = ground.network("alice")
    assert taken(ground, alice, network, ipaddress="198.51.100.12", regionid=1)["ipaddress"] == "198.51.100.12"
    with pytest.raises(BadParameter, match=r"198\.51\.100\.12: it is allocated; choose a free one"):
        taken(ground, alice, network, ipaddress="198.51.100.12")
    with pytest.raises(BadParameter, match="in none of the 1 portable ranges"):
        taken(ground, alice, network, ipaddress="198.51.100.99")
    with pytest.raises(BadParameter, match="regionid value=9"):
        taken(ground, alice, network, regionid=9)
    for _ in range(3):
        taken(ground, alice, network)
    with pytest.raises(NoAddress, match="No portable address is free for account alice"):
        taken(ground, alice, network)


def test_a_range_goes_when_nobody_has_an_address_of_it(ground, pool, alice):
    ip = taken(ground, alice, ground.network("alice"))
    with pytest.raises(InUse, match=r"accounts have 198\.51\.100\.10 of it"):
        ground.cloud("deletePortableIpRange", id=pool)
    ground.done(alice("disassociateIpAddress", id=ip["id"]))
    ground.done(ground.cloud("deletePortableIpRange", id=pool))
    assert ground.cloud("listPortableIpRanges") == {}
    assert not ground.rows(VlanRange, VlanRange.portable_range_id.is_not(None))
    assert not ground.rows(PublicIp, PublicIp.portable_range_id.is_not(None))


def test_portable_addresses_count_and_their_events_say_what_they_are(ground, pool, alice):
    network = ground.network("alice")
    ip = taken(ground, alice, network)
    with ground.cloud.database.write() as session:
        owner = session.get_one(Network, ground.numbers[network]).account_id
        session.add(ResourceLimit(owner="Account", owner_id=owner, kind="public_ip", max=1))
    with pytest.raises(LimitReached):
        taken(ground, alice, network)
    ground.done(alice("disassociateIpAddress", id=ip["id"]))
    types = {event.type for event in ground.rows(Event)}
    assert {"PORTABLE.IP.RANGE.CREATE", "PORTABLE.IP.ASSIGN", "PORTABLE.IP.RELEASE"} <= types
    assert types <= {one["name"] for one in alice("listEventTypes")["eventtype"]}
    with ground.cloud.database.read() as session:
        assert session.scalar(select(func.sum(ResourceCount.count)).where(ResourceCount.kind == "public_ip")) == 0


@pytest.fixture
def two(ground, pool, alice):
    """An address that is vm1's on the network web, and vm2 on the network db; both have routers."""
    web, db = ground.network("alice"), ground.network("alice", "db", cidr="10.1.2.0/24", gateway="10.1.2.1")
    vm1, vm2 = ground.machine(web, "vm1", "10.1.1.10"), ground.machine(db, "vm2", "10.1.2.10")
    routers = ground.router(web), ground.router(db)
    ip = alice("associateIpAddress", networkid=web, isportable=True)
    alice("enableStaticNat", ipaddressid=ip["id"], virtualmachineid=vm1)
    for router in routers:
        ground.settle(router)
    return {"web": web, "db": db, "vm1": vm1, "vm2": vm2, "routers": routers, "ip": ip}


def test_the_new_router_answers_when_the_old_one_has_let_go(ground, alice, two):
    alice("createIpForwardingRule", ipaddressid=two["ip"]["id"], protocol="tcp", startport=80)
    ground.settle(two["routers"][0])
    assert known_to(ground, two["web"]) == (["198.51.100.10"], [("198.51.100.10", "10.1.1.10")])
    alice("enableStaticNat", ipaddressid=two["ip"]["id"], virtualmachineid=two["vm2"])
    (shown,) = alice("listPublicIpAddresses", id=two["ip"]["id"])["publicipaddress"]
    assert (shown["state"], shown["associatednetworkid"]) == ("Allocating", two["db"])
    assert (shown["virtualmachineid"], shown["vmipaddress"]) == (two["vm2"], "10.1.2.10")
    assert known_to(ground, two["web"]) == known_to(ground, two["db"]) == ([], [])
    with ground.cloud.database.read() as session:
        assert not ingress_facts(session, ground.numbers[two["db"]]), "its rules come with it"
    ground.settle(two["routers"][1])
    assert row_of(ground, two["ip"]).state == "Allocating", "it is the old router that must let go"
    ground.settle(two["routers"][0], failure="it does not want to")
    assert row_of(ground, two["ip"]).state == "Allocating"
    ground.settle(two["routers"][0])
    row = row_of(ground, two["ip"])
    assert (row.state, row.left_network_id, row.left_vpc_id) == ("Allocated", None, None)
    assert known_to(ground, two["db"]) == (["198.51.100.10"], [("198.51.100.10", "10.1.2.10")])
    with ground.cloud.database.read() as session:
        assert [rule.address for rule in ingress_facts(session, ground.numbers[two["db"]])] == ["198.51.100.10"]
    assert {rule.network_id for rule in ground.rows(FirewallRule)} == {ground.numbers[two["db"]]}
    assert {rule.network_id for rule in ground.rows(IpForward)} == {ground.numbers[two["db"]]}


def test_the_interface_on_its_vlan_stays_until_the_address_has_left(ground, alice, two):
    def vlans(network):
        with ground.cloud.database.read() as session:
            ranges = select(VlanRange.vlan).join(Nic, Nic.range_id == VlanRange.id)
            from controlplane.network.routers import Router

            mine = Router.network_id == ground.numbers[network]
            return set(session.scalars(ranges.join(Router, Nic.router_id == Router.id).where(mine)))

    assert (vlans(two["web"]), vlans(two["db"])) == ({"7"}, set())
    alice("enableStaticNat", ipaddressid=two["ip"]["id"], virtualmachineid=two["vm2"])
    assert (vlans(two["web"]), vlans(two["db"])) == ({"7"}, {"7"})
    ground.settle(two["routers"][0])
    assert (vlans(two["web"]), vlans(two["db"])) == (set(), {"7"})
    alice("disassociateIpAddress", id=two["ip"]["id"])
    assert vlans(two["db"]) == {"7"}
    ground.settle(two["routers"][1])
    assert vlans(two["db"]) == set()
    assert row_of(ground, two["ip"]).state == "Free"


def test_an_address_that_turns_back_at_once_is_where_it_was(ground, alice, two):
    alice("enableStaticNat", ipaddressid=two["ip"]["id"], virtualmachineid=two["vm2"])
    alice("enableStaticNat", ipaddressid=two["ip"]["id"], virtualmachineid=two["vm1"])
    row = row_of(ground, two["ip"])
    assert (row.state, row.left_network_id, row.network_id) == ("Allocated", None, ground.numbers[two["web"]])
    assert known_to(ground, two["web"]) == (["198.51.100.10"], [("198.51.100.10", "10.1.1.10")])


def test_an_address_given_back_while_it_moves_is_free_when_the_old_router_let_go(ground, alice, two):
    alice("enableStaticNat", ipaddressid=two["ip"]["id"], virtualmachineid=two["vm2"])
    answer = alice("disassociateIpAddress", id=two["ip"]["id"])
    ground.settle(two["routers"][1])
    ground.done(answer)
    assert row_of(ground, two["ip"]).state == "Releasing"
    ground.settle(two["routers"][0])
    assert row_of(ground, two["ip"]).state == "Free"


def test_an_address_with_rules_of_its_network_does_not_move(ground, pool, alice):
    web, db = ground.network("alice"), ground.network("alice", "db", cidr="10.1.2.0/24", gateway="10.1.2.1")
    vm1, vm2 = ground.machine(web, "vm1", "10.1.1.10"), ground.machine(db, "vm2", "10.1.2.10")
    ip = taken(ground, alice, web)
    rule = {"protocol": "tcp", "publicport": 80, "privateport": 80, "ipaddressid": ip["id"], "virtualmachineid": vm1}
    made = alice("createPortForwardingRule", **rule)
    with pytest.raises(RuleConflict, match="is used by port forwarding rule"):
        alice("enableStaticNat", ipaddressid=ip["id"], virtualmachineid=vm2)
    alice("deletePortForwardingRule", id=made["id"])
    alice("enableStaticNat", ipaddressid=ip["id"], virtualmachineid=vm2)
    assert row_of(ground, ip).state == "Allocated", "no router had it"


def test_only_to_where_it_can_be_used(ground, pool, alice):
    web = ground.network("alice")
    ip, plain = taken(ground, alice, web), ground.address(alice, web)
    other = ground.network("alice", "db", cidr="10.1.2.0/24", gateway="10.1.2.1")
    bare = ground.network("alice", "bare", cidr="10.1.3.0/24", services={"Dhcp": ["VirtualRouter"]})
    vm = ground.machine(other, "vm2", "10.1.2.10")
    with pytest.raises(BadParameter, match="has no interface on network web"):
        alice("enableStaticNat", ipaddressid=plain, virtualmachineid=vm)
    with pytest.raises(Unsupported, match="StaticNat"):
        alice("enableStaticNat", ipaddressid=ip["id"], virtualmachineid=ground.machine(bare, "vm3", "10.1.3.10"))
    bob = ground.network("bob", "his", cidr="10.1.4.0/24", gateway="10.1.4.1")
    with pytest.raises((BadParameter, Exception), match="another account"):
        ground.cloud("enableStaticNat", ipaddressid=ip["id"], virtualmachineid=ground.machine(bob, "vm4", "10.1.4.10"))


def test_an_address_moves_to_another_zone(ground, pool, alice):
    web = ground.network("alice")
    ip = taken(ground, alice, web)
    with ground.cloud.database.write() as session:
        zone = Zone(name="y", network_type="Advanced", allocation_state="Enabled", dns1="192.0.2.53", internal_dns1="")
        session.add(zone)
        session.flush()
        physical = PhysicalNetwork(name="q", zone_id=zone.id, state="Enabled", isolation="VXLAN", vnets=[[1, 99]])
        session.add(physical)
        session.flush()
        session.add(TrafficType(physical_network_id=physical.id, traffic="Public"))
        there = {"zone": zone.id, "physical": physical.id}
        uuid = zone.uuid
    ground.numbers |= there
    far = ground.network("alice", "far", cidr="10.1.2.0/24", gateway="10.1.2.1")
    vm = ground.machine(far, "vm2", "10.1.2.10")
    alice("enableStaticNat", ipaddressid=ip["id"], virtualmachineid=vm)
    (shown,) = alice("listPublicIpAddresses", id=ip["id"])["publicipaddress"]
    assert (shown["zoneid"], shown["zonename"], shown["associatednetworkid"]) == (uuid, "y", far)
    assert len(ground.rows(VlanRange, VlanRange.portable_range_id.is_not(None))) == 2


def test_lists_ask_no_more_for_more_addresses(ground, alice):
    portable(ground)
    network = ground.network("alice")
    taken(ground, alice, network)
    few = ground.queries(lambda: ground.cloud("listPortableIpRanges"))
    portable(ground, "198.51.100.20", "198.51.100.23")
    for _ in range(5):
        taken(ground, alice, network)
    assert ground.queries(lambda: ground.cloud("listPortableIpRanges")) == few


def test_an_address_waits_for_both_halves_of_a_pair(ground, alice, two):
    other = ground.router(two["web"])
    ground.settle(other)
    alice("enableStaticNat", ipaddressid=two["ip"]["id"], virtualmachineid=two["vm2"])
    ground.settle(two["routers"][0])
    assert row_of(ground, two["ip"]).state == "Allocating", "the other half may still answer for it"
    ground.settle(other)
    assert row_of(ground, two["ip"]).state == "Allocated"
