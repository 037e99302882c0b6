"""The rules of roles, in their order: the first that matches a command decides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from controlplane.api.caller import ADMINS
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import Records, optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter
from controlplane.identity import names
from controlplane.identity.roles import RolePermission, RoleRow

PERMISSIONS = ("allow", "deny")
_PATTERN = re.compile(r"[A-Za-z0-9*]{1,120}")


@dataclass(kw_only=True)
class RolePermissionResponse(Response):
    """A rule of a role."""

    id: str
    roleid: str
    rolename: str
    rule: str
    permission: str
    description: str | None = None


def rule_views(ctx: Context, rows: Sequence[RolePermission]) -> list[RolePermissionResponse]:
    """Show rules."""
    del ctx
    return [
        RolePermissionResponse(
            id=row.uuid,
            roleid=row.role.uuid,
            rolename=row.role.name,
            rule=row.rule,
            permission=row.permission,
            description=row.description,
        )
        for row in rows
    ]


def pattern(value: str) -> str:
    """Check a rule: the name of a command, or a pattern in which * stands for anything.

    :raises ValueError: it is neither.
    """
    if not _PATTERN.fullmatch(value):
        raise ValueError("it must be a command's name, or a pattern of letters, digits and * such as list*")
    return value


def new_rules(records: Records) -> Records:
    """Check records of rule, permission and description.

    :raises ValueError: what is wrong with the first that will not do.
    """
    for record in records:
        pattern(record.get("rule", ""))
        names.text(record.get("description", ""))
        record["permission"] = record.get("permission", "").lower()
        if record["permission"] not in PERMISSIONS:
            raise ValueError(f"the permission of {record['rule']} must be allow or deny")
    return Records([(record["rule"], record["permission"], record.get("description")) for record in records])


def rule_rows(rules: Iterable[tuple[str, str, str | None]]) -> list[RolePermission]:
    """Return fresh rows for (rule, permission, description), in this order."""
    return [
        RolePermission(rule=rule, permission=permission, description=description, position=position)
        for position, (rule, permission, description) in enumerate(rules)
    ]


class CreateRolePermission(
    Command, name="createRolePermission", answer=one("rolepermission", rule_views), event="ROLE.PERMISSION.CREATE"
):
    """Add a rule at the end of a role's rules."""

    roleid: RoleRow = required()
    rule: str = required(check=pattern, length=120, description="a command's name, or a pattern such as list*")
    permission: str = required(choices=PERMISSIONS)
    description: str | None = optional(check=names.text)

    def run(self, ctx: Context) -> RolePermission:
        """Add the row."""
        role = self.roleid
        refuse_fixed(role)
        if any(rule.rule.lower() == self.rule.lower() for rule in role.rules):
            raise BadParameter(f"Invalid parameter rule value={self.rule}: role {role.name} already has this rule.")
        last = max((rule.position for rule in role.rules), default=-1)
        row = RolePermission(
            rule=self.rule, permission=self.permission, description=self.description, position=last + 1, role=role
        )
        ctx.session.add(row)
        return row


class UpdateRolePermission(Command, name="updateRolePermission", answer=success(), event="ROLE.PERMISSION.UPDATE"):
    """Change what one rule says, or the order of all of a role's rules."""

    roleid: RoleRow = required()
    ruleid: RolePermission | None = optional(description="with permission: the rule that is changed")
    permission: str | None = optional(choices=PERMISSIONS)
    ruleorder: list[RolePermission] | None = optional(description="all rules of the role, in their new order")

    def run(self, ctx: Context) -> None:
        """Change the one or reorder them all."""
        del ctx
        role = self.roleid
        refuse_fixed(role)
        if self.ruleorder is not None:
            if self.ruleid is not None or self.permission is not None:
                raise BadParameter("Invalid parameter ruleorder: it cannot go together with ruleid and permission.")
            self._reorder(role, self.ruleorder)
        elif self.ruleid is None or self.permission is None:
            raise BadParameter("Invalid parameter ruleid: give ruleid and permission, or ruleorder.")
        elif self.ruleid.role_id != role.id:
            raise BadParameter(f"Invalid parameter ruleid value={self.ruleid.uuid}: it is no rule of role {role.name}.")
        else:
            self.ruleid.permission = self.permission

    @staticmethod
    def _reorder(role: RoleRow, order: Sequence[RolePermission]) -> None:
        if sorted(rule.id for rule in order) != sorted(rule.id for rule in role.rules):
            raise BadParameter(
                f"Invalid parameter ruleorder: it must name each of the {len(role.rules)} rules of role "
                f"{role.name} once: somebody else may have changed them."
            )
        for position, rule in enumerate(order):
            rule.position = position


class DeleteRolePermission(Command, name="deleteRolePermission", answer=success(), event="ROLE.PERMISSION.DELETE"):
    """Take a rule away."""

    id: RolePermission = required()

    def run(self, ctx: Context) -> None:
        """Delete the row."""
        refuse_fixed(self.id.role)
        ctx.session.delete(self.id)


class ListRolePermissions(Command, name="listRolePermissions", answer=many("rolepermission", rule_views), roles=ADMINS):
    """List the rules of a role, or of all roles, in the order in which they decide."""

    writes = False
    roleid: RoleRow | None = optional()

    def run(self, ctx: Context) -> Sequence[Any]:
        """Return the rules."""
        query = select(RolePermission).options(joinedload(RolePermission.role))
        if self.roleid is not None:
            query = query.where(RolePermission.role_id == self.roleid.id)
        order = RolePermission.role_id, RolePermission.position, RolePermission.id
        return ctx.session.scalars(query.order_by(*order)).all()


def refuse_fixed(role: RoleRow) -> None:
    """Refuse to change the rules of a default role.

    :raises BadParameter: it is one.
    """
    if role.is_default:
        raise BadParameter(
            f"Role {role.name} is a default one: its rules cannot be changed. Copy it with createRole roleid=…."
        )
