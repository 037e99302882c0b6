"""Details: settings of load balancer rules, notes on networks, templates and machines; the owner's and nobody else's."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.compute.passwords import ENCRYPTED
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.errors import ApiError, BadParameter, Forbidden
from controlplane.events.events import Event
from controlplane.identity.accounts import Account
from controlplane.network.load_balancers import LoadBalancer, balancer_facts
from controlplane.network.networks import Network
from controlplane.reconcile.targets import Target
from controlplane.storage.templates import Template
from drivers.network.virtual_router.balancing import SETTINGS

MISSING = "123e4567-e89b-42d3-a456-426614174000"


@pytest.fixture
def rule(ground, alice, network):
    """A rule with a member, on a network whose router nobody has made yet."""
    ip = ground.address(alice, network)
    given = {"algorithm": "roundrobin", "name": "web", "publicport": 80, "privateport": 8080, "publicipid": ip}
    made = alice("createLoadBalancerRule", **given)["id"]
    guest = ground.machine(network, "web-1", "10.1.1.5")
    ground.done(alice("assignToLoadBalancerRule", id=made, virtualmachineids=guest))
    return made


@pytest.fixture
def template(ground, alice):
    """A private template of alice's, and an ISO."""
    found = {}
    with ground.cloud.database.write() as session:
        owner = session.scalars(select(Account).where(Account.name == "alice")).one()
        for kind, name in (("TAR", "Template"), ("ISO", "ISO")):
            row = Template(name=name, display_text="", format=kind, account_id=owner.id, domain_id=owner.domain_id)
            session.add(row)
            session.flush()
            found[name] = row.uuid
    return found


def add(cloud, kind, uuid, **details):
    parameters = {"command": "addResourceDetail", "resourcetype": kind, "resourceid": uuid}
    for index, (key, value) in enumerate(details.items()):
        parameters |= {f"details[{index}].key": key.replace("__", "."), f"details[{index}].value": value}
    return cloud.raw(parameters)


def remove(cloud, kind, uuid, **key):
    return cloud("removeResourceDetail", resourcetype=kind, resourceid=uuid, **key)


def listed(cloud, kind, **where):
    answer = cloud("listResourceDetails", resourcetype=kind, **where)
    assert answer.get("count", 0) >= len(answer.get("resourcedetail", []))
    return {detail["key"]: detail["value"] for detail in answer.get("resourcedetail", [])}


def settings(ground, network):
    with ground.cloud.database.read() as session:
        (fact,) = balancer_facts(session, ground.numbers[network])
        return dict(fact.settings)


def test_a_rule_is_tuned_and_its_router_is_told(ground, alice, network, rule):
    target = ground.router(network)

    def wanted() -> int:
        return ground.rows(Target, Target.id == target)[0].desired_generation

    before = wanted()
    answer = add(alice, "loadbalancer", rule, maxconn="100", timeout__client="2m")
    assert (ground.job(answer)[0], wanted()) == (0, before + 1)  # it waits until the router has it
    ground.settle(target)
    assert ground.done(answer) is True
    assert settings(ground, network) == {"maxconn": "100", "timeout.client": "2m"}
    first = alice("listResourceDetails", resourcetype="LoadBalancer", resourceid=rule)
    assert (first["count"], first["resourcedetail"][0] | {"domainid": ""}) == (
        2,
        {
            "key": "maxconn",
            "value": "100",
            "resourcetype": "LoadBalancer",
            "resourceid": rule,
            "account": "alice",
            "domain": "ROOT",
            "domainid": "",
            "domainpath": "ROOT",
        },
    )
    answer = add(alice, "LoadBalancer", rule, maxconn="50")
    ground.settle(target)
    ground.done(answer)
    assert settings(ground, network) == {"maxconn": "50", "timeout.client": "2m"}
    answer = remove(alice, "LoadBalancer", rule, key="maxconn")
    assert wanted() == before + 3
    ground.settle(target, "haproxy/haproxy.cfg line 3: no")
    status, result = ground.job(answer)
    assert (status, "line 3" in result["errortext"]) == (2, True)
    answer = remove(alice, "LoadBalancer", rule)
    ground.settle(target)
    ground.done(answer)
    assert settings(ground, network) == {}
    types = {event.type for event in ground.rows(Event, Event.resource_uuid == rule, Event.level == "INFO")}
    assert {"CREATE_RESOURCE_DETAILS", "DELETE_RESOURCE_DETAILS"} <= types


