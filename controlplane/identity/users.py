"""Users: who logs in or signs, on behalf of an account."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, String, UniqueConstraint, select
from sqlalchemy.orm import Mapped, mapped_column, relationship

from controlplane.api.caller import Caller
from controlplane.db.base import Created, Owned, Removable, Row
from controlplane.db.secrets import Secret
from controlplane.identity.accounts import Account


class User(Created, Removable, Owned, Row):
    """A user.

    :ivar password: its hash, never the password.
    :ivar login_attempts: wrong passwords since the last right one, the newest at ``login_failed``.
    :ivar secret_key: signs requests; encrypted at rest, because checking a signature needs it.
    """

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("domain_id", "username", "removed_key"),)

    username: Mapped[str] = mapped_column(String(255))
    password: Mapped[str] = mapped_column(String(255))
    firstname: Mapped[str] = mapped_column(String(255), default="")
    lastname: Mapped[str] = mapped_column(String(255), default="")
    email: Mapped[str] = mapped_column(String(255), default="")
    timezone: Mapped[str | None] = mapped_column(String(40))
    state: Mapped[str] = mapped_column(String(20), default="enabled")
    api_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    secret_key: Mapped[str | None] = mapped_column(Secret)
    default: Mapped[bool] = mapped_column(default=False)
    login_attempts: Mapped[int] = mapped_column(default=0)
    login_failed: Mapped[datetime | None]
    removed_key: Mapped[int] = mapped_column(default=0)
    account: Mapped[Account] = relationship(lazy="joined")

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """A user is seen by whoever sees its account."""
        return cls.account_id.in_(select(Account.id).where(Account.visible_to(caller)))
