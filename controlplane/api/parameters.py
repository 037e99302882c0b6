"""Parameters: how a command class declares them, and how their text becomes a value.

A class names a parameter as an annotated field::

    zoneid: Zone = required()
    name: str | None = optional(length=100)

The annotation says the type; a table class means the UUID of a row that the caller may see.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any, NewType, Union

from controlplane.db.base import Row
from controlplane.errors import BadMap, BadParameter

Long = NewType("Long", int)
"""An integer that the API calls ``long``."""
Short = NewType("Short", int)
"""An integer that the API calls ``short``."""
Uuid = NewType("Uuid", str)
"""A UUID that is not looked up while the parameters are read."""
Records = NewType("Records", list)  # type: ignore[type-arg]
"""A map parameter in record form: a list of field → value, in the order of its indices."""

Table = type[Row]
Find = Callable[[Table, str, str], Row]
"""Returns the row of a table with this UUID; the third argument is the parameter's name."""

DEFAULT_LENGTH = 255
_MAP_NAME = re.compile(r"([^\[\]]+)\[(\d+)\]\.(.+)")


@dataclass(frozen=True, slots=True)
class Declared:
    """What a class says of a parameter beyond its type.

    :param length: of a string, in characters.
    :param choices: the values allowed, in any case of letters; the caller's spelling becomes the one given here.
    :param check: raises ValueError with the end of a sentence when the value will not do.
    :param admin: only a root admin may give it.
    :param matches: the column that a list command compares with it.
    :param uses: what the row is must not change: the caller need not own it, where others may use such rows.
    """

    required: bool = False
    default: Any = None
    length: int = DEFAULT_LENGTH
    choices: tuple[str, ...] = ()
    check: Callable[[Any], Any] | None = None
    description: str = ""
    admin: bool = False
    matches: Any = None
    uses: bool = False
    since: str = ""


def required(
    *,
    length: int = DEFAULT_LENGTH,
    choices: tuple[str, ...] = (),
    check: Callable[[Any], Any] | None = None,
    description: str = "",
    uses: bool = False,
) -> Any:
    """Declare a parameter that must be given."""
    return Declared(required=True, length=length, choices=choices, check=check, description=description, uses=uses)


def optional(
    default: Any = None,
    *,
    length: int = DEFAULT_LENGTH,
    choices: tuple[str, ...] = (),
    check: Callable[[Any], Any] | None = None,
    description: str = "",
    admin: bool = False,
    uses: bool = False,
) -> Any:
    """Declare a parameter that may be left out, and what it then is."""
    return Declared(False, default, length, choices, check, description, admin, uses=uses)


def matching(column: Any, *, choices: tuple[str, ...] = (), description: str = "", admin: bool = False) -> Any:
    """Declare a list command's filter: only rows whose column equals the value."""
    return Declared(matches=column, choices=choices, description=description, admin=admin)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of one command.

    :param type: CloudStack's name of the type: ``string``, ``uuid``, ``boolean``, ``integer``, ``long``, ``list`` …
    :param of: of a list, the type of its items.
    :param table: of a uuid (or a list of them), the table that it names a row of.
    """

    name: str
    type: str
    declared: Declared
    of: str = ""
    table: Table | None = None
    records: bool = False

    def convert(self, text: str, find: Find) -> Any:
        """Turn the text into the value.

        :param find: returns the row of a table with this UUID; the third argument is the parameter's name.
        :raises BadParameter: it cannot be read, is too long, or names nothing that the caller may see.
        """
        if self.type == "list":
            items = [item.strip() for item in text.split(",") if item.strip()]
            return [self._item(self.of, item, find) for item in items]
        value = self._item(self.type, text, find)
        return self.vetted(value)

    def _item(self, kind: str, text: str, find: Find) -> Any:
        if kind == "uuid" and self.table is not None:
            return find(self.table, text, self.name)
        if len(text) > self.declared.length:
            raise BadParameter(
                f"Invalid parameter {self.name}: it has {len(text)} characters, and {self.declared.length} are allowed."
            )
        try:
            return READERS[kind](text)
        except ValueError as error:
            raise BadParameter(f"Invalid parameter {self.name} value={text}: {error}.") from None

    def vetted(self, value: Any) -> Any:
        """Return the value in its declared spelling.

        :raises BadParameter: it is none of the choices, or its check will not have it.
        """
        choices = self.declared.choices
        if choices:
            spelled = {choice.lower(): choice for choice in choices}
            if str(value).lower() not in spelled:
                raise BadParameter(
                    f"Invalid parameter {self.name} value={value}: it must be one of {', '.join(choices)}."
                )
            value = spelled[str(value).lower()]
        if self.declared.check is not None:
            try:
                value = self.declared.check(value)
            except ValueError as error:
                raise BadParameter(f"Invalid parameter {self.name} value={value}: {error}.") from None
        return value


def describe(name: str, hint: Any, declared: Declared) -> Parameter:
    """Make the parameter that a class's annotation and declaration mean.

    :raises TypeError: the annotation has no form in the API.
    """
    kind = _bare(hint)
    if kind is Records or typing.get_origin(kind) is dict:
        return Parameter(name, "map", declared, records=kind is Records)
    if typing.get_origin(kind) is list:
        (item,) = typing.get_args(kind)
        inner = describe(name, item, declared)
        return Parameter(name, "list", declared, of=inner.type, table=inner.table)
    if isinstance(kind, type) and issubclass(kind, Row):
        return Parameter(name, "uuid", declared, table=kind)
    if kind in TYPES:
        return Parameter(name, TYPES[kind], declared)
    raise TypeError(f"Parameter {name}: {hint!r} has no form in the API.")


def _bare(hint: Any) -> Any:
    if typing.get_origin(hint) in (Union, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    return hint


def read_bool(text: str) -> bool:
    """Read a boolean: ``true`` in any case is true, anything else is false."""
    return text.strip().lower() == "true"


def read_int(text: str) -> int:
    """Read a decimal integer."""
    if not re.fullmatch(r"-?\d{1,18}", text.strip()):
        raise ValueError("it must be a whole number")
    return int(text)


def read_float(text: str) -> float:
    """Read a decimal number."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError("it must be a number") from None
    if not math.isfinite(value):
        raise ValueError("it must be a finite number")
    return value


