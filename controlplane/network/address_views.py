"""How public addresses look in answers, and their list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional
from controlplane.api.responses import Response
from controlplane.identity.ownership import OwnedListing, owner_fields
from controlplane.identity.tags import TagResponse, tags_of
from controlplane.network.claims import PortClaim
from controlplane.network.firewall import FirewallRule
from controlplane.network.load_balancers import LoadBalancer
from controlplane.network.networks import Network
from controlplane.network.port_forwarding import PortForward, guest_names
from controlplane.network.public_ips import (
    ALLOCATED,
    ALLOCATING,
    FREE,
    HELD,
    RELEASING,
    RESERVED,
    PublicIp,
    VlanRange,
)
from controlplane.network.rules import rows_by_id
from controlplane.network.vpcs import Vpc
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.offering.routing_modes import ROUTED
from controlplane.offering.vpc_offerings import VpcOffering
from controlplane.zone.physical_networks import PhysicalNetwork
from controlplane.zone.zones import Zone

TAGGABLE = "PublicIpAddress"


@dataclass(kw_only=True)
class AddressResponse(Response):
    """A public address. What belongs to nobody has no account."""

    id: str
    ipaddress: str
    zoneid: str
    zonename: str
    state: str
    issourcenat: bool
    isstaticnat: bool
    issystem: bool
    isportable: bool
    forvirtualnetwork: bool
    forsystemvms: bool | None = None
    fordisplay: bool | None = None
    hasannotations: bool = False
    hasrules: bool
    allocated: datetime | None = None
    associatednetworkid: str | None = None
    associatednetworkname: str | None = None
    vpcid: str | None = None
    vpcname: str | None = None
    physicalnetworkid: str
    vlanid: str | None = None
    vlanname: str | None = None
    purpose: str | None = None
    account: str | None = None
    domain: str | None = None
    domainid: str | None = None
    domainpath: str | None = None
    virtualmachineid: str | None = None
    virtualmachinename: str | None = None
    virtualmachinedisplayname: str | None = None
    virtualmachinetype: str | None = None
    vmipaddress: str | None = None
    tags: list[TagResponse]


def address_views(ctx: Context, rows: Sequence[PublicIp]) -> list[AddressResponse]:
    """Show public addresses; ranges are the root admin's to see."""
    session, admin = ctx.session, ctx.caller.is_admin
    zones = rows_by_id(session, (Zone.id, Zone.uuid, Zone.name), (row.zone_id for row in rows))
    columns = VlanRange.id, VlanRange.uuid, VlanRange.network_id, VlanRange.physical_network_id
    ranges = rows_by_id(session, (*columns, VlanRange.for_system_vms), (row.range_id for row in rows))
    columns_of_physical = PhysicalNetwork.id, PhysicalNetwork.uuid
    physical = rows_by_id(session, columns_of_physical, (found.physical_network_id for found in ranges.values()))
    guests = guest_names(session, (row.vm_id for row in rows))
    users = _users(session, rows)
    owners, tags, ruled = owner_fields(ctx, rows), tags_of(ctx, TAGGABLE, rows), _with_rules(ctx, rows)
    mine = PublicIp.id.in_([row.id for row in rows if row.source_nat])
    routed = set(session.scalars(select(PublicIp.id).where(mine, _routed())))
    found = []
    for row in rows:
        within = ranges[row.range_id]
        response = AddressResponse(
            id=row.uuid,
            ipaddress=row.address,
            zoneid=zones[row.zone_id].uuid,
            zonename=zones[row.zone_id].name,
            state=row.state,
            issourcenat=row.source_nat and row.id not in routed,
            isstaticnat=row.static_nat,
            issystem=row.is_system,
            isportable=row.portable_range_id is not None,
            forvirtualnetwork=within.network_id is None,
            hasrules=row.id in ruled,
            allocated=row.allocated,
            physicalnetworkid=physical[within.physical_network_id].uuid,
            purpose="Lb" if row.is_system else None,
            virtualmachinetype="User" if row.vm_id else None,
            vmipaddress=row.nic_address,
            tags=tags[row.id],
            **owners.get(row.account_id or 0, {}),
            **guests.get(row.vm_id or 0, {}),
            **users[row.id],
        )
        if admin:
            _show_range(response, row, within)
        found.append(response)
    return found


def _routed() -> ColumnElement[bool]:
    """Return the condition of addresses that a router has of its own, where nobody's traffic is translated."""
    networks = select(Network.id).join(NetworkOffering).where(NetworkOffering.network_mode == ROUTED)
    vpcs = select(Vpc.id).join(VpcOffering).where(VpcOffering.network_mode == ROUTED)
    of_network = PublicIp.network_id.is_not(None) & PublicIp.network_id.in_(networks)
    return of_network | (PublicIp.vpc_id.is_not(None) & PublicIp.vpc_id.in_(vpcs))


def _users(session: Session, rows: Sequence[PublicIp]) -> dict[int, dict[str, Any]]:
    """Return, by row number, which network and which VPC uses each of the addresses."""
    of_row = _networks_of(session, rows)
    networks = rows_by_id(session, (Network.id, Network.uuid, Network.name), of_row.values())
    vpcs = rows_by_id(session, (Vpc.id, Vpc.uuid, Vpc.name), (row.vpc_id for row in rows))
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        network, vpc = networks.get(of_row.get(row.id) or 0), vpcs.get(row.vpc_id or 0)
        mine = {"associatednetworkid": network.uuid, "associatednetworkname": network.name} if network else {}
        found[row.id] = mine | ({"vpcid": vpc.uuid, "vpcname": vpc.name} if vpc else {})
    return found


