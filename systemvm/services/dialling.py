"""Dialling: bringing up the connections that this side is to initiate, again and again, without anybody waiting.

An attempt that the peer refuses leaves its reason, in the daemon's own words, until the connection is up.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vici.exception import CommandException, SessionException

from systemvm.services.charon import Charon, text

_log = logging.getLogger(__name__)
_AT_ONCE = threading.BoundedSemaphore(8)
_PATIENCE = 8000
"""Milliseconds that an attempt is listened to; the daemon itself goes on with it."""
_FIRST, _LONGEST = 1.0, 15.0
_OWN = "establishing ", "parsed ", "generating "
_TELLING = re.compile(r"error|fail|refus|no .*found|unacceptable|mismatch", re.IGNORECASE)


@dataclass
class _Attempt:
    """What is known of one connection that is down."""

    running: bool = False
    reason: str = ""
    delay: float = _FIRST
    due: float = 0.0


class Dialling:
    """The attempts of all targets of this agent."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[Path, str], _Attempt] = {}
        self._lock = threading.Lock()

    def keep(self, charon: Charon, name: str, children: Sequence[str]) -> None:
        """Have these children of a connection brought up; none means that it is up, or on its way."""
        with self._lock:
            attempt = self._attempts.setdefault((charon.place.folder, name), _Attempt())
            if attempt.running:
                return
            if not children:
                self._attempts[charon.place.folder, name] = _Attempt()
                return
            if time.monotonic() < attempt.due:
                return
            attempt.running = True
        # a daemon thread: an agent that ends waits for no peer
        threading.Thread(target=self._dial, args=(charon, name, tuple(children), attempt), daemon=True).start()

    def _dial(self, charon: Charon, name: str, children: Sequence[str], attempt: _Attempt) -> None:
        reason = ""
        try:
            with _AT_ONCE:
                for child in children:
                    reason = reason or initiate(charon, name, child)
        except (OSError, SessionException) as error:
            _log.debug("%s: %s could not be dialled: %s", charon.place.name, name, error)
        finally:
            with self._lock:
                attempt.running, attempt.reason = False, reason
                attempt.due = time.monotonic() + attempt.delay
                attempt.delay = min(attempt.delay * 2, _LONGEST)

    def reason(self, folder: Path, name: str) -> str:
        """Return why the last attempt failed; empty when it did not, or nobody knows."""
        with self._lock:
            attempt = self._attempts.get((folder, name))
            return attempt.reason if attempt else ""

    def forget(self, folder: Path) -> None:
        """Forget a target."""
        with self._lock:
            for key in [key for key in self._attempts if key[0] == folder]:
                del self._attempts[key]


def initiate(charon: Charon, name: str, child: str) -> str:
    """Bring up one child; return why the peer or the daemon refused it, empty when neither did (yet)."""
    said: list[str] = []
    asked = {"ike": name, "child": child, "timeout": str(_PATIENCE), "loglevel": "1"}
    try:
        with charon.session() as session:
            for line in session.initiate(asked):
                said.append(text(line.get("msg", b"")))  # noqa: PERF401 - what was said before a failure counts
    except CommandException as error:
        if "not established after" in str(error):
            return ""  # no answer yet: the daemon goes on
        telling = [line for line in said if _TELLING.search(line) and not line.startswith(_OWN)]
        return telling[0] if telling else str(error).removeprefix("Command failed: ")
    return ""
