"""Domains: the tree, its names, and who sees which part of it."""

from __future__ import annotations

import pytest
from sqlalchemy import event

from controlplane.errors import ApiError, BadParameter, Forbidden, InUse, Unauthenticated
from controlplane.identity import limits
from controlplane.identity.accounts import Account
from tests.api.people import Company, done


@pytest.fixture
def company(cloud):
    return Company(cloud)


def names(answer):
    return [domain["name"] for domain in answer.get("domain", [])]


def test_a_domain_knows_its_place(cloud, company):
    east = cloud("listDomains", id=company.domain("east"))["domain"][0]
    assert east["path"] == "ROOT/sales/east"
    assert east["level"] == 2
    assert east["parentdomainname"] == "sales"
    assert east["parentdomainid"] == company.domain("sales")
    assert not east["haschild"]
    assert east["state"] == "Active"
    assert cloud("listDomains", name="sales")["domain"][0]["haschild"]
    assert (east["vmlimit"], east["vmtotal"], east["vmavailable"]) == ("40", 0, "40")
    assert cloud("listDomains", level=0)["domain"][0]["vmlimit"] == "Unlimited"


def test_a_domain_takes_the_id_and_dns_domain_it_is_given(cloud):
    wanted = "123e4567-e89b-42d3-a456-426614174000"
    made = cloud("createDomain", name="given", domainid=wanted, networkdomain="Given.Example")["domain"]
    assert (made["id"], made["networkdomain"]) == (wanted, "given.example")
    with pytest.raises(BadParameter, match="another domain has this id"):
        cloud("createDomain", name="other", domainid=wanted)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"name": "a/b"}, "separates the domains"),
        ({"name": "a\nb"}, "control characters"),
        ({"name": " a"}, "begin or end with a blank"),
        ({"name": "a", "networkdomain": 'x"\nserver=1'}, "must be a domain name"),
        ({"name": "a", "domainid": "no-uuid"}, "must be a UUID"),
    ],
)
def test_a_bad_name_is_refused(cloud, parameters, words):
    with pytest.raises(BadParameter, match=words):
        cloud("createDomain", **parameters)


def test_two_children_cannot_have_one_name(cloud, company):
    with pytest.raises(BadParameter, match="ROOT already has a domain of this name"):
        cloud("createDomain", name="sales", parentdomainid=company.domain("ROOT")) if company.domain("sales") else None
    cloud("createDomain", name="sales", parentdomainid=company.domain("sales"))


def test_renaming_rewrites_the_paths_below(cloud, company):
    company.domain("east")
    renamed = cloud("updateDomain", id=company.domain("sales"), name="trade", networkdomain="trade.example")["domain"]
    assert (renamed["path"], renamed["networkdomain"]) == ("ROOT/trade", "trade.example")
    assert cloud("listDomains", id=company.domain("east"))["domain"][0]["path"] == "ROOT/trade/east"
    assert "networkdomain" not in cloud("updateDomain", id=company.domain("sales"), networkdomain="")["domain"]
    with pytest.raises(BadParameter, match="ROOT domain cannot be renamed"):
        cloud("updateDomain", id=company.domain("ROOT"), name="TOP")


def test_who_sees_which_domains(cloud, company):
    company.domain("east")
    company.domain("labs")
    assert names(cloud("listDomains")) == ["ROOT", "labs", "sales", "east"]
    sally = company("sally")
    assert names(sally("listDomains")) == ["sales"]
    assert names(sally("listDomains", listall=True)) == ["sales", "east"]
    assert names(company("sam")("listDomains", listall=True)) == ["sales"]
    with pytest.raises(BadParameter, match="not yours to use"):
        sally("listDomains", id=company.domain("labs"))
    with pytest.raises(BadParameter, match="not yours to use"):
        sally("updateDomain", id=company.domain("labs"), name="mine")
    with pytest.raises(Unauthenticated):
        company("sam")("createDomain", name="mine")


def test_children(cloud, company):
    company.domain("east")
    assert names(cloud("listDomainChildren")) == ["sales"]
    assert names(cloud("listDomainChildren", isrecursive=True)) == ["sales", "east"]
    assert names(cloud("listDomainChildren", id=company.domain("sales"))) == ["east"]
    assert cloud("listDomainChildren", id=company.domain("east")) == {}
    assert names(company("sally")("listDomainChildren", listall=True)) == ["east"]


