"""A machine's life: deployed, started, stopped, rebooted, destroyed, through commands and the agents' door."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.errors import BadParameter
from controlplane.identity.limits import ResourceCount
from controlplane.network.nics import NetworkAddress, Nic
from controlplane.storage.volumes import Volume
from tests.api.compute_world import World, world


@pytest.fixture
def there(cloud):
    with world(cloud) as made:
        yield made


KINDS = ("user_vm", "cpu", "memory", "volume", "primary_storage")


def counts(there: World) -> dict[str, int]:
    mine = ResourceCount.owner == "Account", ResourceCount.kind.in_(KINDS)
    return {row.kind: row.count for row in there.rows(ResourceCount, *mine)}


def test_a_deployed_machine_runs_with_its_address_on_one_host(there):
    vm = there.deploy(name="web-1")
    assert vm["state"] == "Running"
    assert vm["name"] == "web-1"
    assert vm["nic"][0]["ipaddress"].startswith("10.1.1.")
    assert vm["nic"][0]["isdefault"] is True
    assert (vm["securitygroup"], vm["affinitygroup"], vm["tags"]) == ([], [], [])
    holding = [agent for agent in there.agents if vm["id"] in agent.holds]
    assert len(holding) == 1
    guest = holding[0].holds[vm["id"]]
    assert guest["running"] is True
    assert guest["image"] == "/images/box.tar"
    assert [port["mac"] for port in guest["ports"]] == [vm["nic"][0]["macaddress"]]
    assert counts(there) | {"primary_storage": 0} == {
        "user_vm": 1,
        "cpu": 1,
        "memory": 128,
        "volume": 1,
        "primary_storage": 0,
    }


def test_a_deploy_takes_less_than_a_second_beside_its_agent(there):
    there.deploy()
    begun = time.monotonic()
    there.deploy()
    assert time.monotonic() - begun < 5  # far below the second that polling would take; a busy machine has its time


def test_stop_keeps_what_start_needs_and_start_goes_back_to_the_same_host(there):
    vm = there.deploy()
    host = next(agent for agent in there.agents if vm["id"] in agent.holds)
    stopped = there.job(there.cloud("stopVirtualMachine", id=vm["id"]))
    assert stopped["state"] == "Stopped"
    assert host.holds[vm["id"]]["running"] is False
    assert stopped["nic"][0]["ipaddress"] == vm["nic"][0]["ipaddress"]
    started = there.job(there.cloud("startVirtualMachine", id=vm["id"]))
    assert started["state"] == "Running"
    assert host.holds[vm["id"]]["running"] is True


def test_a_reboot_raises_the_guests_boot_number(there):
    vm = there.deploy()
    host = next(agent for agent in there.agents if vm["id"] in agent.holds)
    before = host.holds[vm["id"]]["boot"]
    assert there.job(there.cloud("rebootVirtualMachine", id=vm["id"]))["state"] == "Running"
    assert host.holds[vm["id"]]["boot"] == before + 1


def test_a_machine_made_stopped_is_on_no_host_until_it_is_started(there):
    vm = there.deploy(startvm="false")
    assert vm["state"] == "Stopped"
    assert not any(vm["id"] in agent.holds for agent in there.agents)
    assert there.job(there.cloud("startVirtualMachine", id=vm["id"]))["state"] == "Running"


def test_the_next_host_is_tried_when_one_cannot_start_the_guest(there, cloud):
    there.agents[0].broken = {"*"}
    vm = there.deploy(hostid="", name="second")
    assert vm["state"] == "Running"
    assert vm["id"] in there.agents[1].holds
    assert vm["id"] not in there.agents[0].holds


def test_a_machine_that_no_host_starts_ends_in_error_and_leaves_nothing(there):
    for agent in there.agents:
        agent.broken = {"*"}
    failed = there.deploy(name="web-1")
    assert failed["errorcode"] == 533
    assert "host-1: host-1: no such image" in failed["errortext"] or "host-1" in failed["errortext"]
    assert "host-2" in failed["errortext"]
    (row,) = there.rows(VirtualMachine)
    assert row.state == "Error"
    assert row.host_id is None
    assert there.rows(Nic, Nic.vm_id == row.id) == []
    assert [row.address for row in there.rows(NetworkAddress)] == ["10.1.1.1"]  # the router's
    assert set(counts(there).values()) == {0}
    assert there.nobody_holds(row.uuid)
    for agent in there.agents:
        agent.broken = set()
    again = there.deploy(name="web-1")
    assert again["state"] == "Running"


def test_expunge_gives_back_name_address_and_counts(there, cloud):
    vm = there.deploy(name="web-1", ipaddress="10.1.1.77")
    there.job(cloud("destroyVirtualMachine", id=vm["id"], expunge="true"))
    (row,) = there.rows(VirtualMachine)
    assert row.removed is not None
    assert not any(vm["id"] in agent.holds for agent in there.agents)
    assert set(counts(there).values()) == {0}
    assert all(volume.removed for volume in there.rows(Volume))
    assert there.cloud("listVirtualMachines") == {}
    assert there.deploy(name="web-1", ipaddress="10.1.1.77")["state"] == "Running"


def test_a_destroyed_machine_can_be_recovered_by_an_admin_until_it_is_expunged(there, cloud):
    vm = there.deploy()
    gone = there.job(there.cloud("destroyVirtualMachine", id=vm["id"]))
    assert gone["state"] == "Destroyed"
    assert counts(there)["user_vm"] == 0
    assert there.cloud("listVirtualMachines") == {}
    back = cloud("recoverVirtualMachine", id=vm["id"])["virtualmachine"]
    assert back["state"] == "Stopped"
    assert back["nic"][0]["ipaddress"] == vm["nic"][0]["ipaddress"]
    assert counts(there)["user_vm"] == 1
    there.job(there.cloud("destroyVirtualMachine", id=vm["id"]))
    there.job(cloud("expungeVirtualMachine", id=vm["id"]))
    with pytest.raises(BadParameter):
        cloud("recoverVirtualMachine", id=vm["id"])


def test_a_host_name_is_one_machines_own_on_a_network_while_that_is_there(there, cloud):
    one, two = (there.deploy(name=name) for name in ("one", "two"))
    with cloud.database.write() as session, pytest.raises(IntegrityError):  # as two deploys at the same moment would
        session.execute(update(Nic).where(Nic.mac == two["nic"][0]["macaddress"]).values(guest_name="one"))
    there.job(there.cloud("destroyVirtualMachine", id=one["id"]))
    assert there.deploy(name="ONE")["name"] == "ONE"
    with pytest.raises(BadParameter, match="has a machine of this name already"):
        cloud("recoverVirtualMachine", id=one["id"])
    there.cloud("updateVirtualMachine", id=two["id"], name="three")
    assert {row.guest_name for row in there.rows(Nic, Nic.vm_id.is_not(None))} == {None, "one", "three"}


def test_a_host_is_given_no_more_machines_than_its_hypervisor_takes(there, cloud):
    cloud("updateHypervisorCapabilities", hypervisor="LXC", maxguestslimit=2)
    there.deploy(name="one")  # and its router
    there.deploy(name="two")
    there.deploy(name="three")
    full = there.deploy(name="four")
    assert "it holds 2 machines and routers, and its hypervisor is given 2 at most" in full["errortext"]
