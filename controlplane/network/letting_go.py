"""Letting go: an address that was given back, or that moves, is for the next one when no router answers for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, or_, select
from sqlalchemy.orm import Session, aliased

from controlplane.network.networks import Network, Whole
from controlplane.network.public_ips import ALLOCATED, ALLOCATING, FREE, RELEASING, PublicIp
from controlplane.network.public_nics import plug
from controlplane.network.routers import Router
from controlplane.network.vpcs import Vpc
from controlplane.reconcile.sweep import duty
from controlplane.reconcile.targets import Target, on_settled, touch


@on_settled("router")
def pass_on_released(session: Session, target: Target) -> None:
    """Pass on the addresses that a network's routers have let go of, once all of them stand at their newest state."""
    session.flush()
    left = session.scalars(_left(), {"target": target.id}).all()
    if left:
        _pass_on(session, left)


def _answers() -> ColumnElement[bool]:
    """Return the condition that a router has what an address is leaving: its network's part, or its VPC."""
    of_network = and_(PublicIp.network_id == Router.network_id, PublicIp.part == Router.part)
    released = or_(of_network, PublicIp.vpc_id == Router.vpc_id)
    moved = or_(PublicIp.left_network_id == Router.network_id, PublicIp.left_vpc_id == Router.vpc_id)
    return ((PublicIp.state == RELEASING) & released) | ((PublicIp.state == ALLOCATING) & moved)


@cache
def _left() -> Select[PublicIp]:
    """Return the query for what the network of a ``target`` has let go of: it is run with every outcome of a router."""
    other, its = aliased(Router), aliased(Target)
    same = or_(other.network_id == Router.network_id, other.vpc_id == Router.vpc_id)
    half = same, or_(other.part == Router.part, PublicIp.state == ALLOCATING), other.id != Router.id
    behind = its.applied_generation < its.desired_generation
    waits = exists().where(*half, other.dark.is_(False), its.id == other.target_id, behind)
    this = Router.target_id == bindparam("target"), Router.dark.is_(False)
    leaving = PublicIp.state.in_((RELEASING, ALLOCATING))
    return select(PublicIp).join(Router, _answers()).where(leaving, *this, ~waits)


@duty(30)
def pass_on_stranded(session: Session) -> None:
    """Pass on the addresses whose router is gone without having said that it let go of them."""
    answering = exists().where(_answers(), Router.target_id.is_not(None))
    stranded = select(PublicIp).where(PublicIp.state.in_((RELEASING, ALLOCATING)), ~answering)
    _pass_on(session, session.scalars(stranded).all())


def _pass_on(session: Session, ips: Sequence[PublicIp]) -> None:
    """Free what was given back, and have its new network's routers answer for what moves."""
    touched: list[Target] = []
    left: set[Whole] = set()
    for ip in ips:
        left |= {_whole(session, ip)}
        if ip.state == RELEASING:
            ip.state, ip.network_id, ip.vpc_id, ip.part = FREE, None, None, ""
        else:
            ip.state, ip.left_network_id, ip.left_vpc_id = ALLOCATED, None, None
            touched += ip.targets(session)
    for whole in left:
        touched += plug(session, whole)
    if touched:
        touch(session, touched)


def _whole(session: Session, ip: PublicIp) -> Whole:
    """Return what the address leaves."""
    moving = ip.state == ALLOCATING
    vpc, network = (ip.left_vpc_id, ip.left_network_id) if moving else (ip.vpc_id, ip.network_id)
    return session.get_one(Vpc, vpc) if vpc is not None else session.get_one(Network, network)
