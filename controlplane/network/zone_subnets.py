"""Commands about the IPv4 subnets that a zone gives its routed networks parts of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, joinedload

from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter, InUse, RuleConflict
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.network.dedication import dedicated_fields, dedicated_to, of_realm
from controlplane.network.ipv4_subnets import GuestSubnet, ZoneSubnet, parts_of
from controlplane.network.public_ips import VlanRange
from controlplane.zone import syntax
from controlplane.zone.zones import Zone

INSTANCE = "DataCenterIpv4GuestSubnet"
WIDEST, NARROWEST = 8, 29


def subnet_of(value: str) -> str:
    """Accept a subnet that guests can have addresses of.

    :raises ValueError: it is none, or too large or small.
    """
    found = IPv4Network(syntax.cidr(value))
    if not WIDEST <= found.prefixlen <= NARROWEST:
        raise ValueError(f"a subnet for guest networks is /{WIDEST} to /{NARROWEST} large")
    if found.is_multicast or found.is_loopback or found.is_link_local or found.is_unspecified:
        raise ValueError("guests cannot be reached by multicast, loopback or link-local addresses")
    return str(found)


@dataclass(kw_only=True)
class ZoneSubnetResponse(Response):
    """A zone's subnet, and for whom it is kept."""

    id: str
    subnet: str
    zoneid: str
    zonename: str
    account: str | None = None
    domain: str | None = None
    domainid: str | None = None
    created: datetime


def zone_subnet_views(ctx: Context, rows: Sequence[ZoneSubnet]) -> list[ZoneSubnetResponse]:
    """Return the responses of these subnets."""
    zones = select(Zone.id, Zone.uuid, Zone.name).where(Zone.id.in_({row.zone_id for row in rows}))
    known = {number: (uuid, name) for number, uuid, name in ctx.session.execute(zones)}
    kept = dedicated_fields(ctx.session, rows)
    return [
        ZoneSubnetResponse(
            id=row.uuid,
            subnet=row.subnet,
            zoneid=known[row.zone_id][0],
            zonename=known[row.zone_id][1],
            created=row.created,
            **kept[row.id],
        )
        for row in rows
    ]


def _refuse_overlap(session: Session, zone: Zone, block: IPv4Network, but: ZoneSubnet | None = None) -> None:
    """Refuse a block that another subnet, or a public range, of the zone has part of; the zone's row is locked."""
    session.refresh(zone, with_for_update=True)  # two overlapping ones at once wait for each other
    for other in session.scalars(select(ZoneSubnet).where(ZoneSubnet.zone_id == zone.id)):
        if other is not but and block.overlaps(IPv4Network(other.subnet)):
            raise RuleConflict(
                f"Invalid parameter subnet value={block}: it overlaps {other.subnet} ({other.uuid}) of zone "
                f"{zone.name}."
            )
    for row in session.scalars(select(VlanRange).where(VlanRange.zone_id == zone.id, VlanRange.gateway != "")):
        if block.overlaps(outer := IPv4Network(f"{row.gateway}/{row.netmask}", strict=False)):
            raise RuleConflict(
                f"Invalid parameter subnet value={block}: it overlaps the public range {outer} ({row.uuid}) of zone "
                f"{zone.name}."
            )


class CreateIpv4SubnetForZone(Command, name="createIpv4SubnetForZone", job=True, instance=INSTANCE,
                              answer=one("zoneipv4subnet", zone_subnet_views), unsupported=("projectid",),
                              event="ZONE.IP4.SUBNET.CREATE"):  # fmt: skip
    """Give a zone a subnet that its routed networks get parts of."""

    zoneid: Zone = required()
    subnet: str = required(check=subnet_of)
    account: str | None = optional()
    domainid: Domain | None = optional()

    def run(self, ctx: Context) -> ZoneSubnet:
        """Refuse what overlaps, and write the row."""
        _refuse_overlap(ctx.session, self.zoneid, IPv4Network(self.subnet))
        row = ZoneSubnet(zone=self.zoneid, subnet=self.subnet)
        if self.account is not None or self.domainid is not None:
            row.account_id, row.domain_id = dedicated_to(ctx, self.account, self.domainid)
        ctx.session.add(row)
        ctx.session.flush()
        return row


class UpdateIpv4SubnetForZone(Command, name="updateIpv4SubnetForZone", job=True, instance=INSTANCE,
                              answer=one("zoneipv4subnet", zone_subnet_views),
                              event="ZONE.IP4.SUBNET.UPDATE"):  # fmt: skip
    """Make a zone's subnet another one, which holds all parts that are there."""

    id: ZoneSubnet = required()
    subnet: str = required(check=subnet_of)

    def run(self, ctx: Context) -> ZoneSubnet:
        """Refuse what overlaps or leaves a part out."""
        row, block = self.id, IPv4Network(self.subnet)
        _refuse_overlap(ctx.session, row.zone, block, row)
        ctx.session.refresh(row, with_for_update=True)
        for part in parts_of(ctx.session, row):
            if not IPv4Network(part.subnet).subnet_of(block):
                raise InUse(
                    f"Invalid parameter subnet value={block}: {part.subnet}, which is {part.state.lower()}, "
                    "would lie outside of it."
                )
        row.subnet = self.subnet
        return row


