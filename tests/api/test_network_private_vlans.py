"""Private VLANs: which networks may share a primary VLAN, what is refused by name, and what hosts are told."""

from __future__ import annotations

from itertools import product

import pytest
from sqlalchemy import select

from controlplane.errors import ApiError, BadParameter, InUse
from controlplane.network.private_vlans import PrivateVlan
from controlplane.network.routers import Router
from controlplane.network.segments import segment_facts
from controlplane.network.shells import shell_facts
from controlplane.zone.hosts import Host
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType, Vnet
from controlplane.zone.providers import NetworkServiceProvider
from tests.api.compute_world import world

L2, SHARED = "DefaultL2NetworkOfferingVlan", "DefaultSharedNetworkOffering"
RANGE = {"gateway": "10.8.1.1", "netmask": "255.255.255.0", "startip": "10.8.1.10", "endip": "10.8.1.19"}


@pytest.fixture
def there(cloud):
    with world(cloud) as made:
        with cloud.database.write() as session:
            physical = session.scalars(select(PhysicalNetwork)).one()
            physical.isolation, physical.vnets = "VLAN", [[100, 199]]
            physical.traffic_types.append(TrafficType(traffic="Guest"))
            session.add(NetworkServiceProvider(physical_network_id=physical.id, name="VirtualRouter", state="Enabled"))
        yield made


def private(there, cloud, role, own=None, primary=900, offering=L2, **more):
    """Make a network in a private VLAN; without a role, what the numbers mean."""
    (offered,) = cloud("listNetworkOfferings", name=offering)["networkoffering"]
    given = {"name": f"{role}-{own}", "zoneid": there.zone, "networkofferingid": offered["id"], "vlan": str(primary)}
    given |= {"isolatedpvlantype": role} if role else {}
    given |= {"isolatedpvlan": str(own)} if own else {}
    return cloud("createNetwork", **(given | more))["network"]


def generations(there):
    with there.cloud.database.read() as session:
        return [host.target.desired_generation for host in session.scalars(select(Host).order_by(Host.id))]


def segments(there, load=segment_facts):
    with there.cloud.database.read() as session:
        return [load(session, host) for host in session.scalars(select(Host).order_by(Host.id))]


def test_the_networks_of_one_private_vlan_share_its_primary_vlan(there, cloud):
    isolated, community = private(there, cloud, "isolated", 901), private(there, cloud, "community", 902)
    other, promiscuous = private(there, cloud, "community", 903), private(there, cloud, "promiscuous")
    shown = [made["broadcasturi"] for made in (isolated, community, other, promiscuous)]
    assert shown == ["pvlan://900-i901", "pvlan://900-c902", "pvlan://900-c903", "pvlan://900-p900"]
    assert (isolated["broadcastdomaintype"], isolated["vlan"]) == ("Pvlan", "900-i901")
    assert sorted(row.number for row in there.rows(Vnet)) == [900, 901, 902, 903]
    vm = there.deploy(cloud=cloud, name="one", networkids=isolated["id"])
    (nic,) = vm["nic"]
    assert (nic["isolatedpvlan"], nic["isolatedpvlantype"]) == (901, "isolated")


def test_a_tenant_does_not_see_the_numbers(there, cloud):
    owned = {"account": "alice", "domainid": cloud("listDomains")["domain"][0]["id"]}
    made = private(there, cloud, "isolated", 901, **owned)
    assert not {"vlan", "broadcasturi"} & there.cloud("listNetworks", id=made["id"])["network"][0].keys()
    (nic,) = there.deploy(name="one", networkids=made["id"])["nic"]
    assert not {"isolatedpvlan", "isolatedpvlantype", "broadcasturi"} & nic.keys()
    with pytest.raises(ApiError, match="vlan"):
        private(there, there.cloud, "community", 902)


def test_the_role_follows_from_the_numbers_where_none_is_named(there, cloud):
    assert private(there, cloud, "", 901)["broadcasturi"] == "pvlan://900-i901"
    assert private(there, cloud, "", 900)["broadcasturi"] == "pvlan://900-p900"
    assert private(there, cloud, "none", None, 77)["broadcasturi"] == "vlan://77"


@pytest.mark.parametrize(
    ("role", "own", "more", "names"),
    [
        ("isolated", None, {}, "isolated and 900 on 900 do not go together"),
        ("community", 900, {}, r"isolatedpvlan value=900.* community and 900"),
        ("promiscuous", 901, {}, "promiscuous and 901 on 900"),
        ("none", 901, {}, "isolatedpvlantype=none"),
        ("isolated", 4095, {}, "isolatedpvlan value=4095: .*from 1 to 4094"),
        ("isolated", "x", {}, "isolatedpvlan value=x"),
        ("isolated", 901, {"vlan": "untagged"}, "vlan value=untagged"),
        ("isolated", 150, {}, "100-199"),
        ("sometimes", 901, {}, "isolatedpvlantype"),
    ],
)
def test_what_cannot_be_a_private_vlan_is_refused_by_name(there, cloud, role, own, more, names):
    with pytest.raises(BadParameter, match=names):
        private(there, cloud, role, own, **more)
    assert there.rows(Vnet) == []


