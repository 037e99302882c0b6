"""Claims: which rule has which port of a public address, so that two rules never share one."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String, delete, insert, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.db.base import Base
from controlplane.errors import RuleConflict
from controlplane.network.rule_text import ports_text

PORT_FORWARDING, BALANCING, IP_FORWARDING = "port forwarding rule", "load balancer rule", "IP forwarding rule"
"""The purposes of claims."""


class PortClaim(Base):
    """One port of one public address and protocol, and the rule that has it.

    The primary key is the check: a port forwarding rule over a range claims each of its ports.

    :ivar purpose: what kind of rule it is, as a sentence has it
    """

    __tablename__ = "port_claims"

    public_ip_id: Mapped[int] = mapped_column(ForeignKey("public_ips.id"), primary_key=True)
    protocol: Mapped[str] = mapped_column(String(10), primary_key=True)
    port: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    rule_uuid: Mapped[str] = mapped_column(String(40), index=True)
    purpose: Mapped[str] = mapped_column(String(40))


def claim(session: Session, wanted: PortClaim, last: int) -> None:
    """Claim the ports from the wanted one up to the last for its rule.

    :raises RuleConflict: another rule has one of them; the sentence names it.
    """
    taken = session.execute(
        select(PortClaim.port, PortClaim.rule_uuid, PortClaim.purpose)
        .where(
            PortClaim.public_ip_id == wanted.public_ip_id,
            PortClaim.protocol == wanted.protocol,
            PortClaim.port.between(wanted.port, last),
        )
        .limit(1)
    ).first()
    if taken is not None:
        raise RuleConflict(
            f"The {wanted.purpose} for {wanted.protocol} {ports_text(wanted.port, last)} conflicts with "
            f"{taken.purpose} {taken.rule_uuid}, which has port {taken.port} of the same public address."
        )
    common = {
        "public_ip_id": wanted.public_ip_id,
        "protocol": wanted.protocol,
        "rule_uuid": wanted.rule_uuid,
        "purpose": wanted.purpose,
    }
    session.execute(insert(PortClaim), [common | {"port": port} for port in range(wanted.port, last + 1)])


def give_up(session: Session, rule_uuid: str) -> None:
    """Free the ports that a rule has."""
    session.execute(delete(PortClaim).where(PortClaim.rule_uuid == rule_uuid))
