"""Making, changing, restarting and deleting VPCs."""

from __future__ import annotations

from ipaddress import IPv4Network

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import Long, Uuid, optional, required
from controlplane.db.base import now
from controlplane.errors import BadParameter, InUse
from controlplane.identity import limits, names
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import owner_of_new
from controlplane.network import implement, ipv6, mtu, public_ips, routing
from controlplane.network.acl_lists import remove_lists
from controlplane.network.acls import AclList
from controlplane.network.bgp_peers import BgpPeer
from controlplane.network.gateway_commands import remove_gateway
from controlplane.network.network_changes import default_domain, move_source_nat
from controlplane.network.networks import Network
from controlplane.network.private_gateways import StaticRoute, gateways_of
from controlplane.network.public_ips import VlanRange
from controlplane.network.rules import remove_rows, remove_tags, set_custom_id
from controlplane.network.static_routes import TAGGABLE as ROUTES
from controlplane.network.tiers import must_not_overlap
from controlplane.network.vpc_list import vpc_views
from controlplane.network.vpcs import TAGGABLE, Vpc
from controlplane.offering.scope import in_zone
from controlplane.offering.vpc_offerings import VpcOffering
from controlplane.reconcile import targets
from controlplane.zone import syntax
from controlplane.zone.physical_networks import PhysicalNetwork
from controlplane.zone.providers import enabled_providers
from controlplane.zone.zones import Zone

WIDEST, NARROWEST = 8, 29
RESERVED = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
"""What no VPC can have: this network, loopback, link-local (the metadata service's), multicast and so on (RFC 6890)."""


def vpc_cidr(value: str) -> str:
    """Return the CIDR in its canonical form.

    :raises ValueError: it is none, or none that a VPC can have.
    """
    cidr = IPv4Network(syntax.cidr(value))
    if not WIDEST <= cidr.prefixlen <= NARROWEST:
        raise ValueError(f"a VPC is /{WIDEST} to /{NARROWEST} large")
    for other in RESERVED:
        if cidr.overlaps(IPv4Network(other)):
            raise ValueError(f"it overlaps {other}, which is reserved; choose one within 10.0.0.0/8, for example")
    return str(cidr)


class CreateVpc(Command, name="createVPC", answer=one("vpc", vpc_views), roles=EVERYONE, job=True, creates=True,
                instance="Vpc", event="VPC.CREATE"):  # fmt: skip
    """Create a VPC with its source NAT address and, unless start=false, its router."""

    name: str = required(check=names.text)
    vpcofferingid: VpcOffering = required()
    zoneid: Zone = required()
    cidr: str | None = optional(check=vpc_cidr, description="what all its tiers lie in")
    displaytext: str | None = optional(check=names.text)
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()
    dns1: str | None = optional(check=syntax.ipv4, description="a resolver that the router asks; the zone's by default")
    dns2: str | None = optional(check=syntax.ipv4)
    ip6dns1: str | None = optional(check=syntax.ipv6, description="a resolver that the router asks over IPv6")
    ip6dns2: str | None = optional(check=syntax.ipv6)
    networkdomain: str | None = optional(check=names.dns_domain, description="DNS domain of all tiers")
    publicmtu: int | None = optional(check=mtu.mtu, description="the greatest that the zone allows unless given")
    sourcenatipaddress: str | None = optional(check=syntax.ipv4, description="the wanted one; a free one by default")
    start: bool | None = optional(True)
    cidrsize: int | None = optional(description="of a ROUTED VPC: the prefix length of the CIDR that it gets")
    asnumber: Long | None = optional(description="where the offering has specifyasnumber")
    bgppeerids: list[BgpPeer] | None = optional(description="the peers that tiers are announced to; all unless given")
    userouteripresolver: bool | None = optional(True, description="guests ask the router alone, which asks dns1")
    fordisplay: bool | None = optional(True, admin=True)

    def run(self, ctx: Context) -> Vpc:
        """Check, take what it needs, and have its router come up."""
        owner = owner_of_new(ctx, self.account, self.domainid, self.projectid)
        if self.cidr is None and not self.vpcofferingid.routed:
            raise BadParameter("Invalid parameter cidr: give the CIDR of the VPC, such as 10.0.0.0/16.")
        if self.dns2 and not self.dns1:
            raise BadParameter(f"Invalid parameter dns2 value={self.dns2}: it goes together with dns1.")
        if self.userouteripresolver is False:
            raise BadParameter(
                "Invalid parameter userouteripresolver value=false: guests ask their router, which asks dns1 and dns2."
            )
        self._check(ctx)
        limits.take(ctx.session, owner.id, "vpc")
        vpc = Vpc(
            name=self.name,
            display_text=self.displaytext or self.name,
            zone=self.zoneid,
            offering=self.vpcofferingid,
            cidr=self.cidr or "",
            account_id=owner.id,
            domain_id=owner.domain_id,
            network_domain=self.networkdomain or default_domain(owner, self.zoneid),
            dns=[server for server in (self.dns1, self.dns2) if server],
            dns6=[server for server in (self.ip6dns1, self.ip6dns2) if server],
            public_mtu=mtu.chosen(ctx, self.zoneid, "publicmtu", self.publicmtu),
            redundant=self.vpcofferingid.redundant,
            display=self.fordisplay is not False,
        )
        self._place(ctx, vpc, owner)
        if self.start is not False:
            implement.ensure_vpc_routers(ctx.session, vpc)
            ctx.touch(*implement.routers_of(ctx.session, vpc))
        return vpc

    def _place(self, ctx: Context, vpc: Vpc, owner: Account) -> None:
        """Give it its addresses and, with dynamic routing, its AS number."""
        routing.refuse_foreign(vpc, self.cidrsize, self.asnumber, self.bgppeerids)
        ctx.session.add(vpc)
        ctx.session.flush()
        if vpc.offering.routed:
            vpc.cidr = str(routing.give_subnet(ctx.session, vpc, owner, self.cidr, self.cidrsize))
        routing.give_voice(ctx.session, vpc, self.asnumber, self.bgppeerids)
        public_ips.acquire(ctx.session, vpc, owner, source_nat=True, address=self.sourcenatipaddress)

    def _check(self, ctx: Context) -> None:
        offering, zone = self.vpcofferingid, self.zoneid
        what = f"Invalid parameter vpcofferingid value={offering.uuid}: offering {offering.name}"
        if offering.state != "Enabled":
            raise BadParameter(f"{what} is {offering.state}; an enabled one is needed.")
        usable = select(VpcOffering.id).where(VpcOffering.id == offering.id, in_zone(VpcOffering, zone))
        if ctx.session.scalar(usable) is None:
            raise BadParameter(f"{what} is not for zone {zone.name}.")
        if zone.network_type != "Advanced":
            raise BadParameter(
                f"Invalid parameter zoneid value={zone.uuid}: zone {zone.name} is Basic and has no VPCs."
            )
        if zone.allocation_state != "Enabled" and not ctx.caller.is_admin:
            raise BadParameter(f"Invalid parameter zoneid value={zone.uuid}: zone {zone.name} is disabled.")
        physical = ctx.session.scalars(select(PhysicalNetwork).where(PhysicalNetwork.zone_id == zone.id)).all()
        if not any(implement.VPC_PROVIDER in enabled_providers(ctx.session, row) for row in physical):
            raise BadParameter(
                f"Invalid parameter zoneid value={zone.uuid}: no physical network of zone {zone.name} has provider "
                f"{implement.VPC_PROVIDER} enabled."
            )
        if self.cidr is None:
            return  # what the zone has for routed VPCs overlaps no public range
        with_ipv4 = VlanRange.zone_id == zone.id, VlanRange.gateway != ""
        for row in ctx.session.scalars(select(VlanRange).where(*with_ipv4)):
            within = str(IPv4Network(f"{row.gateway}/{row.netmask}", strict=False))
            must_not_overlap("cidr", self.cidr, within, f"a public range of zone {zone.name}")


