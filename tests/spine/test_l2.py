"""Networks of type L2: a wire between guests on two hosts, without a router, and user data by config drive."""

from __future__ import annotations

import base64

import pytest

from controlplane.demo_zone import NOW
from tests.netns.test_host_vlans import capture
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]

PLAIN, DRIVE = "DefaultL2NetworkOffering", "DefaultL2NetworkOfferingConfigDrive"
SCRIPT = "#!/bin/sh\necho told >/root/told\n"
DHCP = "udp and (port 67 or port 68)"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def drive(world: World, guest, path: str) -> str:
    return world.run(f"vm/{guest['name']}", "cat", f"/run/config-2/{path}").stdout


def test_guests_on_two_hosts_reach_each_other_with_addresses_of_their_own(world: World):
    network = world.network(PLAIN)
    assert (network["type"], network["state"]) == ("L2", "Allocated")
    guests = [world.guest(network["id"], hostid=world.host(number)) for number in (1, 2)]
    assert world.api.listNetworks(id=network["id"])["network"][0]["state"] == "Implemented"
    assert world.api.listRouters(networkid=network["id"], listall=True) == {}
    assert all("ipaddress" not in guest["nic"][0] for guest in guests)
    space = world.space(f"vm/{guests[1]['name']}")
    with capture(space, "eth0", DHCP) as heard:  # what the guests ask comes by, and nobody answers
        world.api.rebootVirtualMachine(id=guests[0]["id"], **NOW)
        until(lambda: world.run(f"vm/{guests[0]['name']}", "cat", "/run/udhcpc.eth0.pid").stdout)
        asked = world.beside(
            f"vm/{guests[1]['name']}", "busybox", "udhcpc", "-n", "-q", "-t", "2", "-T", "1", "-i", "eth0"
        )
    assert "no lease" in (asked.stdout + asked.stderr)
    assert any("Request" in line for line in heard)
    assert not any("Reply" in line for line in heard)
    for last, guest in enumerate(guests, 1):
        world.give_address(guest, f"192.168.77.{last}/24")
    until(lambda: world.pings(f"vm/{guests[0]['name']}", "192.168.77.2"))
    assert world.run(f"vm/{guests[1]['name']}", "wget", "-q", "-O", "-", "http://192.168.77.1/").stdout.strip()
    world.clear(guests, network)


def test_another_mac_is_held_unless_the_offering_lets_it_through(world: World):
    free = f"{PLAIN}-free"
    policies = {"forgedTransmits": "true", "macAddressChanges": "true", "promiscuousMode": "false"}
    made = world.api.createNetworkOffering(
        name=free, displaytext=free, guestiptype="L2", traffictype="Guest", details=[policies]
    )["networkoffering"]  # fmt: skip
    world.api.updateNetworkOffering(id=made["id"], state="Enabled")
    for offering, passes in ((PLAIN, False), (free, True)):
        network = world.network(offering)
        guests = [world.guest(network["id"], hostid=world.host(1)) for _ in range(2)]
        for last, guest in enumerate(guests, 1):
            world.give_address(guest, f"192.168.77.{last}/24")
        name = f"vm/{guests[0]['name']}"
        until(lambda name=name: world.pings(name, "192.168.77.2"))
        world.run(name, "ip", "link", "set", "eth0", "address", "02:66:66:66:66:66")
        if passes:
            until(lambda name=name: world.pings(name, "192.168.77.2"))
        else:
            assert not world.pings(name, "192.168.77.2")
        world.clear(guests, network)


def test_user_data_keys_and_a_password_are_on_the_drive_and_change_there(world: World):
    network = world.network(DRIVE)
    guest = world.guest(network["id"], userdata=encoded(SCRIPT), hostid=world.host(1))
    name = f"vm/{guest['name']}"
    assert drive(world, guest, "cloudstack/userdata/user_data.txt") == SCRIPT
    assert drive(world, guest, "cloudstack/metadata/instance-id.txt") == guest["id"]
    assert drive(world, guest, "cloudstack/password/vm_password.txt") == guest["password"]
    until(lambda: world.run(name, "cat", "/root/told").stdout == "told\n")
    world.api.updateVirtualMachine(id=guest["id"], userdata=encoded("other"))
    until(lambda: drive(world, guest, "openstack/latest/user_data") == "other")
    world.api.stopVirtualMachine(id=guest["id"], **NOW)
    fresh = world.api.resetPasswordForVirtualMachine(id=guest["id"], **NOW)["virtualmachine"]["password"]
    world.api.startVirtualMachine(id=guest["id"], **NOW)
    assert drive(world, guest, "cloudstack/password/vm_password.txt") == fresh != guest["password"]
    (folder,) = world.cloud.place.state("host-1").glob(f"guests/{guest['id']}")
    assert (folder / "config-2.iso").stat().st_mode & 0o777 == 0o600
    world.api.rebootVirtualMachine(id=guest["id"], **NOW)
    assert drive(world, guest, "cloudstack/password/vm_password.txt") == ""
    world.clear([guest], network)
    assert not folder.exists()


def test_an_isolated_network_by_drive_has_its_addresses_from_it_and_no_router(world: World):
    providers = [{"service": service, "provider": "ConfigDrive"} for service in ("Dhcp", "Dns", "UserData")]
    made = world.api.createNetworkOffering(
        name="by-drive", displaytext="by-drive", guestiptype="Isolated", traffictype="Guest",
        supportedservices="Dhcp,Dns,UserData", serviceproviderlist=providers,
    )["networkoffering"]  # fmt: skip
    world.api.updateNetworkOffering(id=made["id"], state="Enabled")
    network = world.network("by-drive")
    guest = world.guest(network["id"], userdata=encoded(SCRIPT))
    assert world.api.listRouters(networkid=network["id"], listall=True) == {}
    told = drive(world, guest, "openstack/latest/network_data.json")
    assert guest["nic"][0]["ipaddress"] in told
    assert guest["nic"][0]["macaddress"] in told
    world.clear([guest], network)
