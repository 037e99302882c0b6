"""Discovery: listApis, OpenAPI and the documents say what the registry says, and only what the caller may use."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from controlplane import rooms
from controlplane.api.command import REGISTRY
from controlplane.documents import pages, write
from controlplane.identity.roles import RolePermission, RoleRow
from tests.serving import KEYS

rooms.enter()


def names(answer):
    return {entry["name"] for entry in answer["api"]}


def test_a_root_admin_sees_every_command(cloud):
    answer = cloud("listApis")
    assert names(answer) == set(REGISTRY)
    assert answer["count"] == len(REGISTRY)


def test_a_user_sees_what_the_role_allows(server):
    def seen():
        return names(server.get("listApis", user="alice").json()["listapisresponse"])

    before = seen()
    assert "listZones" in before
    assert "createZone" not in before
    for name in sorted(before - {"login", "logout"})[:25]:
        status = server.http.get(server.url, params=server.signed(name, user="alice")).status_code
        assert status != 401, f"{name} is listed, and refused"
    for name in sorted(set(REGISTRY) - before):
        status = server.http.get(server.url, params=server.signed(name, user="alice")).status_code
        assert status == 401, f"{name} is not listed, and allowed"
    with server.rows() as database:
        with database.write() as session:
            role = session.scalars(select(RoleRow).where(RoleRow.type == "User")).first()
            role.rules.insert(0, RolePermission(rule="list*", permission="deny", position=-1))
        try:
            assert seen() == set()  # listApis itself is refused
        except KeyError:
            pass
        finally:
            with database.write() as session:
                session.delete(session.scalars(select(RolePermission).where(RolePermission.rule == "list*")).one())
    assert seen() == before


@pytest.mark.parametrize("name", ["noSuchCommand", "listzones", ""])
def test_an_unknown_name_finds_nothing(cloud, name):
    assert cloud("listApis", name=name) == {}


def test_an_entry_has_the_form_that_clients_build_on(cloud):
    (entry,) = cloud("listApis", name="createNetwork")["api"]
    assert entry["isasync"] is REGISTRY["createNetwork"].job
    assert entry["description"]
    parameters = {parameter["name"]: parameter for parameter in entry["params"]}
    assert parameters["zoneid"] | {"description": ""} == {
        "name": "zoneid",
        "description": "",
        "type": "uuid",
        "length": 255,
        "required": True,
        "related": "listZones",
    }
    fields = {field["name"]: field for field in entry["response"]}
    assert fields["id"]["type"] == "string"
    assert {inner["name"] for inner in fields["tags"]["response"]} >= {"key", "value"}
    refused = set(REGISTRY["createNetwork"].unsupported)
    assert not refused & set(parameters)


def test_a_job_shows_its_fields(cloud):
    (entry,) = cloud("listApis", name="deployVirtualMachine")["api"]
    assert entry["isasync"] is True
    assert {"jobid", "jobstatus"} <= {field["name"] for field in entry["response"]}


def test_the_openapi_document_has_every_command():
    found = json.loads(pages()["openapi.json"])
    operations = [operation for path in found["paths"].values() for operation in path.values()]
    assert {operation["operationId"] for operation in operations} == set(REGISTRY)
    login = found["paths"]["/client/api?command=login"]["post"]
    assert login["security"] == []
    assert {parameter["name"] for parameter in login["parameters"] if parameter.get("required")} == {
        "username",
        "password",
    }
    listing = found["paths"]["/client/api?command=listZones"]["get"]["responses"]["200"]["content"]["application/json"]
    inside = listing["schema"]["properties"]["listzonesresponse"]["properties"]
    assert inside["zone"]["items"]["properties"]["id"]["type"] == "string"


def test_the_documents_are_made_from_nothing_else(tmp_path):
    (tmp_path / "gone.md").write_text("a room that is no more")
    write(tmp_path)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == pages()
    for name, command in REGISTRY.items():
        assert f"## {name}\n" in found[f"{command.__module__.split('.')[1]}.md"]
    assert not any(secret in text for text in found.values() for secret in KEYS["admin"])
