"""Roles: what each may call, for every command that there is, and how rules change that."""

from __future__ import annotations

import pytest

from controlplane.api.caller import Role
from controlplane.api.command import REGISTRY
from controlplane.errors import ApiError, BadParameter, InUse, Unauthenticated
from controlplane.identity import seed
from tests.api.people import Company, hire

ROLES = {
    "Root Admin": Role.ADMIN,
    "Resource Admin": Role.RESOURCE_ADMIN,
    "Domain Admin": Role.DOMAIN_ADMIN,
    "User": Role.USER,
}


@pytest.fixture
def company(cloud):
    return Company(cloud)


def role_named(cloud, name):
    return cloud("listRoles", name=name)["role"][0]["id"]


def with_role(cloud, company, name, role):
    hire(cloud, name, company.domain("ROOT"), roleid=role)
    return cloud.as_user(name)


def test_every_command_is_for_the_types_that_its_class_says(cloud, company):
    callers = {
        name: with_role(cloud, company, name.replace(" ", "").lower(), role_named(cloud, name)).caller for name in ROLES
    }
    for name, command in REGISTRY.items():
        allowed = {role for role, caller in callers.items() if caller.may(name, command.roles)}
        expected = {role for role, kind in ROLES.items() if kind in command.roles} | {"Root Admin"}
        assert allowed == expected, name


ADMINS_ONLY = {
    "createRole", "updateRole", "deleteRole", "importRole", "enableRole", "disableRole", "createRolePermission",
    "updateRolePermission", "deleteRolePermission", "listRolePermissions", "updateConfiguration", "resetConfiguration",
    "listConfigurations", "listAlerts", "archiveAlerts", "deleteAlerts", "generateAlert", "moveUser", "moveDomain", "getUser",
}  # fmt: skip
DOMAIN_ADMINS = {
    "createAccount", "updateAccount", "deleteAccount", "disableAccount", "enableAccount", "lockAccount", "createUser",
    "deleteUser", "disableUser", "enableUser", "lockUser", "createDomain", "updateDomain", "deleteDomain",
    "updateResourceLimit", "updateResourceCount",
}  # fmt: skip


def test_users_cannot_call_what_changes_who_there_is(cloud, company):
    user, admin = company("sam").caller, company("sally").caller
    for name in ADMINS_ONLY | DOMAIN_ADMINS:
        assert not user.may(name, REGISTRY[name].roles), name
        assert admin.may(name, REGISTRY[name].roles) == (name in DOMAIN_ADMINS), name


def test_read_only_and_support_roles(cloud, company):
    reader = with_role(cloud, company, "reader", role_named(cloud, "Read-Only User - Default"))
    watcher = with_role(cloud, company, "watcher", role_named(cloud, "Read-Only Admin - Default"))
    helper = with_role(cloud, company, "helper", role_named(cloud, "Support User - Default"))
    for name, command in REGISTRY.items():
        if not command.authenticated:
            continue
        reads = not command.writes and name not in seed._SECRETS
        assert reader.caller.may(name, command.roles) == (reads and Role.USER in command.roles), name
        assert watcher.caller.may(name, command.roles) == (reads and Role.ADMIN in command.roles), name
        assert not reader.caller.may(name, command.roles) or helper.caller.may(name, command.roles), name
    assert helper.caller.may("startVirtualMachine", frozenset())
    assert not reader.caller.may("startVirtualMachine", frozenset(Role))
    assert reader("listUsers")["user"][0]["username"] == "reader"
    with pytest.raises(Unauthenticated):
        reader("registerUserKeys", id=reader("listUsers")["user"][0]["id"])
    with pytest.raises(Unauthenticated):
        watcher("getUserKeys", id=company.user("sam")["id"])


def test_the_default_roles_grow_with_the_commands(cloud):
    with cloud.database.write() as session:
        before = len(cloud("listRolePermissions")["rolepermission"])
        role = session.query(seed.RoleRow).filter_by(name="Read-Only User - Default").one()
        role.rules = role.rules[3:]
    with cloud.database.write() as session:
        seed.fill(session, "")
    assert len(cloud("listRolePermissions")["rolepermission"]) == before
    assert cloud("listRoles")["count"] == 8


