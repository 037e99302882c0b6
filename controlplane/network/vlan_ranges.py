"""Ranges of public addresses, and of the addresses of shared networks: the operator's side of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session, joinedload

from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter, InUse, RuleConflict
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import account_named
from controlplane.network.networks import Network
from controlplane.network.public_ips import PublicIp, VlanRange
from controlplane.zone import syntax, vnet_ranges
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone

LARGEST = 1 << 16
"""Addresses that one range has at most."""
UNTAGGED = "untagged"
IPV6 = ("endipv6", "ip6cidr", "ip6gateway", "startipv6")
_VLAN = re.compile(r"(?:vlan://)?(untagged|\d{1,4})", re.ASCII)


@dataclass(kw_only=True)
class VlanRangeResponse(Response):
    """A range of addresses."""

    id: str
    zoneid: str
    physicalnetworkid: str | None = None
    networkid: str | None = None
    podid: str | None = None
    podname: str | None = None
    vlan: str
    gateway: str
    netmask: str
    cidr: str
    startip: str
    endip: str
    forvirtualnetwork: bool
    forsystemvms: bool
    account: str | None = None
    domain: str | None = None
    domainid: str | None = None
    domainpath: str | None = None


def vlan_range_views(ctx: Context, rows: Sequence[VlanRange]) -> list[VlanRangeResponse]:
    """Return the responses of these ranges."""
    physical = _by_number(ctx, PhysicalNetwork, {row.physical_network_id for row in rows})
    networks = _by_number(ctx, Network, {row.network_id for row in rows})
    pods = _by_number(ctx, Pod, {row.pod_id for row in rows})
    accounts = _by_number(ctx, Account, {row.account_id for row in rows})
    domains = _by_number(ctx, Domain, {row.domain_id for row in rows})
    responses = []
    for row in rows:
        account, domain, pod = accounts.get(row.account_id), domains.get(row.domain_id), pods.get(row.pod_id)
        response = VlanRangeResponse(
            id=row.uuid,
            zoneid=row.zone.uuid,
            physicalnetworkid=physical[row.physical_network_id].uuid,
            networkid=networks[row.network_id].uuid if row.network_id else None,
            podid=pod.uuid if pod else None,
            podname=pod.name if pod else None,
            vlan=f"vlan://{row.vlan}",
            gateway=row.gateway,
            netmask=row.netmask,
            cidr=str(syntax.subnet(row.gateway, row.netmask)),
            startip=row.start_ip,
            endip=row.end_ip,
            forvirtualnetwork=row.network_id is None,
            forsystemvms=row.for_system_vms,
            account=account.name if account else None,
        )
        if domain is not None:
            response.domain, response.domainid, response.domainpath = domain.name, domain.uuid, domain.name_path
        responses.append(response)
    return responses


def _by_number(ctx: Context, table: Any, numbers: set[int | None]) -> dict[int | None, Any]:
    wanted = numbers - {None}
    if not wanted:
        return {}
    return {row.id: row for row in ctx.session.scalars(select(table).where(table.id.in_(wanted)))}


class ListVlanIpRanges(ListCommand, name="listVlanIpRanges", answer=many("vlaniprange", vlan_range_views)):
    """List ranges of addresses."""

    unsupported = ("projectid",)
    table = VlanRange
    keywords = (VlanRange.vlan, VlanRange.start_ip, VlanRange.gateway)

    id: VlanRange | None = matching(VlanRange.id)
    zoneid: Zone | None = matching(VlanRange.zone_id)
    physicalnetworkid: PhysicalNetwork | None = matching(VlanRange.physical_network_id)
    networkid: Network | None = matching(VlanRange.network_id)
    podid: Pod | None = matching(VlanRange.pod_id)
    vlan: str | None = optional()
    forvirtualnetwork: bool | None = optional(description="true: public ranges; false: those of shared networks")
    account: str | None = optional()
    domainid: Domain | None = matching(VlanRange.domain_id)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Look at the VLAN, the kind and the account."""
        query = query.options(joinedload(VlanRange.zone))
        if self.vlan is not None:
            query = query.where(VlanRange.vlan == vlan_of(self.vlan))
        if self.forvirtualnetwork is not None:
            public = VlanRange.network_id.is_(None)
            query = query.where(public if self.forvirtualnetwork else ~public)
        if self.account is not None:
            query = query.where(VlanRange.account_id == account_named(ctx, self.account, self.domainid).id)
        return query


def vlan_of(text: str) -> str:
    """Read a VLAN: ``untagged``, ``100`` or ``vlan://100``.

    :raises BadParameter: it is none.
    """
    match = _VLAN.fullmatch(text.strip().lower())
    if not match or (match[1] != UNTAGGED and not 1 <= int(match[1]) <= vnet_ranges.HIGHEST["VLAN"]):
        raise BadParameter(f"Invalid parameter vlan value={text}: it must be untagged, or a VLAN from 1 to 4094.")
    return match[1] if match[1] == UNTAGGED else str(int(match[1]))


