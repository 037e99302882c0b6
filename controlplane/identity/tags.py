"""Tags: key and value on any object of an account (createTags)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, String, UniqueConstraint, select
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.api.context import Context
from controlplane.api.responses import Response
from controlplane.db.base import Owned, Row


class ResourceTag(Owned, Row):
    """One tag of one object; ``resource_type`` is CloudStack's name of its kind (``UserVm``, ``Network`` …)."""

    __tablename__ = "resource_tags"
    __table_args__ = (UniqueConstraint("resource_type", "resource_id", "key"),)

    resource_type: Mapped[str] = mapped_column(String(40))
    resource_id: Mapped[int]
    resource_uuid: Mapped[str] = mapped_column(String(40))
    key: Mapped[str] = mapped_column(String(255))
    value: Mapped[str] = mapped_column(String(255), default="")
    customer: Mapped[str | None] = mapped_column(String(255))


def tagged(table: Any, resource_type: str, wanted: list[dict[str, str]]) -> ColumnElement[bool]:
    """Return the condition for rows that carry all of these tags (records of ``key`` and ``value``)."""
    condition: ColumnElement[bool] = table.id.is_not(None)
    for tag in wanted:
        carries = select(ResourceTag.resource_id).where(
            ResourceTag.resource_type == resource_type,
            ResourceTag.key == tag.get("key", ""),
            ResourceTag.value == tag.get("value", ""),
        )
        condition &= table.id.in_(carries)
    return condition


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
    customer: str | None = None


def tags_of(ctx: Context, resource_type: str, rows: Sequence[Row]) -> dict[int, list[TagResponse]]:
    """Return the tags of these rows by row number; a row without tags has an empty list."""
    found: dict[int, list[TagResponse]] = {row.id: [] for row in rows}
    query = select(ResourceTag).where(
        ResourceTag.resource_type == resource_type, ResourceTag.resource_id.in_(list(found))
    )
    for tag in ctx.session.scalars(query.order_by(ResourceTag.id)):
        found[tag.resource_id].append(
            TagResponse(
                key=tag.key,
                value=tag.value,
                resourcetype=resource_type,
                resourceid=tag.resource_uuid,
                customer=tag.customer,
            )
        )
    return found
