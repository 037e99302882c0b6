"""Ranges of public addresses, and of the addresses of shared networks: the operator's side of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, joinedload
from sqlalchemy.orm.interfaces import ORMOption

from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, optional
from controlplane.api.responses import Response
from controlplane.errors import BadParameter, RuleConflict
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import account_named
from controlplane.network.networks import WITH_SCHEME, Network, uri_of
from controlplane.network.portable_ranges import PortableRange
from controlplane.network.public_ips import PublicIp, VlanRange
from controlplane.zone import syntax, vnet_ranges
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone

LARGEST = 1 << 16
"""Addresses that one range has at most."""
UNTAGGED = "untagged"
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
    gateway: str | None = None
    netmask: str | None = None
    cidr: str | None = None
    startip: str | None = None
    endip: str | None = None
    ip6gateway: str | None = None
    ip6cidr: str | None = None
    startipv6: str | None = None
    endipv6: str | None = None
    forvirtualnetwork: bool
    forsystemvms: bool
    account: str | None = None
    domain: str | None = None
    domainid: str | None = None
    domainpath: str | None = None


def vlan_range_views(ctx: Context, rows: Sequence[VlanRange]) -> list[VlanRangeResponse]:
    """Return the responses of these ranges."""
    physical = _by_number(ctx, PhysicalNetwork, {row.physical_network_id for row in rows})
    networks = _by_number(ctx, Network, {row.network_id for row in rows}, *WITH_SCHEME)
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
            vlan=uri_of(networks[row.network_id]) if row.network_id else f"vlan://{row.vlan}",
            ip6gateway=row.gateway6,
            ip6cidr=row.cidr6,
            startipv6=row.start_ip6,
            endipv6=row.end_ip6,
            forvirtualnetwork=row.network_id is None,
            forsystemvms=row.for_system_vms,
            account=account.name if account else None,
        )
        if row.gateway:
            response.gateway, response.netmask = row.gateway, row.netmask
            response.cidr = str(syntax.subnet(row.gateway, row.netmask))
            response.startip, response.endip = row.start_ip, row.end_ip
        if domain is not None:
            response.domain, response.domainid, response.domainpath = domain.name, domain.uuid, domain.name_path
        responses.append(response)
    return responses


def _by_number(ctx: Context, table: Any, numbers: set[int | None], *eager: ORMOption) -> dict[int | None, Any]:
    wanted = numbers - {None}
    if not wanted:
        return {}
    return {row.id: row for row in ctx.session.scalars(select(table).where(table.id.in_(wanted)).options(*eager))}


class ListVlanIpRanges(ListCommand, name="listVlanIpRanges", answer=many("vlaniprange", vlan_range_views)):
    """List ranges of addresses."""

    unsupported = ("projectid",)
    table = VlanRange
    keywords = (VlanRange.vlan, VlanRange.start_ip, VlanRange.gateway, VlanRange.cidr6)

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

    def write(self, row: VlanRange | PortableRange) -> None:
        """Put it into the row."""
        row.gateway, row.netmask = self.gateway, str(self.subnet.netmask)
        row.start_ip, row.end_ip = str(self.first), str(self.last)

    def numbers(self) -> range:
        """Return the addresses as numbers."""
        return range(int(self.first), int(self.last) + 1)


def public_network(session: Session, zone: Zone, given: PhysicalNetwork | None = None) -> PhysicalNetwork:
    """Return the physical network of the zone that carries public traffic.

    :param given: the one that it must be.
    :raises BadParameter: there is none, or it is another one.
    """
    mine = PhysicalNetwork.zone_id == zone.id, PhysicalNetwork.removed.is_(None), TrafficType.traffic == "Public"
    found = session.scalar(select(PhysicalNetwork).join(TrafficType).where(*mine))
    if found is None or (given is not None and given.id != found.id):
        name = given.name if given else f"of zone {zone.name}"
        raise BadParameter(
            f"Invalid parameter physicalnetworkid: no physical network {name} carries Public traffic; "
            "use addTrafficType."
        )
    return found


def _others(session: Session, row: VlanRange | PortableRange) -> Iterator[VlanRange | PortableRange]:
    """Return the ranges that a range meets: of its zone, where it is not portable, and the portable ones."""
    ranges = select(VlanRange).where(VlanRange.gateway != "", VlanRange.portable_range_id.is_(None))
    if isinstance(row, VlanRange):
        ranges = ranges.where(VlanRange.zone_id == row.zone_id)
    yield from session.scalars(ranges)
    yield from session.scalars(select(PortableRange))


def refuse_clash(session: Session, row: VlanRange | PortableRange, span: Span) -> None:
    """Refuse a range that shares addresses, or half a subnet, with another one of the zone, or a portable one.

    On one VLAN, ranges are of the same subnet and gateway or of subnets that do not overlap; on different VLANs
    subnets never overlap.

    :raises RuleConflict: names the other range.
    """
    for other in _others(session, row):
        if other is row:
            continue
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
