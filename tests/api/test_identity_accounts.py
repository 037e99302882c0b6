"""Accounts: how they are made, changed, shut out and deleted, with all that they own."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.db.base import now
from controlplane.errors import ApiError, BadParameter, Forbidden, InUse, Unauthenticated
from controlplane.identity import limits, ownership
from controlplane.identity.accounts import Account
from controlplane.identity.tags import ResourceTag
from controlplane.identity.users import User
from controlplane.reconcile.targets import Target
from tests.api.people import PASSWORD, Company, done, hire


@pytest.fixture
def company(cloud):
    return Company(cloud)


@pytest.fixture
def rooms(monkeypatch):
    """Rooms of the test's own, beside the real ones."""
    monkeypatch.setattr(ownership, "REMOVERS", {stage: list(known) for stage, known in ownership.REMOVERS.items()})
    monkeypatch.setattr(ownership, "STOPPERS", list(ownership.STOPPERS))
    monkeypatch.setattr(ownership, "OBJECTIONS", list(ownership.OBJECTIONS))


def names(answer):
    return sorted(account["name"] for account in answer.get("account", []))


def test_an_account_as_it_is_made(cloud, company):
    made = cloud.raw(
        {
            "command": "createAccount",
            "account": "Acme",
            "username": "alice",
            "password": PASSWORD,
            "firstname": "Alice",
            "lastname": "Doe",
            "email": "alice@example.org",
            "accounttype": "0",
            "domainid": company.domain("sales"),
            "networkdomain": "acme.example",
            "timezone": "Europe/Berlin",
            "accountid": "123e4567-e89b-42d3-a456-426614174000",
            "userid": "123e4567-e89b-42d3-a456-426614174001",
            "accountdetails[0].key": "plan",
            "accountdetails[0].value": "gold",
        }
    )["account"]
    assert made["id"] == "123e4567-e89b-42d3-a456-426614174000"
    assert (made["name"], made["domainpath"], made["networkdomain"]) == ("Acme", "ROOT/sales", "acme.example")
    assert (made["accounttype"], made["roletype"], made["rolename"], made["state"]) == (0, "User", "User", "enabled")
    assert made["accountdetails"] == {"plan": "gold"}
    assert (made["vmlimit"], made["vmtotal"], made["vmavailable"], made["vmrunning"]) == ("20", 0, "20", 0)
    assert (made["primarystoragelimit"], made["primarystoragetotal"]) == ("200", 0)
    (user,) = made["user"]
    assert user["id"] == "123e4567-e89b-42d3-a456-426614174001"
    assert (user["username"], user["timezone"], user["account"]) == ("alice", "Europe/Berlin", "Acme")
    assert PASSWORD not in str(made)
    with cloud.database.read() as session:
        assert session.scalars(select(User.password).where(User.username == "alice")).one().startswith("$argon2id$")
    for parameters, words in (
        ({"accounttype": 0}, "already has an account of this name"),
        ({"accounttype": 0, "account": "ACME"}, "already has an account of this name"),
        ({"accounttype": 0, "account": "other"}, "already has a user of this name"),
        ({"accounttype": 0, "account": "a\nb"}, "control characters"),
        ({"accounttype": 7, "account": "other"}, "0 is a user"),
        ({"account": "other"}, "give roleid, or accounttype"),
        ({"accounttype": 0, "account": "other", "timezone": "Mars/Base"}, "must name a time zone"),
        ({"accounttype": 0, "account": "other", "networkdomain": "a b"}, "must be a domain name"),
        ({"accounttype": 0, "account": "other", "accountid": made["id"]}, "another account has this id"),
    ):
        rest = {"password": PASSWORD, "firstname": "A", "lastname": "B", "email": "c", "username": "alice"}
        rest["account"] = "Acme"
        with pytest.raises(BadParameter, match=words):
            cloud("createAccount", domainid=company.domain("sales"), **(rest | parameters))


def test_whose_accounts_are_listed(cloud, company):
    for name in ("sam", "eve", "larry"):
        company.account(name)
    assert names(cloud("listAccounts")) == ["admin"]
    assert names(cloud("listAccounts", listall=True)) == ["admin", "eve", "larry", "sam"]
    assert names(cloud("listAccounts", domainid=company.domain("sales"))) == ["sam"]
    assert names(cloud("listAccounts", domainid=company.domain("sales"), isrecursive=True)) == ["eve", "sam"]
    assert names(cloud("listAccounts", listall=True, keyword="A")) == ["admin", "larry", "sam"]
    assert names(cloud("listAccounts", listall=True, accounttype=1)) == ["admin"]
    sally, sam = company("sally"), company("sam")
    assert names(sally("listAccounts")) == ["sally"]
    assert names(sally("listAccounts", listall=True)) == ["eve", "sally", "sam"]
    assert names(sam("listAccounts", listall=True)) == ["sam"]
    for foreign in ({"id": company.account("larry")["id"]}, {"domainid": company.domain("labs")}):
        for caller in (sally, sam):
            with pytest.raises(BadParameter, match="not yours to use"):
                caller("listAccounts", **foreign)
    with pytest.raises(Unauthenticated):
        hire(sam, "spy", company.domain("sales"))
    cloud("lockAccount", account="sam", domainid=company.domain("sales"))
    assert names(cloud("listAccounts", listall=True, state="locked")) == ["sam"]