class DeleteIpv4SubnetForZone(Command, name="deleteIpv4SubnetForZone", answer=success(), job=True, instance=INSTANCE,
                              event="ZONE.IP4.SUBNET.DELETE"):  # fmt: skip
    """Delete a subnet that there are no parts of."""

    id: ZoneSubnet = required()

    def run(self, ctx: Context) -> None:
        """Refuse while there are parts; some are named."""
        row, ctx.instance = self.id, self.id
        ctx.session.refresh(row, with_for_update=True)
        parts = [part.subnet for part in parts_of(ctx.session, row)][:5]
        if parts:
            raise InUse(f"The subnet {row.subnet} cannot be deleted: there are the parts {', '.join(parts)} of it.")
        ctx.session.delete(row)


class DedicateIpv4SubnetForZone(Command, name="dedicateIpv4SubnetForZone", job=True, instance=INSTANCE,
                                answer=one("zoneipv4subnet", zone_subnet_views), unsupported=("projectid",),
                                event="ZONE.IP4.SUBNET.DEDICATE"):  # fmt: skip
    """Keep a subnet for the networks of one account, or of one domain with its tree."""

    id: ZoneSubnet = required()
    account: str | None = optional()
    domainid: Domain | None = optional()

    def run(self, ctx: Context) -> ZoneSubnet:
        """Refuse while somebody else has a part of it."""
        row = self.id
        if row.account_id is not None or row.domain_id is not None:
            raise BadParameter(f"Invalid parameter id value={row.uuid}: {row.subnet} is dedicated; release it first.")
        account, domain = dedicated_to(ctx, self.account, self.domainid)
        for part in parts_of(ctx.session, row):
            owner = part.network or part.vpc
            if owner is not None and not _is_theirs(ctx.session, owner.account_id, account, domain):
                raise InUse(f"{row.subnet} cannot be dedicated: another account has {part.subnet} of it.")
        row.account_id, row.domain_id = account, domain
        return row


def _is_theirs(session: Session, owner: int, account: int | None, domain: int) -> bool:
    if account is not None:
        return owner == account
    inside = select(Account.id).join(Domain, Account.domain_id == Domain.id)
    top = session.get_one(Domain, domain)
    inside = inside.where(Account.id == owner, Domain.path.startswith(top.path, autoescape=True))
    return session.scalar(inside) is not None


class ReleaseIpv4SubnetForZone(Command, name="releaseIpv4SubnetForZone", job=True, instance=INSTANCE,
                               answer=one("zoneipv4subnet", zone_subnet_views),
                               event="ZONE.IP4.SUBNET.RELEASE"):  # fmt: skip
    """Give a dedicated subnet back to everybody; who has a part keeps it."""

    id: ZoneSubnet = required()

    def run(self, ctx: Context) -> ZoneSubnet:
        """Take the owner away."""
        del ctx
        row = self.id
        if row.domain_id is None:
            raise BadParameter(f"Invalid parameter id value={row.uuid}: {row.subnet} is not dedicated.")
        row.account_id = row.domain_id = None
        return row


class ListIpv4SubnetsForZone(ListCommand, name="listIpv4SubnetsForZone", unsupported=("projectid",),
                             answer=many("zoneipv4subnet", zone_subnet_views)):  # fmt: skip
    """List the subnets of zones."""

    table = ZoneSubnet
    keywords = (ZoneSubnet.subnet,)

    id: ZoneSubnet | None = matching(ZoneSubnet.id)
    zoneid: Zone | None = matching(ZoneSubnet.zone_id)
    subnet: str | None = matching(ZoneSubnet.subnet)
    account: str | None = optional()
    domainid: Domain | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep those of the account or domain."""
        return of_realm(ctx, query, ZoneSubnet, self.account, self.domainid)


INSTANCE_OF_PART = "Ipv4GuestSubnetNetworkMap"


@dataclass(kw_only=True)
class GuestSubnetResponse(Response):
    """A part of a zone's subnet, and which network or VPC has it."""

    id: str
    subnet: str
    parentid: str
    parentsubnet: str
    state: str
    zoneid: str
    zonename: str
    networkid: str | None = None
    networkname: str | None = None
    vpcid: str | None = None
    vpcname: str | None = None
    allocated: datetime | None = None
    created: datetime


def guest_subnet_views(ctx: Context, rows: Sequence[GuestSubnet]) -> list[GuestSubnetResponse]:
    """Return the responses of these parts."""
    eager = joinedload(GuestSubnet.parent).joinedload(ZoneSubnet.zone), joinedload(GuestSubnet.network)
    query = select(GuestSubnet).where(GuestSubnet.id.in_([row.id for row in rows]))
    ctx.session.scalars(query.options(*eager, joinedload(GuestSubnet.vpc))).all()
    return [
        GuestSubnetResponse(
            id=row.uuid,
            subnet=row.subnet,
            parentid=row.parent.uuid,
            parentsubnet=row.parent.subnet,
            state=row.state,
            zoneid=row.parent.zone.uuid,
            zonename=row.parent.zone.name,
            networkid=row.network.uuid if row.network else None,
            networkname=row.network.name if row.network else None,
            vpcid=row.vpc.uuid if row.vpc else None,
            vpcname=row.vpc.name if row.vpc else None,
            allocated=row.allocated,
            created=row.created,
        )
        for row in rows
    ]
