"""Of every command that there is, whoever wrote it: what changes leaves an event, and what is another's is nobody else's."""

from __future__ import annotations

import inspect
import itertools
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select

from controlplane import rooms
from controlplane.api import http  # noqa: F401 - brings the commands that belong to the endpoint
from controlplane.api.caller import Role
from controlplane.api.command import REGISTRY
from controlplane.api.context import Context
from controlplane.db.base import Base, Owned, Row, UtcDateTime, now
from controlplane.db.secrets import Secret
from controlplane.errors import BadParameter
from controlplane.identity.accounts import Account
from controlplane.identity.ownership import OwnedListing
from tests.api.people import Company

rooms.enter()
READING = ("list", "get", "query", "find")
WITHOUT_EVENT = {
    "updateHypervisorCapabilities", "updateImageStore", "archiveEvents", "deleteEvents",
    "createInstanceGroup", "updateInstanceGroup", "deleteInstanceGroup",
}  # fmt: skip
"""Commands that change something and leave no event in CloudStack either."""
OPERATORS = {
    "AsnRange",
    "BgpPeer",
    "PhysicalNetwork",
    "StoragePool",
    "Host",
    "Cluster",
    "Pod",
    "OsCategory",
    "OsType",
    "Ipv6Prefix",
    "VlanRange",
}
"""Tables that nobody but the operator owns, and that parameters of everybody's commands may name."""
ANOTHERS_LISTS = {"listLoadBalancerRuleInstances": "they are those of a rule that the caller must own"}
NAMED = [
    (name, parameter)
    for name, command in sorted(REGISTRY.items())
    if Role.USER in command.roles
    for parameter in command.parameters().values()
    if parameter.table is not None and not parameter.declared.admin
]
"""What ordinary users' commands name by an id."""


def test_what_changes_something_leaves_an_event():
    silent = {name for name, command in REGISTRY.items() if not command.event and not name.startswith(READING)}
    assert silent == WITHOUT_EVENT


def test_users_lists_of_what_is_owned_are_narrowed_to_the_caller():
    wide = {
        name
        for name, command in REGISTRY.items()
        if Role.USER in command.roles
        and inspect.isclass(table := getattr(command, "table", None))
        and issubclass(table, Owned)
        and not issubclass(command, OwnedListing)
    }
    assert wide == set(ANOTHERS_LISTS)


def test_users_name_what_has_an_owner_or_is_the_operators():
    ownerless = {
        p.table.__name__ for _, p in NAMED if not issubclass(p.table, Owned) and not hasattr(p.table, "visible_to")
    }
    assert ownerless <= OPERATORS


@pytest.fixture
def company(cloud):
    return Company(cloud)


class Maker:
    """Makes a row of any table for an account, with rows of all that it must refer to."""

    def __init__(self, session: Any, owner: Account) -> None:
        self.session, self.owner, self.numbers = session, owner, itertools.count(100)
        self.made: dict[type[Any], Any] = {}

    def row(self, table: type[Any]) -> Any:
        if table not in self.made:
            columns = [column for column in table.__mapper__.columns if not self._fills_itself(column)]
            names = {column: table.__mapper__.get_property_by_column(column).key for column in columns}
            row = table(**{names[column]: self._value(column) for column in columns})
            self.session.add(row)
            self.session.flush()
            self.made[table] = row
        return self.made[table]

    def _fills_itself(self, column: Any) -> bool:
        # an optional parent would have its say in whose the row is
        return column.primary_key or column.default is not None or (column.nullable and column.key != "vpc_id")

    def _value(self, column: Any) -> Any:
        if column.key in ("account_id", "domain_id"):
            return self.owner.id if column.key == "account_id" else self.owner.domain_id
        for key in column.foreign_keys:
            (table,) = (m.class_ for m in Base.registry.mappers if m.local_table is key.column.table)
            return self.row(table).id
        if isinstance(column.type, Secret):
            return "x"
        kind = datetime if isinstance(column.type, UtcDateTime) else column.type.python_type
        number = next(self.numbers)
        return {str: f"x{number}", int: number, bool: False, datetime: now()}.get(kind, [] if kind is list else {})


def test_no_command_finds_by_an_id_what_is_anothers(cloud, company):
    """Every parameter of every command that names a row of an account, whichever table and whoever wrote it."""
    company.account("sam")
    sam, laura = company("sam"), company("laura")
    with cloud.database.write() as session:
        maker = Maker(session, session.scalars(select(Account).where(Account.name == "sam")).one())
        tables = {p.table for _, p in NAMED if issubclass(p.table, Owned) and p.table is not Account}
        assert len(tables) > 20
        ids = {table: maker.row(table).uuid for table in tables}
    with cloud.database.read() as session:
        for name, parameter in NAMED:
            if parameter.table in ids:
                found = _find(session, sam, parameter, ids)
                assert [row.uuid for row in found] == [ids[parameter.table]], (name, parameter.name)
                with pytest.raises(BadParameter, match="or it is not yours to use"):
                    print(name, parameter.name, _find(session, laura, parameter, ids))


def _find(session: Any, whose: Any, parameter: Any, ids: dict[Any, str]) -> list[Row]:
    found = parameter.convert(ids[parameter.table], Context(session, whose.caller).find)
    return found if isinstance(found, list) else [found]
