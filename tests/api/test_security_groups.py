"""Security groups through the API: made, filled with rules, used by machines, refused and removed; and what hosts learn."""

from __future__ import annotations

import pytest

from controlplane.errors import BadParameter, Forbidden, InUse, LimitReached, RuleConflict
from controlplane.network.security_groups import SecurityGroup, SecurityGroupMember, SecurityGroupRule
from drivers.security import GroupMembers, GroupRule
from tests.api.counting import queries
from tests.api.group_world import group_world


@pytest.fixture
def here(cloud):
    with group_world(cloud) as made:
        yield made


def only(facts):
    """The only host's facts that have any filter."""
    (found,) = [one for one in facts if one.filters]
    return found


def test_a_group_is_made_listed_renamed_and_deleted(here, cloud):
    made = here.cloud("createSecurityGroup", name="web", description="Web servers")["securitygroup"]
    assert (made["name"], made["description"], made["account"]) == ("web", "Web servers", "alice")
    assert (made["ingressrule"], made["egressrule"], made["virtualmachineids"]) == ([], [], [])
    names = {one["name"] for one in here.cloud("listSecurityGroups")["securitygroup"]}
    assert names == {"default", "web"}
    assert here.cloud("listSecurityGroups", securitygroupname="web")["securitygroup"] == [made]
    assert here.cloud("listSecurityGroups", keyword="servers")["count"] == 1
    cloud("updateSecurityGroup", id=made["id"], name="www")
    assert here.cloud("listSecurityGroups", id=made["id"])["securitygroup"][0]["name"] == "www"
    assert here.cloud("deleteSecurityGroup", name="www")["success"]
    assert here.cloud("listSecurityGroups")["count"] == 1


def test_the_default_group_is_there_from_the_beginning_and_stays(here, cloud):
    fields = {"username": "carol", "password": "a good password", "firstname": "C", "lastname": "D", "email": "c@e.org"}
    cloud("createAccount", accounttype=0, **fields)
    (default,) = cloud.as_user("carol")("listSecurityGroups")["securitygroup"]
    assert (default["name"], default["description"]) == ("default", "Default Security Group")
    for call in (
        lambda: cloud.as_user("carol")("deleteSecurityGroup", id=default["id"]),
        lambda: cloud.as_user("carol")("deleteSecurityGroup", name="default"),
        lambda: cloud("updateSecurityGroup", id=default["id"], name="other"),
    ):
        with pytest.raises(BadParameter, match="default group can never be"):
            call()
    assert cloud("listSecurityGroups")["securitygroup"][0]["name"] == "default", "the admin has one, too"


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"name": "web"}, BadParameter, "name value=web: the account has a security group of this name"),
        ({"name": "default"}, BadParameter, "has a security group of this name"),
        ({"name": " "}, BadParameter, "name"),
        ({"name": "a\nb"}, BadParameter, "control characters"),
        ({"name": "x", "projectid": "1"}, BadParameter, "projectid value=1"),
        ({"name": "x", "account": "bob"}, BadParameter, "account value=bob"),
    ],
)
def test_a_group_is_refused_with_the_reason(here, parameters, error, words):
    here.group("web")
    with pytest.raises(Exception, match=words) as caught:
        here.cloud("createSecurityGroup", **parameters)
    assert isinstance(caught.value, error) or parameters["name"] == " "


def test_an_account_has_only_so_many_groups_and_a_group_only_so_many_rules(here, cloud):
    cloud("updateConfiguration", name="max.account.security.groups", value=2)
    web = here.group("web")
    with pytest.raises(LimitReached, match=r"has 2 security groups, and max\.account\.security\.groups allows 2"):
        here.group("db")
    cloud("updateConfiguration", name="security.group.rules.max", value=3)
    here.allow(web, protocol="tcp", startport=80, endport=80, cidrlist="10.0.0.0/8,192.0.2.0/24")
    with pytest.raises(LimitReached, match="has 2 rules, 2 more were asked for"):
        here.allow(web, protocol="tcp", startport=81, cidrlist="10.0.0.0/8,192.0.2.0/24")
    assert len(here.world.rows(SecurityGroupRule)) == 2


