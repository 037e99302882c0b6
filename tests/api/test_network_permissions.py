"""Networks of one account that others may use, and domains' networks."""

from __future__ import annotations

import pytest

from controlplane.errors import BadParameter, Forbidden, InUse
from controlplane.network.network_permissions import NetworkPermission
from controlplane.network.networks import Network
from tests.api.shared_world import WHERE, network, root, shared_world


@pytest.fixture
def there(cloud):
    with shared_world(cloud) as made:
        yield made


def people(cloud, *names, domain):
    for name in names:
        cloud("createAccount", username=name, email="a@example.test", firstname=name, lastname=name,
              password="password", accounttype=0, domainid=domain, account=name)  # fmt: skip
    return [cloud.as_user(name) for name in names]


def permitted(cloud, made):
    rows = cloud("listNetworkPermissions", networkid=made["id"]).get("networkpermission", [])
    return [(row["account"], row["domain"]) for row in rows]


def test_a_permitted_account_deploys_and_the_others_do_not(there, cloud):
    alice, bob = cloud.as_user("alice"), cloud.as_user("bob")
    made = cloud("listNetworks", id=there.network)["network"][0]
    with pytest.raises(BadParameter, match="not yours to use"):
        there.deploy(cloud=bob, name="one")
    alice("createNetworkPermissions", networkid=made["id"], accounts="bob")
    alice("createNetworkPermissions", networkid=made["id"], accounts="bob,alice")
    assert permitted(alice, made) == [("bob", "ROOT")]
    assert bob("listNetworks", networkfilter="shared")["network"][0]["account"] == "alice"
    assert bob("listNetworks", networkfilter="account") == {}
    vm = there.deploy(cloud=bob, name="one")
    assert vm["account"] == "bob"
    for command, given in (
        ("deleteNetwork", {"id": made["id"]}),
        ("createNetworkPermissions", {"networkid": made["id"], "accounts": "bob"}),
        ("createEgressFirewallRule", {"networkid": made["id"], "protocol": "all"}),
        ("listNetworkPermissions", {"networkid": made["id"]}),
    ):
        with pytest.raises(Forbidden, match="somebody else"):
            bob(command, **given)
    alice("removeNetworkPermissions", networkid=made["id"], accounts="bob")
    with pytest.raises(BadParameter, match="not yours to use"):
        there.deploy(cloud=bob, name="two")
    assert bob("listNetworks", listall=True) == {}
    assert bob("listVirtualMachines")["count"] == 1


def test_by_id_and_all_at_once(there, cloud):
    alice = cloud.as_user("alice")
    bob = cloud("listAccounts", name="bob", listall=True)["account"][0]["id"]
    alice("createNetworkPermissions", networkid=there.network, accountids=bob)
    assert permitted(alice, {"id": there.network}) == [("bob", "ROOT")]
    alice("resetNetworkPermissions", networkid=there.network)
    assert there.rows(NetworkPermission) == []


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, "accounts"),
        ({"accounts": "nobody"}, "accounts value=nobody"),
        ({"accountids": "3"}, "accountids value=3"),
        ({"projectids": "3"}, "projectids"),
    ],
)
def test_who_cannot_be_permitted(there, cloud, given, names):
    with pytest.raises(BadParameter, match=names):
        cloud("createNetworkPermissions", networkid=there.network, **given)


def test_a_domains_network_needs_no_permission(there, cloud):
    made = network(there, cloud, **WHERE)
    with pytest.raises(BadParameter, match="nobody needs to be permitted"):
        cloud("createNetworkPermissions", networkid=made["id"], accounts="bob")


