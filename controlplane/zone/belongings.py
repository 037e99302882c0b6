"""What an account has in this room, and how it is taken away with the account."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.identity import ownership
from controlplane.identity.accounts import Account
from controlplane.reconcile.targets import Target
from controlplane.zone.dedicated_vnets import DedicatedVnets


def free_dedicated_vnets(session: Session, account: Account) -> list[Target]:
    """Let everybody use again the VLANs and VNIs that were for the account only."""
    for row in session.scalars(select(DedicatedVnets).where(DedicatedVnets.account_id == account.id)):
        session.delete(row)
    return []


ownership.on_account_removed(free_dedicated_vnets)
