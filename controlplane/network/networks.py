"""Guest networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from ipaddress import IPv4Network
from typing import Any, ClassVar

from sqlalchemy import BigInteger, BindParameter, ColumnElement, ForeignKey, Select, String, bindparam, or_, select
from sqlalchemy.orm import Mapped, Session, joinedload, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import Caller
from controlplane.api.context import Context, owned_by
from controlplane.api.responses import Response
from controlplane.db.base import Created, Owned, Removable, Row
from controlplane.errors import Unsupported
from controlplane.identity.tags import TagResponse, tags_of
from controlplane.network.acls import AclList
from controlplane.network.addressing import reserved
from controlplane.network.vpcs import Vpc
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.reconcile.targets import Found, Target
from controlplane.zone.physical_networks import PhysicalNetwork
from controlplane.zone.zones import Zone
from drivers import registry


class Network(Created, Removable, Owned, Row):
    """A guest network (createNetwork).

    :ivar state: ``Allocated`` (no VNI, no router), ``Implementing``, ``Implemented``, ``Shutdown``, ``Destroy``.
    :ivar vpc_id: the VPC that it is a tier of, ``acl_id`` the ACL list that says who may talk to it.
    :ivar cidr6: its own /64, and ``gateway6`` the router's address in it; None without IPv6, as ``cidr`` without IPv4.
    :ivar vnet: its VLAN or VNI while it is implemented; 0 is untagged.
    :ivar pvlan: its own VLAN in the private VLAN whose primary one is ``vnet``, and ``pvlan_role`` what that may hear.
    :ivar acl_type: ``Account``: its owner uses it; ``Domain``: every account of ``domain_id`` does, and with
        ``subdomain_access`` those of the domains below; it is a Shared network of the system account then.
    :ivar guest_cidr: the part of ``cidr`` that guests get addresses of; None is all of it.
    :ivar start_ip: first address that guests may get, ``end_ip`` the last; None is the network's first and last.
    :ivar dns: the resolvers its guests are told, instead of the router; empty is the router.
    :ivar dns6: the resolvers with IPv6 addresses that its router asks; empty is those of the zone.
    :ivar received_before: bytes that routers which are gone by now have counted towards the guests.
    :ivar sent_before: as many from the guests.
    :ivar redundant: it has two routers although its offering asks for one (restartNetwork makeredundant).
    :ivar restart_required: its offering or settings changed in a way that only a restart brings about.
    """

    __tablename__ = "networks"
    used_by_others: ClassVar[bool] = True
    """Whoever may see one may use it; only those in whose realm it is may change it."""

    name: Mapped[str] = mapped_column(String(255), index=True)
    display_text: Mapped[str] = mapped_column(String(255), default="")
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    physical_network_id: Mapped[int] = mapped_column(ForeignKey("physical_networks.id"), index=True)
    offering_id: Mapped[int] = mapped_column(ForeignKey("network_offerings.id"))
    vpc_id: Mapped[int | None] = mapped_column(ForeignKey("vpcs.id"), index=True)
    acl_id: Mapped[int | None] = mapped_column(ForeignKey("acl_lists.id"), index=True)
    guest_type: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20), default="Allocated", index=True)
    cidr: Mapped[str | None] = mapped_column(String(40))
    guest_cidr: Mapped[str | None] = mapped_column(String(40))
    gateway: Mapped[str | None] = mapped_column(String(40))
    start_ip: Mapped[str | None] = mapped_column(String(40))
    end_ip: Mapped[str | None] = mapped_column(String(40))
    cidr6: Mapped[str | None] = mapped_column(String(50))
    gateway6: Mapped[str | None] = mapped_column(String(50))
    vnet: Mapped[int | None]
    pvlan: Mapped[int | None]
    pvlan_role: Mapped[str] = mapped_column(String(20), default="")
    network_domain: Mapped[str] = mapped_column(String(255), default="")
    dns: Mapped[list[str]] = mapped_column(default=list)
    dns6: Mapped[list[str]] = mapped_column(default=list)
    mtu: Mapped[int] = mapped_column(default=1500)
    public_mtu: Mapped[int] = mapped_column(default=1500)
    acl_type: Mapped[str] = mapped_column(String(20), default="Account")
    subdomain_access: Mapped[bool] = mapped_column(default=False)
    display: Mapped[bool] = mapped_column(default=True)
    restart_required: Mapped[bool] = mapped_column(default=False)
    redundant: Mapped[bool] = mapped_column(default=False)
    idle_since: Mapped[datetime | None]
    details: Mapped[dict[str, str]] = mapped_column(default=dict)
    received_before: Mapped[int] = mapped_column(BigInteger, default=0)
    sent_before: Mapped[int] = mapped_column(BigInteger, default=0)
    zone: Mapped[Zone] = relationship()
    physical_network: Mapped[PhysicalNetwork] = relationship()
    offering: Mapped[NetworkOffering] = relationship()
    vpc: Mapped[Vpc | None] = relationship()
    acl: Mapped[AclList | None] = relationship()

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """The networks of the caller's realm, and those that others have and it may use."""
        from controlplane.network.network_permissions import usable_by

        return or_(owned_by(cls, caller), usable_by((caller.account_id, *caller.projects), caller.domain_path))

    @property
    def whole(self) -> Network | Vpc:
        """What it shares its routers and public addresses with: its VPC, or nothing but itself."""
        return self.vpc or self

    def targets(self, session: Session, part: str | None = None) -> Sequence[Target]:
        """Return the targets of the appliances that serve it.

        :param part: only those with this part of its work (``Router.part``).
        """
        if self.vpc is not None:
            return self.vpc.targets(session)
        return list(session.scalars(_targets(), {"network": self.id, "part": part}))


