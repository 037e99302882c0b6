"""Roles: which commands their users may call.

A role has a type and rules. The first rule that matches a command decides; where none does, the command itself says
which types of role may call it (``Command.roles``). A role without rules is therefore just its type: that is what the
default roles Resource Admin, Domain Admin and User are, and a command that is added later is theirs without a change.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, ForeignKey, String, and_, true
from sqlalchemy.orm import Mapped, mapped_column, relationship

from controlplane.api.caller import Caller, Role
from controlplane.db.base import Row

ENABLED, DISABLED = "enabled", "disabled"
BELOW = {
    Role.USER: (Role.USER,),
    Role.DOMAIN_ADMIN: (Role.USER, Role.DOMAIN_ADMIN),
    Role.RESOURCE_ADMIN: (Role.USER, Role.DOMAIN_ADMIN, Role.RESOURCE_ADMIN),
    Role.ADMIN: tuple(Role),
}
"""The role types that each type stands above, itself among them."""


class RoleRow(Row):
    """A role (createRole). ``type`` is CloudStack's role type: Admin, ResourceAdmin, DomainAdmin or User.

    :ivar state: ``enabled``, or ``disabled``: its users may call nothing.
    :ivar is_public: domain admins may give it to their accounts.
    """

    __tablename__ = "roles"

    name: Mapped[str] = mapped_column(String(255), unique=True)
    type: Mapped[str] = mapped_column(String(20))
    description: Mapped[str | None] = mapped_column(String(255))
    is_default: Mapped[bool] = mapped_column(default=False)
    is_public: Mapped[bool] = mapped_column(default=True)
    state: Mapped[str] = mapped_column(String(20), default=ENABLED)
    rules: Mapped[list[RolePermission]] = relationship(
        order_by="RolePermission.position", lazy="selectin", cascade="all, delete-orphan", back_populates="role"
    )

    def pairs(self) -> tuple[tuple[str, bool], ...]:
        """Return the rules as (pattern, allow), in order."""
        return tuple((rule.rule, rule.permission == "allow") for rule in self.rules)

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """Root admins see every role, others the public ones of their own type and below."""
        if caller.role is Role.ADMIN:
            return true()
        return and_(cls.is_public, cls.type.in_([kind.value for kind in BELOW[caller.role]]))


class RolePermission(Row):
    """One rule of a role: the first that matches a command decides.

    :ivar permission: ``allow`` or ``deny``.
    """

    __tablename__ = "role_permissions"

    role_id: Mapped[int] = mapped_column(ForeignKey("roles.id", ondelete="CASCADE"), index=True)
    rule: Mapped[str] = mapped_column(String(120))
    permission: Mapped[str] = mapped_column(String(10))
    description: Mapped[str | None] = mapped_column(String(255))
    position: Mapped[int] = mapped_column(default=0)
    role: Mapped[RoleRow] = relationship(back_populates="rules")
