"""Hosted targets: what has no agent is brought to its desired state by the control plane itself.

The same loop as an agent's: take the newest bundle, apply it, say what came of it; one at a time for each target.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy.orm import Session

from controlplane.db.session import Database
from controlplane.reconcile.bundles import Bundles, waiting
from controlplane.reconcile.observations import store
from controlplane.reconcile.targets import Target, settle
from controlplane.work.signals import signals
from drivers import registry
from drivers.protocol import Hosted as HostedDriver
from systemvm.bundle import Bundle, Failure, Outcome

log = logging.getLogger(__name__)
THREADS = 4
PAUSE = 10.0
"""Seconds after which the rows are asked even though nobody has called."""

Reach = Callable[[Session, Target], tuple[str, Mapping[str, str]]]
_reaches: dict[str, Reach] = {}


def reached_at(kind: str) -> Callable[[Reach], Reach]:
    """Register, as a decorator, the function that says where a target of this kind answers, and with which settings."""

    def register(reach: Reach) -> Reach:
        _reaches[kind] = reach
        return reach

    return register


class Hosted:
    """The loop of one process over the targets without an agent."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._bundles = Bundles(database)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="hosted")
        self._busy: set[int] = set()
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hosted", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, once what is being applied has been applied."""
        self._ending.set()
        self._woken.set()
        self._thread.join()
        self._pool.shutdown(cancel_futures=True)

    def _run(self) -> None:
        with signals.subscribed(["hosted"], self._woken.set):
            while not self._ending.is_set():
                self._woken.clear()
                try:
                    self._begin_what_waits()
                except Exception:
                    log.exception("The hosted targets could not be looked through; next try in %s s", PAUSE)
                self._woken.wait(PAUSE)

    def _begin_what_waits(self) -> None:
        with self._database.read() as session:
            wanted = waiting(session, None)
        for number, _, kind, _ in wanted:
            if not isinstance(registry.by_kind().get(kind), HostedDriver):
                continue
            with self._lock:
                if number in self._busy:
                    continue  # whoever is at it looks again when done
                self._busy.add(number)
            self._pool.submit(self._bring_about, number)

    def _bring_about(self, number: int) -> None:
        try:
            bundle = self._bundles.of(number)
            if bundle is not None:
                self._apply(number, bundle)
        except Exception:
            log.exception("Hosted target %s", number)
        finally:
            with self._lock:
                self._busy.discard(number)
            if not self._ending.is_set():
                self._woken.set()

    def _apply(self, number: int, bundle: Bundle) -> None:
        with self._database.read() as session:
            target = session.get(Target, number)
            if target is None:
                return
            driver = registry.by_kind()[target.applier or target.kind]
            assert isinstance(driver, HostedDriver)
            address, settings = _reaches[target.kind](session, target)
        seen = None
        try:
            outcome = driver.apply(address, settings, bundle)
            seen = driver.observe(address, settings, bundle)
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is what became of the bundle
            log.warning("%s failed: %s", bundle.name, error)
            failure = Failure("driver", f"{type(error).__name__}: {error}")
            outcome = Outcome(bundle.target, bundle.generation, bundle.digest, "failed", (failure,))
        with self._database.write() as session:
            target = session.get(Target, number)
            if target is None:
                return
            settle(session, target, outcome)
            if seen is not None and not bundle.absent:
                store(session, target, seen)


def start(database: Database) -> Callable[[], None]:
    """Begin the loop, and return how it is ended."""
    loop = Hosted(database)
    loop.start()
    return loop.stop