@cache
def _targets() -> Select[Target]:
    """Return the query for the targets of a ``network``'s appliances, or only of those with a ``part``."""
    from controlplane.network.routers import Router

    mine = Router.network_id == bindparam("network"), Router.retired.is_(None)
    part: BindParameter[str | None] = bindparam("part", type_=String)
    return select(Target).join(Router).where(*mine, or_(part.is_(None), Router.part == part))


WITH_SCHEME = joinedload(Network.physical_network), joinedload(Network.offering)
"""What :func:`scheme_of` reads besides the network itself, for queries of many."""

DOMAIN_TYPES = {"vs": "Vswitch"}
"""Scheme of a broadcast URI → CloudStack's broadcast domain type, where it is not the scheme itself."""

PVLAN = "pvlan"
ISOLATED, COMMUNITY, PROMISCUOUS = "isolated", "community", "promiscuous"
"""The roles in a private VLAN, as CloudStack's isolatedpvlantype names them."""

Whole = Network | Vpc
"""What has routers and public addresses: a network that stands alone, or a VPC with all its tiers."""


def services_of(network: Network) -> dict[str, list[str]]:
    """Return the network's services and who provides each of them."""
    return network.offering.services


def scheme_of(network: Network) -> str:
    """Return the scheme of the network's broadcast URI: its isolation method's, or that of its Connectivity."""
    if network.pvlan is not None:
        return PVLAN
    installed = registry.network_providers()
    for provider in services_of(network).get("Connectivity", ()):
        if provider in installed:
            return installed[provider].capabilities["Connectivity"]["BroadcastScheme"]
    return network.physical_network.isolation.lower()


def uri_of(network: Network) -> str:
    """Return the network's broadcast URI; empty while it has none."""
    if network.vnet is None:
        return ""
    if network.pvlan is not None:
        return f"{PVLAN}://{network.vnet}-{network.pvlan_role[0]}{network.pvlan}"
    return f"{scheme_of(network)}://{network.vnet}" if network.vnet else "vlan://untagged"


def router_providers(network: Network) -> list[str]:
    """Return the providers of the network that are routers of ours, in a fixed order."""
    installed = registry.network_providers()
    named = {provider for providers in services_of(network).values() for provider in providers}
    return sorted(name for name in named if name in installed and installed[name].kind == "router")


def require_service(network: Network, service: str) -> None:
    """Make sure that the network has the service.

    :raises Unsupported: it has not; the sentence names its offering.
    """
    if service not in services_of(network):
        raise Unsupported(
            f"Network {network.name} does not have the service {service}: "
            f"its offering {network.offering.name} does not include it."
        )


@dataclass(kw_only=True)
class CapabilityResponse(Response):
    """What a service can do on a network."""

    name: str
    value: str


@dataclass(kw_only=True)
class ProviderResponse(Response):
    """Who provides a service."""

    name: str


@dataclass(kw_only=True)
class ServiceResponse(Response):
    """A service of a network."""

    name: str
    capability: list[CapabilityResponse]
    provider: list[ProviderResponse]


@dataclass(kw_only=True)
class RouteResponse(Response):
    """A route that the upstream router is to have, so that guests are reached."""

    subnet: str
    gateway: str


