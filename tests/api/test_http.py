"""The endpoint: what comes in by GET and POST, what goes out as JSON and XML, and every refusal."""

from __future__ import annotations

import re
import socket
from xml.etree import ElementTree as ET

import pytest

from controlplane.db.configuration import ConfigurationValue
from tests.serving import KEYS, PASSWORD, running

DIALECTS = ("", "/")


def error(answer):
    (envelope,) = answer.json()
    return envelope, answer.json()[envelope]


@pytest.mark.parametrize("slash", DIALECTS)
@pytest.mark.parametrize("how", ["query", "body", "both", "query of a post"])
def test_parameters_come_in_either_way(server, how, slash):
    sent = server.signed("listCapabilities")
    url = server.url + slash
    if how == "query":
        answer = server.http.get(url, params=sent)
    elif how == "body":
        answer = server.http.post(url, data=sent)
    elif how == "query of a post":
        answer = server.http.post(url, params=sent)
    else:
        names = ("command", "response")
        query = {name: sent[name] for name in names}
        answer = server.http.post(url, params=query, data={name: sent[name] for name in sent if name not in names})
    assert answer.status_code == 200
    assert list(answer.json()) == ["listcapabilitiesresponse"]
    assert answer.json()["listcapabilitiesresponse"]["capability"]["cloudstackversion"]


def test_a_query_value_wins_over_the_body(server):
    sent = server.signed("listCapabilities")
    answer = server.http.post(server.url, params=sent, data={"command": "listApis", "COMMAND": "listApis", "_": "1"})
    assert error(answer)[1]["errorcode"] == 401  # the body's "_" was not signed
    answer = server.http.post(server.url, params=sent, data={"command": "listApis", "RESPONSE": "xml"})
    assert list(answer.json()) == ["listcapabilitiesresponse"]


def test_names_have_no_case_and_unknown_parameters_are_ignored(server):
    answer = server.get("listAsyncJobs", listAll="True", pageSize="20", PAGE="1", nonsense="x")
    assert answer.status_code == 200
    assert answer.json() == {"listasyncjobsresponse": {}}


def test_json_is_one_line_of_one_key(server):
    answer = server.get("listApis")
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"
    assert "\n" not in answer.text
    assert '": ' not in answer.text.replace('": ', '":')
    assert re.match(r'\{"listapisresponse":\{"count":\d+,"api":\[\{', answer.text)


@pytest.mark.parametrize("form", ["xml", "", "XML", "yaml", None])
def test_xml_is_the_other_form(server, form):
    sent = {} if form is None else {"response": form}
    answer = server.http.get(server.integration_url, params={"command": "listCapabilities", **sent})
    assert answer.headers["content-type"] == "text/xml; charset=UTF-8"
    root = ET.fromstring(answer.content)
    assert root.tag == "listcapabilitiesresponse"
    assert root.get("cloud-stack-version") == root.findtext("capability/cloudstackversion")
    assert root.findtext("capability/dynamicrolesenabled") == "true"


def test_xml_of_lists_and_errors(server):
    root = ET.fromstring(server.http.get(server.integration_url, params={"command": "listApis"}).content)
    assert int(root.findtext("count")) == len(root.findall("api"))
    assert root.find("api/params/name") is not None
    empty = ET.fromstring(server.http.get(server.integration_url, params={"command": "listAsyncJobs"}).content)
    assert list(empty) == []
    answer = server.http.get(server.integration_url, params={"command": "listAsyncJobs", "page": "1"})
    root = ET.fromstring(answer.content)
    assert (root.tag, root.findtext("errorcode"), root.findtext("cserrorcode")) == (
        "listasyncjobsresponse",
        "431",
        "4350",
    )
    assert root.find("uuidList") is None


def test_an_error_says_what_is_wrong_twice(server):
    answer = server.get("queryAsyncJobResult", jobid="nonsense")
    envelope, body = error(answer)
    assert answer.status_code == 431
    assert envelope == "queryasyncjobresultresponse"
    assert list(body) == ["uuidList", "errorcode", "cserrorcode", "errortext"]
    assert (body["uuidList"], body["errorcode"], body["cserrorcode"]) == ([], 431, 4350)
    assert "jobid" in body["errortext"]
    assert "nonsense" in body["errortext"]
    assert answer.headers["x-description"] == body["errortext"]


@pytest.mark.parametrize("character", ["\x00", "\x01", "\t", "\x1f", "\x7f"])
def test_control_characters_are_refused_before_anything_else(server, character):
    answer = server.http.get(
        server.url, params={"command": "listAsyncJobs", "response": "json", "name": f"a{character}b"}
    )
    assert error(answer) == ("listasyncjobsresponse", error(answer)[1] | {"errorcode": 431})


