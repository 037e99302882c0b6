"""Signals: a commit wakes whoever waits for it, in threads and on the event loop of this process.

A signal carries nothing: whoever is woken reads the rows again. A lost one costs a moment, never a change, because
every wait also ends by itself.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Wake = Callable[[], object]


class Signals:
    """Named signals of one process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # close() may interrupt the thread that holds it
        self.closing = False
        self._waiting: dict[str, set[Wake]] = defaultdict(set)

    def notify(self, name: str) -> None:
        """Wake all who wait for this name."""
        with self._lock:
            wakes = tuple(self._waiting.get(name, ()))
        for wake in wakes:
            wake()

    def close(self) -> None:
        """Wake everybody for good: the process is about to end, and nobody should wait any longer."""
        self.closing = True
        with self._lock:
            names = tuple(self._waiting)
        for name in names:
            self.notify(name)

    @contextmanager
    def subscribed(self, names: list[str], wake: Wake) -> Iterator[None]:
        """Have ``wake`` called at each of these names for the length of the block; it must not block."""
        with self._lock:
            for name in names:
                self._waiting[name].add(wake)
        try:
            yield
        finally:
            with self._lock:
                for name in names:
                    self._waiting[name].discard(wake)
                    if not self._waiting[name]:
                        del self._waiting[name]

    def wait(self, names: list[str], ready: Callable[[], bool], seconds: float) -> bool:
        """Block until ``ready`` says so, asking it again at each signal and once a second.

        :return: False when the time ran out first.
        """
        woken = threading.Event()
        with self.subscribed(names, woken.set):
            left = seconds
            while not ready():
                if left <= 0:
                    return False
                woken.wait(min(1.0, left))
                left -= 1.0 if not woken.is_set() else 0.01
                woken.clear()
        return True


signals = Signals()
"""The one of this process."""
