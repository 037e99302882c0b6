"""How guests, routers and networks come and go, and that nothing of them stays behind."""

from __future__ import annotations

import pytest

from controlplane.demo_zone import NOW
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]
SHORT = 0.4


def state(world: World, guest) -> str:
    return world.api.listVirtualMachines(id=guest["id"])["virtualmachine"][0]["state"]


def test_a_guest_is_stopped_started_rebooted_destroyed_and_recovered(world: World, net):
    guest, ip = world.guest(net["id"]), world.address(net["id"])
    where = {"id": guest["id"]}
    world.forward(ip, guest, 80, 80)
    url = f"http://{ip['ipaddress']}/"
    assert until(lambda: world.curl(url)) == guest["name"]
    world.api.stopVirtualMachine(**where, **NOW)
    assert state(world, guest) == "Stopped"
    assert not world.ask(ip["ipaddress"], 80, seconds=SHORT)
    started = world.api.startVirtualMachine(**where, **NOW)["virtualmachine"]
    assert started["nic"][0]["ipaddress"] == guest["nic"][0]["ipaddress"]
    assert until(lambda: world.curl(url)) == guest["name"]
    pid = world.space(f"vm/{guest['name']}"), _boot(world, guest)
    world.api.rebootVirtualMachine(**where, **NOW)
    assert until(lambda: world.curl(url)) == guest["name"]
    assert (world.space(f"vm/{guest['name']}"), _boot(world, guest)) != pid
    world.api.destroyVirtualMachine(**where, **NOW)
    assert state(world, guest) == "Destroyed"
    world.api.recoverVirtualMachine(**where)
    world.api.startVirtualMachine(**where, **NOW)
    assert state(world, guest) == "Running"
    assert world.run(f"vm/{guest['name']}", "hostname").stdout.strip() == guest["name"]


def _boot(world: World, guest) -> str:
    return world.run(f"vm/{guest['name']}", "awk", "{print $22}", "/proc/1/stat").stdout


def test_of_an_expunged_guest_nothing_is_left(world: World, net, guests):
    forwarded, nat, balanced = (world.address(net["id"]) for _ in range(3))
    rule = world.balance(balanced, guests, 80)
    world.api.createFirewallRule(ipaddressid=nat["id"], protocol="tcp", startport=80, **NOW)
    world.api.createFirewallRule(ipaddressid=forwarded["id"], protocol="tcp", startport=1, endport=999, **NOW)
    before, rows = world.kernel(), world.rows()
    guest = world.guest(net["id"])
    world.api.addIpToNic(nicid=guest["nic"][0]["id"], **NOW)
    world.forward(forwarded, guest, 80, 80, openfirewall=False)
    world.api.enableStaticNat(ipaddressid=nat["id"], virtualmachineid=guest["id"])
    world.api.assignToLoadBalancerRule(id=rule["id"], virtualmachineids=guest["id"], **NOW)
    assert until(lambda: world.curl(f"http://{nat['ipaddress']}/")) == guest["name"]
    assert world.kernel() != before
    world.api.destroyVirtualMachine(id=guest["id"], expunge=True, **NOW)
    for address in (forwarded, nat):
        assert not world.ask(address["ipaddress"], 80, seconds=SHORT)
    assert not world.api.listVirtualMachines(name=guest["name"])
    assert not world.api.listPortForwardingRules(ipaddressid=forwarded["id"])
    assert not world.api.listPublicIpAddresses(id=nat["id"])["publicipaddress"][0]["isstaticnat"]
    members = world.api.listLoadBalancerRuleInstances(id=rule["id"])["loadbalancerruleinstance"]
    assert {member["name"] for member in members} == {guest["name"] for guest in guests}
    until(lambda: not left(before, world.kernel()), 15)
    assert changed(rows, world.rows()) <= KEPT
    assert guest["instancename"] not in str([list(folder.rglob("*")) for folder in world.states])


KEPT = {"virtual_machines", "volumes", "events", "async_jobs", "observations", "secrets"}
"""Rows that stay for the record, or come with every observation."""


def changed(before: dict[str, int], after: dict[str, int]) -> set[str]:
    """Return the tables that have another number of rows."""
    return {table for table in after if before.get(table) != after[table]}


def left(before: dict[str, list[str]], after: dict[str, list[str]]) -> set[tuple[str, str]]:
    """Return what the kernel has more or less than before."""
    flat = [{(space, line) for space, lines in found.items() for line in lines} for found in (before, after)]
    return flat[0] ^ flat[1]


