"""NICs of machines, and what guests are told on their networks."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.compute.guests import lease_facts, metadata_facts
from controlplane.compute.host_facts import host_facts
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.errors import BadParameter
from controlplane.network.networks import Network
from controlplane.network.nics import NetworkAddress, Nic
from controlplane.reconcile.targets import Target
from controlplane.zone.hosts import Host
from drivers.security import PortFilter
from tests.api.compute_world import ED25519, World, second_network, world


@pytest.fixture
def there(cloud):
    with world(cloud) as made:
        yield made


def facts(there: World, load):
    with there.cloud.database.read() as session:
        network = session.scalars(select(Network).where(Network.uuid == there.network)).one()
        return load(session, network)


def ports(there: World, vm: str) -> list[str]:
    (guest,) = [agent.holds[vm] for agent in there.agents if vm in agent.holds]
    return [port["mac"] for port in guest["ports"]]


def test_a_nic_is_plugged_into_a_running_guest_and_taken_away_again(there):
    other = second_network(there)
    vm = there.deploy()
    more = there.job(there.cloud("addNicToVirtualMachine", virtualmachineid=vm["id"], networkid=other))
    assert [nic["networkid"] for nic in more["nic"]] == [there.network, other]
    assert [nic["isdefault"] for nic in more["nic"]] == [True, False]
    assert ports(there, vm["id"]) == [nic["macaddress"] for nic in more["nic"]]
    second = more["nic"][1]
    with pytest.raises(BadParameter, match="default NIC"):
        there.cloud("removeNicFromVirtualMachine", virtualmachineid=vm["id"], nicid=vm["nic"][0]["id"])
    swapped = there.job(there.cloud("updateDefaultNicForVirtualMachine", virtualmachineid=vm["id"], nicid=second["id"]))
    assert [nic["isdefault"] for nic in swapped["nic"]] == [False, True]
    assert [lease.default for lease in facts(there, lease_facts)] == [False]
    less = there.job(there.cloud("removeNicFromVirtualMachine", virtualmachineid=vm["id"], nicid=vm["nic"][0]["id"]))
    assert [nic["id"] for nic in less["nic"]] == [second["id"]]
    assert ports(there, vm["id"]) == [second["macaddress"]]
    assert facts(there, lease_facts) == ()


def test_a_nic_that_the_host_refuses_leaves_nothing(there):
    other = second_network(there)
    vm = there.deploy()
    for agent in there.agents:
        agent.broken = {vm["id"]}
    failed = there.job(there.cloud("addNicToVirtualMachine", virtualmachineid=vm["id"], networkid=other))
    assert "no such image" in failed["errortext"]
    assert len(there.rows(Nic, Nic.vm_id.is_not(None))) == 1
    assert [
        row for row in there.rows(NetworkAddress) if row.address.startswith("10.2.2.") and row.address != "10.2.2.1"
    ] == []


def test_further_addresses_are_reserved_and_freed(there):
    vm = there.deploy()
    nic = vm["nic"][0]["id"]
    answer = there.cloud("addIpToNic", nicid=nic, ipaddress="10.1.1.200")
    made = there.job(answer)
    assert made["ipaddress"] == "10.1.1.200"
    assert answer["id"] == made["id"]
    with pytest.raises(BadParameter, match="is taken"):
        there.cloud("addIpToNic", nicid=nic, ipaddress="10.1.1.200")
    listed = there.cloud("listNics", virtualmachineid=vm["id"])["nic"]
    assert [more["ipaddress"] for more in listed[0]["secondaryip"]] == ["10.1.1.200"]
    there.job(there.cloud("removeIpFromNic", id=made["id"]))
    assert [row.address for row in there.rows(NetworkAddress) if row.address == "10.1.1.200"] == []


def test_the_address_of_a_stopped_machine_can_change(there):
    vm = there.deploy(ipaddress="10.1.1.50")
    nic = vm["nic"][0]["id"]
    with pytest.raises(BadParameter, match="stop it first"):
        there.cloud("updateVmNicIp", nicid=nic, ipaddress="10.1.1.60")
    there.job(there.cloud("stopVirtualMachine", id=vm["id"]))
    changed = there.job(there.cloud("updateVmNicIp", nicid=nic, ipaddress="10.1.1.60"))
    assert changed["nic"][0]["ipaddress"] == "10.1.1.60"
    assert [lease.address for lease in facts(there, lease_facts)] == ["10.1.1.60"]
    assert "10.1.1.50" not in {row.address for row in there.rows(NetworkAddress)}


def test_another_account_sees_and_touches_nothing(there, cloud):
    vm = there.deploy()
    bob = cloud.as_user("bob")
    assert bob("listVirtualMachines", listall="true") == {}
    calls = (
        ("addIpToNic", {"nicid": vm["nic"][0]["id"]}),
        ("updateVmNicIp", {"nicid": vm["nic"][0]["id"]}),
        ("listNics", {"virtualmachineid": vm["id"]}),
        ("stopVirtualMachine", {"id": vm["id"]}),
        ("startVirtualMachine", {"id": vm["id"]}),
        ("rebootVirtualMachine", {"id": vm["id"]}),
        ("destroyVirtualMachine", {"id": vm["id"]}),
        ("updateVirtualMachine", {"id": vm["id"], "displayname": "x"}),
        ("restoreVirtualMachine", {"virtualmachineid": vm["id"]}),
        ("getVirtualMachineUserData", {"virtualmachineid": vm["id"]}),
    )
    for command, parameters in calls:
        with pytest.raises(BadParameter, match=r"not yours|is none"):
            bob(command, **parameters)
    (row,) = there.rows(VirtualMachine)
    assert row.state == "Running"


def test_metadata_has_cloudstacks_names(there):
    there.cloud("registerSSHKeyPair", name="k", publickey=ED25519)
    vm = there.deploy(name="web-1", keypair="k", userdata="aGVsbG8=")
    (found,) = facts(there, metadata_facts)
    items = dict(found.items)
    assert found.user_data == "aGVsbG8="
    assert items["local-hostname"] == "web-1"
    assert items["instance-id"] == items["vm-id"] == vm["id"]
    assert items["local-ipv4"] == vm["nic"][0]["ipaddress"]
    assert items["public-ipv4"] == "203.0.113.10"
    assert items["availability-zone"] == "z1"
    assert items["service-offering"] == "tiny"
    assert items["public-keys"].startswith("ssh-ed25519 AAAA")
    assert items["cloud-identifier"].startswith("CloudStack-{")


def test_dhcp_options_reach_the_lease(there):
    raw = {
        "command": "deployVirtualMachine", "zoneid": there.zone, "serviceofferingid": there.offering,
        "templateid": there.template, "networkids": there.network,
        "dhcpoptionsnetworklist[0].networkid": there.network, "dhcpoptionsnetworklist[0].dhcp:66": "192.0.2.9",
    }  # fmt: skip
    there.job(there.cloud.raw(raw))
    (lease,) = facts(there, lease_facts)
    assert lease.options == ((66, "192.0.2.9"),)
    raw["dhcpoptionsnetworklist[0].dhcp:66"] = "a\nb"
    with pytest.raises(BadParameter, match="not allowed"):
        there.cloud.raw(raw)


def filters(there: World) -> dict[str, PortFilter]:
    """What all hosts together are told of guests' ports, by NIC."""
    found = {}
    with there.cloud.database.read() as session:
        for host in session.scalars(select(Host)):
            found |= {one.nic: one for one in host_facts(session, host.target).filters}
    return found


