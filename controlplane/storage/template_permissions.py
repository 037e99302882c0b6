"""Who may use a template or ISO beside its owner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import select

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, success
from controlplane.api.context import Context
from controlplane.api.parameters import optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter
from controlplane.identity.accounts import PROJECT, Account
from controlplane.identity.domains import Domain
from controlplane.storage.register_template import MAY_PUBLISH
from controlplane.storage.template_commands import refuse_foreign, refuse_kind
from controlplane.storage.templates import Template


class PermissionUpdate(Command):
    """What changing the permissions of templates and of ISOs have in common.

    :cvar isos: it is about ISOs.
    """

    isos: ClassVar[bool] = False
    unsupported = ("projectids",)

    id: Template = required()
    accounts: list[str] | None = optional(description="names in the owner's domain")
    op: str | None = optional(choices=("add", "remove", "reset"))
    isextractable: bool | None = optional()
    isfeatured: bool | None = optional()
    ispublic: bool | None = optional()

    def run(self, ctx: Context) -> None:
        """Check flags and accounts, and write them."""
        row, ctx.instance = self.id, self.id
        refuse_kind(row, iso=self.isos)
        refuse_foreign(ctx, row)
        if self.isfeatured is not None and not ctx.caller.is_admin:
            raise BadParameter("Invalid parameter isfeatured: only root admins may feature templates.")
        if self.ispublic and not ctx.caller.is_admin and not MAY_PUBLISH.flag(ctx.session):
            raise BadParameter("Invalid parameter ispublic value=true: allow.public.user.templates does not allow it.")
        if self.accounts and self.op not in ("add", "remove"):
            raise BadParameter("Invalid parameter op: with accounts it must be add or remove.")
        if self.op in ("add", "remove") and not self.accounts:
            raise BadParameter(f"Invalid parameter accounts: op={self.op} needs names of accounts.")
        numbers = [str(account.id) for account in self._accounts(ctx, row)]
        if self.op == "add":
            row.shared_with = list(dict.fromkeys([*row.shared_with, *numbers]))
        elif self.op == "remove":
            row.shared_with = [number for number in row.shared_with if number not in numbers]
        elif self.op == "reset":
            row.shared_with, row.is_public, row.is_featured = [], False, False
        self._set_flags(row)

    def _set_flags(self, row: Template) -> None:
        if self.isextractable is not None:
            row.is_extractable = self.isextractable
        if self.ispublic is not None:
            row.is_public = self.ispublic
        if self.isfeatured is not None:
            row.is_featured = self.isfeatured

    def _accounts(self, ctx: Context, row: Template) -> list[Account]:
        found = []
        for name in self.accounts or ():
            query = select(Account).where(
                Account.name == name,
                Account.domain_id == row.domain_id,
                Account.type != PROJECT,
                Account.removed.is_(None),
            )
            account = ctx.session.scalar(query)
            if account is None:
                raise BadParameter(f"Invalid parameter accounts value={name}: the owner's domain has no such account.")
            if account.id == row.account_id:
                raise BadParameter(
                    f"Invalid parameter accounts value={name}: it is the owner, who needs no permission."
                )
            found.append(account)
        return found


class UpdateTemplatePermissions(
    PermissionUpdate,
    name="updateTemplatePermissions",
    answer=success(),
    roles=EVERYONE,
    instance="Template",
    event="TEMPLATE.PERMISSION.UPDATE",
):
    """Share a template with accounts, or make it public, featured or extractable."""


class UpdateIsoPermissions(
    PermissionUpdate,
    name="updateIsoPermissions",
    answer=success(),
    roles=EVERYONE,
    instance="Iso",
    event="ISO.PERMISSION.UPDATE",
):
    """Share an ISO with accounts, or make it public, featured or extractable."""

    isos = True


@dataclass(kw_only=True)
class PermissionResponse(Response):
    """Who may use a template."""

    id: str
    ispublic: bool
    domainid: str | None = None
    account: list[str] | None = None


def permission_views(ctx: Context, rows: Sequence[Template]) -> list[PermissionResponse]:
    """Return the responses of these templates."""
    numbers = {int(number) for row in rows for number in row.shared_with}
    found = ctx.session.execute(select(Account.id, Account.name).where(Account.id.in_(numbers)))
    names = {number: name for number, name in found}
    domains = {
        number: uuid
        for number, uuid in ctx.session.execute(
            select(Domain.id, Domain.uuid).where(Domain.id.in_({row.domain_id for row in rows}))
        )
    }
    return [
        PermissionResponse(
            id=row.uuid,
            ispublic=row.is_public,
            domainid=domains[row.domain_id],
            account=[names[int(number)] for number in row.shared_with if int(number) in names] or None,
        )
        for row in rows
    ]


class ListTemplatePermissions(
    Command, name="listTemplatePermissions", answer=many("templatepermission", permission_views), roles=EVERYONE
):
    """Tell which accounts may use a template."""

    writes = False
    id: Template = required()

    def run(self, ctx: Context) -> list[Template]:
        """Tell its owner only, and who is above the owner."""
        refuse_kind(self.id, iso=False)
        refuse_foreign(ctx, self.id)
        return [self.id]


class ListIsoPermissions(
    Command, name="listIsoPermissions", answer=many("templatepermission", permission_views), roles=EVERYONE
):
    """Tell which accounts may use an ISO."""

    writes = False
    envelope = "listtemplatepermissionsresponse"
    id: Template = required()

    def run(self, ctx: Context) -> list[Template]:
        """Tell its owner only, and who is above the owner."""
        refuse_kind(self.id, iso=True)
        refuse_foreign(ctx, self.id)
        return [self.id]