def test_a_call_answers_with_the_rules_that_it_made_and_no_other(here):
    web = here.group("web")
    first = here.allow(web, protocol="TCP", startport=80, endport=90, cidrlist="10.1.2.3/8,2001:db8::/32")
    assert (first["id"], first["name"]) == (web, "web")
    seen = [(rule["protocol"], rule["startport"], rule["endport"], rule["cidr"]) for rule in first["ingressrule"]]
    assert seen == [("tcp", 80, 90, "10.0.0.0/8"), ("tcp", 80, 90, "2001:db8::/32")]
    second = here.allow(web, protocol="icmp", icmptype=8, icmpcode=0, cidrlist="0.0.0.0/0")
    (rule,) = second["ingressrule"]
    assert (rule["protocol"], rule["icmptype"], rule["icmpcode"]) == ("icmp", 8, 0)
    assert second["egressrule"] == []
    out = here.allow(web, egress=True, protocol="all", cidrlist="::/0")
    assert (out["ingressrule"], out["egressrule"][0]["cidr"]) == ([], "::/0")
    (whole,) = here.cloud("listSecurityGroups", id=web)["securitygroup"]
    assert (len(whole["ingressrule"]), len(whole["egressrule"])) == (3, 1)


def test_rules_may_name_groups_of_the_same_domain_by_account_and_name(here):
    web, theirs = here.group("web"), here.group("clients", who="bob")
    records = {"usersecuritygrouplist[0].account": "bob", "usersecuritygrouplist[0].group": "clients"}
    records |= {"usersecuritygrouplist[1].account": "alice", "usersecuritygrouplist[1].group": "default"}
    made = here.allow(web, protocol="tcp", startport=22, **records)
    assert [(rule["account"], rule["securitygroupname"]) for rule in made["ingressrule"]] == [
        ("bob", "clients"),
        ("alice", "default"),
    ]
    assert [rule["startport"] for rule in made["ingressrule"]] == [22, 22]
    with pytest.raises(InUse, match=r"a rule of group web of account alice use it"):
        here.bob("deleteSecurityGroup", id=theirs)


REFUSED = (
    ({}, "cidrlist: give it, or usersecuritygrouplist"),
    ({"cidrlist": "10.0.0.0/33"}, r"cidrlist value=10\.0\.0\.0/33"),
    ({"cidrlist": "10.0.0.1"}, "cidrlist value="),
    ({"cidrlist": "2001:db8::/129"}, "cidrlist value=2001:db8::/129"),
    ({"cidrlist": "fe80::1%eth0/64"}, "cidrlist value="),
    ({"protocol": "tcpx", "cidrlist": "0.0.0.0/0"}, "protocol value=tcpx"),
    ({"protocol": "256", "cidrlist": "0.0.0.0/0"}, "protocol value=256"),
    ({"protocol": "-1", "cidrlist": "0.0.0.0/0"}, "protocol value=-1"),
    ({"protocol": "tcp", "startport": 0, "cidrlist": "0.0.0.0/0"}, "startport value=0"),
    ({"protocol": "tcp", "startport": 9, "endport": 8, "cidrlist": "0.0.0.0/0"}, "endport value=8"),
    ({"protocol": "tcp", "endport": 8, "cidrlist": "0.0.0.0/0"}, "endport value=8: it needs a startport"),
    ({"protocol": "tcp", "startport": 70000, "cidrlist": "0.0.0.0/0"}, "startport value=70000"),
    ({"protocol": "all", "startport": 8, "cidrlist": "0.0.0.0/0"}, "startport value=8: protocol all has none"),
    ({"startport": 8, "cidrlist": "0.0.0.0/0"}, "startport value=8: protocol all has none"),
    ({"protocol": "47", "startport": 8, "cidrlist": "0.0.0.0/0"}, "startport value=8: protocol 47 has none"),
    ({"protocol": "udp", "icmptype": 8, "cidrlist": "0.0.0.0/0"}, "icmptype value=8: protocol udp has none"),
    ({"protocol": "icmp", "icmptype": 256, "cidrlist": "0.0.0.0/0"}, "icmptype value=256"),
    ({"protocol": "icmp", "icmpcode": 1, "cidrlist": "0.0.0.0/0"}, "icmpcode value=1"),
    ({"protocol": "icmpv6", "cidrlist": "0.0.0.0/0"}, r"cidrlist value=0\.0\.0\.0/0: icmpv6 is for IPv6"),
    ({"usersecuritygrouplist[0].account": "bob"}, r"write usersecuritygrouplist\[0\]\.account"),
    ({"usersecuritygrouplist[0].bob": "default"}, r"write usersecuritygrouplist\[0\]\.account"),
    (
        {"usersecuritygrouplist[0].account": "bob", "usersecuritygrouplist[0].group": "none"},
        "value=bob/none: the domain has no such account with a group of this name",
    ),
    (
        {"usersecuritygrouplist[0].account": "nobody", "usersecuritygrouplist[0].group": "default"},
        "value=nobody/default: the domain has no such account with a group of this name",
    ),
)


