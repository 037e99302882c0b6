"""The ranges of a Shared network: the next one serves when one is full, and no guest loses its address."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.compute.guests import guest_facts
from controlplane.errors import BadParameter, InUse, NoAddress, RuleConflict
from controlplane.network.facts import router_facts
from controlplane.network.nics import NetworkAddress
from controlplane.network.routers import Router
from controlplane.reconcile.targets import Target
from controlplane.zone.hosts import Host
from drivers.vocabulary import GuestSubnet
from tests.api.shared_world import SECOND, V6, WHERE, network, shared_world


@pytest.fixture
def there(cloud):
    with shared_world(cloud) as made:
        yield made


@pytest.fixture
def made(there, cloud):
    return network(there, cloud, **WHERE)


def add(cloud, made, **given):
    return cloud("createVlanIpRange", networkid=made["id"], forvirtualnetwork=False, **given)["vlan"]


def guest(there, cloud, made, name):
    (nic,) = there.deploy(cloud=cloud, name=name, networkids=made["id"])["nic"]
    return nic["ipaddress"], nic["gateway"]


def facts(there, cloud):
    (router,) = there.rows(Router, Router.removed.is_(None))
    with cloud.database.read() as session:
        (net,) = router_facts(session, session.get_one(Target, router.target_id)).networks
    return net


def test_a_second_range_of_another_subnet_serves_when_the_first_is_full(there, cloud, made):
    assert guest(there, cloud, made, "one") == ("10.8.1.11", "10.8.1.1")
    assert guest(there, cloud, made, "two") == ("10.8.1.12", "10.8.1.1")
    assert cloud("listNetworks", id=made["id"])["network"][0]["canusefordeploy"] is False
    assert cloud("listNetworks", type="Shared", canusefordeploy=True) == {}
    with pytest.raises(NoAddress, match=r"10\.8\.1\.10-10\.8\.1\.12"):
        there.deploy(cloud=cloud, name="three", networkids=made["id"])
    more = add(cloud, made, **SECOND)
    assert (more["vlan"], more["forvirtualnetwork"], more["cidr"]) == ("vxlan://300", False, "10.8.2.0/24")
    assert cloud("listNetworks", id=made["id"])["network"][0]["canusefordeploy"] is True
    assert guest(there, cloud, made, "three") == ("10.8.2.11", "10.8.2.1")
    known = facts(there, cloud)
    first, second = (
        GuestSubnet("10.8.1.0/24", "10.8.1.1", "10.8.1.10"),
        GuestSubnet("10.8.2.0/24", "10.8.2.1", "10.8.2.10"),
    )
    assert known.subnets == (first, second)
    assert known.gateway == "10.8.1.1"
    assert [lease.address for lease in known.leases] == ["10.8.1.11", "10.8.1.12", "10.8.2.11"]
    assert cloud("listVlanIpRanges", networkid=made["id"])["count"] == 2
    assert cloud("listVlanIpRanges", forvirtualnetwork=False)["count"] == 2


def test_the_guests_of_a_host_have_the_gateway_of_their_subnet(there, cloud, made):
    add(cloud, made, **SECOND)
    there.deploy(cloud=cloud, name="one", networkids=made["id"], ipaddress="10.8.2.15")
    with cloud.database.read() as session:
        ((told,),) = (held.nics for held in guest_facts(session, session.scalars(select(Host)).one()))
    assert (told.address, told.gateway, told.prefix) == ("10.8.2.15", "10.8.2.1", 24)


def test_a_further_range_of_the_same_subnet_shares_the_routers_address(there, cloud, made):
    add(cloud, made, gateway="10.8.1.1", netmask="255.255.255.0", startip="10.8.1.40", endip="10.8.1.41")
    there.deploy(cloud=cloud, name="one", networkids=made["id"], ipaddress="10.8.1.41")
    assert facts(there, cloud).subnets == (GuestSubnet("10.8.1.0/24", "10.8.1.1", "10.8.1.10"),)


def test_a_range_goes_only_when_no_guest_has_an_address_of_it(there, cloud, made):
    second = add(cloud, made, **SECOND)
    first = next(
        row for row in cloud("listVlanIpRanges", networkid=made["id"])["vlaniprange"] if row["id"] != second["id"]
    )
    vm = there.deploy(cloud=cloud, name="one", networkids=made["id"])
    with pytest.raises(InUse, match=r"one has 10\.8\.1\.11"):
        cloud("deleteVlanIpRange", id=first["id"])
    cloud("deleteVlanIpRange", id=second["id"])
    assert [subnet.cidr for subnet in facts(there, cloud).subnets] == ["10.8.1.0/24"]
    there.job(cloud("destroyVirtualMachine", id=vm["id"], expunge=True))
    with pytest.raises(InUse, match="only one"):
        cloud("deleteVlanIpRange", id=first["id"])
    assert {row.address for row in there.rows(NetworkAddress)} == {"10.8.1.10"}


def test_the_router_moves_on_when_its_first_range_goes(there, cloud, made):
    add(cloud, made, **SECOND)
    first = next(
        row for row in cloud("listVlanIpRanges", networkid=made["id"])["vlaniprange"] if row["gateway"] == "10.8.1.1"
    )
    there.deploy(cloud=cloud, name="one", networkids=made["id"], ipaddress="10.8.2.15")
    cloud("deleteVlanIpRange", id=first["id"])
    (router,) = cloud("listRouters", networkid=made["id"], listall=True)["router"]
    assert (router["guestipaddress"], router["guestnetmask"]) == ("10.8.2.10", "255.255.255.0")
    assert cloud("listNetworks", id=made["id"])["network"][0]["cidr"] == "10.8.2.0/24"


def test_a_range_is_widened_and_narrowed_around_its_guests(there, cloud, made):
    (row,) = cloud("listVlanIpRanges", networkid=made["id"])["vlaniprange"]
    assert guest(there, cloud, made, "one")[0] == "10.8.1.11"
    assert cloud("updateVlanIpRange", id=row["id"], endip="10.8.1.20")["vlan"]["endip"] == "10.8.1.20"
    with pytest.raises(InUse, match=r"one has 10\.8\.1\.11"):
        cloud("updateVlanIpRange", id=row["id"], startip="10.8.1.12")
    with pytest.raises(InUse, match=r"one has 10\.8\.1\.11"):
        cloud("updateVlanIpRange", id=row["id"], gateway="10.8.1.2")


@pytest.mark.parametrize(
    ("given", "error", "names"),
    [
        (SECOND | {"gateway": "10.8.1.2", "startip": "10.8.1.50", "endip": "10.8.1.60"}, RuleConflict, "gateway"),
        (SECOND | {"gateway": "10.8.1.1", "startip": "10.8.1.12", "endip": "10.8.1.60"}, RuleConflict, "overlap"),
        (SECOND | {"vlan": "301"}, BadParameter, "the network is on 300"),
        (SECOND | {"account": "alice"}, BadParameter, "account"),
        ({}, BadParameter, "startip"),
    ],
)
def test_what_a_range_cannot_be(there, cloud, made, given, error, names):
    with pytest.raises(error, match=names):
        add(cloud, made, **given)


def test_ipv6_comes_to_a_network_that_has_guests(there, cloud, made):
    vm = there.deploy(cloud=cloud, name="one", networkids=made["id"])
    assert "ip6address" not in vm["nic"][0]
    add(cloud, made, **V6)
    with pytest.raises(BadParameter, match="already"):
        add(cloud, made, ip6gateway="2001:db8:9::1", ip6cidr="2001:db8:9::/64")
    (nic,) = cloud("listVirtualMachines", id=vm["id"])["virtualmachine"][0]["nic"]
    assert nic["ip6address"].startswith("2001:db8:8:0:")
    known = facts(there, cloud)
    assert (known.gateway6, known.subnets[1]) == (
        "2001:db8:8::2",
        GuestSubnet(V6["ip6cidr"], V6["ip6gateway"], "2001:db8:8::2"),
    )
    assert known.leases[0].address6 == nic["ip6address"]


def test_an_ipv6_range_is_given_from_its_first_address_on(there, cloud):
    made = network(there, cloud, **V6, startipv6="2001:db8:8::10", endipv6="2001:db8:8::20", vlan="301")
    vm = there.deploy(cloud=cloud, name="one", networkids=made["id"])
    assert vm["nic"][0]["ip6address"] == "2001:db8:8::11"
    (six,) = facts(there, cloud).subnets
    assert (six.address, six.slaac) == ("2001:db8:8::10", False)


def test_the_router_has_the_address_that_was_asked_for_and_keeps_it(there, cloud):
    made = network(there, cloud, **WHERE, **V6, routerip="10.8.1.99", routeripv6="2001:db8:8::99")
    assert guest(there, cloud, made, "one")[0] == "10.8.1.10"
    assert there.job(cloud("restartNetwork", id=made["id"], cleanup=True)) is True
    (router,) = cloud("listRouters", networkid=made["id"], listall=True)["router"]
    (nic,) = router["nic"]
    assert (nic["ipaddress"], nic["ip6address"]) == ("10.8.1.99", "2001:db8:8::99")


def test_an_address_outside_of_the_ranges_is_not_a_guests(there, cloud, made):
    for address, why in (("10.8.1.13", "have 10.8.1.10-10.8.1.12"), ("10.8.1.10", "taken"), ("10.9.0.1", "have")):
        with pytest.raises(BadParameter, match=why):
            there.deploy(cloud=cloud, name="one", networkids=made["id"], ipaddress=address)


def test_a_part_is_reserved_and_guests_outside_of_it_are_named(there, cloud):
    made = network(there, cloud, **WHERE | {"endip": "10.8.1.254"})
    there.deploy(cloud=cloud, name="one", networkids=made["id"])
    with pytest.raises(BadParameter, match=r"10\.8\.1\.11 \(one\)"):
        cloud("updateNetwork", id=made["id"], guestvmcidr="10.8.1.128/25")
    there.job(cloud("updateNetwork", id=made["id"], guestvmcidr="10.8.1.0/28"))
    shown = cloud("listNetworks", id=made["id"])["network"][0]
    assert (shown["cidr"], shown["networkcidr"]) == ("10.8.1.0/28", "10.8.1.0/24")
    for number in range(12, 15):
        assert guest(there, cloud, made, f"vm-{number}")[0] == f"10.8.1.{number}"
    with pytest.raises(NoAddress):
        there.deploy(cloud=cloud, name="more", networkids=made["id"])


def test_capacity_counts_them(there, cloud, made):
    add(cloud, made, **SECOND)
    guest(there, cloud, made, "one")
    found = {row["name"]: row for row in cloud("listCapacity", zoneid=there.zone)["capacity"]}
    direct = found["DIRECT_ATTACHED_PUBLIC_IP"]
    assert (direct["capacitytotal"], direct["capacityused"]) == (14, 3)
