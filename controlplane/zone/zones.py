"""Zones: a data centre, as far as tenants can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, ForeignKey, Select, String, UniqueConstraint, select, true
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.api.caller import EVERYONE, Caller, Role
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import Records, matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Created, Removable, Row
from controlplane.errors import BadParameter, InUse
from controlplane.identity.domains import Domain
from controlplane.identity.tags import TagResponse, tagged, tags_of
from controlplane.zone import syntax
from controlplane.zone.capacity import CapacityResponse, responses_by_place

STATES = ("Enabled", "Disabled")
ADVANCED, BASIC = KINDS = ("Advanced", "Basic")


class Zone(Created, Removable, Row):
    """A zone (createZone).

    :ivar network_type: ``Advanced`` or ``Basic``.
    :ivar allocation_state: ``Enabled`` or ``Disabled``: a disabled zone takes nothing new from users.
    :ivar domain_id: the only domain (with its tree) that may use it; None is public.
    """

    __tablename__ = "zones"
    __table_args__ = (UniqueConstraint("name", "removed_key"),)

    name: Mapped[str] = mapped_column(String(255), index=True)
    description: Mapped[str | None] = mapped_column(String(255))
    network_type: Mapped[str] = mapped_column(String(20))
    allocation_state: Mapped[str] = mapped_column(String(20), default="Disabled")
    dns1: Mapped[str]
    dns2: Mapped[str | None]
    internal_dns1: Mapped[str]
    internal_dns2: Mapped[str | None]
    ip6_dns1: Mapped[str | None]
    ip6_dns2: Mapped[str | None]
    guest_cidr: Mapped[str | None]
    network_domain: Mapped[str | None]
    domain_id: Mapped[int | None] = mapped_column(ForeignKey("domains.id"))
    security_groups: Mapped[bool] = mapped_column(default=False)
    local_storage: Mapped[bool] = mapped_column(default=False)
    type: Mapped[str] = mapped_column(String(20), default="Core")
    dhcp_provider: Mapped[str] = mapped_column(String(60), default="VirtualRouter")
    details: Mapped[dict[str, str]] = mapped_column(default=dict)
    sort_key: Mapped[int] = mapped_column(default=0)
    removed_key: Mapped[int] = mapped_column(default=0)  # its own number once removed, so that the name is free again

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """Everyone sees public zones, and those of a domain on the path from ROOT down to the own one."""
        if caller.role is Role.ADMIN:
            return true()
        path = [int(part) for part in caller.domain_path.split("/") if part]
        return cls.domain_id.is_(None) | cls.domain_id.in_(path)


@dataclass(kw_only=True)
class ZoneResponse(Response):
    """A zone; tenants are not told its internals."""

    id: str
    name: str
    description: str | None = None
    displaytext: str | None = None
    dns1: str | None = None
    dns2: str | None = None
    ip6dns1: str | None = None
    ip6dns2: str | None = None
    internaldns1: str | None = None
    internaldns2: str | None = None
    guestcidraddress: str | None = None
    domain: str | None = None
    domainid: str | None = None
    domainname: str | None = None
    networktype: str
    securitygroupsenabled: bool
    allocationstate: str
    zonetoken: str | None = None
    dhcpprovider: str
    localstorageenabled: bool
    type: str
    allowuserspecifyvrmtu: bool | None = None
    routerpublicinterfacemaxmtu: int | None = None
    routerprivateinterfacemaxmtu: int | None = None
    capacity: list[CapacityResponse] | None = None
    resourcedetails: dict[str, str] | None = None
    tags: list[TagResponse]


def zone_views(ctx: Context, rows: Sequence[Zone]) -> list[ZoneResponse]:
    """Return the responses of these zones."""
    tags = tags_of(ctx, "Zone", rows)
    numbers = {row.domain_id for row in rows if row.domain_id}
    found = ctx.session.scalars(select(Domain).where(Domain.id.in_(numbers)))
    domains = {domain.id: domain for domain in found} if numbers else {}
    responses = [_view(ctx, row, domains.get(row.domain_id or 0), tags[row.id]) for row in rows]
    _show_mtus(ctx, rows, responses)
    return responses


def _show_mtus(ctx: Context, rows: Sequence[Zone], responses: Sequence[ZoneResponse]) -> None:
    """Say what MTUs networks of the zones may have."""
    from controlplane.network.mtu import PRIVATE_MOST, PUBLIC_MOST, USERS_MAY

    settings = PUBLIC_MOST, PRIVATE_MOST, USERS_MAY
    public, private, may = (one.texts(ctx.session, "Zone", [row.id for row in rows]) for one in settings)
    for row, response in zip(rows, responses, strict=True):
        response.routerpublicinterfacemaxmtu = int(public[row.id])
        response.routerprivateinterfacemaxmtu = int(private[row.id])
        response.allowuserspecifyvrmtu = may[row.id] == "true"


def _view(ctx: Context, zone: Zone, domain: Domain | None, tags: list[TagResponse]) -> ZoneResponse:
    response = ZoneResponse(
        id=zone.uuid,
        name=zone.name,
        domainid=domain.uuid if domain else None,
        domainname=domain.name if domain else None,
        networktype=zone.network_type,
        securitygroupsenabled=zone.security_groups,
        allocationstate=zone.allocation_state,
        dhcpprovider=zone.dhcp_provider,
        localstorageenabled=zone.local_storage,
        type=zone.type,
        tags=tags,
    )
    if ctx.caller.is_admin:
        response.description = response.displaytext = zone.description
        response.dns1, response.dns2 = zone.dns1, zone.dns2
        response.ip6dns1, response.ip6dns2 = zone.ip6_dns1, zone.ip6_dns2
        response.internaldns1, response.internaldns2 = zone.internal_dns1, zone.internal_dns2
        response.guestcidraddress, response.domain = zone.guest_cidr, zone.network_domain
        response.zonetoken = zone.uuid
        response.resourcedetails = zone.details or None
    return response


def zones_with_capacity(ctx: Context, rows: Sequence[Zone]) -> list[ZoneResponse]:
    """Return the responses of these zones, with their capacity where it was asked for."""
    responses = zone_views(ctx, rows)
    if ctx.caller.is_admin and ctx.arguments.get("showcapacities"):
        capacity = responses_by_place(ctx.session, "zone", [row.id for row in rows])
        for row, response in zip(rows, responses, strict=True):
            response.capacity = capacity[row.id]
    return responses


class ListZones(ListCommand, name="listZones", answer=many("zone", zones_with_capacity), roles=EVERYONE):
    """List zones."""

    unsupported = ("storageaccessgroup", "showicon")
    table = Zone
    keywords = (Zone.name, Zone.description)
    order = (Zone.sort_key, Zone.id)

    id: Zone | None = matching(Zone.id)
    ids: list[Zone] | None = matching(Zone.id)
    name: str | None = matching(Zone.name)
    networktype: str | None = matching(Zone.network_type)
    domainid: Domain | None = matching(Zone.domain_id, description="only zones that this domain has for itself")
    available: bool | None = optional(
        description="true: also zones where the account has no machine; false: only those where it has"
    )
    showcapacities: bool | None = optional(description="add the capacity, for root admins")
    tags: Records | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Tenants see enabled zones only; ``available=false`` asks for the zones that the account has machines in."""
        ctx.arguments["showcapacities"] = bool(self.showcapacities)
        if not ctx.caller.is_admin:
            query = query.where(Zone.allocation_state == "Enabled")
        if self.tags:
            query = query.where(tagged(Zone, "Zone", self.tags))
        if self.available is False:
            from controlplane.compute.virtual_machines import VirtualMachine

            has = VirtualMachine.account_id == ctx.caller.account_id, VirtualMachine.removed.is_(None)
            query = query.where(Zone.id.in_(select(VirtualMachine.zone_id).where(*has)))
        return query


