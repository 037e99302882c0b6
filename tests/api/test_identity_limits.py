"""Limits and counts: exact, also when many ask at once, and put right from the rows."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import event, select

from controlplane.errors import BadParameter, Forbidden, LimitReached, Unauthenticated
from controlplane.identity import limits
from controlplane.identity.accounts import Account
from controlplane.identity.tags import ResourceTag
from tests.api.people import Company


@pytest.fixture
def company(cloud):
    return Company(cloud)


def number(cloud, name):
    with cloud.database.read() as session:
        return session.scalars(select(Account.id).where(Account.name == name, Account.removed.is_(None))).one()


def take(cloud, account, kind, amount=1):
    with cloud.database.write() as session:
        limits.take(session, account, kind, amount)


def shown(cloud, **where):
    return {row["resourcetypename"]: row["max"] for row in cloud("listResourceLimits", **where)["resourcelimit"]}


def test_parallel_creates_end_exactly_at_the_limit(cloud, company):
    company.account("sam")
    company.account("sid")
    cloud("updateResourceLimit", account="sam", domainid=company.domain("sales"), resourcetype=6, max=10)
    cloud("updateResourceLimit", domainid=company.domain("sales"), resourcetype=6, max=15)
    accounts = [number(cloud, "sam"), number(cloud, "sid")]
    got, refused, start = [], [], threading.Barrier(8)

    def ask(worker):
        start.wait()
        for _ in range(10):
            try:
                take(cloud, accounts[worker % 2], "network")
                got.append(accounts[worker % 2])
            except LimitReached as error:
                refused.append(error.text)

    threads = [threading.Thread(target=ask, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 15
    assert len(refused) == 80 - 15
    assert got.count(accounts[0]) <= 10
    sales = cloud("listDomains", id=company.domain("sales"))["domain"][0]
    assert (sales["networktotal"], sales["networkavailable"]) == (15, "0")
    totals = {row["name"]: row["networktotal"] for row in cloud("listAccounts", listall=True)["account"]}
    assert totals == {"admin": 0, "sam": got.count(accounts[0]), "sid": got.count(accounts[1])}
    assert (
        f"Maximum domain resource limits of Type 'network' for Domain Id = {company.domain('sales')} is exceeded: Domain "
        "Resource Limit = 15, Current Domain Resource Amount = 15, Requested Resource Amount = 1. Remove what ROOT/sales "
        "no longer needs, or have an admin raise the limit (updateResourceLimit)."
    ) in refused
    with cloud.database.write() as session:
        limits.give_back(session, accounts[0], "network")
    take(cloud, accounts[1], "network") if got.count(accounts[1]) < 20 else None
    assert cloud("listDomains", id=company.domain("sales"))["domain"][0]["networktotal"] == 15


def test_a_refusal_counts_nothing(cloud, company):
    company.account("sam")
    cloud("updateResourceLimit", account="sam", domainid=company.domain("sales"), resourcetype=9, max=100)
    with pytest.raises(LimitReached) as caught:
        take(cloud, number(cloud, "sam"), "memory", 101)
    assert caught.value.text.startswith(
        "Maximum amount of resources of Type = 'memory' for Account Name = sam in Domain Id = "
        f"{company.domain('sales')} is exceeded: Account Resource Limit = 100, Current Account Resource Amount = 0, "
        "Requested Resource Amount = 101."
    )
    account = cloud("listAccounts", name="sam", listall=True)["account"][0]
    assert (account["memorytotal"], account["memorylimit"], account["memoryavailable"]) == (0, "100", "100")


def test_storage_is_limited_in_gib(cloud, company):
    company.account("sam")
    cloud("updateResourceLimit", account="sam", domainid=company.domain("sales"), resourcetype=10, max=3)
    take(cloud, number(cloud, "sam"), "primary_storage", 2 << 30)
    with pytest.raises(LimitReached, match=r"Limit = \(3\.00 GB\) 3221225472, Current .* = \(2\.00 GB\) 2147483648,"):
        take(cloud, number(cloud, "sam"), "primary_storage", (1 << 30) + 1)
    account = cloud("listAccounts", name="sam", listall=True)["account"][0]
    assert (account["primarystoragetotal"], account["primarystoragelimit"], account["primarystorageavailable"]) == (
        2,
        "3",
        "1",
    )
    with cloud.database.read() as session:
        assert limits.limit_of(session, "Account", number(cloud, "sam"), "primary_storage") == 3 << 30


def test_what_limits_there_are(cloud, company):
    company.account("sam")
    sales = company.domain("sales")
    assert set(shown(cloud)) == set(limits.KINDS)
    assert set(shown(cloud).values()) == {-1}, "root admins are not limited"
    assert shown(cloud, account="sam", domainid=sales)["user_vm"] == 20
    assert shown(cloud, domainid=sales)["user_vm"] == 40
    cloud("updateConfiguration", name="max.account.user.vms", value=7)
    sam = company("sam")
    assert shown(sam)["user_vm"] == 7
    assert shown(sam, resourcetype=0) == {"user_vm": 7}
    assert shown(sam, keyword="storage") == {"primary_storage": 200, "secondary_storage": 400}
    assert shown(sam, resourcetypename="vpc") == {"vpc": 20}
    assert cloud("listResourceLimits", page=2, pagesize=5)["count"] == 12
    domains = {row["domain"] for row in cloud("listResourceLimits", listall=True)["resourcelimit"]}
    assert domains == {"ROOT", "sales"}
    company.account("larry")
    for parameters in ({"account": "larry", "domainid": company.domain("labs")}, {"domainid": company.domain("labs")}):
        with pytest.raises(BadParameter, match="not yours to use"):
            sam("listResourceLimits", **parameters)
    with pytest.raises(BadParameter, match="no such account"):
        sam("listResourceLimits", account="sally")
    assert cloud("listResourceLimits", resourcetype=0)["resourcelimit"][0]["resourcetype"] == "0"


def test_who_sets_limits(cloud, company):
    sales, sally = company.domain("sales"), company("sally")
    company.account("sam")
    with pytest.raises(Unauthenticated):
        company("sam")("updateResourceLimit", account="sam", resourcetype=0, max=5)
    made = sally("updateResourceLimit", account="sam", domainid=sales, resourcetype=0, max=5)["resourcelimit"]
    assert (made["account"], made["max"], made["resourcetypename"], made["domainpath"]) == (
        "sam",
        5,
        "user_vm",
        "ROOT/sales",
    )
    with pytest.raises(Forbidden, match="your own domain"):
        sally("updateResourceLimit", domainid=sales, resourcetype=0, max=500)
    with pytest.raises(Forbidden, match="your own limits"):
        sally("updateResourceLimit", account="sally", domainid=sales, resourcetype=0, max=500)
    with pytest.raises(BadParameter, match="domain ROOT/sales above may have 40"):
        sally("updateResourceLimit", account="sam", domainid=sales, resourcetype=0, max=41)
    with pytest.raises(BadParameter, match="domain ROOT/sales above may have 40"):
        sally("updateResourceLimit", domainid=company.domain("east"), resourcetype=0, max=41)
    for parameters, words in (
        ({"resourcetype": 0, "max": 5}, "give domainid for a domain"),
        ({"resourcetype": 99, "domainid": sales}, "one of 0 user_vm"),
        ({"resourcetype": 0, "domainid": sales, "max": -2}, "-1 for any amount"),
        ({"resourcetype": 0, "domainid": sales, "max": "many"}, "whole number"),
    ):
        with pytest.raises(BadParameter, match=words):
            cloud("updateResourceLimit", **parameters)
    assert cloud("updateResourceLimit", domainid=sales, resourcetype=0)["resourcelimit"]["max"] == -1


def test_counting_again(cloud, company, monkeypatch):
    monkeypatch.setattr(limits, "_counters", {})
    account, east = company.account("sam"), company.account("eve")
    limits.counted_by("snapshot", limits.rows_of(ResourceTag, ResourceTag.key == "s"))
    with pytest.raises(AssertionError, match="counted by two rooms"):
        limits.counted_by("snapshot", limits.rows_of(ResourceTag))
    for row, keys in ((account, ("s",)), (east, ("s", "t"))):
        for key in keys:
            cloud.raw(
                {"command": "createTags", "resourcetype": "Account", "resourceids": row["id"], "tags[0].key": key}
            )
    take(cloud, number(cloud, "sam"), "snapshot", 9)
    take(cloud, number(cloud, "sam"), "vpc", 4)

    def counts(**where):
        answer = cloud("updateResourceCount", **where)
        return {row["resourcetypename"]: row["resourcecount"] for row in answer["resourcecount"]}

    sales = company.domain("sales")
    assert counts(domainid=sales, account="sam", resourcetype=3) == {"snapshot": 1}
    assert counts(domainid=sales)["snapshot"] == 2
    assert counts(domainid=sales)["vpc"] == 4, "a kind that no room counts keeps its count"
    with pytest.raises(BadParameter, match="not yours to use"):
        company("laura")("updateResourceCount", domainid=sales)


def test_taking_costs_the_same_at_any_depth(cloud, company):
    company.account("sam")
    company.account("eve")
    statements = []
    event.listen(cloud.database.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))

    def queries(name):
        account = number(cloud, name)
        take(cloud, account, "network")
        statements.clear()
        take(cloud, account, "network")
        return len(statements)

    assert queries("eve") - queries("sam") <= 1  # one more row is written
