"""Listing: filters, ownership, paging and order, the same for every list command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from sqlalchemy import ColumnElement, Select, func, or_, select

from controlplane.api.command import Command
from controlplane.api.context import Context, visible
from controlplane.api.parameters import optional
from controlplane.db.base import Removable, Row
from controlplane.errors import BadParameter

PAGE = 500
Item = TypeVar("Item")


class ListCommand(Command):
    """A list of one table's rows.

    :cvar table: the rows listed.
    :cvar keywords: the columns that ``keyword`` is looked for in.
    :cvar order: the order of the rows; newest first by default.
    """

    writes: ClassVar[bool] = False
    table: ClassVar[type[Row]]
    keywords: ClassVar[tuple[Any, ...]] = ()
    order: ClassVar[tuple[Any, ...]] = ()

    keyword: str | None = optional()
    page: int | None = optional()
    pagesize: int | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Add what the declared filters cannot say."""
        del ctx
        return query

    def run(self, ctx: Context) -> tuple[Sequence[Any], int]:
        """Return one page of rows, and the number of all that match; no row where only the number is asked for."""
        query = self.narrow(ctx, self.matching_rows(ctx))
        limit, offset = self.window()
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

    def window(self) -> tuple[int | None, int]:
        """Return limit and offset of the page that is asked for."""
        return window(self.page, self.pagesize)


def window(page: int | None, size: int | None) -> tuple[int | None, int]:
    """Return limit and offset of a page.

    :raises BadParameter: page without pagesize or the other way round, or a page that is too large.
    """
    if size == -1 and page is None:
        return None, 0
    if (page is None) != (size is None):
        raise BadParameter("Invalid parameter page: page and pagesize go together.")
    if page is None or size is None:
        return PAGE, 0
    if page < 1 or not 1 <= size <= PAGE:
        raise BadParameter(
            f"Invalid parameter pagesize value={size}: page counts from 1 and a page has 1 to {PAGE} items."
        )
    return size, (page - 1) * size


def page_of(items: Sequence[Item], page: int | None, size: int | None) -> tuple[Sequence[Item], int]:
    """Return one page of what is in no table, and the number of all.

    :raises BadParameter: as :func:`window` does.
    """
    limit, offset = window(page, size)
    return items[offset : None if limit is None else offset + limit], len(items)


def _equals(column: Any, value: Any) -> ColumnElement[bool]:
    if isinstance(value, list):
        return column.in_([_number(item) for item in value])  # type: ignore[no-any-return]
    if isinstance(value, str):
        return func.lower(column) == value.lower()
    return column == _number(value)  # type: ignore[no-any-return]


def _number(value: Any) -> Any:
    return value.id if isinstance(value, Row) else value