def test_rules_are_refused_with_the_parameter_and_its_value(here):
    web = here.group("web")
    for rule, words in REFUSED:
        for egress in (False, True):
            with pytest.raises(BadParameter, match=words):
                here.allow(web, egress=egress, **rule)
    assert here.world.rows(SecurityGroupRule) == []


def test_the_same_rule_twice_is_refused_and_all_of_its_call_with_it(here):
    web = here.group("web")
    made = here.allow(web, protocol="6", startport=80, endport=80, cidrlist="10.0.0.0/8")["ingressrule"][0]
    with pytest.raises(RuleConflict, match=rf"cidrlist value=10\.0\.0\.0/8: rule {made['ruleid']} of group web"):
        here.allow(web, protocol="tcp", startport=80, cidrlist="192.0.2.0/24,10.9.9.9/8")
    assert len(here.world.rows(SecurityGroupRule)) == 1
    here.allow(web, egress=True, protocol="tcp", startport=80, cidrlist="10.0.0.0/8")
    member = {"usersecuritygrouplist[0].account": "alice", "usersecuritygrouplist[0].group": "web"}
    here.allow(web, protocol="tcp", startport=80, **member)
    with pytest.raises(RuleConflict, match="usersecuritygrouplist: rule"):
        here.allow(web, protocol="tcp", startport=80, **member)


def test_a_rule_is_revoked_in_its_own_direction_only(here):
    web = here.group("web")
    rule = here.allow(web, cidrlist="0.0.0.0/0")["ingressrule"][0]["ruleid"]
    with pytest.raises(BadParameter, match="it is an ingress rule, for revokeSecurityGroupIngress"):
        here.cloud("revokeSecurityGroupEgress", id=rule)
    assert here.world.job(here.cloud("revokeSecurityGroupIngress", id=rule)) is True
    assert here.world.rows(SecurityGroupRule) == []


def test_somebody_else_sees_and_touches_nothing(here):
    web = here.group("web")
    rule = here.allow(web, cidrlist="0.0.0.0/0")["ingressrule"][0]["ruleid"]
    vm = here.deploy(securitygroupids=web)
    own = here.deploy("bob")
    calls = (
        ("authorizeSecurityGroupIngress", {"securitygroupid": web, "cidrlist": "0.0.0.0/0"}),
        ("authorizeSecurityGroupEgress", {"securitygroupname": "web", "cidrlist": "0.0.0.0/0"}),
        ("authorizeSecurityGroupIngress", {"securitygroupname": "web", "account": "alice", "cidrlist": "0.0.0.0/0"}),
        ("revokeSecurityGroupIngress", {"id": rule}),
        ("deleteSecurityGroup", {"id": web}),
        ("deleteSecurityGroup", {"name": "web"}),
        ("listSecurityGroups", {"id": web}),
        ("listSecurityGroups", {"virtualmachineid": vm["id"]}),
        ("listVirtualMachines", {"securitygroupid": web}),
        ("updateVirtualMachine", {"id": own["id"], "securitygroupids": web}),
        ("updateVirtualMachine", {"id": own["id"], "securitygroupnames": "web"}),
        ("updateVirtualMachine", {"id": vm["id"], "securitygroupnames": "default"}),
    )
    for command, parameters in calls:
        with pytest.raises(BadParameter, match=r"not yours|has no security group|has no such account"):
            here.bob(command, **parameters)
    missing = "00000000-0000-4000-8000-000000000000"
    for group in (web, missing):
        with pytest.raises(BadParameter, match=f"value={group}: no security group with this id exists, or it is not"):
            here.bob("deployVirtualMachine", zoneid=here.world.zone, serviceofferingid=here.world.offering,
                     templateid=here.world.template, networkids=here.guarded["bob"], securitygroupids=group)  # fmt: skip
    assert [one["name"] for one in here.bob("listSecurityGroups", listall="true")["securitygroup"]] == ["default"]


def test_an_admin_cannot_put_a_machine_into_another_accounts_group(here, cloud):
    theirs = here.group("theirs", who="bob")
    vm = here.deploy()
    with pytest.raises(Forbidden, match="group theirs is another account's, and the machine is alice's"):
        cloud("updateVirtualMachine", id=vm["id"], securitygroupids=theirs)