def test_of_a_deleted_network_nothing_is_left(world: World):
    before, rows = world.kernel(), world.rows()
    net = world.network()
    assert world.kernel() == before, "nothing is made before something runs on it"
    guest, ip = world.guest(net["id"]), world.address(net["id"])
    world.forward(ip, guest, 80, 80)
    world.balance(ip, [guest], 8080)
    world.api.createEgressFirewallRule(networkid=net["id"], protocol="all", **NOW)
    router = world.router(net["id"])["name"]
    assert until(lambda: world.curl(f"http://{ip['ipaddress']}/")) == guest["name"]
    assert guest["name"] in world.refused("deleteNetwork", id=net["id"])
    world.api.destroyVirtualMachine(id=guest["id"], expunge=True, **NOW)
    world.api.deleteNetwork(id=net["id"], **NOW)
    assert not world.api.listNetworks(keyword=net["name"])
    assert not world.api.listRouters(keyword=router, listall=True)
    assert not world.sql("SELECT 1 FROM targets WHERE name = ?", router)
    taken = world.api.listPublicIpAddresses(ipaddress=ip["ipaddress"])
    assert not taken or taken["publicipaddress"][0]["state"] == "Free"
    until(lambda: not left(before, world.kernel()), 15)
    assert changed(rows, world.rows()) <= KEPT | {"networks", "routers"}
    assert router not in str([list(folder.rglob("*")) for folder in world.states])


@pytest.fixture(scope="module")
def shop(world: World):
    """A network of its own with a guest, a forwarded port and an address."""
    net = world.network()
    guest, ip = world.guest(net["id"]), world.address(net["id"])
    world.forward(ip, guest, 80, 80)
    return net, guest, ip


def works(world: World, shop) -> bool:
    _, guest, ip = shop
    return world.curl(f"http://{ip['ipaddress']}/") == guest["name"]


def addresses(world: World, net) -> set[tuple[str, bool]]:
    found = world.api.listPublicIpAddresses(associatednetworkid=net["id"])["publicipaddress"]
    return {(ip["ipaddress"], ip["issourcenat"]) for ip in found}


@pytest.mark.parametrize("cleanup", [False, True])
def test_a_network_is_restarted_and_keeps_its_addresses(world: World, shop, cleanup):
    net, guest, _ = shop
    until(lambda: works(world, shop))
    before, router = addresses(world, net), world.router(net["id"])
    world.api.restartNetwork(id=net["id"], cleanup=cleanup, **NOW)
    assert works(world, shop)
    assert addresses(world, net) == before
    assert (world.router(net["id"])["id"] != router["id"]) == cleanup
    assert (
        world.api.listVirtualMachines(id=guest["id"])["virtualmachine"][0]["nic"][0]["ipaddress"]
        == (guest["nic"][0]["ipaddress"])
    )


def test_a_router_is_stopped_started_rebooted_and_replaced(world: World, shop):
    net, _, ip = shop
    router = world.router(net["id"])
    where = {"id": router["id"]}
    assert world.api.stopRouter(**where, **NOW)["router"]["state"] == "Stopped"
    assert not world.ask(ip["ipaddress"], 80, seconds=SHORT)
    assert world.api.startRouter(**where, **NOW)["router"]["state"] == "Running"
    until(lambda: works(world, shop))
    world.api.rebootRouter(**where, **NOW)
    until(lambda: works(world, shop))
    world.api.destroyRouter(**where, **NOW)
    assert not world.ask(ip["ipaddress"], 80, seconds=SHORT)
    assert not world.api.listRouters(keyword=router["name"], listall=True)
    world.api.restartNetwork(id=net["id"], **NOW)
    until(lambda: works(world, shop))
    world.api.destroyRouter(id=world.router(net["id"])["id"], **NOW)
    world.guest(net["id"])
    until(lambda: works(world, shop))


def test_an_idle_network_is_shut_down_and_never_one_with_a_guest(world: World, net, guests):
    idle = world.network()
    guest, ip = world.guest(idle["id"]), world.address(idle["id"])
    world.forward(ip, guest, 80, 80)
    router = world.router(idle["id"])["name"]
    world.api.updateConfiguration(name="network.gc.wait", value="1")
    try:
        world.api.stopVirtualMachine(id=guest["id"], **NOW)
        until(lambda: _network(world, idle)["state"] == "Allocated", 30)
        assert "vlan" not in _network(world, idle)
        assert router not in str(world.kernel())
        assert _network(world, net)["state"] == "Implemented"
        assert addresses(world, idle)
        world.api.startVirtualMachine(id=guest["id"], **NOW)
        assert until(lambda: world.curl(f"http://{ip['ipaddress']}/")) == guest["name"]
    finally:
        world.api.updateConfiguration(name="network.gc.wait", value="600")


def _network(world: World, net):
    return world.api.listNetworks(id=net["id"])["network"][0]
