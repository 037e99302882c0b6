"""Users, passwords and keys: who may do what to whom, and that no secret is ever shown where it should not be."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from controlplane.errors import ApiError, BadParameter, Forbidden
from controlplane.identity.sessions import LoginSession, password_fits
from controlplane.identity.users import User
from controlplane.work.jobs import Job
from tests.api.people import PASSWORD, PEOPLE, Company, done, hire


@pytest.fixture
def company(cloud):
    return Company(cloud)


def names(answer):
    return sorted(user["username"] for user in answer.get("user", []))


def row(cloud, name):
    with cloud.database.read() as session:
        return session.scalars(select(User).where(User.username == name)).one()


REACH = {
    "admin": {"admin", *PEOPLE},
    "rita": {"rita", "sally", "sam", "eve", "laura", "larry"},
    "sally": {"sally", "sam", "eve"},
    "sam": {"sam"},
    "eve": {"eve"},
    "laura": {"laura", "larry"},
}
"""Whose users and keys each may touch: the golden matrix. Rita, in ROOT, sees admin and still may not touch it."""
TARGETS = ("admin", "rita", "sally", "sam", "eve", "laura", "larry")
COMMANDS = (
    ("getUserKeys", {}),
    ("registerUserKeys", {}),
    ("updateUser", {"lastname": "Changed"}),
    ("updateUser", {"password": "another password", "currentpassword": "another password"}),
    ("updateUser", {"password": "another password"}),
    ("disableUser", {}),
    ("lockUser", {}),
    ("enableUser", {}),
    ("deleteUser", {}),
)


def test_who_may_touch_whom(cloud, company):
    ids = {name: company.user(name)["id"] for name in TARGETS if name != "admin"}
    ids["admin"] = cloud("listUsers")["user"][0]["id"]
    before = {name: (row(cloud, name).password, row(cloud, name).api_key, row(cloud, name).state) for name in TARGETS}
    for caller_name, reach in REACH.items():
        caller = cloud.as_user(caller_name)
        for target in set(TARGETS) - reach:
            for command, more in COMMANDS:
                with pytest.raises(ApiError):
                    caller(command, id=ids[target], **more)
        shown = {user["username"] for user in caller("listUsers", listall=True)["user"]}
        assert reach & set(TARGETS) <= shown
    after = {name: (row(cloud, name).password, row(cloud, name).api_key, row(cloud, name).state) for name in TARGETS}
    assert after == before
    for caller_name, reach in REACH.items():
        caller = cloud.as_user(caller_name)
        for target in reach & set(TARGETS):
            keys = caller("registerUserKeys", id=ids[target])["userkeys"]
            assert caller("getUserKeys", id=ids[target])["userkeys"] == keys
            assert caller("updateUser", id=ids[target], lastname=caller_name)["user"]["lastname"] == caller_name


def test_api_keys_are_seen_by_those_who_stand_above_only(cloud, company):
    for name in ("rita", "sally", "sam"):
        cloud("registerUserKeys", id=company.user(name)["id"])
    cloud("registerUserKeys", id=cloud("listUsers")["user"][0]["id"])

    def seen(caller):
        return {user["username"] for user in caller("listUsers", listall=True)["user"] if "apikey" in user}

    assert seen(cloud) == {"admin", "rita", "sally", "sam"}
    assert seen(company("rita")) == {"rita", "sally", "sam"}
    assert seen(company("sally")) == {"sally", "sam"}
    assert seen(company("sam")) == {"sam"}
    accounts = company("rita")("listAccounts", listall=True)["account"]
    assert "apikey" not in next(account for account in accounts if account["name"] == "admin")["user"][0]


def test_a_secret_is_shown_once_and_nowhere_else(cloud, company):
    sam = company.user("sam")["id"]
    keys = cloud("registerUserKeys", id=sam)["userkeys"]
    assert len(keys["apikey"]) >= 64
    assert len(keys["secretkey"]) >= 64
    again = cloud("registerUserKeys", id=sam)["userkeys"]
    assert not set(keys.values()) & set(again.values())
    cloud("updateUser", id=sam, password="canary password 1")
    done(cloud, cloud("disableUser", id=sam))
    canaries = (again["secretkey"], keys["secretkey"], "canary password 1", PASSWORD)
    shown = [
        cloud(command, listall=True)
        for command in ("listUsers", "listAccounts", "listEvents", "listAsyncJobs", "listDomains", "listTags")
    ]
    shown += [cloud("getUser", userapikey=again["apikey"]), cloud("listUsers", id=sam)]
    with cloud.database.read() as session:
        shown += [[job.parameters, job.result] for job in session.scalars(select(Job))]
        raw = session.connection().exec_driver_sql("SELECT * FROM users").all()
    text = json.dumps(shown, default=str) + str(raw)
    assert not [canary for canary in canaries if canary in text]


def test_keys_of_ones_own_making(cloud, company):
    sam, sid = company.user("sam")["id"], company.user("sid")["id"]
    good = {"userapikey": "k" * 40, "usersecretkey": "s" * 40}
    assert cloud("updateUser", id=sam, **good)["user"]["apikey"] == "k" * 40
    for keys, words in (
        ({"userapikey": "k" * 40}, "go together"),
        ({"userapikey": "short", "usersecretkey": "s" * 40}, "32 to 255"),
        (good, "another user has this key"),
    ):
        with pytest.raises(BadParameter, match=words):
            cloud("updateUser", id=sid, **keys)
    with pytest.raises(BadParameter, match="only be given by a root admin"):
        company("sam")("updateUser", id=sam, **good)


def test_changing_ones_password(cloud, company):
    sam = company("sam")
    number = company.user("sam")["id"]
    with pytest.raises(BadParameter, match="currentpassword: it is needed"):
        sam("updateUser", id=number, password="another password")
    with pytest.raises(BadParameter, match="currentpassword: it is not the user's"):
        sam("updateUser", id=number, password="another password", currentpassword="wrong")
    with cloud.database.write() as session:
        session.add(LoginSession(token="t", key="k", user_id=row(cloud, "sam").id))
    sam("updateUser", id=number, password="another password", currentpassword=PASSWORD)
    assert password_fits(row(cloud, "sam"), "another password")
    with cloud.database.read() as session:
        assert session.query(LoginSession).count() == 0, "the sessions of the old password have ended"


def test_the_password_policy(cloud, company):
    sales = company.domain("sales")
    number = company.user("sam")["id"]
    policy = {
        "password.policy.minimum.length": 12,
        "password.policy.minimum.uppercase.letters": 1,
        "password.policy.minimum.digits": 2,
        "password.policy.minimum.special.characters": 1,
        "password.policy.allowPasswordToContainUsername": "false",
    }
    for name, value in policy.items():
        cloud("updateConfiguration", name=name, value=value, domainid=sales)
    with pytest.raises(BadParameter) as refused:
        cloud("updateUser", id=number, password="samuel")
    for words in ("12 characters", "1 uppercase", "2 digits", "1 special", "user's name"):
        assert words in refused.value.text
    assert "samuel" not in refused.value.text
    cloud("updateUser", id=number, password="Correct-horse-42")
    cloud("updateConfiguration", name="password.policy.regex", value="[a-z ]+", domainid=sales)
    with pytest.raises(BadParameter, match=r"password\.policy\.regex"):
        cloud("updateUser", id=number, password="Correct-horse-42")
    cloud("updateConfiguration", name="password.policy.regex", value="[", domainid=sales)
    with pytest.raises(BadParameter, match="is no regular expression"):
        cloud("updateUser", id=number, password="Correct-horse-42")
    hire(cloud, "larry", company.domain("labs"))  # another domain has its own policy


def test_users_of_an_account(cloud, company):
    company.account("sam")
    sally = company("sally")
    fields = {"password": PASSWORD, "firstname": "S", "lastname": "D", "email": "s@example.org"}
    made = sally("createUser", account="sam", username="sam2", timezone="UTC", **fields)["user"]
    assert (made["account"], made["roletype"], made["state"], made["domain"]) == ("sam", "User", "enabled", "sales")
    for parameters, words in (
        ({"account": "sam", "username": "sam2"}, "already has a user of this name"),
        ({"account": "nobody", "username": "x"}, "no such account"),
        ({"account": "sam", "username": "x\ty"}, "control characters"),
        ({"account": "sam", "username": "x", "password": "short"}, "at least 8 characters"),
    ):
        with pytest.raises(BadParameter, match=words):
            sally("createUser", **(fields | parameters))
    assert names(company("sam")("listUsers", listall=True)) == ["sam"], "users see themselves only"
    with pytest.raises(Forbidden, match="Only an admin may see other users"):
        company("sam")("listUsers", id=made["id"])
    with pytest.raises(Forbidden, match="Only an admin"):
        company("sam")("updateUser", id=made["id"], lastname="x")
    assert names(cloud("listUsers", account="sam", domainid=company.domain("sales"))) == ["sam", "sam2"]
    assert names(cloud("listUsers", listall=True, accounttype=2)) == ["sally"]
    assert names(sally("listUsers", listall=True, username="SAM2")) == ["sam2"]
    assert sally("listUsers", listall=True, usersource="ldap") == {}
    done(cloud, sally("disableUser", id=made["id"]))
    assert names(cloud("listUsers", listall=True, state="disabled")) == ["sam2"]
    assert sally("lockUser", id=made["id"])["user"]["state"] == "locked"
    assert sally("enableUser", id=made["id"])["user"]["state"] == "enabled"
    with pytest.raises(BadParameter, match="by yourself"):
        sally("deleteUser", id=company.user("sally")["id"])
    company.account("sid")
    cloud("moveUser", id=made["id"], account="sid")
    assert cloud("listUsers", id=made["id"])["user"][0]["account"] == "sid"
    with pytest.raises(BadParameter, match="must be an account of the user's domain"):
        cloud("moveUser", id=made["id"], accountid=company.account("larry")["id"])
    assert sally("deleteUser", id=made["id"]) == {"success": True}
    assert sally("createUser", account="sam", username="sam2", **fields)["user"]["id"] != made["id"]


def test_finding_a_user_by_its_key(cloud, company):
    keys = cloud("registerUserKeys", id=company.user("sam")["id"])["userkeys"]
    assert cloud("getUser", userapikey=keys["apikey"])["user"]["username"] == "sam"
    with pytest.raises(BadParameter, match="no user has this key"):
        cloud("getUser", userapikey="unknown")
