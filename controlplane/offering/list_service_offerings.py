"""The list of service offerings."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Integer, Select, and_, or_, true

from controlplane.api.caller import EVERYONE
from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, optional
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.errors import BadParameter
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import account_named
from controlplane.offering.scope import for_domain, in_zone
from controlplane.offering.service_offerings import ServiceOffering, service_offering_views
from controlplane.zone.zones import Zone


class ListServiceOfferings(
    ListCommand, name="listServiceOfferings", answer=many("serviceoffering", service_offering_views), roles=EVERYONE
):
    """List compute offerings, or, with issystem, those for system VMs."""

    unsupported = ("encryptroot", "gpuenabled", "projectid", "templateid", "vgpuprofileid")
    table = ServiceOffering
    keywords = (ServiceOffering.name, ServiceOffering.display_text)
    order = (ServiceOffering.sort_key, ServiceOffering.id)

    id: ServiceOffering | None = matching(ServiceOffering.id)
    name: str | None = matching(ServiceOffering.name)
    storagetype: str | None = matching(ServiceOffering.storage_type)
    systemvmtype: str | None = matching(ServiceOffering.system_vm_type)
    state: str | None = optional("Active", choices=("Active", "Inactive", "All"))
    issystem: bool | None = optional(False)
    cpunumber: int | None = optional(description="that have, or let choose, so many processors")
    cpuspeed: int | None = optional(description="MHz")
    memory: int | None = optional(description="MiB")
    domainid: Domain | None = optional()
    zoneid: Zone | None = optional()
    virtualmachineid: VirtualMachine | None = optional(description="that this machine could have instead of its own")
    account: str | None = optional()
    isrecursive: bool | None = optional(description="accepted: whatever may be used is shown")
    listall: bool | None = optional(description="accepted: whatever may be used is shown")

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Look at the state, the kind, sizes and scopes."""
        offering = ServiceOffering
        if self.issystem and not ctx.caller.is_admin:
            raise BadParameter("Invalid parameter issystem value=true: only root admins see system offerings.")
        system = offering.system_vm_type != ""
        query = query.where(system if self.issystem else ~system)
        if self.state != "All" and self.id is None:
            query = query.where(offering.state == self.state)
        query = query.where(
            _chosen(offering.cpus, self.cpunumber, "mincpunumber", "maxcpunumber"),
            _chosen(offering.memory, self.memory, "minmemory", "maxmemory"),
        )
        if self.cpuspeed is not None:
            query = query.where(or_(offering.mhz == self.cpuspeed, offering.mhz.is_(None)))
        domain = self.domainid
        if self.account is not None:
            domain = account_named(ctx, self.account, self.domainid).domain
        if domain is not None:
            query = query.where(for_domain(offering, domain))
        if self.zoneid is not None:
            query = query.where(in_zone(offering, self.zoneid))
        if self.virtualmachineid is not None:
            query = query.where(offering.id != self.virtualmachineid.offering_id)
        return query


def _chosen(column: Any, wanted: int | None, low: str, high: str) -> Any:
    """Return the condition that an offering has so much, or lets tenants choose it."""
    if wanted is None:
        return true()
    least = ServiceOffering.details[low].as_string().cast(Integer)
    most = ServiceOffering.details[high].as_string().cast(Integer)
    chosen = and_(column.is_(None), or_(least.is_(None), and_(least <= wanted, most >= wanted)))
    return or_(column == wanted, chosen)