class CreateZone(Command, name="createZone", answer=one("zone", zone_views), event="ZONE.CREATE", instance="Zone"):
    """Create a zone; it is disabled until updateZone enables it, unless told otherwise."""

    unsupported = ("storageaccessgroups",)

    name: str = required(check=syntax.name)
    networktype: str = required(choices=KINDS)
    dns1: str = required(check=syntax.ipv4, description="the guests' first resolver")
    dns2: str | None = optional(check=syntax.ipv4)
    internaldns1: str = required(check=syntax.ipv4, description="the system VMs' first resolver")
    internaldns2: str | None = optional(check=syntax.ipv4)
    ip6dns1: str | None = optional(check=syntax.ipv6)
    ip6dns2: str | None = optional(check=syntax.ipv6)
    guestcidraddress: str | None = optional(check=syntax.cidr)
    domain: str | None = optional(check=syntax.domain, description="the network domain of its guest networks")
    domainid: Domain | None = optional(description="the only domain that may use it")
    allocationstate: str | None = optional("Disabled", choices=STATES)
    securitygroupenabled: bool | None = optional(False)
    localstorageenabled: bool | None = optional(False)
    isedge: bool | None = optional(False)

    def run(self, ctx: Context) -> Zone:
        """Check the name and the kind, and write the row."""
        _refuse_taken(ctx, self.name)
        if self.networktype == BASIC and self.guestcidraddress:
            raise BadParameter(
                f"Invalid parameter guestcidraddress value={self.guestcidraddress}: a Basic zone has none."
            )
        zone = Zone(
            name=self.name,
            network_type=self.networktype,
            dns1=self.dns1,
            dns2=self.dns2,
            internal_dns1=self.internaldns1,
            internal_dns2=self.internaldns2,
            ip6_dns1=self.ip6dns1,
            ip6_dns2=self.ip6dns2,
            guest_cidr=self.guestcidraddress or ("10.1.1.0/24" if self.networktype == ADVANCED else None),
            network_domain=self.domain,
            domain_id=self.domainid.id if self.domainid else None,
            allocation_state=self.allocationstate,
            security_groups=bool(self.securitygroupenabled) or self.networktype == BASIC,
            local_storage=bool(self.localstorageenabled),
            type="Edge" if self.isedge else "Core",
        )
        ctx.session.add(zone)
        ctx.session.flush()
        return zone


