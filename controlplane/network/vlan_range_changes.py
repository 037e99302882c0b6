"""Giving a zone ranges of public addresses of either family, changing and deleting them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import optional, required
from controlplane.compute.holding_hosts import hosts_of_guests
from controlplane.errors import BadParameter, InUse
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import account_named
from controlplane.network.guest_range_changes import change_range, remove_range
from controlplane.network.networks import Network
from controlplane.network.pod_ranges import complete, refuse_outside
from controlplane.network.public_ips import PublicIp, VlanRange
from controlplane.network.shared_networks import Addresses, add_range
from controlplane.network.vlan_ranges import (
    UNTAGGED,
    Span,
    add_addresses,
    public_network,
    refuse_clash,
    refuse_guest_vlan,
    vlan_of,
    vlan_range_views,
)
from controlplane.network.vlan_ranges6 import Span6, refuse_used6, routed_by
from controlplane.network.vnets import refuse_flows
from controlplane.network.vpcs import Vpc
from controlplane.network.ways import must_be_free, ways_of
from controlplane.zone import syntax
from controlplane.zone.physical_networks import PhysicalNetwork
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone


def _refuse_routes(session: Session, zone: Zone, span: Span) -> None:
    """Refuse public addresses that a VPC's router leads elsewhere with: they would not be reached from there.

    :raises RuleConflict: names the route, gateway or VPN.
    """
    for vpc in session.scalars(select(Vpc).where(Vpc.zone_id == zone.id, Vpc.removed.is_(None))):
        elsewhere = [way for way in ways_of(session, vpc) if way.owner]
        must_be_free("startip", span.subnet, elsewhere)


class CreateVlanIpRange(
    Command,
    name="createVlanIpRange",
    answer=one("vlan", vlan_range_views),
    instance="VlanIpRange",
    event="VLAN.IP.RANGE.CREATE",
):
    """Give a zone a range of public addresses, or a shared network one of guest addresses."""

    unsupported = ("projectid", "provider")

    zoneid: Zone | None = optional()
    physicalnetworkid: PhysicalNetwork | None = optional()
    networkid: Network | None = optional()
    podid: Pod | None = optional(
        description="of a Basic zone: whose guests get addresses of it; gateway and netmask are its"
    )
    forvirtualnetwork: bool | None = optional(description="true: public addresses")
    vlan: str | None = optional(description="untagged, or the VLAN; a shared network's own VLAN is not repeated")
    gateway: str | None = optional(check=syntax.ipv4)
    netmask: str | None = optional(check=syntax.netmask)
    startip: str | None = optional(check=syntax.ipv4)
    endip: str | None = optional(check=syntax.ipv4)
    ip6gateway: str | None = optional(check=syntax.ipv6, description="the upstream router, link-local or in ip6cidr")
    ip6cidr: str | None = optional(check=syntax.cidr6, description="routers get public IPv6 addresses of it")
    startipv6: str | None = optional(check=syntax.ipv6, description="first address; the whole ip6cidr unless given")
    endipv6: str | None = optional(check=syntax.ipv6)
    account: str | None = optional(description="with domainid: only this account gets addresses of it")
    domainid: Domain | None = optional()
    forsystemvms: bool | None = optional(False)

    def run(self, ctx: Context) -> VlanRange:
        """Check subnet, range and VLAN, and write the range with a row for each address."""
        complete(ctx.session, self)
        zone, network = self._zone(), self.networkid
        addresses = Addresses.of(self)
        if network is not None:
            refuse_outside(ctx.session, self.podid, addresses.span)
            self._owner(ctx, zone)
            self._vlan(ctx.session, network.physical_network)
            row = add_range(ctx.session, network, addresses, self.podid)
            ctx.touch(network)
            ctx.touched.extend(hosts_of_guests(ctx.session, network.id))  # who let the router's new address serve
            return row
        physical = self._physical(ctx, zone)
        account, domain = self._owner(ctx, zone)
        row = VlanRange(
            zone=zone,
            zone_id=zone.id,
            physical_network_id=physical.id,
            pod_id=self.podid.id if self.podid else None,
            vlan=self._vlan(ctx.session, physical),
            account_id=account.id if account else None,
            domain_id=domain.id if domain else None,
            for_system_vms=bool(self.forsystemvms),
        )
        if addresses.span is not None:
            _refuse_routes(ctx.session, zone, addresses.span)
        addresses.write(ctx.session, row)
        add_addresses(ctx.session, row, addresses.span.numbers() if addresses.span else ())
        return row

    def _zone(self) -> Zone:
        network = self.networkid
        if network is not None:
            if network.guest_type != "Shared":
                raise BadParameter(
                    f"Invalid parameter networkid value={network.uuid}: network {network.name} is "
                    f"{network.guest_type}; only Shared networks have ranges of their own."
                )
            if self.forvirtualnetwork:
                raise BadParameter("Invalid parameter forvirtualnetwork value=true: a network's range is not public.")
            if self.zoneid is not None and self.zoneid.id != network.zone_id:
                raise BadParameter(f"Invalid parameter zoneid value={self.zoneid.uuid}: the network is elsewhere.")
            return network.zone
        zone = self.zoneid
        if zone is None and self.physicalnetworkid is not None:
            zone = self.physicalnetworkid.zone
        if zone is None:
            raise BadParameter("Invalid parameter zoneid: say where, by zoneid, physicalnetworkid or networkid.")
        if self.podid is not None and self.podid.zone_id != zone.id:
            raise BadParameter(f"Invalid parameter podid value={self.podid.uuid}: it is not in zone {zone.name}.")
        if self.forvirtualnetwork is False:
            raise BadParameter("Invalid parameter networkid: a range that is not public needs its shared network.")
        return zone

    def _physical(self, ctx: Context, zone: Zone) -> PhysicalNetwork:
        return public_network(ctx.session, zone, self.physicalnetworkid)

    def _vlan(self, session: Session, physical: PhysicalNetwork) -> str:
        network = self.networkid
        if network is not None:
            own = str(network.vnet) if network.vnet else UNTAGGED
            if self.vlan is not None and vlan_of(self.vlan) != own:
                raise BadParameter(f"Invalid parameter vlan value={self.vlan}: the network is on {own}.")
            return own
        vlan = vlan_of(self.vlan or UNTAGGED)
        refuse_guest_vlan(physical, vlan)
        if vlan != UNTAGGED:
            refuse_flows(session, physical, int(vlan), f"Invalid parameter vlan value={vlan}:")
        return vlan

    def _owner(self, ctx: Context, zone: Zone) -> tuple[Account | None, Domain | None]:
        if self.account is None and self.domainid is None:
            return None, None
        if self.networkid is not None or zone.network_type == "Basic":
            raise BadParameter("Invalid parameter account: only public ranges of Advanced zones can be dedicated.")
        if self.forsystemvms:
            raise BadParameter("Invalid parameter forsystemvms value=true: a dedicated range is not for system VMs.")
        if self.account is None:
            return None, self.domainid
        account = account_named(ctx, self.account, self.domainid)
        return account, account.domain


def used_of(session: Session, row: VlanRange) -> list[PublicIp]:
    """Return the range's addresses that are not free, in their order."""
    query = select(PublicIp).where(PublicIp.range_id == row.id, PublicIp.state != "Free").order_by(PublicIp.number)
    return list(session.scalars(query))