def test_nobody_gives_more_than_they_have(cloud, company):
    sally, rita = company("sally"), company("rita")
    for caller, domain in ((sally, "sales"), (rita, "ROOT")):
        for kind in (1, 3):
            with pytest.raises(ApiError, match=r"not yours to use|allows more than your own"):
                hire(caller, "climber", company.domain(domain), kind)
    assert hire(sally, "steve", company.domain("sales"), 2)["roletype"] == "DomainAdmin"
    wide = cloud("createRole", name="wide", type="User")["role"]["id"]
    cloud("createRolePermission", roleid=wide, rule="createZone", permission="allow")
    cloud("createRolePermission", roleid=wide, rule="updateConfiguration", permission="allow")
    steve = cloud("listAccounts", name="steve", listall=True)["account"][0]["id"]
    with pytest.raises(Forbidden, match="Role wide allows more than your own"):
        hire(sally, "climber", company.domain("sales"), roleid=wide)
    with pytest.raises(Forbidden, match="Role wide allows more than your own"):
        sally("updateAccount", id=steve, roleid=wide)
    assert cloud("updateAccount", id=steve, roleid=wide)["account"]["rolename"] == "wide"
    with pytest.raises(Forbidden, match="Role wide allows more than your own"):
        sally("disableAccount", id=steve, lock=False)
    with pytest.raises(BadParameter, match="Your own account cannot be given another role"):
        sally(
            "updateAccount", id=company.account("sally")["id"], roleid=cloud("listRoles", name="User")["role"][0]["id"]
        )


def test_changing_an_account(cloud, company):
    sam = company.account("sam")["id"]
    company.account("sid")
    changed = cloud(
        "updateAccount", account="SAM", domainid=company.domain("sales"), newname="sammy", networkdomain="s.example"
    )
    assert (changed["account"]["name"], changed["account"]["networkdomain"]) == ("sammy", "s.example")
    assert "networkdomain" not in cloud("updateAccount", id=sam, networkdomain="")["account"]
    for parameters, words in (
        ({"id": sam, "newname": "SID"}, "already has an account"),
        ({"newname": "x"}, "give either id, or account"),
        ({"id": sam, "account": "sammy"}, "give either id, or account"),
        ({"id": cloud("listAccounts")["account"][0]["id"], "newname": "root"}, "default one"),
    ):
        with pytest.raises(BadParameter, match=words):
            cloud("updateAccount", **parameters)


def test_the_defaults_are_protected(cloud, company):
    admin = cloud("listAccounts")["account"][0]
    with cloud.database.read() as session:
        system = session.scalars(select(Account.uuid).where(Account.name == "system")).one()
        system_user = session.scalars(select(User.uuid).where(User.username == "system")).one()
    boss = hire(cloud, "boss", company.domain("ROOT"), 1)
    other = cloud.as_user(boss["name"])
    for command, more in (
        ("deleteAccount", {}),
        ("disableAccount", {"lock": False}),
        ("disableAccount", {"lock": True}),
    ):
        with pytest.raises(BadParameter, match="Account admin is a default one"):
            other(command, id=admin["id"], **more)
        with pytest.raises(Forbidden, match="system account"):
            other(command, id=system, **more)
    for command in ("deleteUser", "disableUser", "lockUser"):
        with pytest.raises(BadParameter, match="User admin is a default one"):
            other(command, id=admin["user"][0]["id"])
        with pytest.raises(Forbidden, match="system account"):
            other(command, id=system_user)
    with pytest.raises(Forbidden, match="system account"):
        other("registerUserKeys", id=system_user)
    with pytest.raises(BadParameter, match="Your own account cannot be disabled"):
        other("disableAccount", id=boss["id"], lock=False)
    assert cloud("listAccounts", id=system) == {}
    assert "system" not in {user["username"] for user in cloud("listUsers", listall=True)["user"]}


