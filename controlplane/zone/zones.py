"""Zones: a data centre, as far as tenants can tell."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db.base import Created, Removable, Row


class Zone(Created, Removable, Row):
    """A zone (createZone).

    :ivar network_type: ``Advanced`` or ``Basic``.
    :ivar allocation_state: ``Enabled`` or ``Disabled``: a disabled zone takes nothing new from users.
    :ivar domain_id: the only domain that may use it; None is public.
    """

    __tablename__ = "zones"

    name: Mapped[str] = mapped_column(String(255), index=True)
    description: Mapped[str | None] = mapped_column(String(255))
    network_type: Mapped[str] = mapped_column(String(20))
    allocation_state: Mapped[str] = mapped_column(String(20), default="Disabled")
    dns1: Mapped[str]
    dns2: Mapped[str | None]
    internal_dns1: Mapped[str]
    internal_dns2: Mapped[str | None]
    ip6_dns1: Mapped[str | None]
    ip6_dns2: Mapped[str | None]
    guest_cidr: Mapped[str | None]
    network_domain: Mapped[str | None]
    domain_id: Mapped[int | None] = mapped_column(ForeignKey("domains.id"))
    security_groups: Mapped[bool] = mapped_column(default=False)
    local_storage: Mapped[bool] = mapped_column(default=False)
    type: Mapped[str] = mapped_column(String(20), default="Core")
    details: Mapped[dict[str, str]] = mapped_column(default=dict)
