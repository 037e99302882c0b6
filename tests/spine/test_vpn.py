"""VPN from the API to the packet: two VPCs joined tier to tier, and a user who dials in and is cut off."""

from __future__ import annotations

import time
from typing import Any

import pytest

from controlplane.demo_zone import NOW
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
