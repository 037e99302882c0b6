"""VPCs and their tiers: made, shown, limited, refused, restarted and deleted, with agents that answer."""

from __future__ import annotations

import pytest

from controlplane.errors import BadParameter, InUse, LimitReached
from controlplane.identity.limits import ResourceCount
from controlplane.network.networks import Network
from controlplane.network.public_ips import PublicIp
from controlplane.network.routers import Router
from controlplane.network.vpcs import Vpc
from controlplane.reconcile.targets import Target, load_facts
from controlplane.work.signals import signals
from controlplane.zone.physical_networks import Vnet
from tests.api.counting import queries
from tests.api.vpc_world import TIER_WITHOUT_LB, vpc_world


@pytest.fixture
def here(cloud):
    cloud("updateConfiguration", name="allow.end.users.to.specify.vr.mtu", value="true")
    with vpc_world(cloud) as made:
        yield made


def until(check):
    assert signals.wait([f"target/{number}" for number in range(1, 50)], check, 10)


def facts(here, vpc):
    with here.cloud.database.read() as session:
        number = session.query(Vpc.id).filter_by(uuid=vpc).scalar()
        target = session.query(Target).join(Router).filter(Router.vpc_id == number).one()
        return load_facts(session, target)


def test_a_vpc_comes_with_its_address_and_its_router(here):
    vpc = here.vpc(displaytext="The shop", networkdomain="shop.example", dns1="192.0.2.1", publicmtu=1400)
    assert (vpc["cidr"], vpc["state"], vpc["networkdomain"]) == ("10.1.0.0/16", "Enabled", "shop.example")
    assert (vpc["displaytext"], vpc["dns1"], vpc["publicmtu"]) == ("The shop", "192.0.2.1", 1400)
    assert {service["name"] for service in vpc["service"]} >= {"NetworkACL", "SourceNat", "Lb"}
    (address,) = here.cloud("listPublicIpAddresses", vpcid=vpc["id"])["publicipaddress"]
    assert (address["issourcenat"], address["vpcname"]) == (True, "shop")
    (router,) = here.admin("listRouters", vpcid=vpc["id"], listall=True)["router"]
    assert (router["state"], router["vpcname"], router["publicip"]) == ("Running", "shop", address["ipaddress"])
    known = facts(here, vpc["id"])
    assert (known.vpc.cidr, known.networks, known.dns) == ("10.1.0.0/16", (), ("192.0.2.1",))
    assert [nic.mtu for nic in known.nics] == [1400]


def test_one_router_serves_every_tier_that_is_in_use(here):
    vpc = here.vpc()["id"]
    web, db = here.tier(vpc), here.tier(vpc, "db", 2, networkofferingid=here.offering(TIER_WITHOUT_LB), privatemtu=1300)
    assert (web["vpcid"], web["vpcname"], web["aclname"]) == (vpc, "shop", "default_deny")
    assert web["networkdomain"] == here.cloud("listVPCs", id=vpc)["vpc"][0]["networkdomain"]
    here.there.deploy(name="front", networkids=web["id"])
    here.there.deploy(name="back", networkids=db["id"])
    (router,) = here.admin("listRouters", vpcid=vpc, listall=True)["router"]
    assert sorted(nic["ipaddress"] for nic in router["nic"] if nic["traffictype"] == "Guest") == [
        "10.1.1.1",
        "10.1.2.1",
    ]
    known = facts(here, vpc)
    assert {net.cidr: net.mtu for net in known.networks} == {"10.1.1.0/24": 1500, "10.1.2.0/24": 1300}
    assert all(item.source_nat and item.network == "" for item in known.addresses)
    assert [net.acl[0].allow for net in known.networks] == [False, False]
    states = {net["name"]: net["state"] for net in here.cloud("listNetworks", vpcid=vpc)["network"]}
    assert states == {"web": "Implemented", "db": "Implemented"}
    numbers = [row.number for row in here.there.rows(Vnet)]
    assert len(numbers) == len(set(numbers)) == 2