@pytest.mark.parametrize("text", ["a\r\nb", "ü€😀", "a\x80b"])
def test_line_ends_and_all_of_unicode_are_text(server, text):
    assert server.get("listAsyncJobs", keyword=text).status_code == 200


def test_an_unknown_command_is_told_like_a_forbidden_one(server):
    answer = server.get("noSuchCommand")
    envelope, body = error(answer)
    assert (answer.status_code, envelope) == (401, "errorresponse")
    assert "does not exist" in body["errortext"]
    assert "not available for user" in body["errortext"]
    assert "cserrorcode" not in body


@pytest.mark.parametrize(
    "change",
    [
        {"signature": "wrong"},
        {"signature": ""},
        {"apiKey": "nobody"},
        {"apiKey": ""},
        {"extra": "1"},
        {"signatureVersion": "3", "expires": "2001-01-01T00:00:00Z"},
    ],
)
def test_bad_signatures(server, change):
    answer = server.http.get(server.url, params=server.signed("listCapabilities") | change)
    envelope, body = error(answer)
    assert (answer.status_code, envelope) == (401, "listcapabilitiesresponse")
    assert "cserrorcode" not in body


def test_expiry_of_version_3(server):
    assert server.get("listCapabilities", signatureVersion="3", expires="2001-01-01T00:00:00Z").status_code == 401
    assert server.get("listCapabilities", signatureVersion="3").status_code == 401
    assert server.get("listCapabilities", signatureVersion="3", expires="2100-01-01T00:00:00+0000").status_code == 200


def test_without_a_command(server):
    assert server.http.get(server.url).status_code == 401
    with server.login() as browser:
        answer = browser.get(server.url, params={"response": "json"})
    assert (answer.status_code, error(answer)[0]) == (400, "errorresponse")


def test_a_malformed_map_comes_after_the_role(server):
    answer = server.http.get(server.url, params=server.signed("listAsyncJobs", **{"tags[x].key": "1"}))
    assert answer.status_code == 430
    assert error(answer)[0] == "listasyncjobsresponse"
    answer = server.http.get(server.url, params=server.signed("noSuchCommand", **{"tags[x].key": "1"}))
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("paging", "status"),
    [
        ({"page": "1"}, 431),
        ({"pagesize": "10"}, 431),
        ({"page": "1", "pagesize": "10"}, 200),
        ({"pagesize": "-1"}, 200),
        ({"page": "1", "pagesize": "-1"}, 431),
        ({"page": "1", "pagesize": "501"}, 431),
        ({"page": "0", "pagesize": "10"}, 431),
        ({"page": "x", "pagesize": "10"}, 431),
    ],
)
def test_the_paging_rule(server, paging, status):
    assert server.get("listAsyncJobs", **paging).status_code == status


def test_other_methods_are_refused(server):
    assert server.http.put(server.url).status_code == 405
    assert server.http.delete(server.url).status_code == 405


def test_a_large_body(server):
    sent = server.signed("listCapabilities", userdata="a" * 900_000)
    assert server.http.post(server.url, data=sent).status_code == 200
    answer = server.http.post(server.url, params={"response": "json"}, data={"userdata": "a" * (1 << 20)})
    assert (answer.status_code, error(answer)[0]) == (413, "errorresponse")
    with server.rows() as database:
        with database.write() as session:
            session.add(ConfigurationValue(name="request.content.size", value=str(1 << 22)))
        sent = server.signed("listCapabilities", userdata="a" * (1 << 21))
        assert server.http.post(server.url, data=sent).status_code == 200
        with database.write() as session:
            session.delete(session.get_one(ConfigurationValue, ("request.content.size", "Global", 0)))
    assert server.http.post(server.url, data=sent).status_code == 413


def test_too_many_parameters(server):
    body = "&".join(f"p{number}=1" for number in range(10_001))
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = server.http.post(server.url, params={"response": "json"}, content=body, headers=headers)
    assert answer.status_code == 431


def test_a_body_of_another_type_is_not_read(server):
    sent = server.signed("listCapabilities")
    assert server.http.post(server.url, params=sent, json={"command": "logout"}).status_code == 200


