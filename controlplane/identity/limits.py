"""Limits and counts: how much an account and each domain above it have, and may have.

Whatever makes or removes a counted thing says so here, in its own transaction. The counts are rows that are locked
while they change, always from ROOT down to the account, so that parallel creates end exactly at the limit.
Whoever counts a kind also says how it is counted from the rows, so that ``updateResourceCount`` can put a count right::

    counted_by("network", rows_of(Network, Network.removed.is_(None)))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, String, UniqueConstraint, and_, func, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.db.base import Base
from controlplane.db.configuration import Setting, define
from controlplane.errors import LimitReached
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain

UNLIMITED = -1
ACCOUNT, DOMAIN = "Account", "Domain"
KINDS = {
    "user_vm": 0,
    "public_ip": 1,
    "volume": 2,
    "snapshot": 3,
    "template": 4,
    "project": 5,
    "network": 6,
    "vpc": 7,
    "cpu": 8,
    "memory": 9,
    "primary_storage": 10,
    "secondary_storage": 11,
}
"""CloudStack's kinds of limited resources and their numbers; memory is counted in MiB, storage in bytes."""
GIB = 1 << 30


def _settings(owner: str, defaults: Sequence[tuple[str, str, int]]) -> dict[str, Setting]:
    return {
        kind: define(
            f"max.{owner}.{name}",
            default,
            f"How many {name.replace('.', ' ')} {owner}s may have unless a limit of their own is set; -1 is unlimited",
            category=f"{owner.title()} Defaults",
            within=(UNLIMITED, None),
        )
        for kind, name, default in defaults
    }


_ACCOUNT_DEFAULTS = _settings(
    "account",
    (
        ("user_vm", "user.vms", 20),
        ("public_ip", "public.ips", 20),
        ("volume", "volumes", 20),
        ("snapshot", "snapshots", 20),
        ("template", "templates", 20),
        ("project", "projects", 10),
        ("network", "networks", 20),
        ("vpc", "vpcs", 20),
        ("cpu", "cpus", 40),
        ("memory", "memory", 40960),
        ("primary_storage", "primary.storage", 200),
        ("secondary_storage", "secondary.storage", 400),
    ),
)
_DOMAIN_DEFAULTS = _settings(
    "domain",
    (
        ("user_vm", "user.vms", 40),
        ("public_ip", "public.ips", 40),
        ("volume", "volumes", 40),
        ("snapshot", "snapshots", 40),
        ("template", "templates", 40),
        ("project", "projects", 50),
        ("network", "networks", 40),
        ("vpc", "vpcs", 40),
        ("cpu", "cpus", 80),
        ("memory", "memory", 81920),
        ("primary_storage", "primary.storage", 400),
        ("secondary_storage", "secondary.storage", 800),
    ),
)


