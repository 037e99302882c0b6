"""Networks of type Shared and L2: made, scoped, numbered and deleted."""

from __future__ import annotations

import pytest

from controlplane.errors import BadParameter, Forbidden, InUse, RuleConflict
from controlplane.network.nics import NetworkAddress
from controlplane.network.public_ips import VlanRange
from controlplane.zone.physical_networks import Vnet
from tests.api.ground import Ground
from tests.api.shared_world import SECOND, V6, WHERE, network, root, shared_world


@pytest.fixture
def there(cloud):
    with shared_world(cloud) as made:
        yield made


def test_a_network_for_the_whole_zone_is_seen_and_used_by_every_account(there, cloud):
    made = network(there, cloud, **WHERE)
    assert (made["type"], made["acltype"]) == ("Shared", "Domain")
    assert (made["domain"], made["subdomainaccess"]) == ("ROOT", True)
    assert "account" not in made
    assert (made["vlan"], made["broadcasturi"]) == ("300", "vxlan://300")
    assert (made["gateway"], made["netmask"], made["cidr"]) == ("10.8.1.1", "255.255.255.0", "10.8.1.0/24")
    bob = cloud.as_user("bob")
    (seen,) = bob("listNetworks", type="Shared")["network"]
    assert seen["id"] == made["id"]
    assert "vlan" not in seen
    vm = there.deploy(cloud=bob, name="one", networkids=made["id"])
    (nic,) = vm["nic"]
    assert (nic["ipaddress"], nic["gateway"], nic["netmask"]) == ("10.8.1.11", "10.8.1.1", "255.255.255.0")
    (router,) = cloud("listRouters", networkid=made["id"], listall=True)["router"]
    (inside,) = router["nic"]
    assert (inside["ipaddress"], inside["traffictype"]) == ("10.8.1.10", "Guest")


def test_a_network_of_an_account_is_its_own_alone(there, cloud):
    made = network(there, cloud, account="alice", domainid=root(cloud), **WHERE)
    assert (made["acltype"], made["account"]) == ("Account", "alice")
    alice, bob = cloud.as_user("alice"), cloud.as_user("bob")
    assert [row["id"] for row in alice("listNetworks", type="Shared")["network"]] == [made["id"]]
    assert bob("listNetworks", type="Shared", listall=True) == {}
    with pytest.raises(BadParameter, match="not yours to use"):
        there.deploy(cloud=bob, name="one", networkids=made["id"])