def _networks_of(session: Session, rows: Sequence[PublicIp]) -> dict[int, int | None]:
    """Return the network of each address by number: of a VPC's, the one tier that all its rules lead to."""
    found = {row.id: row.network_id for row in rows}
    shared = [row.id for row in rows if row.vpc_id is not None and row.network_id is None]
    tiers: dict[int, set[int]] = {}
    for rule in (PortForward, LoadBalancer) if shared else ():
        led = select(rule.public_ip_id, rule.network_id).where(rule.public_ip_id.in_(shared)).distinct()
        for address, network in session.execute(led):
            tiers.setdefault(address or 0, set()).add(network)
    return found | {address: next(iter(led)) for address, led in tiers.items() if len(led) == 1}


def _show_range(response: AddressResponse, row: PublicIp, within: Any) -> None:
    response.vlanid, response.vlanname = within.uuid, f"vlan://{row.vlan}"
    response.forsystemvms, response.fordisplay = within.for_system_vms, row.display


def _with_rules(ctx: Context, rows: Sequence[PublicIp]) -> set[int | None]:
    """Return the numbers of the addresses that a rule names."""
    numbers = [row.id for row in rows]
    found: set[int | None] = {row.id for row in rows if row.static_nat}
    for column in (FirewallRule.public_ip_id, PortClaim.public_ip_id):
        there = select(column).where(column == PublicIp.id).exists()
        found |= set(ctx.session.scalars(select(PublicIp.id).where(PublicIp.id.in_(numbers), there)))
    return found


class ListPublicIpAddresses(OwnedListing, name="listPublicIpAddresses", answer=many("publicipaddress", address_views),
                            roles=EVERYONE):  # fmt: skip
    """List public addresses: those in use, unless others are asked for."""

    table = PublicIp
    keywords = (PublicIp.address,)
    order = (PublicIp.number,)
    taggable = TAGGABLE

    id: PublicIp | None = matching(PublicIp.id)
    ipaddress: str | None = matching(PublicIp.address)
    zoneid: Zone | None = matching(PublicIp.zone_id)
    vlanid: VlanRange | None = matching(PublicIp.range_id)
    associatednetworkid: Network | None = matching(PublicIp.network_id)
    vpcid: Vpc | None = matching(PublicIp.vpc_id)
    issourcenat: bool | None = optional()
    isstaticnat: bool | None = matching(PublicIp.static_nat)
    fordisplay: bool | None = matching(PublicIp.display, admin=True)
    state: str | None = matching(PublicIp.state, choices=(FREE, ALLOCATING, ALLOCATED, RESERVED, RELEASING))
    allocatedonly: bool | None = optional(True, description="leave out the free ones; without state")
    networkid: Network | None = optional(description="the network whose range they are from, or that uses them")
    physicalnetworkid: PhysicalNetwork | None = optional()
    forvirtualnetwork: bool | None = optional(description="of a public range, not of a shared network's")
    forloadbalancing: bool | None = optional(description="a load balancer rule uses it")
    forsystemvms: bool | None = optional()
    forprovider: bool | None = optional(
        description="of a range that an outside network provider manages: there is none"
    )
    retrieveonlyresourcecount: bool | None = optional()

    def owners(self, ctx: Context) -> Any:
        """Return the condition on the owner; free addresses have none."""
        condition = super().owners(ctx)
        if condition is None or self.account is not None or self.domainid is not None or self.projectid is not None:
            return condition
        return or_(condition, PublicIp.state == FREE)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep what the state and the ranges let through."""
        del ctx
        query = query.where(PublicIp.portable_range_id.is_(None) | (PublicIp.state != FREE))
        if self.state is None and self.allocatedonly:
            query = query.where(PublicIp.state.in_((*HELD, RESERVED)))
        if self.forloadbalancing is not None:
            used = select(LoadBalancer.id).where(LoadBalancer.public_ip_id == PublicIp.id).exists()
            query = query.where(used if self.forloadbalancing else ~used)
        if self.issourcenat is not None:
            theirs = _routed()
            query = query.where((PublicIp.source_nat & ~theirs) == self.issourcenat)
        if self.forprovider:
            query = query.where(PublicIp.id.is_(None))
        within = self._of_ranges()
        if within:
            query = query.join(VlanRange, PublicIp.range_id == VlanRange.id).where(*within)
        return query

    def _of_ranges(self) -> list[Any]:
        """Return the conditions on the range."""
        conditions = []
        if self.networkid is not None:
            conditions.append(or_(VlanRange.network_id == self.networkid.id, PublicIp.network_id == self.networkid.id))
        if self.physicalnetworkid is not None:
            conditions.append(VlanRange.physical_network_id == self.physicalnetworkid.id)
        if self.forvirtualnetwork is not None:
            public = VlanRange.network_id.is_(None)
            conditions.append(public if self.forvirtualnetwork else ~public)
        if self.forsystemvms is not None:
            conditions.append(VlanRange.for_system_vms.is_(self.forsystemvms))
        return conditions
