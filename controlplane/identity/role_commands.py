"""The commands on roles; their rules' are in ``role_rules``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.api import dispatch
from controlplane.api.caller import ADMINS, Role
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import Records, matching, optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter, InUse
from controlplane.identity import names
from controlplane.identity.accounts import Account
from controlplane.identity.role_rules import new_rules, rule_rows
from controlplane.identity.roles import DISABLED, ENABLED, RoleRow

TYPES = tuple(kind.value for kind in Role)
dispatch.JOB_TABLES["Role"] = RoleRow


@dataclass(kw_only=True)
class RoleResponse(Response):
    """A role."""

    id: str
    name: str
    type: str
    isdefault: bool
    ispublic: bool
    state: str
    description: str | None = None


def role_views(ctx: Context, rows: Sequence[RoleRow]) -> list[RoleResponse]:
    """Show roles."""
    del ctx
    return [
        RoleResponse(
            id=row.uuid,
            name=row.name,
            type=row.type,
            isdefault=row.is_default,
            ispublic=row.is_public,
            state=row.state,
            description=row.description,
        )
        for row in rows
    ]


class CreateRole(Command, name="createRole", answer=one("role", role_views), event="ROLE.CREATE"):
    """Create a role of a type, or as a copy of another role with its rules."""

    name: str = required(check=names.name)
    type: str | None = optional(choices=TYPES, description="or give roleid")
    roleid: RoleRow | None = optional(description="the role that is copied")
    description: str | None = optional(check=names.text)
    ispublic: bool | None = optional(True, description="whether domain admins may give it to their accounts")

    def run(self, ctx: Context) -> RoleRow:
        """Add the row and its rules."""
        if (self.type is None) == (self.roleid is None):
            raise BadParameter("Invalid parameter type: give either type or roleid.")
        refuse_taken(ctx.session, self.name)
        row = RoleRow(
            name=self.name,
            type=self.roleid.type if self.roleid else self.type,
            description=self.description or (self.roleid.description if self.roleid else None),
            is_public=bool(self.ispublic),
        )
        row.rules = rule_rows((rule.rule, rule.permission, rule.description) for rule in self._copied())
        ctx.session.add(row)
        return row

    def _copied(self) -> Sequence[Any]:
        return self.roleid.rules if self.roleid else ()


class ImportRole(Command, name="importRole", answer=one("role", role_views), event="ROLE.IMPORT"):
    """Create a role with all its rules, or replace the rules of the one of this name."""

    name: str = required(check=names.name)
    rules: Records = required(check=new_rules, description="records of rule, permission and description, in order")
    type: str | None = optional(choices=TYPES, description="needed for a role that does not exist yet")
    description: str | None = optional(check=names.text)
    forced: bool | None = optional(False, description="replace a role of this name")
    ispublic: bool | None = optional(True)

    def run(self, ctx: Context) -> RoleRow:
        """Add or change the row, and give it these rules and no others."""
        row = ctx.session.scalar(select(RoleRow).where(RoleRow.name == self.name))
        if row is None:
            if self.type is None:
                raise BadParameter("Invalid parameter type: a new role needs one.")
            row = RoleRow(name=self.name, type=self.type)
            ctx.session.add(row)
        else:
            refuse_default(row)
            if not self.forced:
                raise BadParameter(f"Invalid parameter name value={self.name}: there is such a role; say forced=true.")
            if self.type is not None:
                change_type(ctx.session, row, self.type)
        row.description = self.description if self.description is not None else row.description
        row.is_public = bool(self.ispublic)
        row.rules = rule_rows(self.rules)
        return row


class UpdateRole(Command, name="updateRole", answer=one("role", role_views), event="ROLE.UPDATE"):
    """Change a role; its type only while no account has it."""

    id: RoleRow = required()
    name: str | None = optional(check=names.name)
    type: str | None = optional(choices=TYPES)
    description: str | None = optional(check=names.text)
    ispublic: bool | None = optional()

    def run(self, ctx: Context) -> RoleRow:
        """Change what was given."""
        row = self.id
        refuse_default(row)
        if self.name is not None and self.name != row.name:
            refuse_taken(ctx.session, self.name)
            row.name = self.name
        if self.type is not None:
            change_type(ctx.session, row, self.type)
        if self.description is not None:
            row.description = self.description or None
        if self.ispublic is not None:
            row.is_public = self.ispublic
        return row


class DeleteRole(Command, name="deleteRole", answer=success(), event="ROLE.DELETE"):
    """Delete a role that no account has."""

    id: RoleRow = required()

    def run(self, ctx: Context) -> None:
        """Delete the row with its rules."""
        refuse_default(self.id)
        refuse_used(ctx.session, self.id, "deleted")
        ctx.session.delete(self.id)


class _RoleState(Command):
    state = ""
    id: str = required()

    def run(self, ctx: Context) -> None:
        """Set the state; the next request of whoever has the role meets it."""
        row = ctx.find(RoleRow, self.id)
        assert isinstance(row, RoleRow)
        refuse_default(row)
        ctx.instance = row
        row.state = self.state


class EnableRole(_RoleState, name="enableRole", answer=success(), roles=ADMINS, event="ROLE.ENABLE"):
    """Let those who have the role call commands again."""

    state = ENABLED


class DisableRole(_RoleState, name="disableRole", answer=success(), roles=ADMINS, event="ROLE.DISABLE"):
    """Let those who have the role call nothing."""

    state = DISABLED


class ListRoles(
    ListCommand,
    name="listRoles",
    answer=many("role", role_views),
    roles=frozenset({Role.ADMIN, Role.RESOURCE_ADMIN, Role.DOMAIN_ADMIN}),
):
    """List roles: a root admin all, others the public ones of their own type and below."""

    table = RoleRow
    keywords = (RoleRow.name, RoleRow.description)
    order = (RoleRow.id,)

    id: RoleRow | None = matching(RoleRow.id)
    name: str | None = matching(RoleRow.name)
    type: str | None = matching(RoleRow.type, choices=TYPES)
    state: str | None = matching(RoleRow.state, choices=(ENABLED, DISABLED))


def refuse_default(row: RoleRow) -> None:
    """Refuse to change one of the default roles.

    :raises BadParameter: it is one.
    """
    if row.is_default:
        raise BadParameter(f"Role {row.name} is a default one and cannot be changed: copy it with createRole roleid=….")


def refuse_taken(session: Session, name: str) -> None:
    """Refuse a name that another role has.

    :raises BadParameter: one has it.
    """
    if session.scalar(select(RoleRow.id).where(RoleRow.name == name)) is not None:
        raise BadParameter(f"Invalid parameter name value={name}: there already is a role of this name.")


def refuse_used(session: Session, row: RoleRow, verb: str) -> None:
    """Refuse while accounts have the role.

    :raises InUse: the sentence names some of them.
    """
    users = session.scalars(select(Account.name).where(Account.role_id == row.id, Account.removed.is_(None)).limit(5))
    found = ", ".join(users)
    if found:
        raise InUse(f"Role {row.name} cannot be {verb}: accounts have it ({found}). Give them another role first.")


def change_type(session: Session, row: RoleRow, kind: str) -> None:
    """Change the type of a role that no account has."""
    if kind != row.type:
        refuse_used(session, row, "given another type")
        row.type = kind