def _refuse_taken(ctx: Context, name: str) -> None:
    taken = select(Zone.id).where(Zone.name == name, Zone.removed.is_(None))
    if ctx.session.scalar(taken) is not None:
        raise BadParameter(f"Invalid parameter name value={name}: there is a zone with this name.")


class UpdateZone(Command, name="updateZone", answer=one("zone", zone_views), event="ZONE.EDIT", instance="Zone"):
    """Update a zone; what is not given stays."""

    unsupported = ("dnssearchorder",)

    id: Zone = required()
    name: str | None = optional(check=syntax.name)
    allocationstate: str | None = optional(choices=STATES)
    details: dict[str, str] | None = optional()
    dhcpprovider: str | None = optional(choices=("VirtualRouter",))
    dns1: str | None = optional(check=syntax.ipv4)
    dns2: str | None = optional(check=syntax.ipv4)
    internaldns1: str | None = optional(check=syntax.ipv4)
    internaldns2: str | None = optional(check=syntax.ipv4)
    ip6dns1: str | None = optional(check=syntax.ipv6)
    ip6dns2: str | None = optional(check=syntax.ipv6)
    guestcidraddress: str | None = optional(check=syntax.cidr)
    domain: str | None = optional(check=syntax.domain)
    ispublic: bool | None = optional(description="true: no longer for one domain only")
    localstorageenabled: bool | None = optional()
    sortkey: int | None = optional()

    def run(self, ctx: Context) -> Zone:
        """Change what is given; what its networks' guests are told reaches them at once."""
        zone = self.id
        if self.name is not None and self.name != zone.name:
            _refuse_taken(ctx, self.name)
        if self.allocationstate == "Enabled":
            refuse_unready(ctx, zone)
        if self.guestcidraddress and zone.network_type == BASIC:
            raise BadParameter(
                f"Invalid parameter guestcidraddress value={self.guestcidraddress}: a Basic zone has none."
            )
        for parameter, column in _COLUMNS.items():
            value = getattr(self, parameter)
            if value is not None:
                setattr(zone, column, value)
        if self.ispublic:
            zone.domain_id = None
        if self.details is not None:
            zone.details = zone.details | self.details
        if any(value is not None for value in (self.dns1, self.dns2, self.ip6dns1, self.ip6dns2)):
            _touch_networks(ctx, zone)
        return zone


