"""The commands on details."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import String, cast

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, success
from controlplane.api.context import Context, owned_by
from controlplane.api.parameters import Records, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Row
from controlplane.errors import BadParameter
from controlplane.identity.details import Detailed, type_named
from controlplane.identity.ownership import OwnedListing, owner_fields, require_owned
from controlplane.identity.tags import pairs_of

_LENGTH = 255
_MOST = 100
"""Details of one object: they are in its row, which lists read."""


def everyones(value: bool) -> bool:
    """Accept that the detail is for whoever sees the object.

    :raises ValueError: it is to be hidden, which no detail is.
    """
    if not value:
        raise ValueError("a detail is shown to whoever its object is shown to; leave it out, or say true")
    return value


class _Detailing(Command):
    """A command that changes the details of an object."""

    resourcetype: str = required(description="the type of the object: LoadBalancer, Network, Template …")
    resourceid: str = required(description="the object's UUID")

    def object(self, ctx: Context) -> tuple[Detailed, Row]:
        """Return the type and the object, which is the caller's to change."""
        kind = type_named(self.resourcetype)
        row = kind.find(ctx, self.resourceid)
        require_owned(ctx, row, "resourceid")
        ctx.instance = row
        return kind, row


class AddResourceDetail(_Detailing, name="addResourceDetail", answer=success(), roles=EVERYONE, job=True,
                        instance="ResourceDetail", event="CREATE_RESOURCE_DETAILS"):  # fmt: skip
    """Give an object details, or other values for those that it has.

    Those of a LoadBalancer are its settings (maxconn, timeout.client, server.maxconn …): the provider must have them,
    and they are in force when the job has ended, without a restart and for new connections: those that stand keep
    what they began with. An idle TCP connection is ended by timeout.tunnel, one of HTTP by timeout.client and
    timeout.server.
    """

    details: Records = required(description="name and value of each: details[0].key=maxconn&details[0].value=100")
    fordisplay: bool | None = optional(True, check=everyones, description="true: no detail is hidden")

    def run(self, ctx: Context) -> None:
        """Check, and write them.

        :raises BadParameter: a name or value will not do.
        """
        kind, row = self.object(ctx)
        given = dict(_checked(name, value) for name, value in pairs_of(self.details))
        for name in given:
            kind.refuse_fixed("details", name)
        if len(kind.of(row) | given) > _MOST:
            raise BadParameter(f"Invalid parameter details: {kind.name} {row.uuid} may have {_MOST} at most.")
        kind.give(ctx, row, given)


class RemoveResourceDetail(_Detailing, name="removeResourceDetail", answer=success(), roles=EVERYONE, job=True,
                           instance="ResourceDetail", event="DELETE_RESOURCE_DETAILS"):  # fmt: skip
    """Take a detail away from an object, or all; what it stood for is then at its default."""

    key: str | None = optional(description="the detail's name; all of the object's details by default")

    def run(self, ctx: Context) -> None:
        """Take them away.

        :raises BadParameter: the object has none of this name.
        """
        kind, row = self.object(ctx)
        has = kind.of(row)
        if self.key is not None:
            kind.refuse_fixed("key", self.key)
            if self.key not in has:
                raise BadParameter(
                    f"Invalid parameter key value={self.key}: {kind.name} {row.uuid} has "
                    f"{'the details ' + ', '.join(sorted(has)) if has else 'no details'}."
                )
        kind.take(ctx, row, set(has) if self.key is None else {self.key})


@dataclass(frozen=True, slots=True)
class Detail:
    """One detail of one object."""

    type: str
    uuid: str
    account_id: int
    key: str
    value: str


@dataclass(kw_only=True)
class DetailResponse(Response):
    """One detail of an object."""

    key: str
    value: str
    resourcetype: str
    resourceid: str
    account: str
    domain: str
    domainid: str
    domainpath: str


def detail_views(ctx: Context, rows: Sequence[Detail]) -> list[DetailResponse]:
    """Show details."""
    owners = owner_fields(ctx, rows)
    return [
        DetailResponse(
            key=row.key, value=row.value, resourcetype=row.type, resourceid=row.uuid, **owners[row.account_id]
        )
        for row in rows
    ]


class ListResourceDetails(OwnedListing, name="listResourceDetails", answer=many("resourcedetail", detail_views),
                          roles=EVERYONE):  # fmt: skip
    """List the details of one type of objects; of what one only uses (a public template), they are the owner's."""

    table = Row  # the caller says which
    tags = None

    resourcetype: str = required(description="the type of the objects: LoadBalancer, Network, Template …")
    resourceid: str | None = optional(description="only the details of the object with this UUID")
    key: str | None = optional(description="only details of this name")
    value: str | None = optional(description="only details with this value")
    fordisplay: bool | None = optional(admin=True, description="true: all, for none is hidden; false: none")

    def run(self, ctx: Context) -> tuple[Sequence[Detail], int]:
        """Return one page of details, by object and name, and the number of all that match."""
        kind = type_named(self.resourcetype)
        table = self.table = kind.table  # type: ignore[misc]
        has = cast(getattr(table, kind.column), String) != "{}"
        query = self.matching_rows(ctx).where(owned_by(table, ctx.caller), kind.only, has)
        if self.resourceid is not None:
            query = query.where(table.id == kind.find(ctx, self.resourceid).id)
        columns = table.uuid, table.account_id, getattr(table, kind.column)
        found = [
            Detail(kind.name, uuid, owner, name, value)
            for uuid, owner, details in ctx.session.execute(query.with_only_columns(*columns).order_by(table.id))
            for name, value in sorted(details.items())
            if kind.shown(name) and self._wanted(name, value)
        ]
        return self.page_of(ctx.session, found)

    def owners(self, ctx: Context) -> Any:
        """Return the condition on the owner; who names an object need not name its owner."""
        if self.resourceid is not None and self.account is None and self.domainid is None and self.projectid is None:
            return None
        return super().owners(ctx)

    def _wanted(self, name: str, value: str) -> bool:
        word = (self.keyword or "").lower()
        return (
            self.fordisplay is not False
            and self.key in (None, name)
            and self.value in (None, value)
            and (word in name.lower() or word in value.lower())
        )


def _checked(name: str, value: str | None) -> tuple[str, str]:
    for what, text in (("name", name), ("value", value or "")):
        if not text.strip() or not text.isprintable() or len(text) > _LENGTH:
            raise BadParameter(
                f"Invalid parameter details: the {what} of {name!r} must be 1 to {_LENGTH} printable characters "
                "on one line."
            )
    return name, value or ""
