"""Internal load balancers: between the tiers of a VPC."""

from __future__ import annotations

import pytest

from controlplane.errors import BadParameter, RuleConflict, Unsupported
from controlplane.network.load_balancers import LoadBalancer
from controlplane.network.nics import NetworkAddress
from tests.api.test_vpcs import facts
from tests.api.vpc_world import TIER_INTERNAL, vpc_world


@pytest.fixture
def here(cloud):
    with vpc_world(cloud) as made:
        yield made


def balance(here, tier, **given):
    asked = {"name": "db", "algorithm": "roundrobin", "scheme": "Internal", "sourceport": 5432, "instanceport": 5433}
    asked |= {"networkid": tier["id"], "sourceipaddressnetworkid": tier["id"]}
    return here.done(here.cloud("createLoadBalancer", **(asked | given)))


def test_a_balancer_answers_at_an_address_of_its_tier(here):
    vpc = here.vpc()["id"]
    db = here.tier(vpc, "db", 2, networkofferingid=here.offering(TIER_INTERNAL))
    back = here.there.deploy(name="back", networkids=db["id"])
    made = balance(here, db, sourceipaddress="10.1.2.50")
    assert (made["sourceipaddress"], made["loadbalancerrule"][0]["sourceport"]) == ("10.1.2.50", 5432)
    here.done(here.cloud("assignToLoadBalancerRule", id=made["id"], virtualmachineids=back["id"]))
    (rule,) = facts(here, vpc).networks[0].balancers
    assert (rule.address, rule.port, rule.internal, rule.sources) == ("10.1.2.50", 5432, True, ("10.1.0.0/16",))
    assert [member.address for member in rule.members] == [back["nic"][0]["ipaddress"]]
    shown = here.cloud("listLoadBalancers", networkid=db["id"])["loadbalancer"]
    assert [item["name"] for item in shown[0]["loadbalancerinstance"]] == ["back"]
    assert here.cloud("listLoadBalancerRules", networkid=db["id"]) == {}
    with pytest.raises(RuleConflict, match="has port 5432"):
        balance(here, db, sourceipaddress="10.1.2.50")
    assert balance(here, db, sourceipaddress="10.1.2.50", sourceport=80)["sourceipaddress"] == "10.1.2.50"
    with pytest.raises(BadParameter, match="for the commands"):
        here.cloud("deleteLoadBalancerRule", id=made["id"])
    bob = here.admin.as_user("bob")
    assert bob("listLoadBalancers", listall=True) == {}
    for item in here.cloud("listLoadBalancers")["loadbalancer"]:
        here.done(here.cloud("deleteLoadBalancer", id=item["id"]))
    assert here.there.rows(LoadBalancer) == here.there.rows(NetworkAddress, NetworkAddress.address == "10.1.2.50") == []
    assert facts(here, vpc).networks[0].balancers == ()


def test_what_cannot_be_is_refused(here):
    vpc = here.vpc()["id"]
    web, db = here.tier(vpc), here.tier(vpc, "db", 2, networkofferingid=here.offering(TIER_INTERNAL))
    with pytest.raises(Unsupported, match="Public load balancing"):
        balance(here, web)
    with pytest.raises(BadParameter, match="must be networkid"):
        balance(here, db, sourceipaddressnetworkid=web["id"])
    for address in ("10.1.1.9", "10.1.2.1", "10.1.2.255"):
        with pytest.raises(BadParameter, match="free address"):
            balance(here, db, sourceipaddress=address)
    with pytest.raises(BadParameter, match="Internal"):
        balance(here, db, scheme="Public")
    assert here.there.rows(LoadBalancer) == []
