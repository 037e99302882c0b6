"""Making, showing and removing private gateways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter, InUse
from controlplane.identity.ownership import OwnedListing, owner_fields
from controlplane.network import implement
from controlplane.network.acls import AclList
from controlplane.network.addressing import subnet
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.private_gateways import PrivateGateway, StaticRoute, gateways_of
from controlplane.network.tiers import choose_acl, must_not_overlap
from controlplane.network.vnets import refuse_flows
from controlplane.network.vpcs import Vpc
from controlplane.network.ways import must_be_free, ways_of
from controlplane.reconcile.targets import Target
from controlplane.zone import syntax
from controlplane.zone.physical_networks import PhysicalNetwork, Vnet

SCHEMES = ("vlan://", "vxlan://")


@dataclass(kw_only=True)
class GatewayResponse(Response):
    """A private gateway."""

    id: str
    ipaddress: str
    gateway: str
    netmask: str
    vlan: str | None = None
    vpcid: str
    vpcname: str
    zoneid: str
    zonename: str
    physicalnetworkid: str | None = None
    aclid: str
    aclname: str
    sourcenatsupported: bool
    state: str
    hasannotations: bool = False
    account: str
    domain: str
    domainid: str
    domainpath: str


def gateway_views(ctx: Context, rows: Sequence[PrivateGateway]) -> list[GatewayResponse]:
    """Show private gateways; where they are plugged in is the root admin's to see."""
    numbers, admin = [row.id for row in rows], ctx.caller.is_admin
    within = joinedload(PrivateGateway.vpc).joinedload(Vpc.zone)
    eager = within, joinedload(PrivateGateway.acl), joinedload(PrivateGateway.physical_network)
    ctx.session.scalars(select(PrivateGateway).where(PrivateGateway.id.in_(numbers)).options(*eager)).all()
    owners = owner_fields(ctx, rows)
    return [
        GatewayResponse(
            id=row.uuid,
            ipaddress=row.address,
            gateway=row.gateway,
            netmask=row.netmask,
            vlan=uri_of(row) if admin else None,
            vpcid=row.vpc.uuid,
            vpcname=row.vpc.name,
            zoneid=row.vpc.zone.uuid,
            zonename=row.vpc.zone.name,
            physicalnetworkid=row.physical_network.uuid if admin else None,
            aclid=row.acl.uuid,
            aclname=row.acl.name,
            sourcenatsupported=row.source_nat,
            state=row.state,
            **owners[row.account_id],
        )
        for row in rows
    ]


def uri_of(row: PrivateGateway) -> str:
    """Return what the gateway is plugged into, as CloudStack writes it."""
    scheme = "vxlan" if row.physical_network.isolation.upper() == "VXLAN" else "vlan"
    return f"{scheme}://{row.vlan}"


