"""The agent's loop: pull what is wanted, apply it, tell what came of it, and watch what is in force.

Pulling never waits for work: what is being worked on is named as held, so one slow target delays no other. Each target
has one worker at a time, which takes the newest bundle for it when it is free: a burst of changes becomes one apply.
An outcome is repeated until the control plane took it; a failed bundle is tried again, ever more slowly.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from systemvm import tree
from systemvm.apply import Applier
from systemvm.bundle import Bundle, Observation, Outcome
from systemvm.door import Closed, Door

_log = logging.getLogger(__name__)
_WORKERS = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_FIRST_RETRY, _LONGEST_RETRY = 1.0, 60.0
_LARGE, _MOST_BASES = 200, 100
"""Elements from which on only differences are asked for, and of how many targets: their digests are in the URL."""
_REST = 3
"""A round of repairs that took a second is followed by a rest of this many."""


@dataclass
class _Work:
    """What is known of the work on one target.

    :param bundle: the newest that was pulled for it, until its outcome was taken.
    :param running: a worker has it.
    :param retry: when a failed bundle is tried again, by the monotonic clock; 0 is never.
    :param delay: seconds before the next try.
    """

    bundle: Bundle | None = None
    running: bool = False
    retry: float = 0.0
    delay: float = _FIRST_RETRY
    told: Outcome | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Agent:
    """The agent of one host."""

    def __init__(
        self, door: Door, applier: Applier, inventory: Mapping[str, object], host: str, observe_every: float
    ) -> None:
        """Prepare; :meth:`run` begins.

        :param observe_every: seconds between two observations.
        """
        self._door, self._applier, self._inventory, self._host = door, applier, inventory, host
        self._observe_every = observe_every
        self._work: dict[str, _Work] = {}
        self._lock = threading.Lock()
        self._outcomes: list[Outcome] = []
        self._news = threading.Condition(self._lock)
        self._ending = threading.Event()
        self._pool = ThreadPoolExecutor(_WORKERS, "apply")
        self._repaired: dict[str, dict[str, str]] = {}

    def stop(self) -> None:
        """Stop pulling; everything that was brought about goes on."""
        self._ending.set()
        self._door.close()
        with self._news:
            self._news.notify_all()

    def run(self) -> None:
        """Work until :meth:`stop`."""
        for held in self._applier.ledger:
            self._applier.repair_torn(held)
        threads = [threading.Thread(target=loop, daemon=True) for loop in (self._tell, self._watch, self._try_again)]
        for thread in threads:
            thread.start()
        self._pull()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for thread in threads:
            thread.join(5)

    def _persist(self, call: Callable[[], object], *, unknown: bool) -> bool:
        """Repeat a call until the control plane takes it; False when the agent ends first.

        :param unknown: go on even when it says that it does not know this host.
        """
        pause = _FIRST_PAUSE
        while not self._ending.is_set():
            try:
                call()
            except Closed as closed:
                if self._ending.is_set() or (closed.unknown and not unknown):
                    return False
                _log.log(logging.INFO if pause == _FIRST_PAUSE else logging.DEBUG, "%s", closed)
                self._ending.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                return True
        return False

    def _hello(self) -> bool:
        standing = self._applier.ledger.standing
        return self._persist(lambda: self._door.hello(self._host, standing(), self._inventory), unknown=True)

    def _pull(self) -> None:
        while self._hello():
            try:
                while not self._ending.is_set():
                    pull = self._door.pull(self._holding(), self._bases())
                    self._report(pull.refused)
                    self._take(pull.bundles, pull.known)
                    if pull.refused:
                        self._ending.wait(_LONGEST_PAUSE)  # it would be sent again at once
            except Closed as closed:
                if not self._ending.is_set():
                    _log.info("%s", closed)
                    self._ending.wait(_FIRST_PAUSE)

    def _holding(self) -> dict[str, int]:
        with self._lock:
            return {target: work.bundle.generation for target, work in self._work.items() if work.bundle}

    def _bases(self) -> dict[str, Bundle]:
        """Return the newest bundles that are here and large enough for a difference to be worth the asking."""
        here = {held.target: held for held in self._applier.ledger}
        with self._lock:
            here |= {target: work.bundle for target, work in self._work.items() if work.bundle}
        large = [held for held in here.values() if sum(len(each.items) for each in held.elements) >= _LARGE]
        return {held.target: held for held in large[:_MOST_BASES]}

    def _take(self, bundles: Sequence[Bundle], known: frozenset[str]) -> None:
        """Set the workers to what was pulled: a host before what lives on it, but after it when it is taken down."""
        ledger = self._applier.ledger
        strays = [held for held in (*ledger, *ledger.doubtful) if held.target not in known]
        gone = [Bundle(held.target, held.name, held.kind, held.generation, absent=True) for held in strays]
        first = [bundle for bundle in bundles if bundle.kind == "host" and not bundle.absent]
        rest = [bundle for bundle in (*bundles, *gone) if bundle not in first]
        rest.sort(key=lambda bundle: (bundle.kind == "host", bundle.generation))
        with self._lock:
            fresh = [bundle for bundle in (*first, *rest) if self._accept(bundle)]
        begun = [bundle for bundle in fresh if bundle in first]
        others = [bundle for bundle in fresh if bundle not in first]
        if begun:
            self._submit(lambda: self._hosts_then(begun, others))
        else:
            self._spread(others)

    def _accept(self, bundle: Bundle) -> bool:
        """Note the newest bundle of a target; return whether a worker must be set to it."""
        work = self._work.setdefault(bundle.target, _Work())
        if work.bundle and work.bundle.generation >= bundle.generation and not bundle.absent:
            return False
        work.bundle, work.retry, work.delay = bundle, 0.0, _FIRST_RETRY
        if work.running:
            return False
        work.running = True
        return True

    def _submit(self, call: Callable[[], None]) -> None:
        if not self._ending.is_set():
            self._pool.submit(self._guarded, call)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:  # noqa: BLE001 - the loop goes on
            _log.exception("A worker failed")

    def _hosts_then(self, hosts: Sequence[Bundle], others: Sequence[Bundle]) -> None:
        for bundle in hosts:
            self._guarded(lambda target=bundle.target: self._work_on(target))  # type: ignore[misc]
        self._spread(others)

    def _spread(self, bundles: Sequence[Bundle]) -> None:
        """Give each target to a worker; a host that is taken down waits for what lives on it."""
        last = [bundle for bundle in bundles if bundle.kind == "host" and bundle.absent]
        for bundle in bundles:
            if bundle not in last:
                self._submit(lambda target=bundle.target: self._work_on(target))  # type: ignore[misc]
        if last:
            waited = [self._work[bundle.target].lock for bundle in bundles if bundle not in last]
            self._submit(lambda: self._after(waited, last))

    def _after(self, locks: Sequence[threading.Lock], bundles: Sequence[Bundle]) -> None:
        for lock in locks:
            with lock:
                pass
        for bundle in bundles:
            self._work_on(bundle.target)

    def _work_on(self, target: str) -> None:
        """Apply the newest bundle of a target, until there is none newer."""
        work = self._work[target]
        while True:
            with self._lock:
                bundle = work.bundle
            if bundle is None or self._ending.is_set():
                work.running = False
                return
            with work.lock:
                if bundle.absent:
                    self._read_last(target)
                outcome = self._applier.apply(bundle)
            _log.info("%s generation %d: %s in %.3f s", bundle.name, bundle.generation, outcome.status, outcome.seconds)
            for failure in outcome.failures:
                _log.warning("%s: %s", bundle.name, failure.reason)
            with self._lock:
                if work.bundle is bundle:
                    self._finish(work, outcome)
                    work.running = False
                    return
                self._outcomes.append(outcome)
                self._news.notify_all()

    def _read_last(self, target: str) -> None:
        """Tell what a target has counted before it is taken down: nobody could later."""
        held = self._applier.ledger.get(target)
        if held is None:
            return
        try:
            self._door.observe([self._read_back(held)])
        except Exception as error:  # noqa: BLE001 - a last reading is no reason to keep it
            _log.info("%s: its last counters are lost: %s", held.name, error)

    def _finish(self, work: _Work, outcome: Outcome) -> None:
        if outcome.status in ("failed", "refused"):
            work.retry = time.monotonic() + work.delay if outcome.status == "failed" else 0.0
            work.delay = min(work.delay * 2, _LONGEST_RETRY)
        told = work.told
        if told and (told.generation, told.status, told.failures) == (
            outcome.generation,
            outcome.status,
            outcome.failures,
        ):
            return  # a further try that failed as the one before is no news
        work.told = outcome
        self._outcomes.append(outcome)
        self._news.notify_all()

    def _report(self, outcomes: Sequence[Outcome]) -> None:
        with self._news:
            self._outcomes += outcomes
            self._news.notify_all()

    def _tell(self) -> None:
        """Deliver outcomes, in order; what was brought about is held until it was taken."""
        while not self._ending.is_set():
            with self._news:
                while not self._outcomes and not self._ending.is_set():
                    self._news.wait()
                batch = tuple(self._outcomes)
            if batch and self._persist(lambda batch=batch: self._door.outcome(batch), unknown=True):  # type: ignore[misc]
                with self._lock:
                    del self._outcomes[: len(batch)]
                    for outcome in batch:
                        self._release(outcome)

    def _release(self, outcome: Outcome) -> None:
        work = self._work.get(outcome.target)
        if work is None or work.running or work.bundle is None or outcome.status not in ("applied", "unchanged"):
            return
        if work.bundle.generation <= outcome.generation:
            work.bundle, work.told, work.delay = None, None, _FIRST_RETRY

    def _try_again(self) -> None:
        while not self._ending.wait(0.25):
            now = time.monotonic()
            with self._lock:
                due = [
                    target
                    for target, work in self._work.items()
                    if work.retry and work.retry <= now and not work.running
                ]
                for target in due:
                    self._work[target].running, self._work[target].retry = True, 0.0
            for target in due:
                self._submit(lambda target=target: self._work_on(target))  # type: ignore[misc]

    def _watch(self) -> None:
        """Repair and read back every target, again and again; a target that is being worked on is left for later."""
        observed = 0.0
        while not self._ending.is_set():
            began = time.monotonic()
            for held in self._applier.ledger:
                self._with_target(held, self._repair)
            if began - observed >= self._observe_every:
                observed = began
                seen = [found for held in self._applier.ledger if (found := self._with_target(held, self._read_back))]
                try:
                    if seen:
                        self._door.observe(seen)
                        self._repaired.clear()
                except Closed as closed:
                    _log.debug("%s", closed)
            spent = time.monotonic() - began
            self._ending.wait(max(min(self._observe_every, 2.0) - spent, spent * _REST))

    def _with_target(self, held: Bundle, call: Callable[[Bundle], Observation | None]) -> Observation | None:
        with self._lock:
            work = self._work.setdefault(held.target, _Work())
        if self._ending.is_set() or not work.lock.acquire(blocking=False):
            return None
        try:
            now = self._applier.ledger.get(held.target)
            return call(now) if now else None
        except Exception:  # noqa: BLE001 - the loop goes on
            _log.exception("%s could not be watched", held.name)
            return None
        finally:
            work.lock.release()

    def _repair(self, held: Bundle) -> None:
        if tree.torn(self._applier.place(held)):
            self._applier.repair_torn(held)
        for service, what in self._applier.ensure(held):
            _log.warning("%s: %s: %s", held.name, service, what)
            said = self._repaired.setdefault(held.target, {})
            said[service] = f"{said[service]}; {what}" if service in said else what

    def _read_back(self, held: Bundle) -> Observation:
        seen = self._applier.observe(held)
        repaired = self._repaired.get(held.target, {})
        health = dict(seen.health) | {f"{name}/repaired": what for name, what in repaired.items()}
        return Observation(seen.target, tuple(sorted(health.items())), seen.counters, seen.states)
