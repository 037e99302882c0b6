"""The control plane's vote: which of two redundant routers it backs while they do not hear one another.

A vote is a promise with an end, kept in the database, so that it outlives this process and binds all others. Its end
is a time of the database's clock, which is one for all control planes. That clock may be set; what this very process
promised is kept by a clock that nobody sets, too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.db.base import now
from controlplane.network import redundancy
from controlplane.network.redundancy import RouterPair
from controlplane.network.routers import Router
from controlplane.reconcile.door import on_vote
from controlplane.reconcile.targets import Target

LONGEST = 2000
"""Milliseconds of the longest promise."""
_promised: dict[str, tuple[str, float]] = {}


@on_vote
def vote(session: Session, agent_id: int, body: Mapping[str, Any]) -> dict[str, bool]:
    """Take votes back and give votes, for the routers of one host.

    :return: router's UUID → whether it has the vote.
    """
    for release in body["releases"]:
        _release(session, agent_id, str(release["owner"]), str(release["router"]), int(release["round"]))
    return {str(ask["router"]): _ask(session, agent_id, ask) for ask in body["asks"]}


def _pair(session: Session, agent_id: int, owner: str, router: str) -> tuple[RouterPair, Router] | None:
    """Return the pair with its lock, and the router that is one of it and lives on this agent's host."""
    pair = session.get(RouterPair, owner, with_for_update=True)
    mine = select(Router).join(Target, Router.target_id == Target.id).where(Target.agent_id == agent_id)
    found = session.scalar(mine.where(Router.uuid == router))
    if pair is None or found is None or found.whole.uuid != owner:
        return None
    return pair, found


def _release(session: Session, agent_id: int, owner: str, router: str, number: int) -> None:
    found = _pair(session, agent_id, owner, router)
    if found is not None and found[0].holder == router and found[0].round <= number:
        found[0].holder, found[0].until = "", None
        _promised.pop(owner, None)


def _ask(session: Session, agent_id: int, ask: Mapping[str, Any]) -> bool:
    owner, name = str(ask["owner"]), str(ask["router"])
    found = _pair(session, agent_id, owner, name)
    if found is None:
        return False
    pair, router = found
    if not redundancy.votes(router) or redundancy.roster(session, router) != ask["roster"]:
        return False
    if not redundancy.may_have_votes(session, router):
        return False
    length = min(int(ask["milliseconds"]), LONGEST) / 1000 * 16 / 15  # its clock may be slower than ours
    moment, ticks = _moment(session), time.monotonic()
    holder, end = _promised.get(owner, ("", 0.0))
    taken = pair.holder not in ("", name) and pair.until is not None and moment < pair.until
    if taken or (holder not in ("", name) and ticks < end):
        return False
    if pair.holder != name:
        pair.holder, pair.epoch, pair.until = name, pair.epoch + 1, None
    pair.until = max(pair.until or moment, moment + timedelta(seconds=length))
    pair.round = int(ask["round"])
    _promised[owner] = name, max(end if holder == name else 0.0, ticks + length)
    return True


def _moment(session: Session) -> datetime:
    """Return the present time by the clock that all control planes share."""
    if session.get_bind().dialect.name == "sqlite":  # which has one control plane, on its own machine
        return now()
    # not now(), which is the transaction's begin: it may have waited for the row since
    moment: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return moment
