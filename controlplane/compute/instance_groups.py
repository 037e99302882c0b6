"""Instance groups: names that machines of an account are shown under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import Uuid, matching, optional, required
from controlplane.api.responses import Response
from controlplane.compute.virtual_machines import InstanceGroup
from controlplane.errors import BadParameter
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import OwnedListing, owner_fields, owner_of_new


@dataclass(kw_only=True)
class InstanceGroupResponse(Response):
    """A group."""

    id: str
    name: str
    created: datetime
    account: str
    domain: str
    domainid: str
    domainpath: str
    hasannotations: bool = False


def group_views(ctx: Context, rows: Sequence[InstanceGroup]) -> list[InstanceGroupResponse]:
    """Return what groups look like."""
    owners = owner_fields(ctx, rows)
    return [
        InstanceGroupResponse(id=row.uuid, name=row.name, created=row.created, **owners[row.account_id]) for row in rows
    ]


class CreateInstanceGroup(Command, name="createInstanceGroup", answer=one("instancegroup", group_views), roles=EVERYONE,
                          instance="InstanceGroup"):  # fmt: skip
    """Make a group."""

    name: str = required()
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()

    def run(self, ctx: Context) -> InstanceGroup:
        """Make it."""
        owner = owner_of_new(ctx, self.account, self.domainid, self.projectid)
        _must_be_new(ctx, owner.id, self.name)
        return _make(ctx, owner, self.name)


class UpdateInstanceGroup(Command, name="updateInstanceGroup", answer=one("instancegroup", group_views), roles=EVERYONE,
                          instance="InstanceGroup"):  # fmt: skip
    """Rename a group."""

    id: InstanceGroup = required()
    name: str | None = optional()

    def run(self, ctx: Context) -> InstanceGroup:
        """Rename it."""
        if self.name and self.name != self.id.name:
            _must_be_new(ctx, self.id.account_id, self.name)
            self.id.name = self.name
        return self.id


class DeleteInstanceGroup(Command, name="deleteInstanceGroup", answer=success(), roles=EVERYONE,
                          instance="InstanceGroup"):  # fmt: skip
    """Remove a group; its machines stay, without a group."""

    id: InstanceGroup = required()

    def run(self, ctx: Context) -> None:
        """Remove it."""
        ctx.session.delete(self.id)


class ListInstanceGroups(OwnedListing, name="listInstanceGroups", answer=many("instancegroup", group_views),
                         roles=EVERYONE):  # fmt: skip
    """List groups."""

    table = InstanceGroup
    keywords = (InstanceGroup.name,)
    tags = None

    id: InstanceGroup | None = matching(InstanceGroup.id)
    name: str | None = matching(InstanceGroup.name)


def group_named(ctx: Context, owner: Account, name: str) -> InstanceGroup:
    """Return the owner's group of this name, which is made where there is none."""
    mine = InstanceGroup.account_id == owner.id, InstanceGroup.name == name
    return ctx.session.scalar(select(InstanceGroup).where(*mine)) or _make(ctx, owner, name)


def _make(ctx: Context, owner: Account, name: str) -> InstanceGroup:
    row = InstanceGroup(account_id=owner.id, domain_id=owner.domain_id, name=name)
    ctx.session.add(row)
    ctx.session.flush()
    return row


def _must_be_new(ctx: Context, account_id: int, name: str) -> None:
    mine = InstanceGroup.account_id == account_id, InstanceGroup.name == name
    if ctx.session.scalar(select(InstanceGroup.id).where(*mine)) is not None:
        raise BadParameter(f"Invalid parameter name value={name}: the account has a group of this name already.")


dispatch.JOB_TABLES["InstanceGroup"] = InstanceGroup
