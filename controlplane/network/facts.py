"""Facts of a virtual router: what its network, or its VPC's tiers, want of it, as plain values from one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from controlplane.compute.guests import lease_facts, metadata_facts
from controlplane.db.configuration import define
from controlplane.network import redundancy
from controlplane.network.acls import acl_facts
from controlplane.network.bgp_peers import bgp_facts
from controlplane.network.cidr_settings import cidrs_in
from controlplane.network.elastic_facts import elastic_fact
from controlplane.network.firewall import egress_facts, ingress_facts
from controlplane.network.guest_ranges import SHARED, ranges_of, subnet_facts
from controlplane.network.ipv6_firewall import rule_facts6
from controlplane.network.load_balancers import balancer_facts
from controlplane.network.networks import Network, Whole, router_providers, services_of
from controlplane.network.nics import Nic
from controlplane.network.pod_networks import of_pod
from controlplane.network.port_forwarding import forward_facts
from controlplane.network.private_gateways import gateway_facts, route_facts
from controlplane.network.public_ips import PublicIp, VlanRange, addresses_facts, used_by
from controlplane.network.remote_access import remote_access_facts
from controlplane.network.routers import Router
from controlplane.network.routing_firewall import routed_egress_facts, routed_ingress_facts
from controlplane.network.shells import nic_fact, nics_of
from controlplane.network.static_nat import static_nat_facts
from controlplane.network.vpcs import Vpc
from controlplane.network.vpn_connections import tunnel_facts
from controlplane.network.wireguard_facts import wireguard_facts
from controlplane.reconcile.targets import Target, facts_of
from drivers import vocabulary
from drivers.vocabulary import ApplianceFacts, PublicAddress
from drivers.vpc import AclItem
from drivers.vpc import Vpc as VpcFact

EXCLUDED = define(
    "network.usage.excluded.cidrs",
    "",
    "CIDRs outside, separated by commas, whose traffic is not counted; in force with a router's next change",
    category="Network",
    scopes=("Zone",),
)
THROTTLING = define(
    "network.throttling.rate",
    200,
    "Mbit/s of a guest network whose offering names no rate; 0 is unlimited",
    category="Network",
    scopes=("Zone",),
    within=(0, None),
)


@facts_of("router")
def router_facts(session: Session, target: Target) -> ApplianceFacts:
    """Load the facts of one virtual router."""
    served = joinedload(Router.network), joinedload(Router.vpc)
    router = session.scalars(select(Router).where(Router.target_id == target.id).options(*served)).one()
    whole, nics = router.whole, nics_of(session, router)
    addresses = _addresses(session, whole, nics, router.part)
    guests = [(nic, nic.network) for nic in nics if nic.network is not None]
    acls = acl_facts(session, {network.acl_id for _, network in guests if network.acl_id is not None})
    return ApplianceFacts(
        target=target.uuid,
        name=router.shell,
        nics=tuple(nic_fact(session, whole, nic, addresses) for nic in nics),
        addresses=addresses,
        networks=tuple(
            _network(session, network, Part(nic.mac, router, acls.get(network.acl_id))) for nic, network in guests
        ),
        dns=tuple(whole.dns or (server for server in (whole.zone.dns1, whole.zone.dns2) if server)),
        dns6=_resolvers6(whole, [network for _, network in guests]),
        vpc=_vpc(session, whole, nics) if isinstance(whole, Vpc) else None,
        tunnels=tunnel_facts(session, whole) if isinstance(whole, Vpc) else (),
        remote_access=remote_access_facts(session, whole),
        wireguards=wireguard_facts(session, whole),
        redundancy=redundancy.facts(session, router),
        bgp=bgp_facts(session, whole),
        settings=_settings(session, whole),
    )


def _vpc(session: Session, vpc: Vpc, nics: Sequence[Nic]) -> VpcFact:
    gateways, routes = gateway_facts(session, nics), route_facts(session, vpc)
    return VpcFact(vpc.uuid, vpc.name, vpc.cidr, vpc.network_domain, gateways, routes)


def _settings(session: Session, whole: Whole) -> tuple[tuple[str, str], ...]:
    """Return the operator's settings that a router is told; what is no CIDR in them stops no router."""
    good = cidrs_in(session, EXCLUDED, whole.zone_id)
    return ((EXCLUDED.name, ",".join(good)),) if good else ()