class UpdateVlanIpRange(
    Command,
    name="updateVlanIpRange",
    answer=one("vlan", vlan_range_views),
    instance="VlanIpRange",
    event="VLAN.IP.RANGE.UPDATE",
):
    """Widen or narrow a range; addresses in use stay inside."""

    id: VlanRange = required()
    gateway: str | None = optional(check=syntax.ipv4)
    netmask: str | None = optional(check=syntax.netmask)
    startip: str | None = optional(check=syntax.ipv4)
    endip: str | None = optional(check=syntax.ipv4)
    ip6gateway: str | None = optional(check=syntax.ipv6)
    ip6cidr: str | None = optional(check=syntax.cidr6)
    startipv6: str | None = optional(check=syntax.ipv6)
    endipv6: str | None = optional(check=syntax.ipv6)
    forsystemvms: bool | None = optional()

    def run(self, ctx: Context) -> VlanRange:
        """Check the whole as it will be, and make and remove the rows of addresses."""
        row = self.id
        if row.network_id is not None:
            if self.forsystemvms:
                raise BadParameter("Invalid parameter forsystemvms value=true: it is a guest network's range.")
            network = change_range(ctx.session, row, self)
            ctx.touch(network)
            ctx.touched.extend(hosts_of_guests(ctx.session, network.id))
            return row
        used = used_of(ctx.session, row)
        self._change6(ctx)
        wanted = (self.gateway, self.netmask, self.startip, self.endip)
        if row.gateway or any(wanted):
            self._change4(ctx, used)
        if self.forsystemvms is not None and self.forsystemvms != row.for_system_vms:
            if used or row.account_id or row.domain_id:
                raise InUse("Invalid parameter forsystemvms: the range is dedicated, or addresses of it are in use.")
            row.for_system_vms = self.forsystemvms
        return row

    def _change6(self, ctx: Context) -> None:
        """Change the IPv6 part; routers learn of another gateway without a restart."""
        row = self.id
        given = self.ip6gateway, self.ip6cidr, self.startipv6, self.endipv6
        if not any(given):
            return
        kept = (row.gateway6, row.cidr6, row.start_ip6, row.end_ip6)
        span = Span6.of(*(new or old for new, old in zip(given, kept, strict=True)))
        span.refuse_clash(ctx.session, row)
        span.refuse_loss(ctx.session, row)
        span.write(row)
        ctx.touch(*routed_by(ctx.session, row))

    def _change4(self, ctx: Context, used: Sequence[PublicIp]) -> None:
        """Change the IPv4 part, and make and remove the rows of addresses."""
        row = self.id
        if not (row.gateway or (self.gateway and self.netmask and self.startip)):
            raise BadParameter("Invalid parameter startip: this range has no IPv4; give gateway, netmask and startip.")
        if used and ((self.gateway or row.gateway) != row.gateway or (self.netmask or row.netmask) != row.netmask):
            raise InUse(f"Gateway and netmask cannot change while addresses are in use: {_texts(used)}.")
        span = Span.of(
            self.gateway or row.gateway,
            self.netmask or row.netmask,
            self.startip or row.start_ip,
            self.endip or row.end_ip or self.startip or "",
        )
        lost = [ip for ip in used if ip.number not in span.numbers()]
        if lost:
            raise InUse(f"The range must keep the addresses that are in use: {_texts(lost)}.")
        refuse_clash(ctx.session, row, span)
        span.write(row)
        had = dict(ctx.session.execute(select(PublicIp.number, PublicIp.id).where(PublicIp.range_id == row.id)).all())
        gone = [number for value, number in had.items() if value not in span.numbers()]
        for start in range(0, len(gone), 500):
            ctx.session.execute(delete(PublicIp).where(PublicIp.id.in_(gone[start : start + 500])))
        add_addresses(ctx.session, row, [number for number in span.numbers() if number not in had])