def test_whoever_may_only_use_a_network_does_not_change_it(there, cloud):
    made = network(there, cloud, **WHERE)
    bob = cloud.as_user("bob")
    for command in ("deleteNetwork", "restartNetwork", "updateNetwork"):
        with pytest.raises(Forbidden, match="belongs to somebody else"):
            bob(command, id=made["id"])


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"startip": ""}, "startip"),
        ({"gateway": "10.8.1.11"}, "holds the gateway"),
        ({"endip": "10.8.3.1"}, "no host address"),
        ({"routerip": "10.9.0.1"}, "routerip value=10.9.0.1"),
        ({"routerip": "10.8.1.1"}, "not the gateway's"),
        ({"routeripv6": "2001:db8:8::5"}, "no such range"),
        ({"ip6gateway": "2001:db8:8::1"}, "go together"),
        (V6 | {"ip6cidr": "2001:db8:8::/80"}, "of a /64"),
        ({"vlan": "5001"}, "bypassvlanoverlapcheck"),
        ({"vlan": "vlan://30"}, "a VXLAN number"),
        ({"vlan": "none"}, "untagged, or"),
        ({"account": "alice", "acltype": "Domain"}, "for a whole domain"),
        ({"acltype": "Account", "subdomainaccess": True}, "acltype=Domain"),
        ({"subdomainaccess": False}, "name the domainid"),
        ({"sourcenatipaddress": "203.0.113.11"}, "have none to be named"),
        ({"projectid": "123"}, "projectid"),
        ({"isolatedpvlan": "5"}, "isolates by VXLAN"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(there, cloud, given, names):
    with pytest.raises(BadParameter, match=names):
        network(there, cloud, **{key: value for key, value in (WHERE | given).items() if value != ""})
    assert there.rows(VlanRange, VlanRange.network_id.is_not(None)) == []


def test_users_make_no_shared_networks(there, cloud):
    with pytest.raises(Forbidden, match="an admin makes them"):
        network(there, cloud.as_user("bob"), **{key: value for key, value in WHERE.items() if key != "vlan"})


def test_a_vlan_is_shared_only_where_an_operator_says_so_and_stays_taken_until_the_last_has_gone(there, cloud):
    first = network(there, cloud, **WHERE)
    with pytest.raises(InUse, match="network common has it"):
        network(there, cloud, **WHERE | SECOND)
    second = network(there, cloud, **WHERE | SECOND, bypassvlanoverlapcheck=True)
    with pytest.raises(RuleConflict, match="overlap"):
        network(there, cloud, **WHERE, bypassvlanoverlapcheck=True)
    there.job(cloud("deleteNetwork", id=first["id"]))
    with pytest.raises(InUse, match="network common has it"):
        network(there, cloud, **WHERE)
    there.job(cloud("deleteNetwork", id=second["id"]))
    assert there.rows(Vnet) == []
    assert there.rows(VlanRange, VlanRange.network_id.is_not(None)) == []
    assert there.rows(NetworkAddress) == []


def test_an_untagged_network(there, cloud):
    made = network(there, cloud, **WHERE | {"vlan": "untagged"})
    assert (made["vlan"], made["broadcasturi"]) == ("untagged", "vlan://untagged")
    assert cloud("listNetworks", vlan="untagged")["count"] == 1
    assert cloud("listVlanIpRanges", networkid=made["id"])["vlaniprange"][0]["vlan"] == "vlan://untagged"
    there.deploy(cloud=cloud, name="one", networkids=made["id"])


def test_both_families(there, cloud):
    made = network(there, cloud, **WHERE, **V6)
    assert (made["ip6cidr"], made["ip6gateway"]) == ("2001:db8:8::/64", "2001:db8:8::1")
    vm = there.deploy(cloud=cloud, name="one", networkids=made["id"])
    assert vm["nic"][0]["ip6gateway"] == "2001:db8:8::1"
    assert vm["nic"][0]["ip6address"].startswith("2001:db8:8:0:")


def offering(cloud, *services):
    given = {f"serviceproviderlist[{at}].{key}": value
             for at, name in enumerate(services)
             for key, value in (("service", name), ("provider", "VirtualRouter"))}  # fmt: skip
    made = cloud.raw(
        {"command": "createNetworkOffering", "name": "-".join(services), "guestiptype": "Shared", "enable": "true",
         "traffictype": "Guest", "specifyvlan": "true", "specifyipranges": "true",
         "supportedservices": ",".join(services)} | given
    )  # fmt: skip
    return made["networkoffering"]["id"]


def test_no_router_of_ours_is_a_shared_networks_gateway(there, cloud):
    with pytest.raises(BadParameter, match="cannot give a Shared network SourceNat"):
        offering(cloud, "Dhcp", "SourceNat")


def test_another_offering_says_first_which_guests_lose_a_service(there, cloud):
    made, leaner = network(there, cloud, **WHERE), offering(cloud, "Dhcp")
    there.deploy(cloud=cloud, name="one", networkids=made["id"])
    with pytest.raises(BadParameter, match=r"guests' Dns, UserData would be lost \(forced=true removes them\): one"):
        cloud("updateNetwork", id=made["id"], networkofferingid=leaner)
    isolated = cloud("listNetworkOfferings", name="DefaultIsolatedNetworkOfferingWithSourceNatService")
    with pytest.raises(BadParameter, match="it is for Isolated networks"):
        cloud("updateNetwork", id=made["id"], networkofferingid=isolated["networkoffering"][0]["id"])
    changed = there.job(cloud("updateNetwork", id=made["id"], networkofferingid=leaner, forced=True))
    assert [service["name"] for service in changed["service"]] == ["Dhcp"]
    assert there.rows(NetworkAddress, NetworkAddress.address == "10.8.1.10") != []
    bare = cloud("listNetworkOfferings", name="QuickCloudNoServices")["networkoffering"][0]["id"]
    there.job(cloud("updateNetwork", id=made["id"], networkofferingid=bare, forced=True))
    assert cloud("listRouters", networkid=made["id"], listall=True) == {}
    there.job(cloud("updateNetwork", id=made["id"], networkofferingid=leaner))
    (router,) = cloud("listRouters", networkid=made["id"], listall=True)["router"]
    assert router["guestipaddress"] == "10.8.1.10"


def test_a_domain_stays_while_a_network_is_for_its_accounts(there, cloud):
    sales = cloud("createDomain", name="sales")["domain"]["id"]
    made = network(there, cloud, domainid=sales, **WHERE)
    with pytest.raises(InUse, match=r"Shared network common is for the accounts of ROOT/sales"):
        cloud("deleteDomain", id=sales, cleanup=True)
    there.job(cloud("deleteNetwork", id=made["id"]))
    there.job(cloud("deleteDomain", id=sales))


def test_the_list_asks_no_more_of_the_database_for_more_networks(there, cloud):
    network(there, cloud, **WHERE | {"endip": "10.8.1.10"})

    def asked():
        # the agents ask for work beside it
        return min(Ground(cloud).queries(lambda: cloud("listNetworks", listall=True)) for _ in range(3))

    first = asked()
    network(there, cloud, **WHERE | SECOND | {"vlan": "301", "endip": "10.8.2.10"})
    assert asked() == first


@pytest.mark.parametrize("offering", ["DefaultL2NetworkOffering", "DefaultL2NetworkOfferingVlan"])
def test_an_l2_network_has_a_number_and_no_addresses(there, cloud, offering):
    vlan = {"vlan": "77"} if offering.endswith("Vlan") else {}
    made = network(there, cloud, offering, **vlan)
    assert (made["type"], made["acltype"], made["service"]) == ("L2", "Account", [])
    assert "cidr" not in made
    vm = there.deploy(cloud=cloud, name="one", networkids=made["id"])
    assert "ipaddress" not in vm["nic"][0]
    assert cloud("listNetworks", id=made["id"])["network"][0]["state"] == "Implemented"
    assert cloud("listRouters", networkid=made["id"], listall=True) == {}


@pytest.mark.parametrize("given", [{"gateway": "10.1.1.1"}, {"ip6cidr": "2001:db8::/64"}, {"acltype": "Domain"}])
def test_an_l2_network_is_refused_addresses_and_other_scopes(there, cloud, given):
    with pytest.raises(BadParameter, match=next(iter(given))):
        network(there, cloud, "DefaultL2NetworkOffering", **given)
