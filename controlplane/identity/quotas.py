"""Quotas: what accounts and domains have, may have and may still have, as their responses show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.api.responses import Response
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.limits import (
    ACCOUNT,
    DOMAIN,
    GIB,
    KINDS,
    UNLIMITED,
    Holder,
    ResourceCount,
    ResourceLimit,
    default_of,
)

_SHOWN_AS = {
    "user_vm": "vm",
    "public_ip": "ip",
    "volume": "volume",
    "snapshot": "snapshot",
    "template": "template",
    "project": "project",
    "network": "network",
    "vpc": "vpc",
    "cpu": "cpu",
    "memory": "memory",
    "primary_storage": "primarystorage",
    "secondary_storage": "secondarystorage",
}


@dataclass(kw_only=True)
class QuotaResponse(Response):
    """What somebody has (``total``), may have (``limit``) and may still have (``available``); storage in GiB."""

    vmlimit: str | None = None
    vmtotal: int | None = None
    vmavailable: str | None = None
    iplimit: str | None = None
    iptotal: int | None = None
    ipavailable: str | None = None
    volumelimit: str | None = None
    volumetotal: int | None = None
    volumeavailable: str | None = None
    snapshotlimit: str | None = None
    snapshottotal: int | None = None
    snapshotavailable: str | None = None
    templatelimit: str | None = None
    templatetotal: int | None = None
    templateavailable: str | None = None
    projectlimit: str | None = None
    projecttotal: int | None = None
    projectavailable: str | None = None
    networklimit: str | None = None
    networktotal: int | None = None
    networkavailable: str | None = None
    vpclimit: str | None = None
    vpctotal: int | None = None
    vpcavailable: str | None = None
    cpulimit: str | None = None
    cputotal: int | None = None
    cpuavailable: str | None = None
    memorylimit: str | None = None
    memorytotal: int | None = None
    memoryavailable: str | None = None
    primarystoragelimit: str | None = None
    primarystoragetotal: int | None = None
    primarystorageavailable: str | None = None
    secondarystoragelimit: str | None = None
    secondarystoragetotal: float | None = None
    secondarystorageavailable: str | None = None


def quota_fields(session: Session, rows: Sequence[Account] | Sequence[Domain]) -> dict[int, dict[str, Any]]:
    """Return, by row number, the fields of :class:`QuotaResponse` for rows of one table, with a few queries in all."""
    holders = [Holder.of(row) for row in rows]
    owner = DOMAIN if rows and isinstance(rows[0], Domain) else ACCOUNT
    numbers = [holder.number for holder in holders]
    limits = {(number, kind): most for number, kind, most in _rows(session, ResourceLimit, "max", owner, numbers)}
    counts = {(number, kind): count for number, kind, count in _rows(session, ResourceCount, "count", owner, numbers)}
    defaults = {kind: default_of(session, owner, kind) for kind in KINDS}
    fields: dict[int, dict[str, Any]] = {}
    for holder in holders:
        shown = fields[holder.number] = {}
        for kind, name in _SHOWN_AS.items():
            default = UNLIMITED if holder.exempt else defaults[kind]
            most, total = (
                limits.get((holder.number, kind), default),
                _as_shown(kind, counts.get((holder.number, kind), 0)),
            )
            shown[f"{name}limit"] = _words(most)
            shown[f"{name}total"] = total
            shown[f"{name}available"] = _words(most if most == UNLIMITED else max(0, most - int(total)))
    return fields


def _rows(session: Session, table: Any, column: str, owner: str, numbers: Sequence[int]) -> Sequence[Any]:
    query = select(table.owner_id, table.kind, getattr(table, column))
    return session.execute(query.where(table.owner == owner, table.owner_id.in_(numbers))).all()


def _as_shown(kind: str, count: int) -> int | float:
    if kind == "secondary_storage":
        return round(count / GIB, 2)
    return count // GIB if kind == "primary_storage" else count


def _words(amount: int) -> str:
    return "Unlimited" if amount == UNLIMITED else str(amount)
