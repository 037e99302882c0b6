"""Guests of a basic zone: where they land, which addresses they get, and which public ones come and go with them."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from sqlalchemy import select

from controlplane.errors import BadParameter
from controlplane.network.networks import Network
from controlplane.network.nics import NetworkAddress, Nic
from controlplane.network.parts import take_down_forgotten
from controlplane.network.public_ips import PublicIp
from controlplane.network.routers import Router
from controlplane.reconcile.targets import Target
from controlplane.work.signals import signals
from controlplane.zone.clusters import Cluster
from controlplane.zone.hosts import Host
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType
from controlplane.zone.pods import Pod
from controlplane.zone.providers import NetworkServiceProvider
from controlplane.zone.zones import Zone
from tests.api.compute_world import world

SG, ELASTIC = "DefaultSharedNetworkOfferingWithSGService", "DefaultSharedEIPandELBNetworkOffering"
MASK = "255.255.255.0"


def make_flat(there, cloud, offering):
    """Have the world's zone be Basic, with a pod for each of its two hosts: 10.81.0.0/24 and 10.82.0.0/24."""
    with cloud.database.write() as session:
        zone = session.scalars(select(Zone)).one()
        zone.network_type, zone.security_groups = "Basic", True
        for network in session.scalars(select(Network)):
            network.removed = zone.created
        physical = session.scalars(select(PhysicalNetwork)).one()
        physical.traffic_types += [TrafficType(traffic="Guest"), TrafficType(traffic="Public")]
        physical.vnets = []
        for name in ("VirtualRouter", "SecurityGroupProvider"):
            session.add(NetworkServiceProvider(physical_network_id=physical.id, name=name, state="Enabled"))
        first = session.scalars(select(Pod)).one()
        second = Pod(name="pod-2", zone_id=zone.id, gateway="", netmask="", start_ip="", end_ip="")
        session.add(second)
        session.flush()
        cluster = Cluster(name="c2", zone_id=zone.id, pod_id=second.id, hypervisor="LXC")
        session.add(cluster)
        session.flush()
        host = session.scalars(select(Host).order_by(Host.id)).all()[-1]
        host.pod_id, host.cluster_id = second.id, cluster.id
        pods = [first.uuid, second.uuid]
    found = cloud("listNetworkOfferings", name=offering)["networkoffering"][0]["id"]
    there.network = cloud("createNetwork", name="guests", zoneid=there.zone, networkofferingid=found)["network"]["id"]
    for number, pod in enumerate(pods, start=1):
        where = {"gateway": f"10.8{number}.0.1", "netmask": MASK, "startip": f"10.8{number}.0.10"}
        cloud("createVlanIpRange", podid=pod, forvirtualnetwork=False, endip=f"10.8{number}.0.13", **where)
    return pods


@pytest.fixture
def flat(cloud):
    with world(cloud, hosts=2) as there:
        pods = make_flat(there, cloud, SG)
        yield there, pods


@pytest.fixture
def elastic(cloud):
    with world(cloud, hosts=2) as there:
        make_flat(there, cloud, ELASTIC)
        yield there


def deploy(there, **parameters):
    """Deploy without naming a network."""
    cloud = parameters.pop("cloud")
    given = {"zoneid": there.zone, "serviceofferingid": there.offering, "templateid": there.template}
    done = there.job(cloud("deployVirtualMachine", **given, **parameters))
    return done.get("virtualmachine", done)


def free(cloud):
    """How many public addresses are free once all routers have let go of theirs."""
    with cloud.database.read() as session:
        return sum(ip.state == "Free" for ip in session.scalars(select(PublicIp)))


def settled(cloud):
    """Wait until every target stands at its newest state."""

    def done():
        with cloud.database.read() as session:
            return all(row.applied_generation >= row.desired_generation for row in session.scalars(select(Target)))

    assert signals.wait(["target"], done, 10) or done()


def addresses(cloud):
    with cloud.database.read() as session:
        return {nic.address for nic in session.scalars(select(Nic).where(Nic.vm_id.is_not(None)))}