class CreatePrivateGateway(Command, name="createPrivateGateway", answer=one("privategateway", gateway_views),
                           roles=EVERYONE, job=True, creates=True, instance="PrivateGateway",
                           event="PRIVATE.GATEWAY.CREATE",
                           unsupported=("associatednetworkid", "networkofferingid")):  # fmt: skip
    """Plug a VPC into a VLAN or VNI of the operator's: a root admin says which."""

    vpcid: Vpc = required()
    ipaddress: str = required(check=syntax.ipv4, description="the VPC's own there")
    gateway: str = required(check=syntax.ipv4, description="who leads on from there")
    netmask: str = required(check=syntax.netmask)
    vlan: str | None = optional(admin=True, description="a number, or its URI")
    physicalnetworkid: PhysicalNetwork | None = optional(description="the zone's only one by default")
    aclid: AclList | None = optional(description="what may pass; default_deny unless given")
    sourcenatsupported: bool | None = optional(False, description="what leaves has the gateway's address")
    bypassvlanoverlapcheck: bool | None = optional(False, description="the number may be a guest network's")

    def run(self, ctx: Context) -> PrivateGateway:
        """Check, and plug the routers in."""
        vpc = self.vpcid
        if self.vlan is None:
            raise BadParameter("Invalid parameter vlan: say which VLAN or VNI; only a root admin may.")
        ctx.session.refresh(vpc, with_for_update=True)
        self._check_subnet(ctx.session, vpc)
        physical = self._physical(ctx.session, vpc)
        number = self._take(ctx.session, physical)
        gateway = PrivateGateway(
            vpc=vpc,
            physical_network=physical,
            vlan=number,
            address=self.ipaddress,
            gateway=self.gateway,
            netmask=self.netmask,
            source_nat=bool(self.sourcenatsupported),
            acl=choose_acl(ctx.session, vpc, self.aclid),
            account_id=vpc.account_id,
            domain_id=vpc.domain_id,
        )
        ctx.session.add(gateway)
        ctx.session.flush()
        for router in implement.serving(ctx.session, vpc):
            implement.plug_gateways(ctx.session, router, vpc)
        ctx.touch(*implement.routers_of(ctx.session, vpc))
        return gateway

    def _check_subnet(self, session: Session, vpc: Vpc) -> None:
        try:
            block = subnet(self.gateway, self.netmask)
        except ValueError as error:
            raise BadParameter(f"Invalid parameter gateway value={self.gateway}: {error}.") from None
        own = IPv4Address(self.ipaddress)
        if own not in block or own in (block.network_address, block.broadcast_address, IPv4Address(self.gateway)):
            raise BadParameter(
                f"Invalid parameter ipaddress value={self.ipaddress}: it must be an address of {block} besides the "
                f"gateway, {self.gateway}."
            )
        must_not_overlap("ipaddress", str(block), vpc.cidr, f"VPC {vpc.name}")
        for other in gateways_of(session, vpc):
            there = str(IPv4Network(f"{other.gateway}/{other.netmask}", strict=False))
            must_not_overlap("ipaddress", str(block), there, f"private gateway {other.uuid} of the VPC")
        routes = set(session.scalars(select(StaticRoute.uuid).where(StaticRoute.vpc_id == vpc.id)))
        must_be_free("ipaddress", block, [way for way in ways_of(session, vpc) if way.owner not in routes])
        must_be_free("ipaddress", block, [way for way in ways_of(session, vpc) if block.supernet_of(way.cidr)])

    def _physical(self, session: Session, vpc: Vpc) -> PhysicalNetwork:
        mine = PhysicalNetwork.zone_id == vpc.zone_id, PhysicalNetwork.removed.is_(None)
        there = session.scalars(select(PhysicalNetwork).where(*mine)).all()
        wanted = [row for row in there if self.physicalnetworkid is None or row.id == self.physicalnetworkid.id]
        if len(wanted) != 1:
            names = ", ".join(row.name for row in there)
            raise BadParameter(f"Invalid parameter physicalnetworkid: give one of zone {vpc.zone.name}'s: {names}.")
        return wanted[0]

    def _take(self, session: Session, physical: PhysicalNetwork) -> int:
        """Return the VLAN or VNI, which no guest network may have; several gateways may share it."""
        text = (self.vlan or "").strip().lower()
        for scheme in SCHEMES:
            text = text.removeprefix(scheme)
        if not text.isascii() or not text.isdigit():
            raise BadParameter(
                f"Invalid parameter vlan value={self.vlan}: it must be a VLAN or VNI, such as vlan://100."
            )
        number = int(text)
        if physical.isolation == "VLAN":
            refuse_flows(session, physical, number, f"Invalid parameter vlan value={self.vlan}:")
        taken = session.get(Vnet, (physical.id, number))
        if taken is None:
            session.add(Vnet(physical_network_id=physical.id, number=number))
        elif taken.network_id is not None and not self.bypassvlanoverlapcheck:
            name = session.scalars(select(Network.name).where(Network.id == taken.network_id)).one()
            raise InUse(f"Invalid parameter vlan value={self.vlan}: guest network {name} has it.")
        same = PrivateGateway.physical_network_id == physical.id, PrivateGateway.vlan == number
        there = select(PrivateGateway.uuid).where(*same, PrivateGateway.address == self.ipaddress)
        if (other := session.scalar(there)) is not None:
            raise InUse(
                f"Invalid parameter ipaddress value={self.ipaddress}: private gateway {other} has it there already."
            )
        return number


class DeletePrivateGateway(Command, name="deletePrivateGateway", answer=success(), roles=EVERYONE, job=True,
                           instance="PrivateGateway", event="PRIVATE.GATEWAY.DELETE"):  # fmt: skip
    """Unplug a private gateway that no static route leads through."""

    id: PrivateGateway = required()

    def run(self, ctx: Context) -> None:
        """Check, and unplug it."""
        gateway = ctx.instance = self.id
        through = select(StaticRoute.cidr).where(StaticRoute.gateway_id == gateway.id)
        if routes := ctx.session.scalars(through).all():
            raise InUse(
                f"Invalid parameter id value={gateway.uuid}: private gateway {gateway.address} has the static routes "
                f"{', '.join(routes)}; delete them first."
            )
        ctx.touched.extend(remove_gateway(ctx.session, gateway))


def remove_gateway(session: Session, gateway: PrivateGateway) -> list[Target]:
    """Remove a private gateway; its number is free where no other gateway has it.

    :return: what it was on, to be touched.
    """
    routers = implement.routers_of(session, gateway.vpc)
    touched = [target for router in routers for target in router.targets(session)]
    for nic in session.scalars(select(Nic).where(Nic.private_gateway_id == gateway.id)).all():
        session.delete(nic)
    session.flush()
    where, number = gateway.physical_network_id, gateway.vlan
    session.delete(gateway)
    session.flush()
    same = PrivateGateway.physical_network_id == where, PrivateGateway.vlan == number
    vnet = session.get(Vnet, (where, number))
    if vnet is not None and vnet.network_id is None and session.scalar(select(PrivateGateway.id).where(*same)) is None:
        session.delete(vnet)
        session.flush()
    return touched


class ListPrivateGateways(OwnedListing, name="listPrivateGateways", answer=many("privategateway", gateway_views),
                          roles=EVERYONE):  # fmt: skip
    """List private gateways."""

    table = PrivateGateway
    keywords = (PrivateGateway.address,)
    tags = None

    id: PrivateGateway | None = matching(PrivateGateway.id)
    ipaddress: str | None = matching(PrivateGateway.address)
    state: str | None = matching(PrivateGateway.state)
    vpcid: Vpc | None = matching(PrivateGateway.vpc_id)
    vlan: str | None = optional(admin=True)

    def narrow(self, ctx: Context, query: Any) -> Any:
        """Keep those on the VLAN or VNI."""
        del ctx
        if self.vlan is None:
            return query
        text = self.vlan.lower().removeprefix("vlan://").removeprefix("vxlan://")
        return query.where(PrivateGateway.vlan == (int(text) if text.isdigit() else -1))
