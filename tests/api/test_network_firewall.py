"""Firewall rules: what comes in by a public address, and what guests send out."""

from __future__ import annotations

import pytest

from controlplane.errors import BadParameter, RuleConflict, Unsupported
from controlplane.network.firewall import FirewallRule, egress_facts, ingress_facts
from controlplane.network.public_ips import forget_network
from drivers.vocabulary import EgressRule, IngressRule
from tests.api.ground import SERVICES


def ids_of(ground):
    return [row.id for row in ground.rows(FirewallRule)]


def test_a_rule_is_shown_as_it_was_made_and_told_to_the_router(ground, alice, network, ip):
    answer = alice(
        "createFirewallRule", ipaddressid=ip, protocol="TCP", startport=80, endport=90,
        cidrlist="198.51.100.7/24,10.0.0.0/8,198.51.100.0/24",
    )  # fmt: skip
    rule = ground.done(answer)
    assert rule == {
        "id": answer["id"],
        "protocol": "tcp",
        "startport": 80,
        "endport": 90,
        "cidrlist": "198.51.100.0/24,10.0.0.0/8",
        "ipaddress": "203.0.113.10",
        "ipaddressid": ip,
        "networkid": network,
        "state": "Active",
        "traffictype": "Ingress",
        "tags": [],
    }
    assert alice("listFirewallRules", ipaddressid=ip, networkid=network) == {"count": 1, "firewallrule": [rule]}
    assert alice("listEgressFirewallRules") == {}
    icmp = ground.done(alice("createFirewallRule", ipaddressid=ip, protocol="icmp", icmptype=8))
    assert (icmp["icmptype"], icmp["icmpcode"]) == (8, -1)
    every = ground.done(alice("createFirewallRule", ipaddressid=ip, protocol="all", cidrlist="192.0.2.0/24"))
    udp = ground.done(alice("createFirewallRule", ipaddressid=ip, protocol="17"))
    assert udp["protocol"] == "udp"
    assert "startport" not in udp
    with ground.cloud.database.read() as session:
        assert ingress_facts(session, ground.numbers[network]) == (
            IngressRule(rule["id"], "203.0.113.10", "tcp", 80, 90, ("198.51.100.0/24", "10.0.0.0/8")),
            IngressRule(icmp["id"], "203.0.113.10", "icmp", 8, -1, ("0.0.0.0/0",)),
            IngressRule(every["id"], "203.0.113.10", "all", -1, -1, ("192.0.2.0/24",)),
            IngressRule(udp["id"], "203.0.113.10", "udp", -1, -1, ("0.0.0.0/0",)),
        )


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"protocol": "gre"}, "protocol value=gre: it must be one of tcp, udp, icmp, all"),
        ({"protocol": "tcp", "startport": 0}, "startport value=0: it must be 1 to 65535"),
        ({"protocol": "tcp", "startport": 90, "endport": 80}, "endport value=80: the range must not end before"),
        ({"protocol": "tcp", "endport": 80}, "endport value=80: it needs a startport"),
        ({"protocol": "tcp", "icmptype": 8}, "icmptype value=8: protocol tcp has none"),
        ({"protocol": "icmp", "startport": 80}, "startport value=80: protocol icmp has none"),
        ({"protocol": "all", "endport": 80}, "endport value=80: protocol all has none"),
        ({"protocol": "icmp", "icmptype": 256}, "icmptype value=256: it must be 0 to 255, or -1"),
        ({"protocol": "icmp", "icmpcode": 1}, "icmpcode value=1: a code needs an icmptype"),
        ({"protocol": "tcp", "cidrlist": "10.0.0.0/8,x"}, "cidrlist value=x: it must be IPv4 CIDRs"),
        ({"protocol": "tcp", "cidrlist": "10.0.0.0/8\n; drop"}, "it must be IPv4 CIDRs"),
        ({"protocol": "tcp", "type": "system"}, "type value=system: system rules are made by the system"),
        ({"protocol": "tcp", "fordisplay": False}, "fordisplay may only be given by a root admin"),
    ],
)
def test_both_directions_refuse_what_makes_no_sense(ground, alice, network, ip, parameters, words):
    with pytest.raises(BadParameter, match=words):
        alice("createFirewallRule", ipaddressid=ip, **parameters)
    with pytest.raises(BadParameter, match=words):
        alice("createEgressFirewallRule", networkid=network, **parameters)
    assert not ids_of(ground)


