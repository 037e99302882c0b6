"""Sessions: login, logout, cookies and session keys, as browsers and CloudMonkey use them."""

from __future__ import annotations

import time
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import select, update

from controlplane.db.base import now
from controlplane.identity.accounts import Account
from controlplane.identity.seed import passwords
from controlplane.identity.sessions import LoginSession, password_fits
from controlplane.identity.users import User
from tests.serving import PASSWORD

ASK = {"command": "listCapabilities", "response": "json"}


def login(server, **parameters):
    sent = {"command": "login", "response": "json", "username": "admin", "password": PASSWORD} | parameters
    return httpx.post(server.url, data=sent, timeout=30)


def test_a_login_answers_as_clients_expect(server):
    answer = login(server)
    body = answer.json()["loginresponse"]
    key = body.pop("sessionkey")
    assert len(key) >= 32
    assert body | {"userid": 1, "domainid": 1} == {
        "username": "admin",
        "userid": 1,
        "domainid": 1,
        "timeout": 1800,
        "account": "admin",
        "firstname": "admin",
        "lastname": "cloud",
        "type": "1",
        "timezone": "UTC",
        "timezoneoffset": "0.0",
        "registered": "false",
        "is2faenabled": "false",
        "is2faverified": "true",
        "issuerfor2fa": "CloudStack",
    }
    assert answer.cookies["sessionkey"] == key
    assert answer.cookies["JSESSIONID"] not in (key, "")
    for header in answer.headers.get_list("set-cookie"):
        assert "HttpOnly" in header
        assert "Path=/client" in header
        assert "samesite=lax" in header.lower()
        assert "secure" not in header.lower()


def test_a_users_own_time_zone_is_told(server):
    body = login(server, username="alice").json()["loginresponse"]
    assert (body["type"], body["timezone"], body["timezoneoffset"]) == ("0", "Asia/Kolkata", "5.5")


@pytest.mark.parametrize("domain", ["", "/", "ROOT", "/ROOT/", "root"])
def test_the_domain_is_a_path(server, domain):
    assert login(server, domain=domain).status_code == 200


def test_the_domains_id_wins_over_its_path(server):
    uuid = login(server).json()["loginresponse"]["domainid"]
    assert login(server, domain="/nowhere", domainId=uuid).status_code == 200
    assert login(server, domainid="00000000-0000-0000-0000-000000000000").status_code == 531


@pytest.mark.parametrize(
    "change",
    [{"password": "wrong"}, {"username": "nobody"}, {"username": "system", "password": "!"}, {"domain": "/nowhere"}],
)
def test_a_wrong_login(server, change):
    answer = login(server, **change)
    assert answer.status_code == 531
    body = answer.json()["loginresponse"]
    assert list(body) == ["uuidList", "errorcode", "errortext"]
    assert PASSWORD not in answer.text
    assert not answer.cookies


def test_a_user_whose_password_is_being_guessed_is_disabled(server):
    for _ in range(4):
        assert login(server, username="alice", password="wrong").status_code == 531
    assert login(server, username="alice").status_code == 200  # the right one forgets the wrong ones
    for _ in range(5):
        assert login(server, username="alice", password="wrong").status_code == 531
    assert login(server, username="alice").status_code == 531
    with server.rows() as database, database.write() as session:
        user = session.scalars(select(User).where(User.username == "alice")).one()
        assert (user.state, user.login_attempts) == ("disabled", 5)
        user.state, user.login_attempts = "enabled", 0


def test_the_first_admin_is_only_made_to_wait(server):
    for _ in range(5):
        assert login(server, password="wrong").status_code == 531
    assert login(server).status_code == 531
    with server.rows() as database, database.write() as session:
        user = session.scalars(select(User).where(User.username == "admin", User.default)).one()
        assert user.state == "enabled"
        user.login_failed -= timedelta(minutes=2)
    assert login(server).status_code == 200


def test_an_unknown_user_takes_as_long_as_a_wrong_password():
    def work(user):
        spent = []
        for _ in range(5):
            begun = time.process_time()
            assert not password_fits(user, "wrong")
            spent.append(time.process_time() - begun)
        return min(spent)

    known = work(User(password=passwords.hash(PASSWORD)))
    assert known / 2 < work(None) < known * 2
    assert known / 2 < work(User(password="!")) < known * 2


def test_a_login_is_not_for_get(server):
    answer = httpx.get(server.url, params={"command": "login", "response": "json", "username": "admin"})
    assert answer.status_code == 405
    assert "loginresponse" in answer.json()
    assert httpx.post(server.url, data={"command": "login", "response": "json"}).status_code == 431


@pytest.mark.parametrize("shown", ["cookie", "parameter", "both", "body"])
def test_the_session_key_is_cookie_or_parameter(server, shown):
    with server.login() as browser:
        key = browser.cookies["sessionkey"]
        if shown in ("parameter", "body"):
            del browser.cookies["sessionkey"]
        sent = ASK | ({"sessionkey": key} if shown in ("parameter", "both") else {})
        if shown == "body":
            answer = browser.post(server.url + "/", params=ASK, data={"sessionkey": key})
        else:
            answer = browser.get(server.url, params=sent)
        assert answer.status_code == 200