@dataclass(frozen=True, slots=True)
class Span:
    """The addresses of a range, checked.

    :param first: and ``last`` are inside ``subnet`` and do not hold ``gateway``.
    """

    subnet: IPv4Network
    gateway: str
    first: IPv4Address
    last: IPv4Address

    @classmethod
    def of(cls, gateway: str, netmask: str, start: str, end: str) -> Span:
        """Check that the four fit together.

        :raises BadParameter: the sentence says what does not.
        """
        try:
            subnet = syntax.subnet(gateway, netmask)
            first, last = syntax.within(subnet, start, end, gateway)
        except ValueError as error:
            raise BadParameter(f"Invalid parameter startip value={start}: {error}.") from None
        if int(last) - int(first) >= LARGEST:
            raise BadParameter(f"Invalid parameter endip value={end}: a range has at most {LARGEST} addresses.")
        return cls(subnet, gateway, first, last)

    def numbers(self) -> range:
        """Return the addresses as numbers."""
        return range(int(self.first), int(self.last) + 1)


def refuse_clash(session: Session, row: VlanRange, span: Span) -> None:
    """Refuse a range that shares addresses, or half a subnet, with another one of the zone.

    On one VLAN, ranges are of the same subnet and gateway or of subnets that do not overlap; on different VLANs
    subnets never overlap.

    :raises RuleConflict: names the other range.
    """
    query = select(VlanRange).where(VlanRange.zone_id == row.zone_id, VlanRange.id != (row.id or 0))
    for other in session.scalars(query):
        its = Span.of(other.gateway, other.netmask, other.start_ip, other.end_ip)
        which = f"the range {other.start_ip}-{other.end_ip} ({other.uuid})"
        if not its.subnet.overlaps(span.subnet):
            continue
        if span.first <= its.last and its.first <= span.last:
            raise RuleConflict(
                f"Invalid parameter startip value={span.first}: the addresses {span.first}-{span.last} overlap "
                f"{which}: choose others of {span.subnet}."
            )
        if other.vlan != row.vlan:
            raise RuleConflict(
                f"Invalid parameter vlan value={row.vlan}: the subnet {span.subnet} is on VLAN {other.vlan} already, "
                f"with {which}: a subnet is on one VLAN."
            )
        if its.subnet != span.subnet or its.gateway != span.gateway:
            raise RuleConflict(
                f"Invalid parameter gateway value={span.gateway}: the subnet {span.subnet} with gateway "
                f"{span.gateway} overlaps {its.subnet} with gateway {its.gateway} of {which}: both must be the same."
            )


def refuse_guest_vlan(network: PhysicalNetwork, vlan: str) -> None:
    """Refuse a VLAN that guest networks of the same physical network may get.

    :raises BadParameter: names the guest ranges.
    """
    if vlan == UNTAGGED or network.isolation != "VLAN" or not vnet_ranges.holds(network.vnets, int(vlan)):
        return
    raise BadParameter(
        f"Invalid parameter vlan value={vlan}: it is one of the guest networks' VLANs "
        f"{vnet_ranges.text_of(network.vnets)} of physical network {network.name}."
    )


def add_addresses(session: Session, row: VlanRange, numbers: Sequence[int]) -> None:
    """Make the rows of addresses."""
    session.add_all(
        PublicIp(
            range_id=row.id,
            zone_id=row.zone_id,
            vlan=row.vlan,
            address=str(IPv4Address(number)),
            number=number,
            account_id=None,
        )
        for number in numbers
    )
    session.flush()


