"""Configuration: named settings that operators change while the cloud runs.

A module that needs a setting defines it where it is used::

    GC_WAIT = define("network.gc.wait", 600, "Seconds that an idle network keeps its router", category="Network")
    …
    seconds = GC_WAIT.number(session, zone=zone.id)

The narrowest scope that has a value wins; nothing is cached, so a change is in force with its commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import String, Table, bindparam, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.db.base import Base

GLOBAL = "Global"
SCOPES = ("Global", "Zone", "Cluster", "StoragePool", "ImageStore", "Account", "Domain")


class ConfigurationValue(Base):
    """A value that differs from its default; ``scope_id`` is 0 in the global scope."""

    __tablename__ = "configuration"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    scope: Mapped[str] = mapped_column(String(20), primary_key=True, default=GLOBAL)
    scope_id: Mapped[int] = mapped_column(primary_key=True, default=0, autoincrement=False)
    value: Mapped[str] = mapped_column(String(4096))


_values = cast("Table", ConfigurationValue.__table__).c
_SET = select(_values.scope, _values.scope_id, _values.value).where(_values.name == bindparam("name"))


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting (listConfigurations).

    :param kind: ``Number``, ``Boolean``, ``String`` …: what a value must be.
    :param scopes: where it can be set beside the global scope.
    :param minimum: of a number, and ``maximum``.
    :param choices: of a text; empty is free.
    """

    name: str
    default: str
    kind: str
    description: str
    category: str
    scopes: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()

    def text(self, session: Session, **scopes: int | Sequence[int]) -> str:
        """Return the value in force.

        :param scopes: rows' numbers by scope name in lower case (``zone=3``); several stand in the order in which they
            count, such as a domain and those above it.
        """
        values = self._values(session)
        for scope in self.scopes:
            given = scopes.get(scope.lower(), ())
            for number in (given,) if isinstance(given, int) else given:
                found = values.get((scope, number))
                if found is not None:
                    return found
        return values.get((GLOBAL, 0), self.default)

    def texts(self, session: Session, scope: str, numbers: Iterable[int]) -> dict[int, str]:
        """Return the value in force for each of these rows of one scope, with one query."""
        values = self._values(session)
        everywhere = values.get((GLOBAL, 0), self.default)
        return {number: values.get((scope, number), everywhere) for number in numbers}

    def _values(self, session: Session) -> dict[tuple[str, int], str]:
        session.flush()
        return {(scope, number): value for scope, number, value in session.execute(_SET, {"name": self.name})}

    def number(self, session: Session, **scopes: int | Sequence[int]) -> int:
        """Return the value in force as a number."""
        return int(self.text(session, **scopes))

    def flag(self, session: Session, **scopes: int | Sequence[int]) -> bool:
        """Return the value in force as a boolean."""
        return self.text(session, **scopes).lower() == "true"


SETTINGS: dict[str, Setting] = {}
"""Every setting by its name."""


def define(
    name: str,
    default: int | str | bool,
    description: str,
    *,
    category: str = "Advanced",
    scopes: tuple[str, ...] = (),
    within: tuple[int | None, int | None] = (None, None),
    choices: tuple[str, ...] = (),
) -> Setting:
    """Define a setting; its kind is that of its default.

    :param scopes: beside ``Global``, the narrowest first.
    :param within: the least and the greatest number allowed.
    """
    assert name not in SETTINGS, f"the setting {name} is defined twice"
    kind = "Boolean" if isinstance(default, bool) else "Number" if isinstance(default, int) else "String"
    text = str(default).lower() if isinstance(default, bool) else str(default)
    SETTINGS[name] = Setting(name, text, kind, description, category, scopes, *within, choices)
    return SETTINGS[name]
