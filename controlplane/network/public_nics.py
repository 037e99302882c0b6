"""Public interfaces of routers that are there already: they follow the VLANs of the addresses."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.network.implement import ensure_public_nics, routers_of
from controlplane.network.networks import Whole
from controlplane.network.nics import Nic
from controlplane.reconcile.targets import Target


def plug(session: Session, whole: Whole) -> list[Target]:
    """Give the routers an interface on each VLAN of the addresses, and no other.

    :return: what they are on, where anything has changed.
    """
    routers = [router for router in routers_of(session, whole) if router.target_id is not None]
    if not routers:
        return []
    theirs = select(Nic.id).where(Nic.router_id.in_([router.id for router in routers]))
    before = set(session.scalars(theirs))
    ensure_public_nics(session, whole)
    if set(session.scalars(theirs)) == before:
        return []
    return [target for router in routers for target in router.targets(session)]
