"""Regions: this cloud is one, and the portable addresses of its zones are the region's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Row
from controlplane.errors import BadParameter
from controlplane.zone import syntax

OWN = 1
"""The number of the region that this cloud is."""
ENDPOINT = "http://localhost:8080/client/"


class Region(Row):
    """A region (listRegions), which the API names by its number.

    :ivar endpoint: the URL of its API.
    """

    __tablename__ = "regions"

    name: Mapped[str] = mapped_column(String(255))
    endpoint: Mapped[str] = mapped_column(String(255))


@dataclass(kw_only=True)
class RegionResponse(Response):
    """A region."""

    id: int
    name: str
    endpoint: str
    gslbserviceenabled: bool = False
    portableipserviceenabled: bool


def region_views(ctx: Context, rows: Sequence[Region]) -> list[RegionResponse]:
    """Return the responses of these regions."""
    from controlplane.network.portable_ranges import PortableRange

    having = set(ctx.session.scalars(select(PortableRange.region_id)))
    return [
        RegionResponse(id=row.id, name=row.name, endpoint=row.endpoint, portableipserviceenabled=row.id in having)
        for row in rows
    ]


class ListRegions(ListCommand, name="listRegions", answer=many("region", region_views), roles=EVERYONE):
    """List regions: this cloud is the only one that it knows."""

    table = Region
    keywords = (Region.name,)
    order = (Region.id,)

    id: int | None = matching(Region.id)
    name: str | None = matching(Region.name)


class UpdateRegion(Command, name="updateRegion", answer=one("region", region_views), event="REGION.UPDATE"):
    """Change the region's name and the URL of its API."""

    id: int = required()
    name: str | None = optional(check=syntax.name)
    endpoint: str | None = optional(check=syntax.name)

    def run(self, ctx: Context) -> Region:
        """Change what is given."""
        region = region_of(ctx.session, self.id, "id")
        region.name, region.endpoint = self.name or region.name, self.endpoint or region.endpoint
        return region


def region_of(session: Session, number: int, parameter: str = "regionid") -> Region:
    """Return the region of this number.

    :raises BadParameter: there is none.
    """
    region = session.get(Region, number)
    if region is None:
        raise BadParameter(f"Invalid parameter {parameter} value={number}: this cloud is region {OWN}, the only one.")
    return region
