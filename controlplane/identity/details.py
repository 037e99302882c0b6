"""Details: names and values that an object has beside its fields (addResourceDetail), kept in a column of its row.

A room says which of its types have them, and what they may be::

    detailed(Detailed("Network", Network, "details", check))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, select, true

from controlplane.api.context import Context, entity_name
from controlplane.db.base import Row
from controlplane.errors import BadParameter

Check = Callable[[Context, Any, dict[str, str]], None]
"""Sees the row as it is to be, and the details that the caller gives; raises ApiError, or touches what is changed."""

_types: dict[str, Detailed] = {}


@dataclass(frozen=True, slots=True)
class Detailed:
    """A type of object that has details.

    :param name: CloudStack's name of the type (``UserVm``).
    :param column: the attribute of its rows that holds the details.
    :param check: what the room does with a change before it is accepted.
    :param only: the condition for the table's rows that are of this type.
    :param fixed: names that are not for these commands, and the command that changes each.
    :param shown: tells whether a detail of this name may be listed.
    """

    name: str
    table: Any
    column: str
    check: Check
    only: ColumnElement[bool] = field(default_factory=true)
    fixed: Mapping[str, str] = field(default_factory=dict)
    shown: Callable[[str], bool] = lambda _name: True

    def find(self, ctx: Context, uuid: str) -> Row:
        """Return the object of this type with this UUID.

        :raises BadParameter: there is none that the caller may see.
        """
        row = ctx.find(self.table, uuid, "resourceid")
        if ctx.session.scalar(select(self.table.id).where(self.table.id == row.id, self.only)) is None:
            raise BadParameter(
                f"Invalid parameter resourceid value={uuid}: "
                f"no {entity_name(self.table)} with this id exists that is of the type {self.name}."
            )
        return row

    def of(self, row: Row) -> dict[str, str]:
        """Return the details that these commands are for."""
        return {name: value for name, value in self._all(row).items() if name not in self.fixed}

    def give(self, ctx: Context, row: Row, given: dict[str, str]) -> None:
        """Give the object these details beside those that it has; of the same name, the new one stands.

        :raises ApiError: the room will not have one of them.
        """
        self._change(ctx, row, self._all(row) | given, given)

    def take(self, ctx: Context, row: Row, names: set[str]) -> None:
        """Take these details away.

        :raises ApiError: the object cannot be without them.
        """
        kept = {name: value for name, value in self._all(row).items() if name not in names}
        self._change(ctx, row, kept, {})

    def refuse_fixed(self, parameter: str, name: str) -> None:
        """Refuse the name of a detail that another command is for.

        :raises BadParameter: the sentence names that command.
        """
        if name in self.fixed:
            raise BadParameter(f"Invalid parameter {parameter}: {name} is changed by {self.fixed[name]}.")

    def _all(self, row: Row) -> dict[str, str]:
        return dict(getattr(row, self.column))

    def _change(self, ctx: Context, row: Row, details: dict[str, str], given: dict[str, str]) -> None:
        setattr(row, self.column, details)
        self.check(ctx, row, given)


def detailed(kind: Detailed) -> None:
    """Say that a type of object has details."""
    _types[kind.name.lower()] = kind


def type_named(name: str) -> Detailed:
    """Return the type of this name, in any case of letters.

    :raises BadParameter: there is none that has details.
    """
    kind = _types.get(name.lower())
    if kind is None:
        known = ", ".join(sorted(known.name for known in _types.values()))
        raise BadParameter(f"Invalid parameter resourcetype value={name}: it must be one of {known}.")
    return kind