def test_every_setting_of_the_provider_can_be_given(ground, alice, network, rule):
    wanted = {}
    for name, (pattern, _) in SETTINGS.items():
        wanted[name] = next(value for value in ("true", "24d", "7") if pattern.fullmatch(value))
    ground.done(add(alice, "LoadBalancer", rule, **{name.replace(".", "__"): value for name, value in wanted.items()}))
    assert settings(ground, network) == wanted
    assert listed(alice, "LoadBalancer") == wanted


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ({"nbthread": "4"}, "cannot be served by VirtualRouter: .* has no setting 'nbthread'; it has maxconn"),
        ({"maxconn": "0"}, "setting maxconn .* '0' is refused: it must be a number from 1 to 9999999"),
        ({"maxconn": "1e3"}, "setting maxconn"),
        ({"timeout__client": "30 s"}, "setting timeout.client .* it must be a time such as 30s, of 24 days at most"),
        ({"timeout__client": "25d"}, "setting timeout.client .* of 24 days at most"),
        ({"timeout__server": "999999999s"}, "setting timeout.server .* of 24 days at most"),
        ({"server__slowstart": "577h"}, "setting server.slowstart .* of 24 days at most"),
        ({"option__tcpka": "yes"}, "it must be true or false"),
        ({"maxconn": "5\n    acl x"}, "value of 'maxconn' must be 1 to 255 printable characters"),
        ({"maxconn": ""}, "value of 'maxconn' must be"),
        ({"a\nb": "5"}, "name of .* must be"),
        ({"x" * 256: "5"}, "must be 1 to 255"),
        ({f"n{number}": "5" for number in range(101)}, "may have 100 at most"),
    ],
)
def test_what_a_rule_cannot_be_tuned_to_is_refused(ground, alice, network, rule, details, words):
    ground.done(add(alice, "LoadBalancer", rule, retries="2"))
    with pytest.raises(BadParameter, match=words):
        add(alice, "LoadBalancer", rule, **details)
    assert settings(ground, network) == {"retries": "2"}


def test_a_rule_of_udp_has_nothing_to_tune(ground, alice, network, rule):
    ground.done(add(alice, "LoadBalancer", rule, maxconn="10"))
    with pytest.raises(BadParameter, match="nothing to tune: remove its settings"):
        alice("updateLoadBalancerRule", id=rule, protocol="udp")
    ground.done(remove(alice, "LoadBalancer", rule))
    ground.done(alice("updateLoadBalancerRule", id=rule, protocol="udp"))
    with pytest.raises(BadParameter, match="nothing to tune"):
        add(alice, "LoadBalancer", rule, maxconn="10")


def test_networks_templates_and_isos_keep_what_is_noted(ground, alice, network, template):
    for kind, uuid, table in (
        ("Network", network, Network),
        ("Template", template["Template"], Template),
        ("ISO", template["ISO"], Template),
    ):
        ground.done(add(alice, kind, uuid, owner="ann", floor="3 b"))
        ground.done(add(alice, kind, uuid, floor="4"))
        assert ground.rows(table, table.uuid == uuid)[0].details == {"owner": "ann", "floor": "4"}
        assert listed(alice, kind) == {"owner": "ann", "floor": "4"}
        with pytest.raises(BadParameter, match="other than letters and digits"):
            add(alice, kind, uuid, **{"a b": "c"})
        with pytest.raises(BadParameter, match=r"key value=roof: .* has the details floor, owner"):
            remove(alice, kind, uuid, key="roof")
        ground.done(remove(alice, kind, uuid, key="floor"))
        ground.done(remove(alice, kind, uuid))
        assert listed(alice, kind, resourceid=uuid) == {}
        with pytest.raises(BadParameter, match="has no details"):
            remove(alice, kind, uuid, key="owner")
    assert alice("listNetworks", id=network)["network"][0].get("details") is None
    ground.done(add(alice, "Network", network, hideIpAddressUsage="true"))
    assert alice("listNetworks", id=network)["network"][0]["details"] == {"hideIpAddressUsage": "true"}
    with pytest.raises(BadParameter, match="hideIpAddressUsage must be true or false"):
        add(alice, "Network", network, hideIpAddressUsage="maybe")
    for kind, other in (("Template", "ISO"), ("ISO", "Template")):
        with pytest.raises(BadParameter, match=f"of the type {kind}"):
            add(alice, kind, template[other], owner="ann")


def test_a_machine_has_what_the_operator_allows(ground, alice, network):
    vm = ground.machine(network, "db", "10.1.1.9")
    with pytest.raises(BadParameter, match="rack is none that a machine may have"):
        add(alice, "UserVm", vm, rack="7")
    ground.cloud("updateConfiguration", name="vm.details.allowed", value="rack,rootPassword")
    with ground.cloud.database.write() as session:
        session.scalars(select(VirtualMachine)).one().details = {"cpuNumber": "2", ENCRYPTED: "sealed"}
    ground.done(add(alice, "UserVm", vm, rack="7", rootPassword="x"))
    assert listed(alice, "UserVm") == {"cpuNumber": "2", "rack": "7"}
    for name, command in (("cpuNumber", "scaleVirtualMachine"), (ENCRYPTED, "resetPasswordForVirtualMachine")):
        with pytest.raises(BadParameter, match=f"{name} is changed by {command}"):
            add(alice, "UserVm", vm, **{name: "4"})
        with pytest.raises(BadParameter, match=f"{name} is changed by {command}"):
            remove(alice, "UserVm", vm, key=name)
    ground.done(remove(alice, "UserVm", vm))
    (row,) = ground.rows(VirtualMachine)
    assert row.details == {"cpuNumber": "2", ENCRYPTED: "sealed"}
    with ground.cloud.database.write() as session:
        session.scalars(select(VirtualMachine)).one().state = "Expunging"
    with pytest.raises(BadParameter, match="instance db is Expunging"):
        add(alice, "UserVm", vm, rack="8")


