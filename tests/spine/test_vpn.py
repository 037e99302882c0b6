"""VPN from the API to the packet: two VPCs joined tier to tier, and a user who dials in and is cut off."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from vici.exception import CommandException

from controlplane.demo_zone import NOW
from systemvm import netns
from tests.netns.router_lab import ping
from tests.netns.vpn_lab import Dialler
from tests.spine.world import World, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]
KEY = "a very secret key"


class Side:
    """A VPC with one tier, one guest and a VPN gateway."""

    def __init__(self, world: World, number: int) -> None:
        api = self.api = world.api
        self.world, self.cidr = world, f"10.{number}.0.0/16"
        offering = api.listVPCOfferings(name="Default VPC offering")["vpcoffering"][0]["id"]
        wanted = {"name": f"vpc-{number}", "displaytext": "vpc", "cidr": self.cidr, "vpcofferingid": offering}
        self.vpc = api.createVPC(**wanted, zoneid=world.zone, **NOW)["vpc"]["id"]
        allow = api.listNetworkACLLists(name="default_allow")["networkacllist"][0]["id"]
        tier = world.network(
            "DefaultIsolatedNetworkOfferingForVpcNetworks",
            vpcid=self.vpc,
            gateway=f"10.{number}.1.1",
            netmask="255.255.255.0",
            aclid=allow,
        )
        self.tier = tier["id"]
        self.guest = world.guest(self.tier)
        self.address = self.guest["nic"][0]["ipaddress"]
        self.gateway = api.createVpnGateway(vpcid=self.vpc, **NOW)["vpngateway"]

    @property
    def where(self) -> str:
        return f"vm/{self.guest['name']}"

    def join(self, other: Side, **more: Any) -> str:
        """Make the connection to the other side; return its id."""
        customer = self.api.createVpnCustomerGateway(
            name=f"to-{other.vpc}", gateway=other.gateway["publicip"], cidrlist=other.cidr, ipsecpsk=KEY,
            ikepolicy="aes256-sha256;modp2048", esppolicy="aes128-sha256;ecp256", ikeversion="ikev2", **NOW,
        )["vpncustomergateway"]  # fmt: skip
        ends = {"s2svpngatewayid": self.gateway["id"], "s2scustomergatewayid": customer["id"]}
        return self.api.createVpnConnection(**ends, **more, **NOW)["vpnconnection"]["id"]

    def state(self) -> str:
        (connection,) = self.api.listVpnConnections(vpcid=self.vpc)["vpnconnection"]
        return connection["state"]

    def remove(self) -> None:
        for connection in self.api.listVpnConnections(vpcid=self.vpc).get("vpnconnection", ()):
            self.api.deleteVpnConnection(id=connection["id"], **NOW)
        self.api.destroyVirtualMachine(id=self.guest["id"], expunge=True, **NOW)
        self.api.deleteNetwork(id=self.tier, **NOW)
        self.api.deleteVPC(id=self.vpc, **NOW)


@pytest.fixture
def vpcs(world: World) -> None:
    """The zone may have VPCs."""
    physical = world.api.listPhysicalNetworks(zoneid=world.zone)["physicalnetwork"][0]["id"]
    named = {"name": "VpcVirtualRouter", "physicalnetworkid": physical}
    found = world.api.listNetworkServiceProviders(**named)["networkserviceprovider"][0]
    if found["state"] == "Enabled":
        return
    element = world.api.listVirtualRouterElements(nspid=found["id"])["virtualrouterelement"][0]
    if not element["enabled"]:
        world.api.configureVirtualRouterElement(id=element["id"], enabled=True, **NOW)
    world.api.updateNetworkServiceProvider(id=found["id"], state="Enabled", **NOW)


@pytest.mark.usefixtures("vpcs")
def test_two_vpcs_are_joined_tier_to_tier(world: World) -> None:
    one, two = Side(world, 61), Side(world, 62)
    assert not world.pings(one.where, two.address)
    one.join(two)
    assert one.state() in ("Pending", "Connecting", "Disconnected", "Error")
    began = time.monotonic()
    two.join(one, passive=True)
    until(lambda: one.state() == two.state() == "Connected", 60)
    print(f"connected {time.monotonic() - began:.1f} s after the second side was made")
    assert world.pings(one.where, two.address)
    assert world.pings(two.where, one.address)
    events = world.api.listEvents(type="VPN.S2S.CONNECTION.STATE", listall=True)["event"]
    assert any("to Connected" in event["description"] for event in events)
    two.api.deleteVpnConnection(id=two.api.listVpnConnections(vpcid=two.vpc)["vpnconnection"][0]["id"], **NOW)
    until(lambda: one.state() != "Connected", 60)
    assert not world.pings(one.where, two.address)
    for side in (one, two):
        side.remove()


def test_a_user_dials_in_and_is_cut_off_when_it_is_removed(world: World, tmp_path: Path, monkeypatch: Any) -> None:
    network = world.network()
    guest = world.guest(network["id"])
    inside = guest["nic"][0]["ipaddress"]
    ip = world.address(network["id"])
    world.api.createRemoteAccessVpn(publicipid=ip["id"], iprange="10.99.0.1-10.99.0.9", **NOW)
    world.api.addVpnUser(username="anna", password="Passw0rd@1", **NOW)
    authority = world.api.listCaCertificate()["cacertificates"]["cacertificates"]
    with house(world) as space:
        client = Dialler(space, tmp_path / "client", authority, monkeypatch)
        try:
            began = time.monotonic()
            with client.dialled(ip["ipaddress"], "anna", "Passw0rd@1") as (address, _):
                print(f"connected in {time.monotonic() - began:.2f} s")
                assert address == "10.99.0.2"
                assert reaches(space, inside, address)
                began = time.monotonic()
                world.api.removeVpnUser(username="anna", **NOW)
                until(lambda: not reaches(space, inside, address), 5)
                print(f"cut off {time.monotonic() - began:.2f} s after the call")
                assert time.monotonic() - began < 5
            with pytest.raises(CommandException), client.dialled(ip["ipaddress"], "anna", "Passw0rd@1"):
                pass
        finally:
            client.stop()
    world.api.deleteRemoteAccessVpn(publicipid=ip["id"], **NOW)


def reaches(space: str, address: str, source: str) -> bool:
    """Tell whether the client gets an answer with the address that it was given, which it loses with the VPN."""
    try:
        return ping(space, address, source=source, timeout=1)
    except OSError:
        return False


@contextmanager
def house(world: World) -> Iterator[str]:
    """A namespace beyond the internet; yields its name."""
    space, cable, internet = f"t{os.getpid()}house", f"tv{os.getpid()}h", world.space("internet")
    netns.ensure(space)
    for where, *words in (
        (internet, "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space),
        (internet, "link", "set", cable, "up"),
        (internet, "addr", "add", "172.31.77.1/24", "dev", cable),
        (space, "link", "set", "eth0", "up"),
        (space, "addr", "add", "172.31.77.2/24", "dev", "eth0"),
        (space, "route", "add", "default", "via", "172.31.77.1"),
    ):
        netns.run(where, ["ip", *words])
    netns.run(internet, ["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    try:
        yield space
    finally:
        netns.run(internet, ["ip", "link", "del", cable])
        netns.ensure_no(space)
