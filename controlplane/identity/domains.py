"""Domains: the tree under ROOT that accounts live in."""

from __future__ import annotations

from sqlalchemy import ColumnElement, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from controlplane.api.caller import Caller, Role
from controlplane.db.base import Created, Removable, Row


class Domain(Created, Removable, Row):
    """A domain.

    :ivar path: the numbers of the domains from ROOT down to this one, as ``/1/7/``: a prefix is an ancestor.
    :ivar name_path: as people write it: ``ROOT/sales``.
    """

    __tablename__ = "domains"
    __table_args__ = (UniqueConstraint("parent_id", "name", "removed_key"),)

    name: Mapped[str] = mapped_column(String(255))
    path: Mapped[str] = mapped_column(String(255), index=True, default="")
    name_path: Mapped[str] = mapped_column(String(1024), default="")
    level: Mapped[int] = mapped_column(default=0)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("domains.id"))
    network_domain: Mapped[str | None] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(20), default="Active")
    removed_key: Mapped[int] = mapped_column(default=0)  # its own number once removed, so that the name is free again
    parent: Mapped[Domain | None] = relationship(remote_side="Domain.id")

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """Admins see their tree, users the domain they are in."""
        if caller.role is not Role.USER:
            return cls.path.startswith(caller.domain_path, autoescape=True)
        return cls.id == caller.domain_id