def test_a_guest_has_an_address_of_the_pod_that_it_runs_in(flat, cloud):
    there, pods = flat
    for number, (pod, host) in enumerate(zip(pods, there.hosts, strict=True), start=1):
        vm = deploy(there, name=f"in-{number}", podid=pod, cloud=cloud)
        (nic,) = vm["nic"]
        assert nic["networkid"] == there.network
        assert nic["ipaddress"] == f"10.8{number}.0.11", "the first is the router's"
        assert (nic["gateway"], nic["netmask"]) == (f"10.8{number}.0.1", MASK)
        assert vm["hostid"] == host
    routers = cloud("listRouters", networkid=there.network, listall=True)["router"]
    assert {router["hostid"]: router["guestipaddress"] for router in routers} == dict(
        zip(there.hosts, ("10.81.0.10", "10.82.0.10"), strict=True)
    )
    assert {router["role"] for router in routers} == {"VIRTUAL_ROUTER"}


def test_the_addresses_of_a_pods_guests_are_among_its_capacity(flat, cloud):
    there, pods = flat
    deploy(there, name="one", podid=pods[0], cloud=cloud)
    for pod, used in zip(pods, (2, 1), strict=True):  # a router's is kept for it from the beginning
        (shown,) = cloud("listPods", id=pod, showcapacities=True)["pod"]
        (direct,) = [row for row in shown["capacity"] if row["name"] == "DIRECT_ATTACHED_PUBLIC_IP"]
        assert (direct["capacitytotal"], direct["capacityused"]) == (4, used)


def test_both_accounts_are_on_the_one_network(flat, cloud):
    there, _ = flat
    mine, theirs = (deploy(there, name=name, cloud=cloud.as_user(name)) for name in ("alice", "bob"))
    assert mine["nic"][0]["networkid"] == theirs["nic"][0]["networkid"] == there.network


def test_a_pod_without_addresses_takes_no_more_and_another_does(flat, cloud):
    there, _ = flat
    made = [deploy(there, name=f"vm-{number}", cloud=cloud) for number in range(6)]
    assert {vm["nic"][0]["ipaddress"] for vm in made} == {
        f"10.8{pod}.0.{last}" for pod in (1, 2) for last in (11, 12, 13)
    }
    refused = deploy(there, name="late", cloud=cloud)
    assert "pod-2 has no free address of network guests" in refused["errortext"]
    assert "pod pod has no free address of network guests" in refused["errortext"]
    with cloud.database.read() as session:
        assert len(session.scalars(select(NetworkAddress)).all()) == 8, "nothing is left of what failed"


def test_a_wanted_address_decides_the_pod(flat, cloud):
    there, pods = flat
    vm = deploy(there, name="wish", ipaddress="10.82.0.13", cloud=cloud)
    assert (vm["nic"][0]["ipaddress"], vm["hostid"]) == ("10.82.0.13", there.hosts[1])
    with pytest.raises(BadParameter, match="it is an address of pod pod-2, and pod pod was asked for"):
        deploy(there, name="odd", ipaddress="10.82.0.12", podid=pods[0], cloud=cloud)
    with pytest.raises(BadParameter, match=r"guests of guests have 10\.81\.0\.10-10\.81\.0\.13, 10\.82\.0\.10"):
        deploy(there, name="odd", ipaddress="10.83.0.12", cloud=cloud)
    with pytest.raises(BadParameter, match=r"10\.82\.0\.13: it is taken"):
        deploy(there, name="odd", ipaddress="10.82.0.13", cloud=cloud)


def test_a_host_that_fails_is_followed_by_one_of_another_pod(flat, cloud):
    there, _ = flat
    there.agents[0].broken.add("*")
    for number in range(2):
        vm = deploy(there, name=f"vm-{number}", cloud=cloud, deploymentplanner="FirstFitPlanner")
        assert (vm["hostid"], vm["nic"][0]["ipaddress"]) == (there.hosts[1], f"10.82.0.{11 + number}")
    assert addresses(cloud) == {"10.82.0.11", "10.82.0.12"}


def test_a_stopped_guest_keeps_its_address_and_one_that_never_ran_has_none(flat, cloud):
    there, pods = flat
    vm = deploy(there, name="later", startvm=False, cloud=cloud)
    assert "ipaddress" not in vm["nic"][0]
    with pytest.raises(BadParameter, match="it has not run yet: start its instance first"):
        cloud("addIpToNic", nicid=vm["nic"][0]["id"])
    vm = there.job(cloud("startVirtualMachine", id=vm["id"], podid=pods[1]))
    assert vm["nic"][0]["ipaddress"] == "10.82.0.11"
    further = there.job(cloud("addIpToNic", nicid=vm["nic"][0]["id"]))
    assert further["ipaddress"] == "10.82.0.12", "of the same pod"
    there.job(cloud("stopVirtualMachine", id=vm["id"]))
    assert addresses(cloud) == {"10.82.0.11"}
    vm = there.job(cloud("startVirtualMachine", id=vm["id"]))
    assert vm["nic"][0]["ipaddress"] == "10.82.0.11"


