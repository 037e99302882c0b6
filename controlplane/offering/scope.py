"""Scope: which domains and zones may use an offering. No domain means everybody, no zone means everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, String, exists, or_, select, true

from controlplane.api.caller import Caller, Role
from controlplane.api.context import Context
from controlplane.db.base import Row
from controlplane.errors import BadParameter
from controlplane.identity.domains import Domain
from controlplane.zone.zones import Zone


def usable_by(table: Any, caller: Caller) -> ColumnElement[bool]:
    """Return the condition for offerings that are public or for a domain on the caller's path.

    A domain admin also sees those for domains below the own one.
    """
    if caller.role is Role.ADMIN:
        return true()
    listed = table.domain_uuids.cast(String)
    path = [int(part) for part in caller.domain_path.split("/") if part]
    mine: ColumnElement[bool] = Domain.id.in_(path)
    if caller.role is Role.DOMAIN_ADMIN:
        mine = or_(mine, Domain.path.startswith(caller.domain_path, autoescape=True))
    return or_(listed == "[]", exists(select(Domain.id).where(mine, listed.contains(Domain.uuid))))


def in_zone(table: Any, zone: Zone) -> ColumnElement[bool]:
    """Return the condition for offerings that may be used in the zone."""
    listed = table.zone_uuids.cast(String)
    return or_(listed == "[]", listed.contains(zone.uuid))


def for_domain(table: Any, domain: Domain) -> ColumnElement[bool]:
    """Return the condition for offerings that are public or name this domain."""
    listed = table.domain_uuids.cast(String)
    return or_(listed == "[]", listed.contains(domain.uuid))


def has(column: Any, item: str) -> ColumnElement[bool]:
    """Return the condition that a JSON column holds this text as an item or a key."""
    return column.cast(String).contains(f'"{item}"')  # type: ignore[no-any-return]


def retire(ctx: Context, offering: Any) -> None:
    """Take an offering away from everybody; what has it keeps it.

    :raises BadParameter: it is one of the standard catalogue.
    """
    if offering.default:
        raise BadParameter(
            f"Invalid parameter id value={offering.uuid}: {offering.name} is a default offering; disable it instead."
        )
    offering.removed, offering.state = ctx.now, "Disabled"


def scope_fields(ctx: Context, rows: Sequence[Any]) -> dict[int, dict[str, str]]:
    """Return, by row number, the fields ``domain``, ``domainid``, ``zone`` and ``zoneid`` as far as there are any."""
    domains = _names(ctx, Domain, {uuid for row in rows for uuid in row.domain_uuids}, "name_path")
    zones = _names(ctx, Zone, {uuid for row in rows for uuid in row.zone_uuids}, "name")
    fields: dict[int, dict[str, str]] = {}
    for row in rows:
        mine: dict[str, str] = {}
        if row.domain_uuids:
            mine["domainid"] = ",".join(row.domain_uuids)
            mine["domain"] = ",".join(domains.get(uuid, uuid) for uuid in row.domain_uuids)
        if row.zone_uuids:
            mine["zoneid"] = ",".join(row.zone_uuids)
            mine["zone"] = ",".join(zones.get(uuid, uuid) for uuid in row.zone_uuids)
        fields[row.id] = mine
    return fields


def _names(ctx: Context, table: Any, uuids: set[str], column: str) -> dict[str, str]:
    if not uuids:
        return {}
    query = select(table.uuid, getattr(table, column)).where(table.uuid.in_(uuids))
    return {uuid: name for uuid, name in ctx.session.execute(query)}


def rescoped(ctx: Context, table: type[Row], text: str, parameter: str) -> list[str]:
    """Read an update's ``domainid`` or ``zoneid``: UUIDs with commas between, or ``public`` or ``all`` for no limit.

    :raises BadParameter: one of them does not exist.
    """
    if text.strip().lower() in ("public", "all", ""):
        return []
    return [ctx.find(table, part.strip(), parameter).uuid for part in text.split(",") if part.strip()]


def uuids(rows: Sequence[Row] | None) -> list[str]:
    """Return the UUIDs of these rows, each once."""
    return list(dict.fromkeys(row.uuid for row in rows or ()))