def test_a_domain_admin_makes_domains_in_its_tree_only(company):
    made = company("sally")("createDomain", name="west")["domain"]
    assert made["path"] == "ROOT/sales/west"
    with pytest.raises(BadParameter, match="not yours to use"):
        company("sally")("createDomain", name="west", parentdomainid=company.domain("labs"))


def test_moving_takes_the_counts_along(cloud, company):
    account = company.account("eve")["id"]
    with cloud.database.write() as session:
        number = session.query(Account).filter_by(uuid=account).one().id
        limits.take(session, number, "network", 3)

    def count(name):
        return cloud("listDomains", id=company.domain(name))["domain"][0]["networktotal"]

    assert (count("sales"), count("labs"), count("ROOT")) == (3, 0, 3)
    moved = cloud("moveDomain", domainid=company.domain("east"), parentdomainid=company.domain("labs"))["domain"]
    assert moved["path"] == "ROOT/labs/east"
    assert (count("sales"), count("labs"), count("ROOT"), count("east")) == (0, 3, 3, 3)
    with cloud.database.write() as session:
        limits.give_back(session, number, "network", 3)
    assert (count("labs"), count("ROOT"), count("east")) == (0, 0, 0)
    with pytest.raises(BadParameter, match="itself or below it"):
        cloud("moveDomain", domainid=company.domain("labs"), parentdomainid=company.domain("east"))


def test_a_move_that_breaks_a_limit_changes_nothing(cloud, company):
    account = company.account("eve")["id"]
    with cloud.database.write() as session:
        limits.take(session, session.query(Account).filter_by(uuid=account).one().id, "network", 3)
    cloud("updateResourceLimit", domainid=company.domain("labs"), resourcetype=6, max=2)
    with pytest.raises(BadParameter, match="would have 3 of network, and 2 are allowed"):
        cloud("moveDomain", domainid=company.domain("east"), parentdomainid=company.domain("labs"))
    assert cloud("listDomains", id=company.domain("east"))["domain"][0]["path"] == "ROOT/sales/east"


def test_deleting(cloud, company):
    company.account("eve")
    sales = company.domain("sales")
    with pytest.raises(InUse, match="1 domains below it and 1 accounts"):
        cloud("deleteDomain", id=sales)
    with pytest.raises(BadParameter, match="ROOT domain can never be deleted"):
        cloud("deleteDomain", id=company.domain("ROOT"), cleanup=True)
    with pytest.raises(Forbidden, match="You are in this domain"):
        company("sally")("deleteDomain", id=sales, cleanup=True)
    job = done(cloud, cloud("deleteDomain", id=sales, cleanup=True))
    assert (job["jobstatus"], job["jobresult"]) == (1, {"success": True})
    assert names(cloud("listDomains")) == ["ROOT"]
    assert [account["name"] for account in cloud("listAccounts", listall=True)["account"]] == ["admin"]
    assert cloud("createDomain", name="sales")["domain"]["path"] == "ROOT/sales"


def test_an_empty_domain_goes_without_cleanup(cloud, company):
    job = done(cloud, cloud("deleteDomain", id=company.domain("labs")))
    assert job["jobstatus"] == 1
    with pytest.raises(ApiError):
        cloud("listDomains", id=company.domain("labs"))


def test_a_domain_that_goes_takes_nothing_in(cloud, company):
    labs = company.domain("labs")
    with cloud.database.write() as session:
        session.execute(
            Account.metadata.tables["domains"]
            .update()
            .where(Account.metadata.tables["domains"].c.uuid == labs)
            .values(state="Inactive")
        )
    with pytest.raises(Forbidden, match="being deleted"):
        cloud("createDomain", name="late", parentdomainid=labs)
    with pytest.raises(Forbidden, match="being deleted"):
        company.account("larry")


@pytest.mark.parametrize("command", ["listDomains", "listAccounts", "listUsers", "listRoles", "listEvents", "listTags"])
def test_the_queries_of_a_list_do_not_grow_with_its_rows(cloud, company, command):
    statements = []
    event.listen(cloud.database.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))

    def queries():
        statements.clear()
        cloud(command, **({} if command in ("listDomains", "listRoles") else {"listall": True}))
        return len(statements)

    company.account("sam")
    tag(cloud, company.account("sam")["id"])
    few = queries()
    for name in ("sally", "eve", "larry"):
        tag(cloud, company.account(name)["id"])
        cloud("createRole", name=name, type="User")
    assert queries() <= few


def tag(cloud, account):
    cloud.raw(
        {
            "command": "createTags",
            "resourcetype": "account",
            "resourceids": account,
            "tags[0].key": "a",
            "tags[0].value": "b",
        }
    )
