"""Portable addresses: acquired from the region's pool, and taken from one network to another by static NAT.

Only while somebody has it is an address in a zone: there its range is a range like any other, on the VLAN that the
operator has for it everywhere. An address that moves belongs to its new network at once; the routers there get it when
those that it left have let go of it (:func:`controlplane.network.public_ips.free_released`).
"""

from __future__ import annotations

from ipaddress import IPv4Address

from sqlalchemy import ColumnElement, Select, delete, select
from sqlalchemy.orm import Session

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.errors import BadParameter, NoAddress, RuleConflict
from controlplane.identity.accounts import Account
from controlplane.network.networks import Network, Whole
from controlplane.network.nics import Nic
from controlplane.network.portable_ranges import PortableRange
from controlplane.network.public_ips import (
    ALLOCATED,
    ALLOCATING,
    FREE,
    PublicIp,
    VlanRange,
    forget_static_nat,
    give,
)
from controlplane.network.quarantine import closed_to, refuse_quarantined
from controlplane.network.vlan_ranges import public_network, refuse_guest_vlan
from controlplane.network.vpcs import Vpc
from controlplane.zone.zones import Zone


def acquire(session: Session, whole: Whole, owner: Account, address: str | None = None) -> PublicIp:
    """Give a VPC, or a network that stands alone, a portable address; it counts for the owner.

    :param address: the wanted one; None takes the lowest free one.
    :raises BadParameter: the wanted address is not to be had.
    :raises NoAddress: none is left.
    :raises LimitReached: the owner may have no more.
    """
    ranges = session.scalars(select(PortableRange).order_by(PortableRange.id).with_for_update()).all()
    for row in ranges:
        number = _wanted(session, row, owner, address) if address else _lowest(session, row, owner)
        if number is not None:
            return give(session, _brought(session, row, number, whole.zone), whole, owner)
    if address:
        raise BadParameter(
            f"Invalid parameter ipaddress value={address}: it is in none of the {len(ranges)} portable ranges."
        )
    raise NoAddress(f"No portable address is free for account {owner.name} in the {len(ranges)} portable ranges.")


def _wanted(session: Session, row: PortableRange, owner: Account, address: str) -> int | None:
    """Return the number of the wanted address where it is of this range.

    :raises BadParameter: somebody has it, or had it not long ago.
    """
    number = int(IPv4Address(address))
    if number not in row.numbers:
        return None
    found = session.scalar(_known(row).where(PublicIp.number == number))
    if found is not None:
        if found.state != FREE:
            raise BadParameter(
                f"Invalid parameter ipaddress value={address}: it is {found.state.lower()}; choose a free one."
            )
        refuse_quarantined(session, found, owner)
    return number


def _lowest(session: Session, row: PortableRange, owner: Account) -> int | None:
    """Return the number of the lowest address that the owner may have."""
    taken = select(PublicIp.number).where(PublicIp.portable_range_id == row.id)
    closed = set(session.scalars(taken.where((PublicIp.state != FREE) | closed_to(PublicIp.id, owner.id))))
    return next((number for number in row.numbers if number not in closed), None)


def _known(row: PortableRange) -> Select[PublicIp]:
    return select(PublicIp).where(PublicIp.portable_range_id == row.id)


def _brought(session: Session, row: PortableRange, number: int, zone: Zone) -> PublicIp:
    """Return the free address, in this zone."""
    ip = session.scalar(_known(row).where(PublicIp.number == number))
    within = _presence(session, row, zone)
    if ip is None:
        ip = PublicIp(portable_range_id=row.id, number=number, address=str(IPv4Address(number)), vlan=row.vlan)
        ip.state = FREE
        session.add(ip)
    ip.range_id, ip.zone_id = within.id, zone.id
    session.flush()
    return ip


