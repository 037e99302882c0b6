"""Network ACL lists and their rules: made, numbered, moved, imported, put on tiers, refused and removed."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import update

from controlplane.errors import BadParameter, InUse, Unsupported
from controlplane.events.alerts import Alert
from controlplane.network.acls import AclItem, AclList
from controlplane.network.routers import Router
from controlplane.reconcile import bundles
from controlplane.reconcile.targets import Target
from tests.api.counting import queries
from tests.api.test_vpcs import facts
from tests.api.vpc_world import TIER_WITHOUT_LB, vpc_world


@pytest.fixture
def here(cloud):
    with vpc_world(cloud) as made:
        yield made


@pytest.fixture
def vpc(here):
    return here.vpc()["id"]


@pytest.fixture
def acl(here, vpc):
    return here.done(here.cloud("createNetworkACLList", name="web", description="Web tier", vpcid=vpc))["id"]


def add(here, acl, number=None, **given):
    given = {"protocol": "tcp"} | given | ({"number": number} if number is not None else {})
    return here.done(here.cloud("createNetworkACL", aclid=acl, **given))


def order(here, acl):
    return [
        (item["number"], item["reason"])
        for item in here.cloud("listNetworkACLs", aclid=acl, listall=True)["networkacl"]
    ]


def test_everybody_has_two_lists_that_never_change(here):
    lists = {row["name"]: row["id"] for row in here.cloud("listNetworkACLLists")["networkacllist"]}
    assert set(lists) == {"default_allow", "default_deny"}
    items = here.cloud("listNetworkACLs", aclid=lists["default_deny"])["networkacl"]
    assert [(item["number"], item["traffictype"], item["action"], item["protocol"]) for item in items] == [
        (1, "Ingress", "Deny", "all"),
        (2, "Egress", "Deny", "all"),
    ]
    for call in (
        lambda: here.cloud("createNetworkACL", aclid=lists["default_allow"], protocol="all"),
        lambda: here.cloud("deleteNetworkACLList", id=lists["default_allow"]),
        lambda: here.cloud("updateNetworkACLItem", id=items[0]["id"], action="Allow"),
        lambda: here.cloud("deleteNetworkACL", id=items[0]["id"]),
        lambda: here.cloud("updateNetworkACLList", id=lists["default_deny"], name="x"),
    ):
        with pytest.raises(BadParameter, match="everybody's and never changes"):
            call()


def test_rules_say_what_was_asked(here, acl):
    made = add(here, acl, 10, startport=80, endport=90, cidrlist="198.51.100.7/24", reason="web", action="deny")
    assert (made["number"], made["action"], made["traffictype"]) == (10, "Deny", "Ingress")
    assert (made["startport"], made["endport"], made["cidrlist"]) == ("80", "90", "198.51.100.0/24")
    ping = add(here, acl, protocol="icmp", icmptype=8, traffictype="egress")
    assert (ping["number"], ping["icmptype"], ping["icmpcode"], ping["traffictype"]) == (11, 8, -1, "Egress")
    assert add(here, acl, protocol="6")["protocol"] == "tcp"
    assert add(here, acl, protocol="47")["protocol"] == "47"
    shown = here.cloud("listNetworkACLLists", id=acl)["networkacllist"][0]
    assert (shown["name"], shown["description"], shown["vpcname"]) == ("web", "Web tier", "shop")
    assert len(here.cloud("listNetworkACLs", aclid=acl, action="Deny")["networkacl"]) == 1
    assert len(here.cloud("listNetworkACLs", aclid=acl, traffictype="Egress")["networkacl"]) == 1


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ({"protocol": "tpc"}, "tcp, udp, icmp, all or a protocol's number"),
        ({"protocol": "256"}, "0 to 255"),
        ({"startport": 0}, "1 to 65535"),
        ({"startport": 90, "endport": 80}, "must not end before it begins"),
        ({"endport": 80}, "needs a startport"),
        ({"protocol": "all", "startport": 80}, "protocol all has none"),
        ({"icmptype": 8}, "protocol tcp has none"),
        ({"protocol": "icmp", "icmpcode": 3}, "needs an icmptype"),
        ({"cidrlist": "10.1.1.0"}, "must be IPv4 CIDRs"),
        ({"action": "maybe"}, "Allow or Deny"),
        ({"traffictype": "sideways"}, "Ingress or Egress"),
        ({"number": 0}, "1 to 1000000"),
        ({"number": 7}, "rule .* of list web has it; 8 is free"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_and_leaves_nothing(here, acl, given, right):
    add(here, acl, 7)
    with pytest.raises(BadParameter, match=right):
        here.cloud("createNetworkACL", aclid=acl, **({"protocol": "tcp"} | given))
    assert [row.number for row in here.there.rows(AclItem, AclItem.account_id.is_not(None))] == [7]


def test_a_rule_is_changed_in_place(here, acl):
    item = add(here, acl, 5, startport=80, cidrlist="198.51.100.0/24")
    changed = here.done(here.cloud("updateNetworkACLItem", id=item["id"], action="Deny", number=9))
    assert (changed["id"], changed["number"], changed["action"]) == (item["id"], 9, "Deny")
    assert (changed["startport"], changed["cidrlist"]) == ("80", "198.51.100.0/24")
    changed = here.done(here.cloud("updateNetworkACLItem", id=item["id"], protocol="icmp"))
    assert (changed["protocol"], changed.get("startport"), changed["icmptype"]) == ("icmp", None, -1)
    changed = here.done(here.cloud("updateNetworkACLItem", id=item["id"], partialupgrade=False, action="Allow"))
    assert changed["cidrlist"] == "0.0.0.0/0"


def test_rules_move_with_as_few_new_numbers_as_can_be(here, acl):
    items = {
        name: add(here, acl, number, reason=name)["id"] for name, number in (("a", 1), ("b", 2), ("c", 3), ("d", 9))
    }
    here.done(here.cloud("moveNetworkAclItem", id=items["d"], previousaclruleid=items["a"], nextaclruleid=items["b"]))
    assert order(here, acl) == [(1, "a"), (2, "d"), (3, "b"), (4, "c")]
    here.done(here.cloud("moveNetworkAclItem", id=items["c"], nextaclruleid=items["a"]))
    assert order(here, acl) == [(1, "c"), (2, "a"), (3, "d"), (4, "b")]
    here.done(here.cloud("moveNetworkAclItem", id=items["c"], previousaclruleid=items["b"]))
    assert order(here, acl) == [(2, "a"), (3, "d"), (4, "b"), (5, "c")]
    seen = "".join(items[name] for name in "adbc")
    right = hashlib.md5(seen.encode(), usedforsecurity=False).hexdigest()
    with pytest.raises(BadParameter, match="somebody changed list web meanwhile"):
        here.cloud("moveNetworkAclItem", id=items["a"], previousaclruleid=items["b"], aclconsistencyhash="0" * 32)
    here.cloud("moveNetworkAclItem", id=items["a"], previousaclruleid=items["b"], aclconsistencyhash=right)
    with pytest.raises(BadParameter, match="does not follow"):
        here.cloud("moveNetworkAclItem", id=items["a"], previousaclruleid=items["d"], nextaclruleid=items["c"])
    with pytest.raises(BadParameter, match="or both"):
        here.cloud("moveNetworkAclItem", id=items["a"])


def test_many_rules_are_one_call_and_all_or_none(here, acl):
    raw = {"command": "importNetworkACL", "aclid": acl}
    for index in range(300):
        raw |= {f"rules[{index}].protocol": "tcp", f"rules[{index}].startport": str(index + 1)}
        raw |= {f"rules[{index}].cidrlist": "10.1.0.0/16,192.0.2.0/24", f"rules[{index}].action": "allow"}
    assert here.done(here.cloud.raw(raw)) is True
    assert here.cloud("listNetworkACLs", aclid=acl, page=1, pagesize=1)["count"] == 300
    before = here.cloud("listNetworkACLs", aclid=acl)["networkacl"]
    for wrong, right in (("rules[7].startport", "1 to 65535"), ("rules[7].colour", "a rule has protocol")):
        with pytest.raises(BadParameter, match=rf"rules\[7\].*{right}"):
            here.cloud.raw(raw | {wrong: "70000"})
    with pytest.raises(BadParameter, match=r"rules\[0\].*number value=300"):
        here.cloud.raw(
            {"command": "importNetworkACL", "aclid": acl, "rules[0].protocol": "udp", "rules[0].number": "300"}
        )
    assert here.cloud("listNetworkACLs", aclid=acl)["networkacl"] == before


def test_a_list_reaches_the_router_of_its_tiers(here, vpc, acl):
    web = here.tier(vpc, aclid=acl)
    db = here.tier(vpc, "db", 2)
    assert (web["aclid"], web["aclname"]) == (acl, "web")
    for name, tier in (("front", web), ("back", db)):
        here.there.deploy(name=name, networkids=tier["id"])
    item = add(here, acl, 5, startport=80)
    tiers = {net.cidr: net for net in facts(here, vpc).networks}
    assert [(rule.id, rule.number, rule.allow, rule.ingress) for rule in tiers["10.1.1.0/24"].acl] == [
        (item["id"], 5, True, True)
    ]
    here.done(here.cloud("replaceNetworkACLList", aclid=acl, networkid=db["id"]))
    assert [net.acl[0].id for net in facts(here, vpc).networks] == [item["id"]] * 2
    with pytest.raises(InUse, match="web, db have it"):
        here.cloud("deleteNetworkACLList", id=acl)
    allow = here.cloud("listNetworkACLLists", name="default_allow")["networkacllist"][0]["id"]
    for tier in (web, db):
        here.done(here.cloud("replaceNetworkACLList", aclid=allow, networkid=tier["id"]))
    assert here.done(here.cloud("deleteNetworkACLList", id=acl)) is True
    assert here.there.rows(AclList, AclList.vpc_id.is_not(None)) == []


def test_a_rule_for_a_tier_gives_it_a_list_of_its_own(here, vpc):
    web = here.tier(vpc)
    item = here.done(here.cloud("createNetworkACL", networkid=web["id"], protocol="tcp", startport=22))
    shown = here.cloud("listNetworks", id=web["id"])["network"][0]
    assert shown["aclid"] == item["aclid"]
    assert here.done(here.cloud("createNetworkACL", networkid=web["id"], protocol="udp"))["aclid"] == item["aclid"]
    assert [row["id"] for row in here.cloud("listNetworkACLLists", networkid=web["id"])["networkacllist"]] == [
        item["aclid"]
    ]


def test_lists_stay_with_their_vpc(here, vpc, acl):
    other = here.vpc("other", cidr="10.2.0.0/16", start=False)["id"]
    with pytest.raises(BadParameter, match="of another VPC"):
        here.tier(other, gateway="10.2.1.1", aclid=acl)
    tier = here.tier(other, "x", gateway="10.2.1.1")
    with pytest.raises(BadParameter, match="of another VPC"):
        here.cloud("replaceNetworkACLList", aclid=acl, networkid=tier["id"])
    with pytest.raises(BadParameter, match="no tier of a VPC"):
        here.cloud("replaceNetworkACLList", aclid=acl, networkid=here.there.network)


def test_somebody_else_sees_and_touches_nothing(here, acl):
    item = add(here, acl)
    bob = here.admin.as_user("bob")
    assert {row["name"] for row in bob("listNetworkACLLists", listall=True)["networkacllist"]} == {
        "default_allow",
        "default_deny",
    }
    assert all(row["aclname"].startswith("default") for row in bob("listNetworkACLs", listall=True)["networkacl"])
    for command in ("deleteNetworkACL", "updateNetworkACLItem", "moveNetworkAclItem"):
        with pytest.raises(BadParameter, match="no acl item with this id"):
            bob(command, id=item["id"])
    for command, name in (("deleteNetworkACLList", "id"), ("replaceNetworkACLList", "aclid")):
        with pytest.raises(BadParameter, match="no acl list with this id"):
            bob(command, **{name: acl})


def test_lists_cost_the_same_for_one_row_and_for_many(here, acl):
    counts = []
    for number in range(1, 4):
        add(here, acl, number)
        with queries(here.cloud) as seen:
            here.cloud("listNetworkACLs", aclid=acl)
        counts.append(len(seen))
    assert counts[0] == counts[2]


def test_a_change_is_one_generation_of_the_router(here, vpc, acl):
    web = here.tier(vpc, aclid=acl, networkofferingid=here.offering(TIER_WITHOUT_LB))
    here.there.deploy(name="front", networkids=web["id"])
    (before,) = here.there.rows(Target, Target.kind == "router")
    raw = {"command": "importNetworkACL", "aclid": acl}
    raw |= {f"rules[{index}].protocol": str(50 + index) for index in range(100)}
    here.done(here.cloud.raw(raw))
    (after,) = here.there.rows(Target, Target.kind == "router")
    assert after.desired_generation == before.desired_generation + 1
    assert after.applied_generation == after.desired_generation


def test_firewall_rules_are_told_that_acls_do_their_work(here, vpc):
    address = here.done(here.cloud("associateIpAddress", vpcid=vpc))
    with pytest.raises(Unsupported, match="network ACLs instead of a firewall"):
        here.cloud("createFirewallRule", ipaddressid=address["id"], protocol="tcp", startport=1, endport=2)


def test_a_bad_rule_in_the_database_closes_its_list_and_stops_no_other(here, vpc, acl):
    front = here.tier(vpc, aclid=acl)
    here.there.deploy(name="front", networkids=front["id"])
    good = add(here, acl, 5, startport=80)
    allowed, denied = add(here, acl, 10, startport=22), add(here, acl, 20, startport=23, action="deny")
    add(here, acl, 30, startport=24)
    with here.cloud.database.write() as session:
        session.execute(update(AclItem).where(AclItem.uuid.in_([allowed["id"], denied["id"]])).values(protocol="magic"))
    other = here.done(here.cloud("createNetworkACLList", name="db", vpcid=vpc))["id"]
    back = here.tier(vpc, "db", 2, aclid=other, networkofferingid=here.offering(TIER_WITHOUT_LB))
    here.there.deploy(name="back", networkids=back["id"])
    add(here, other, startport=5432)
    with pytest.raises(BadParameter, match=f"cannot be enforced: Network ACL rule 10 {allowed['id']}"):
        add(here, acl, 40, startport=25)
    described = "\n".join(alert.description for alert in here.there.rows(Alert, Alert.resolved.is_(None)))
    assert f"network ACL rule {allowed['id']} (number 10) is left out: " in described
    assert f"network ACL rule {denied['id']} (number 20), which denies, cannot be: " in described
    with here.cloud.database.read() as session:
        (target,) = session.query(Target).join(Router).filter(Router.removed.is_(None))
        bundle, refused = bundles.make(session, target)
        assert target.applied_generation == target.desired_generation
    assert set(refused) == {allowed["id"], denied["id"]}
    ports = [item for part in bundle.elements if part.name == "acl_in_ports" for item in part.items]
    assert {item.split()[2] for item in ports if item.endswith("accept")} == {"80", "5432"}
    assert good["id"] in "".join(ports)
    for item in (allowed, denied):
        here.done(here.cloud("deleteNetworkACL", id=item["id"]))
    assert here.there.rows(Alert, Alert.resolved.is_(None)) == []
