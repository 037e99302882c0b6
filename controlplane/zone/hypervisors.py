"""Hypervisors: the kinds of hosts there are drivers for, and what each of them can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import Long, matching, optional
from controlplane.api.responses import Response
from controlplane.db.base import Row
from controlplane.errors import BadParameter
from controlplane.zone.zones import Zone
from drivers import registry
from drivers.protocol import HypervisorDriver


class HypervisorCapabilities(Row):
    """What a kind of host can do at most (listHypervisorCapabilities)."""

    __tablename__ = "hypervisor_capabilities"

    hypervisor: Mapped[str] = mapped_column(String(20), unique=True)
    version: Mapped[str] = mapped_column(String(40), default="default")
    max_guests: Mapped[int] = mapped_column(default=50)
    max_data_volumes: Mapped[int] = mapped_column(default=0)
    max_hosts_per_cluster: Mapped[int | None]
    security_groups: Mapped[bool] = mapped_column(default=False)
    storage_motion: Mapped[bool] = mapped_column(default=False)
    vm_snapshots: Mapped[bool] = mapped_column(default=False)


def driver_of(hypervisor: str) -> HypervisorDriver[Any]:
    """Return the installed driver of this hypervisor type, written in any case of letters.

    :raises BadParameter: there is none; the sentence names those that there are.
    """
    drivers = {name.lower(): driver for name, driver in registry.hypervisors().items()}
    driver = drivers.get(hypervisor.lower())
    if driver is None:
        known = ", ".join(sorted(driver.name for driver in drivers.values()))
        raise BadParameter(
            f"Invalid parameter hypervisor value={hypervisor}: no driver for it is installed; there are {known}."
        )
    return driver


@dataclass(kw_only=True)
class HypervisorResponse(Response):
    """A kind of host."""

    name: str


def hypervisor_views(ctx: Context, rows: Sequence[str]) -> list[HypervisorResponse]:
    """Return the responses of these names."""
    del ctx
    return [HypervisorResponse(name=name) for name in rows]


class ListHypervisors(Command, name="listHypervisors", answer=many("hypervisor", hypervisor_views), roles=EVERYONE):
    """List the kinds of hosts that there are drivers for, or that a zone has clusters of."""

    writes = False
    zoneid: Zone | None = optional()

    def run(self, ctx: Context) -> list[str]:
        """Return names in the order of the alphabet."""
        if self.zoneid is None:
            return sorted(registry.hypervisors())
        from controlplane.zone.clusters import Cluster

        query = select(Cluster.hypervisor).where(Cluster.zone_id == self.zoneid.id, Cluster.removed.is_(None))
        return sorted(set(ctx.session.scalars(query)))


@dataclass(kw_only=True)
class HypervisorCapabilitiesResponse(Response):
    """What a kind of host can do."""

    id: str
    hypervisor: str
    hypervisorversion: str
    maxguestslimit: int
    maxdatavolumeslimit: int
    maxhostspercluster: int | None
    securitygroupenabled: bool
    storagemotionenabled: bool
    vmsnapshotenabled: bool


def capabilities_views(ctx: Context, rows: Sequence[HypervisorCapabilities]) -> list[HypervisorCapabilitiesResponse]:
    """Return the responses of these rows."""
    del ctx
    return [
        HypervisorCapabilitiesResponse(
            id=row.uuid,
            hypervisor=row.hypervisor,
            hypervisorversion=row.version,
            maxguestslimit=row.max_guests,
            maxdatavolumeslimit=row.max_data_volumes,
            maxhostspercluster=row.max_hosts_per_cluster,
            securitygroupenabled=row.security_groups,
            storagemotionenabled=row.storage_motion,
            vmsnapshotenabled=row.vm_snapshots,
        )
        for row in rows
    ]


class ListHypervisorCapabilities(
    ListCommand, name="listHypervisorCapabilities", answer=many("hypervisorCapabilities", capabilities_views)
):
    """List what each kind of host can do."""

    table = HypervisorCapabilities
    keywords = (HypervisorCapabilities.hypervisor,)

    id: HypervisorCapabilities | None = matching(HypervisorCapabilities.id)
    hypervisor: str | None = matching(HypervisorCapabilities.hypervisor)


class UpdateHypervisorCapabilities(
    Command, name="updateHypervisorCapabilities", answer=one("hypervisorCapabilities", capabilities_views)
):
    """Change how many guests a kind of host is given at most."""

    unsupported = (
        "hypervisorversion",
        "maxdatavolumeslimit",
        "maxhostspercluster",
        "securitygroupenabled",
        "storagemotionenabled",
        "vmsnapshotenabled",
    )

    id: HypervisorCapabilities | None = optional()
    hypervisor: str | None = optional()
    maxguestslimit: Long | None = optional()

    def run(self, ctx: Context) -> HypervisorCapabilities:
        """Change the row that the id or the name means."""
        row = self.id
        if row is None and self.hypervisor:
            named = HypervisorCapabilities.hypervisor == driver_of(self.hypervisor).name
            row = ctx.session.scalar(select(HypervisorCapabilities).where(named))
        if row is None:
            raise BadParameter("Invalid parameter id: say which capabilities, by id or by hypervisor.")
        if self.maxguestslimit is not None:
            if self.maxguestslimit < 0:
                raise BadParameter(
                    f"Invalid parameter maxguestslimit value={self.maxguestslimit}: it counts guests, from 0."
                )
            row.max_guests = self.maxguestslimit
        return row


def most_guests(session: Session, hypervisor: str) -> int:
    """Return how many guests one host of this kind is given at most."""
    query = select(HypervisorCapabilities.max_guests).where(HypervisorCapabilities.hypervisor == hypervisor)
    found = session.scalar(query)
    return found if found is not None else 50