def _addresses(session: Session, whole: Whole, nics: Sequence[Nic], part: str) -> tuple[PublicAddress, ...]:
    """Put each public address of the router's part on its interface of the address's VLAN."""
    ranges = select(VlanRange.id, VlanRange.vlan).where(VlanRange.id.in_([nic.range_id for nic in nics]))
    vlans = {number: vlan for number, vlan in session.execute(ranges)}
    macs = {vlans[nic.range_id]: nic.mac for nic in nics if nic.range_id}
    mine = used_by(whole), PublicIp.part == part
    used = {uuid: vlan for uuid, vlan in session.execute(select(PublicIp.uuid, PublicIp.vlan).where(*mine))}
    return tuple(address._replace(nic=macs[used[address.id]]) for address in addresses_facts(session, whole, part))


class Part(NamedTuple):
    """The part of a router that serves one network.

    :param mac: of the interface there.
    :param router: gives the services of its provider; in a VPC there is one router for those of all.
    """

    mac: str
    router: Router
    acl: tuple[AclItem, ...] | None


def _balanced_for(router: Router) -> int | None:
    return router.account_id if router.balances else None


def _services(network: Network, router: Router) -> frozenset[str]:
    """Return the services that the router gives the network; several share those of one with elastic addresses."""
    providers = {router.provider} if network.vpc_id is None else set(router_providers(network))
    given = frozenset(name for name, who in services_of(network).items() if providers.intersection(who))
    if not network.offering.elastic_lb:
        return given
    return given & {"Lb"} if router.balances else given - {"Lb"}


def _network(session: Session, network: Network, part: Part) -> vocabulary.Network:
    services = _services(network, part.router)
    rate, routed, pod = network.offering.network_rate, network.offering.routed, part.router.pod_id
    ranges = of_pod(ranges_of(session, network), pod) if network.guest_type == SHARED else ()
    subnets = subnet_facts(ranges)
    first = next((subnet for subnet in subnets if pod is not None), None)
    own6 = next((subnet.address for subnet in subnets if ":" in subnet.cidr), network.gateway6)
    return vocabulary.Network(
        id=network.uuid,
        cidr=first.cidr if first else network.cidr or "",
        gateway=first.gateway if first else network.gateway or "",
        nic=part.mac,
        domain=network.network_domain,
        services=services,
        egress_allow=network.offering.egress_allow,
        rate=THROTTLING.number(session, zone=network.zone_id) if rate is None else rate,
        mtu=network.mtu,
        leases=lease_facts(session, network, pod) if services & {"Dhcp", "Dns"} else (),
        metadata=metadata_facts(session, network, pod) if "UserData" in services else (),
        egress=routed_egress_facts(session, network) if routed else egress_facts(session, network.id),
        ingress=ingress_facts(session, network.id),
        forwards=forward_facts(session, network.id),
        static_nats=static_nat_facts(session, network.id, part.router.part),
        balancers=balancer_facts(session, network.id, account_id=_balanced_for(part.router))
        if "Lb" in services
        else (),
        acl=part.acl if "NetworkACL" in services else None,
        routed=routed,
        ingress4=routed_ingress_facts(session, network) if routed else (),
        cidr6=network.cidr6 or "",
        gateway6=own6 or "",
        subnets=() if part.router.balances else subnets,
        elastic=elastic_fact(session, network, part.router),
        ingress6=rule_facts6(session, network.id, "Ingress") if network.cidr6 else (),
        egress6=rule_facts6(session, network.id, "Egress") if network.cidr6 else (),
    )


def _resolvers6(whole: Whole, networks: Sequence[Network]) -> tuple[str, ...]:
    """Return the resolvers that a router with IPv6 may ask over it; one without has no way to them."""
    if not any(network.cidr6 for network in networks):
        return ()
    return tuple(whole.dns6) or tuple(one for one in (whole.zone.ip6_dns1, whole.zone.ip6_dns2) if one)
