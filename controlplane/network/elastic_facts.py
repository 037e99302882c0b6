"""What an appliance of a shared network with elastic addresses is told of the ways beside its own."""

from __future__ import annotations

from sqlalchemy.orm import Session

from controlplane.db.configuration import define
from controlplane.network.cidr_settings import cidrs_in
from controlplane.network.guest_ranges import ranges_of, subnets
from controlplane.network.networks import Network
from controlplane.network.pod_networks import of_pod
from controlplane.network.routers import Router
from drivers.elastic import Elastic

INSIDE = define(
    "network.elastic.inside.cidrs",
    "",
    "IPv4 CIDRs, separated by commas, where guests with elastic addresses are known by their own addresses, besides "
    "the guests' subnets: whoever reaches guests there by the operator's gateway; in force with a router's next change",
    category="Network",
    scopes=("Zone",),
)


def elastic_fact(session: Session, network: Network, router: Router) -> Elastic | None:
    """Return the operator's gateway, and where guests keep their own addresses; None without elastic addresses."""
    if not (network.offering.elastic_lb if router.balances else network.offering.elastic_ip):
        return None
    ranges = ranges_of(session, network)
    gateway = next((row.gateway for row in of_pod(ranges, router.pod_id) if row.gateway), "")
    inside = [str(subnet) for subnet in subnets(ranges)] + cidrs_in(session, INSIDE, network.zone_id)
    return Elastic(gateway, tuple(dict.fromkeys(inside)), way_out=not router.balances)
