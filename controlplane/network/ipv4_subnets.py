"""IPv4 subnets of routed networks: what a zone has of them, and which network or VPC has which part.

What must stay true: two subnets of a zone never overlap, nor do two parts of one; the row of the whole is locked while
a part is chosen. A network keeps its part until its last router is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from ipaddress import IPv4Network

from sqlalchemy import ColumnElement, ForeignKey, String, UniqueConstraint, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import Caller
from controlplane.db.base import Created, Row, now
from controlplane.errors import BadParameter, NoAddress, RuleConflict
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.network.networks import Network, Whole
from controlplane.network.vpcs import Vpc
from controlplane.zone.zones import Zone

FREE, ALLOCATED = "Free", "Allocated"


class ZoneSubnet(Created, Row):
    """Addresses of a zone for routed networks (createIpv4SubnetForZone).

    :ivar account_id: for whose networks alone it is; with ``domain_id`` only, those of the domain and below.
    """

    __tablename__ = "zone_ipv4_subnets"
    __table_args__ = (UniqueConstraint("zone_id", "subnet"),)

    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    subnet: Mapped[str] = mapped_column(String(40))
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"), index=True)
    domain_id: Mapped[int | None] = mapped_column(ForeignKey("domains.id"), index=True)
    zone: Mapped[Zone] = relationship()


class GuestSubnet(Created, Row):
    """A part of a zone's subnet (createIpv4SubnetForGuestNetwork, or made when a network is).

    :ivar automatic: it came with its network, and goes with it.
    :ivar network_id: who has it, or ``vpc_id``; both are None while it is free.
    """

    __tablename__ = "guest_ipv4_subnets"
    __table_args__ = (UniqueConstraint("parent_id", "subnet"),)

    parent_id: Mapped[int] = mapped_column(ForeignKey("zone_ipv4_subnets.id"), index=True)
    subnet: Mapped[str] = mapped_column(String(40))
    state: Mapped[str] = mapped_column(String(20), default=FREE)
    automatic: Mapped[bool] = mapped_column(default=False)
    allocated: Mapped[datetime | None]
    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"), unique=True)
    vpc_id: Mapped[int | None] = mapped_column(ForeignKey("vpcs.id"), unique=True)
    parent: Mapped[ZoneSubnet] = relationship()
    network: Mapped[Network | None] = relationship()
    vpc: Mapped[Vpc | None] = relationship()

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """Root admins see all; to others they are only shown as their networks' CIDRs."""
        return cls.id.is_not(None) if caller.is_admin else cls.id.is_(None)


dispatch.JOB_TABLES["DataCenterIpv4GuestSubnet"] = ZoneSubnet
dispatch.JOB_TABLES["Ipv4GuestSubnetNetworkMap"] = GuestSubnet


def open_to(session: Session, zone: Zone, owner: Account) -> list[ZoneSubnet]:
    """Return, locked, the zone's subnets that the owner's networks may have parts of, its own ones first."""
    path = session.get_one(Domain, owner.domain_id).path
    above = [int(number) for number in path.split("/") if number]
    table = ZoneSubnet
    common = table.account_id.is_(None) & or_(table.domain_id.is_(None), table.domain_id.in_(above))
    query = select(table).where(table.zone_id == zone.id, or_(table.account_id == owner.id, common))
    found = session.scalars(query.order_by(table.id).with_for_update()).all()
    return sorted(found, key=lambda row: (row.account_id is None, row.domain_id is None, row.id))


def parts_of(session: Session, row: ZoneSubnet) -> Sequence[GuestSubnet]:
    """Return the parts of a zone's subnet."""
    return session.scalars(select(GuestSubnet).where(GuestSubnet.parent_id == row.id).order_by(GuestSubnet.id)).all()


def first_gap(whole: IPv4Network, taken: Sequence[IPv4Network], size: int) -> IPv4Network | None:
    """Return the lowest block of this prefix length that overlaps none of the taken ones; None when there is none."""
    if size < whole.prefixlen:
        return None
    step, position = 1 << 32 - size, int(whole.network_address)
    for other in sorted(taken):
        if position + step <= int(other.network_address):
            break
        end = int(other.broadcast_address) + 1
        position = max(position, -(-end // step) * step)
    return IPv4Network((position, size)) if position + step - 1 <= int(whole.broadcast_address) else None


def take(session: Session, whole: Whole, owner: Account, size: int) -> IPv4Network:
    """Give a network or VPC a part of its zone: a free one of this size that is there, or the lowest gap.

    :param size: its prefix length.
    :raises NoAddress: no subnet that is open to the owner has room.
    """
    rows = open_to(session, whole.zone, owner)
    for row in rows:
        parts = parts_of(session, row)
        ready = [part for part in parts if part.state == FREE and IPv4Network(part.subnet).prefixlen == size]
        block = first_gap(IPv4Network(row.subnet), [IPv4Network(part.subnet) for part in parts], size)
        if ready or block is not None:
            part = ready[0] if ready else GuestSubnet(parent=row, subnet=str(block), automatic=True)
            _allot(session, part, whole)
            return IPv4Network(part.subnet)
    raise NoAddress(
        f"Zone {whole.zone.name} has no /{size} left for {whole.name}: {len(rows)} IPv4 subnets are open to account "
        f"{owner.name}; an operator adds one with createIpv4SubnetForZone."
    )


def claim(session: Session, whole: Whole, owner: Account, block: IPv4Network, parameter: str) -> None:
    """Give a network or VPC the very part that it names.

    :raises BadParameter: no subnet that is open to the owner holds it.
    :raises RuleConflict: somebody has it, or part of it.
    """
    for row in open_to(session, whole.zone, owner):
        if not block.subnet_of(IPv4Network(row.subnet)):
            continue
        for part in parts_of(session, row):
            if part.subnet == str(block) and part.state == FREE:
                _allot(session, part, whole)
                return
            refuse_overlap(block, part, parameter)
        _allot(session, GuestSubnet(parent=row, subnet=str(block), automatic=True), whole)
        return
    raise BadParameter(
        f"Invalid parameter {parameter} value={block}: it must lie in an IPv4 subnet of zone {whole.zone.name} that is "
        f"open to account {owner.name} (listIpv4SubnetsForZone); or leave it out, and one of cidrsize is chosen."
    )


def refuse_overlap(block: IPv4Network, part: GuestSubnet, parameter: str) -> None:
    """Refuse a block that a part has addresses of.

    :raises RuleConflict: it has; its network is not named, as it may be somebody else's.
    """
    if block.overlaps(IPv4Network(part.subnet)):
        raise RuleConflict(
            f"Invalid parameter {parameter} value={block}: it overlaps {part.subnet}, which is {part.state.lower()} "
            "already; choose another one."
        )


def _allot(session: Session, part: GuestSubnet, whole: Whole) -> None:
    part.state, part.allocated = ALLOCATED, now()
    part.network, part.vpc = (None, whole) if isinstance(whole, Vpc) else (whole, None)
    session.add(part)


def give_back(session: Session, whole: Whole) -> None:
    """Free the part that a network or VPC has; repeatable. No router may answer for it any more."""
    mine = GuestSubnet.vpc_id == whole.id if isinstance(whole, Vpc) else GuestSubnet.network_id == whole.id
    for part in session.scalars(select(GuestSubnet).where(mine)).all():
        if part.automatic:
            session.delete(part)
        else:
            part.state, part.allocated, part.network_id, part.vpc_id = FREE, None, None, None
    session.flush()