class UpdateVpc(Command, name="updateVPC", answer=one("vpc", vpc_views), roles=EVERYONE, job=True, instance="Vpc",
                event="VPC.UPDATE"):  # fmt: skip
    """Update a VPC; its routers learn of it without a restart."""

    id: Vpc = required()
    name: str | None = optional(check=names.text)
    displaytext: str | None = optional(check=names.text)
    customid: str | None = optional(admin=True)
    fordisplay: bool | None = optional(admin=True)
    publicmtu: int | None = optional(check=mtu.mtu)
    sourcenatipaddress: str | None = optional(check=syntax.ipv4, description="another of its addresses")

    def run(self, ctx: Context) -> Vpc:
        """Change what is given."""
        vpc = self.id
        vpc.name, vpc.display_text = self.name or vpc.name, self.displaytext or vpc.display_text
        vpc.display = vpc.display if self.fordisplay is None else self.fordisplay
        set_custom_id(ctx, vpc, TAGGABLE, self.customid)
        if self.publicmtu is not None:
            mtu.change_vpc(ctx, vpc, self.publicmtu)
            for tier in tiers_of(ctx.session, vpc):
                if tier.cidr6:
                    ipv6.refuse_small_mtu(tier)
        if self.sourcenatipaddress is not None:
            move_source_nat(ctx.session, vpc, self.sourcenatipaddress)
        ctx.touch(vpc)
        return vpc


def tiers_of(session: Session, vpc: Vpc) -> list[Network]:
    """Return the VPC's tiers, the oldest first."""
    query = select(Network).where(Network.vpc_id == vpc.id, Network.removed.is_(None))
    return list(session.scalars(query.order_by(Network.id)))


class DeleteVpc(Command, name="deleteVPC", answer=success(), roles=EVERYONE, job=True, instance="Vpc",
                event="VPC.DELETE"):  # fmt: skip
    """Delete a VPC that has no tiers any more."""

    id: Vpc = required()

    def run(self, ctx: Context) -> None:
        """Give back everything it has; its router is taken down."""
        ctx.instance = self.id
        ctx.touched.extend(delete_vpc(ctx.session, self.id))


def delete_vpc(session: Session, vpc: Vpc) -> list[targets.Target]:
    """Delete the VPC with its addresses, gateways, routes and ACL lists.

    :return: what it was on, to be touched.
    :raises InUse: it has tiers; they are named.
    """
    session.refresh(vpc, with_for_update=True)
    tiers = [tier.name for tier in tiers_of(session, vpc)]
    if tiers:
        raise InUse(f"VPC {vpc.name} cannot be deleted: it has the tiers {', '.join(tiers)}; delete them first.")
    public_ips.release_all(session, vpc)
    remove_rows(session, StaticRoute, ROUTES, StaticRoute.vpc_id == vpc.id)
    for gateway in gateways_of(session, vpc):
        remove_gateway(session, gateway)
    remove_lists(session, select(AclList.id).where(AclList.vpc_id == vpc.id))
    touched = implement.remove_routers(session, vpc)
    if not touched:
        routing.give_back(session, vpc)
    vpc.removed, vpc.state = now(), "Inactive"
    limits.give_back(session, vpc.account_id, "vpc")
    remove_tags(session, TAGGABLE, select(Vpc.uuid).where(Vpc.id == vpc.id))
    return touched