def _presence(session: Session, row: PortableRange, zone: Zone) -> VlanRange:
    """Return what the portable range is in a zone, which is made with its first address there.

    :raises BadParameter: the zone has no public network, or guest networks on that VLAN.
    """
    mine = VlanRange.portable_range_id == row.id, VlanRange.zone_id == zone.id
    found = session.scalar(select(VlanRange).where(*mine))
    if found is not None:
        return found
    physical = public_network(session, zone)
    refuse_guest_vlan(physical, row.vlan)
    found = VlanRange(zone=zone, zone_id=zone.id, physical_network_id=physical.id, portable_range_id=row.id)
    for column in ("vlan", "gateway", "netmask", "start_ip", "end_ip"):
        setattr(found, column, getattr(row, column))
    session.add(found)
    session.flush()
    return found


def forget_free(session: Session, *conditions: ColumnElement[bool]) -> None:
    """Forget the free portable addresses that meet the conditions, and what their ranges are in zones without any."""
    portable = PublicIp.portable_range_id.is_not(None), PublicIp.state == FREE
    session.execute(delete(PublicIp).where(*portable, *conditions))
    kept = select(PublicIp.range_id).where(PublicIp.portable_range_id.is_not(None))
    plugged = select(Nic.range_id).where(Nic.range_id.is_not(None))
    unused = VlanRange.id.not_in(kept), VlanRange.id.not_in(plugged)
    session.execute(delete(VlanRange).where(VlanRange.portable_range_id.is_not(None), *unused))


def destination(session: Session, ip: PublicIp, vm: VirtualMachine, named: Network | None) -> Network | None:
    """Return the network that a portable address is to be taken to; None where it is there already.

    :param named: the network that the caller says; None leaves it to the machine's interfaces.
    :raises BadParameter: the machine is on several other networks, and none is named.
    """
    if ip.portable_range_id is None or ip.state not in (ALLOCATED, ALLOCATING):
        return None
    query = select(Network).join(Nic, Nic.network_id == Network.id).where(Nic.vm_id == vm.id).distinct()
    networks = [named] if named is not None else session.scalars(query.order_by(Network.id)).all()
    if not networks or any(_has(network.whole, ip) for network in networks):
        return None
    if len(networks) > 1:
        names = ", ".join(f"{network.name} ({network.uuid})" for network in networks)
        raise BadParameter(
            f"Invalid parameter networkid: virtual machine {vm.name} is on several networks: say to which of them "
            f"{ip.address} is to be taken: {names}."
        )
    return networks[0]


def _has(whole: Whole, ip: PublicIp) -> bool:
    return ip.vpc_id == whole.id if isinstance(whole, Vpc) else ip.vpc_id is None and ip.network_id == whole.id


def move(session: Session, ip: PublicIp, network: Network) -> None:
    """Take a portable address to another network of its account, or another VPC's tier.

    Its routers there answer for it when those of the former network have let go.

    :raises BadParameter: the network is another account's.
    :raises RuleConflict: it is the source NAT address where it is.
    """
    session.refresh(ip, with_for_update=True)
    whole = network.whole
    if whole.account_id != ip.account_id:
        raise BadParameter(
            f"Invalid parameter networkid value={network.uuid}: network {network.name} is another account's; a "
            "portable address moves between networks of its own account."
        )
    if ip.source_nat:
        raise RuleConflict(
            f"Invalid parameter ipaddressid value={ip.uuid}: portable address {ip.address} is the source NAT address "
            "of its network, and stays there."
        )
    if ip.state == ALLOCATED:
        held = bool(ip.targets(session))
        ip.left_network_id, ip.left_vpc_id = (None, ip.vpc_id) if ip.vpc_id else (ip.network_id, None)
        ip.state = ALLOCATING if held else ALLOCATED
    forget_static_nat(ip)
    ip.network_id, ip.vpc_id = network.id, network.vpc_id
    if ip.state == ALLOCATED or (ip.left_network_id, ip.left_vpc_id) == _numbers(whole):
        ip.left_network_id = ip.left_vpc_id = None  # nobody else may answer for it
        ip.state = ALLOCATED
    row = session.get_one(PortableRange, ip.portable_range_id, with_for_update=True)
    ip.range_id, ip.zone_id = _presence(session, row, whole.zone).id, whole.zone_id
    session.flush()


def _numbers(whole: Whole) -> tuple[int | None, int | None]:
    return (None, whole.id) if isinstance(whole, Vpc) else (whole.id, None)
