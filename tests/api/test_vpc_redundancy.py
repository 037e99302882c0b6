"""Redundant VPCs: two routers serve every tier, and no tier that comes or goes changes who votes."""

from __future__ import annotations

import pytest

from controlplane.network import leases
from controlplane.network.redundancy import RouterPair
from controlplane.network.routers import Router
from controlplane.reconcile.targets import Target, load_facts
from controlplane.zone.physical_networks import Vnet
from drivers.network.virtual_router import VirtualRouter
from tests.api.vpc_world import vpc_world


@pytest.fixture
def here(cloud):
    leases._promised.clear()
    with vpc_world(cloud, hosts=2) as made:
        yield made


def routers(here):
    return sorted(here.there.rows(Router, Router.removed.is_(None)), key=lambda router: router.id)


def facts(here, router):
    with here.cloud.database.read() as session:
        return load_facts(session, session.get_one(Target, router.target_id))


def served(here):
    """The networks that each router serves, with its addresses on them."""
    return [
        sorted((nic.network, nic.address) for nic in facts(here, router).nics if nic.network)
        for router in routers(here)
    ]


def test_two_routers_serve_every_tier_and_the_roster_never_changes_with_them(here):
    vpc = here.vpc(vpcofferingid=here.vpc_offering("Redundant VPC offering"))
    assert vpc["redundantvpcrouter"] is True
    one, two = routers(here)
    assert one.host_id != two.host_id
    before = [facts(here, router).redundancy for router in (one, two)]
    assert (before[0].peer, before[1].peer) == (two.uuid, one.uuid)
    web, db = here.tier(vpc["id"]), here.tier(vpc["id"], "db", 2)
    front = here.there.deploy(name="front", networkids=web["id"])
    here.there.deploy(name="back", networkids=db["id"])
    both = served(here)
    assert both[0] == both[1] == sorted([(web["id"], "10.1.1.1"), (db["id"], "10.1.2.1")])
    assert [facts(here, router).redundancy for router in (one, two)] == before
    here.done(here.admin("destroyVirtualMachine", id=front["id"], expunge=True))
    here.done(here.cloud("deleteNetwork", id=web["id"]))
    assert served(here) == [[(db["id"], "10.1.2.1")]] * 2
    assert [facts(here, router).redundancy for router in (one, two)] == before


def test_a_vpc_is_made_redundant_and_its_routers_made_anew(here):
    vpc = here.vpc()["id"]
    web = here.tier(vpc)
    here.there.deploy(name="front", networkids=web["id"])
    (first,) = routers(here)
    assert facts(here, first).redundancy is None
    assert here.done(here.cloud("restartVPC", id=vpc, makeredundant=True)) is True
    one, two = routers(here)
    assert one.id == first.id
    assert served(here)[0] == served(here)[1]
    assert here.done(here.cloud("restartVPC", id=vpc, cleanup=True)) is True
    after = routers(here)
    assert not {one.id, two.id} & {router.id for router in after}
    assert len({router.host_id for router in after}) == 2
    assert served(here)[0] == served(here)[1] == [(web["id"], "10.1.1.1")]


def test_a_vpc_that_goes_gives_the_number_of_its_link_back(here):
    vpc = here.vpc(vpcofferingid=here.vpc_offering("Redundant VPC offering"))["id"]
    assert here.there.rows(RouterPair)
    here.done(here.cloud("deleteVPC", id=vpc))
    assert here.there.rows(RouterPair) == []
    assert here.there.rows(Vnet) == []


def gateway_sides(here):
    """The interface of the private gateway as each router's plan has it."""
    plans = [VirtualRouter().plan(facts(here, router)) for router in routers(here)]
    return [
        next(item for item in plan.links.interfaces if item.addresses == ("172.16.1.2/24",)) for plan in plans
    ], plans


def test_both_routers_have_the_private_gateways_address_under_one_mac(here):
    vpc = here.vpc(vpcofferingid=here.vpc_offering("Redundant VPC offering"))["id"]
    asked = {"ipaddress": "172.16.1.2", "gateway": "172.16.1.1", "netmask": "255.255.255.0", "vlan": "vxlan://300"}
    made = here.done(here.admin("createPrivateGateway", vpcid=vpc, sourcenatsupported=True, **asked))
    here.done(here.cloud("createStaticRoute", gatewayid=made["id"], cidr="172.20.0.0/16"))
    (one, two), plans = gateway_sides(here)
    assert one.shared == two.shared != ""
    assert one.mac != two.mac
    for side, plan in zip((one, two), plans, strict=True):
        assert (side.name, "172.16.1.2/24") in plan.redundancy.announce
        assert {"to": "172.20.0.0/16", "via": "172.16.1.1", "dev": side.name} in plan.links.routes
        assert [gateway.source_nat for gateway in plan.ruleset.gateways] == ["172.16.1.2"]
    assert here.done(here.cloud("restartVPC", id=vpc, cleanup=True)) is True
    (after, other), _ = gateway_sides(here)
    assert after.shared == other.shared == one.shared
    here.done(here.cloud("deleteVPC", id=vpc))
    assert here.there.rows(Vnet) == []


def test_a_vpc_with_a_private_gateway_is_made_redundant(here):
    vpc = here.vpc()["id"]
    asked = {"ipaddress": "172.16.1.2", "gateway": "172.16.1.1", "netmask": "255.255.255.0", "vlan": "vxlan://300"}
    here.done(here.admin("createPrivateGateway", vpcid=vpc, **asked))
    assert here.done(here.cloud("restartVPC", id=vpc, makeredundant=True)) is True
    (one, two), _ = gateway_sides(here)
    assert one.shared == two.shared != ""