def _texts(addresses: Sequence[PublicIp]) -> str:
    return ", ".join(ip.address for ip in addresses[:20])


class DeleteVlanIpRange(
    Command,
    name="deleteVlanIpRange",
    answer=success(),
    instance="VlanIpRange",
    event="VLAN.IP.RANGE.DELETE",
):
    """Delete a range that nobody uses an address of."""

    id: VlanRange = required()

    def run(self, ctx: Context) -> None:
        """Refuse while an address is in use; the free ones go with the range."""
        from controlplane.network.nics import Nic

        row, ctx.instance = self.id, self.id
        if row.network_id is not None:
            network = remove_range(ctx.session, row)
            ctx.touch(network)
            ctx.touched.extend(hosts_of_guests(ctx.session, network.id))
            return
        used = used_of(ctx.session, row)
        if used:
            raise InUse(
                f"The range {row.start_ip}-{row.end_ip} cannot be deleted: addresses are in use: {_texts(used)}."
            )
        refuse_used6(ctx.session, row)
        if ctx.session.scalar(select(Nic.id).where(Nic.range_id == row.id).limit(1)) is not None:
            raise InUse(f"The range {row.start_ip or row.cidr6} cannot be deleted: a router still has a NIC on it.")
        ctx.session.execute(delete(PublicIp).where(PublicIp.range_id == row.id))
        ctx.session.delete(row)
