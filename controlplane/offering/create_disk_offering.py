"""Commands that make, change, end and list disk offerings."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import Long, matching, optional, required
from controlplane.errors import BadParameter
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import account_named
from controlplane.offering import scope
from controlplane.offering.create_service_offering import IO_LIMITS, MOST_DISK, checked_details
from controlplane.offering.disk_offerings import GIB, DiskOffering, disk_offering_views
from controlplane.storage.volumes import StoragePool, Volume
from controlplane.zone import syntax
from controlplane.zone.zones import Zone


class CreateDiskOffering(
    Command,
    name="createDiskOffering",
    answer=one("diskoffering", disk_offering_views),
    instance="DiskOffering",
    event="DISK.OFFERING.CREATE",
):
    """Create a disk offering of a fixed size, or one whose size tenants choose."""

    unsupported = (
        *IO_LIMITS,
        "cachemode",
        "customizediops",
        "encrypt",
        "hypervisorsnapshotreserve",
        "maxiops",
        "miniops",
        "storagepolicy",
    )

    name: str = required(check=syntax.name)
    displaytext: str | None = optional(length=4096, check=syntax.name)
    customized: bool | None = optional(False)
    disksize: Long | None = optional(description="GiB")
    disksizestrictness: bool | None = optional(False, description="true: volumes keep this size for good")
    displayoffering: bool | None = optional(True)
    details: dict[str, str] | None = optional(check=checked_details)
    domainid: list[Domain] | None = optional()
    zoneid: list[Zone] | None = optional()
    provisioningtype: str | None = optional("thin", choices=("thin", "sparse", "fat"))
    storagetype: str | None = optional("shared", choices=("shared", "local"))
    tags: str | None = optional("", length=4096, check=syntax.tags)

    def run(self, ctx: Context) -> DiskOffering:
        """Check the size, and write the row."""
        size = self.disksize or 0
        if self.customized and size:
            raise BadParameter(f"Invalid parameter disksize value={size}: a customized offering has no size.")
        if not self.customized and not 1 <= size <= MOST_DISK:
            raise BadParameter(f"Invalid parameter disksize value={size}: it must be from 1 to {MOST_DISK} GiB.")
        row = DiskOffering(
            name=self.name,
            display_text=self.displaytext or self.name,
            size=size * GIB,
            customized=bool(self.customized),
            size_fixed=bool(self.disksizestrictness),
            storage_type=self.storagetype,
            provisioning_type=self.provisioningtype,
            tags=[tag for tag in (self.tags or "").split(",") if tag],
            display=bool(self.displayoffering),
            domain_uuids=scope.uuids(self.domainid),
            zone_uuids=scope.uuids(self.zoneid),
            details=self.details or {},
        )
        ctx.session.add(row)
        ctx.session.flush()
        return row


class UpdateDiskOffering(
    Command,
    name="updateDiskOffering",
    answer=one("diskoffering", disk_offering_views),
    instance="DiskOffering",
    event="DISK.OFFERING.EDIT",
):
    """Update an offering's texts, tags, state and scope; its size never changes, as volumes have it."""

    unsupported = (*IO_LIMITS, "cachemode")

    id: DiskOffering = required()
    name: str | None = optional(check=syntax.name)
    displaytext: str | None = optional(length=4096, check=syntax.name)
    displayoffering: bool | None = optional()
    domainid: str | None = optional(length=4096, description="the new domains, or public")
    zoneid: str | None = optional(description="the new zones, or all")
    sortkey: int | None = optional()
    state: str | None = optional(choices=("Active", "Inactive"))
    tags: str | None = optional(check=syntax.tags)

    def run(self, ctx: Context) -> DiskOffering:
        """Change what is given."""
        row = self.id
        row.name, row.display_text = self.name or row.name, self.displaytext or row.display_text
        row.state = self.state or row.state
        if self.displayoffering is not None:
            row.display = self.displayoffering
        if self.sortkey is not None:
            row.sort_key = self.sortkey
        if self.tags is not None:
            row.tags = [tag for tag in self.tags.split(",") if tag]
        if self.domainid is not None:
            row.domain_uuids = scope.rescoped(ctx, Domain, self.domainid, "domainid")
        if self.zoneid is not None:
            row.zone_uuids = scope.rescoped(ctx, Zone, self.zoneid, "zoneid")
        return row


class DeleteDiskOffering(
    Command,
    name="deleteDiskOffering",
    answer=success(),
    instance="DiskOffering",
    event="DISK.OFFERING.DELETE",
):
    """Delete an offering; volumes that have it keep it."""

    id: DiskOffering = required()

    def run(self, ctx: Context) -> None:
        """Mark the row removed."""
        row, ctx.instance = self.id, self.id
        row.removed, row.state = ctx.now, "Inactive"


class ListDiskOfferings(
    ListCommand, name="listDiskOfferings", answer=many("diskoffering", disk_offering_views), roles=EVERYONE
):
    """List disk offerings."""

    unsupported = ("encrypt", "projectid", "virtualmachineid")
    table = DiskOffering
    keywords = (DiskOffering.name, DiskOffering.display_text)
    order = (DiskOffering.sort_key, DiskOffering.id)

    id: DiskOffering | None = matching(DiskOffering.id)
    name: str | None = matching(DiskOffering.name)
    storagetype: str | None = matching(DiskOffering.storage_type)
    state: str | None = optional("Active", choices=("Active", "Inactive", "All"))
    domainid: Domain | None = optional()
    zoneid: Zone | None = optional()
    storageid: StoragePool | None = optional(description="whose tags this pool has")
    volumeid: Volume | None = optional(description="that this volume could have instead of its own")
    account: str | None = optional()
    isrecursive: bool | None = optional(description="accepted: whatever may be used is shown")
    listall: bool | None = optional(description="accepted: whatever may be used is shown")

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Look at the state and the scopes."""
        offering = DiskOffering
        if self.state != "All" and self.id is None:
            query = query.where(offering.state == self.state)
        domain = self.domainid
        if self.account is not None:
            domain = account_named(ctx, self.account, self.domainid).domain
        if domain is not None:
            query = query.where(scope.for_domain(offering, domain))
        if self.zoneid is not None:
            query = query.where(scope.in_zone(offering, self.zoneid))
        if self.volumeid is not None:
            query = query.where(offering.id != self.volumeid.disk_offering_id)
        if self.storageid is not None:
            fitting = [row.id for row in ctx.session.scalars(query) if set(row.tags) <= set(self.storageid.tags)]
            query = query.where(offering.id.in_(fitting))
        return query
