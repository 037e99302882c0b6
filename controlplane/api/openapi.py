"""OpenAPI: the query API as an OpenAPI 3.1 document, made from the registry.

OpenAPI has no word for "the query parameter ``command`` selects the operation", so each command is a path of its own,
``/client/api?command=…``, as generators of clients accept it.
"""

from __future__ import annotations

from typing import Any

from controlplane.api.command import REGISTRY, Command
from controlplane.api.discovery import Field, answer_fields, meaning_of, summary_of
from controlplane.api.envelope import VERSION
from controlplane.api.parameters import Parameter

_SCHEMAS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "uuid": {"type": "string", "format": "uuid"},
    "date": {"type": "string", "format": "date-time"},
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "format": "int32"},
    "short": {"type": "integer", "format": "int32"},
    "long": {"type": "integer", "format": "int64"},
    "double": {"type": "number"},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
    "responseobject": {"type": "object"},
}
_ERROR = {
    "type": "object",
    "required": ["uuidList", "errorcode", "errortext"],
    "properties": {
        "uuidList": {"type": "array", "items": {"type": "object"}},
        "errorcode": {"type": "integer"},
        "cserrorcode": {"type": "integer"},
        "errortext": {"type": "string"},
    },
}


def document() -> dict[str, Any]:
    """Return the OpenAPI document of every command that is registered."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Netspine query API",
            "version": VERSION,
            "description": "Apache CloudStack's query API. POST takes the same parameters as a form.",
        },
        "servers": [{"url": "http://127.0.0.1:8080"}],
        "security": [{"apiKey": [], "signature": []}, {"session": [], "sessionKey": []}],
        "paths": {f"/client/api?command={name}": _path(REGISTRY[name]) for name in sorted(REGISTRY)},
        "components": {"schemas": {"Error": _ERROR}, "securitySchemes": _security()},
    }


def _security() -> dict[str, Any]:
    def key(name: str, where: str, description: str) -> dict[str, str]:
        return {"type": "apiKey", "in": where, "name": name, "description": description}

    return {
        "apiKey": key("apiKey", "query", "Names the user."),
        "signature": key("signature", "query", "Base64 of HMAC-SHA1 over the sorted parameters."),
        "session": key("JSESSIONID", "cookie", "Set by login."),
        "sessionKey": key("sessionkey", "query", "Answered by login; the cookie of this name does as well."),
    }


def _path(command: type[Command]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": command.command,
        "summary": summary_of(command),
        "tags": [group_of(command)],
        "parameters": [_parameter(parameter) for parameter in command.parameters().values()],
        "responses": {"200": _answer(command), "default": _refusal()},
    }
    if not command.authenticated:
        operation["security"] = []
    return {"post" if command.post else "get": operation}


def group_of(command: type[Command]) -> str:
    """Return the room that the command is in: the package of its module."""
    return command.__module__.split(".")[1]


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema = dict(_SCHEMAS.get(parameter.type, {"type": "array", "items": _SCHEMAS.get(parameter.of, {})}))
    if parameter.declared.choices:
        schema["enum"] = list(parameter.declared.choices)
    if parameter.type == "string":
        schema["maxLength"] = parameter.declared.length
    found: dict[str, Any] = {"name": parameter.name, "in": "query", "description": meaning_of(parameter)}
    if parameter.declared.required:
        found["required"] = True
    if parameter.type == "list":
        found |= {"style": "form", "explode": False}
    if parameter.type == "map":
        found["description"] += "; sent as name[0].key=…&name[0].value=…"
    return found | {"schema": schema}


def _answer(command: type[Command]) -> dict[str, Any]:
    inside = _inside(command)
    envelope = {"type": "object", "required": [command.envelope], "properties": {command.envelope: inside}}
    return {"description": "Done", "content": {"application/json": {"schema": envelope}}}


def _inside(command: type[Command]) -> dict[str, Any]:
    if command.job:
        made = {"id": _SCHEMAS["uuid"]} if command.creates else {}
        return {"type": "object", "required": ["jobid"], "properties": {"jobid": _SCHEMAS["uuid"], **made}}
    fields = _objects(answer_fields(command))
    match command.answer.kind:
        case "one":
            return {"type": "object", "properties": {command.answer.key: fields}}
        case "many":
            items = {"type": "array", "items": fields}
            return {"type": "object", "properties": {"count": {"type": "integer"}, command.answer.key: items}}
        case _:
            return fields


def _objects(fields: tuple[Field, ...]) -> dict[str, Any]:
    return {"type": "object", "properties": {field.name: _field(field) for field in fields}}


def _field(field: Field) -> dict[str, Any]:
    inner = _objects(field.inner) if field.inner else {}
    if field.type == "list":
        return {"type": "array", "items": inner, "description": field.description}
    return (inner or dict(_SCHEMAS[field.type])) | {"description": field.description}


def _refusal() -> dict[str, Any]:
    schema = {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Error"}}
    return {"description": "Refused; the status is errorcode", "content": {"application/json": {"schema": schema}}}