def test_a_machine_is_in_the_default_group_unless_others_are_named(here):
    web, db = here.group("web"), here.group("db")
    plain, both = here.deploy(), here.deploy(securitygroupids=f"{web},{db},{web}")
    named = here.deploy(securitygroupnames="db,default")
    seen = [[group["name"] for group in vm["securitygroup"]] for vm in (plain, both, named)]
    assert seen == [["default"], ["db", "web"], ["db", "default"]]
    listed = here.cloud("listVirtualMachines", securitygroupid=db)["virtualmachine"]
    assert {vm["id"] for vm in listed} == {both["id"], named["id"]}
    (of_one,) = here.cloud("listSecurityGroups", virtualmachineid=plain["id"])["securitygroup"]
    assert (of_one["name"], of_one["virtualmachinecount"]) == ("default", 2)
    assert sorted(of_one["virtualmachineids"]) == sorted((plain["id"], named["id"]))


def test_no_group_is_named_where_none_guards_and_who_names_one_twice_is_told(here):
    web = here.group("web")
    cases = (
        ({"networkids": here.world.network, "securitygroupids": web}, "no security group guards web"),
        ({"securitygroupids": web, "securitygroupnames": "web"}, "cannot go together with securitygroupids"),
        ({"securitygroupnames": "nope"}, "securitygroupnames value=nope: account alice has no security group"),
    )
    for parameters, words in cases:
        with pytest.raises(BadParameter, match=words):
            here.deploy(**parameters)
    vm = here.deploy(networkids=here.world.network)
    assert vm["securitygroup"] == []
    with pytest.raises(BadParameter, match="no security group guards web"):
        here.cloud("updateVirtualMachine", id=vm["id"], securitygroupids=web)
    assert here.world.rows(SecurityGroupMember) == []


def test_without_default_adding_a_machine_is_in_no_group(here, cloud):
    cloud("updateConfiguration", name="network.securitygroups.defaultadding", value="false")
    vm = here.deploy()
    assert vm["securitygroup"] == []
    (port,) = only(here.facts()).filters
    assert port.groups == (), "nothing comes in"


def test_a_running_machine_changes_its_groups(here):
    web = here.group("web")
    here.allow(web, protocol="tcp", startport=443, cidrlist="0.0.0.0/0")
    vm = here.deploy()
    before = here.told()
    changed = here.cloud("updateVirtualMachine", id=vm["id"], securitygroupids=web)["virtualmachine"]
    assert changed["state"] == "Running"
    assert [group["name"] for group in changed["securitygroup"]] == ["web"]
    assert changed["securitygroup"][0]["ingressrule"][0]["startport"] == 443
    assert sum(here.told().values()) == sum(before.values()) + 1
    facts = only(here.facts())
    assert facts.filters[0].groups == (web,)
    assert [group.id for group in facts.groups] == [web]


def test_a_host_is_told_the_groups_of_its_guests_and_whom_their_rules_mean(here):
    web, clients = here.group("web"), here.group("clients")
    guest = here.deploy(securitygroupids=web)
    client = here.deploy(securitygroupids=clients)
    extra = here.world.job(here.cloud("addIpToNic", nicid=client["nic"][0]["id"]))["ipaddress"]
    named = {"usersecuritygrouplist[0].account": "alice", "usersecuritygrouplist[0].group": "clients"}
    rules = [
        here.allow(web, protocol="tcp", startport=80, endport=81, cidrlist="192.0.2.0/24")["ingressrule"][0]["ruleid"],
        here.allow(web, protocol="udp", **named)["ingressrule"][0]["ruleid"],
        here.allow(web, protocol="icmp", **named)["ingressrule"][0]["ruleid"],
        here.allow(web, protocol="icmp", cidrlist="2001:db8::/32")["ingressrule"][0]["ruleid"],
        here.allow(web, protocol="50", cidrlist="0.0.0.0/0")["ingressrule"][0]["ruleid"],
    ]
    out = here.allow(web, egress=True, cidrlist="0.0.0.0/0")["egressrule"][0]["ruleid"]
    facts = next(one for one in here.facts() if guest["nic"][0]["id"] in {port.nic for port in one.filters})
    (group,) = [one for one in facts.groups if one.id == web]
    assert group.ingress == (
        GroupRule(rules[0], "tcp", 80, 81, ("192.0.2.0/24",)),
        GroupRule(rules[1], "udp", 1, 65535, (), clients),
        GroupRule(rules[2], "icmp", -1, -1, (), clients),
        GroupRule(rules[3], "icmp", -1, -1, ("2001:db8::/32",)),
        GroupRule(rules[4], "50", -1, -1, ("0.0.0.0/0",)),
    )
    assert group.egress == (GroupRule(out, "all", -1, -1, ("0.0.0.0/0",)),)
    assert facts.members == (GroupMembers(clients, tuple(sorted((client["nic"][0]["ipaddress"], extra)))),)
    assert next(port for port in facts.filters if port.nic == guest["nic"][0]["id"]).groups == (web,)


