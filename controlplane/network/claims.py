"""Claims: which rule has which port of a public address, so that two rules never share one."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db.base import Base


class PortClaim(Base):
    """One port of one public address and protocol, and the rule that has it.

    The primary key is the check: a port forwarding rule over a range claims each of its ports.
    """

    __tablename__ = "port_claims"

    public_ip_id: Mapped[int] = mapped_column(ForeignKey("public_ips.id"), primary_key=True)
    protocol: Mapped[str] = mapped_column(String(10), primary_key=True)
    port: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    rule_uuid: Mapped[str] = mapped_column(String(40), index=True)
