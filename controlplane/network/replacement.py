"""Replacement: a new router is made and checked in the dark, takes over, and the old one is removed.

The old router serves until the new one stands at the newest state without a failure; then, in one transaction, the
interfaces become the new one's and the old one is retired. On the same host the agent moves cables and connections
(:mod:`systemvm.services.handover`); from one host to another the old one's cables are drawn first. So whoever dies
whenever, one of the two is the one that serves, and what was left undone is found by the duties below. Rules may be
changed all the while: they reach both.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session, aliased

from controlplane.compute import placement
from controlplane.db.base import new_uuid, now
from controlplane.db.configuration import define
from controlplane.errors import ApiError, Unavailable
from controlplane.network import implement, shells
from controlplane.network.load_balancers import LoadBalancer
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.routers import Router
from controlplane.reconcile import targets
from controlplane.reconcile.observations import on_observation
from controlplane.reconcile.sweep import duty
from controlplane.reconcile.targets import Target
from controlplane.work.workflows import Flow
from drivers import registry
from systemvm.bundle import Observation

DRAIN = define(
    "router.drain.seconds",
    60,
    "Seconds that a router which was replaced keeps the connections that its load balancer had accepted",
    category="Network",
    within=(0, 3600),
)
SWEEP, STRANDED = 5, timedelta(minutes=10)
"""Seconds between two looks for retired routers; how long a router may stand in the dark."""
Waits = list[tuple[int, int]]


def replace(flow: Flow, uuid: str, *, keep: bool = False) -> None:
    """Have another router take the place of this one; each step may be repeated.

    :param keep: the new one has the id and the name of the old one from then on.
    :raises ApiError: the new one could not be made, or not be checked: the old one goes on serving.
    """
    try:
        flow.wait(flow.step(prepare, uuid, keep))
        flow.step(check, uuid)
        flow.wait(flow.step(unplug, uuid))
    except ApiError:
        flow.wait(flow.step(give_up, uuid))
        raise
    flow.wait(flow.step(cut_over, uuid, keep))
    flow.wait(flow.step(finish, uuid))


def prepare(session: Session, uuid: str, keep: bool = False) -> Waits:
    """Have the new router made, with its interfaces in no segment: on the old one's host, unless that takes no more."""
    old = router_of(session, uuid)
    if not _serves(old) or old.target_id is None:
        return []
    heir = heir_of(session, old)
    if heir is None:
        heir = implement.add_router(session, old.whole, old.provider, like=old)
        heir.replaces_id, heir.dark = old.id, True
        heir.name = f"{old.name}-{heir.id}" if keep else heir.name  # its shell keeps this one
        stays = old.host is not None and placement.takes_routers(session, old.host)
        implement.place(session, heir, old.host if stays and old.host else implement.choose_host(session, heir))
    return targets.touch(session, list(heir.targets(session)))


def check(session: Session, uuid: str) -> None:
    """See that the new router stands where it should, with nothing that could not be brought about.

    :raises Unavailable: it does not; the sentence says why.
    """
    heir = heir_of(session, router_of(session, uuid))
    if heir is None:
        return
    for target in heir.targets(session):
        reason = target.failures.get(_target_uuid(heir)) if target.id != heir.target_id else target.reason
        behind = target.applied_generation < target.settled_generation
        if reason or behind:
            raise Unavailable(
                f"The new router {heir.name} could not be made, and the old one goes on serving. "
                f"{reason or f'{target.name} kept its former configuration: {target.reason}'}"
            )


def unplug(session: Session, uuid: str) -> Waits:
    """Draw the old router's cables where the new one is on another host: both are never in their segments."""
    old = router_of(session, uuid)
    heir = heir_of(session, old)
    if heir is None or heir.host_id == old.host_id or not _serves(old):
        return []
    old.dark = True
    session.flush()
    return targets.touch(session, _hosts(session, old))


def cut_over(session: Session, uuid: str, keep: bool = False) -> Waits:
    """Give the interfaces to the new router and retire the old one, or have the new one go where the old one did.

    The old one may have been stopped or destroyed meanwhile, with its network or by itself: then that is what counts.
    """
    old = replaced(session, uuid)
    heir = heir_of(session, old)
    if heir is None or not heir.running:
        return []
    if not old.retired and (not old.running or old.removed is not None):
        return give_up(session, uuid)
    if not old.retired:
        session.execute(update(Nic).where(Nic.router_id == old.id).values(router_id=heir.id))
        shells.unlink(session, heir)
        heir.dark, heir.state = False, "Running"
        old.dark, old.state, old.retired = True, "Stopping", now()
        session.flush()
        if keep:
            _exchange_identities(session, old, heir)
    return targets.touch(session, [*_hosts(session, old), *_hosts(session, heir)])


