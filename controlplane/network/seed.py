"""What a cloud has in this room: everybody's ACL lists, its VPN servers' authority, each account's default group."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.identity.accounts import Account
from controlplane.identity.privilege import SYSTEM
from controlplane.network.acls import DEFAULT_ALLOW, DEFAULT_DENY, EGRESS, INGRESS, AclItem, AclList
from controlplane.network.rule_text import EVERYONE, EVERYONE6
from controlplane.network.security_groups import default_group
from controlplane.network.vpn_authority import ensure_authority

LISTS = {
    DEFAULT_DENY: ("Default Network ACL Deny All", False),
    DEFAULT_ALLOW: ("Default Network ACL Allow All", True),
}


def fill(session: Session) -> None:
    """Put in what is missing."""
    ensure_authority(session)
    for account in session.scalars(select(Account).where(Account.removed.is_(None), Account.name != SYSTEM)).all():
        default_group(session, account)
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