def test_a_router_of_a_pod_is_replaced_by_one_there(flat, cloud):
    there, pods = flat
    deploy(there, name="one", podid=pods[1], cloud=cloud)
    assert there.job(cloud("restartNetwork", id=there.network, cleanup=True)) is True
    (router,) = cloud("listRouters", networkid=there.network, listall=True)["router"]
    assert (router["hostid"], router["guestipaddress"]) == (there.hosts[1], "10.82.0.10")
    with cloud.database.read() as session:
        row = session.scalars(select(Router).where(Router.uuid == router["id"])).one()
        assert row.part == f"pod-{row.pod_id}"


def test_what_is_wrong_in_one_pod_stops_nothing_in_another(elastic, cloud):
    there = elastic
    first, second = (deploy(there, name=f"vm-{host}", hostid=host, cloud=cloud) for host in there.hosts)
    routers = {row["hostid"]: row["name"] for row in cloud("listRouters", listall=True)["router"]}
    there.agents[1].failing.add(routers[there.hosts[1]])
    assert (
        "kept its former configuration" in deploy(there, name="late", hostid=there.hosts[1], cloud=cloud)["errortext"]
    )
    third = deploy(there, name="third", hostid=there.hosts[0], cloud=cloud)
    assert third["state"] == "Running"
    for vm in (first, third):
        assert there.job(cloud("destroyVirtualMachine", id=vm["id"], expunge=True)).get("errortext") is None
    assert public(cloud, second)


def public(cloud, vm):
    (seen,) = cloud("listVirtualMachines", id=vm["id"])["virtualmachine"]
    return seen.get("publicip")


def test_every_guest_has_a_public_address_from_start_to_stop(elastic, cloud):
    alice = cloud.as_user("alice")
    vm = deploy(elastic, name="one", cloud=alice)
    own = public(alice, vm)
    assert IPv4Address(own) in {IPv4Address(f"203.0.113.{last}") for last in range(10, 41)}
    (row,) = alice("listPublicIpAddresses", ipaddress=own)["publicipaddress"]
    assert (row["issystem"], row["isstaticnat"], row["virtualmachineid"]) == (True, True, vm["id"])
    assert row["vmipaddress"] == vm["nic"][0]["ipaddress"]
    with pytest.raises(BadParameter, match="is what its guest got by itself"):
        alice("disableStaticNat", ipaddressid=row["id"])
    with pytest.raises(BadParameter, match="is what its guest got by itself"):
        alice("disassociateIpAddress", id=row["id"])
    elastic.job(alice("stopVirtualMachine", id=vm["id"]))
    assert public(alice, vm) is None
    settled(cloud)
    assert free(cloud) == 31
    elastic.job(alice("startVirtualMachine", id=vm["id"]))
    assert public(alice, vm)
    elastic.job(alice("destroyVirtualMachine", id=vm["id"]))
    settled(cloud)
    assert free(cloud) == 31


def test_an_acquired_address_takes_the_place_of_the_guests_own_and_back(elastic, cloud):
    alice = cloud.as_user("alice")
    vm = deploy(elastic, name="one", cloud=alice)
    wanted = elastic.job(alice("associateIpAddress", zoneid=elastic.zone, ipaddress="203.0.113.30"))
    assert wanted["issystem"] is False
    alice("enableStaticNat", ipaddressid=wanted["id"], virtualmachineid=vm["id"])
    assert public(alice, vm) == "203.0.113.30"
    settled(cloud)
    assert free(cloud) == 30, "the one that it got by itself is free"
    other = elastic.job(alice("associateIpAddress", zoneid=elastic.zone, ipaddress="203.0.113.31"))
    alice("enableStaticNat", ipaddressid=other["id"], virtualmachineid=vm["id"])
    assert public(alice, vm) == "203.0.113.31"
    elastic.job(alice("disableStaticNat", ipaddressid=other["id"]))
    assert public(alice, vm) == "203.0.113.10"
    elastic.job(alice("disassociateIpAddress", id=wanted["id"]))
    elastic.job(alice("disassociateIpAddress", id=other["id"]))
    settled(cloud)
    assert free(cloud) == 30


