"""Making, showing and removing the static routes of VPCs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.configuration import define
from controlplane.errors import BadParameter
from controlplane.identity.ownership import OwnedListing, owner_fields
from controlplane.identity.tags import TagResponse, tags_of
from controlplane.network.networks import Network
from controlplane.network.private_gateways import PrivateGateway, StaticRoute, gateways_of
from controlplane.network.public_ips import VlanRange
from controlplane.network.rules import remove_rows, rows_by_id
from controlplane.network.tiers import must_not_overlap
from controlplane.network.vpcs import Vpc
from controlplane.network.ways import must_be_free, ways_of
from controlplane.zone import syntax

TAGGABLE = "StaticRoute"
DENIED = define("denied.routes", "", "CIDRs, with commas between, that no static route of a VPC may lead to",
                category="Network", scopes=("Zone",))  # fmt: skip
ALWAYS_DENIED = ("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
"""Loopback, link-local (the metadata service's), multicast and above."""


@dataclass(kw_only=True)
class RouteResponse(Response):
    """A static route."""

    id: str
    cidr: str
    nexthop: str
    vpcid: str
    vpcgatewayid: str | None = None
    vpcgatewayip: str | None = None
    state: str
    account: str
    domain: str
    domainid: str
    domainpath: str
    tags: list[TagResponse]


def route_views(ctx: Context, rows: Sequence[StaticRoute]) -> list[RouteResponse]:
    """Show static routes."""
    vpcs = rows_by_id(ctx.session, (Vpc.id, Vpc.uuid), (row.vpc_id for row in rows))
    columns = PrivateGateway.id, PrivateGateway.uuid, PrivateGateway.address
    gateways = rows_by_id(ctx.session, columns, (row.gateway_id for row in rows))
    owners, tags = owner_fields(ctx, rows), tags_of(ctx, TAGGABLE, rows)
    return [
        RouteResponse(
            id=row.uuid,
            cidr=row.cidr,
            nexthop=row.next_hop,
            vpcid=vpcs[row.vpc_id].uuid,
            vpcgatewayid=gateways[row.gateway_id].uuid if row.gateway_id else None,
            vpcgatewayip=gateways[row.gateway_id].address if row.gateway_id else None,
            state=row.state,
            tags=tags[row.id],
            **owners[row.account_id],
        )
        for row in rows
    ]


class CreateStaticRoute(Command, name="createStaticRoute", answer=one("staticroute", route_views), roles=EVERYONE,
                        job=True, creates=True, instance="StaticRoute", event="STATIC.ROUTE.CREATE"):  # fmt: skip
    """Have a VPC's router send what is for a CIDR to a private gateway's next router, or to an address given."""

    cidr: str = required(check=syntax.cidr)
    gatewayid: PrivateGateway | None = optional()
    vpcid: Vpc | None = optional(description="with nexthop, instead of gatewayid")
    nexthop: str | None = optional(check=syntax.ipv4, description="an address on a tier or a private gateway's network")

    def run(self, ctx: Context) -> StaticRoute:
        """Check, and add the route."""
        vpc, hop = self._way(ctx.session)
        ctx.session.refresh(vpc, with_for_update=True)
        self._check(ctx.session, vpc)
        route = StaticRoute(vpc_id=vpc.id, cidr=self.cidr, next_hop=hop, account_id=vpc.account_id)
        route.domain_id, route.gateway_id = vpc.domain_id, self.gatewayid.id if self.gatewayid else None
        ctx.session.add(route)
        ctx.session.flush()
        ctx.touch(vpc)
        return route

    def _way(self, session: Session) -> tuple[Vpc, str]:
        gateway = self.gatewayid
        if gateway is not None:
            if self.nexthop is not None or self.vpcid is not None:
                raise BadParameter("Invalid parameter gatewayid: give it, or vpcid with nexthop.")
            return gateway.vpc, gateway.gateway
        if self.vpcid is None or self.nexthop is None:
            raise BadParameter("Invalid parameter gatewayid: give it, or vpcid with nexthop.")
        vpc, hop = self.vpcid, IPv4Address(self.nexthop)
        near = [(row.gateway, row.netmask, {row.address}) for row in gateways_of(session, vpc)]
        tiers = session.scalars(select(Network).where(Network.vpc_id == vpc.id, Network.removed.is_(None)))
        blocks = [(IPv4Network(f"{one}/{mask}", strict=False), own) for one, mask, own in near]
        blocks += [(IPv4Network(tier.cidr), {tier.gateway or ""}) for tier in tiers if tier.cidr]
        found = [(block, own) for block, own in blocks if hop in block]
        if not found or str(hop) in found[0][1] or hop in (found[0][0][0], found[0][0][-1]):
            known = ", ".join(str(block) for block, _ in blocks) or "it has none of either yet"
            raise BadParameter(
                f"Invalid parameter nexthop value={self.nexthop}: it must be somebody else's address on a tier or a "
                f"private gateway's network of VPC {vpc.name}: {known}."
            )
        return vpc, str(hop)

    def _check(self, session: Session, vpc: Vpc) -> None:
        """Refuse what would take away what is there, and what the operator denies."""
        if IPv4Network(self.cidr).prefixlen == 0:
            raise BadParameter(
                f"Invalid parameter cidr value={self.cidr}: the way to everywhere is the public gateway's; name what "
                "the route is for."
            )
        must_not_overlap("cidr", self.cidr, vpc.cidr, f"VPC {vpc.name} itself")
        denied = [item.strip() for item in DENIED.text(session, zone=vpc.zone_id).split(",") if item.strip()]
        for item in (*ALWAYS_DENIED, *denied):
            must_not_overlap("cidr", self.cidr, item, "the list of denied routes (denied.routes)")
        for row in session.scalars(select(VlanRange).where(VlanRange.zone_id == vpc.zone_id)):
            if row.gateway:
                block = str(IPv4Network(f"{row.gateway}/{row.netmask}", strict=False))
                must_not_overlap("cidr", self.cidr, block, f"a public range of zone {vpc.zone.name}")
        for other in session.scalars(select(StaticRoute).where(StaticRoute.vpc_id == vpc.id)):
            must_not_overlap("cidr", self.cidr, other.cidr, f"static route {other.uuid}")
        mine = IPv4Network(self.cidr)  # a private gateway's own network is the longer prefix of a route through it
        others = [way for way in ways_of(session, vpc) if not (way.connected and mine.supernet_of(way.cidr))]
        must_be_free("cidr", mine, others)


class DeleteStaticRoute(Command, name="deleteStaticRoute", answer=success(), roles=EVERYONE, job=True,
                        instance="StaticRoute", event="STATIC.ROUTE.DELETE"):  # fmt: skip
    """Take a static route away."""

    id: StaticRoute = required()

    def run(self, ctx: Context) -> None:
        """Take it away."""
        ctx.instance = self.id
        ctx.touch(self.id)
        remove_rows(ctx.session, StaticRoute, TAGGABLE, StaticRoute.id == self.id.id)


class ListStaticRoutes(OwnedListing, name="listStaticRoutes", answer=many("staticroute", route_views),
                       roles=EVERYONE):  # fmt: skip
    """List static routes."""

    table = StaticRoute
    keywords = (StaticRoute.cidr,)
    taggable = TAGGABLE

    id: StaticRoute | None = matching(StaticRoute.id)
    gatewayid: PrivateGateway | None = matching(StaticRoute.gateway_id)
    vpcid: Vpc | None = matching(StaticRoute.vpc_id)
    state: str | None = matching(StaticRoute.state)
