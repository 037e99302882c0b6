"""Internal load balancers as the machines that CloudStack runs them in: here, the routers of their VPCs.

Who looks for the machine behind an internal load balancer finds the router that does its work, with the balancer's
tier and address. It starts as any router does; it does not stop for the balancer alone, as it serves the whole VPC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import joinedload

from controlplane.api.caller import DOMAIN_ADMINS
from controlplane.api.command import Command, many, one
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.errors import BadParameter
from controlplane.identity.ownership import OwnedListing
from controlplane.network.load_balancers import LoadBalancer
from controlplane.network.networks import Network
from controlplane.network.router_changes import start
from controlplane.network.routers import Router, RouterResponse, router_views
from controlplane.network.vpcs import Vpc
from controlplane.zone.hosts import Host
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone

ROLE = "INTERNAL_LB_VM"
_IS_INTERNAL = LoadBalancer.public_ip_id.is_(None)
_SERVED = select(Network.vpc_id).join(LoadBalancer, LoadBalancer.network_id == Network.id).where(_IS_INTERNAL)


def machine_views(ctx: Context, rows: Sequence[Router]) -> list[RouterResponse]:
    """Show routers as what does the work of their VPC's internal load balancers: the oldest is named."""
    vpcs = {row.vpc_id for row in rows}
    query = select(LoadBalancer).join(Network).where(_IS_INTERNAL, Network.vpc_id.in_(vpcs))
    found: dict[int | None, LoadBalancer] = {}
    for rule in ctx.session.scalars(query.options(joinedload(LoadBalancer.network)).order_by(LoadBalancer.id)):
        found.setdefault(rule.network.vpc_id, rule)
    views = []
    for row, view in zip(rows, router_views(ctx, rows), strict=True):
        work = found.get(row.vpc_id)
        there: dict[str, Any] = {}
        if work is not None:
            there = {"guestnetworkid": work.network.uuid, "guestnetworkname": work.network.name}
            there |= {"guestipaddress": work.source_address}
        views.append(replace(view, role=ROLE, **there))
    return views


class ListInternalLoadBalancerVms(OwnedListing, name="listInternalLoadBalancerVMs", roles=DOMAIN_ADMINS,
                                  answer=many("internalloadbalancervm", machine_views),
                                  envelope="listinternallbvmsresponse"):  # fmt: skip
    """List the routers that hold internal load balancers."""

    table = Router
    keywords = (Router.name,)
    tags = None

    id: Router | None = matching(Router.id)
    name: str | None = matching(Router.name)
    state: str | None = matching(Router.state)
    networkid: Network | None = optional(description="the tier of an internal load balancer")
    vpcid: Vpc | None = matching(Router.vpc_id)
    zoneid: Zone | None = matching(Router.zone_id)
    hostid: Host | None = matching(Router.host_id, admin=True)
    podid: Pod | None = optional(admin=True)
    forvpc: bool | None = optional(description="false: there is none outside of VPCs")
    fetchhealthcheckresults: bool | None = optional(description="they are shown in any case")

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep the routers of VPCs that have an internal load balancer, on this tier."""
        del ctx
        served = _SERVED if self.networkid is None else _SERVED.where(Network.id == self.networkid.id)
        query = query.where(Router.vpc_id.in_(served), Router.retired.is_(None), Router.dark.is_(False))
        if self.forvpc is False:
            query = query.where(Router.vpc_id.is_(None))
        if self.podid is not None:
            query = query.join(Host, Router.host_id == Host.id).where(Host.pod_id == self.podid.id)
        return query


class StartInternalLoadBalancerVm(Command, name="startInternalLoadBalancerVM", roles=DOMAIN_ADMINS, job=True,
                                  answer=one("internalloadbalancervm", machine_views), instance="DomainRouter",
                                  envelope="startinternallbvmresponse", event="INTERNALLBVM.START"):  # fmt: skip
    """Start the router that holds an internal load balancer, with all that it serves."""

    id: Router = required()

    def run(self, ctx: Context) -> Router:
        """Start it as startRouter does."""
        _require_balancer(ctx, self.id)
        if self.id.running:
            raise BadParameter(f"Invalid parameter id value={self.id.uuid}: router {self.id.name} is {self.id.state}.")
        ctx.touched.extend(start(ctx.session, self.id))
        return self.id


class StopInternalLoadBalancerVm(Command, name="stopInternalLoadBalancerVM", roles=DOMAIN_ADMINS, job=True,
                                 answer=one("internalloadbalancervm", machine_views), instance="DomainRouter",
                                 envelope="stopinternallbvmresponse", event="INTERNALLBVM.STOP"):  # fmt: skip
    """Refuse: an internal load balancer has no machine of its own that could stop."""

    id: Router = required()
    forced: bool | None = optional(False)

    def run(self, ctx: Context) -> Router:
        """Say what stops what."""
        _require_balancer(ctx, self.id)
        how = "forced=true" if self.forced else f"id value={self.id.uuid}"
        raise BadParameter(
            f"Invalid parameter {how}: internal load balancers live in router {self.id.name}, which serves the whole "
            "VPC. deleteLoadBalancer ends one of them; stopRouter stops the router with all that it serves."
        )


def _require_balancer(ctx: Context, router: Router) -> None:
    if router.vpc_id is None or ctx.session.scalar(_SERVED.where(Network.vpc_id == router.vpc_id).limit(1)) is None:
        raise BadParameter(
            f"Invalid parameter id value={router.uuid}: router {router.name} holds no internal load balancer; "
            "listInternalLoadBalancerVMs names those that do."
        )