_DATE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[ T'](?:T')?(\d\d:\d\d:\d\d)(?:\.\d+)?'?(Z|'Z'|[+-]\d\d:?\d\d)*)?")


def read_date(text: str) -> datetime:
    """Read a date, with or without time and zone; without a zone it is UTC."""
    match = _DATE.fullmatch(text.strip())
    if not match:
        raise ValueError("it must be a date such as 2030-01-31 or 2030-01-31T13:00:00+0000")
    day, clock, zone = match.groups()
    moment = datetime.fromisoformat(day)
    if clock:
        moment = datetime.combine(moment, time.fromisoformat(clock))
    offset = (zone or "+0000").strip("'").replace("Z", "+0000").replace(":", "")
    return datetime.strptime(f"{moment:%Y-%m-%dT%H:%M:%S}{offset}", "%Y-%m-%dT%H:%M:%S%z").astimezone(UTC)


READERS: dict[str, Callable[[str], Any]] = {
    "string": str,
    "uuid": str,
    "boolean": read_bool,
    "integer": read_int,
    "long": read_int,
    "short": read_int,
    "double": read_float,
    "date": read_date,
}
TYPES: dict[Any, str] = {
    str: "string",
    Uuid: "uuid",
    bool: "boolean",
    int: "integer",
    Long: "long",
    Short: "short",
    float: "double",
    datetime: "date",
}


def read_maps(raw: Mapping[str, str]) -> tuple[dict[str, str], dict[str, list[dict[str, str]]]]:
    """Split what came in into plain parameters and maps; names become lower case, the fields of maps keep theirs.

    :raises BadMap: the name of a map parameter is malformed.
    """
    plain: dict[str, str] = {}
    maps: dict[str, dict[int, dict[str, str]]] = {}
    for key, value in raw.items():
        if "[" not in key:
            plain[key.lower()] = value
            continue
        match = _MAP_NAME.fullmatch(key)
        if not match:
            raise BadMap(f"Invalid parameter {key}: a map parameter is written name[0].field.")
        name, index, field = match.groups()
        maps.setdefault(name.lower(), {}).setdefault(int(index), {})[field] = value
    return plain, {name: [rows[index] for index in sorted(rows)] for name, rows in maps.items()}


def as_pairs(records: list[dict[str, str]]) -> dict[str, str]:
    """Read a map in either of its two forms: ``[0].cpuNumber=2`` or ``[0].key=cpuNumber&[0].value=2``."""
    pairs: dict[str, str] = {}
    for record in records:
        if "key" in record and "value" in record:
            pairs[record["key"]] = record["value"]
        else:
            pairs.update(record)
    return pairs
