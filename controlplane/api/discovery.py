"""Discovery: every command's description, made from its class, for listApis, OpenAPI and the documents.

The registry does not change once all rooms are entered, so a description is made once a process; which of them a
caller gets is decided anew each time.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections import defaultdict
from datetime import datetime
from functools import cache
from typing import Any, Union

from controlplane.api.command import REGISTRY, Command
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import Long, Parameter, Table
from controlplane.api.responses import Response
from controlplane.api.words import describe_field, describe_parameter

FIELD_TYPES: dict[Any, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    Long: "long",
    float: "double",
    datetime: "date",
}
JOB_FIELDS = (
    ("jobid", "string", "Id of the job, for queryAsyncJobResult"),
    ("jobstatus", "integer", "0 pending, 1 succeeded, 2 failed, 3 cancelled"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One field of a response.

    :ivar type: CloudStack's name of the type: ``string``, ``integer``, ``list`` …
    :ivar inner: the fields of the objects in it.
    """

    name: str
    type: str
    description: str
    inner: tuple[Field, ...] = ()


def summary_of(command: type[Command]) -> str:
    """Return the one sentence that says what the command does: the first of its docstring."""
    return (command.__doc__ or "").strip().splitlines()[0]


def fields_of(response: type[Response]) -> tuple[Field, ...]:
    """Return the fields of a response class, in the order of their declaration."""
    hints = typing.get_type_hints(response)
    return tuple(_field(field.name, hints[field.name]) for field in dataclasses.fields(response))


def answer_fields(command: type[Command]) -> tuple[Field, ...]:
    """Return the fields of a command's answer: of its object, or of an answer without one."""
    if command.answer.response is not None:
        return fields_of(command.answer.response)
    return (
        Field("success", "boolean", describe_field("success")),
        Field("displaytext", "string", describe_field("displaytext")),
    )


def meaning_of(parameter: Parameter) -> str:
    """Return what a parameter means: what its declaration says, or the word for its name."""
    return parameter.declared.description or describe_parameter(parameter.name)


def related_to(command: type[Command]) -> str:
    """Return the other commands that answer with the same kind of object, separated by commas."""
    same = _by_response().get(command.answer.response, ()) if command.answer.response else ()
    return ",".join(name for name in same if name != command.command)


@cache
def entry(name: str) -> dict[str, Any]:
    """Return the entry in listApis of the command of this name."""
    command = REGISTRY[name]
    found: dict[str, Any] = {
        "name": command.command,
        "description": summary_of(command),
        "isasync": command.job,
        "related": related_to(command),
        "params": [_parameter_entry(parameter) for parameter in command.parameters().values()],
        "response": [_field_entry(field) for field in answer_fields(command)],
    }
    if command.job:
        present = {field["name"] for field in found["response"]}
        found["response"] += [_field_entry(Field(*field)) for field in JOB_FIELDS if field[0] not in present]
    return found


def _parameter_entry(parameter: Parameter) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": parameter.name,
        "description": meaning_of(parameter),
        "type": parameter.type,
        "length": parameter.declared.length,
        "required": parameter.declared.required,
    }
    if parameter.declared.since:
        found["since"] = parameter.declared.since
    if parameter.table is not None:
        found["related"] = ",".join(_by_table().get(parameter.table, ()))
    return found


def _field_entry(field: Field) -> dict[str, Any]:
    found: dict[str, Any] = {"name": field.name, "description": field.description, "type": field.type}
    if field.inner:
        found["response"] = [_field_entry(inner) for inner in field.inner]
    return found


def _field(name: str, hint: Any) -> Field:
    if typing.get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    origin, inner = typing.get_origin(hint), hint
    if origin in (list, tuple):
        kind, inner = "list", typing.get_args(hint)[0]
    elif hint is dict or origin is dict:
        kind = "map"
    else:
        kind = FIELD_TYPES.get(hint, "responseobject")
    nested = isinstance(inner, type) and issubclass(inner, Response)
    return Field(name, kind, describe_field(name), fields_of(inner) if nested else ())


@cache
def _by_response() -> dict[type[Response], tuple[str, ...]]:
    found: dict[type[Response], list[str]] = defaultdict(list)
    for name, command in sorted(REGISTRY.items()):
        if command.answer.response is not None:
            found[command.answer.response].append(name)
    return {response: tuple(names) for response, names in found.items()}


@cache
def _by_table() -> dict[Table, tuple[str, ...]]:
    """The list commands of each table: where a client finds the ids that a parameter wants."""
    found: dict[Table, list[str]] = defaultdict(list)
    for name, command in sorted(REGISTRY.items()):
        if issubclass(command, ListCommand):
            found[command.table].append(name)
    return {table: tuple(names) for table, names in found.items()}
