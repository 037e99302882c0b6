"""Limits and counts: how much an account and each domain above it have, and may have.

Whatever makes or removes a counted thing says so here, in its own transaction. The counts are rows that are locked
while they change, so that parallel creates end exactly at the limit.
"""

from __future__ import annotations

from sqlalchemy import String, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.db.base import Base
from controlplane.db.configuration import define
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
"""CloudStack's kinds of limited resources and their numbers; memory is in MiB, storage in bytes."""

_DEFAULTS = {
    kind: define(
        f"max.account.{name}",
        default,
        f"How many {name.replace('.', ' ')} an account may have; -1 is unlimited",
        category="Account Defaults",
    )
    for kind, name, default in (
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
    )
}
GIB = 1 << 30


class ResourceCount(Base):
    """How much of a kind an account or a domain (with its whole tree) has."""

    __tablename__ = "resource_counts"
    __table_args__ = (UniqueConstraint("owner", "owner_id", "kind"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(10))
    owner_id: Mapped[int]
    kind: Mapped[str] = mapped_column(String(30))
    count: Mapped[int] = mapped_column(default=0)


class ResourceLimit(Base):
    """How much of a kind an account or a domain may have (updateResourceLimit); -1 is unlimited."""

    __tablename__ = "resource_limits"
    __table_args__ = (UniqueConstraint("owner", "owner_id", "kind"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(String(10))
    owner_id: Mapped[int]
    kind: Mapped[str] = mapped_column(String(30))
    max: Mapped[int]


def take(session: Session, account_id: int, kind: str, amount: int = 1) -> None:
    """Count what an account gets, for it and for each domain above it.

    :raises LimitReached: the account or one of its domains may not have so much.
    """
    for owner, number, name in _owners(session, account_id):
        row = _row(session, owner, number, kind)
        most = limit_of(session, owner, number, kind)
        if most != UNLIMITED and row.count + amount > most:
            raise LimitReached(
                f"Maximum amount of resources of Type = '{kind}' for {owner} {name} is {most}: "
                f"it has {row.count}, and {amount} more were asked for."
            )
        row.count += amount
    session.flush()


def give_back(session: Session, account_id: int, kind: str, amount: int = 1) -> None:
    """Count what an account no longer has."""
    for owner, number, _ in _owners(session, account_id):
        row = _row(session, owner, number, kind)
        row.count = max(0, row.count - amount)
    session.flush()


def limit_of(session: Session, owner: str, number: int, kind: str) -> int:
    """Return how much the owner may have: its own limit, or an account's default; root admins are not limited."""
    found = session.scalar(
        select(ResourceLimit.max).where(
            ResourceLimit.owner == owner, ResourceLimit.owner_id == number, ResourceLimit.kind == kind
        )
    )
    if found is not None:
        return found
    if owner == DOMAIN or session.get_one(Account, number).type == 1:
        return UNLIMITED
    value = _DEFAULTS[kind].number(session)
    return value * GIB if kind.endswith("storage") and value != UNLIMITED else value


def _owners(session: Session, account_id: int) -> list[tuple[str, int, str]]:
    account = session.get_one(Account, account_id)
    numbers = [int(part) for part in account.domain.path.split("/") if part]
    domains = session.execute(select(Domain.id, Domain.name_path).where(Domain.id.in_(numbers)).order_by(Domain.level))
    return [*((DOMAIN, number, path) for number, path in domains), (ACCOUNT, account.id, account.name)]


def _row(session: Session, owner: str, number: int, kind: str) -> ResourceCount:
    query = select(ResourceCount).where(
        ResourceCount.owner == owner, ResourceCount.owner_id == number, ResourceCount.kind == kind
    )
    row = session.scalar(query.with_for_update())
    if row is None:
        row = ResourceCount(owner=owner, owner_id=number, kind=kind, count=0)
        session.add(row)
        session.flush()
    return row