class ResourceCount(Base):
    """How much of a kind an account or a domain (with its whole tree) has."""

    __tablename__ = "resource_counts"
    __table_args__ = (UniqueConstraint("owner", "owner_id", "kind"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(10))
    owner_id: Mapped[int]
    kind: Mapped[str] = mapped_column(String(30))
    count: Mapped[int] = mapped_column(BigInteger, default=0)


class ResourceLimit(Base):
    """How much of a kind an account or a domain may have (updateResourceLimit).

    :ivar max: as the API has it: storage in GiB; -1 is unlimited.
    """

    __tablename__ = "resource_limits"
    __table_args__ = (UniqueConstraint("owner", "owner_id", "kind"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(10))
    owner_id: Mapped[int]
    kind: Mapped[str] = mapped_column(String(30))
    max: Mapped[int] = mapped_column(BigInteger)


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody who is counted and limited: an account, or a domain with its whole tree.

    :param exempt: it has no limit unless one is set: ROOT, and the accounts of root admins.
    """

    owner: str
    number: int
    name: str
    exempt: bool

    @classmethod
    def of(cls, row: Account | Domain) -> Holder:
        """Return the holder that a row is."""
        if isinstance(row, Domain):
            return cls(DOMAIN, row.id, row.name_path, row.parent_id is None)
        return cls(ACCOUNT, row.id, row.name, row.type == 1)


def take(session: Session, account_id: int, kind: str, amount: int = 1) -> None:
    """Count what an account gets, for it and for each domain above it.

    :param amount: pieces; MiB of memory, bytes of storage.
    :raises LimitReached: the account or one of its domains may not have so much.
    """
    holders = holders_of(session, account_id)
    rows = locked_counts(session, holders, kind)
    most = limits_of(session, holders, kind)
    for holder in holders:
        allowed, row = most[holder], rows[holder]
        if allowed != UNLIMITED and row.count + amount > allowed:
            raise LimitReached(_exceeded(session, holder, kind, (allowed, row.count, amount)))
    for row in rows.values():
        row.count += amount
    session.flush()


def _exceeded(session: Session, holder: Holder, kind: str, figures: tuple[int, int, int]) -> str:
    """Return the sentence that says whose limit is reached; CloudStack's words, which clients look into."""
    allowed, current, requested = (_legible(kind, amount) for amount in figures)
    if holder.owner == DOMAIN:
        uuid = session.get_one(Domain, holder.number).uuid
        whose = f"domain resource limits of Type '{kind}' for Domain Id = {uuid}"
    else:
        uuid = session.get_one(Account, holder.number).domain.uuid
        whose = f"amount of resources of Type = '{kind}' for Account Name = {holder.name} in Domain Id = {uuid}"
    return (
        f"Maximum {whose} is exceeded: {holder.owner} Resource Limit = {allowed}, Current {holder.owner} Resource "
        f"Amount = {current}, Requested Resource Amount = {requested}. Remove what {holder.name} no longer needs, or "
        "have an admin raise the limit (updateResourceLimit)."
    )


def _legible(kind: str, amount: int) -> str:
    """Return an amount as a number; of storage, which is counted in bytes, with what it is in GiB before it."""
    return f"({amount / GIB:.2f} GB) {amount}" if kind.endswith("storage") else str(amount)


def give_back(session: Session, account_id: int, kind: str, amount: int = 1) -> None:
    """Count what an account no longer has."""
    for row in locked_counts(session, holders_of(session, account_id), kind).values():
        row.count = max(0, row.count - amount)
    session.flush()


def limit_of(session: Session, owner: str, number: int, kind: str) -> int:
    """Return how much the owner may have, -1 for any amount: its own limit, or the default for its kind of owner."""
    holder = Holder.of(session.get_one(Domain, number) if owner == DOMAIN else session.get_one(Account, number))
    return limits_of(session, [holder], kind)[holder]


def limits_of(session: Session, holders: Sequence[Holder], kind: str) -> dict[Holder, int]:
    """Return how much each of the holders may have, in the unit that the kind is counted in."""
    return {holder: counted(kind, most) for holder, most in shown_limits(session, holders, kind).items()}


def shown_limits(session: Session, holders: Sequence[Holder], kind: str) -> dict[Holder, int]:
    """Return how much each of the holders may have, as the API has it: storage in GiB."""
    found = {
        (owner, number): most
        for owner, number, most in session.execute(
            select(ResourceLimit.owner, ResourceLimit.owner_id, ResourceLimit.max).where(
                ResourceLimit.kind == kind, _any_of(ResourceLimit, holders)
            )
        )
    }
    defaults: dict[str, int] = {}

    def most(holder: Holder) -> int:
        own = found.get((holder.owner, holder.number))
        if own is not None or holder.exempt:
            return UNLIMITED if own is None else own
        if holder.owner not in defaults:
            defaults[holder.owner] = default_of(session, holder.owner, kind)
        return defaults[holder.owner]

    return {holder: most(holder) for holder in holders}


def default_of(session: Session, owner: str, kind: str) -> int:
    """Return what owners of this kind may have when nothing else is set, as the API has it."""
    return (_ACCOUNT_DEFAULTS if owner == ACCOUNT else _DOMAIN_DEFAULTS)[kind].number(session)


def counted(kind: str, amount: int) -> int:
    """Turn an amount as the API has it into the unit that is counted: GiB of storage into bytes."""
    return amount * GIB if kind.endswith("storage") and amount != UNLIMITED else amount


def holders_of(session: Session, account_id: int) -> list[Holder]:
    """Return the domains above an account from ROOT down, and the account."""
    account = session.get_one(Account, account_id)
    return [*holders_above(session, account), Holder.of(account)]


def holders_above(session: Session, row: Account | Domain) -> list[Holder]:
    """Return the domains above an account or a domain, from ROOT down."""
    path = row.path.removesuffix(f"{row.id}/") if isinstance(row, Domain) else row.domain.path
    numbers = [int(part) for part in path.split("/") if part]
    domains = session.scalars(select(Domain).where(Domain.id.in_(numbers)).order_by(Domain.level))
    return [Holder.of(domain) for domain in domains]


def locked_counts(session: Session, holders: Sequence[Holder], kind: str) -> dict[Holder, ResourceCount]:
    """Return the count of each holder, locked until the transaction ends; those that are missing are made."""
    query = select(ResourceCount).where(ResourceCount.kind == kind, _any_of(ResourceCount, holders))
    found = {
        (row.owner, row.owner_id): row for row in session.scalars(query.order_by(ResourceCount.id).with_for_update())
    }
    for holder in holders:
        if (holder.owner, holder.number) not in found:
            row = ResourceCount(owner=holder.owner, owner_id=holder.number, kind=kind, count=0)
            session.add(row)
            found[holder.owner, holder.number] = row
    session.flush()
    return {holder: found[holder.owner, holder.number] for holder in holders}


def _any_of(table: type[ResourceCount | ResourceLimit], holders: Sequence[Holder]) -> ColumnElement[bool]:
    numbers = {owner: [holder.number for holder in holders if holder.owner == owner] for owner in (ACCOUNT, DOMAIN)}
    return or_(*(and_(table.owner == owner, table.owner_id.in_(found)) for owner, found in numbers.items()))


Counter = Callable[[Session, Sequence[int]], Mapping[int, int]]
"""Counts from the rows: how much each of these accounts has, by account number; who has nothing may be left out."""
_counters: dict[str, Counter] = {}


def counted_by(kind: str, counter: Counter) -> None:
    """Say how a kind is counted from the rows, for ``updateResourceCount``."""
    assert kind in KINDS, f"{kind} is no kind of resource"
    assert kind not in _counters, f"{kind} is counted by two rooms"
    _counters[kind] = counter


def rows_of(table: Any, *conditions: Any, amount: Any = None) -> Counter:
    """Return a counter that counts the table's rows that meet the conditions.

    :param amount: a column (or expression) that is summed up, instead of the number of rows.
    """

    def counter(session: Session, accounts: Sequence[int]) -> Mapping[int, int]:
        total = func.count() if amount is None else func.coalesce(func.sum(amount), 0)
        query = select(table.account_id, total).where(table.account_id.in_(accounts), *conditions)
        return {number: int(count) for number, count in session.execute(query.group_by(table.account_id))}

    return counter


def recount(session: Session, row: Account | Domain, kind: str) -> int:
    """Put a count right from the rows and return it; a kind that no room counts keeps its count."""
    holder = Holder.of(row)
    count = locked_counts(session, [holder], kind)[holder]
    counter = _counters.get(kind)
    if counter is not None:
        accounts: Sequence[int] = [row.id]
        if isinstance(row, Domain):
            tree = select(Domain.id).where(Domain.path.startswith(row.path, autoescape=True))
            accounts = session.scalars(select(Account.id).where(Account.domain_id.in_(tree))).all()
        count.count = sum(counter(session, accounts).values())
        session.flush()
    return count.count
