"""A network's offering and its reserved addresses change while it is in use (updateNetwork)."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.errors import BadParameter
from controlplane.network.claims import PortClaim
from controlplane.network.facts import router_facts
from controlplane.network.firewall import FirewallRule
from controlplane.network.implement import ensure_public_nics
from controlplane.network.networks import Network
from controlplane.network.port_forwarding import PortForward
from controlplane.network.public_ips import PublicIp
from controlplane.network.routers import Router
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.reconcile.targets import Target
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType
from controlplane.zone.providers import NetworkServiceProvider
from tests.api.ground import SERVICES, lay


@pytest.fixture
def ground(cloud):
    made = lay(cloud)
    with cloud.database.write() as session:
        physical = session.get_one(PhysicalNetwork, made.numbers["physical"])
        physical.traffic_types.append(TrafficType(traffic="Guest"))
        session.add(NetworkServiceProvider(physical_network_id=physical.id, name="VirtualRouter", state="Enabled"))
    return made


@pytest.fixture
def network(ground, alice):
    """Implemented, with a router whose source NAT address is 203.0.113.10."""
    uuid = ground.network("alice")
    ip = ground.address(alice, uuid)
    ground.target = ground.router(uuid)
    with ground.cloud.database.write() as session:
        row = session.get_one(Network, ground.numbers[uuid])
        row.vnet = 5000
        session.scalars(select(PublicIp).where(PublicIp.uuid == ip)).one().source_nat = True
        ensure_public_nics(session, row)
    return uuid


def offering(ground, name="other", **more):
    values = {"state": "Enabled", "guest_type": "Isolated", "services": SERVICES, "conserve_mode": True} | more
    with ground.cloud.database.write() as session:
        row = NetworkOffering(name=name, unique_name=name, display_text=name, **values)
        session.add(row)
        session.flush()
        return row.uuid


def without(*services):
    return {name: who for name, who in SERVICES.items() if name not in services}


def facts(ground):
    with ground.cloud.database.read() as session:
        return router_facts(session, session.get_one(Target, ground.target)).networks[0]


def change(ground, cloud, network, wanted, **more):
    answer = cloud("updateNetwork", id=network, networkofferingid=wanted, **more)
    ground.settle(ground.target)
    return ground.done(answer)


def test_the_router_learns_of_the_new_offering_without_a_restart(ground, alice, network):
    before = facts(ground)
    shown = change(ground, alice, network, offering(ground, network_rate=7, egress_allow=True, services=without("Lb")))
    after = facts(ground)
    assert (before.egress_allow, before.rate, "Lb" in before.services) == (False, 200, True)
    assert (after.egress_allow, after.rate, "Lb" in after.services) == (True, 7, False)
    assert (shown["networkofferingname"], shown["restartrequired"]) == ("other", False)
    assert "Lb" not in {service["name"] for service in shown["service"]}
    assert [row.removed for row in ground.rows(Router)] == [None]


def test_what_a_router_is_made_of_waits_for_its_restart_and_is_said(ground, alice, network):
    with ground.cloud.database.read() as session:
        big = session.scalars(
            select(ServiceOffering.id).where(ServiceOffering.system_vm_type == "domainrouter")
        ).first()
    shown = change(ground, alice, network, offering(ground, service_offering_id=big))
    assert shown["restartrequired"] is True
    event = ground.cloud("listEvents", type="NETWORK.UPDATE", listall=True)["event"][0]
    assert "from offering web-offering to other, which waits for the routers' restart" in event["description"]


def test_rules_of_a_service_that_would_go_are_a_reason_to_refuse_unless_it_is_forced(ground, alice, network):
    vm = ground.machine(network, "vm1", "10.1.1.10")
    ip = ground.address(alice, network)
    rule = alice(
        "createPortForwardingRule", ipaddressid=ip, virtualmachineid=vm, protocol="tcp", publicport=80, privateport=80
    )["id"]
    egress = alice("createEgressFirewallRule", networkid=network, protocol="tcp", startport=80, endport=80)["id"]
    ground.settle(ground.target)
    wanted = offering(ground, services=without("PortForwarding"), egress_allow=True)
    with pytest.raises(BadParameter) as refused:
        alice("updateNetwork", id=network, networkofferingid=wanted)
    assert f"networkofferingid value={wanted}" in refused.value.text
    assert f"its PortForwarding rules would be lost (forced=true removes them): {rule}" in refused.value.text
    assert f"its egress rules would be lost (forced=true removes them): {egress}" in refused.value.text
    with pytest.raises(BadParameter, match="forced may only be given by a root admin"):
        alice("updateNetwork", id=network, networkofferingid=wanted, forced=True)

    change(ground, ground.cloud, network, wanted, forced=True)
    assert [ground.rows(table) for table in (PortForward, PortClaim, FirewallRule)] == [[], [], []]
    assert facts(ground).forwards == ()


def test_every_reason_why_an_offering_does_not_fit_is_named(ground, alice, network):
    vm = ground.machine(network, "vm1", "10.1.1.10")
    ip = ground.rows(PublicIp, PublicIp.source_nat)[0].uuid
    alice(
        "createPortForwardingRule", ipaddressid=ip, virtualmachineid=vm, protocol="tcp", publicport=80, privateport=80
    )
    wanted = offering(ground, tags=["fast"], specify_vlan=True, conserve_mode=False, guest_type="Shared")
    with pytest.raises(BadParameter) as refused:
        ground.cloud("updateNetwork", id=network, networkofferingid=wanted)
    for reason in ("it is for Shared networks", "p lacks the tags fast", "specifyvlan=true",
                   r"203.0.113.10 cannot have rules of several kinds, or be the source NAT address"):  # fmt: skip
        assert reason in refused.value.text
    with pytest.raises(BadParameter, match=r"networkofferingid value=.*no network offering with this id"):
        alice("updateNetwork", id=network, networkofferingid=offering(ground, "disabled", state="Disabled"))
    assert ground.rows(Network)[0].state == "Implemented"


def test_a_network_without_a_routers_service_loses_its_router(ground, alice, network):
    change(ground, alice, network, offering(ground, services={}))
    (router,) = ground.rows(Router)
    assert router.removed is not None
    assert ground.rows(Target, Target.id == ground.target) == []  # it was taken down, and is gone
    (left,) = ground.rows(PublicIp, PublicIp.address == "203.0.113.10")
    assert (left.source_nat, left.state) == (False, "Allocated")  # its owner may give it back now


def test_guests_get_addresses_of_the_part_that_is_not_reserved(ground, alice, network):
    shown = alice("updateNetwork", id=network, guestvmcidr="10.1.1.128/26")
    ground.settle(ground.target)
    shown = ground.done(shown)
    assert (shown["cidr"], shown["networkcidr"], shown["netmask"]) == ("10.1.1.128/26", "10.1.1.0/24", "255.255.255.0")
    assert shown["reservediprange"] == "10.1.1.1-10.1.1.127, 10.1.1.192-10.1.1.254"
    vm = ground.machine(network, "vm1", "10.1.1.130")
    nic = ground.cloud("listNics", virtualmachineid=vm)["nic"][0]["id"]
    adding = alice("addIpToNic", nicid=nic)
    ground.settle(ground.target)
    added = ground.done(adding)
    assert added["ipaddress"] == "10.1.1.129"
    with pytest.raises(BadParameter, match=r"ipaddress value=10\.1\.1\.9: it is reserved; guests of network web get"):
        alice("addIpToNic", nicid=nic, ipaddress="10.1.1.9")

    with pytest.raises(
        BadParameter, match=r"guestvmcidr value=10\.1\.1\.192/26: guests .* outside of it: 10\.1\.1\.129"
    ):
        alice("updateNetwork", id=network, guestvmcidr="10.1.1.192/26")
    for wrong in ("10.1.2.0/25", "10.1.1.0/31", "no", "10.1.1.1/25", "10.1.1.0/25\n; x"):
        with pytest.raises(BadParameter, match=r"it must be a CIDR inside of 10\.1\.1\.0/24, such as 10\.1\.1\.128/25"):
            alice("updateNetwork", id=network, guestvmcidr=wrong)

    whole = alice("updateNetwork", id=network, guestvmcidr="10.1.1.0/24")
    ground.settle(ground.target)
    assert "reservediprange" not in ground.done(whole)
