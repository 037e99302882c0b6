"""What a fresh cloud has in this room: ACL lists that are everybody's, and the authority of its VPN servers."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.network.acls import DEFAULT_ALLOW, DEFAULT_DENY, EGRESS, INGRESS, AclItem, AclList
from controlplane.network.rule_text import EVERYONE, EVERYONE6
from controlplane.network.vpn_authority import ensure_authority

LISTS = {
    DEFAULT_DENY: ("Default Network ACL Deny All", False),
    DEFAULT_ALLOW: ("Default Network ACL Allow All", True),
}


def fill(session: Session) -> None:
    """Put in what is missing."""
    ensure_authority(session)
    known = set(session.scalars(select(AclList.name).where(AclList.vpc_id.is_(None))))
    for name, (description, allow) in LISTS.items():
        if name in known:
            continue
        acl = AclList(name=name, description=description)
        session.add(acl)
        session.flush()
        for number, traffic in enumerate((INGRESS, EGRESS), start=1):
            item = AclItem(list_id=acl.id, number=number, traffic=traffic, allow=allow, protocol="all")
            item.cidrs = [EVERYONE, EVERYONE6]
            session.add(item)