def test_a_port_may_speak_with_all_addresses_of_its_nic_and_no_other(there):
    vm = there.deploy()
    nic = vm["nic"][0]
    mine = PortFilter(nic["id"], there.network, nic["macaddress"], (nic["ipaddress"],))
    assert filters(there) == {nic["id"]: mine}
    before = generations(there)
    extra = there.job(there.cloud("addIpToNic", nicid=nic["id"], ipaddress="10.1.1.200"))
    assert filters(there)[nic["id"]].addresses == tuple(sorted((nic["ipaddress"], "10.1.1.200")))
    added = generations(there)
    assert sum(added) == sum(before) + 1, "the host that holds the guest is told"
    there.job(there.cloud("removeIpFromNic", id=extra["id"]))
    assert filters(there) == {nic["id"]: mine}
    assert sum(generations(there)) == sum(added) + 1


def test_a_port_has_its_ipv6_address_and_on_a_network_without_addresses_only_its_mac(there):
    vm = there.deploy()
    nic = vm["nic"][0]
    with there.cloud.database.write() as session:
        row = session.scalars(select(Nic).where(Nic.uuid == nic["id"])).one()
        row.address6 = "2001:db8:1::9"
    assert filters(there)[nic["id"]].addresses == (nic["ipaddress"], "2001:db8:1::9")
    with there.cloud.database.write() as session:
        network = session.scalars(select(Network)).one()
        network.cidr = network.gateway = None
        session.scalars(select(Nic).where(Nic.uuid == nic["id"])).one().address6 = ""
    assert filters(there)[nic["id"]].addresses is None


def test_an_offering_can_let_its_networks_guests_send_what_they_like(there):
    vm = there.deploy()
    with there.cloud.database.write() as session:
        offering = session.scalars(select(Network)).one().offering
        offering.details = {"forgedTransmits": "true"}
    assert filters(there)[vm["nic"][0]["id"]].forged


def test_a_port_on_a_network_that_is_not_there_is_left_out(there):
    there.deploy()
    with there.cloud.database.write() as session:
        session.scalars(select(Network)).one().vnet = None
    assert filters(there) == {}


def generations(there: World) -> list[int]:
    """How often each host was told something new."""
    return [target.desired_generation for target in there.rows(Target, Target.kind == "host")]