def test_only_networks_with_vlans_and_without_nat_can_be_in_one(there, cloud):
    (plain,) = cloud("listNetworkOfferings", name="DefaultL2NetworkOffering")["networkoffering"]
    with pytest.raises(BadParameter, match="the primary VLAN must be named"):
        cloud("createNetwork", name="n", zoneid=there.zone, networkofferingid=plain["id"], isolatedpvlan="901")
    isolated = cloud(
        "createNetworkOffering", name="iso-v", displaytext="v", guestiptype="Isolated", traffictype="Guest", enable=True,
        specifyvlan=True, supportedservices="Dhcp",
    )["networkoffering"]["name"]  # fmt: skip
    with pytest.raises(BadParameter, match="Shared and L2 networks"):
        private(there, cloud, "isolated", 901, offering=isolated)
    with cloud.database.write() as session:
        session.scalars(select(PhysicalNetwork)).one().isolation = "VXLAN"
    with pytest.raises(BadParameter, match="isolates by VXLAN"):
        private(there, cloud, "isolated", 901)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (("isolated", 904), "one isolated VLAN, which is 901 on network isolated-901"),
        (("community", 901), "VLAN 901 is isolated on network isolated-901"),
        (("isolated", 902), "VLAN 902 is community on network community-902"),
        (("community", 902), "community-902 has this very place"),
        (("isolated", 901, 800), "VLAN 901 is of network isolated-901, whose primary VLAN is 900"),
        (("isolated", 900, 800), "VLAN 900 is of network isolated-901"),
        (("isolated", 701, 902), "VLAN 902 is of network community-902"),
        (("isolated", 77), "network plain has VLAN 77, which is not private"),
        (("isolated", 701, 77), "network plain has VLAN 77, which is not private"),
    ],
)
def test_what_overlaps_is_refused_with_the_other_network_s_name(there, cloud, given, names):
    private(there, cloud, "isolated", 901)
    private(there, cloud, "community", 902)
    private(there, cloud, "none", None, 77, name="plain")
    with pytest.raises(InUse, match=names):
        private(there, cloud, *given)
    for number in (900, 901, 902):
        with pytest.raises(InUse):
            private(there, cloud, "none", None, number)
        with pytest.raises(InUse, match="part of the private VLAN 900"):
            private(there, cloud, "none", None, number, bypassvlanoverlapcheck=True)


def test_two_networks_are_one_wire_where_an_operator_says_so(there, cloud):
    first = private(there, cloud, "community", 902)
    second = private(there, cloud, "community", 902, bypassvlanoverlapcheck=True)
    assert second["broadcasturi"] == first["broadcasturi"]
    there.job(cloud("deleteNetwork", id=first["id"]))
    assert sorted(row.number for row in there.rows(Vnet)) == [900, 902]
    there.job(cloud("deleteNetwork", id=second["id"]))
    assert there.rows(Vnet) == []


def test_the_primary_vlan_is_free_when_the_last_of_its_networks_has_gone(there, cloud):
    made = [private(there, cloud, "isolated", 901), private(there, cloud, "community", 902)]
    there.job(cloud("deleteNetwork", id=made[0]["id"]))
    assert sorted(row.number for row in there.rows(Vnet)) == [900, 902]
    with pytest.raises(InUse):
        private(there, cloud, "none", None, 900)
    there.job(cloud("deleteNetwork", id=made[1]["id"]))
    assert private(there, cloud, "none", None, 900)["vlan"] == "900"


def test_isolated_networks_are_never_given_a_vlan_of_it(there, cloud):
    for number, own in ((100, 101), (102, 103)):
        private(there, cloud, "isolated", own, number, bypassvlanoverlapcheck=True)
    there.deploy()
    (row,) = [row for row in there.rows(Vnet) if row.number not in (100, 101, 102, 103)]
    assert row.number == 104


def test_a_router_is_on_the_promiscuous_side_and_hears_every_vlan_below(there, cloud):
    made = private(there, cloud, "isolated", 901, offering=SHARED, **RANGE)
    vm = there.deploy(name="one", networkids=made["id"])
    (router,) = there.rows(Router)
    found = {segment.uri: segment for on in segments(there) for segment in on}
    assert set(found) == {"pvlan://900-i901", "pvlan://900-p900"}
    assert found["pvlan://900-i901"].id == made["id"]
    assert found["pvlan://900-p900"].secondaries == (901,)
    (shell,) = [shell for on in segments(there, shell_facts) for shell in on]
    assert shell.nics[0].segment == found["pvlan://900-p900"].id
    before = generations(there)
    private(there, cloud, "community", 902)
    after = generations(there)
    numbers = [host.id for host in there.rows(Host)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [
        int(number == router.host_id) for number in numbers
    ]
    found = {segment.uri: segment for on in segments(there) for segment in on}
    assert found["pvlan://900-p900"].secondaries == (901, 902)
    assert vm["state"] == "Running"


def test_a_promiscuous_network_s_host_learns_of_new_vlans_and_of_those_that_go(there, cloud):
    made = private(there, cloud, "promiscuous", account="alice", domainid=cloud("listDomains")["domain"][0]["id"])
    there.deploy(name="gate", networkids=made["id"])
    before = generations(there)
    below = private(there, cloud, "isolated", 901)
    assert sum(generations(there)) == sum(before) + 1
    there.job(cloud("deleteNetwork", id=below["id"]))
    assert sum(generations(there)) == sum(before) + 2
    (segment,) = [segment for on in segments(there) for segment in on]
    assert (segment.id, segment.secondaries) == (made["id"], ())


def test_of_two_places_each_objects_to_the_other_or_none_does():
    places = [
        PrivateVlan(primary, own, "promiscuous" if own == primary else role)
        for primary, own, role in product((1, 2, 3), (1, 2, 3), ("isolated", "community"))
    ]
    for one, other in product(places, places):
        assert bool(one.conflict("a", other)) == bool(other.conflict("b", one))