def test_rules_decide_in_their_order(cloud, company):
    role = cloud("createRole", name="tags only", type="User", description="for scripts", ispublic=False)["role"]
    assert (role["type"], role["isdefault"], role["ispublic"], role["state"]) == ("User", False, False, "enabled")
    first = cloud("createRolePermission", roleid=role["id"], rule="list*", permission="Allow")["rolepermission"]
    second = cloud("createRolePermission", roleid=role["id"], rule="*", permission="DENY")["rolepermission"]
    assert (first["rule"], first["permission"], second["permission"]) == ("list*", "allow", "deny")
    with_role(cloud, company, "script", role["id"])
    script = cloud.as_user("script")
    script("listUsers")
    with pytest.raises(Unauthenticated):
        script("updateUser", id=script("listUsers")["user"][0]["id"], lastname="x")
    cloud("updateRolePermission", roleid=role["id"], ruleorder=[second["id"], first["id"]])
    with pytest.raises(Unauthenticated):
        cloud.as_user("script")("listUsers")
    cloud("updateRolePermission", roleid=role["id"], ruleid=second["id"], permission="allow")
    cloud.as_user("script")("listUsers")
    rules = cloud("listRolePermissions", roleid=role["id"])["rolepermission"]
    assert [(rule["rule"], rule["permission"]) for rule in rules] == [("*", "allow"), ("list*", "allow")]
    cloud("deleteRolePermission", id=second["id"])
    assert cloud("listRolePermissions", roleid=role["id"])["count"] == 1
    for command, parameters, words in (
        ("createRolePermission", {"rule": "LIST*", "permission": "allow"}, "already has this rule"),
        ("createRolePermission", {"rule": "list;*", "permission": "allow"}, "letters, digits and"),
        ("createRolePermission", {"rule": "x", "permission": "maybe"}, "one of allow, deny"),
        ("updateRolePermission", {"ruleorder": ""}, "give ruleid and permission"),
        ("updateRolePermission", {"ruleorder": f"{first['id']},{first['id']}"}, "each of the 1 rules"),
        ("updateRolePermission", {"ruleid": first["id"]}, "give ruleid and permission"),
    ):
        with pytest.raises(BadParameter, match=words):
            cloud(command, roleid=role["id"], **parameters)


def test_a_disabled_role_may_call_nothing(cloud, company):
    role = cloud("createRole", name="paused", type="DomainAdmin")["role"]["id"]
    with_role(cloud, company, "paul", role)
    cloud("disableRole", id=role)
    with pytest.raises(Unauthenticated):
        cloud.as_user("paul")("listUsers")
    assert cloud("listRoles", state="disabled")["role"][0]["name"] == "paused"
    cloud("enableRole", id=role)
    cloud.as_user("paul")("listUsers")


def test_copying_importing_and_changing(cloud, company):
    source = role_named(cloud, "Support User - Default")
    copy = cloud("createRole", name="my support", roleid=source)["role"]
    assert copy["type"] == "User"

    def rules(role):
        found = cloud("listRolePermissions", roleid=role)["rolepermission"]
        return [(rule["rule"], rule["permission"]) for rule in found]

    assert rules(copy["id"]) == rules(source)
    parameters = {
        "command": "importRole",
        "name": "imported",
        "type": "User",
        "rules[0].rule": "list*",
        "rules[0].permission": "allow",
        "rules[1].rule": "*",
        "rules[1].permission": "deny",
        "rules[1].description": "nothing else",
    }
    made = cloud.raw(parameters)["role"]
    assert rules(made["id"]) == [("list*", "allow"), ("*", "deny")]
    with pytest.raises(BadParameter, match="say forced=true"):
        cloud.raw(parameters)
    again = cloud.raw({**parameters, "forced": "true", "rules[0].rule": "get*"})["role"]
    assert (again["id"], rules(again["id"])) == (made["id"], [("get*", "allow"), ("*", "deny")])
    with pytest.raises(BadParameter, match=r"permission of list\* must be allow or deny"):
        cloud.raw({**parameters, "forced": "true", "rules[0].permission": "x"})
    changed = cloud("updateRole", id=made["id"], name="renamed", type="DomainAdmin", ispublic=False)["role"]
    assert (changed["name"], changed["type"], changed["ispublic"]) == ("renamed", "DomainAdmin", False)
    with_role(cloud, company, "ruth", made["id"])
    with pytest.raises(InUse, match=r"accounts have it .ruth."):
        cloud("deleteRole", id=made["id"])
    with pytest.raises(InUse, match="cannot be given another type"):
        cloud("updateRole", id=made["id"], type="User")
    assert cloud("deleteRole", id=copy["id"]) == {"success": True}
    for command, parameters, words in (
        ("deleteRole", {"id": source}, "default one"),
        ("updateRole", {"id": source, "name": "x"}, "default one"),
        ("disableRole", {"id": source}, "default one"),
        ("createRolePermission", {"roleid": source, "rule": "x", "permission": "allow"}, "default one"),
        ("createRole", {"name": "renamed", "type": "User"}, "already is a role"),
        ("createRole", {"name": "x"}, "either type or roleid"),
        ("createRole", {"name": "x", "type": "Unknown"}, "must be one of Admin"),
    ):
        with pytest.raises(BadParameter, match=words):
            cloud(command, **parameters)


def test_which_roles_a_domain_admin_sees(cloud, company):
    hidden = cloud("createRole", name="hidden", type="User", ispublic=False)["role"]["id"]
    shown = {role["name"] for role in company("sally")("listRoles")["role"]}
    assert shown == {"Domain Admin", "User", "Read-Only User - Default", "Support User - Default"}
    with pytest.raises(ApiError, match="not yours to use"):
        hire(company("sally"), "x", company.domain("sales"), roleid=hidden)
