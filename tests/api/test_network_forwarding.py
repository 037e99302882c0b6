"""Port forwarding, static NAT and IP forwarding: which packets lead to which guest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from controlplane.errors import ApiError, BadParameter, Forbidden, RuleConflict, Unsupported
from controlplane.network.claims import PortClaim
from controlplane.network.firewall import FirewallRule
from controlplane.network.nics import Nic
from controlplane.network.port_forwarding import PortForward, forward_facts
from controlplane.network.public_ips import PublicIp, forget_nic
from controlplane.network.static_nat import IpForward, static_nat_facts
from drivers import vocabulary
from tests.api.ground import SERVICES


@pytest.fixture
def vm(ground, network):
    return ground.machine(network, "vm1", "10.1.1.10", "10.1.1.11")


@pytest.fixture
def forward(ground, alice, ip, vm):
    def create(cloud=alice, **parameters):
        given = {"ipaddressid": ip, "virtualmachineid": vm, "protocol": "tcp", "publicport": 22, "privateport": 22}
        return cloud("createPortForwardingRule", **(given | parameters))

    return create


def forget(ground, vm):
    with ground.cloud.database.write() as session:
        nic = session.scalars(select(Nic).where(Nic.vm_id == ground.numbers[vm])).one()
        return [target.id for target in forget_nic(session, nic)]


def test_a_range_is_forwarded_and_its_firewall_opened(ground, alice, network, ip, vm, forward):
    answer = forward(publicport=2000, publicendport=2009, privateport=1000, privateendport=1009,
                     vmguestip="10.1.1.11", cidrlist="198.51.100.0/24", networkid=network)  # fmt: skip
    rule = ground.done(answer)
    assert rule == {
        "id": answer["id"],
        "protocol": "tcp",
        "publicport": "2000",
        "publicendport": "2009",
        "privateport": "1000",
        "privateendport": "1009",
        "virtualmachineid": vm,
        "virtualmachinename": "vm1",
        "virtualmachinedisplayname": "vm1",
        "vmguestip": "10.1.1.11",
        "ipaddress": "203.0.113.10",
        "ipaddressid": ip,
        "networkid": network,
        "cidrlist": "198.51.100.0/24",
        "state": "Active",
        "tags": [],
    }
    (opened,) = alice("listFirewallRules")["firewallrule"]
    assert (opened["protocol"], opened["startport"], opened["endport"], opened["cidrlist"]) == (
        "tcp", 2000, 2009, "0.0.0.0/0")  # fmt: skip
    assert alice("listPortForwardingRules", ipaddressid=ip, networkid=network, id=answer["id"])["count"] == 1
    with ground.cloud.database.read() as session:
        assert forward_facts(session, ground.numbers[network]) == (
            vocabulary.PortForward(
                rule["id"], "203.0.113.10", "tcp", 2000, 2009, "10.1.1.11", 1000, 1009, ("198.51.100.0/24",)
            ),
        )
    ground.done(alice("deletePortForwardingRule", id=answer["id"]))
    assert not [table for table in (PortForward, PortClaim, FirewallRule) if ground.rows(table)]


def test_the_firewall_is_left_alone_where_it_is_asked_or_open_already(ground, alice, ip, forward):
    forward(publicport=1, openfirewall=False)
    assert alice("listFirewallRules") == {}
    there = alice("createFirewallRule", ipaddressid=ip, protocol="tcp", startport=2, cidrlist="10.0.0.0/8")["id"]
    rule = forward(publicport=2)["id"]
    assert alice("listFirewallRules")["count"] == 1
    alice("deletePortForwardingRule", id=rule)
    assert alice("listFirewallRules")["firewallrule"][0]["id"] == there
    wide = alice("createFirewallRule", ipaddressid=ip, protocol="tcp", startport=10, endport=20)["id"]
    with pytest.raises(RuleConflict, match=wide):
        forward(publicport=15)
    assert len(ground.rows(PortForward)) == 1
    forward(publicport=15, openfirewall=False)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"protocol": "icmp"}, "protocol value=icmp: it must be one of tcp, udp"),
        ({"publicport": 0}, "publicport value=0: it must be 1 to 65535"),
        ({"privateport": 70000}, "privateport value=70000: it must be 1 to 65535"),
        ({"publicport": 9, "publicendport": 8}, "publicendport value=8: the range must not end"),
        ({"publicendport": 30}, "public ports 22-30 and private port 22 must be as many"),
        ({"vmguestip": "10.1.1.12"}, r"vmguestip value=10\.1\.1\.12: the machine has 10\.1\.1\.10, 10\.1\.1\.11 there"),
        ({"vmguestip": "10.1.1.10\n"}, "vmguestip value="),
        ({"cidrlist": "any"}, "cidrlist value=any"),
        ({"privateport": "x"}, "privateport value=x: it must be a whole number"),
    ],
)
def test_what_makes_no_sense_is_refused(ground, forward, parameters, words):
    with pytest.raises(BadParameter, match=words):
        forward(**parameters)
    assert not ground.rows(PortClaim)


def test_a_guest_must_be_on_the_network_and_the_owners(ground, alice, network, ip, forward):
    second = ground.network("alice", "second", cidr="10.2.0.0/24", gateway="10.2.0.1")
    elsewhere = ground.machine(second, "elsewhere", "10.2.0.10")
    with pytest.raises(BadParameter, match="elsewhere has no interface on network web"):
        forward(virtualmachineid=elsewhere)
    gone = ground.machine(network, "gone", "10.1.1.20", state="Destroyed")
    with pytest.raises(BadParameter, match="gone is Destroyed"):
        forward(virtualmachineid=gone)
    with pytest.raises(BadParameter, match=r"203\.0\.113\.10 is associated with another network"):
        forward(networkid=second)
    theirs = ground.machine(ground.network("bob", "theirs"), "theirs", "10.1.1.10")
    with pytest.raises(Forbidden, match="theirs belongs to another account"):
        forward(cloud=ground.cloud, virtualmachineid=theirs)
    with pytest.raises(BadParameter, match="no virtual machine with this id exists"):
        forward(virtualmachineid=theirs)
    (free,) = ground.rows(PublicIp, PublicIp.address == "203.0.113.25")
    with pytest.raises(BadParameter, match=r"203\.0\.113\.25 is free; associate it with a network first"):
        forward(ipaddressid=free.uuid)


def test_two_rules_never_share_a_port(ground, alice, ip, forward):
    first = forward(publicport=100, publicendport=199, privateport=100, privateendport=199)["id"]
    with pytest.raises(RuleConflict, match=f"conflicts with port forwarding rule {first}, which has port 150"):
        forward(publicport=150)
    with pytest.raises(RuleConflict, match="tcp ports 50-100 conflicts with"):
        forward(publicport=50, publicendport=100, privateport=50, privateendport=100)
    forward(publicport=150, protocol="udp")
    forward(publicport=200)
    balancer = {"algorithm": "source", "name": "lb", "publicport": 150, "privateport": 80, "publicipid": ip}
    with pytest.raises(RuleConflict, match=f"load balancer rule for tcp port 150 conflicts with .* {first}"):
        alice("createLoadBalancerRule", **balancer)
    lb = alice("createLoadBalancerRule", **(balancer | {"publicport": 99}))["id"]
    with pytest.raises(RuleConflict, match=f"conflicts with load balancer rule {lb}"):
        forward(publicport=99)


def test_of_many_at_once_that_want_one_port_one_gets_it(ground, forward):
    def attempt(_):
        try:
            return forward(publicport=80)["id"]
        except ApiError as refused:
            return refused.status

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(16)))
    assert outcomes.count(537) == 15
    assert len(ground.rows(PortForward)) == len(ground.rows(PortClaim)) == 1


def test_a_rule_is_changed_in_place(ground, alice, network, ip, forward):
    rule = forward(publicport=100, publicendport=109, privateport=100, privateendport=109)["id"]
    claims = [(claim.port, claim.rule_uuid) for claim in ground.rows(PortClaim)]
    second = ground.machine(network, "vm2", "10.1.1.30", "10.1.1.31")
    changed = ground.done(alice("updatePortForwardingRule", id=rule, privateport=500, virtualmachineid=second,
                                vmguestip="10.1.1.31", cidrlist="192.0.2.0/24"))  # fmt: skip
    assert (changed["id"], changed["privateport"], changed["privateendport"]) == (rule, "500", "509")
    assert (changed["virtualmachineid"], changed["vmguestip"], changed["cidrlist"]) == (
        second, "10.1.1.31", "192.0.2.0/24")  # fmt: skip
    assert (changed["publicport"], changed["publicendport"]) == ("100", "109")
    assert [(claim.port, claim.rule_uuid) for claim in ground.rows(PortClaim)] == claims
    with pytest.raises(BadParameter, match="private ports 500-505 must be as many as public ports 100-109"):
        alice("updatePortForwardingRule", id=rule, privateport=500, privateendport=505)
    with pytest.raises(BadParameter, match="65536"):
        alice("updatePortForwardingRule", id=rule, privateport=65527)
    with pytest.raises(BadParameter, match=r"the machine has 10\.1\.1\.30, 10\.1\.1\.31 there"):
        alice("updatePortForwardingRule", id=rule, vmguestip="10.1.1.10")
    wanted = "11111111-1111-4111-8111-111111111111"
    ground.done(ground.cloud("updatePortForwardingRule", id=rule, customid=wanted, fordisplay=False))
    ground.done(alice("deletePortForwardingRule", id=wanted))
    assert not [table for table in (PortForward, PortClaim, FirewallRule) if ground.rows(table)]


def test_the_rules_of_others_are_as_if_they_were_not(ground, ip, vm, forward):
    rule = forward()["id"]
    bob = ground.account("bob")
    for call in (
        lambda: forward(cloud=bob),
        lambda: bob("updatePortForwardingRule", id=rule, privateport=1),
        lambda: bob("deletePortForwardingRule", id=rule),
        lambda: bob("listPortForwardingRules", id=rule),
        lambda: bob("listPortForwardingRules", ipaddressid=ip),
        lambda: bob("enableStaticNat", ipaddressid=ip, virtualmachineid=vm),
        lambda: bob("disableStaticNat", ipaddressid=ip),
        lambda: bob("createIpForwardingRule", ipaddressid=ip, protocol="tcp", startport=1),
        lambda: bob("listIpForwardingRules", virtualmachineid=vm),
    ):
        with pytest.raises(BadParameter, match="exists, or it is not yours to use"):
            call()
    assert bob("listPortForwardingRules", listall=True) == {}


def test_a_network_without_the_service_takes_no_rule(ground, alice):
    bare = ground.network("alice", "bare", services={"SourceNat": SERVICES["SourceNat"]})
    ip, vm = ground.address(alice, bare), ground.machine(bare, "vm", "10.1.1.10")
    with pytest.raises(Unsupported, match="Network bare does not have the service PortForwarding"):
        alice(
            "createPortForwardingRule", ipaddressid=ip, virtualmachineid=vm, protocol="tcp", publicport=1, privateport=1
        )
    with pytest.raises(Unsupported, match="does not have the service StaticNat"):
        alice("enableStaticNat", ipaddressid=ip, virtualmachineid=vm)


def test_static_nat_takes_an_address_whole(ground, alice, network, ip, vm, forward):
    target = ground.router(network)
    ground.settle(target)
    assert alice("enableStaticNat", ipaddressid=ip, virtualmachineid=vm, vmguestip="10.1.1.11") == {"success": True}
    alice("enableStaticNat", ipaddressid=ip, virtualmachineid=vm, vmguestip="10.1.1.11")
    (shown,) = alice("listPublicIpAddresses", isstaticnat=True)["publicipaddress"]
    assert (shown["virtualmachineid"], shown["virtualmachinename"], shown["vmipaddress"]) == (vm, "vm1", "10.1.1.11")
    with ground.cloud.database.read() as session:
        assert static_nat_facts(session, ground.numbers[network]) == (
            vocabulary.StaticNat(ip, "203.0.113.10", "10.1.1.11"),
        )
    with pytest.raises(RuleConflict, match=r"has static NAT to 10\.1\.1\.11 already: disable it first"):
        alice("enableStaticNat", ipaddressid=ip, virtualmachineid=vm)
    with pytest.raises(RuleConflict, match="takes it whole: a port forwarding rule needs another address"):
        forward()
    with pytest.raises(RuleConflict, match="a load balancer rule needs another address"):
        alice("createLoadBalancerRule", algorithm="source", name="lb", publicport=1, privateport=1, publicipid=ip)
    second = ground.address(alice, network)
    with pytest.raises(RuleConflict, match=r"vm1 has static NAT at 10\.1\.1\.11 already, by 203\.0\.113\.10"):
        alice("enableStaticNat", ipaddressid=second, virtualmachineid=vm, vmguestip="10.1.1.11")
    alice("enableStaticNat", ipaddressid=second, virtualmachineid=vm)
    answer = alice("disableStaticNat", ipaddressid=ip)
    ground.settle(target)
    ground.done(answer)
    assert [one["id"] for one in alice("listPublicIpAddresses", isstaticnat=True)["publicipaddress"]] == [second]
    with pytest.raises(BadParameter, match=r"203\.0\.113\.10 has no static NAT that could be disabled"):
        alice("disableStaticNat", ipaddressid=ip)
    forward()


def test_an_address_with_other_rules_gets_no_static_nat(ground, alice, network, ip, vm, forward):
    rule = forward()["id"]
    with pytest.raises(
        RuleConflict, match=rf"is used by port forwarding rule {rule} \(tcp port 22\): static NAT needs"
    ):
        alice("enableStaticNat", ipaddressid=ip, virtualmachineid=vm)
    with ground.cloud.database.write() as session:
        session.scalars(select(PublicIp).where(PublicIp.uuid == ip)).one().source_nat = True
    with pytest.raises(RuleConflict, match="is the source NAT address of network web: static NAT needs another"):
        alice("enableStaticNat", ipaddressid=ip, virtualmachineid=vm)


def test_without_conserve_mode_an_address_has_one_purpose(ground, alice):
    network = ground.network("alice", "strict", conserve_mode=False)
    ip, vm = ground.address(alice, network), ground.machine(network, "vm", "10.1.1.10")
    forward = {"ipaddressid": ip, "virtualmachineid": vm, "protocol": "tcp", "privateport": 1}
    rule = alice("createPortForwardingRule", publicport=1, **forward)["id"]
    alice("createPortForwardingRule", publicport=2, **forward)
    balancer = {"algorithm": "source", "name": "lb", "publicport": 80, "privateport": 80}
    with pytest.raises(
        RuleConflict, match=f"used by port forwarding rule {rule}.*load balancer rule needs an address of its"
    ):
        alice("createLoadBalancerRule", publicipid=ip, **balancer)
    second = ground.address(alice, network)
    alice("createLoadBalancerRule", publicipid=second, **balancer)
    with ground.cloud.database.write() as session:
        session.scalars(select(PublicIp).where(PublicIp.uuid == ip)).one().source_nat = True
    with pytest.raises(RuleConflict, match="is the source NAT address of network strict: port forwarding rule needs"):
        alice("createPortForwardingRule", publicport=3, **forward)


def test_ports_are_opened_on_an_address_with_static_nat(ground, alice, network, ip, vm):
    given = {"ipaddressid": ip, "protocol": "tcp", "startport": 80}
    with pytest.raises(BadParameter, match="has no static NAT; enable it first"):
        alice("createIpForwardingRule", **given)
    alice("enableStaticNat", ipaddressid=ip, virtualmachineid=vm)
    answer = alice("createIpForwardingRule", endport=89, cidrlist="192.0.2.0/24", **given)
    rule = ground.done(answer)
    assert (rule["publicport"], rule["publicendport"], rule["privateport"]) == ("80", "89", "80")
    assert (rule["vmguestip"], rule["virtualmachineid"], rule["ipaddressid"]) == ("10.1.1.10", vm, ip)
    (opened,) = alice("listFirewallRules")["firewallrule"]
    assert (opened["startport"], opened["endport"], opened["cidrlist"]) == (80, 89, "192.0.2.0/24")
    with pytest.raises(RuleConflict, match=f"conflicts with IP forwarding rule {answer['id']}, which has port 85"):
        alice("createIpForwardingRule", **(given | {"startport": 85}))
    with pytest.raises(BadParameter, match="startport value=0"):
        alice("createIpForwardingRule", **(given | {"startport": 0}))
    closed = alice("createIpForwardingRule", openfirewall=False, **(given | {"startport": 90}))["id"]
    assert alice("listIpForwardingRules", virtualmachineid=vm)["count"] == 2
    assert alice("listIpForwardingRules", ipaddressid=ip, id=closed)["count"] == 1
    ground.done(alice("deleteIpForwardingRule", id=closed))
    ground.done(alice("disableStaticNat", ipaddressid=ip))
    assert not [table for table in (IpForward, PortClaim, FirewallRule) if ground.rows(table)]


def test_nothing_leads_to_a_machine_that_goes(ground, alice, network, ip, vm, forward):
    target = ground.router(network)
    stays = ground.machine(network, "vm2", "10.1.1.30")
    forward()
    kept = forward(publicport=23, virtualmachineid=stays)["id"]
    second = ground.address(alice, network)
    alice("enableStaticNat", ipaddressid=second, virtualmachineid=vm)
    alice("createIpForwardingRule", ipaddressid=second, protocol="tcp", startport=1)
    assert set(forget(ground, vm)) == {target}
    assert [row.uuid for row in ground.rows(PortForward)] == [kept]
    assert {claim.rule_uuid for claim in ground.rows(PortClaim)} == {kept}
    assert [rule["startport"] for rule in alice("listFirewallRules")["firewallrule"]] == [23]
    assert alice("listPublicIpAddresses", isstaticnat=True) == {}
    assert alice("listPublicIpAddresses")["count"] == 2
    assert forget(ground, vm) == []


def test_a_longer_list_costs_no_more_queries(ground, alice, forward):
    for port in range(1, 3):
        forward(publicport=port)
    few = ground.queries(lambda: alice("listPortForwardingRules"))
    for port in range(3, 30):
        forward(publicport=port)
    assert ground.queries(lambda: alice("listPortForwardingRules")) == few


def test_all_jobs_that_one_bundle_satisfies_end_together_each_with_its_own_answer(ground, alice, network, forward):
    target = ground.router(network)
    made = [forward(publicport=port) for port in (1, 2, 3)]
    gone = alice("deletePortForwardingRule", id=made[1]["id"])
    ground.settle(target)
    found = [alice("queryAsyncJobResult", jobid=answer["jobid"]) for answer in (*made, gone)]
    assert [job["jobstatus"] for job in found] == [1, 2, 1, 1]
    assert [found[at]["jobresult"]["portforwardingrule"]["publicport"] for at in (0, 2)] == ["1", "3"]
    assert "was deleted before the change was in force" in found[1]["jobresult"]["errortext"]
    assert found[3]["jobresult"] == {"success": True}
