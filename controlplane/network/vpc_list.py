"""How VPCs look in answers, and their list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import joinedload

from controlplane.api.caller import EVERYONE
from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional
from controlplane.api.responses import Response
from controlplane.identity.ownership import OwnedListing, owner_fields
from controlplane.identity.tags import TagResponse, tags_of
from controlplane.network import routing
from controlplane.network.networks import (
    Network,
    NetworkResponse,
    PeerResponse,
    RouteResponse,
    network_views,
    routed_fields,
)
from controlplane.network.vpcs import TAGGABLE, Vpc
from controlplane.offering.scope import has
from controlplane.offering.services import ServiceResponse, service_name, service_responses
from controlplane.offering.vpc_offerings import VpcOffering
from controlplane.zone.zones import Zone


@dataclass(kw_only=True)
class VpcResponse(Response):
    """A VPC with its tiers."""

    id: str
    name: str
    displaytext: str
    state: str
    created: datetime
    zoneid: str
    zonename: str
    cidr: str
    vpcofferingid: str
    vpcofferingname: str
    networkdomain: str
    dns1: str | None = None
    dns2: str | None = None
    ip6dns1: str | None = None
    ip6dns2: str | None = None
    ip6routes: list[RouteResponse] | None = None
    ip4routing: str | None = None
    ip4routes: list[RouteResponse] | None = None
    asnumber: int | None = None
    asnumberid: str | None = None
    bgppeers: list[PeerResponse] | None = None
    publicmtu: int
    redundantvpcrouter: bool
    distributedvpcrouter: bool = False
    regionlevelvpc: bool = False
    restartrequired: bool
    fordisplay: bool | None = None
    hasannotations: bool = False
    account: str
    domain: str
    domainid: str
    domainpath: str
    service: list[ServiceResponse]
    network: list[NetworkResponse]
    tags: list[TagResponse]


def vpc_views(ctx: Context, rows: Sequence[Vpc]) -> list[VpcResponse]:
    """Show VPCs with their tiers."""
    numbers = [row.id for row in rows]
    eager = joinedload(Vpc.zone), joinedload(Vpc.offering)
    ctx.session.scalars(select(Vpc).where(Vpc.id.in_(numbers)).options(*eager)).all()
    owners, tags, tiers = owner_fields(ctx, rows), tags_of(ctx, TAGGABLE, rows), _tiers(ctx, numbers)
    ways = routing.shown(ctx.session, rows)
    return [
        VpcResponse(
            id=row.uuid,
            name=row.name,
            displaytext=row.display_text,
            state=row.state,
            created=row.created,
            zoneid=row.zone.uuid,
            zonename=row.zone.name,
            cidr=row.cidr,
            vpcofferingid=row.offering.uuid,
            vpcofferingname=row.offering.name,
            networkdomain=row.network_domain,
            dns1=row.dns[0] if row.dns else None,
            dns2=row.dns[1] if len(row.dns) > 1 else None,
            ip6dns1=row.dns6[0] if row.dns6 else None,
            ip6dns2=row.dns6[1] if len(row.dns6) > 1 else None,
            ip6routes=[route for tier in tiers[row.id] for route in tier.ip6routes or ()] or None,
            publicmtu=row.public_mtu,
            redundantvpcrouter=row.redundant,
            restartrequired=row.restart_required,
            fordisplay=row.display if ctx.caller.is_admin else None,
            service=service_responses(row.offering.services, row.offering.capabilities),
            network=tiers[row.id],
            tags=tags[row.id],
            **(
                routed_fields(ways.get(row.uuid, {}))
                | {"ip4routes": [route for tier in tiers[row.id] for route in tier.ip4routes or ()] or None}
            ),
            **owners[row.account_id],
        )
        for row in rows
    ]


def _tiers(ctx: Context, numbers: Sequence[int]) -> dict[int | None, list[NetworkResponse]]:
    query = select(Network).where(Network.vpc_id.in_(numbers), Network.removed.is_(None)).order_by(Network.id)
    networks = ctx.session.scalars(query).all()
    found: dict[int | None, list[NetworkResponse]] = defaultdict(list)
    for network, response in zip(networks, network_views(ctx, networks), strict=True):
        found[network.vpc_id].append(response)
    return found


class ListVpcs(OwnedListing, name="listVPCs", answer=many("vpc", vpc_views), roles=EVERYONE,
               unsupported=("showicon",)):  # fmt: skip
    """List VPCs."""

    table = Vpc
    keywords = (Vpc.name, Vpc.display_text)
    taggable = TAGGABLE

    id: Vpc | None = matching(Vpc.id)
    name: str | None = matching(Vpc.name)
    displaytext: str | None = matching(Vpc.display_text)
    cidr: str | None = matching(Vpc.cidr)
    state: str | None = matching(Vpc.state)
    zoneid: Zone | None = matching(Vpc.zone_id)
    vpcofferingid: VpcOffering | None = matching(Vpc.offering_id)
    restartrequired: bool | None = matching(Vpc.restart_required)
    fordisplay: bool | None = matching(Vpc.display, admin=True)
    supportedservices: list[str] | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep the VPCs whose offering has the services."""
        del ctx
        if self.supportedservices:
            wanted = [has(VpcOffering.services, service_name(service)) for service in self.supportedservices]
            query = query.join(VpcOffering, Vpc.offering_id == VpcOffering.id).where(*wanted)
        return query
