"""Quarantine: an address that an account gave back is for a while nobody else's."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from controlplane.db.base import now
from controlplane.errors import BadParameter, NoAddress, Unauthenticated
from controlplane.identity.accounts import Account
from controlplane.network.public_ips import PublicIp
from controlplane.network.quarantine import IpQuarantine
from tests.api.ground import lay

SETTING = "public.ip.address.quarantine.duration"
FIRST = "203.0.113.10"


@pytest.fixture
def ground(cloud):
    laid = lay(cloud)
    cloud("updateConfiguration", name=SETTING, value=60)
    return laid


@pytest.fixture
def alice(ground):
    return ground.account("alice")


@pytest.fixture
def freed(ground, alice):
    """An address that alice gave back, and bob's network."""
    network = ground.network("alice")
    ip = ground.address(alice, network)
    ground.done(alice("disassociateIpAddress", id=ip))
    return {"ip": ip, "hers": network, "his": ground.network("bob", "his")}


def given(ground, account, network, **more):
    return ground.done(ground.account(account)("associateIpAddress", networkid=network, **more))["ipaddress"]


def pass_time(ground, **by):
    with ground.cloud.database.write() as session:
        session.execute(update(IpQuarantine).values(ends=now() - timedelta(**by)))


def test_nobody_else_gets_it_meanwhile(ground, freed):
    assert given(ground, "bob", freed["his"]) == "203.0.113.11"
    with pytest.raises(BadParameter, match=rf"value={FIRST}: another account gave it back.*quarantine until 20..-"):
        given(ground, "bob", freed["his"], ipaddress=FIRST)
    with pytest.raises(BadParameter, match="no public ip with this id"):
        ground.account("bob")("reserveIpAddress", id=freed["ip"])
    free = ground.account("bob")("listPublicIpAddresses", state="Free")["publicipaddress"]
    assert FIRST not in {ip["ipaddress"] for ip in free}


def test_it_is_not_had_when_nothing_else_is_left_either(ground, freed):
    for _ in range(19):
        given(ground, "bob", freed["his"])
    with pytest.raises(NoAddress):
        given(ground, "bob", freed["his"])
    assert given(ground, "alice", freed["hers"]) == FIRST


def test_who_had_it_may_have_it_again_and_that_ends_it(ground, alice, freed):
    assert FIRST in {ip["ipaddress"] for ip in alice("listPublicIpAddresses", state="Free")["publicipaddress"]}
    assert given(ground, "alice", freed["hers"], ipaddress=FIRST) == FIRST
    assert ground.cloud("listQuarantinedIps") == {}
    (over,) = ground.cloud("listQuarantinedIps", showremoved=True)["quarantinedip"]
    assert over["removalreason"] == "The account that had it took it again."


def test_it_ends_by_itself(ground, freed):
    pass_time(ground, seconds=1)
    assert ground.cloud("listQuarantinedIps") == {}
    assert ground.cloud("listQuarantinedIps", showinactive=True)["count"] == 1
    assert given(ground, "bob", freed["his"]) == FIRST


def test_it_is_shown_to_those_above_the_account(ground, freed):
    (shown,) = ground.cloud("listQuarantinedIps", keyword="113.10")["quarantinedip"]
    assert (shown["ipaddress"], shown["previousownername"]) == (FIRST, "alice")
    assert shown["enddate"] > shown["created"]
    assert "removed" not in shown
    assert ground.cloud("listQuarantinedIps", keyword="113.99") == {}
    with pytest.raises(Unauthenticated):
        ground.account("bob")("listQuarantinedIps")


def test_its_end_can_be_moved(ground, freed):
    changed = ground.cloud("updateQuarantinedIp", ipaddress=FIRST, enddate="2099-01-31")["quarantinedip"]
    assert changed["enddate"].startswith("2099-01-31")
    with pytest.raises(BadParameter, match="enddate value=2001-01-31T00:00:00Z: it must be in the future"):
        ground.cloud("updateQuarantinedIp", id=changed["id"], enddate="2001-01-31")
    with pytest.raises(BadParameter, match=r"value=203\.0\.113\.99: it is in no quarantine"):
        ground.cloud("updateQuarantinedIp", ipaddress="203.0.113.99", enddate="2099-01-31")
    with pytest.raises(BadParameter, match="give the id of the quarantine, or the ipaddress"):
        ground.cloud("updateQuarantinedIp", enddate="2099-01-31")


def test_it_can_be_ended_with_a_reason(ground, freed):
    (shown,) = ground.cloud("listQuarantinedIps")["quarantinedip"]
    ended = ground.cloud("removeQuarantinedIp", id=shown["id"], removalreason="alice agreed")["quarantinedip"]
    assert ended["removalreason"] == "alice agreed"
    assert ended["removeraccountid"] == ground.rows(Account, Account.name == "admin")[0].uuid
    with pytest.raises(BadParameter, match="it is in no quarantine that is in force"):
        ground.cloud("removeQuarantinedIp", ipaddress=FIRST, removalreason="again")
    assert given(ground, "bob", freed["his"]) == FIRST


def test_the_nearest_value_counts(ground, alice):
    bob = ground.rows(Account, Account.name == "bob")[0]
    ground.cloud("updateConfiguration", name=SETTING, value=0, accountid=bob.uuid)
    with ground.cloud.database.read() as session:
        root = session.scalars(select(Account).where(Account.name == "alice")).one().domain.uuid
    ground.cloud("updateConfiguration", name=SETTING, value=5, domainid=root)
    network = ground.network("bob", "his")
    ground.done(ground.account("bob")("disassociateIpAddress", id=ground.address(ground.account("bob"), network)))
    assert ground.cloud("listQuarantinedIps") == {}
    ground.done(alice("disassociateIpAddress", id=ground.address(alice, ground.network("alice"))))
    (row,) = ground.rows(IpQuarantine)
    assert timedelta(minutes=4) < row.ends - row.created < timedelta(minutes=6)


def test_what_was_only_reserved_is_free_at_once(ground, alice):
    ip = ground.rows(PublicIp)[0]
    alice("reserveIpAddress", id=ip.uuid)
    alice("releaseIpAddress", id=ip.uuid)
    assert ground.cloud("listQuarantinedIps") == {}


def test_a_range_goes_with_its_quarantines(ground, alice, freed):
    network = ground.rows(PublicIp, PublicIp.uuid == freed["ip"])[0]
    range_id = ground.cloud("listVlanIpRanges")["vlaniprange"][0]["id"]
    assert network.state == "Free"
    ground.cloud("deleteVlanIpRange", id=range_id)
    assert not ground.rows(IpQuarantine)