def test_a_tier_that_goes_leaves_nothing_and_its_vpc_after_it(here):
    vpc = here.vpc()["id"]
    web = here.tier(vpc)
    machine = here.there.deploy(name="front", networkids=web["id"])
    with pytest.raises(InUse, match="web"):
        here.cloud("deleteVPC", id=vpc)
    with pytest.raises(InUse, match="front"):
        here.cloud("deleteNetwork", id=web["id"])
    here.done(here.admin("destroyVirtualMachine", id=machine["id"], expunge=True))
    assert here.done(here.cloud("deleteNetwork", id=web["id"])) is True
    until(lambda: not here.there.rows(Vnet))
    assert facts(here, vpc).networks == ()
    assert here.done(here.cloud("deleteVPC", id=vpc)) is True
    until(lambda: not here.there.rows(Target, Target.kind == "router"))
    until(lambda: not here.there.rows(PublicIp, PublicIp.state != "Free"))
    assert here.cloud("listVPCs") == {}
    assert [row.count for row in here.there.rows(ResourceCount, ResourceCount.kind.in_(("vpc", "network")))] == [0] * 4
    assert here.there.rows(PublicIp, PublicIp.vpc_id.is_not(None)) == []


def test_a_restart_with_cleanup_makes_a_new_router_for_all_tiers(here):
    vpc = here.vpc()["id"]
    web = here.tier(vpc)
    here.there.deploy(name="front", networkids=web["id"])
    before = facts(here, vpc)
    assert here.done(here.cloud("restartVPC", id=vpc)) is True
    (old,) = here.there.rows(Router, Router.removed.is_(None))
    assert here.done(here.cloud("restartVPC", id=vpc, cleanup=True)) is True
    (new,) = here.there.rows(Router, Router.removed.is_(None))
    assert (new.name != old.name, new.state) == (True, "Running")
    after = facts(here, vpc)
    assert [(net.cidr, net.leases) for net in after.networks] == [(net.cidr, net.leases) for net in before.networks]
    assert [item.address for item in after.addresses] == [item.address for item in before.addresses]


def test_updates_reach_the_router(here):
    vpc = here.vpc()["id"]
    other = here.done(here.cloud("associateIpAddress", vpcid=vpc))
    changed = here.done(
        here.cloud("updateVPC", id=vpc, name="store", publicmtu=1300, sourcenatipaddress=other["ipaddress"])
    )
    assert (changed["name"], changed["publicmtu"]) == ("store", 1300)
    known = facts(here, vpc)
    assert {item.address: item.source_nat for item in known.addresses}[other["ipaddress"]] is True
    assert sum(item.source_nat for item in known.addresses) == 1
    with pytest.raises(BadParameter, match="sourcenatipaddress"):
        here.cloud("updateVPC", id=vpc, sourcenatipaddress="203.0.113.40")


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ({"cidr": "10.1.0.1/16"}, "no host bits"),
        ({"cidr": "10.1.0.0/30"}, "/8 to /29"),
        ({"cidr": "169.254.0.0/16"}, "reserved"),
        ({"cidr": "203.0.112.0/22"}, r"overlaps 203\.0\.113\.0/24"),
        ({"cidr": "ten"}, "a network such as"),
        ({"dns2": "192.0.2.1"}, "goes together with dns1"),
        ({"networkdomain": "a b"}, "networkdomain"),
        ({"publicmtu": 12}, "576 to 9000"),
        ({"userouteripresolver": False}, "ask their router"),
        ({"sourcenatipaddress": "192.0.2.77"}, "public range"),
    ],
)
def test_a_vpc_that_cannot_be_is_refused_and_leaves_nothing(here, given, right):
    with pytest.raises(BadParameter, match=right):
        here.vpc(**given)
    assert here.there.rows(Vpc) == []
    assert here.there.rows(PublicIp, PublicIp.state != "Free") == []


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ({"gateway": "10.2.1.1"}, r"10\.2\.1\.0/24 must lie within 10\.1\.0\.0/16"),
        ({"gateway": "10.1.1.129", "netmask": "255.255.255.128"}, r"overlaps 10\.1\.1\.0/24, which tier first has"),
        ({"gateway": "10.1.0.1", "netmask": "255.255.240.0"}, "overlaps"),
        ({"networkdomain": "other.example"}, "networkdomain"),
        ({"publicmtu": 1400}, "updateVPC"),
        ({"sourcenatipaddress": "203.0.113.20"}, "updateVPC"),
        ({"account": "bob"}, "account"),
    ],
)
def test_a_tier_that_cannot_be_is_refused_and_leaves_nothing(here, given, right):
    vpc = here.vpc()["id"]
    here.tier(vpc, "first")
    with pytest.raises(BadParameter, match=right):
        here.tier(vpc, "second", 2, **given)
    assert [net["name"] for net in here.cloud("listNetworks", vpcid=vpc)["network"]] == ["first"]
    assert here.there.rows(Network, Network.name == "second") == []


