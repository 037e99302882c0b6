"""AS numbers: the ranges that a zone has, and which network or VPC speaks BGP with which number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    ForeignKey,
    Select,
    UniqueConstraint,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, joinedload, mapped_column, relationship

from controlplane.api.caller import EVERYONE, Caller
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context, owned_by
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import Long, matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Created, Row, new_uuid, now
from controlplane.errors import BadParameter, InUse, NoAddress, RuleConflict
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import owner_fields
from controlplane.network.dedication import of_realm
from controlplane.network.networks import Network, Whole
from controlplane.network.vpcs import Vpc
from controlplane.zone.zones import Zone

LAST, MOST = 4294967294, 65536
"""The last AS number that there is (RFC 6793, RFC 7300), and how many a range may hold: each is a row."""


class AsnRange(Created, Row):
    """A range of AS numbers of a zone (createASNRange)."""

    __tablename__ = "asn_ranges"

    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    start: Mapped[int] = mapped_column(BigInteger)
    end: Mapped[int] = mapped_column(BigInteger)
    zone: Mapped[Zone] = relationship()


class AsNumber(Created, Row):
    """One AS number of a range.

    :ivar account_id: whose network or VPC has it; None while it is free.
    """

    __tablename__ = "as_numbers"
    __table_args__ = (UniqueConstraint("zone_id", "number"),)

    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"))
    range_id: Mapped[int] = mapped_column(ForeignKey("asn_ranges.id"), index=True)
    number: Mapped[int] = mapped_column(BigInteger)
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"), index=True)
    domain_id: Mapped[int | None] = mapped_column(ForeignKey("domains.id"))
    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"), unique=True)
    vpc_id: Mapped[int | None] = mapped_column(ForeignKey("vpcs.id"), unique=True)
    allocated: Mapped[datetime | None]
    range: Mapped[AsnRange] = relationship()
    zone: Mapped[Zone] = relationship()
    network: Mapped[Network | None] = relationship()
    vpc: Mapped[Vpc | None] = relationship()

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """Everybody sees the free ones, which a new network may name, and those of the own realm."""
        return or_(owned_by(cls, caller), cls.account_id.is_(None))


@dataclass(kw_only=True)
class AsnRangeResponse(Response):
    """A range of AS numbers."""

    id: str
    zoneid: str
    startasn: int
    endasn: int
    created: datetime


def asn_range_views(ctx: Context, rows: Sequence[AsnRange]) -> list[AsnRangeResponse]:
    """Return the responses of these ranges."""
    zones = select(Zone.id, Zone.uuid).where(Zone.id.in_({row.zone_id for row in rows}))
    uuids = {number: uuid for number, uuid in ctx.session.execute(zones)}
    return [
        AsnRangeResponse(
            id=row.uuid, zoneid=uuids[row.zone_id], startasn=row.start, endasn=row.end, created=row.created
        )
        for row in rows
    ]


class CreateAsnRange(Command, name="createASNRange", answer=one("asnumberrange", asn_range_views),
                     instance="AsNumberRange", event="AS.RANGE.CREATE"):  # fmt: skip
    """Give a zone AS numbers for its networks with dynamic routing."""

    zoneid: Zone = required()
    startasn: Long = required()
    endasn: Long = required()

    def run(self, ctx: Context) -> AsnRange:
        """Refuse what is no range, too large or there already, and write a row for each number."""
        start, end, zone = self.startasn, self.endasn, self.zoneid
        if not 1 <= start <= end <= LAST:
            raise BadParameter(f"Invalid parameter endasn value={end}: a range goes from 1 at least up to {LAST}.")
        if end - start >= MOST:
            raise BadParameter(f"Invalid parameter endasn value={end}: a range holds {MOST} numbers at most.")
        ctx.session.refresh(zone, with_for_update=True)  # two overlapping ones at once wait for each other
        same = AsnRange.zone_id == zone.id, AsnRange.start <= end, AsnRange.end >= start
        other = ctx.session.scalar(select(AsnRange).where(*same).limit(1))
        if other is not None:
            raise RuleConflict(
                f"Invalid parameter startasn value={start}: the range overlaps {other.start}-{other.end} "
                f"({other.uuid}) of zone {zone.name}."
            )
        row = AsnRange(zone=zone, start=start, end=end)
        ctx.session.add(row)
        ctx.session.flush()
        each = {"zone_id": zone.id, "range_id": row.id, "created": ctx.now}
        ctx.session.execute(
            insert(AsNumber), [{**each, "uuid": new_uuid(), "number": number} for number in range(start, end + 1)]
        )
        return row


class DeleteAsnRange(Command, name="deleteASNRange", answer=success(), instance="AsNumberRange",
                     event="AS.RANGE.DELETE"):  # fmt: skip
    """Delete a range of which no number is in use."""

    id: AsnRange = required()

    def run(self, ctx: Context) -> None:
        """Refuse while a number is in use; some are named."""
        row, ctx.instance = self.id, self.id
        used = select(AsNumber.number).where(AsNumber.range_id == row.id, AsNumber.account_id.is_not(None))
        numbers = ctx.session.scalars(used.order_by(AsNumber.number).limit(5).with_for_update()).all()
        if numbers:
            raise InUse(
                f"The range {row.start}-{row.end} cannot be deleted: networks have {', '.join(map(str, numbers))}."
            )
        ctx.session.execute(delete(AsNumber).where(AsNumber.range_id == row.id))
        ctx.session.delete(row)


class ListAsnRanges(ListCommand, name="listASNRanges", answer=many("asnumberrange", asn_range_views)):
    """List ranges of AS numbers."""

    table = AsnRange

    zoneid: Zone | None = matching(AsnRange.zone_id)


@dataclass(kw_only=True)
class AsNumberResponse(Response):
    """An AS number, and which network or VPC has it."""

    id: str
    asnumber: int
    allocationstate: str
    asnrangeid: str
    asnrange: str
    zoneid: str
    zonename: str
    account: str | None = None
    domain: str | None = None
    domainid: str | None = None
    associatednetworkid: str | None = None
    associatednetworkname: str | None = None
    vpcid: str | None = None
    vpcname: str | None = None
    allocated: datetime | None = None
    created: datetime


def as_number_views(ctx: Context, rows: Sequence[AsNumber]) -> list[AsNumberResponse]:
    """Return the responses of these numbers."""
    parts = AsNumber.range, AsNumber.zone, AsNumber.network, AsNumber.vpc
    query = select(AsNumber).where(AsNumber.id.in_([row.id for row in rows]))
    ctx.session.scalars(query.options(*(joinedload(part) for part in parts))).all()
    owners = owner_fields(ctx, [row for row in rows if row.account_id is not None])
    theirs = {
        number: {key: fields[key] for key in ("account", "domain", "domainid")} for number, fields in owners.items()
    }
    return [
        AsNumberResponse(
            id=row.uuid,
            asnumber=row.number,
            allocationstate="Allocated" if row.allocated else "Free",
            asnrangeid=row.range.uuid,
            asnrange=f"{row.range.start}-{row.range.end}",
            zoneid=row.zone.uuid,
            zonename=row.zone.name,
            associatednetworkid=row.network.uuid if row.network else None,
            associatednetworkname=row.network.name if row.network else None,
            vpcid=row.vpc.uuid if row.vpc else None,
            vpcname=row.vpc.name if row.vpc else None,
            allocated=row.allocated,
            created=row.created,
            **(theirs[row.account_id] if row.account_id is not None else {}),
        )
        for row in rows
    ]


class ListAsNumbers(ListCommand, name="listASNumbers", answer=many("asnumber", as_number_views), roles=EVERYONE):
    """List AS numbers: those that are free, and those of the caller's networks."""

    table = AsNumber
    order = (AsNumber.number,)

    zoneid: Zone | None = matching(AsNumber.zone_id)
    asnrangeid: AsnRange | None = matching(AsNumber.range_id)
    asnumber: int | None = matching(AsNumber.number)
    networkid: Network | None = matching(AsNumber.network_id)
    vpcid: Vpc | None = matching(AsNumber.vpc_id)
    isallocated: bool | None = optional()
    account: str | None = optional()
    domainid: Domain | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep those in use, or free; of the account or domain."""
        if self.isallocated is not None:
            query = query.where(AsNumber.account_id.is_not(None) == self.isallocated)
        return of_realm(ctx, query, AsNumber, self.account, self.domainid)


class ReleaseAsNumber(Command, name="releaseASNumber", answer=success(), event="AS.NUMBER.RELEASE"):
    """Free a number that a network which is gone still has."""

    zoneid: Zone = required()
    asnumber: Long = required()

    def run(self, ctx: Context) -> None:
        """Refuse while its network or VPC is there."""
        mine = AsNumber.zone_id == self.zoneid.id, AsNumber.number == self.asnumber
        row = ctx.session.scalar(select(AsNumber).where(*mine).with_for_update())
        what = f"Invalid parameter asnumber value={self.asnumber}"
        if row is None:
            raise BadParameter(f"{what}: zone {self.zoneid.name} has no such number.")
        owner = row.network or row.vpc
        if owner is None:
            raise BadParameter(f"{what}: it is free already.")
        if owner.removed is None:
            raise InUse(f"{what}: {owner.name} announces its networks with it; delete that one first.")
        free(ctx.session, owner)


def take(session: Session, whole: Whole, wanted: int | None) -> None:
    """Give a network or VPC an AS number of its zone: the wanted one, or the lowest free one.

    :raises BadParameter: the zone does not have the wanted one.
    :raises InUse: another network has it.
    :raises NoAddress: none is free.
    """
    query = select(AsNumber).where(AsNumber.zone_id == whole.zone_id)
    if wanted is not None:
        query = query.where(AsNumber.number == wanted)
    else:
        least = select(func.min(AsNumber.number)).where(
            AsNumber.zone_id == whole.zone_id, AsNumber.account_id.is_(None)
        )
        query = query.where(AsNumber.number == least.scalar_subquery())
    row = session.scalar(query.with_for_update())
    if row is None and wanted is not None:
        raise BadParameter(
            f"Invalid parameter asnumber value={wanted}: zone {whole.zone.name} has no such number; listASNumbers "
            "(isallocated=false) shows the free ones."
        )
    if row is None:
        raise NoAddress(
            f"Zone {whole.zone.name} has no AS number left for {whole.name}: an operator adds some with createASNRange."
        )
    if row.account_id is not None:
        raise InUse(f"Invalid parameter asnumber value={wanted}: another network has it; choose a free one.")
    row.account_id, row.domain_id, row.allocated = whole.account_id, whole.domain_id, now()
    row.network, row.vpc = (None, whole) if isinstance(whole, Vpc) else (whole, None)


def of(whole: Whole) -> ColumnElement[bool]:
    """Return the condition for the number that a network or VPC has."""
    return AsNumber.vpc_id == whole.id if isinstance(whole, Vpc) else AsNumber.network_id == whole.id


def free(session: Session, whole: Whole) -> None:
    """Give the number back; repeatable."""
    nobody = {"account_id": None, "domain_id": None, "network_id": None, "vpc_id": None, "allocated": None}
    session.execute(update(AsNumber).where(of(whole)).values(**nobody))
