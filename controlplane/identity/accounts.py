"""Accounts: what owns things. An account has users, a role and a domain."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, ForeignKey, String, UniqueConstraint, select, true
from sqlalchemy.orm import Mapped, mapped_column, relationship

from controlplane.api.caller import Caller, Role
from controlplane.db.base import Created, Removable, Row
from controlplane.identity.domains import Domain
from controlplane.identity.roles import RoleRow

PROJECT = 5
"""The type of the account that owns a project's things."""


class Account(Created, Removable, Row):
    """An account.

    :ivar type: 0 user, 1 root admin, 2 domain admin, 3 resource admin, 5 project.
    :ivar state: ``enabled``, ``disabled`` or ``locked``.
    :ivar cleanup_required: it was to be deleted, and something of it is still there.
    """

    __tablename__ = "accounts"
    __table_args__ = (UniqueConstraint("domain_id", "name", "removed_key"),)

    name: Mapped[str] = mapped_column(String(255), index=True)
    type: Mapped[int]
    domain_id: Mapped[int] = mapped_column(ForeignKey("domains.id"), index=True)
    role_id: Mapped[int] = mapped_column(ForeignKey("roles.id"))
    state: Mapped[str] = mapped_column(String(20), default="enabled")
    network_domain: Mapped[str | None] = mapped_column(String(255))
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    default: Mapped[bool] = mapped_column(default=False)
    cleanup_required: Mapped[bool] = mapped_column(default=False)
    removed_key: Mapped[int] = mapped_column(default=0)
    domain: Mapped[Domain] = relationship(lazy="joined")
    role: Mapped[RoleRow] = relationship()

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """Admins see the accounts of their domains' tree, users their own."""
        if caller.role is Role.ADMIN:
            return true()
        if caller.role is not Role.USER:
            return cls.domain_id.in_(select(Domain.id).where(Domain.visible_to(caller)))
        return cls.id.in_((caller.account_id, *caller.projects))
