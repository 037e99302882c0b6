"""Tags: key and value on any object of an account (createTags).

What can be tagged: every type that a list command names as its ``taggable``, and those that a room adds here::

    taggable("Account", Account)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, String, UniqueConstraint, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.api.command import REGISTRY
from controlplane.api.context import Context
from controlplane.api.responses import Response
from controlplane.db.base import Owned, Row
from controlplane.errors import BadParameter

_tables: dict[str, type[Row]] = {}


class ResourceTag(Owned, Row):
    """One tag of one object; ``resource_type`` is CloudStack's name of its kind (``UserVm``, ``Network`` …).

    The object is named by its UUID, which is never given again: what takes its place has none of its tags.
    """

    __tablename__ = "resource_tags"
    __table_args__ = (UniqueConstraint("resource_type", "resource_uuid", "key"),)

    resource_type: Mapped[str] = mapped_column(String(40))
    resource_uuid: Mapped[str] = mapped_column(String(40))
    key: Mapped[str] = mapped_column(String(255))
    value: Mapped[str] = mapped_column(String(255), default="")
    customer: Mapped[str | None] = mapped_column(String(255))


def taggable(resource_type: str, table: type[Row]) -> None:
    """Say that rows of the table can be tagged under this type name."""
    _tables[resource_type] = table


def table_of(resource_type: str) -> tuple[str, type[Row]]:
    """Return the type's name as it is spelled, and its table.

    :raises BadParameter: there is no such type.
    """
    listed = {
        command.taggable: command.table  # type: ignore[attr-defined]
        for command in REGISTRY.values()
        if getattr(command, "taggable", "")
    }
    known = listed | _tables
    for name, table in known.items():
        if name.lower() == resource_type.lower():
            return name, table
    raise BadParameter(f"Invalid parameter resourcetype value={resource_type}: it must be one of {', '.join(known)}.")


def tagged(table: Any, resource_type: str, wanted: Sequence[dict[str, str]]) -> ColumnElement[bool]:
    """Return the condition for rows that carry all of these tags.

    :param wanted: records of ``key`` and ``value``, or of a key and its value; without a value any will do.
    """
    condition: ColumnElement[bool] = table.id.is_not(None)
    for key, value in pairs_of(wanted):
        carries = select(ResourceTag.resource_uuid).where(
            ResourceTag.resource_type == resource_type, ResourceTag.key == key
        )
        condition &= table.uuid.in_(carries if value is None else carries.where(ResourceTag.value == value))
    return condition


def pairs_of(records: Sequence[dict[str, str]]) -> list[tuple[str, str | None]]:
    """Read tags in either form of a map: ``[0].key=env&[0].value=prod``, or ``[0].env=prod``.

    :return: key and value of each; None is any value.
    """
    pairs: list[tuple[str, str | None]] = []
    for record in records:
        pairs.extend([(record["key"], record.get("value"))] if "key" in record else record.items())
    return pairs


def move_tags(session: Session, resource_type: str, old: str, new: str) -> None:
    """Have the tags of an object follow it to its new UUID (``customid``)."""
    its = ResourceTag.resource_type == resource_type, ResourceTag.resource_uuid == old
    session.execute(update(ResourceTag).where(*its).values(resource_uuid=new))


@dataclass(kw_only=True)
class TagResponse(Response):
    """One tag of an object."""

    key: str
    value: str
    resourcetype: str | None = None
    resourceid: str | None = None
    account: str | None = None
    domain: str | None = None
    domainid: str | None = None
    domainpath: str | None = None
    customer: str | None = None


def tag_views(ctx: Context, rows: Sequence[ResourceTag]) -> list[TagResponse]:
    """Show tags."""
    from controlplane.identity.ownership import owner_fields  # which needs tagged() from here

    owners = owner_fields(ctx, rows)
    return [
        TagResponse(
            key=row.key,
            value=row.value,
            resourcetype=row.resource_type,
            resourceid=row.resource_uuid,
            customer=row.customer,
            **owners[row.account_id],
        )
        for row in rows
    ]


def tags_of(ctx: Context, resource_type: str, rows: Sequence[Row]) -> dict[int, list[TagResponse]]:
    """Return the tags of these rows by row number; a row without tags has an empty list."""
    found: dict[int, list[TagResponse]] = {row.id: [] for row in rows}
    numbers = {row.uuid: row.id for row in rows}
    query = select(ResourceTag).where(
        ResourceTag.resource_type == resource_type, ResourceTag.resource_uuid.in_(list(numbers))
    )
    tags = ctx.session.scalars(query.order_by(ResourceTag.id)).all()
    for tag, shown in zip(tags, tag_views(ctx, tags) if tags else [], strict=True):
        found[numbers[tag.resource_uuid]].append(shown)
    return found