@pytest.mark.parametrize(("below", "seen"), [(True, [True, True, False]), (False, [True, False, False])])
def test_a_domains_network_is_its_accounts_and_those_of_the_domains_below_where_that_was_said(
    there, cloud, below, seen
):
    sales = cloud("createDomain", name="sales")["domain"]["id"]
    east = cloud("createDomain", name="east", parentdomainid=sales)["domain"]["id"]
    insiders = people(cloud, "sam", domain=sales) + people(cloud, "eve", domain=east) + [cloud.as_user("bob")]
    made = network(there, cloud, domainid=sales, subdomainaccess=below, **WHERE)
    assert (made["domain"], made["subdomainaccess"]) == ("sales", below)
    for who, may in zip(insiders, seen, strict=True):
        assert bool(who("listNetworks", listall=True)) is may
        assert bool(who("listNetworks", networkfilter="domain")) is may
    assert cloud("listNetworks", account="sam", domainid=sales)["count"] == 1
    with pytest.raises(Forbidden, match="is not for the domain of account bob"):
        there.deploy(cloud=cloud, name="one", networkids=made["id"], account="bob", domainid=root(cloud))
    assert there.deploy(cloud=insiders[0], name="one", networkids=made["id"])["account"] == "sam"


def test_accounts_see_each_others_names_and_never_take_them(there, cloud):
    made = network(there, cloud, **WHERE)
    there.deploy(cloud=cloud.as_user("alice"), name="web", networkids=made["id"])
    with pytest.raises(BadParameter, match="has a machine of this name already"):
        there.deploy(cloud=cloud.as_user("bob"), name="web", networkids=made["id"])


def test_a_machine_on_several_networks(there, cloud):
    made, alice = network(there, cloud, **WHERE), cloud.as_user("alice")
    vm = there.deploy(cloud=alice, name="web", networkids=f"{there.network},{made['id']}")
    assert [nic["networkname"] for nic in vm["nic"]] == ["web", "common"]
    second = there.deploy(cloud=alice, name="db")
    again = there.job(alice("addNicToVirtualMachine", virtualmachineid=second["id"], networkid=made["id"]))
    assert [nic["gateway"] for nic in again["nic"]] == ["10.1.1.1", "10.8.1.1"]


def test_an_account_stays_while_others_are_on_its_network_and_leaves_no_permission_behind(there, cloud):
    alice, bob = (cloud("listAccounts", name=name, listall=True)["account"][0]["id"] for name in ("alice", "bob"))
    cloud("createNetworkPermissions", networkid=there.network, accounts="bob")
    vm = there.deploy(cloud=cloud.as_user("bob"), name="one")
    with pytest.raises(InUse, match="machine one of another account is on its network web"):
        cloud("deleteAccount", id=alice)
    there.job(cloud("destroyVirtualMachine", id=vm["id"], expunge=True))
    there.job(cloud("deleteAccount", id=bob))
    assert there.rows(NetworkPermission) == []
    there.job(cloud("deleteAccount", id=alice))
    assert there.rows(Network, Network.removed.is_(None)) == []


def test_a_domains_admin_makes_networks_for_the_domain_and_not_beyond(there, cloud):
    sales = cloud("createDomain", name="sales")["domain"]["id"]
    cloud("createAccount", username="dora", email="a@example.test", firstname="d", lastname="d", password="password",
          accounttype=2, domainid=sales, account="dora")  # fmt: skip
    given = {"serviceproviderlist[0].service": "Dhcp", "serviceproviderlist[0].provider": "VirtualRouter"}
    cloud.raw(
        {"command": "createNetworkOffering", "name": "open", "guestiptype": "Shared", "enable": "true",
         "traffictype": "Guest", "specifyipranges": "true", "supportedservices": "Dhcp"} | given
    )  # fmt: skip
    dora, where = cloud.as_user("dora"), {key: value for key, value in WHERE.items() if key != "vlan"}
    with pytest.raises(BadParameter, match="vlan may only be given by a root admin"):
        network(there, dora, "open", **WHERE)
    with pytest.raises(BadParameter, match="domainid"):
        network(there, dora, "open", domainid=root(cloud), **where)
    made = network(there, dora, "open", **where)
    assert (made["domain"], made["acltype"]) == ("sales", "Domain")
    assert cloud("listNetworks", id=made["id"])["network"][0]["vlan"] == "5000"
    assert cloud.as_user("bob")("listNetworks", listall=True) == {}
    assert there.job(dora("deleteNetwork", id=made["id"])) is True