def _exchange_identities(session: Session, old: Router, heir: Router) -> None:
    """Give the id, the name and the age of the old router to the one that took its place."""
    known = old.uuid, old.name, old.created
    old.uuid, old.name, old.created = new_uuid(), f"{old.name}-old", heir.created
    session.flush()
    heir.uuid, heir.name, heir.created = known
    session.flush()


def finish(session: Session, uuid: str) -> Waits:
    """Have the retired router removed, unless connections may end at itself: then that is done once they have ended.

    :raises Unavailable: the new one could not take over yet; it is tried again by its host.
    """
    old = replaced(session, uuid)
    heir = heir_of(session, old)
    if heir is not None:
        for host in _hosts(session, heir):
            if reason := host.failures.get(_target_uuid(heir)):
                raise Unavailable(f"{reason.rstrip('.')}. Host {host.name} tries again until it can.")
    if old.retired is None or old.removed is not None or _drains(session, old):
        return []
    return targets.touch(session, implement.remove_router(session, old))


def give_up(session: Session, uuid: str) -> Waits:
    """Have the new router removed, and the old one serve on."""
    old = router_of(session, uuid)
    heir = heir_of(session, old)
    if heir is None or old.retired is not None:
        return []
    touched = implement.remove_router(session, heir)
    if old.dark and old.removed is None:
        old.dark = False
        session.flush()
        touched += _hosts(session, old)
    return targets.touch(session, touched)


def router_of(session: Session, uuid: str) -> Router:
    """Return the router, removed or not."""
    return session.scalars(select(Router).where(Router.uuid == uuid)).one()


def replaced(session: Session, uuid: str) -> Router:
    """Return the router that is replaced: the one that has this id, or had it until its successor got it."""
    router = router_of(session, uuid)
    if router.replaces_id is None or heir_of(session, router) is not None:
        return router
    return session.get_one(Router, router.replaces_id)


def heir_of(session: Session, old: Router) -> Router | None:
    """Return the router that takes this one's place, or has taken it."""
    return session.scalar(select(Router).where(Router.replaces_id == old.id, Router.removed.is_(None)))


def _serves(router: Router) -> bool:
    return router.running and router.removed is None and router.retired is None


def _hosts(session: Session, router: Router) -> list[Target]:
    """Return the target of the router's host, without the router's own."""
    return [target for target in router.targets(session) if target.id != router.target_id]


def _target_uuid(router: Router) -> str:
    assert router.target is not None
    return router.target.uuid


def _drains(session: Session, router: Router) -> bool:
    """Tell whether the router's load balancer may have connections yet: not where it could not be drained anyway."""
    heir = heir_of(session, router)
    if heir is None or heir.host_id != router.host_id:
        return False
    if router.network is not None and router.network.offering.elastic_lb and not router.balances:
        return False  # others balance
    balanced = LoadBalancer.network_id == router.network_id
    if router.vpc_id is not None:
        balanced = LoadBalancer.network_id.in_(select(Network.id).where(Network.vpc_id == router.vpc_id))
    return session.scalar(select(LoadBalancer.id).where(balanced).limit(1)) is not None


def _see_drained(session: Session, target: Target, observation: Observation) -> None:
    """Remove the retired routers of a host whose last connections have ended."""
    del target
    drained = [unit for unit, state in observation.states if state == "drained"]
    query = select(Router).join(Target, Router.target_id == Target.id).where(Target.uuid.in_(drained))
    over = Router.retired.is_not(None), Router.removed.is_(None)
    for router in session.scalars(query.where(*over)) if drained else ():
        targets.touch(session, implement.remove_router(session, router))


for _kind in sorted({driver.kind for driver in registry.hypervisors().values()}):
    on_observation(_kind)(_see_drained)


@duty(SWEEP)
def remove_retired_routers(session: Session) -> None:
    """Remove the retired routers whose time is over, connections or not."""
    latest = now() - timedelta(seconds=DRAIN.number(session))
    query = select(Router).where(Router.retired < latest, Router.removed.is_(None))
    for router in session.scalars(query.with_for_update(of=Router)):
        targets.touch(session, implement.remove_router(session, router))


@duty(60)
def remove_stranded_routers(session: Session) -> None:
    """Give up the replacements that nobody works on any more: the old router serves on."""
    old = aliased(Router)
    query = select(old.uuid).join(Router, Router.replaces_id == old.id)
    waiting = Router.dark, Router.retired.is_(None), Router.removed.is_(None), Router.created < now() - STRANDED
    for uuid in session.scalars(query.where(*waiting)).all():
        give_up(session, uuid)