@dataclass(kw_only=True)
class PeerResponse(Response):
    """A BGP peer that a network's prefixes are announced to."""

    id: str
    asnumber: int
    ipaddress: str | None = None
    ip6address: str | None = None


@dataclass(kw_only=True)
class NetworkResponse(Response):
    """A guest network, as the API shows it."""

    id: str
    name: str
    displaytext: str
    broadcastdomaintype: str
    traffictype: str
    gateway: str | None = None
    netmask: str | None = None
    cidr: str | None = None
    ip6gateway: str | None = None
    ip6cidr: str | None = None
    ip6dns1: str | None = None
    ip6dns2: str | None = None
    ip6routing: str | None = None
    ip6routes: list[RouteResponse] | None = None
    ip4routing: str | None = None
    ip4routes: list[RouteResponse] | None = None
    asnumber: int | None = None
    asnumberid: str | None = None
    bgppeers: list[PeerResponse] | None = None
    internetprotocol: str
    networkcidr: str | None = None
    reservediprange: str | None = None
    zoneid: str
    zonename: str
    networkofferingid: str
    networkofferingname: str
    networkofferingdisplaytext: str
    networkofferingconservemode: bool
    networkofferingavailability: str
    issystem: bool = False
    state: str
    related: str
    broadcasturi: str | None = None
    dns1: str
    dns2: str | None = None
    type: str
    vlan: str | None = None
    acltype: str
    aclid: str | None = None
    aclname: str | None = None
    vpcid: str | None = None
    vpcname: str | None = None
    account: str | None = None
    domain: str
    domainid: str
    domainpath: str
    subdomainaccess: bool | None = None
    isdefault: bool = False
    service: list[ServiceResponse]
    networkdomain: str | None = None
    physicalnetworkid: str
    restartrequired: bool
    specifyipranges: bool
    specifyvlan: bool
    canusefordeploy: bool
    ispersistent: bool
    tags: list[TagResponse]
    details: dict[str, str] | None = None
    strechedl2subnet: bool = False
    redundantrouter: bool = False
    supportsvmautoscaling: bool = False
    created: datetime
    displaynetwork: bool | None = None
    egressdefaultpolicy: bool
    privatemtu: int
    publicmtu: int
    receivedbytes: int
    sentbytes: int
    hasannotations: bool = False


def network_views(ctx: Context, rows: Sequence[Network]) -> list[NetworkResponse]:
    """Show networks; the VLAN or VNI is the root admin's to see."""
    from controlplane.network import ipv6, routing
    from controlplane.network.guest_ranges import without_addresses
    from controlplane.network.network_permissions import scopes_of

    numbers = [row.id for row in rows]
    parts = Network.zone, Network.physical_network, Network.offering, Network.vpc, Network.acl
    eager = [joinedload(part) for part in parts]
    ctx.session.scalars(select(Network).where(Network.id.in_(numbers)).options(*eager)).all()
    owners, tags, traffic = scopes_of(ctx, rows), tags_of(ctx, "Network", rows), traffic_of(ctx.session, rows)
    routes, ways = ipv6.routes_of(ctx.session, rows), routing.shown(ctx.session, rows)
    full = without_addresses(ctx.session, rows)
    return [
        _view(
            ctx,
            row,
            owners[row.id] | traffic[row.id] | _ipv6(row, routes.get(row.id)) | routed_fields(ways.get(row.uuid, {})),
            tags[row.id],
            usable=row.id not in full,
        )
        for row in rows
    ]


def traffic_of(session: Session, rows: Sequence[Network]) -> dict[int, dict[str, int]]:
    """Return, by network number, the bytes to and from the outside: of the present routers and of those before."""
    from controlplane.network.nics import Nic
    from controlplane.network.routers import Router

    totals = {row.id: {"receivedbytes": row.received_before, "sentbytes": row.sent_before} for row in rows}
    uuids = {row.id: row.uuid for row in rows}
    alone = select(Router.network_id, Found.counters).where(Router.network_id.in_(totals))
    tiers = select(Nic.network_id, Found.counters).join(Router, Nic.router_id == Router.id)
    tiers = tiers.where(Nic.network_id.in_(totals), Router.vpc_id.is_not(None))
    for query in (alone, tiers):
        for number, counters in session.execute(query.join(Found, Found.target_id == Router.target_id)):
            received, sent = counted(counters, uuids[number])
            totals[number]["receivedbytes"] += received
            totals[number]["sentbytes"] += sent
    return totals