@pytest.mark.parametrize("wrong", ["parameter", "cookie", "none"])
def test_a_key_that_does_not_fit_ends_the_session(server, wrong):
    with server.login() as browser:
        key = browser.cookies["sessionkey"]
        if wrong != "parameter":
            del browser.cookies["sessionkey"]
        if wrong == "cookie":
            browser.cookies.set("sessionkey", "wrong")
        sent = ASK | ({"sessionkey": "wrong"} if wrong == "parameter" else {})
        assert browser.get(server.url, params=sent).status_code == 401
        assert browser.get(server.url, params=ASK | {"sessionkey": key}).status_code == 401


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_sites_page_cannot_use_the_cookies(server, site):
    with server.login() as browser:
        key = browser.cookies["sessionkey"]
        assert browser.get(server.url, params=ASK, headers={"Sec-Fetch-Site": site}).status_code == 401
        assert browser.get(server.url, params=ASK, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
        sent = ASK | {"sessionkey": key}
        assert browser.get(server.url, params=sent, headers={"Sec-Fetch-Site": site}).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_logout_ends_it_at_once(server, method):
    with server.login() as browser:
        kept = dict(browser.cookies)
        answer = browser.request(method, server.url, params={"command": "logout", "response": "json"})
        assert answer.json() == {"logoutresponse": {"description": "success"}}
        assert {header.split("=")[0] for header in answer.headers.get_list("set-cookie")} == {
            "JSESSIONID",
            "sessionkey",
        }
        assert all("Max-Age=0" in header for header in answer.headers.get_list("set-cookie"))
    assert httpx.get(server.url, params=ASK, cookies=kept).status_code == 401


def test_a_logout_needs_no_session(server):
    answer = httpx.get(server.url, params={"command": "logout", "response": "json"})
    assert (answer.status_code, answer.json()) == (200, {"logoutresponse": {"description": "success"}})


def test_a_second_login_drops_the_first_session(server):
    with server.login() as browser:
        first = dict(browser.cookies)
        sent = {"command": "login", "response": "json", "username": "alice", "password": PASSWORD}
        assert browser.post(server.url, data=sent).status_code == 200
        assert browser.get(server.url, params=ASK).status_code == 200
    assert httpx.get(server.url, params=ASK, cookies=first).status_code == 401


def test_an_idle_session_expires_and_use_renews_it(server):
    with server.login() as browser, server.rows() as database:

        def idle(seconds):
            with database.write() as session:
                newest = select(LoginSession.token).order_by(LoginSession.created.desc()).limit(1).scalar_subquery()
                aged = update(LoginSession).where(LoginSession.token == newest)
                session.execute(aged.values(seen=now() - timedelta(seconds=seconds)))

        idle(1790)
        assert browser.get(server.url, params=ASK).status_code == 200
        with database.read() as session:
            newest = session.scalars(select(LoginSession).order_by(LoginSession.created.desc()).limit(1)).one()
            assert now() - newest.seen < timedelta(seconds=60)
        idle(1801)
        assert browser.get(server.url, params=ASK).status_code == 401


def test_the_database_holds_no_cookie(server):
    with server.login() as browser, server.rows() as database, database.read() as session:
        rows = list(session.scalars(select(LoginSession)))
        assert rows
        values = {value for row in rows for value in (row.token, row.key)}
        assert not values & set(browser.cookies.values())


@pytest.mark.parametrize("what", ["user", "account", "removed"])
def test_who_is_disabled_is_out_at_once(server, what):
    with server.login(username="alice") as browser, server.rows() as database:
        assert browser.get(server.url, params=ASK).status_code == 200

        def change(state, removed=None):
            with database.write() as session:
                user = session.scalars(select(User).where(User.username == "alice")).one()
                row = session.get_one(Account, user.account_id) if what == "account" else user
                if what == "removed":
                    row.removed = removed
                else:
                    row.state = state

        change("disabled", now())
        try:
            assert browser.get(server.url, params=ASK).status_code == 401
            assert server.get("listCapabilities", user="alice").status_code == 401
            assert login(server, username="alice").status_code == 531
        finally:
            change("enabled")
        assert server.get("listCapabilities", user="alice").status_code == 200


def test_what_the_login_page_asks_before_anybody_is_known(server):
    answer = httpx.get(server.url + "/", params={"command": "listOauthProvider", "response": "json"})
    assert (answer.status_code, answer.json()) == (200, {"listoauthproviderresponse": {}})
    assert httpx.get(server.url, params={"command": "listIdps", "response": "json"}).status_code == 401


def test_a_role_is_asked_for_sessions_too(server):
    with server.login(username="alice") as browser:
        answer = browser.get(server.url, params={"command": "listRouters", "response": "json"})
        assert answer.status_code == 401
        assert "not available for user" in answer.json()["listroutersresponse"]["errortext"]
        assert browser.get(server.url, params=ASK).status_code == 200  # and the session goes on
