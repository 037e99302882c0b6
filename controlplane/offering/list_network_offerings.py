"""The list of network offerings."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, String, and_
from sqlalchemy.orm import joinedload

from controlplane.api.caller import EVERYONE
from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, optional
from controlplane.identity.domains import Domain
from controlplane.network.networks import Network
from controlplane.offering.network_offerings import NetworkOffering, network_offering_views
from controlplane.offering.routing_modes import ROUTINGS
from controlplane.offering.scope import for_domain, has, in_zone
from controlplane.offering.services import service_name
from controlplane.zone.zones import Zone


class ListNetworkOfferings(
    ListCommand, name="listNetworkOfferings", answer=many("networkoffering", network_offering_views), roles=EVERYONE
):
    """List network offerings."""

    table = NetworkOffering
    keywords = (NetworkOffering.name, NetworkOffering.display_text)
    order = (NetworkOffering.sort_key, NetworkOffering.id)

    id: NetworkOffering | None = matching(NetworkOffering.id)
    name: str | None = matching(NetworkOffering.name)
    displaytext: str | None = matching(NetworkOffering.display_text)
    availability: str | None = matching(NetworkOffering.availability, choices=("Optional", "Required", "Unavailable"))
    forvpc: bool | None = matching(NetworkOffering.for_vpc)
    guestiptype: str | None = matching(NetworkOffering.guest_type, choices=("Isolated", "Shared", "L2"))
    isdefault: bool | None = matching(NetworkOffering.default)
    specifyipranges: bool | None = matching(NetworkOffering.specify_ip_ranges)
    specifyvlan: bool | None = matching(NetworkOffering.specify_vlan)
    routingmode: str | None = matching(NetworkOffering.routing_mode, choices=ROUTINGS)
    state: str | None = matching(NetworkOffering.state, choices=("Enabled", "Disabled", "Inactive"))
    traffictype: str | None = matching(NetworkOffering.traffic)
    istagged: bool | None = optional()
    tags: str | None = optional(length=4096)
    networkid: Network | None = optional(description="only those that this network could be given instead of its own")
    sourcenatsupported: bool | None = optional()
    supportedservices: list[str] | None = optional()
    domainid: Domain | None = optional()
    zoneid: Zone | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Look into services, tags and scopes."""
        del ctx
        offering = NetworkOffering
        query = query.options(joinedload(offering.service_offering))
        if self.istagged is not None:
            bare = offering.tags.cast(String) == "[]"
            query = query.where(~bare if self.istagged else bare)
        if self.tags is not None:
            query = query.where(and_(*(has(offering.tags, tag.strip()) for tag in self.tags.split(",") if tag.strip())))
        if self.sourcenatsupported is not None:
            condition = has(offering.services, "SourceNat")
            query = query.where(condition if self.sourcenatsupported else ~condition)
        for service in self.supportedservices or ():
            query = query.where(has(offering.services, service_name(service)))
        if self.domainid is not None:
            query = query.where(for_domain(offering, self.domainid))
        if self.zoneid is not None:
            query = query.where(in_zone(offering, self.zoneid))
        if self.networkid is not None:
            now = self.networkid.offering
            query = query.where(
                offering.id != now.id,
                offering.state == "Enabled",
                offering.guest_type == now.guest_type,
                offering.for_vpc == now.for_vpc,
                offering.network_mode == now.network_mode,
                offering.specify_vlan == now.specify_vlan,
                in_zone(offering, self.networkid.zone),
            )
        return query
