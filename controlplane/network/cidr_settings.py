"""Settings that are lists of IPv4 CIDRs; what is none in them stops no router."""

from __future__ import annotations

import logging
from ipaddress import IPv4Network

from sqlalchemy.orm import Session

from controlplane.db.configuration import Setting

log = logging.getLogger(__name__)


def cidrs_in(session: Session, setting: Setting, zone_id: int) -> list[str]:
    """Return the CIDRs that a setting has in a zone, as an operator wrote them; the others are logged."""
    blocks = [text.strip() for text in setting.text(session, zone=zone_id).split(",") if text.strip()]
    good = [block for block in blocks if _is_cidr(block)]
    if len(good) < len(blocks):
        log.warning("The setting %s has %s, which is no IPv4 CIDR", setting.name, sorted(set(blocks) - set(good)))
    return good


def _is_cidr(text: str) -> bool:
    try:
        IPv4Network(text, strict=False)
    except ValueError:
        return False
    return True