_COLUMNS = {
    "name": "name",
    "allocationstate": "allocation_state",
    "dhcpprovider": "dhcp_provider",
    "dns1": "dns1",
    "dns2": "dns2",
    "internaldns1": "internal_dns1",
    "internaldns2": "internal_dns2",
    "ip6dns1": "ip6_dns1",
    "ip6dns2": "ip6_dns2",
    "guestcidraddress": "guest_cidr",
    "domain": "network_domain",
    "localstorageenabled": "local_storage",
    "sortkey": "sort_key",
}


def _touch_networks(ctx: Context, zone: Zone) -> None:
    from controlplane.network.networks import Network

    live = select(Network).where(Network.zone_id == zone.id, Network.removed.is_(None), Network.state == "Implemented")
    ctx.touch(*ctx.session.scalars(live))


def refuse_unready(ctx: Context, zone: Zone) -> None:
    """Refuse to enable a zone that could not serve anybody.

    :raises BadParameter: an Advanced zone has no physical network for guests that is enabled; Basic: no such at all.
    """
    from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType

    guest = (
        select(PhysicalNetwork.id)
        .join(TrafficType)
        .where(PhysicalNetwork.zone_id == zone.id, PhysicalNetwork.state == "Enabled", TrafficType.traffic == "Guest")
    )
    if ctx.session.scalar(guest.limit(1)) is None:
        raise BadParameter(
            f"Invalid parameter allocationstate value=Enabled: zone {zone.name} cannot be enabled: it has no enabled "
            "physical network with Guest traffic. "
            "Use createPhysicalNetwork, addTrafficType and updatePhysicalNetwork first."
        )


class DeleteZone(Command, name="deleteZone", answer=success(), event="ZONE.DELETE", instance="Zone"):
    """Delete a zone that holds nothing any more."""

    id: Zone = required()

    def run(self, ctx: Context) -> None:
        """Refuse while anything is in it, and mark it removed."""
        from controlplane.network.portable_ips import forget_free
        from controlplane.network.public_ips import PublicIp

        zone, ctx.instance = self.id, self.id
        forget_free(ctx.session, PublicIp.zone_id == zone.id)
        held = _held(ctx, zone)
        if held:
            raise InUse(f"Zone {zone.name} cannot be deleted: it still has {', '.join(held)}.")
        zone.removed, zone.removed_key = ctx.now, zone.id


def _held(ctx: Context, zone: Zone) -> list[str]:
    from controlplane.compute.virtual_machines import VirtualMachine
    from controlplane.network.networks import Network
    from controlplane.network.public_ips import VlanRange
    from controlplane.storage.volumes import StoragePool, Volume
    from controlplane.zone.hosts import Host
    from controlplane.zone.physical_networks import PhysicalNetwork
    from controlplane.zone.pods import Pod

    held = []
    tables: tuple[tuple[Any, str], ...] = (
        (Pod, "pod"),
        (Host, "host"),
        (VirtualMachine, "virtual machine"),
        (Network, "network"),
        (VlanRange, "address range"),
        (Volume, "volume"),
        (StoragePool, "storage pool"),
        (PhysicalNetwork, "physical network"),
    )
    for table, noun in tables:
        query = select(table.uuid).where(table.zone_id == zone.id)
        if issubclass(table, Removable):
            query = query.where(table.removed.is_(None))
        first = ctx.session.scalar(query.limit(1))
        if first is not None:
            held.append(f"the {noun} {first}")
    return held
