"""Parity: each command is CloudStack's, as far as facts can tell: its form, its parameters, its answer's fields.

The facts (``commands.json``) lie beside the repository, not in it; without them there is nothing to compare with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from controlplane import rooms
from controlplane.api import http  # noqa: F401 - brings the commands that belong to the endpoint
from controlplane.api.command import REGISTRY
from controlplane.api.discovery import Field, answer_fields, entry
from controlplane.api.dispatch import JOB_TABLES

rooms.enter()
KINDS = {"one": "object", "many": "list", "success": "success", "flat": "flat"}

OUR_COMMANDS: dict[str, str] = dict.fromkeys(
    (
        "createWireguardVpn",
        "deleteWireguardVpn",
        "listWireguardVpns",
        "addWireguardPeer",
        "updateWireguardPeer",
        "removeWireguardPeer",
        "listWireguardPeers",
        "getWireguardPeerConfiguration",
    ),
    "CloudStack has no WireGuard",
) | {"importNetworkACL": "many rules are one call, and one transaction on the router"}
"""Commands that CloudStack does not have, and why we do."""
OUR_PARAMETERS: dict[tuple[str, str], str] = {}
"""(command, parameter) that CloudStack's command does not have, and why ours does."""
OUR_FIELDS: dict[tuple[str, str], str] = {
    ("queryAsyncJobResult", "jobid"): "the protocol has it, the class that the facts were read from does not",
    ("queryAsyncJobResult", "jobstatus"): "the protocol has it, the class that the facts were read from does not",
    ("listAsyncJobs", "jobid"): "the protocol has it, the class that the facts were read from does not",
    ("upgradeRouterTemplate", "jobid"): "the protocol has it, the class that the facts were read from does not",
    ("listAsyncJobs", "jobstatus"): "the protocol has it, the class that the facts were read from does not",
    **{
        (name, "l2tp"): "not every host can do L2TP, and who expects it is to be told why"
        for name in ("createRemoteAccessVpn", "updateRemoteAccessVpn", "listRemoteAccessVpns")
    },
    ("*", "nic.secondaryip"): "each NIC lists its further addresses, as listNics has them",
    **{
        (name, field): "the number inside, in CloudStack; a UUID is what other commands take"
        for name in ("dedicateGuestVlanRange", "listDedicatedGuestVlanRanges")
        for field in ("zoneid", "physicalnetworkid")
    },
    **{
        ("listTrafficTypes", field): "CloudStack lists the same traffic types that addTrafficType answers with"
        for field in (
            "traffictype",
            "kvmnetworklabel",
            "xennetworklabel",
            "vmwarenetworklabel",
            "hypervnetworklabel",
            "ovm3networklabel",
        )
    },
}
"""(command, field; * is any command) that CloudStack's answer does not have, or with another type, and why ours does."""
_FIREWALL = "a firewall rule's fields, as createFirewallRule's; the facts have those of port forwarding"
_AUTHORIZED = "the group with its new rules, as the protocol answers; the facts have the fields of one rule"
OUR_ANSWERS: dict[str, str] = {
    "authorizeSecurityGroupIngress": _AUTHORIZED,
    "authorizeSecurityGroupEgress": _AUTHORIZED,
    "createIpv6FirewallRule": _FIREWALL,
    "createRoutingFirewallRule": _FIREWALL,
    "listRoutingFirewallRules": _FIREWALL,
    "updateRoutingFirewallRule": _FIREWALL,
    "listIpv6FirewallRules": _FIREWALL,
    "updateIpv6FirewallRule": _FIREWALL,
    "listLoadBalancerRuleInstances": "machines, as the protocol says; the facts have the other form, of lbvmips=true",
}
"""Commands whose answer's fields are not compared, and why."""
OUR_TYPES: dict[tuple[str, str], str] = {
    ("login", "domainid"): "CloudStack means the number inside or the UUID; only UUIDs are known here",
}
"""(command, parameter) whose type differs from CloudStack's, and why."""

SAME_TYPES = {"float": "double", "tzdate": "date"}
STRINGS = {"string", "uuid", "date", "url", "state", "status", "type"}
NUMBERS = {"integer", "int", "long", "short", "float", "double"}
CONTAINERS = {"list", "map", "dict", "object", "responseobject", "set"}


@cache
def facts() -> dict[str, dict[str, Any]]:
    root = Path(__file__).resolve().parents[2]
    places = [folder / "shared" / "api" / "commands.json" for folder in list(root.parents)[:2]]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        pytest.skip(f"CloudStack's facts are not beside the repository: {places[0]} does not exist")
    return {command["name"]: command for command in json.loads(found.read_text())}


def form_problems(name: str, theirs: dict[str, Any]) -> Iterator[str]:
    """What differs between a command's form and CloudStack's."""
    ours = REGISTRY[name]
    compared = {
        "asynchronous": (ours.job, theirs["isasync"]),
        "envelope": (ours.envelope, theirs.get("envelope", f"{name.lower()}response")),
        "kind": (KINDS[ours.answer.kind], theirs.get("kind", KINDS[ours.answer.kind])),
        "key": (ours.answer.key, theirs.get("key", ours.answer.key)),
        "id beside the job's": (ours.creates, bool(theirs.get("createid"))),
    }
    for what, (mine, wanted) in compared.items():
        if mine != wanted:
            yield f"{what}: it is {mine!r}, CloudStack has {wanted!r}"


