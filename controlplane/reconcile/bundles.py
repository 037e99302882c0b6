"""Bundles: facts → plan → render, for one target at its desired generation."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import cast

from sqlalchemy import Table, bindparam, case, select
from sqlalchemy.orm import Session

from controlplane.db.session import Database
from controlplane.reconcile.targets import Target, load_facts, refuse, settle
from drivers import registry
from drivers.protocol import Rendered
from drivers.quarantine import plan_around
from drivers.vocabulary import ApplianceFacts
from systemvm.bundle import Bundle, Failure, Outcome

log = logging.getLogger(__name__)
KEPT = 64


class Bundles:
    """The newest bundles of this process, so that asking again costs nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._newest: OrderedDict[tuple[int, int], Bundle] = OrderedDict()

    def of(self, target_id: int) -> Bundle | None:
        """Return the bundle of the target's desired generation.

        :return: None when the target is gone, or when its facts cannot be planned: that outcome is then stored.
        """
        with self._database.read() as session:
            target = session.get(Target, target_id)
            if target is None:
                return None
            key = target.id, target.desired_generation
            with self._lock:
                if key in self._newest:
                    return self._newest[key]
            try:
                bundle, refused = make(session, target)
            except Exception as error:
                # whatever it is, the other targets of the same pull have nothing to do with it
                log.exception("Cannot plan %s at generation %s", target.name, target.desired_generation)
                problem = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                bundle = None
        if bundle is None:
            self._refuse(target, problem)
            return None
        if refused != target.refused:
            self._name(target, refused)
        self._keep(key, bundle)
        return bundle

    def known(self, digests: Iterable[str]) -> dict[str, Bundle]:
        """Return the bundles of these digests, as far as they are known here, by their target's UUID."""
        wanted = set(digests)
        with self._lock:
            return {bundle.target: bundle for bundle in self._newest.values() if bundle.digest in wanted}

    def _keep(self, key: tuple[int, int], bundle: Bundle) -> None:
        with self._lock:
            self._newest[key] = bundle
            while len(self._newest) > KEPT:
                self._newest.popitem(last=False)

    def _name(self, planned: Target, refused: dict[str, str]) -> None:
        log.error("%s is left without: %s", planned.name, " ".join(refused.values()) or "nothing any more")
        with self._database.write() as session:
            target = session.get(Target, planned.id)
            if target is not None:
                refuse(session, target, refused)

    def _refuse(self, planned: Target, problem: str) -> None:
        failures = (Failure("plan", problem),)
        outcome = Outcome(planned.uuid, planned.desired_generation, "", "failed", failures)
        with self._database.write() as session:
            target = session.get(Target, planned.id)
            if target is not None:
                settle(session, target, outcome)


def make(session: Session, target: Target) -> tuple[Bundle, dict[str, str]]:
    """Make the bundle that the rows, as this session sees them, mean.

    :return: the bundle, and what it had to leave out: UUID → why.
    :raises ValueError: the driver cannot do what the rows ask for.
    """
    if target.absent:
        return Bundle(target.uuid, target.name, target.kind, target.desired_generation, absent=True), {}
    driver = registry.by_kind()[target.kind]

    def write(facts: ApplianceFacts) -> Rendered:
        return driver.render(driver.plan(facts))  # type: ignore[arg-type]

    facts = load_facts(session, target)
    refused: dict[str, str] = {}
    if isinstance(facts, ApplianceFacts):
        (files, elements), refused = plan_around(write, facts, target.refused)
    else:
        config = driver.plan(facts)  # type: ignore[arg-type]
        files, elements = driver.render(config)
        refused = dict(getattr(config, "refused", ()))
    return Bundle(target.uuid, target.name, target.kind, target.desired_generation, files, elements), refused


def waiting(session: Session, agent_id: int | None) -> list[tuple[int, str, str, int]]:
    """Return (number, uuid, applier's kind, generation) of the targets whose desired generation has no outcome yet."""
    found = session.execute(_WAITING, {"agent": agent_id}) if agent_id else session.execute(_HOSTED)
    return [(row[0], row[1], row[2], row[3]) for row in found]


_target = cast("Table", Target.__table__).c
_APPLIER = case((_target.applier != "", _target.applier), else_=_target.kind)
_UNSETTLED = (  # built once: it is asked with every change
    select(_target.id, _target.uuid, _APPLIER, _target.desired_generation)
    .where(_target.desired_generation > _target.applied_generation)
    .where(_target.desired_generation > _target.failed_generation)
    .order_by(_target.id)
)
_WAITING = _UNSETTLED.where(_target.agent_id == bindparam("agent"))
_HOSTED = _UNSETTLED.where(_target.agent_id.is_(None))