def test_each_pods_router_has_the_addresses_of_its_own_guests(elastic, cloud):
    made = [deploy(elastic, name=f"vm-{host}", hostid=host, cloud=cloud) for host in elastic.hosts]
    with cloud.database.read() as session:
        routers = {row.part: row for row in session.scalars(select(Router))}
        parts = {ip.address: ip.part for ip in session.scalars(select(PublicIp).where(PublicIp.static_nat))}
    assert {vm["publicip"]: f"pod-{number}" for number, vm in enumerate(made, start=1)} == parts
    assert set(routers) == {"pod-1", "pod-2"}
    bob = cloud.as_user("bob")
    assert bob("listPublicIpAddresses", allocatedonly=True).get("publicipaddress") is None


def appliances(cloud):
    return [row for row in cloud("listRouters", listall=True).get("router", []) if row["role"] == "LB"]


def balance(elastic, cloud, port, **more):
    given = {"name": f"lb-{port}", "algorithm": "roundrobin", "publicport": port, "privateport": 80}
    return elastic.job(cloud("createLoadBalancerRule", **given, **({"networkid": elastic.network} | more)))


def test_the_first_rule_starts_an_appliance_of_the_accounts_own_and_the_last_takes_it_down(elastic, cloud):
    alice, bob = cloud.as_user("alice"), cloud.as_user("bob")
    vm = deploy(elastic, name="one", cloud=alice)
    first = balance(elastic, alice, 80)
    assert first["account"] == "alice"
    (seen,) = alice("listPublicIpAddresses", id=first["publicipid"])["publicipaddress"]
    assert (seen["issystem"], seen["isstaticnat"], seen["purpose"]) == (True, False, "Lb")
    (own,) = appliances(cloud)
    assert (own["account"], own["state"], own["guestnetworkid"]) == ("alice", "Running", elastic.network)
    assert own["guestipaddress"] in {f"10.8{pod}.0.{last}" for pod in (1, 2) for last in (10, 11, 12, 13)}
    assert own["serviceofferingname"] == "System Offering For Elastic LB VM"
    elastic.job(alice("assignToLoadBalancerRule", id=first["id"], virtualmachineids=vm["id"]))
    second = balance(elastic, alice, 81, publicipid=first["publicipid"])
    assert [row["id"] for row in appliances(cloud)] == [own["id"]]
    other = balance(elastic, bob, 80)
    assert {row["account"] for row in appliances(cloud)} == {"alice", "bob"}
    elastic.job(alice("deleteLoadBalancerRule", id=first["id"]))
    assert len(appliances(cloud)) == 2, "it has a rule yet, on the same address"
    elastic.job(alice("deleteLoadBalancerRule", id=second["id"]))
    assert [row["account"] for row in appliances(cloud)] == ["bob"]
    elastic.job(bob("deleteLoadBalancerRule", id=other["id"]))
    settled(cloud)
    assert not appliances(cloud)
    with cloud.database.read() as session:
        taken = set(session.scalars(select(NetworkAddress.address)))
    assert taken == {"10.81.0.10", "10.82.0.10", vm["nic"][0]["ipaddress"]}
    assert signals.wait(["target"], lambda: free(cloud) == 30, 40)


def test_an_appliance_that_is_destroyed_comes_back_and_goes_with_its_address(elastic, cloud):
    alice = cloud.as_user("alice")
    deploy(elastic, name="one", cloud=alice)
    ip = elastic.job(alice("associateIpAddress", zoneid=elastic.zone))
    balance(elastic, alice, 80, publicipid=ip["id"])
    (own,) = appliances(cloud)
    elastic.job(cloud("destroyRouter", id=own["id"]))
    assert not appliances(cloud)
    elastic.job(cloud("restartNetwork", id=elastic.network, cleanup=True))
    (again,) = appliances(cloud)
    assert again["id"] != own["id"]
    elastic.job(cloud("restartNetwork", id=elastic.network, cleanup=True))
    until = [row for row in appliances(cloud) if row["state"] == "Running"]
    assert [(row["account"], row["serviceofferingname"]) for row in until] == [
        ("alice", "System Offering For Elastic LB VM")
    ]
    assert until[0]["id"] != again["id"], "another has taken over"
    elastic.job(alice("disassociateIpAddress", id=ip["id"]))
    with cloud.database.write() as session:
        take_down_forgotten(session)
    settled(cloud)
    assert not [row for row in appliances(cloud) if row["state"] == "Running"], "the retired one may drain yet"
