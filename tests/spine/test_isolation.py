"""A physical network that isolates by VLAN beside the one with VXLAN: guests on two hosts, by the flows of Ovs."""

from __future__ import annotations

import subprocess

import pytest

from controlplane.demo_zone import NOW
from tests.spine.world import SERVICES, World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def physical(world: World):
    """Make the physical network with VLANs, with its providers."""
    (present,) = world.api.listPhysicalNetworks()["physicalnetwork"]
    world.api.updatePhysicalNetwork(id=present["id"], tags="vnis", **NOW)  # offerings without tags still take it
    made = world.api.createPhysicalNetwork(
        zoneid=world.zone, name="physical-2", isolationmethods="VLAN", vlan="100-109", tags="vlans", **NOW
    )["physicalnetwork"]["id"]
    world.api.addTrafficType(physicalnetworkid=made, traffictype="Guest", **NOW)
    ovs = world.api.addNetworkServiceProvider(physicalnetworkid=made, name="Ovs", **NOW)["networkserviceprovider"]["id"]
    switch = world.api.listOvsElements(nspid=ovs)["ovselement"][0]["id"]
    world.api.configureOvsElement(id=switch, enabled=True, **NOW)
    found = world.api.listNetworkServiceProviders(physicalnetworkid=made, name="VirtualRouter")
    router = found["networkserviceprovider"][0]["id"]
    element = world.api.listVirtualRouterElements(nspid=router)["virtualrouterelement"][0]["id"]
    world.api.configureVirtualRouterElement(id=element, enabled=True, **NOW)
    for provider in (ovs, router):
        world.api.updateNetworkServiceProvider(id=provider, state="Enabled", **NOW)
    world.api.updatePhysicalNetwork(id=made, state="Enabled", **NOW)
    yield made
    world.api.deletePhysicalNetwork(id=made, **NOW)
    world.api.updatePhysicalNetwork(id=present["id"], tags="", **NOW)


def flows(world: World, number: int) -> str:
    host = f"host-{number}"
    (socket,) = world.cloud.place.state(host).glob("targets/*/ovs/ovs-und0.mgmt")
    line = ["ovs-ofctl", "-O", "OpenFlow14", "--no-stats", "dump-flows", f"unix:{socket}"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


def test_guests_of_a_network_by_flows_reach_each_other_their_router_and_the_internet(world: World, physical):
    providers = [{"service": service, "provider": "VirtualRouter"} for service in SERVICES]
    offering = world.api.createNetworkOffering(
        name="flows", displaytext="flows", guestiptype="Isolated", traffictype="Guest", tags="vlans",
        supportedservices=",".join((*SERVICES, "Connectivity")),
        serviceproviderlist=[*providers, {"service": "Connectivity", "provider": "Ovs"}],
    )["networkoffering"]["id"]  # fmt: skip
    world.api.updateNetworkOffering(id=offering, state="Enabled")
    network = world.network("flows")
    guests = [world.guest(network["id"], hostid=world.host(number)) for number in (1, 2)]
    shown = world.api.listNetworks(id=network["id"])["network"][0]
    assert (shown["physicalnetworkid"], shown["broadcasturi"]) == (physical, "vs://100")
    first, second = (guest["nic"][0] for guest in guests)
    until(lambda: world.pings(f"vm/{guests[0]['name']}", second["ipaddress"]))
    for guest in guests:
        assert until(lambda name=guest["name"]: world.pings(f"vm/{name}", network["gateway"]))
    for number, nic, other in ((1, first, second), (2, second, first)):
        held = flows(world, number)
        assert f"dl_vlan=100,dl_dst={nic['macaddress']} " in held
        assert other["macaddress"] not in held
    ip = world.address(network["id"])
    world.forward(ip, guests[1], 80, 80)
    assert until(lambda: world.curl(f"http://{ip['ipaddress']}/"))
    for guest in guests:
        world.api.destroyVirtualMachine(id=guest["id"], expunge=True, **NOW)
    world.api.deleteNetwork(id=network["id"], **NOW)
    # the last segment of the switch takes its daemons along
    until(lambda: not any(list(state.glob("targets/*/ovs")) for state in world.states))


def test_members_of_a_private_vlan_hear_whom_their_role_lets_them(world: World, physical):
    """Two isolated guests on one host and one on the other, a community on both, a promiscuous one that is made last."""
    l2, wire = "DefaultL2NetworkOfferingVlan", {"vlan": "900", "physicalnetworkid": physical}
    isolated = world.network(l2, isolatedpvlan="901", **wire)
    community = world.network(l2, isolatedpvlan="902", isolatedpvlantype="community", **wire)
    gate = world.network(l2, isolatedpvlantype="promiscuous", **wire)
    assert gate["broadcasturi"] == "pvlan://900-p900"
    where = [(isolated, 1), (isolated, 1), (isolated, 2), (community, 1), (community, 2), (gate, 2)]
    guests = [world.guest(network["id"], hostid=world.host(number)) for network, number in where]
    for last, guest in enumerate(guests, 1):
        world.give_address(guest, f"192.168.78.{last}/24")

    def reaches(one: int, other: int) -> bool:
        return world.pings(f"vm/{guests[one - 1]['name']}", f"192.168.78.{other}")

    for other in (1, 2, 3, 4, 5):
        until(lambda other=other: reaches(other, 6))
        assert reaches(6, other)
    until(lambda: reaches(4, 5))
    assert [pair for pair in ((1, 2), (1, 3), (2, 3), (1, 4), (3, 5), (4, 2)) if reaches(*pair)] == []
    late = world.network(l2, isolatedpvlan="903", isolatedpvlantype="community", **wire)
    guests.append(world.guest(late["id"], hostid=world.host(1)))
    world.give_address(guests[-1], "192.168.78.7/24")
    until(lambda: reaches(7, 6))  # the promiscuous guest's host knows the new VLAN
    assert not reaches(7, 4)
    world.clear(guests, isolated, community, gate, late)


def test_guests_of_an_isolated_shared_network_have_their_router_and_nobody_else(world: World, physical):
    given = {"gateway": "10.77.0.1", "netmask": "255.255.255.0", "startip": "10.77.0.10", "endip": "10.77.0.30"}
    wire = {"vlan": "700", "isolatedpvlan": "701", "physicalnetworkid": physical}
    network = world.network("DefaultSharedNetworkOffering", **given, **wire)
    guests = [world.guest(network["id"], hostid=world.host(number)) for number in (1, 1, 2)]
    addresses = [guest["nic"][0]["ipaddress"] for guest in guests]
    (inside,) = world.router(network["id"])["nic"]
    for guest, address in zip(guests, addresses, strict=True):
        name = f"vm/{guest['name']}"
        until(lambda name=name, address=address: address in world.run(name, "ip", "address").stdout)  # by DHCP
        until(lambda name=name: world.pings(name, inside["ipaddress"]))
    one = f"vm/{guests[0]['name']}"
    assert [address for address in addresses[1:] if world.pings(one, address)] == []
    world.clear(guests, network)
