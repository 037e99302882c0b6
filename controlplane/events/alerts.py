"""Alerts: what an operator must look at (listAlerts).

Whoever notices something raises an alert; while the condition lasts there is one row for it, however often it is
noticed. When the condition is over, whoever noticed that clears it, and the next time is a new alert.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Select, String, UniqueConstraint, and_, delete, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.api.caller import ADMINS
from controlplane.api.command import Command, many, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import Short, matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Created, Row, now
from controlplane.errors import BadParameter
from controlplane.events.events import between
from controlplane.identity import names
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone

TYPES = {
    0: "ALERT.MEMORY",
    1: "ALERT.CPU",
    2: "ALERT.STORAGE",
    3: "ALERT.STORAGE.ALLOCATED",
    4: "ALERT.NETWORK.PUBLICIP",
    5: "ALERT.NETWORK.PRIVATEIP",
    6: "ALERT.SECONDARY.STORAGE",
    7: "ALERT.COMPUTE.HOST",
    8: "ALERT.USERVM",
    9: "ALERT.SERVICE.DOMAINROUTER",
    10: "ALERT.SERVICE.CONSOLEPROXY",
    11: "ALERT.NETWORK.ROUTING",
    12: "ALERT.STORAGE.MISC",
    13: "ALERT.USAGE",
    14: "ALERT.MANAGEMENT",
    18: "ALERT.NETWORK.VLAN",
    19: "ALERT.SERVICE.SSVM",
    22: "ALERT.RESOURCE.COUNT",
    24: "ALERT.NETWORK.DIRECTPUBLICIP",
    25: "ALERT.STORAGE.LOCAL",
    26: "ALERT.RESOURCE.EXCEED",
}
"""CloudStack's types of alerts and their names."""
HOST, USER_VM, ROUTER, ROUTING, MANAGEMENT, RESOURCE_LIMIT = 7, 8, 9, 11, 14, 26


class Alert(Created, Row):
    """An alert.

    :ivar type: one of ``TYPES``, or an operator's own number.
    :ivar times: how often it was noticed; ``last`` when it was last.
    :ivar resolved: when the condition was over; ``resolved_key`` is 0 until then.
    """

    __tablename__ = "alerts"
    __table_args__ = (UniqueConstraint("type", "subject", "zone_key", "pod_key", "resolved_key"),)

    type: Mapped[int] = mapped_column(index=True)
    name: Mapped[str] = mapped_column(String(255))
    subject: Mapped[str] = mapped_column(String(999))
    description: Mapped[str] = mapped_column(String(5000), default="")
    zone_id: Mapped[int | None] = mapped_column(ForeignKey("zones.id"), index=True)
    pod_id: Mapped[int | None] = mapped_column(ForeignKey("pods.id"))
    zone_key: Mapped[int] = mapped_column(default=0)  # as zone_id, but 0 for none, which a unique index can hold
    pod_key: Mapped[int] = mapped_column(default=0)
    times: Mapped[int] = mapped_column(default=1)
    last: Mapped[datetime] = mapped_column(default=now)
    resolved: Mapped[datetime | None]
    resolved_key: Mapped[int] = mapped_column(default=0)
    archived: Mapped[bool] = mapped_column(default=False)


def raise_alert(
    session: Session, kind: int, subject: str, description: str = "", *, zone: int | None = None, pod: int | None = None
) -> Alert:
    """Raise an alert, or take note that its condition lasts.

    :param kind: one of :data:`TYPES`.
    :param subject: a sentence that is the same for as long as the condition lasts; what varies is the description.
    :param zone: number of the zone that it is about, ``pod`` of the pod.
    """
    row = _active(session, kind, subject, zone, pod)
    if row is None:
        row = Alert(type=kind, name=TYPES.get(kind, "ALERT"), subject=subject, description=description or subject)
        row.zone_id, row.pod_id, row.zone_key, row.pod_key = zone, pod, zone or 0, pod or 0
        session.add(row)
    else:
        row.times, row.last, row.description = row.times + 1, now(), description or subject
    session.flush()
    return row


def clear_alert(session: Session, kind: int, subject: str, *, zone: int | None = None, pod: int | None = None) -> None:
    """Take note that the condition of an alert is over; without such an alert nothing happens."""
    row = _active(session, kind, subject, zone, pod)
    if row is not None:
        row.resolved, row.resolved_key = now(), row.id
        session.flush()


def _active(session: Session, kind: int, subject: str, zone: int | None, pod: int | None) -> Alert | None:
    same = Alert.type == kind, Alert.subject == subject, Alert.zone_key == (zone or 0), Alert.pod_key == (pod or 0)
    return session.scalar(select(Alert).where(*same, Alert.resolved_key == 0))