def counted(counters: dict[str, Any], uuid: str) -> tuple[int, int]:
    """Return the bytes to and from a network (or public address) in what its router counted."""
    name = uuid.replace("-", "")
    received, sent = (counters.get(f"{direction}_{name}", (0, 0))[1] for direction in ("in", "out"))
    return received, sent


def _view(
    ctx: Context, row: Network, owner: dict[str, Any], tags: list[TagResponse], *, usable: bool
) -> NetworkResponse:
    offering, admin = row.offering, ctx.caller.is_admin
    scheme = scheme_of(row)
    dns = [*row.dns, row.zone.dns1, row.zone.dns2 or ""]
    return NetworkResponse(
        id=row.uuid,
        name=row.name,
        displaytext=row.display_text,
        broadcastdomaintype=DOMAIN_TYPES.get(scheme, scheme.capitalize()),
        traffictype="Guest",
        gateway=row.gateway,
        netmask=str(IPv4Network(row.cidr).netmask) if row.cidr else None,
        cidr=row.guest_cidr or row.cidr,
        networkcidr=row.cidr if row.guest_cidr else None,
        reservediprange=reserved(row.cidr, row.guest_cidr) if row.cidr and row.guest_cidr else None,
        zoneid=row.zone.uuid,
        zonename=row.zone.name,
        networkofferingid=offering.uuid,
        networkofferingname=offering.name,
        networkofferingdisplaytext=offering.display_text,
        networkofferingconservemode=offering.conserve_mode,
        networkofferingavailability=offering.availability,
        state=row.state,
        related=row.uuid,
        broadcasturi=(uri_of(row) or None) if admin else None,
        vlan=(uri_of(row).partition("://")[2] or None) if admin else None,
        dns1=dns[0],
        dns2=dns[1] or None,
        type=row.guest_type,
        acltype=row.acl_type,
        aclid=row.acl.uuid if row.acl else None,
        aclname=row.acl.name if row.acl else None,
        vpcid=row.vpc.uuid if row.vpc else None,
        vpcname=row.vpc.name if row.vpc else None,
        service=[_service(name, who, offering.capabilities) for name, who in sorted(services_of(row).items())],
        networkdomain=row.network_domain or None,
        physicalnetworkid=row.physical_network.uuid,
        restartrequired=row.restart_required,
        specifyipranges=offering.specify_ip_ranges,
        specifyvlan=offering.specify_vlan,
        canusefordeploy=usable,
        redundantrouter=row.redundant or offering.redundant_router,
        ispersistent=offering.persistent,
        tags=tags,
        details=row.details or None,
        created=row.created,
        displaynetwork=row.display if admin else None,
        egressdefaultpolicy=offering.egress_allow,
        privatemtu=row.mtu,
        publicmtu=row.public_mtu,
        **owner,
    )


def _ipv6(row: Network, routes: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Return the fields about IPv6; a network without it says only that."""
    found: dict[str, Any] = {"internetprotocol": row.offering.internet_protocol}
    if row.cidr6:
        dns = [*row.dns6, None] if row.dns6 else [row.zone.ip6_dns1, row.zone.ip6_dns2]
        found |= {"ip6gateway": row.gateway6, "ip6cidr": row.cidr6, "ip6dns1": dns[0], "ip6dns2": dns[1]}
        found |= {"ip6routing": "Static", "ip6routes": [RouteResponse(**route) for route in routes or ()]}
    return found


def routed_fields(way: dict[str, Any]) -> dict[str, Any]:
    """Return the response fields about how a network or VPC is routed."""
    if not way:
        return {}
    peers = [PeerResponse(**peer) for peer in way["bgppeers"]]
    return way | {"ip4routes": [RouteResponse(**route) for route in way["ip4routes"]], "bgppeers": peers or None}


def _service(name: str, providers: list[str], chosen: dict[str, dict[str, str]]) -> ServiceResponse:
    installed = registry.network_providers()
    known = {
        capability: value
        for provider in providers
        if provider in installed
        for capability, value in installed[provider].capabilities.get(name, {}).items()
    }
    return ServiceResponse(
        name=name,
        capability=[CapabilityResponse(name=key, value=value) for key, value in (known | chosen.get(name, {})).items()],
        provider=[ProviderResponse(name=provider) for provider in providers],
    )


dispatch.JOB_TABLES["Network"] = Network
