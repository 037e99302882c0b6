"""Roles: which commands their users may call."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from controlplane.db.base import Row


class RoleRow(Row):
    """A role (createRole). ``type`` is CloudStack's role type: Admin, ResourceAdmin, DomainAdmin or User."""

    __tablename__ = "roles"

    name: Mapped[str] = mapped_column(String(255), unique=True)
    type: Mapped[str] = mapped_column(String(20))
    description: Mapped[str | None] = mapped_column(String(255))
    is_default: Mapped[bool] = mapped_column(default=False)
    is_public: Mapped[bool] = mapped_column(default=True)
    rules: Mapped[list[RolePermission]] = relationship(
        order_by="RolePermission.position", lazy="selectin", cascade="all, delete-orphan"
    )


class RolePermission(Row):
    """One rule of a role: the first that matches a command decides."""

    __tablename__ = "role_permissions"

    role_id: Mapped[int] = mapped_column(ForeignKey("roles.id", ondelete="CASCADE"), index=True)
    rule: Mapped[str] = mapped_column(String(120))
    permission: Mapped[str] = mapped_column(String(10))
    description: Mapped[str | None] = mapped_column(String(255))
    position: Mapped[int] = mapped_column(default=0)
