"""Public addresses: acquired one by one, given back with everything on them, and never anybody else's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from controlplane.errors import (
    BadParameter,
    Forbidden,
    InUse,
    LimitReached,
    NoAddress,
    RuleConflict,
    Unsupported,
)
from controlplane.identity.limits import ResourceCount, ResourceLimit
from controlplane.identity.tags import ResourceTag
from controlplane.network.claims import PortClaim
from controlplane.network.firewall import FirewallRule
from controlplane.network.letting_go import pass_on_stranded
from controlplane.network.load_balancers import LoadBalancer, LoadBalancerMember, StickinessPolicy
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.port_forwarding import PortForward
from controlplane.network.public_ips import PublicIp, acquire, addresses_facts, forget_network
from controlplane.network.routers import Router
from controlplane.zone.zones import Zone


def test_the_lowest_free_address_is_given_with_all_that_the_api_says_of_it(ground, alice):
    network = ground.network("alice")
    answer = alice("associateIpAddress", networkid=network)
    shown = ground.done(answer)
    assert shown["id"] == answer["id"]
    assert shown["ipaddress"] == "203.0.113.10"
    assert (shown["state"], shown["account"], shown["zonename"]) == ("Allocated", "alice", "z")
    assert (shown["associatednetworkid"], shown["associatednetworkname"]) == (network, "web")
    assert (shown["issourcenat"], shown["isstaticnat"], shown["hasrules"], shown["tags"]) == (False, False, False, [])
    assert "vlanid" not in shown
    assert "fordisplay" not in shown
    assert ground.done(alice("associateIpAddress", networkid=network))["ipaddress"] == "203.0.113.11"
    assert "vlanid" in ground.cloud("listPublicIpAddresses", id=answer["id"])["publicipaddress"][0]


def test_an_address_can_be_chosen(ground, alice):
    network = ground.network("alice")
    shown = ground.done(alice("associateIpAddress", networkid=network, ipaddress="203.0.113.20"))
    assert shown["ipaddress"] == "203.0.113.20"
    with pytest.raises(BadParameter, match=r"ipaddress value=203\.0\.113\.20: it is allocated; choose a free one"):
        alice("associateIpAddress", networkid=network, ipaddress="203.0.113.20")
    with pytest.raises(BadParameter, match=r"value=198\.51\.100\.1: it must be an address of a public range of zone z"):
        alice("associateIpAddress", networkid=network, ipaddress="198.51.100.1")
    with pytest.raises(BadParameter, match="must be an IPv4 address"):
        alice("associateIpAddress", networkid=network, ipaddress="10.1.1.300")


def test_a_zone_stands_for_the_only_isolated_network_there(ground, alice):
    with pytest.raises(BadParameter, match="has 0 isolated networks in zone z"):
        alice("associateIpAddress", zoneid=ground.zone)
    network = ground.network("alice")
    assert ground.done(alice("associateIpAddress", zoneid=ground.zone))["associatednetworkid"] == network
    ground.network("alice", "second")
    with pytest.raises(BadParameter, match="has 2 isolated networks"):
        alice("associateIpAddress", zoneid=ground.zone)
    with pytest.raises(BadParameter, match="give networkid, or zoneid"):
        alice("associateIpAddress")


def test_an_admin_acquires_for_the_networks_owner(ground):
    shown = ground.done(ground.cloud("associateIpAddress", networkid=ground.network("alice"), fordisplay=False))
    assert (shown["account"], shown["fordisplay"]) == ("alice", False)


def test_networks_that_use_no_public_address_are_told_so(ground, alice):
    flat = ground.network("alice", "flat", guest_type="L2", services={}, cidr=None, gateway=None)
    with pytest.raises(Unsupported, match="Network flat uses no public addresses"):
        alice("associateIpAddress", networkid=flat)
    with pytest.raises(BadParameter, match="no vpc with this id"):
        alice("associateIpAddress", vpcid="x")


def test_a_disabled_zone_gives_users_nothing(ground, alice):
    network = ground.network("alice")
    with ground.cloud.database.write() as session:
        session.scalars(select(Zone)).one().allocation_state = "Disabled"
    with pytest.raises(Forbidden, match="Zone z is disabled"):
        alice("associateIpAddress", networkid=network)
    ground.done(ground.cloud("associateIpAddress", networkid=network))


def test_dedicated_ranges_come_first_and_are_nobody_elses(ground, alice):
    ground.range("203.0.113.100", 2, owner="alice")
    ground.range("203.0.113.110", 1, domain_id=1, for_system_vms=True)
    network = ground.network("alice")
    given = [ground.done(alice("associateIpAddress", networkid=network))["ipaddress"] for _ in range(3)]
    assert given == ["203.0.113.100", "203.0.113.101", "203.0.113.10"]
    bob, theirs = ground.account("bob"), ground.network("bob", "theirs")
    with pytest.raises(BadParameter, match="open to account bob"):
        bob("associateIpAddress", networkid=theirs, ipaddress="203.0.113.101")
    with pytest.raises(BadParameter, match="open to account bob"):
        bob("associateIpAddress", networkid=theirs, ipaddress="203.0.113.110")


def test_fifty_at_once_get_fifty_addresses_and_never_a_dedicated_one(ground, alice):
    ground.range("203.0.113.100", 40)
    ground.range("203.0.113.200", 20, owner="bob")
    network = ground.network("alice")
    with ground.cloud.database.write() as session:
        owner = session.scalars(select(Network.account_id).where(Network.uuid == network)).one()
        session.add(ResourceLimit(owner="Account", owner_id=owner, kind="public_ip", max=-1))
    with ThreadPoolExecutor(10) as pool:
        ids = list(pool.map(lambda _: alice("associateIpAddress", networkid=network)["id"], range(50)))
    rows = ground.rows(PublicIp, PublicIp.uuid.in_(ids))
    assert len({row.address for row in rows}) == 50
    assert not [row for row in rows if row.number >= int(rows[0].number) // 256 * 256 + 200]
    with ground.cloud.database.read() as session:
        counts = session.scalars(select(ResourceCount.count).where(ResourceCount.kind == "public_ip")).all()
    assert set(counts) == {50}


def test_an_empty_pool_and_a_full_account_are_refused(ground, alice):
    network = ground.network("alice")
    for _ in range(20):
        alice("associateIpAddress", networkid=network)
    bob, theirs = ground.account("bob"), ground.network("bob", "theirs")
    with pytest.raises(NoAddress, match="Zone z has no free public address for account bob: 1 ranges are open to it"):
        bob("associateIpAddress", networkid=theirs)
    ground.range("203.0.113.100", 2)
    with pytest.raises(LimitReached, match=r"Account Name = alice in .* Account Resource Limit = 20,"):
        alice("associateIpAddress", networkid=network)


def test_the_networks_of_others_are_as_if_they_were_not(ground):
    network = ground.network("alice")
    address = ground.address(ground.account("alice"), network)
    bob = ground.account("bob")
    missing = "no network with this id exists, or it is not yours to use"
    with pytest.raises(BadParameter, match=missing):
        bob("associateIpAddress", networkid=network)
    for command in ("disassociateIpAddress", "updateIpAddress", "releaseIpAddress", "reserveIpAddress"):
        with pytest.raises(BadParameter, match="no public ip with this id exists"):
            bob(command, id=address)
    with pytest.raises(BadParameter, match="0 addresses in use"):
        bob("disassociateIpAddress", ipaddress="203.0.113.10")
    assert bob("listPublicIpAddresses") == {}
    assert bob("listPublicIpAddresses", listall=True) == {}


def full(ground, alice, network):
    """An address with one rule of each kind that goes with others, and tags."""
    ip = ground.address(alice, network)
    vm = ground.machine(network, "vm1", "10.1.1.10")
    common = {"ipaddressid": ip, "protocol": "tcp", "virtualmachineid": vm}
    alice(
        "createPortForwardingRule", publicport=2000, publicendport=2009, privateport=1000, privateendport=1009, **common
    )
    balancer = {"algorithm": "roundrobin", "name": "lb", "publicport": 80, "privateport": 8080, "publicipid": ip}
    rule = alice("createLoadBalancerRule", **balancer)["id"]
    alice("assignToLoadBalancerRule", id=rule, virtualmachineids=vm)
    alice("createLBStickinessPolicy", lbruleid=rule, name="s", methodname="LbCookie")
    alice("createLBHealthCheckPolicy", lbruleid=rule)
    alice("createFirewallRule", ipaddressid=ip, protocol="icmp")
    for kind, one in (("LoadBalancer", rule), ("PublicIpAddress", ip)):
        tag = {"command": "createTags", "resourcetype": kind, "resourceids": one}
        alice.raw(tag | {"tags[0].key": "a", "tags[0].value": "b"})
    return ip


LEFT = (PortForward, PortClaim, FirewallRule, LoadBalancer, LoadBalancerMember, StickinessPolicy, ResourceTag)


def test_giving_an_address_back_takes_everything_on_it_along(ground, alice):
    network = ground.network("alice")
    ip = full(ground, alice, network)
    assert all(ground.rows(table) for table in LEFT)
    ground.done(alice("disassociateIpAddress", id=ip))
    assert not [table for table in LEFT if ground.rows(table)]
    (row,) = ground.rows(PublicIp, PublicIp.uuid == ip)
    assert (row.state, row.account_id, row.domain_id, row.network_id, row.allocated) == ("Free", None, None, None, None)
    with ground.cloud.database.read() as session:
        assert session.scalar(select(func.sum(ResourceCount.count)).where(ResourceCount.kind == "public_ip")) == 0
    assert ground.address(alice, network) == ip


def test_nobody_gets_an_address_that_a_router_may_still_answer_for(ground, alice):
    network = ground.network("alice")
    target = ground.router(network)
    ip = ground.address(alice, network)
    ground.settle(target)
    answer = alice("disassociateIpAddress", ipaddress="203.0.113.10")
    assert ground.job(answer)[0] == 0
    assert ground.rows(PublicIp, PublicIp.uuid == ip)[0].state == "Releasing"
    assert alice("listPublicIpAddresses") == {}
    theirs = ground.network("bob", "theirs")
    bob = ground.account("bob")
    with pytest.raises(BadParameter, match="it is releasing"):
        bob("associateIpAddress", networkid=theirs, ipaddress="203.0.113.10")
    ground.settle(target, failure="line 1: no")
    assert ground.rows(PublicIp, PublicIp.uuid == ip)[0].state == "Releasing"
    ground.settle(target)
    assert ground.rows(PublicIp, PublicIp.uuid == ip)[0].state == "Free"
    assert ground.done(bob("associateIpAddress", networkid=theirs))["ipaddress"] == "203.0.113.10"


def test_a_router_that_is_gone_holds_no_address_for_ever(ground, alice):
    network = ground.network("alice")
    ground.router(network)
    ip = ground.address(alice, network)
    alice("disassociateIpAddress", id=ip)
    with ground.cloud.database.write() as session:
        pass_on_stranded(session)
        assert session.scalars(select(PublicIp.state).where(PublicIp.uuid == ip)).one() == "Releasing"
        session.scalars(select(Router)).one().target_id = None
        session.flush()
        pass_on_stranded(session)
        assert session.scalars(select(PublicIp.state).where(PublicIp.uuid == ip)).one() == "Free"


def test_the_source_nat_address_stays_with_its_network(ground, alice):
    network = ground.network("alice")
    with ground.cloud.database.write() as session:
        row = session.scalars(select(Network)).one()
        from controlplane.identity.accounts import Account

        owner = session.get_one(Account, row.account_id)
        ip = acquire(session, row, owner, source_nat=True)
        assert acquire(session, row, owner, source_nat=True) is ip
        uuid = ip.uuid
    with pytest.raises(RuleConflict, match=r"203\.0\.113\.10 is the source NAT address of its network"):
        alice("disassociateIpAddress", id=uuid)
    shown = alice("listPublicIpAddresses", issourcenat=True)["publicipaddress"]
    assert [one["id"] for one in shown] == [uuid]
    ground.address(alice, network)
    with ground.cloud.database.write() as session:
        facts = addresses_facts(session, session.scalars(select(Network)).one())
        assert [(fact.address, fact.prefix, fact.gateway, fact.source_nat) for fact in facts] == [
            ("203.0.113.10", 24, "203.0.113.1", True),
            ("203.0.113.11", 24, "203.0.113.1", False),
        ]
        assert {fact.network for fact in facts} == {network}
        forget_network(session, session.scalars(select(Network)).one())
    assert not ground.rows(PublicIp, PublicIp.state != "Free")


def test_reserved_addresses_wait_for_their_account(ground, alice):
    network = ground.network("alice")
    free = alice("listPublicIpAddresses", state="Free")
    assert free["count"] == 20
    assert "account" not in free["publicipaddress"][0]
    wanted = free["publicipaddress"][3]
    assert alice("reserveIpAddress", id=wanted["id"])["ipaddress"]["state"] == "Reserved"
    with pytest.raises(BadParameter, match="is reserved already"):
        alice("reserveIpAddress", id=wanted["id"])
    bob = ground.account("bob")
    with pytest.raises(BadParameter, match="it is reserved; choose a free one"):
        bob("associateIpAddress", networkid=ground.network("bob", "theirs"), ipaddress=wanted["ipaddress"])
    with pytest.raises(BadParameter, match="is reserved; associate it with a network first"):
        alice("createFirewallRule", ipaddressid=wanted["id"], protocol="tcp")
    shown = ground.done(alice("associateIpAddress", networkid=network, ipaddress=wanted["ipaddress"]))
    assert shown["id"] == wanted["id"]
    with pytest.raises(BadParameter, match="is allocated, not reserved"):
        alice("releaseIpAddress", id=wanted["id"])
    alice("reserveIpAddress", id=free["publicipaddress"][4]["id"])
    alice("releaseIpAddress", id=free["publicipaddress"][4]["id"])
    with ground.cloud.database.read() as session:
        counts = session.scalars(select(ResourceCount.count).where(ResourceCount.kind == "public_ip")).all()
    assert set(counts) == {1}


def test_an_address_can_be_given_another_id_by_an_admin(ground, alice):
    ip = full(ground, alice, ground.network("alice"))
    with pytest.raises(BadParameter, match="customid may only be given by a root admin"):
        alice("updateIpAddress", id=ip, customid="11111111-1111-4111-8111-111111111111")
    with pytest.raises(BadParameter, match="customid value=x: it must be a UUID"):
        ground.cloud("updateIpAddress", id=ip, customid="x")
    changed = ground.done(ground.cloud("updateIpAddress", id=ip, customid="11111111-1111-4111-8111-111111111111"))
    assert changed["id"] == "11111111-1111-4111-8111-111111111111"
    assert changed["tags"][0]["key"] == "a"


def test_the_list_filters_as_asked(ground, alice):
    network = ground.network("alice")
    full(ground, alice, network)
    other = ground.address(alice, ground.network("alice", "second", cidr="10.2.0.0/24", gateway="10.2.0.1"))

    def listed(**filters):
        return {one["ipaddress"][-2:] for one in alice("listPublicIpAddresses", **filters).get("publicipaddress", [])}

    assert listed() == {"10", "11"}
    assert listed(forloadbalancing=True) == {"10"}
    assert listed(forloadbalancing=False) == {"11"}
    assert listed(associatednetworkid=network) == {"10"}
    assert listed(networkid=network) == {"10"}
    assert listed(id=other) == {"11"}
    assert listed(ipaddress="203.0.113.11") == {"11"}
    assert listed(isstaticnat=True) == set()
    assert listed(forvirtualnetwork=True) == {"10", "11"}
    assert listed(forvirtualnetwork=False) == listed(forsystemvms=True) == listed(forprovider=True) == set()
    assert listed(state="allocated") == {"10", "11"}
    assert len(listed(allocatedonly=False)) == 20
    assert listed(zoneid=ground.zone, keyword="113.10") == {"10"}
    assert alice("listPublicIpAddresses", retrieveonlyresourcecount=True) == {"count": 2}
    assert {one["hasrules"] for one in alice("listPublicIpAddresses", id=other)["publicipaddress"]} == {False}
    tagged = alice.raw({"command": "listPublicIpAddresses", "tags[0].key": "a", "tags[0].value": "b"})
    assert [one["ipaddress"] for one in tagged["publicipaddress"]] == ["203.0.113.10"]
    assert ground.cloud("listPublicIpAddresses", listall=True, vlanid=ground.cloud(
        "listPublicIpAddresses", listall=True)["publicipaddress"][0]["vlanid"])["count"] == 2  # fmt: skip


def test_a_longer_list_costs_no_more_queries(ground, alice):
    network = ground.network("alice")
    for _ in range(2):
        ground.address(alice, network)
    few = ground.queries(lambda: alice("listPublicIpAddresses"))
    for _ in range(15):
        ground.address(alice, network)
    assert ground.queries(lambda: alice("listPublicIpAddresses")) == few


def test_a_routers_interface_on_a_vlan_goes_with_the_last_address_there(ground, alice):
    network = ground.network("alice")
    first = ground.range("203.0.113.100", 2, vlan="50", gateway="203.0.113.97", netmask="255.255.255.240")
    ground.range("203.0.113.104", 2, vlan="50", gateway="203.0.113.97", netmask="255.255.255.240")
    ground.address(alice, network)
    target = ground.router(network)
    one = ground.address(alice, network, ipaddress="203.0.113.100")
    two = ground.address(alice, network, ipaddress="203.0.113.104")
    public = [row.range_id for row in ground.rows(Nic, Nic.traffic == "Public")]
    assert len(public) == 2

    alice("disassociateIpAddress", id=one)
    with pytest.raises(InUse, match=r"addresses are in use: 203\.0\.113\.100"):
        ground.cloud("deleteVlanIpRange", id=first)
    ground.settle(target)
    assert ground.cloud("deleteVlanIpRange", id=first) == {"success": True}  # the other range of its VLAN has the NIC

    alice("disassociateIpAddress", id=two)
    assert len(ground.rows(Nic, Nic.traffic == "Public")) == 2, "the router may still answer on it"
    ground.settle(target)
    assert [row.range_id for row in ground.rows(Nic, Nic.traffic == "Public")] == [min(public)]
    ground.settle(target)
    assert [row.state for row in ground.rows(PublicIp, PublicIp.address == "203.0.113.104")] == ["Free"]