def test_tiers_want_an_offering_for_vpcs_and_only_tiers_have_one(here):
    vpc = here.vpc()["id"]
    with pytest.raises(BadParameter, match="not for the tiers of a VPC"):
        here.tier(vpc, networkofferingid=here.offering("iso"))
    with pytest.raises(BadParameter, match="give vpcid"):
        here.cloud("createNetwork", name="x", zoneid=here.there.zone, networkofferingid=here.offering())
    with pytest.raises(BadParameter, match="gateway and netmask"):
        here.cloud("createNetwork", name="x", zoneid=here.there.zone, networkofferingid=here.offering(), vpcid=vpc)
    services = {"supportedservices": "Dhcp,Dns,SourceNat,NetworkACL", "enable": True}
    small = here.done(here.admin("createVPCOffering", name="small", **services))
    narrow = here.vpc("narrow", vpcofferingid=small["id"], cidr="10.1.0.0/16")["id"]
    with pytest.raises(BadParameter, match="gives service Lb by VpcVirtualRouter"):
        here.tier(narrow)


def test_a_vpc_takes_so_many_tiers_and_an_account_so_many_vpcs(here):
    vpc = here.vpc()["id"]
    for number in (1, 2, 3):
        here.tier(vpc, f"t{number}", number)
    with pytest.raises(LimitReached, match=r"vpc\.max\.networks allows 3"):
        here.tier(vpc, "t4", 4)
    here.admin("updateConfiguration", name="vpc.max.networks", value=12)
    for number in range(4, 13):
        here.tier(vpc, f"t{number}", number)
    with pytest.raises(LimitReached):
        here.tier(vpc, "t13", 13)
    here.admin("updateResourceLimit", resourcetype=7, max=1, account="alice", domainid=_root(here))
    with pytest.raises(LimitReached, match="'vpc'"):
        here.vpc("second", start=False)


def _root(here):
    return here.admin("listDomains", name="ROOT")["domain"][0]["id"]


def test_somebody_else_sees_and_touches_nothing(here):
    vpc = here.vpc()["id"]
    bob = here.admin.as_user("bob")
    assert bob("listVPCs", listall=True) == {}
    for command in ("deleteVPC", "restartVPC", "updateVPC"):
        with pytest.raises(BadParameter, match="no vpc with this id"):
            bob(command, id=vpc)
    with pytest.raises(BadParameter, match="no vpc with this id"):
        here.tier(vpc, cloud=bob)
    with pytest.raises(BadParameter, match="no vpc with this id"):
        bob("associateIpAddress", vpcid=vpc)


def test_offerings_are_made_changed_and_removed(here):
    made = here.done(here.admin("createVPCOffering", name="gold", displaytext="Gold", supportedservices="Dhcp,Lb"))
    assert made["state"] == "Disabled"
    assert {service["name"] for service in made["service"]} == {"Dhcp", "Gateway", "Lb", "NetworkACL", "SourceNat"}
    with pytest.raises(BadParameter, match="Disabled"):
        here.admin("createVPC", name="v", cidr="10.1.0.0/16", zoneid=here.there.zone, vpcofferingid=made["id"])
    changed = here.done(here.admin("updateVPCOffering", id=made["id"], state="Enabled", displaytext="Best"))
    assert (changed["state"], changed["displaytext"]) == ("Enabled", "Best")
    assert here.done(here.admin("deleteVPCOffering", id=made["id"])) is True
    assert here.admin("listVPCOfferings", name="gold") == {}
    with pytest.raises(BadParameter, match="default offering"):
        here.admin("deleteVPCOffering", id=here.vpc_offering())
    with pytest.raises(BadParameter, match="Firewall"):
        here.admin("createVPCOffering", name="odd", supportedservices="Firewall")


def test_the_list_costs_the_same_however_many_there_are(here):
    counts = []
    for number in range(3):
        vpc = here.vpc(f"v{number}", start=False)["id"]
        here.tier(vpc)
        with queries(here.cloud) as seen:
            here.cloud("listVPCs")
        counts.append(len(seen))
    assert counts[0] == counts[2]