class CreateVlanIpRange(
    Command,
    name="createVlanIpRange",
    answer=one("vlan", vlan_range_views),
    instance="VlanIpRange",
    event="VLAN.IP.RANGE.CREATE",
):
    """Give a zone a range of public addresses, or a shared network one of guest addresses."""

    unsupported = (*IPV6, "projectid", "provider")

    zoneid: Zone | None = optional()
    physicalnetworkid: PhysicalNetwork | None = optional()
    networkid: Network | None = optional()
    podid: Pod | None = optional()
    forvirtualnetwork: bool | None = optional(description="true: public addresses")
    vlan: str | None = optional(description="untagged, or the VLAN; a shared network's own VLAN is not repeated")
    gateway: str | None = optional(check=syntax.ipv4)
    netmask: str | None = optional(check=syntax.netmask)
    startip: str | None = optional(check=syntax.ipv4)
    endip: str | None = optional(check=syntax.ipv4)
    account: str | None = optional(description="with domainid: only this account gets addresses of it")
    domainid: Domain | None = optional()
    forsystemvms: bool | None = optional(False)

    def run(self, ctx: Context) -> VlanRange:
        """Check subnet, range and VLAN, and write the range with a row for each address."""
        if not (self.gateway and self.netmask and self.startip):
            raise BadParameter("Invalid parameter startip: gateway, netmask and startip must be given.")
        zone, network = self._zone(), self.networkid
        physical = self._physical(ctx, zone)
        span = Span.of(self.gateway, self.netmask, self.startip, self.endip or self.startip)
        account, domain = self._owner(ctx, zone)
        row = VlanRange(
            zone=zone,
            zone_id=zone.id,
            physical_network_id=physical.id,
            network_id=network.id if network else None,
            pod_id=self.podid.id if self.podid else None,
            vlan=self._vlan(physical),
            gateway=self.gateway,
            netmask=self.netmask,
            start_ip=str(span.first),
            end_ip=str(span.last),
            account_id=account.id if account else None,
            domain_id=domain.id if domain else None,
            for_system_vms=bool(self.forsystemvms),
        )
        refuse_clash(ctx.session, row, span)
        ctx.session.add(row)
        ctx.session.flush()
        add_addresses(ctx.session, row, span.numbers())
        if network is not None:
            ctx.touch(network)
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
        if self.networkid is not None:
            return self.networkid.physical_network
        query = (
            select(PhysicalNetwork)
            .join(TrafficType)
            .where(
                PhysicalNetwork.zone_id == zone.id,
                PhysicalNetwork.removed.is_(None),
                TrafficType.traffic == "Public",
            )
        )
        found = ctx.session.scalar(query)
        given = self.physicalnetworkid
        if found is None or (given is not None and given.id != found.id):
            name = given.name if given else f"of zone {zone.name}"
            raise BadParameter(
                f"Invalid parameter physicalnetworkid: no physical network {name} carries Public traffic; "
                "use addTrafficType."
            )
        return found

    def _vlan(self, physical: PhysicalNetwork) -> str:
        network = self.networkid
        if network is not None:
            own = str(network.vnet) if network.vnet else UNTAGGED
            if self.vlan is not None and vlan_of(self.vlan) != own:
                raise BadParameter(f"Invalid parameter vlan value={self.vlan}: the network is on {own}.")
            return own
        vlan = vlan_of(self.vlan or UNTAGGED)
        refuse_guest_vlan(physical, vlan)
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

    unsupported = IPV6

    id: VlanRange = required()
    gateway: str | None = optional(check=syntax.ipv4)
    netmask: str | None = optional(check=syntax.netmask)
    startip: str | None = optional(check=syntax.ipv4)
    endip: str | None = optional(check=syntax.ipv4)
    forsystemvms: bool | None = optional()

    def run(self, ctx: Context) -> VlanRange:
        """Check the whole as it will be, and make and remove the rows of addresses."""
        row = self.id
        used = used_of(ctx.session, row)
        if used and ((self.gateway or row.gateway) != row.gateway or (self.netmask or row.netmask) != row.netmask):
            raise InUse(f"Gateway and netmask cannot change while addresses are in use: {_texts(used)}.")
        span = Span.of(
            self.gateway or row.gateway,
            self.netmask or row.netmask,
            self.startip or row.start_ip,
            self.endip or row.end_ip,
        )
        lost = [ip for ip in used if ip.number not in span.numbers()]
        if lost:
            raise InUse(f"The range must keep the addresses that are in use: {_texts(lost)}.")
        if self.forsystemvms is not None and self.forsystemvms != row.for_system_vms:
            if used or row.account_id or row.domain_id:
                raise InUse("Invalid parameter forsystemvms: the range is dedicated, or addresses of it are in use.")
            row.for_system_vms = self.forsystemvms
        refuse_clash(ctx.session, row, span)
        row.gateway, row.netmask = span.gateway, str(span.subnet.netmask)
        row.start_ip, row.end_ip = str(span.first), str(span.last)
        had = dict(ctx.session.execute(select(PublicIp.number, PublicIp.id).where(PublicIp.range_id == row.id)).all())
        gone = [number for value, number in had.items() if value not in span.numbers()]
        for start in range(0, len(gone), 500):
            ctx.session.execute(delete(PublicIp).where(PublicIp.id.in_(gone[start : start + 500])))
        add_addresses(ctx.session, row, [number for number in span.numbers() if number not in had])
        return row


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
        used = used_of(ctx.session, row)
        if used:
            raise InUse(
                f"The range {row.start_ip}-{row.end_ip} cannot be deleted: addresses are in use: {_texts(used)}."
            )
        if ctx.session.scalar(select(Nic.id).where(Nic.range_id == row.id).limit(1)) is not None:
            raise InUse(f"The range {row.start_ip}-{row.end_ip} cannot be deleted: a router still has a NIC on it.")
        ctx.session.execute(delete(PublicIp).where(PublicIp.range_id == row.id))
        ctx.session.delete(row)