def members(here, group):
    return {one.addresses for facts in here.facts() for one in facts.members if one.group == group}


def test_members_come_and_go_where_they_are_meant_and_nowhere_else(here):
    web, clients, others = (here.group(name) for name in ("web", "clients", "others"))
    named = {"usersecuritygrouplist[0].account": "alice", "usersecuritygrouplist[0].group": "clients"}
    here.allow(web, **named)
    here.deploy(securitygroupids=web)
    (holder,) = [facts.name for facts in here.facts() if any(group.id == web for group in facts.groups)]
    quiet = next(name for name in here.told() if name != holder)

    def change(work):
        before = here.told()
        result = work()
        after = here.told()
        return result, {name: after[name] - before[name] for name in after}

    stopped = {"startvm": "false"}
    client, told = change(lambda: here.deploy(securitygroupids=clients, **stopped))
    assert (told[holder], told[quiet]) == (1, 0)
    first = client["nic"][0]["ipaddress"]
    assert members(here, clients) == {(first,)}
    _, told = change(lambda: here.deploy(securitygroupids=others, **stopped))
    assert (told[holder], told[quiet]) == (0, 0), "nobody's rules mean it"
    extra, told = change(lambda: here.world.job(here.cloud("addIpToNic", nicid=client["nic"][0]["id"])))
    assert (told[holder], members(here, clients)) == (1, {tuple(sorted((first, extra["ipaddress"])))})
    _, told = change(lambda: here.world.job(here.cloud("removeIpFromNic", id=extra["id"])))
    assert (told[holder], members(here, clients)) == (1, {(first,)})
    moved, told = change(
        lambda: here.world.job(here.cloud("updateVmNicIp", nicid=client["nic"][0]["id"], ipaddress="10.5.1.77"))
    )
    assert (told[holder], members(here, clients)) == (1, {("10.5.1.77",)}), moved
    _, told = change(lambda: here.cloud("updateVirtualMachine", id=client["id"], securitygroupids=others))
    assert (told[holder], members(here, clients)) == (1, {()})
    _, told = change(lambda: here.cloud("updateVirtualMachine", id=client["id"], securitygroupids=clients))
    assert (told[holder], members(here, clients)) == (1, {("10.5.1.77",)})
    _, told = change(lambda: here.world.job(here.cloud("destroyVirtualMachine", id=client["id"])))
    assert (told[holder] >= 1, members(here, clients)) == (True, {()})


def test_a_destroyed_member_that_is_recovered_is_meant_again(here, cloud):
    web = here.group("web")
    here.allow(web, **{"usersecuritygrouplist[0].account": "alice", "usersecuritygrouplist[0].group": "web"})
    vm = here.deploy(securitygroupids=web)
    here.deploy(securitygroupids=web)
    assert {len(found) for found in members(here, web)} == {2}
    here.world.job(here.cloud("destroyVirtualMachine", id=vm["id"]))
    assert {len(found) for found in members(here, web)} == {1}
    cloud("recoverVirtualMachine", id=vm["id"])
    assert {len(found) for found in members(here, web)} == {2}


def test_only_addresses_on_guarded_networks_mean_a_member(here):
    web = here.group("web")
    here.allow(web, **{"usersecuritygrouplist[0].account": "alice", "usersecuritygrouplist[0].group": "web"})
    vm = here.deploy(networkids=f"{here.guarded['alice']},{here.world.network}", securitygroupids=web)
    guarded, open_ = vm["nic"]
    assert members(here, web) == {(guarded["ipaddress"],)}
    ports = {port.nic: port.groups for port in only(here.facts()).filters}
    assert ports == {guarded["id"]: (web,), open_["id"]: None}