def test_the_throttle(server):
    with server.rows() as database:
        settings = {"api.throttling.enabled": "true", "api.throttling.interval": "3600", "api.throttling.max": "3"}
        with database.write() as session:
            session.add_all(ConfigurationValue(name=name, value=value) for name, value in settings.items())
        try:
            found = [server.get("listAsyncJobs", user="alice").status_code for _ in range(5)]
            assert found == [200, 200, 200, 429, 429]
            assert error(server.get("listAsyncJobs", user="alice"))[1]["cserrorcode"] == 4545
            assert server.get("listCapabilities").json()["listcapabilitiesresponse"]["capability"]["apilimitmax"] == 3
        finally:
            with database.write() as session:
                for name in settings:
                    session.delete(session.get_one(ConfigurationValue, (name, "Global", 0)))
    assert server.get("listAsyncJobs", user="alice").status_code == 200


def test_the_integration_port_needs_no_signature(server):
    for extra in ({}, {"apiKey": "nobody", "signature": "wrong"}, {"sessionkey": "wrong"}):
        sent = {"command": "listCapabilities", "response": "json", **extra}
        assert server.http.get(server.integration_url, params=sent).status_code == 200
    answer = server.http.get(server.integration_url, params={"command": "noSuchCommand", "response": "json"})
    assert (answer.status_code, error(answer)[0], error(answer)[1]["cserrorcode"]) == (432, "errorresponse", 4390)


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}]
)
def test_the_integration_port_answers_no_web_page(server, headers):
    sent = {"command": "listCapabilities", "response": "json"}
    assert server.http.get(server.integration_url, params=sent, headers=headers).status_code == 401


def test_a_header_cannot_make_a_request_one_of_the_integration_port(server):
    port = str(server.settings.integration_port)
    headers = {"Host": f"127.0.0.1:{port}", "X-Forwarded-Port": port, "X-Forwarded-Host": f"127.0.0.1:{port}"}
    sent = {"command": "listCapabilities", "response": "json"}
    assert server.http.get(server.url, params=sent, headers=headers).status_code == 401


def test_off_means_that_there_is_no_socket():
    with running(integration=False) as quiet:
        assert _listening(quiet.process.pid) == {("127.0.0.1", quiet.settings.port)}


def test_what_listens(server):
    ports = {("127.0.0.1", server.settings.port), ("127.0.0.1", server.settings.integration_port)}
    assert _listening(server.process.pid) == ports


def _listening(pid):
    """The TCP sockets that a process listens on, as the kernel has them."""
    from pathlib import Path

    inodes = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if "socket:" in str(link.readlink())}
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
            address, port = fields[1].split(":")
            found.add((socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)))
    return found


def test_the_process_is_not_root(server):
    from pathlib import Path

    status = Path(f"/proc/{server.process.pid}/status").read_text()
    owner = server.settings.folder.stat().st_uid
    for name in ("Uid", "Gid"):
        assert "0" not in re.search(rf"^{name}:(.*)$", status, re.MULTILINE)[1].split()
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    assert f"Uid:\t{owner}\t{owner}\t{owner}\t{owner}" in status


def test_nobody_chooses_the_address_in_the_log(server):
    server.http.get(server.url, params={"command": "listZones"}, headers={"X-Forwarded-For": "198.51.100.7"})
    assert "127.0.0.1 GET listZones 401" in server.log
    assert "198.51.100.7" not in server.log


def test_no_secret_is_logged(server):
    server.get("listCapabilities")
    with server.login():
        pass
    server.http.get(server.url, params={"command": f"x {PASSWORD}", "password": PASSWORD})
    server.http.post(server.url, data={"command": "login", "username": "admin", "password": "hunter-2"})
    log = server.log
    assert "listCapabilities 200" in log
    assert "login 531" in log
    for secret in (PASSWORD, "hunter-2", "signature", *KEYS["admin"], *KEYS["alice"]):
        assert secret not in log


def test_what_a_browser_and_a_load_balancer_ask_for(server):
    base = server.url.removesuffix("/client/api")
    assert server.http.get(f"{base}/healthz").text == "ok\n"
    assert "Netspine" in server.http.get(f"{base}/client/").text
    assert server.http.get(f"{base}/").headers["location"] == "/client/"
    assert server.http.get(f"{base}/openapi.json").status_code == 404


@pytest.mark.parametrize("token", [None, "Bearer", "Bearer wrong", "Basic YTpi"])
@pytest.mark.parametrize("path", ["GET bundle", "POST hello", "POST outcome", "POST observation"])
def test_the_agents_door_is_shut_without_a_token(server, path, token):
    method, name = path.split()
    url = f"{server.url.removesuffix('/client/api')}/agent/v1/{name}"
    headers = {"Authorization": token} if token else {}
    sent = {"params": {"agent_id": "1", "wait": "0"}, "headers": headers}
    answer = server.http.request(method, url, **sent, **({"json": {}} if method == "POST" else {}))
    assert answer.status_code == 401
