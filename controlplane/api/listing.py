"""Listing: filters, ownership, paging and order, the same for every list command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.orm import Session

from controlplane.api.command import Command
from controlplane.api.context import Context, visible
from controlplane.api.parameters import optional
from controlplane.db.base import Removable, Row
from controlplane.db.configuration import define
from controlplane.errors import BadParameter

UNLIMITED = -1
PAGE_SIZE = define(
    "default.page.size",
    500,
    "Items that a list answers with where no page is asked for, and the most that a page may have; -1 is unlimited",
    within=(UNLIMITED, None),
)
Item = TypeVar("Item")


class Paged(Command):
    """A list that is answered in pages."""

    writes: ClassVar[bool] = False

    page: int | None = optional()
    pagesize: int | None = optional()

    def window(self, session: Session) -> tuple[int | None, int]:
        """Return limit and offset of the page that is asked for; no limit is None.

        :raises BadParameter: there is no such page, or it is larger than the setting allows.
        """
        page, size, most = self.page, self.pagesize, PAGE_SIZE.number(session)
        if page is None and size in (None, UNLIMITED):
            return (most if size is None and most > 0 else None), 0
        if page is None or size is None:
            raise BadParameter("Invalid parameter page: page and pagesize go together.")
        if size == UNLIMITED:
            raise BadParameter(f"Invalid parameter page value={page}: pagesize -1 is unlimited, so leave page out.")
        if page < 1 or size < 1:
            name, value = ("page", page) if page < 1 else ("pagesize", size)
            raise BadParameter(f"Invalid parameter {name} value={value}: it must be at least 1.")
        if size > most > 0:
            raise BadParameter(
                f"Invalid parameter pagesize value={size}: page size can't exceed max allowed page size value: {most} "
                f"(the setting {PAGE_SIZE.name})."
            )
        return size, (page - 1) * size

    def page_of(self, session: Session, items: Sequence[Item]) -> tuple[Sequence[Item], int]:
        """Return one page of what is in no table, and the number of all.

        :raises BadParameter: as :meth:`window` does.
        """
        limit, offset = self.window(session)
        return items[offset : None if limit is None else offset + limit], len(items)


class ListCommand(Paged):
    """A list of one table's rows.

    :cvar table: the rows listed.
    :cvar keywords: the columns that ``keyword`` is looked for in.
    :cvar order: the order of the rows; newest first by default.
    """

    table: ClassVar[type[Row]]
    keywords: ClassVar[tuple[Any, ...]] = ()
    order: ClassVar[tuple[Any, ...]] = ()

    keyword: str | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Add what the declared filters cannot say."""
        del ctx
        return query

    def run(self, ctx: Context) -> tuple[Sequence[Any], int]:
        """Return one page of rows, and the number of all that match; no row where only the number is asked for."""
        query = self.narrow(ctx, self.matching_rows(ctx))
        limit, offset = self.window(ctx.session)
        order = self.order or (self.table.id.desc(),)
        rows: list[Any] = []
        if not getattr(self, "retrieveonlyresourcecount", None):
            rows = list(ctx.session.scalars(query.order_by(*order).limit(limit).offset(offset)).unique())
            if offset == 0 and (limit is None or len(rows) < limit):
                return rows, len(rows)
        count = ctx.session.scalar(select(func.count()).select_from(query.order_by(None).subquery()))
        return rows, count or 0

    def matching_rows(self, ctx: Context) -> Select[Any]:
        """Return the query for the rows that the caller may see and the declared filters let through."""
        query = select(self.table).where(visible(self.table, ctx.caller))
        if issubclass(self.table, Removable) and not getattr(self, "showremoved", None):
            query = query.where(self.table.removed.is_(None))
        for name, parameter in self.parameters().items():
            value = getattr(self, name)
            if parameter.declared.matches is not None and value is not None:
                query = query.where(_equals(parameter.declared.matches, value))
        word = self.keyword
        if word and self.keywords:
            query = query.where(or_(*(column.icontains(word, autoescape=True) for column in self.keywords)))
        return query


def _equals(column: Any, value: Any) -> ColumnElement[bool]:
    if isinstance(value, list):
        return column.in_([_number(item) for item in value])  # type: ignore[no-any-return]
    if isinstance(value, str):
        return func.lower(column) == value.lower()
    return column == _number(value)  # type: ignore[no-any-return]


def _number(value: Any) -> Any:
    return value.id if isinstance(value, Row) else value
