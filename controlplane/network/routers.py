"""Virtual routers: the appliances that serve guest networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Network
from typing import Any

from sqlalchemy import ForeignKey, Select, String, select
from sqlalchemy.orm import Mapped, Session, joinedload, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import DOMAIN_ADMINS
from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional
from controlplane.api.responses import Response
from controlplane.db.base import Created, Owned, Removable, Row, now
from controlplane.db.configuration import define
from controlplane.identity.ownership import OwnedListing, owner_fields
from controlplane.network.networks import Network, Whole
from controlplane.network.vpcs import Vpc
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.reconcile.targets import Found, Target
from controlplane.zone.clusters import Cluster
from controlplane.zone.hosts import Host
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone
from systemvm import VERSION

CHECKED = define("router.version.check", default=True, category="Network", description="Show routers that an older "
                 "release made as requiring an upgrade; they serve, and take changes, all the same")  # fmt: skip
FRESH = timedelta(seconds=30)
"""How long what was read back counts as what is."""
BALANCING = "lb-"


def part_of_pod(pod_id: int | None) -> str:
    """Return the part of a network that the router of a pod has."""
    return f"pod-{pod_id}" if pod_id is not None else ""


def part_of_balancing(account_id: int) -> str:
    """Return the part of a network that the load balancer appliance of an account has."""
    return f"{BALANCING}{account_id}"


class Router(Created, Removable, Owned, Row):
    """A virtual router (listRouters): of a network (``network_id``), or of a VPC (``vpc_id``) and all its tiers.

    :ivar name: ``r-12-VM``; one that was rebooted keeps it.
    :ivar state: ``Starting``, ``Running``, ``Stopping``, ``Stopped``.
    :ivar running: what is wanted.
    :ivar boot: a higher number makes its shell anew.
    :ivar replaces_id: the router whose place it takes, until that one is gone.
    :ivar dark: its interfaces are in no segment: it is yet to take over, or was taken over from.
    :ivar version: the release that made its shell.
    :ivar part: what of its network's work it has where several share that: ``pod-3``, the guests of a pod, or ``lb-5``,
        the load balancer rules of an account; empty is all of it.
    :ivar pod_id: the only pod where it may run.
    :ivar votes_after: (target, generation) of what must have learnt of it before the control plane votes for it.
    :ivar retired: when another took over from it; it stays until the connections that end at itself have ended.
    """

    __tablename__ = "routers"

    name: Mapped[str] = mapped_column(String(255), default="")
    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"), index=True)
    vpc_id: Mapped[int | None] = mapped_column(ForeignKey("vpcs.id"), index=True)
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    host_id: Mapped[int | None] = mapped_column(ForeignKey("hosts.id"), index=True)
    target_id: Mapped[int | None] = mapped_column(ForeignKey("targets.id"), index=True)
    service_offering_id: Mapped[int | None] = mapped_column(ForeignKey("service_offerings.id"))
    provider: Mapped[str] = mapped_column(String(60), default="VirtualRouter")
    part: Mapped[str] = mapped_column(String(40), default="")
    pod_id: Mapped[int | None] = mapped_column(ForeignKey("pods.id"))
    state: Mapped[str] = mapped_column(String(20), default="Starting")
    running: Mapped[bool] = mapped_column(default=True)
    boot: Mapped[int] = mapped_column(default=0)
    replaces_id: Mapped[int | None] = mapped_column(ForeignKey("routers.id"), index=True)
    dark: Mapped[bool] = mapped_column(default=False)
    retired: Mapped[datetime | None]
    version: Mapped[str] = mapped_column(String(20), default=VERSION)
    votes_after: Mapped[list[Any]] = mapped_column(default=list)
    network: Mapped[Network | None] = relationship()
    vpc: Mapped[Vpc | None] = relationship()
    zone: Mapped[Zone] = relationship()
    service_offering: Mapped[ServiceOffering | None] = relationship()
    host: Mapped[Host | None] = relationship()
    target: Mapped[Target | None] = relationship()

    @property
    def balances(self) -> bool:
        """Whether it is there for the load balancer rules of one account alone (CloudStack's role LB)."""
        return self.part.startswith(BALANCING)

    @property
    def whole(self) -> Whole:
        """What it serves: the network that stands alone, or the VPC with all its tiers."""
        served = self.vpc or self.network
        assert served is not None
        return served

    @property
    def shell(self) -> str:
        """The name of its target and its namespace."""
        return self.target.name if self.target is not None else self.name

    def targets(self, session: Session) -> Sequence[Target]:
        """Return its own target and its host's, which holds its shell."""
        found = [session.get_one(Target, self.target_id)] if self.target_id else []
        if self.host_id:
            found += session.get_one(Host, self.host_id).targets(session)
        return found


@dataclass(kw_only=True)
class RouterNicResponse(Response):
    """An interface of a router."""

    id: str
    deviceid: str
    networkid: str | None = None
    networkname: str | None = None
    ipaddress: str | None = None
    netmask: str | None = None
    gateway: str | None = None
    ip6address: str | None = None
    ip6cidr: str | None = None
    ip6gateway: str | None = None
    macaddress: str
    traffictype: str
    isdefault: bool


@dataclass(kw_only=True)
class HealthResponse(Response):
    """One thing that was looked at when the router was last read back."""

    checkname: str
    checktype: str
    success: bool
    details: str
    lastupdated: datetime


@dataclass(kw_only=True)
class RouterResponse(Response):
    """A virtual router, as the API shows it."""

    id: str
    name: str
    role: str
    state: str
    created: datetime
    account: str
    domain: str
    domainid: str
    domainpath: str
    zoneid: str
    zonename: str
    dns1: str
    dns2: str | None = None
    ip6dns1: str | None = None
    ip6dns2: str | None = None
    hostid: str | None = None
    hostname: str | None = None
    podid: str | None = None
    podname: str | None = None
    hypervisor: str | None = None
    serviceofferingid: str | None = None
    serviceofferingname: str | None = None
    vpcid: str | None = None
    vpcname: str | None = None
    guestnetworkid: str | None = None
    guestnetworkname: str | None = None
    guestipaddress: str | None = None
    guestmacaddress: str | None = None
    guestnetmask: str | None = None
    gateway: str | None = None
    publicip: str | None = None
    publicmacaddress: str | None = None
    publicnetmask: str | None = None
    networkdomain: str | None = None
    isredundantrouter: bool = False
    redundantstate: str = "UNKNOWN"
    requiresupgrade: bool = False
    version: str
    softwareversion: str
    healthchecksfailed: bool
    healthcheckresults: list[HealthResponse] | None = None
    nic: list[RouterNicResponse]
    hasannotations: bool = False


def router_views(ctx: Context, rows: Sequence[Router]) -> list[RouterResponse]:
    """Show routers with their interfaces and what was last found on them."""
    from controlplane.network import ipv6, segments
    from controlplane.network.nics import Nic
    from controlplane.network.public_ips import VlanRange

    numbers = [row.id for row in rows]
    where = joinedload(Router.host).joinedload(Host.cluster).joinedload(Cluster.pod)
    served = joinedload(Router.network).joinedload(Network.vpc), joinedload(Router.vpc)
    eager = *served, joinedload(Router.zone), joinedload(Router.service_offering), joinedload(Router.target), where
    ctx.session.scalars(select(Router).where(Router.id.in_(numbers)).options(*eager)).all()
    found = select(Found).where(Found.target_id.in_([row.target_id for row in rows if row.target_id]))
    seen = {item.target_id: item for item in ctx.session.scalars(found)}
    owners = owner_fields(ctx, rows)
    plugged: dict[int, list[Nic]] = {number: [] for number in numbers}
    query = select(Nic).where(Nic.router_id.in_(numbers)).order_by(Nic.device)
    for nic in ctx.session.scalars(query.options(joinedload(Nic.network), joinedload(Nic.private_gateway))):
        plugged[nic.router_id or 0].append(nic)
    used = {nic.range_id for nics in plugged.values() for nic in nics if nic.range_id}
    ranges = {row.id: row for row in ctx.session.scalars(select(VlanRange).where(VlanRange.id.in_(used)))}
    source_nat = _source_nat_addresses(ctx, rows)
    redundant, checked = _states(ctx.session, rows), CHECKED.flag(ctx.session)
    outside = ipv6.shown_outside(ctx.session, rows)
    views = []
    for row in rows:
        halves = redundant.get(row.id)
        nics = [_nic_view(row, nic, ranges.get(nic.range_id or 0), source_nat) for nic in plugged[row.id]]
        for view, nic in zip(nics, plugged[row.id], strict=True):
            _show_ipv6(view, nic, ranges.get(nic.range_id or 0), outside.get(row.id))
            if halves:
                view.macaddress = segments.serving_mac(row.whole, nic, ranges.get(nic.range_id or 0))
        owner = owners[row.account_id] | ({"isredundantrouter": True, "redundantstate": halves} if halves else {})
        owner |= {"requiresupgrade": checked and is_outdated(row)}
        views.append(_view(row, owner, nics, seen.get(row.target_id or 0)))
        if not ctx.arguments.get("fetchhealthcheckresults"):
            views[-1].healthcheckresults = None
    return views


def redundant_state(session: Session, router: Router) -> str:
    """Return how a redundant router stood when it was last read back; empty where it is none."""
    return _states(session, [router]).get(router.id, "")


def _states(session: Session, rows: Sequence[Router]) -> dict[int, str]:
    """Return how each redundant router was last seen: PRIMARY, BACKUP, FAULT, or UNKNOWN where that is too long ago.

    Of two that were seen as PRIMARY, one after the other, only the later can be it still.
    """
    from controlplane.network.nics import Nic

    networks, vpcs = {row.network_id for row in rows}, {row.vpc_id for row in rows}
    kin = select(Router.id, Router.network_id, Router.vpc_id, Router.state, Found.at, Found.states)
    kin = kin.join(Nic, Nic.router_id == Router.id).outerjoin(Found, Found.target_id == Router.target_id)
    theirs = Router.network_id.in_(networks) | Router.vpc_id.in_(vpcs)
    found = session.execute(kin.where(theirs, Nic.traffic == "Control")).all()
    states: dict[int, str] = {}
    latest: dict[tuple[int | None, int | None], tuple[datetime, int]] = {}
    for number, network, vpc, state, at, seen in found:
        owner = (network, vpc)
        fresh = at is not None and state == "Running" and now() - at < FRESH
        states[number] = seen.get("redundancy", "UNKNOWN") if fresh else "UNKNOWN"
        if states[number] == "PRIMARY":
            before = latest.get(owner)
            if before is not None:
                states[min(before, (at, number))[1]] = "UNKNOWN"
            latest[owner] = max(before or (at, number), (at, number))
    return states


Served = tuple[int | None, int | None]
"""What a router or an address is of, by number: a network that stands alone, or a VPC."""


def _source_nat_addresses(ctx: Context, rows: Sequence[Router]) -> dict[Served, str]:
    from controlplane.network.public_ips import PublicIp

    networks, vpcs = [row.network_id for row in rows], [row.vpc_id for row in rows]
    query = select(PublicIp.network_id, PublicIp.vpc_id, PublicIp.address).where(PublicIp.source_nat)
    theirs = PublicIp.network_id.in_(networks) | PublicIp.vpc_id.in_(vpcs)
    return {(network, vpc): address for network, vpc, address in ctx.session.execute(query.where(theirs))}


def _nic_view(row: Router, nic: Any, vlan: Any, source_nat: dict[Served, str]) -> RouterNicResponse:
    network = nic.network
    public = nic.range_id is not None
    netmask = vlan.netmask if vlan else str(IPv4Network(network.cidr).netmask) if network and network.cidr else None
    return RouterNicResponse(
        id=nic.uuid,
        deviceid=str(nic.device),
        networkid=network.uuid if network and not public else None,
        networkname=network.name if network and not public else None,
        ipaddress=(source_nat.get((row.network_id, row.vpc_id)) if public else nic.address) or None,
        netmask=netmask or None,
        gateway=(vlan.gateway or None) if vlan else None,
        macaddress=nic.mac,
        traffictype=nic.traffic,
        isdefault=public,
    )


def _show_ipv6(view: RouterNicResponse, nic: Any, vlan: Any, outside: tuple[str, Any] | None) -> None:
    """Add what the interface has of IPv6: the network's gateway address inside, the router's own outside."""
    network = nic.network
    if vlan is None and network is not None and network.cidr6:
        view.ip6address, view.ip6cidr, view.ip6gateway = nic.address6, network.cidr6, network.gateway6
    elif vlan is not None and outside is not None and outside[1].vlan == vlan.vlan:
        view.ip6address, view.ip6cidr, view.ip6gateway = outside[0], outside[1].cidr6, outside[1].gateway6


def _health(row: Router, seen: Found | None) -> list[HealthResponse]:
    """Return what was read back, and the rules that the router is without."""
    checks = [(name, reason, seen.at) for name, reason in sorted(seen.health.items())] if seen else []
    target = row.target
    if target is not None:
        at = target.applied or target.created
        checks += [(f"rules/{unit}", reason, at) for unit, reason in sorted(target.failures.items())]
    return [
        HealthResponse(checkname=name, checktype="basic", success=not reason, details=reason, lastupdated=at)
        for name, reason, at in checks
    ]


def is_outdated(router: Router) -> bool:
    """Tell whether an older release than this one made the router."""
    return _release(router.version) < _release(VERSION)


def _release(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def _view(row: Router, owner: dict[str, Any], nics: list[RouterNicResponse], seen: Found | None) -> RouterResponse:
    guest = next((nic for nic in nics if nic.traffictype == "Guest"), None)
    public = next((nic for nic in nics if nic.traffictype == "Public"), None)
    health = _health(row, seen)
    host, offering, vpc = row.host, row.service_offering, row.vpc
    return RouterResponse(
        id=row.uuid,
        name=row.name,
        role="LB" if row.balances else "VIRTUAL_ROUTER",
        state=row.state,
        created=row.created,
        zoneid=row.zone.uuid,
        zonename=row.zone.name,
        dns1=row.zone.dns1,
        dns2=row.zone.dns2,
        ip6dns1=row.zone.ip6_dns1,
        ip6dns2=row.zone.ip6_dns2,
        hostid=host.uuid if host else None,
        hostname=host.name if host else None,
        podid=host.cluster.pod.uuid if host else None,
        podname=host.cluster.pod.name if host else None,
        hypervisor=host.hypervisor if host else None,
        serviceofferingid=offering.uuid if offering else None,
        serviceofferingname=offering.name if offering else None,
        vpcid=vpc.uuid if vpc else None,
        vpcname=vpc.name if vpc else None,
        guestnetworkid=guest.networkid if guest else None,
        guestnetworkname=guest.networkname if guest else None,
        guestipaddress=guest.ipaddress if guest else None,
        guestmacaddress=guest.macaddress if guest else None,
        guestnetmask=guest.netmask if guest else None,
        gateway=public.gateway if public else None,
        publicip=public.ipaddress if public else None,
        publicmacaddress=public.macaddress if public else None,
        publicnetmask=public.netmask if public else None,
        networkdomain=row.whole.network_domain,
        version=row.version,
        softwareversion=row.version,
        healthchecksfailed=any(not check.success for check in health),
        healthcheckresults=health or None,
        nic=nics,
        **owner,
    )


class ListRouters(OwnedListing, name="listRouters", answer=many("router", router_views), roles=DOMAIN_ADMINS,
                  unsupported=("arch",)):  # fmt: skip
    """List virtual routers."""

    table = Router
    keywords = (Router.name,)
    tags = None

    id: Router | None = matching(Router.id)
    name: str | None = matching(Router.name)
    state: str | None = matching(Router.state)
    version: str | None = matching(Router.version)
    networkid: Network | None = optional()
    vpcid: Vpc | None = matching(Router.vpc_id)
    zoneid: Zone | None = matching(Router.zone_id)
    hostid: Host | None = matching(Router.host_id, admin=True)
    clusterid: Cluster | None = optional(admin=True)
    podid: Pod | None = optional(admin=True)
    forvpc: bool | None = optional()
    fetchhealthcheckresults: bool | None = optional(False, description="show what was last found on each")
    healthchecksfailed: bool | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep the routers of a cluster, a pod, or with a failed check."""
        ctx.arguments["fetchhealthcheckresults"] = self.fetchhealthcheckresults
        if self.forvpc is not None:
            query = query.where(Router.vpc_id.is_not(None) == self.forvpc)
        if self.networkid is not None:
            query = query.where(Router.id.in_(self._on_network(self.networkid)))
        if self.clusterid or self.podid:
            query = query.join(Host, Router.host_id == Host.id)
        if self.clusterid:
            query = query.where(Host.cluster_id == self.clusterid.id)
        if self.podid:
            query = query.where(Host.pod_id == self.podid.id)
        if self.healthchecksfailed is not None:
            seen = ctx.session.execute(select(Found.target_id, Found.health))
            bad = {number for number, health in seen if any(health.values())}
            without = ctx.session.execute(select(Target.id, Target.failures).where(Target.kind == "router"))
            bad |= {number for number, failures in without if failures}
            query = query.where(Router.target_id.in_(bad) == self.healthchecksfailed)
        return query

    @staticmethod
    def _on_network(network: Network) -> Select[Any]:
        """Return the numbers of the routers that serve a network: its own, or its VPC's that have it plugged in."""
        from controlplane.network.nics import Nic

        if network.vpc_id is None:
            return select(Router.id).where(Router.network_id == network.id)
        return select(Nic.router_id).where(Nic.network_id == network.id, Nic.router_id.is_not(None))


dispatch.JOB_TABLES["DomainRouter"] = Router
