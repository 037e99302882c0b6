"""The ports of IKE on a public address: taken by the first VPN there, given up by the last one.

A VPN gateway and a remote access VPN share them, because one daemon serves both.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from controlplane.errors import RuleConflict
from controlplane.network.claims import PortClaim, claim, give_up
from controlplane.network.public_ips import PublicIp

VPN = "VPN"
PORTS = (500, 4500)
"""IKE, and IKE with ESP through NAT (RFC 7296)."""
L2TP = 1701
"""L2TP in ESP (RFC 3193): taken besides for remote access, and opened to nobody."""

Holder = Callable[[Session, PublicIp], bool]
_holders: list[Holder] = []


def holds_ports(holder: Holder) -> Holder:
    """Register, as a decorator, what tells whether some kind of VPN is on an address."""
    _holders.append(holder)
    return holder


def hold(session: Session, ip: PublicIp, *more: int) -> None:
    """Take the ports for a VPN.

    :param more: ports besides IKE's.

    :raises RuleConflict: a rule has one of them, or static NAT takes the address whole.
    """
    if ip.static_nat:
        raise RuleConflict(
            f"Public address {ip.address} has static NAT to {ip.nic_address}, which takes it whole: "
            "a VPN needs another address, or static NAT disabled."
        )
    on_it = PortClaim.public_ip_id == ip.id, PortClaim.protocol == "udp", PortClaim.port.in_(PORTS + more)
    there = session.scalars(select(PortClaim).where(*on_it).order_by(PortClaim.port)).all()
    for other in there:
        if other.rule_uuid != ip.uuid:
            raise RuleConflict(
                f"Public address {ip.address} has {other.purpose} {other.rule_uuid} on UDP port {other.port}, which a "
                "VPN needs: choose another address, or delete that rule."
            )
    for port in sorted({*PORTS, *more} - {other.port for other in there}):
        wanted = PortClaim(public_ip_id=ip.id, protocol="udp", port=port, rule_uuid=ip.uuid, purpose=VPN)
        claim(session, wanted, port)


def let_go(session: Session, ip: PublicIp, *more: int) -> None:
    """Give the ports up unless another VPN is on the address; the rows of the one that goes are gone already.

    :param more: ports that the one that goes had besides IKE's.
    """
    session.flush()
    session.execute(delete(PortClaim).where(PortClaim.rule_uuid == ip.uuid, PortClaim.port.in_(more)))
    if not any(holder(session, ip) for holder in _holders):
        give_up(session, ip.uuid)