def test_a_machine_that_joins_a_guarded_network_later_gets_the_default_group(here):
    vm = here.deploy(networkids=here.world.network)
    more = here.world.job(
        here.cloud("addNicToVirtualMachine", virtualmachineid=vm["id"], networkid=here.guarded["alice"])
    )
    assert [group["name"] for group in more["securitygroup"]] == ["default"]
    assert [port.groups is None for port in only(here.facts()).filters].count(True) == 1


def test_a_group_in_use_is_not_deleted_and_says_by_whom(here):
    web, db = here.group("web"), here.group("db")
    vm = here.deploy(securitygroupids=web, name="box1")
    here.allow(db, **{"usersecuritygrouplist[0].account": "alice", "usersecuritygrouplist[0].group": "web"})
    here.allow(web, **{"usersecuritygrouplist[0].account": "alice", "usersecuritygrouplist[0].group": "web"})
    with pytest.raises(InUse, match="group web cannot be deleted, instance box1, a rule of group db use it"):
        here.cloud("deleteSecurityGroup", id=web)
    here.cloud("updateVirtualMachine", id=vm["id"], securitygroupids=db)
    with pytest.raises(InUse, match="cannot be deleted, a rule of group db use it"):
        here.cloud("deleteSecurityGroup", id=web)
    rule = here.world.rows(SecurityGroupRule)[0]
    here.world.job(here.cloud("revokeSecurityGroupIngress", id=rule.uuid))
    here.cloud("deleteSecurityGroup", id=web)
    assert here.world.rows(SecurityGroupRule) == []


def test_tags_are_shown_on_groups_and_rules_and_go_with_them(here):
    web = here.group("web")
    rule = here.allow(web, cidrlist="0.0.0.0/0")["ingressrule"][0]["ruleid"]
    for kind, uuid in (("SecurityGroup", web), ("SecurityGroupRule", rule)):
        tag = {"tags[0].key": "env", "tags[0].value": "prod"}
        here.world.job(here.cloud.raw({"command": "createTags", "resourcetype": kind, "resourceids": uuid} | tag))
    raw = {"command": "listSecurityGroups", "tags[0].key": "env", "tags[0].value": "prod"}
    (seen,) = here.cloud.raw(raw)["securitygroup"]
    assert (seen["tags"][0]["key"], seen["ingressrule"][0]["tags"][0]["value"]) == ("env", "prod")
    here.cloud("deleteSecurityGroup", id=web)
    assert here.cloud("listTags", listall="true") == {}


def test_an_account_goes_with_its_groups_and_the_rules_of_others_that_name_them(here, cloud):
    theirs = here.group("clients", who="bob")
    web = here.group("web")
    here.allow(web, **{"usersecuritygrouplist[0].account": "bob", "usersecuritygrouplist[0].group": "clients"})
    here.allow(web, cidrlist="192.0.2.0/24")
    here.deploy(securitygroupids=web)
    here.deploy("bob", securitygroupids=theirs)
    account = cloud("listAccounts", name="bob", listall="true")["account"][0]["id"]
    assert here.world.job(cloud("deleteAccount", id=account)) is True
    assert {row.name for row in here.world.rows(SecurityGroup, SecurityGroup.account_id > 2)} == {"web", "default"}
    (left,) = here.world.rows(SecurityGroupRule)
    assert left.peer == "192.0.2.0/24"


def test_lists_cost_the_same_for_one_row_and_for_many(here):
    def cost():
        with queries(here.cloud) as seen:
            here.cloud("listSecurityGroups")
            here.cloud("listVirtualMachines")
        return len(seen)

    web = here.group("web")
    here.allow(web, cidrlist="192.0.2.0/24", **{"usersecuritygrouplist[0].account": "alice", "usersecuritygrouplist[0].group": "web"})  # fmt: skip
    here.deploy(securitygroupids=web)
    few = cost()
    for number in range(4):
        group = here.group(f"g{number}")
        here.allow(group, cidrlist="192.0.2.0/24,198.51.100.0/24")
        here.deploy(securitygroupids=f"{web},{group}", startvm="false")
    assert cost() == few


def test_zones_say_whether_groups_guard_them(cloud, here):
    assert here.cloud("listCapabilities")["capability"]["securitygroupsenabled"] is False
    zone = {"dns1": "192.0.2.53", "internaldns1": "192.0.2.53", "networktype": "Advanced", "name": "guarded"}
    made = cloud("createZone", securitygroupenabled="true", allocationstate="Enabled", **zone)["zone"]
    assert made["securitygroupsenabled"] is True
    assert here.cloud("listCapabilities")["capability"]["securitygroupsenabled"] is True
