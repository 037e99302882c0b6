"""What an operator is told of routers: the rules that had to be left out."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.events.alerts import ROUTER, clear_alert, raise_alert
from controlplane.network.routers import Router
from controlplane.reconcile.targets import Target, on_refused


@on_refused("router")
def tell_what_is_left_out(session: Session, target: Target) -> None:
    """Raise an alert that names each rule that the router is without, or clear it when there is none any more."""
    zone = session.scalar(select(Router.zone_id).where(Router.target_id == target.id))
    subject = f"Router {target.name} is without some of its rules"
    if target.refused:
        raise_alert(session, ROUTER, subject, f"{subject}. {' '.join(target.refused.values())}"[:5000], zone=zone)
    else:
        clear_alert(session, ROUTER, subject, zone=zone)