def test_rules_conflict_when_they_share_protocol_port_and_cidr(ground, alice, ip):
    def create(**parameters):
        return alice("createFirewallRule", ipaddressid=ip, **parameters)["id"]

    first = create(protocol="tcp", startport=80, endport=90, cidrlist="10.0.0.0/8,192.0.2.0/24")
    with pytest.raises(
        RuleConflict, match=f"conflicts with rule {first}, which names tcp .ports 80-90. from 192.0.2.0/24"
    ):
        create(protocol="tcp", startport=90, endport=100, cidrlist="192.0.2.9/24,172.16.0.0/12")
    create(protocol="tcp", startport=90, endport=100, cidrlist="172.16.0.0/12")
    create(protocol="udp", startport=80, endport=90, cidrlist="10.0.0.0/8")
    create(protocol="tcp", startport=91, endport=91, cidrlist="10.0.0.0/8")
    with pytest.raises(RuleConflict, match="as well"):
        create(protocol="tcp", cidrlist="10.0.0.0/8")
    every = create(protocol="tcp")
    with pytest.raises(RuleConflict, match=f"rule {every}, which names tcp .everything."):
        create(protocol="tcp", startport=5)
    ping = create(protocol="icmp", icmptype=8, icmpcode=0)
    create(protocol="icmp", icmptype=8)
    create(protocol="icmp", icmptype=0)
    with pytest.raises(RuleConflict, match=ping):
        create(protocol="icmp", icmptype=8, icmpcode=0)
    other = ground.address(alice, ground.network("alice", "second", cidr="10.2.0.0/24", gateway="10.2.0.1"))
    alice("createFirewallRule", ipaddressid=other, protocol="tcp", startport=80)


def test_egress_rules_are_of_their_network(ground, alice, network):
    answer = alice(
        "createEgressFirewallRule", networkid=network, protocol="tcp", startport=443, cidrlist="10.1.1.128/25",
        destcidrlist="198.51.100.0/24,192.0.2.0/24",
    )  # fmt: skip
    rule = ground.done(answer)
    assert (rule["cidrlist"], rule["destcidrlist"]) == ("10.1.1.128/25", "198.51.100.0/24,192.0.2.0/24")
    assert rule["traffictype"] == "Egress"
    assert "ipaddress" not in rule
    whole = ground.done(alice("createEgressFirewallRule", networkid=network, protocol="all"))
    assert (whole["cidrlist"], whole["destcidrlist"]) == ("10.1.1.0/24", "0.0.0.0/0")
    with pytest.raises(
        BadParameter, match=r"cidrlist value=10\.1\.0\.0/16: it must lie in the network's CIDR, 10\.1\.1"
    ):
        alice("createEgressFirewallRule", networkid=network, protocol="udp", cidrlist="10.1.0.0/16")
    with pytest.raises(BadParameter, match="destcidrlist value=here"):
        alice("createEgressFirewallRule", networkid=network, protocol="udp", destcidrlist="here")
    everyone = alice("createEgressFirewallRule", networkid=network, protocol="udp", cidrlist="0.0.0.0/0")["id"]
    with pytest.raises(RuleConflict, match=rule["id"]):
        alice("createEgressFirewallRule", networkid=network, protocol="tcp", cidrlist="10.1.1.128/25",
              destcidrlist="192.0.2.0/24")  # fmt: skip
    alice("createEgressFirewallRule", networkid=network, protocol="tcp", cidrlist="10.1.1.128/25", startport=443,
          destcidrlist="172.16.0.0/12")  # fmt: skip
    assert alice("listEgressFirewallRules", networkid=network)["count"] == 4
    assert alice("listFirewallRules") == {}
    with ground.cloud.database.read() as session:
        facts = egress_facts(session, ground.numbers[network])
    assert facts[0] == EgressRule(rule["id"], "tcp", 443, 443, ("10.1.1.128/25",), ("198.51.100.0/24", "192.0.2.0/24"))
    assert facts[1] == EgressRule(whole["id"], "all", -1, -1, ("10.1.1.0/24",), ("0.0.0.0/0",))
    assert facts[2].id == everyone
    with ground.cloud.database.write() as session:
        from controlplane.network.networks import Network

        forget_network(session, session.get_one(Network, ground.numbers[network]))
    assert not ids_of(ground)


def test_egress_rules_are_for_isolated_networks(ground, alice):
    shared = ground.network("alice", "shared", guest_type="Shared")
    with pytest.raises(BadParameter, match="egress rules are for isolated networks, and shared is Shared"):
        alice("createEgressFirewallRule", networkid=shared, protocol="tcp")