def test_disabling_stops_what_runs_and_locking_does_not(cloud, company, rooms):
    stopped = []
    with cloud.database.write() as session:
        session.add(Target(kind="nothing", name="t"))
    ownership.on_account_disabled(
        lambda session, account: stopped.append(account.name) or [session.query(Target).one()]
    )
    sam = company.account("sam")["id"]
    locked = done(cloud, cloud("disableAccount", id=sam, lock=True))
    assert (locked["jobstatus"], locked["jobresult"]["account"]["state"], stopped) == (1, "locked", [])
    assert cloud("enableAccount", id=sam)["account"]["state"] == "enabled"
    reference = cloud("disableAccount", id=sam, lock=False)
    assert stopped == ["sam"]
    assert cloud("queryAsyncJobResult", jobid=reference["jobid"])["jobstatus"] == 0, "it waits for the target"
    with cloud.database.read() as session:
        assert session.query(Target).one().desired_generation == 2
    assert cloud("listAccounts", id=sam)["account"][0]["state"] == "disabled"


def test_deleting_takes_away_all_that_is_owned(cloud, company, rooms):
    account = company.account("sam")
    calls = []

    def number(session):
        return session.scalars(select(Account.id).where(Account.name == "sam")).one()

    with cloud.database.write() as session:
        limits.take(session, number(session), "network", 2)
    cloud("updateResourceLimit", account="sam", domainid=company.domain("sales"), resourcetype=6, max=9)
    cloud.raw({"command": "createTags", "resourcetype": "Account", "resourceids": account["id"], "tags[0].key": "k"})

    def forget(session, owner):
        calls.append("addresses")
        limits.give_back(session, owner.id, "network", 2)
        return []

    ownership.on_account_removed(forget, ownership.ADDRESSES)
    ownership.on_account_removed(lambda _session, _owner: calls.append("machines") or [], ownership.MACHINES)
    ownership.objects_to_removal(lambda _session, owner: ["it is loved"] if not calls and owner.name == "sam" else [])
    with pytest.raises(InUse, match="Account sam cannot be deleted: it is loved"):
        cloud("deleteAccount", id=account["id"])
    assert cloud("listAccounts", id=account["id"])["account"][0]["state"] == "enabled"
    calls.append("asked")
    job = done(cloud, cloud("deleteAccount", id=account["id"]))
    assert (job["jobstatus"], job["jobresult"]) == (1, {"success": True})
    assert calls == ["asked", "machines", "addresses"]
    assert names(cloud("listAccounts", listall=True)) == ["admin"]
    assert cloud("listUsers", listall=True)["count"] == 1
    with cloud.database.read() as session:
        assert session.query(ResourceTag).count() == 0
        assert session.query(limits.ResourceLimit).count() == 0
        assert session.query(limits.ResourceCount).filter_by(owner="Account").count() == 0
        gone = session.query(User).filter_by(username="sam").one()
        assert (gone.password, gone.api_key, gone.state) == ("!", None, "disabled")
    assert company.account("sam")["id"] != account["id"], "the name is free again"


def test_an_account_stays_while_something_is_left(cloud, company, rooms):
    account = company.account("sam")["id"]
    with cloud.database.write() as session:
        owner = session.scalars(select(Account).where(Account.name == "sam")).one()
        from controlplane.compute.virtual_machines import UserData
        from controlplane.network.security_group_changes import remove_groups_of

        session.add(UserData(name="left", data="", account_id=owner.id, domain_id=owner.domain_id))
    for stage in ownership.REMOVERS.values():
        stage[:] = [remover for remover in stage if remover is remove_groups_of]
    job = done(cloud, cloud("deleteAccount", id=account))
    assert job["jobstatus"] == 2
    assert "it still owns 1 user data" in job["jobresult"]["errortext"]
    shown = cloud("listAccounts", id=account)["account"][0]
    assert (shown["state"], shown["iscleanuprequired"]) == ("disabled", True)
    with pytest.raises(BadParameter, match="is being deleted"):
        cloud("enableAccount", id=account)
    with cloud.database.write() as session:
        session.query(UserData).one().removed = now()
    assert done(cloud, cloud("deleteAccount", id=account))["jobstatus"] == 1


def test_a_removal_survives_the_process(cloud, company, rooms):
    """A step that dies half-way is done again: what it wrote was undone, what was done before is not."""
    calls = []

    def fail_once(_session, _owner):
        calls.append("disks")
        if len(calls) == 1:
            raise InUse("the disk is busy")
        return []

    ownership.on_account_removed(fail_once, ownership.DISKS)
    account = company.account("sam")["id"]
    assert "the disk is busy" in done(cloud, cloud("deleteAccount", id=account))["jobresult"]["errortext"]
    assert done(cloud, cloud("deleteAccount", id=account))["jobstatus"] == 1
    assert calls == ["disks", "disks"]
