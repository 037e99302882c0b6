"""Quarantine: for a while after its owner gave it back, nobody else can have a public address.

Names, bookmarks and firewalls elsewhere may still trust the address for whom it was: who gets it next could misuse
that. The former owner may have it back, which ends the quarantine. Time alone ends it otherwise; no row changes then.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, ForeignKey, Select, String, exists, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.api.caller import Caller
from controlplane.db.base import Created, Removable, Row, now
from controlplane.db.configuration import define
from controlplane.errors import BadParameter
from controlplane.identity.accounts import Account

if TYPE_CHECKING:
    from controlplane.network.public_ips import PublicIp

DURATION = define(
    "public.ip.address.quarantine.duration",
    0,
    "Minutes after an account gave a public address back in which no other account gets it; 0 is none. "
    "The account's value wins over those of its domain and of the domains above it",
    category="Network",
    scopes=("Account", "Domain"),
    within=(0, None),
)


class IpQuarantine(Created, Removable, Row):
    """A public address that was given back (listQuarantinedIps).

    :ivar owner_id: the account that had it.
    :ivar ends: from then on anybody may have it.
    :ivar removed: when the quarantine was ended before its time: by ``remover_id``, or by the former owner's taking it.
    """

    __tablename__ = "ip_quarantines"

    public_ip_id: Mapped[int] = mapped_column(ForeignKey("public_ips.id", ondelete="CASCADE"), index=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), index=True)
    ends: Mapped[datetime] = mapped_column(index=True)
    removal_reason: Mapped[str | None] = mapped_column(String(255))
    remover_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"))

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """Those of the accounts that the caller sees."""
        return cls.owner_id.in_(select(Account.id).where(Account.visible_to(caller)))


def closed_to(public_ip_id: Any, account_id: int) -> ColumnElement[bool]:
    """Return the condition that an address is in quarantine, and this account not the one that had it.

    :param public_ip_id: the column with the address's number.
    """
    theirs = IpQuarantine.public_ip_id == public_ip_id, IpQuarantine.owner_id != account_id
    return exists().where(*theirs, IpQuarantine.removed.is_(None), IpQuarantine.ends > now())


def refuse_quarantined(session: Session, ip: PublicIp, owner: Account) -> None:
    """Refuse an address that another account gave back not long ago.

    :raises BadParameter: says until when.
    """
    found = session.scalar(_running(ip).where(IpQuarantine.owner_id != owner.id))
    if found is not None:
        raise BadParameter(
            f"Invalid parameter ipaddress value={ip.address}: another account gave it back, and it is in quarantine "
            f"until {found.ends:%Y-%m-%dT%H:%M:%SZ}; choose another one."
        )


def _running(ip: PublicIp) -> Select[IpQuarantine]:
    mine = IpQuarantine.public_ip_id == ip.id, IpQuarantine.removed.is_(None), IpQuarantine.ends > now()
    return select(IpQuarantine).where(*mine).order_by(IpQuarantine.id.desc()).limit(1)


def begin(session: Session, ip: PublicIp, account_id: int) -> None:
    """Put an address that the account gives back into quarantine, where the operator wants that."""
    minutes = _minutes(session, account_id)
    if minutes > 0:
        session.add(IpQuarantine(public_ip_id=ip.id, owner_id=account_id, ends=now() + timedelta(minutes=minutes)))


def _minutes(session: Session, account_id: int) -> int:
    """Return how long the account's addresses stay in quarantine: as the nearest of its domains says it."""
    account = session.get_one(Account, account_id)
    numbers = [int(part) for part in account.domain.path.split("/") if part]
    return DURATION.number(session, account=account_id, domain=numbers[::-1])


def end(session: Session, ip: PublicIp, account: Account) -> None:
    """End the quarantine of an address that its former owner takes again."""
    found = session.scalar(_running(ip))
    if found is not None:
        found.removed, found.remover_id = now(), account.id
        found.removal_reason = "The account that had it took it again."