def test_a_network_without_a_firewall_takes_no_rule(ground, alice):
    bare = ground.network("alice", "bare", services={name: SERVICES[name] for name in ("PortForwarding", "SourceNat")})
    ip = ground.address(alice, bare)
    words = "Network bare does not have the service Firewall: its offering bare-offering does not include it"
    with pytest.raises(Unsupported, match=words):
        alice("createFirewallRule", ipaddressid=ip, protocol="tcp")
    with pytest.raises(Unsupported, match=words):
        alice("createEgressFirewallRule", networkid=bare, protocol="tcp")


def test_a_rule_is_deleted_by_the_command_of_its_direction(ground, alice, network, ip):
    inward = alice("createFirewallRule", ipaddressid=ip, protocol="tcp")["id"]
    outward = alice("createEgressFirewallRule", networkid=network, protocol="tcp")["id"]
    for command, wrong in (("FirewallRule", outward), ("EgressFirewallRule", inward)):
        for verb in ("delete", "update"):
            with pytest.raises(BadParameter, match=f"id value={wrong}: it is an"):
                alice(f"{verb}{command}", id=wrong)
    ground.done(alice("deleteFirewallRule", id=inward))
    ground.done(alice("deleteEgressFirewallRule", id=outward))
    assert not ids_of(ground)
    with pytest.raises(BadParameter, match="no firewall rule with this id exists"):
        alice("deleteFirewallRule", id=inward)


def test_admins_hide_rules_and_change_their_ids(ground, alice, network, ip):
    wanted = "11111111-1111-4111-8111-111111111111"
    for command, made in (
        ("FirewallRule", alice("createFirewallRule", ipaddressid=ip, protocol="tcp")),
        ("EgressFirewallRule", alice("createEgressFirewallRule", networkid=network, protocol="tcp")),
    ):
        shown = ground.done(ground.cloud(f"update{command}", id=made["id"], fordisplay=False, customid=wanted))
        assert (shown["id"], shown["fordisplay"]) == (wanted, False)
        ground.done(ground.cloud(f"delete{command}", id=wanted))


def test_the_rules_of_others_are_as_if_they_were_not(ground, alice, network, ip):
    rule = alice("createFirewallRule", ipaddressid=ip, protocol="tcp")["id"]
    egress = alice("createEgressFirewallRule", networkid=network, protocol="tcp")["id"]
    bob = ground.account("bob")
    for call in (
        lambda: bob("createFirewallRule", ipaddressid=ip, protocol="tcp"),
        lambda: bob("createEgressFirewallRule", networkid=network, protocol="tcp"),
        lambda: bob("deleteFirewallRule", id=rule),
        lambda: bob("updateFirewallRule", id=rule),
        lambda: bob("deleteEgressFirewallRule", id=egress),
        lambda: bob("updateEgressFirewallRule", id=egress),
        lambda: bob("listFirewallRules", ipaddressid=ip),
        lambda: bob("listFirewallRules", networkid=network),
        lambda: bob("listFirewallRules", id=rule),
    ):
        with pytest.raises(BadParameter, match="exists, or it is not yours to use"):
            call()
    assert bob("listFirewallRules", listall=True) == bob("listEgressFirewallRules", listall=True) == {}
    assert ground.cloud("listFirewallRules", listall=True)["count"] == 1


def test_a_job_ends_with_what_its_router_says(ground, alice, network, ip):
    target = ground.router(network)
    good = alice("createFirewallRule", ipaddressid=ip, protocol="tcp", startport=80)
    assert ground.job(good)[0] == 0
    ground.settle(target)
    assert ground.done(good)["id"] == good["id"]
    bad = alice("createFirewallRule", ipaddressid=ip, protocol="tcp", startport=81)
    ground.settle(target, failure="rules.nft: line 3: no")
    status, result = ground.job(bad)
    assert (status, result["errorcode"]) == (2, 534)
    assert "rules.nft: line 3: no" in result["errortext"]
    late = alice("createFirewallRule", ipaddressid=ip, protocol="tcp", startport=82)
    alice("deleteFirewallRule", id=late["id"])
    ground.settle(target)
    assert ground.job(late)[0] == 2


def test_a_longer_list_costs_no_more_queries(ground, alice, ip):
    for port in range(1, 3):
        alice("createFirewallRule", ipaddressid=ip, protocol="tcp", startport=port)
    few = ground.queries(lambda: alice("listFirewallRules"))
    for port in range(3, 30):
        alice("createFirewallRule", ipaddressid=ip, protocol="tcp", startport=port)
    assert ground.queries(lambda: alice("listFirewallRules")) == few
    page = alice("listFirewallRules", page=2, pagesize=10)
    assert (page["count"], len(page["firewallrule"])) == (29, 10)