def test_nothing_of_others(ground, alice, network, rule, template):
    bob = ground.account("bob")
    vm = ground.rows(VirtualMachine)[0].uuid
    ground.done(add(alice, "LoadBalancer", rule, maxconn="10"))
    for kind, uuid, name in (
        ("LoadBalancer", rule, "maxconn"),
        ("Network", network, "owner"),
        ("Template", template["Template"], "owner"),
        ("ISO", template["ISO"], "owner"),
        ("UserVm", vm, "rack"),
    ):
        for call in (
            lambda uuid, kind=kind, name=name: add(bob, kind, uuid, **{name: "1"}),
            lambda uuid, kind=kind: remove(bob, kind, uuid),
            lambda uuid, kind=kind: listed(bob, kind, resourceid=uuid),
        ):
            with pytest.raises(ApiError) as foreign:
                call(uuid)
            with pytest.raises(ApiError) as missing:
                call(MISSING)
            assert (type(foreign.value), foreign.value.text.replace(uuid, "?")) == (
                type(missing.value),
                missing.value.text.replace(MISSING, "?"),
            )
    assert listed(bob, "LoadBalancer", listall=True) == {}
    with pytest.raises(ApiError):
        listed(bob, "LoadBalancer", account="alice")
    assert listed(ground.cloud, "LoadBalancer") == {}  # the admin's own
    assert listed(ground.cloud, "LoadBalancer", listall=True) == {"maxconn": "10"}
    domain = ground.cloud("listDomains")["domain"][0]["id"]
    assert listed(ground.cloud, "LoadBalancer", account="alice", domainid=domain) == {"maxconn": "10"}
    assert ground.rows(LoadBalancer)[0].settings == {"maxconn": "10"}


def test_details_of_what_one_only_uses_are_the_owners(ground, alice, template):
    ground.done(add(alice, "Template", template["Template"], owner="ann"))
    with ground.cloud.database.write() as session:
        session.scalars(select(Template).where(Template.uuid == template["Template"])).one().is_public = True
    bob = ground.account("bob")
    assert listed(bob, "Template", listall=True) == {}
    assert listed(bob, "Template", resourceid=template["Template"]) == {}
    for call in (add, remove):
        with pytest.raises(Forbidden, match="belongs to somebody else"):
            call(bob, "Template", template["Template"], **({"x": "1"} if call is add else {}))


def test_lists_are_narrowed_and_paged(ground, alice, network, template):
    second = ground.network("alice", "db")
    ground.done(add(alice, "Network", network, owner="ann", floor="3"))
    ground.done(add(alice, "Network", second, owner="bea"))

    def values(**where):
        return [
            detail["value"]
            for detail in alice("listResourceDetails", resourcetype="network", **where).get("resourcedetail", [])
        ]

    assert values() == ["3", "ann", "bea"]
    assert values(key="owner") == ["ann", "bea"]
    assert values(key="owner", value="bea") == ["bea"]
    assert values(keyword="FLO") == ["3"]
    assert values(resourceid=second) == ["bea"]
    assert values(page=2, pagesize=2) == ["bea"]
    assert alice("listResourceDetails", resourcetype="Network", page=1, pagesize=2)["count"] == 3
    admin = ground.cloud
    assert listed(admin, "Network", listall=True, fordisplay=True) == {"owner": "bea", "floor": "3"}
    assert listed(admin, "Network", listall=True, fordisplay=False) == {}
    with pytest.raises(BadParameter, match="only be given by a root admin"):
        values(fordisplay=True)
    for wrong in ("Zone", ""):
        with pytest.raises(BadParameter, match="resourcetype"):
            listed(alice, wrong)
    with pytest.raises(BadParameter, match="resourcetype value=Zone: it must be one of ISO, LoadBalancer, Network, "):
        add(alice, "Zone", ground.zone, a="b")
    del template


def test_a_detail_is_not_hidden_and_has_a_value(alice, network):
    given = {"command": "addResourceDetail", "resourcetype": "Network", "resourceid": network}
    with pytest.raises(BadParameter, match="fordisplay value=False: a detail is shown"):
        alice.raw(given | {"details[0].key": "a", "details[0].value": "b", "fordisplay": "false"})
    with pytest.raises(BadParameter, match="value of 'a' must be"):
        alice.raw(given | {"details[0].key": "a"})
    with pytest.raises(BadParameter, match="details"):
        alice.raw(given)
    alice.raw(given | {"details[0].a": "b", "fordisplay": "true"})
    assert listed(alice, "Network") == {"a": "b"}


def test_a_list_costs_the_same_for_any_number(ground, alice):
    first = ground.network("alice", "n0")
    ground.done(add(alice, "Network", first, owner="ann"))
    few = ground.queries(lambda: listed(alice, "Network"))
    for number in range(1, 6):
        ground.done(add(alice, "Network", ground.network("alice", f"n{number}"), owner="ann", floor="1"))
    assert ground.queries(lambda: listed(alice, "Network")) == few
