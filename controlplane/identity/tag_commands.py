"""The commands on tags."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, success
from controlplane.api.context import Context
from controlplane.api.parameters import Records, matching, optional, required
from controlplane.db.base import Row
from controlplane.errors import BadParameter
from controlplane.identity import names
from controlplane.identity.accounts import Account
from controlplane.identity.ownership import OwnedListing, require_owned
from controlplane.identity.tags import ResourceTag, pairs_of, table_of, tag_views, taggable
from controlplane.identity.users import User

_LENGTH = 255
taggable("User", User)
taggable("Account", Account)


class _Tagging(Command):
    """A command on the tags of some objects of one type."""

    resourcetype: str = required(description="the type of the objects: UserVm, Network …")
    resourceids: list[str] = required(description="the objects' UUIDs")

    def objects(self, ctx: Context) -> tuple[str, list[Row]]:
        """Return the type's name and the objects, which are the caller's to change."""
        name, table = table_of(self.resourcetype)
        rows = [ctx.find(table, uuid, "resourceids") for uuid in dict.fromkeys(self.resourceids)]
        for row in rows:
            require_owned(ctx, row, "resourceids")
        if len(rows) == 1:
            ctx.instance = rows[0]
        return name, rows


class CreateTags(
    _Tagging, name="createTags", answer=success(), roles=EVERYONE, job=True, instance="Tag", event="CREATE_TAGS"
):
    """Put tags on objects."""

    tags: Records = required()
    customer: str | None = optional(check=names.text, description="who put them there")

    def run(self, ctx: Context) -> None:
        """Add the rows, which belong to the objects' owners.

        :raises BadParameter: an object has such a tag already.
        """
        kind, rows = self.objects(ctx)
        pairs = [(_checked("key", key), _checked("value", value or "")) for key, value in pairs_of(self.tags)]
        for row in rows:
            for key, value in dict(pairs).items():
                self._add(ctx, kind, row, key, value)

    def _add(self, ctx: Context, kind: str, row: Row, key: str, value: str) -> None:
        same = ResourceTag.resource_type == kind, ResourceTag.resource_uuid == row.uuid, ResourceTag.key == key
        found = ctx.session.scalar(select(ResourceTag).where(*same))
        if found is not None:
            raise BadParameter(
                f"Invalid parameter tags: {kind} {row.uuid} already has the tag {key}={found.value}: delete it first."
            )
        account = row.id if isinstance(row, Account) else getattr(row, "account_id", ctx.caller.account_id)
        domain = getattr(row, "domain_id", ctx.caller.domain_id)
        ctx.session.add(
            ResourceTag(
                resource_type=kind,
                resource_uuid=row.uuid,
                key=key,
                value=value,
                customer=self.customer,
                account_id=account,
                domain_id=domain,
            )
        )


class DeleteTags(
    _Tagging, name="deleteTags", answer=success(), roles=EVERYONE, job=True, instance="Tag", event="DELETE_TAGS"
):
    """Take tags off objects: those that are named, or all."""

    tags: Records | None = optional(description="keys, or keys and values; all tags of the objects by default")

    def run(self, ctx: Context) -> None:
        """Delete the rows.

        :raises BadParameter: no object has a tag that is named.
        """
        kind, rows = self.objects(ctx)
        on_them = ResourceTag.resource_uuid.in_([row.uuid for row in rows])
        found = ctx.session.scalars(select(ResourceTag).where(ResourceTag.resource_type == kind, on_them)).all()
        if self.tags:
            found = self._named(found, pairs_of(self.tags))
        for tag in found:
            ctx.session.delete(tag)

    @staticmethod
    def _named(tags: Sequence[ResourceTag], wanted: Sequence[tuple[str, str | None]]) -> list[ResourceTag]:
        chosen: list[ResourceTag] = []
        for key, value in wanted:
            found = [tag for tag in tags if tag.key == key and value in (None, tag.value)]
            if not found:
                named = key if value is None else f"{key}={value}"
                raise BadParameter(f"Invalid parameter tags: none of the objects has the tag {named}.")
            chosen.extend(found)
        return list(dict.fromkeys(chosen))


class ListTags(OwnedListing, name="listTags", answer=many("tag", tag_views), roles=EVERYONE):
    """List tags."""

    table = ResourceTag
    keywords = (ResourceTag.key, ResourceTag.value)
    tags = None

    key: str | None = matching(ResourceTag.key)
    value: str | None = matching(ResourceTag.value)
    resourcetype: str | None = matching(ResourceTag.resource_type)
    resourceid: str | None = matching(ResourceTag.resource_uuid)
    customer: str | None = matching(ResourceTag.customer)


def _checked(what: str, text: str) -> str:
    if not text.isprintable() or len(text) > _LENGTH or (what == "key" and not text.strip()):
        raise BadParameter(
            f"Invalid parameter tags: a {what} has at most {_LENGTH} characters, no control characters, "
            "and a key is not blank."
        )
    return text
