"""Public addresses: the ranges that the operator has, and who uses which address."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from ipaddress import IPv4Network

from sqlalchemy import (
    ColumnElement,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    or_,
    select,
)
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api.caller import Caller
from controlplane.api.context import owned_by
from controlplane.db.base import Created, Row, now
from controlplane.db.configuration import define
from controlplane.errors import BadParameter, NoAddress
from controlplane.identity.accounts import Account
from controlplane.identity.limits import give_back, take
from controlplane.network import claims, quarantine
from controlplane.network.networks import Network, Whole
from controlplane.network.nics import Nic
from controlplane.network.quarantine import closed_to
from controlplane.network.rules import remove_tags
from controlplane.network.vpcs import Vpc
from controlplane.network.ways import Way, leads
from controlplane.reconcile.targets import Target
from controlplane.zone.zones import Zone
from drivers import vocabulary

FREE, ALLOCATED, RESERVED, RELEASING = "Free", "Allocated", "Reserved", "Releasing"
ALLOCATING = "Allocating"
HELD = (ALLOCATED, ALLOCATING)
"""The states of an address that a network or a VPC has."""
USE_COMMON = define(
    "use.system.public.ips",
    True,
    "An account that has ranges of its own gets addresses of the common ranges once its own are taken",
    scopes=("Account",),
)


class VlanRange(Created, Row):
    """A range of addresses on a VLAN (createVlanIpRange): public ones, or those of a Shared network's guests.

    :ivar vlan: ``untagged``, or the VLAN's number.
    :ivar account_id: the account it is dedicated to, ``domain_id`` the domain.
    :ivar gateway: IPv4, as the three after it; all are empty in a range of IPv6 alone.
    :ivar cidr6: IPv6: routers get public addresses of it, from ``start_ip6`` to ``end_ip6`` where these are given.
    :ivar network_id: the Shared network whose guests get addresses of it, ``pod_id`` the only pod where they do.
    :ivar router_ip: the address that the network's router has in the range's subnet, ``router_ip6`` that of IPv6; one
        range of a subnet has it. It stays the same for as long as the range is there: guests ask it for names.
    :ivar portable_range_id: it is what a portable range is in this zone; such a row is nobody's to see or change.
    """

    __tablename__ = "vlan_ranges"

    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    physical_network_id: Mapped[int] = mapped_column(ForeignKey("physical_networks.id"))
    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"))
    pod_id: Mapped[int | None] = mapped_column(ForeignKey("pods.id"))
    vlan: Mapped[str] = mapped_column(String(40), default="untagged")
    gateway: Mapped[str] = mapped_column(String(40), default="")
    netmask: Mapped[str] = mapped_column(String(40), default="")
    start_ip: Mapped[str] = mapped_column(String(40), default="")
    end_ip: Mapped[str] = mapped_column(String(40), default="")
    cidr6: Mapped[str | None] = mapped_column(String(50))
    gateway6: Mapped[str | None] = mapped_column(String(50))
    start_ip6: Mapped[str | None] = mapped_column(String(50))
    end_ip6: Mapped[str | None] = mapped_column(String(50))
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"))
    domain_id: Mapped[int | None] = mapped_column(ForeignKey("domains.id"))
    for_system_vms: Mapped[bool] = mapped_column(default=False)
    router_ip: Mapped[str] = mapped_column(String(40), default="")
    router_ip6: Mapped[str] = mapped_column(String(50), default="")
    portable_range_id: Mapped[int | None] = mapped_column(ForeignKey("portable_ranges.id"), index=True)
    zone: Mapped[Zone] = relationship()

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """All but what portable ranges are in a zone."""
        del caller
        return cls.portable_range_id.is_(None)


class PublicIp(Row):
    """One public address of a range.

    :ivar state: ``Free``, ``Reserved`` for an account, ``Allocated``, or ``Releasing``: nobody's any more, while the
        router that had it may still answer for it; likewise ``Allocating``, when it moves to another network.
    :ivar account_id: who has it; None while it is free.
    :ivar vpc_id: the VPC that uses it; its ``network_id`` is then the tier that static NAT takes it for, if any.
    :ivar nic_address: with ``static_nat``: the guest's address that it stands for, on ``nic_id``.
    :ivar part: which of its network's appliances has it, as ``Router.part`` has it, till the address is free.
    :ivar portable_range_id: the portable range that it is of; its zone and ``range_id`` are where it is at present.
    :ivar left_network_id: while it is ``Allocating``: the network whose router may still answer for it, or
        ``left_vpc_id`` the VPC.
    """

    __tablename__ = "public_ips"
    __table_args__ = (
        UniqueConstraint("zone_id", "address", "vlan"),
        UniqueConstraint("portable_range_id", "number"),
        Index("ix_public_ips_free", "range_id", "state", "number"),
    )

    range_id: Mapped[int] = mapped_column(ForeignKey("vlan_ranges.id"), index=True)
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    vlan: Mapped[str] = mapped_column(String(40), default="untagged")
    address: Mapped[str] = mapped_column(String(40), index=True)
    number: Mapped[int] = mapped_column(index=True)
    state: Mapped[str] = mapped_column(String(20), default="Free", index=True)
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"), index=True)
    domain_id: Mapped[int | None] = mapped_column(ForeignKey("domains.id"), index=True)
    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"), index=True)
    vpc_id: Mapped[int | None] = mapped_column(ForeignKey("vpcs.id"), index=True)
    allocated: Mapped[datetime | None]
    source_nat: Mapped[bool] = mapped_column(default=False)
    static_nat: Mapped[bool] = mapped_column(default=False)
    is_system: Mapped[bool] = mapped_column(default=False)
    display: Mapped[bool] = mapped_column(default=True)
    vm_id: Mapped[int | None] = mapped_column(ForeignKey("virtual_machines.id"), index=True)
    nic_id: Mapped[int | None] = mapped_column(ForeignKey("nics.id"))
    nic_address: Mapped[str | None] = mapped_column(String(40))
    part: Mapped[str] = mapped_column(String(40), default="")
    portable_range_id: Mapped[int | None] = mapped_column(ForeignKey("portable_ranges.id"))
    left_network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"))
    left_vpc_id: Mapped[int | None] = mapped_column(ForeignKey("vpcs.id"))
    range: Mapped[VlanRange] = relationship()
    network: Mapped[Network | None] = relationship(foreign_keys=[network_id])

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """The addresses of the caller's realm, and the free ones that its account could have."""
        theirs = or_(
            VlanRange.account_id == caller.account_id,
            VlanRange.account_id.is_(None)
            & (VlanRange.domain_id.is_(None) | (VlanRange.domain_id == caller.domain_id)),
        )
        open_to_them = select(VlanRange.id).where(_for_tenants(), theirs)
        free = (cls.state == FREE) & cls.range_id.in_(open_to_them) & ~closed_to(cls.id, caller.account_id)
        return or_(owned_by(cls, caller), free)

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of the VPC or network that uses it."""
        if self.vpc_id is not None:
            return session.get_one(Vpc, self.vpc_id).targets(session)
        if self.network_id is None:
            return []
        return session.get_one(Network, self.network_id).targets(session, self.part)


def answered_by(whole: Whole) -> ColumnElement[bool]:
    """Return the condition for the addresses that routers of a VPC or network have, are to have or still have."""
    left = PublicIp.left_vpc_id if isinstance(whole, Vpc) else PublicIp.left_network_id
    return (used_by(whole) & PublicIp.state.in_((*HELD, RELEASING))) | (left == whole.id)


def used_by(whole: Whole) -> ColumnElement[bool]:
    """Return the condition for the addresses that a VPC uses, or a network that stands alone."""
    return PublicIp.vpc_id == whole.id if isinstance(whole, Vpc) else PublicIp.network_id == whole.id


AddressClearer = Callable[[Session, PublicIp], None]
NicClearer = Callable[[Session, Nic], list[Network]]
NetworkClearer = Callable[[Session, Network], None]
_network_clearers: list[NetworkClearer] = []
_address_clearers: list[AddressClearer] = []
_nic_clearers: list[NicClearer] = []


def clears_address(function: AddressClearer) -> AddressClearer:
    """Register, as a decorator, what removes one kind of rule from an address that is given back."""
    _address_clearers.append(function)
    return function


def clears_network(function: NetworkClearer) -> NetworkClearer:
    """Register, as a decorator, what removes one kind of rule that a network has without a public address."""
    _network_clearers.append(function)
    return function


def clears_nic(function: NicClearer) -> NicClearer:
    """Register, as a decorator, what removes one kind of rule that leads to a NIC, and returns the networks."""
    _nic_clearers.append(function)
    return function


def acquire(
    session: Session, whole: Whole, owner: Account, *, source_nat: bool = False, address: str | None = None
) -> PublicIp:
    """Give a VPC, or a network that stands alone, a public address of its zone; it counts for the owner.

    :param source_nat: its guests leave with it; what has such an address keeps it.
    :param address: the wanted one; None takes the lowest free one, of the owner's own ranges first.
    :raises BadParameter: the wanted address is not to be had.
    :raises NoAddress: none is left.
    :raises LimitReached: the owner may have no more.
    """
    if source_nat:
        own = session.scalar(select(PublicIp).where(used_by(whole), PublicIp.source_nat, PublicIp.state == ALLOCATED))
        if own is not None:
            return own
    ip = chosen(session, whole.zone, owner, address) if address else _lowest(session, whole.zone, owner)
    return give(session, ip, whole, owner, source_nat=source_nat)


def give(session: Session, ip: PublicIp, whole: Whole, owner: Account, *, source_nat: bool = False) -> PublicIp:
    """Give a VPC, or a network that stands alone, this address, which is free or reserved for the owner.

    :raises LimitReached: the owner may have no more.
    """
    if ip.state == FREE:
        take(session, owner.id, "public_ip")
    quarantine.end(session, ip, owner)
    ip.state, ip.account_id, ip.domain_id, ip.allocated = ALLOCATED, owner.id, owner.domain_id, now()
    ip.network_id, ip.vpc_id = (None, whole.id) if isinstance(whole, Vpc) else (whole.id, None)
    ip.source_nat = source_nat
    session.flush()
    return ip


def _for_tenants() -> ColumnElement[bool]:
    """Return the condition for ranges of public addresses that accounts get addresses of."""
    common = VlanRange.network_id.is_(None) & VlanRange.pod_id.is_(None) & VlanRange.for_system_vms.is_(False)
    return common & VlanRange.portable_range_id.is_(None)


def open_ranges(session: Session, zone: Zone, owner: Account) -> list[list[int]]:
    """Return the numbers of the ranges that the owner may have addresses of, in groups, the preferred one first."""
    query = select(VlanRange.id, VlanRange.account_id, VlanRange.domain_id).where(
        VlanRange.zone_id == zone.id, _for_tenants()
    )
    account, domain, common = [], [], []
    for number, account_id, domain_id in session.execute(query):
        if account_id is not None:
            account += [number] if account_id == owner.id else []
        elif domain_id is not None:
            domain += [number] if domain_id == owner.domain_id else []
        else:
            common.append(number)
    if (account or domain) and not USE_COMMON.flag(session, account=owner.id):
        common = []
    return [group for group in (account, domain, common) if group]


def _lowest(session: Session, zone: Zone, owner: Account) -> PublicIp:
    groups = open_ranges(session, zone, owner)
    for group in groups:
        free = select(PublicIp).where(PublicIp.range_id.in_(group), PublicIp.state == FREE)
        free = free.where(~closed_to(PublicIp.id, owner.id))
        # two who ask at the same moment each lock another row; SQLite has one writer, and no need for it
        ip = session.scalar(free.order_by(PublicIp.number).limit(1).with_for_update(skip_locked=True))
        if ip is not None:
            return ip
    raise NoAddress(
        f"Zone {zone.name} has no free public address for account {owner.name}: "
        f"{sum(map(len, groups))} ranges are open to it, and all their addresses are taken."
    )


def chosen(session: Session, zone: Zone, owner: Account, address: str) -> PublicIp:
    """Return, locked, the free address that somebody wants, or one that is reserved for the owner.

    :raises BadParameter: the zone has no such address that the owner may have, or it is taken.
    """
    groups = open_ranges(session, zone, owner)
    numbers = [number for group in groups for number in group]
    wanted = select(PublicIp).where(PublicIp.range_id.in_(numbers), PublicIp.address == address)
    ip = session.scalar(wanted.with_for_update())
    if ip is None:
        raise BadParameter(
            f"Invalid parameter ipaddress value={address}: it must be an address of a public range of "
            f"zone {zone.name} that is open to account {owner.name}."
        )
    if ip.state == FREE or (ip.state == RESERVED and ip.account_id == owner.id):
        quarantine.refuse_quarantined(session, ip, owner)
        return ip
    raise BadParameter(f"Invalid parameter ipaddress value={address}: it is {ip.state.lower()}; choose a free one.")


def release(session: Session, ip: PublicIp) -> None:
    """Take an address from its network, with every rule on it.

    Nobody gets it as long as a router may still answer for it: see :mod:`controlplane.network.letting_go`.
    """
    for clear in _address_clearers:
        clear(session, ip)
    claims.clear(session, ip.id)
    if ip.account_id is not None:
        give_back(session, ip.account_id, "public_ip")
        if ip.state != RESERVED:
            quarantine.begin(session, ip, ip.account_id)
    remove_tags(session, "PublicIpAddress", select(PublicIp.uuid).where(PublicIp.id == ip.id))
    if ip.state == ALLOCATING:  # its new network never had it
        ip.network_id, ip.vpc_id, ip.left_network_id, ip.left_vpc_id = ip.left_network_id, ip.left_vpc_id, None, None
    ip.state = RELEASING if ip.targets(session) else FREE
    if ip.state == FREE:
        ip.network_id, ip.vpc_id, ip.part = None, None, ""
    ip.account_id = ip.domain_id = ip.allocated = None
    ip.source_nat, ip.is_system, ip.display = False, False, True
    forget_static_nat(ip)
    session.flush()


def forget_static_nat(ip: PublicIp) -> None:
    """Have the address stand for no guest any more."""
    if ip.vpc_id is not None:
        ip.network_id = None
    ip.static_nat, ip.vm_id, ip.nic_id, ip.nic_address = False, None, None, None


def forget_network(session: Session, network: Network) -> None:
    """Remove the rules of a network that goes, and give back all its public addresses: a tier's are its VPC's."""
    for clear in _network_clearers:
        clear(session, network)
    if network.vpc_id is None:
        release_all(session, network)


def release_all(session: Session, whole: Whole) -> None:
    """Give back every public address of what goes, the source NAT one too."""
    for ip in session.scalars(select(PublicIp).where(used_by(whole), PublicIp.state.in_(HELD))):
        release(session, ip)


def forget_nic(session: Session, nic: Nic) -> list[Target]:
    """Remove every rule that leads to a NIC, and what static NAT and load balancers have of it.

    :return: the targets whose desired state has changed.
    """
    from controlplane.network.pod_networks import targets_of

    networks = {network.id: network for clear in _nic_clearers for network in clear(session, nic)}
    session.flush()
    return [target for network in networks.values() for target in targets_of(session, network, nic)]


def addresses_facts(session: Session, whole: Whole, part: str = "") -> tuple[vocabulary.PublicAddress, ...]:
    """Return the public addresses of a VPC or network; which interface carries each is for the caller to say.

    :param part: of an appliance that has only some of them (``Router.part``).
    """
    query = (
        select(PublicIp.uuid, PublicIp.address, PublicIp.source_nat, VlanRange.gateway, VlanRange.netmask)
        .join(VlanRange, PublicIp.range_id == VlanRange.id)
        .where(used_by(whole), PublicIp.part == part, PublicIp.state == ALLOCATED)
        .order_by(PublicIp.number)
    )
    return tuple(
        vocabulary.PublicAddress(
            id=uuid,
            address=address,
            prefix=IPv4Network(f"0.0.0.0/{netmask}").prefixlen,
            gateway=gateway,
            nic="",
            source_nat=source_nat,
            network="" if isinstance(whole, Vpc) else whole.uuid,
        )
        for uuid, address, source_nat, gateway, netmask in session.execute(query)
    )


@leads
def ways(session: Session, whole: Whole) -> Iterable[Way]:
    """Return the CIDR of the network or VPC itself, and the zone's public ranges."""
    if whole.cidr:
        yield Way(f"{'VPC' if isinstance(whole, Vpc) else 'network'} {whole.name}", IPv4Network(whole.cidr))
    ranges = select(VlanRange.gateway, VlanRange.netmask).where(VlanRange.zone_id == whole.zone_id)
    outer = VlanRange.network_id.is_(None), VlanRange.gateway.contains(".")
    for gateway, netmask in session.execute(ranges.where(*outer).distinct()):
        yield Way("the zone's public range", IPv4Network(f"{gateway}/{netmask}", strict=False))
