"""Claims: which rule has which port of a public address, so that two rules never share one."""

from __future__ import annotations

from typing import cast

from sqlalchemy import ForeignKey, String, Table, bindparam, delete, insert, literal, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.db.base import Base
from controlplane.errors import RuleConflict
from controlplane.network.rule_text import ports_text

PORT_FORWARDING, BALANCING, IP_FORWARDING = "port forwarding rule", "load balancer rule", "IP forwarding rule"
WIREGUARD = "WireGuard VPN"
"""The purposes of claims."""
PARAMETERS = {PORT_FORWARDING: "publicport", BALANCING: "publicport", IP_FORWARDING: "startport"}
"""What the API calls the (first) port of each."""


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


_claims = cast("Table", PortClaim.__table__)
_TAKEN = (  # built once: it is asked for every new rule
    select(_claims.c.port, _claims.c.rule_uuid, _claims.c.purpose)
    .where(
        _claims.c.public_ip_id == bindparam("ip"),
        _claims.c.protocol == bindparam("protocol"),
        _claims.c.port.between(bindparam("first"), bindparam("last")),
    )
    .limit(1)
)


def claim(session: Session, wanted: PortClaim, last: int) -> None:
    """Claim the ports from the wanted one up to the last for its rule.

    :raises RuleConflict: another rule has one of them; the sentence names it.
    """
    span = {"ip": wanted.public_ip_id, "protocol": wanted.protocol, "first": wanted.port, "last": last}
    taken = session.execute(_TAKEN, span).first()
    if taken is not None:
        raise RuleConflict(
            f"Invalid parameter {PARAMETERS[wanted.purpose]} value={wanted.port}: the {wanted.purpose} for "
            f"{wanted.protocol} {ports_text(wanted.port, last)} conflicts with {taken.purpose} {taken.rule_uuid}, "
            f"which has port {taken.port} of the same public address: choose other ports, or delete that rule."
        )
    owner = {"public_ip_id": wanted.public_ip_id, "protocol": wanted.protocol}
    owner |= {"rule_uuid": wanted.rule_uuid, "purpose": wanted.purpose}
    if last == wanted.port:
        session.execute(insert(_claims).values(port=last, **owner))
        return
    port = select(literal(wanted.port).label("port")).cte(recursive=True)
    ports = port.union_all(select(port.c.port + 1).where(port.c.port < last))
    rows = select(ports.c.port, *(literal(value) for value in owner.values()))
    session.execute(insert(_claims).from_select(["port", *owner], rows))


def clear(session: Session, public_ip_id: int) -> None:
    """Free every port of an address."""
    session.execute(delete(PortClaim).where(PortClaim.public_ip_id == public_ip_id))


def give_up(session: Session, rule_uuid: str) -> None:
    """Free the ports that a rule has."""
    session.execute(delete(PortClaim).where(PortClaim.rule_uuid == rule_uuid))