def parameter_problems(name: str, theirs: dict[str, Any]) -> Iterator[str]:
    """What differs between a command's parameters and CloudStack's."""
    ours = {key.lower(): parameter for key, parameter in REGISTRY[name].parameters().items()}
    refused = set(REGISTRY[name].unsupported)
    wanted = {parameter["name"].lower(): parameter for parameter in theirs["params"]}
    for key, fact in wanted.items():
        mine = ours.get(key)
        if mine is None:
            if key not in refused:
                yield f"parameter {key}: neither a field nor in unsupported"
            continue
        if key in refused:
            yield f"parameter {key}: a field, and in unsupported as well"
        kind = SAME_TYPES.get(fact["type"], fact["type"])
        named = {mine.type, kind} == {"string", "uuid"} and ("ref" in fact or key.endswith(("id", "ids")))
        if kind not in (mine.type, "object") and not named and (name, key) not in OUR_TYPES:
            yield f"parameter {key}: its type is {mine.type}, CloudStack has {fact['type']}"
        if mine.declared.required != fact["required"]:
            word = {True: "required", False: "optional"}
            yield f"parameter {key}: it is {word[mine.declared.required]}, CloudStack's is {word[fact['required']]}"
    for key in ours:
        if key not in wanted and (name, key) not in OUR_PARAMETERS:
            yield f"parameter {key}: CloudStack's command has none of this name"
    for key in refused - set(wanted):
        yield f"unsupported {key}: CloudStack's command has none of this name"


def class_of(kind: Any) -> str:
    """The class that a type of the facts belongs to, as JSON tells them apart."""
    if not isinstance(kind, str):
        return "container"
    if kind == "boolean":
        return "boolean"
    if kind in NUMBERS:
        return "number"
    if kind in CONTAINERS or kind.endswith(("[]", "response")):
        return "container"
    return "string"


def field_problems(name: str, fields: tuple[Field, ...], theirs: Any, path: str = "") -> Iterator[str]:
    """What differs between the fields of an answer and CloudStack's."""
    for field in fields:
        where = f"{path}{field.name}"
        if (name, where) in OUR_FIELDS or ("*", where) in OUR_FIELDS:
            continue
        if field.name not in theirs:
            yield f"field {where}: CloudStack's answer has none of this name"
            continue
        fact = theirs[field.name]
        if class_of(field.type) != class_of(fact):
            yield f"field {where}: its type is {field.type}, CloudStack has {fact if isinstance(fact, str) else 'objects'}"
        inner = fact[0] if isinstance(fact, list) else fact
        if field.inner and isinstance(inner, dict):
            yield from field_problems(name, field.inner, inner, f"{where}.")


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_it_is_cloudstacks_command(name):
    theirs = facts().get(name)
    if theirs is None:
        assert name in OUR_COMMANDS, f"CloudStack has no command {name}"
        return
    found = [*form_problems(name, theirs)]
    if "params" in theirs:
        found += parameter_problems(name, theirs)
    if REGISTRY[name].answer.kind != "success" and "response" in theirs and name not in OUR_ANSWERS:
        jobs = {"jobid": "string", "jobstatus": "integer"}
        found += field_problems(name, answer_fields(REGISTRY[name]), jobs | theirs["response"])
    assert not found, "\n".join([f"{name} ({REGISTRY[name].__module__}):", *found])


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_everything_has_a_word(name):
    found = entry(name)
    silent = [f"parameter {one['name']}" for one in found["params"] if not one["description"]]
    silent += [f"field {path}" for path, text in walk(found["response"]) if not text]
    assert found["description"]
    assert not silent, f"{name}: nothing says what these mean; add them to api/words.toml: {', '.join(silent)}"


def walk(fields: list[dict[str, Any]], path: str = "") -> Iterator[tuple[str, str]]:
    for field in fields:
        yield f"{path}{field['name']}", field["description"]
        yield from walk(field.get("response", []), f"{path}{field['name']}.")


@pytest.mark.parametrize("name", sorted(name for name, command in REGISTRY.items() if command.job))
def test_a_jobs_answer_can_be_made_again(name):
    command = REGISTRY[name]
    if command.answer.kind in ("one", "many"):
        assert command.instance in JOB_TABLES, f"dispatch.JOB_TABLES has no table for {command.instance or 'it'}"


def test_the_lists_of_exceptions_are_short_of_nothing_else():
    for name, key in [*OUR_PARAMETERS, *OUR_TYPES]:
        assert key in REGISTRY[name].parameters(), f"{name} has no parameter {key}: take it off the list"
    for name, path in OUR_FIELDS:
        if name == "*":
            assert any(path in dict(walk(entry(command)["response"])) for command in REGISTRY), f"nobody has {path}"
            continue
        assert path in dict(walk(entry(name)["response"])), f"{name} has no field {path}: take it off the list"
