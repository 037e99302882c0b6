"""What a fresh cloud has in this room: the certificate authority of its VPN servers."""

from __future__ import annotations

from sqlalchemy.orm import Session

from controlplane.network.vpn_authority import ensure_authority


def fill(session: Session) -> None:
    """Make it, once."""
    ensure_authority(session)
