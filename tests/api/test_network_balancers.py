"""Load balancer rules: what the provider can do is accepted, all else is refused before it reaches a router."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.errors import BadParameter, Forbidden, RuleConflict, Unsupported
from controlplane.network.claims import PortClaim
from controlplane.network.firewall import FirewallRule
from controlplane.network.load_balancers import (
    HealthCheckPolicy,
    LoadBalancer,
    LoadBalancerMember,
    StickinessPolicy,
    balancer_facts,
)
from controlplane.network.nics import Nic
from controlplane.network.public_ips import PublicIp, forget_nic
from controlplane.reconcile.targets import Found
from drivers import balancing
from tests.api.ground import SERVICES

ALL = (LoadBalancer, LoadBalancerMember, StickinessPolicy, HealthCheckPolicy, PortClaim, FirewallRule)


@pytest.fixture
def balance(alice, ip):
    def create(cloud=alice, **parameters):
        given = {"algorithm": "roundrobin", "name": "web", "publicport": 80, "privateport": 8080, "publicipid": ip}
        return cloud("createLoadBalancerRule", **(given | parameters))

    return create


def facts(ground, network):
    with ground.cloud.database.read() as session:
        return balancer_facts(session, ground.numbers[network])


def test_a_rule_is_made_changed_and_deleted(ground, alice, network, ip, balance):
    answer = balance(cidrlist="192.0.2.0/24", description="the shop", algorithm="LeastConn", networkid=network)
    rule = ground.done(answer)
    assert rule | {"domainid": ""} == {
        "id": answer["id"],
        "name": "web",
        "description": "the shop",
        "algorithm": "leastconn",
        "protocol": "tcp",
        "publicip": "203.0.113.10",
        "publicipid": ip,
        "publicport": "80",
        "privateport": "8080",
        "cidrlist": "192.0.2.0/24",
        "networkid": network,
        "zoneid": ground.zone,
        "zonename": "z",
        "state": "Active",
        "account": "alice",
        "domain": "ROOT",
        "domainid": "",
        "domainpath": "ROOT",
        "tags": [],
    }
    assert alice("listFirewallRules")["firewallrule"][0]["startport"] == 80
    changed = ground.done(
        alice(
            "updateLoadBalancerRule",
            id=rule["id"],
            algorithm="source",
            name="shop",
            protocol="tcp-proxy",
            cidrlist="0.0.0.0/0",
        )
    )
    assert (changed["algorithm"], changed["name"], changed["protocol"]) == ("source", "shop", "tcp-proxy")
    assert facts(ground, network)[0].sources == ()
    ground.done(alice("updateLoadBalancerRule", id=rule["id"], protocol="udp"))
    assert [claim.protocol for claim in ground.rows(PortClaim)] == ["udp"]
    assert alice("listFirewallRules")["firewallrule"][0]["protocol"] == "udp"
    for filters in (
        {"publicipid": ip},
        {"networkid": network},
        {"name": "SHOP"},
        {"zoneid": ground.zone},
        {"keyword": "ho"},
    ):
        assert alice("listLoadBalancerRules", **filters)["count"] == 1
    assert alice("listLoadBalancerRules", name="web") == {}
    wanted = "11111111-1111-4111-8111-111111111111"
    ground.done(ground.cloud("updateLoadBalancerRule", id=rule["id"], customid=wanted))
    ground.done(alice("deleteLoadBalancerRule", id=wanted))
    assert not [table for table in ALL if ground.rows(table)]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"algorithm": "random"}, "algorithm value=random: provider VirtualRouter of network web supports roundrobin"),
        ({"protocol": "sctp"}, "protocol value=sctp: provider VirtualRouter of network web supports tcp, udp"),
        ({"publicport": 0}, "publicport value=0"),
        ({"privateport": 65536}, "privateport value=65536"),
        ({"cidrlist": "10/8"}, "cidrlist value=10/8"),
        ({"name": "a\nb"}, "name value=a\nb: it must be text on one line"),
        ({"name": " "}, "name"),
        ({"zoneid": "x"}, "zoneid value=x"),
    ],
)
def test_what_makes_no_sense_is_refused(ground, balance, parameters, words):
    with pytest.raises(BadParameter, match=words):
        balance(**parameters)
    assert not [table for table in ALL if ground.rows(table)]


def test_a_rule_without_an_address_gets_one_of_its_own(ground, alice, network):
    given = {"algorithm": "source", "name": "own", "publicport": 80, "privateport": 80}
    with pytest.raises(BadParameter, match="publicipid: give it, or networkid"):
        alice("createLoadBalancerRule", **given)
    rule = ground.done(alice("createLoadBalancerRule", networkid=network, **given))
    (shown,) = alice("listPublicIpAddresses", id=rule["publicipid"])["publicipaddress"]
    assert (shown["issystem"], shown["purpose"]) == (True, "Lb")
    ground.done(alice("deleteLoadBalancerRule", id=rule["id"]))
    assert not ground.rows(PublicIp, PublicIp.state != "Free")
    bare = ground.network("alice", "bare", services={"SourceNat": SERVICES["SourceNat"]})
    with pytest.raises(Unsupported, match="Network bare does not have the service Lb"):
        alice("createLoadBalancerRule", networkid=bare, **given)


def test_a_provider_without_a_driver_is_named(ground, alice):
    network = ground.network("alice", "hard", services=SERVICES | {"Lb": ["Sundial"]})
    with pytest.raises(Unsupported, match="No driver for Sundial of network hard is installed"):
        alice("createLoadBalancerRule", algorithm="source", name="a", publicport=1, privateport=1,
              publicipid=ground.address(alice, network))  # fmt: skip


def test_machines_are_put_behind_a_rule_and_taken_out(ground, alice, network, balance):
    rule = balance()["id"]
    one = ground.machine(network, "one", "10.1.1.10", "10.1.1.11")
    two = ground.machine(network, "two", "10.1.1.20")
    ground.done(alice("assignToLoadBalancerRule", id=rule, virtualmachineids=two))
    mapped = {"vmidipmap[0].vmid": one, "vmidipmap[0].vmip": "10.1.1.10", "vmidipmap[1].vmid": one}
    mapped |= {"vmidipmap[1].vmip": "10.1.1.11"}
    ground.done(alice.raw({"command": "assignToLoadBalancerRule", "id": rule, **mapped}))
    assert facts(ground, network)[0].members == (
        balancing.Member(one, "10.1.1.10"),
        balancing.Member(one, "10.1.1.11"),
        balancing.Member(two, "10.1.1.20"),
    )
    with pytest.raises(RuleConflict, match=rf"two \(10\.1\.1\.20\) serves load balancer rule {rule} already"):
        alice("assignToLoadBalancerRule", id=rule, virtualmachineids=two)
    plain = alice("listLoadBalancerRuleInstances", id=rule)
    assert plain["count"] == 2
    assert {vm["name"] for vm in plain["loadbalancerruleinstance"]} == {"one", "two"}
    placed = alice("listLoadBalancerRuleInstances", id=rule, lbvmips=True)["lbrulevmidip"]
    assert {vm["loadbalancerruleinstance"]["name"]: vm["lbvmipaddresses"] for vm in placed} == {
        "one": ["10.1.1.10", "10.1.1.11"],
        "two": ["10.1.1.20"],
    }
    assert alice("listLoadBalancerRules", virtualmachineid=one)["count"] == 1
    out = {"vmidipmap[0].vmid": one, "vmidipmap[0].vmip": "10.1.1.10"}
    ground.done(alice.raw({"command": "removeFromLoadBalancerRule", "id": rule, **out}))
    with pytest.raises(BadParameter, match=r"one \(10\.1\.1\.10\) does not serve"):
        alice.raw({"command": "removeFromLoadBalancerRule", "id": rule, **out})
    ground.done(alice("removeFromLoadBalancerRule", id=rule, virtualmachineids=f"{one},{two}"))
    assert facts(ground, network)[0].members == ()
    assert alice("listLoadBalancerRuleInstances", id=rule) == {}
    free = alice("listLoadBalancerRuleInstances", id=rule, applied=False)["loadbalancerruleinstance"]
    assert {vm["name"] for vm in free} == {"one", "two"}


def test_only_the_owners_machines_on_the_network_serve(ground, alice, network, balance):
    rule = balance()["id"]
    with pytest.raises(BadParameter, match="virtualmachineids: give it, or vmidipmap"):
        alice("assignToLoadBalancerRule", id=rule)
    second = ground.network("alice", "second", cidr="10.2.0.0/24", gateway="10.2.0.1")
    with pytest.raises(BadParameter, match="out has no interface on network web"):
        alice("assignToLoadBalancerRule", id=rule, virtualmachineids=ground.machine(second, "out", "10.2.0.10"))
    theirs = ground.machine(ground.network("bob", "theirs"), "theirs", "10.1.1.10")
    with pytest.raises(BadParameter, match="no virtual machine with this id exists"):
        alice("assignToLoadBalancerRule", id=rule, virtualmachineids=theirs)
    with pytest.raises(BadParameter, match=r"vmidipmap value=.*no virtual machine with this id exists"):
        alice.raw({"command": "assignToLoadBalancerRule", "id": rule, "vmidipmap[0].vmid": theirs})
    with pytest.raises(Forbidden, match="another account"):
        ground.cloud("assignToLoadBalancerRule", id=rule, virtualmachineids=theirs)
    mine = ground.machine(network, "mine", "10.1.1.10")
    with pytest.raises(BadParameter, match=r"vmidipmap value=10\.1\.1\.99: the machine has 10\.1\.1\.10 there"):
        alice.raw({"command": "assignToLoadBalancerRule", "id": rule, "vmidipmap[0].vmid": mine,
                   "vmidipmap[0].vmip": "10.1.1.99"})  # fmt: skip
    with pytest.raises(BadParameter, match="each entry is written"):
        alice.raw({"command": "assignToLoadBalancerRule", "id": rule, "vmidipmap[0].vmip": "10.1.1.99"})
    assert not ground.rows(LoadBalancerMember)


def test_the_state_of_each_member_is_shown(ground, alice, network, balance):
    target = ground.router(network)
    rule = balance()["id"]
    one, two = ground.machine(network, "one", "10.1.1.10"), ground.machine(network, "two", "10.1.1.20", "10.1.1.21")
    alice("assignToLoadBalancerRule", id=rule, virtualmachineids=one)
    both = {"vmidipmap[0].vmid": two, "vmidipmap[1].vmid": two, "vmidipmap[1].vmip": "10.1.1.21"}
    alice.raw({"command": "assignToLoadBalancerRule", "id": rule, **both})

    def states():
        shown = alice("listLoadBalancerRuleInstances", id=rule)["loadbalancerruleinstance"]
        return {vm["name"]: vm.get("servicestate") for vm in shown}

    assert states() == {"one": None, "two": None}
    with ground.cloud.database.write() as session:
        seen = {f"{rule}/{one}-10.1.1.10": "UP", f"{rule}/{two}-10.1.1.20": "DOWN", f"{rule}/{two}-10.1.1.21": "UP"}
        session.add(Found(target_id=target, states=seen | {f"other/{one}-10.1.1.10": "DOWN"}))
    assert states() == {"one": "UP", "two": "10.1.1.20 DOWN, 10.1.1.21 UP"}


def test_a_machine_that_goes_leaves_its_rules(ground, alice, network, balance):
    rule, vm = balance()["id"], ground.machine(network, "one", "10.1.1.10")
    target = ground.router(network)
    alice("assignToLoadBalancerRule", id=rule, virtualmachineids=vm)
    with ground.cloud.database.write() as session:
        nic = session.scalars(select(Nic).where(Nic.vm_id == ground.numbers[vm])).one()
        assert [found.id for found in forget_nic(session, nic)] == [target]
    assert facts(ground, network)[0].members == ()


def test_clients_stick_as_the_provider_knows_how(ground, alice, network, balance):
    rule = balance()["id"]
    given = {"command": "createLBStickinessPolicy", "lbruleid": rule, "name": "stay", "methodname": "lbcookie"}
    named = {
        "param[0].name": "cookie-name",
        "param[0].value": "SRV",
        "param[1].name": "nocache",
        "param[1].value": "true",
    }
    answer = alice.raw(given | named)
    (policy,) = ground.done(answer)["stickinesspolicy"]
    assert policy == {
        "id": answer["id"],
        "name": "stay",
        "methodname": "LbCookie",
        "params": {"cookie-name": "SRV", "nocache": "true"},
        "state": "Active",
    }
    assert facts(ground, network)[0].stickiness == balancing.Stickiness(
        "stay", "LbCookie", (("cookie-name", "SRV"), ("nocache", "true"))
    )
    with pytest.raises(RuleConflict, match=f"web has the stickiness policy stay .{answer['id']}. already"):
        alice.raw(given)
    shown = alice("listLBStickinessPolicies", lbruleid=rule)["stickinesspolicies"][0]
    assert (shown["lbruleid"], shown["account"], shown["zoneid"]) == (rule, "alice", ground.zone)
    hidden = ground.done(ground.cloud("updateLBStickinessPolicy", id=answer["id"], fordisplay=False))
    assert hidden["stickinesspolicy"][0]["fordisplay"] is False
    ground.done(alice("deleteLBStickinessPolicy", id=answer["id"]))
    assert facts(ground, network)[0].stickiness is None
    assert alice("listLBStickinessPolicies", lbruleid=rule) == {}


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"methodname": "Glue"}, "methodname value=Glue: network web supports LbCookie"),
        ({"param[0].name": "glue", "param[0].value": "1"}, "param value=glue: LbCookie has cookie-name"),
        ({"param[0].name": "cookie-name", "param[0].value": "a b"}, "cannot be served by VirtualRouter.*cookie-name"),
        ({"param[0].cookie-name": "a\nbind *:1"}, "cannot be served by VirtualRouter.*cookie-name"),
        ({"param[0].name": "mode", "param[0].value": "steal"}, "must be insert, rewrite or prefix"),
        ({"name": "a\nb"}, "it must be text on one line"),
    ],
)
def test_no_policy_that_a_router_would_choke_on_is_accepted(ground, alice, balance, parameters, words):
    rule = balance()["id"]
    given = {"command": "createLBStickinessPolicy", "lbruleid": rule, "name": "stay", "methodname": "LbCookie"}
    with pytest.raises(BadParameter, match=words):
        alice.raw(given | parameters)
    assert not ground.rows(StickinessPolicy)


def test_members_are_watched_by_tcp_or_http(ground, alice, network, balance):
    rule = balance()["id"]
    answer = alice(
        "createLBHealthCheckPolicy", lbruleid=rule, pingpath="/health?x=1", intervaltime=7, unhealthythreshold=3
    )
    (policy,) = ground.done(answer)["healthcheckpolicy"]
    assert policy == {
        "id": answer["id"],
        "pingpath": "/health?x=1",
        "healthcheckinterval": 7,
        "responsetime": 2,
        "healthcheckthresshold": 2,
        "unhealthcheckthresshold": 3,
        "state": "Active",
    }
    assert facts(ground, network)[0].health == balancing.HealthCheck("/health?x=1", 7, 2, 2, 3)
    with pytest.raises(RuleConflict, match=f"has the health check policy {answer['id']} already"):
        alice("createLBHealthCheckPolicy", lbruleid=rule)
    assert alice("listLBHealthCheckPolicies", lbruleid=rule)["count"] == 1
    ground.done(ground.cloud("updateLBHealthCheckPolicy", id=answer["id"], fordisplay=False))
    ground.done(alice("deleteLBHealthCheckPolicy", id=answer["id"]))
    ground.done(alice("createLBHealthCheckPolicy", lbruleid=rule))
    assert facts(ground, network)[0].health == balancing.HealthCheck("", 5, 2, 2, 10)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"pingpath": "health"}, "Invalid parameter pingpath.*: it must be a URL path such as"),
        ({"pingpath": "/a b\nbind *:1"}, r"Invalid parameter pingpath[^:]*:1: it must be a URL path such as"),
        ({"intervaltime": 0}, "intervaltime value=0: it must be 1 to 86400"),
        ({"healthythreshold": 11}, "healthythreshold value=11: it must be 1 to 10"),
        ({"unhealthythreshold": -1}, "unhealthythreshold value=-1"),
        ({"responsetimeout": 5}, "responsetimeout value=5: it must be less than intervaltime, 5 seconds"),
    ],
)
def test_no_health_check_that_a_router_would_choke_on_is_accepted(ground, alice, balance, parameters, words):
    rule = balance()["id"]
    with pytest.raises(BadParameter, match=words):
        alice("createLBHealthCheckPolicy", lbruleid=rule, **parameters)
    assert not ground.rows(HealthCheckPolicy)


def test_datagrams_have_no_health_checks(alice, balance):
    with pytest.raises(BadParameter, match="web is udp; health checks are for tcp, tcp-proxy and ssl"):
        alice("createLBHealthCheckPolicy", lbruleid=balance(protocol="udp")["id"])


def test_the_rules_of_others_are_as_if_they_were_not(ground, alice, network, ip, balance):
    rule = balance()["id"]
    sticky = alice("createLBStickinessPolicy", lbruleid=rule, name="s", methodname="SourceBased")["id"]
    health = alice("createLBHealthCheckPolicy", lbruleid=rule)["id"]
    bob = ground.account("bob")
    for call in (
        lambda: balance(cloud=bob),
        lambda: bob(
            "createLoadBalancerRule", algorithm="source", name="a", publicport=1, privateport=1, networkid=network
        ),
        lambda: bob("updateLoadBalancerRule", id=rule, name="x"),
        lambda: bob("deleteLoadBalancerRule", id=rule),
        lambda: bob("assignToLoadBalancerRule", id=rule),
        lambda: bob("removeFromLoadBalancerRule", id=rule),
        lambda: bob("listLoadBalancerRuleInstances", id=rule),
        lambda: bob("listLoadBalancerRules", publicipid=ip),
        lambda: bob("createLBStickinessPolicy", lbruleid=rule, name="s", methodname="SourceBased"),
        lambda: bob("updateLBStickinessPolicy", id=sticky),
        lambda: bob("deleteLBStickinessPolicy", id=sticky),
        lambda: bob("listLBStickinessPolicies", lbruleid=rule),
        lambda: bob("createLBHealthCheckPolicy", lbruleid=rule),
        lambda: bob("updateLBHealthCheckPolicy", id=health),
        lambda: bob("deleteLBHealthCheckPolicy", id=health),
        lambda: bob("listLBHealthCheckPolicies", id=health),
    ):
        with pytest.raises(BadParameter, match="exists, or it is not yours to use"):
            call()
    assert bob("listLoadBalancerRules", listall=True) == {}
    assert bob("listLBStickinessPolicies") == bob("listLBHealthCheckPolicies") == {}


def test_longer_lists_and_facts_cost_no_more_queries(ground, alice, network, balance):
    def fill(ports):
        for port in ports:
            rule = balance(publicport=port)["id"]
            alice("createLBStickinessPolicy", lbruleid=rule, name="s", methodname="SourceBased")
            vm = ground.machine(network, f"vm{port}", f"10.1.1.{port + 10}")
            alice("assignToLoadBalancerRule", id=rule, virtualmachineids=vm)

    def costs():
        return [
            ground.queries(call)
            for call in (
                lambda: alice("listLoadBalancerRules"),
                lambda: alice("listLBStickinessPolicies"),
                lambda: facts(ground, network),
            )
        ]

    fill(range(1, 3))
    few = costs()
    fill(range(3, 8))
    assert costs() == few