@dataclass(kw_only=True)
class AlertResponse(Response):
    """An alert."""

    id: str
    type: int
    name: str
    description: str
    sent: datetime


def alert_views(ctx: Context, rows: Sequence[Alert]) -> list[AlertResponse]:
    """Show alerts."""
    del ctx
    return [
        AlertResponse(id=row.uuid, type=row.type, name=row.name, description=row.description, sent=row.last)
        for row in rows
    ]


class ListAlerts(ListCommand, name="listAlerts", answer=many("alert", alert_views), roles=ADMINS):
    """List alerts that are not archived, the newest first."""

    table = Alert
    keywords = (Alert.subject, Alert.description, Alert.name)

    id: Alert | None = matching(Alert.id)
    name: str | None = matching(Alert.name)
    type: str | None = optional(description="number of the type")

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Leave the archived ones out."""
        del ctx
        if self.type is not None:
            query = query.where(Alert.type == type_number(self.type))
        return query.where(~Alert.archived)


def type_number(text: str) -> int:
    """Read the type of an alert: its number or its name.

    :raises BadParameter: it is neither.
    """
    named = {name: number for number, name in TYPES.items()}
    if text.upper() in named:
        return named[text.upper()]
    if not text.isdecimal():
        raise BadParameter(
            f"Invalid parameter type value={text}: it must be the number or the name of a type of alert."
        )
    return int(text)


class _SomeAlerts(Command):
    """Alerts chosen by their ids, or by type and time."""

    ids: list[Alert] | None = optional()
    type: str | None = optional()
    startdate: datetime | None = optional()
    enddate: datetime | None = optional(description="a date without a time is that whole day")

    def chosen(self) -> Any:
        """Return the condition for those that were chosen.

        :raises BadParameter: nothing was chosen.
        """
        if not any((self.ids, self.type, self.startdate, self.enddate)):
            raise BadParameter("Invalid parameter ids: give ids, or a type, startdate or enddate.")
        conditions = between(Alert.last, self.startdate, self.enddate)
        if self.ids:
            conditions.append(Alert.id.in_([row.id for row in self.ids]))
        if self.type:
            conditions.append(Alert.type == type_number(self.type))
        return and_(*conditions)


class ArchiveAlerts(_SomeAlerts, name="archiveAlerts", answer=success(), roles=ADMINS, event="ALERT.ARCHIVE"):
    """Take alerts out of the list."""

    def run(self, ctx: Context) -> None:
        """Mark the rows."""
        ctx.session.execute(update(Alert).where(self.chosen()).values(archived=True))


class DeleteAlerts(_SomeAlerts, name="deleteAlerts", answer=success(), roles=ADMINS, event="ALERT.DELETE"):
    """Delete alerts."""

    def run(self, ctx: Context) -> None:
        """Delete the rows."""
        ctx.session.execute(delete(Alert).where(self.chosen()))


class GenerateAlert(
    Command, name="generateAlert", answer=success(), roles=ADMINS, job=True, instance="Alert", event="ALERT.GENERATE"
):
    """Raise an alert of one's own."""

    type: Short = required(description="number of the type")
    name: str = required(check=names.name, description="what the alert is called")
    description: str = required(length=999, check=names.text)
    zoneid: Zone | None = optional()
    podid: Pod | None = optional()

    def run(self, ctx: Context) -> None:
        """Add the row."""
        zone, pod = self.zoneid.id if self.zoneid else None, self.podid.id if self.podid else None
        if self.podid is not None and zone not in (None, self.podid.zone_id):
            raise BadParameter(f"Invalid parameter podid value={self.podid.uuid}: it is a pod of another zone.")
        row = raise_alert(ctx.session, self.type, self.description, zone=zone, pod=pod)
        row.name = self.name
        ctx.instance = row


@dataclass(kw_only=True)
class AlertTypeResponse(Response):
    """A type of alert."""

    type: int
    name: str


def alert_type_views(ctx: Context, rows: Sequence[tuple[int, str]]) -> list[AlertTypeResponse]:
    """Show types of alerts."""
    del ctx
    return [AlertTypeResponse(type=number, name=name) for number, name in rows]


class ListAlertTypes(Command, name="listAlertTypes", answer=many("alerttype", alert_type_views), roles=ADMINS):
    """List the types of alerts that there can be."""

    writes = False

    def run(self, ctx: Context) -> list[tuple[int, str]]:
        """Return the types."""
        del ctx
        return sorted(TYPES.items())
