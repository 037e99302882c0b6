"""The list of capacities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.listing import Paged
from controlplane.api.parameters import optional
from controlplane.zone.capacity import NAMES, CapacityResponse, Place, measure, response_of
from controlplane.zone.clusters import Cluster
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone


def capacity_views(ctx: Context, rows: Sequence[CapacityResponse]) -> list[CapacityResponse]:
    """Return the responses: they are the rows."""
    del ctx
    return list(rows)


class ListCapacity(Paged, name="listCapacity", answer=many("capacity", capacity_views)):
    """List how much of each kind of capacity there is, by zone, or of one pod or cluster."""

    writes = False
    unsupported = ("tag",)

    zoneid: Zone | None = optional()
    podid: Pod | None = optional()
    clusterid: Cluster | None = optional()
    type: int | None = optional(description="0 memory, 1 CPU, 4 public addresses, 5 private addresses, 7 VLANs …")
    sortby: str | None = optional(choices=("Usage",), description="the fullest first")
    fetchlatest: bool | None = optional(description="accepted: the numbers always are the latest")
    keyword: str | None = optional()

    def run(self, ctx: Context) -> tuple[Sequence[CapacityResponse], int]:
        """Measure the place that was asked about, or every zone."""
        place, rows = self._places(ctx)
        amounts = measure(ctx.session, place, [row.id for row in rows])
        found = [
            response_of(kind, amount, **_where(place, row))
            for row in rows
            for kind, amount in sorted(amounts[row.id].items())
            if self.type in (None, kind) and (self.keyword or "").lower() in NAMES[kind].lower()
        ]
        if self.sortby:
            found.sort(key=lambda item: -(item.capacityused / item.capacitytotal if item.capacitytotal else 0))
        return self.page_of(ctx.session, found)

    def _places(self, ctx: Context) -> tuple[Place, list[Any]]:
        if self.clusterid is not None:
            return "cluster", [self.clusterid]
        if self.podid is not None:
            return "pod", [self.podid]
        if self.zoneid is not None:
            return "zone", [self.zoneid]
        return "zone", list(ctx.session.scalars(select(Zone).where(Zone.removed.is_(None)).order_by(Zone.id)))


def _where(place: Place, row: Any) -> dict[str, str]:
    fields = {f"{place}id": row.uuid, f"{place}name": row.name}
    if place == "cluster":
        fields |= {"podid": row.pod.uuid, "podname": row.pod.name}
    if place != "zone":
        zone = row.zone if place == "pod" else row.pod.zone
        fields |= {"zoneid": zone.uuid, "zonename": zone.name}
    return fields
