"""conntrackd: what a redundant router's connections are, told to the other one all the time (conntrackd.conf(5)).

It runs in the folder in force and reads its configuration once, so a change is a restart; whoever starts asks the
other for everything that it knows.
"""

from __future__ import annotations

import time
from pathlib import Path

from systemvm import netns
from systemvm.bundle import Bundle, Failure, Observation
from systemvm.daemon import Daemon
from systemvm.services import Place

CONF = "conntrackd/conntrackd.conf"
_WAIT = 5.0


class Conntrackd:
    """The service ``conntrackd``."""

    name = "conntrackd"

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """See that the configuration is whole; the daemon itself has no dry run."""
        path = staged / CONF
        if path.exists() and path.read_text(encoding="utf-8").count("{") != path.read_text().count("}"):
            return [Failure(CONF, f"{CONF}: its braces do not match.")]
        return []

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Start it with the new configuration, or stop it."""
        _daemon(place).stop()
        if not _has(new):
            return []
        return self._start(place)

    def _start(self, place: Place) -> list[Failure]:
        daemon, run = _daemon(place), place.folder / "run"
        (run / "conntrackd.lock").unlink(missing_ok=True)  # it is not there any more, whoever left this behind
        (run / "conntrackd.ctl").unlink(missing_ok=True)
        pid, deadline = daemon.start(["conntrackd", "-C", CONF], place.current), time.monotonic() + _WAIT
        while not (run / "conntrackd.ctl").exists():
            if daemon.pid() != pid or time.monotonic() > deadline:
                reason = daemon.said(3) or "it did not come up"
                daemon.stop()
                return [Failure(CONF, f"{CONF}: conntrackd did not start: {reason}")]
            time.sleep(0.005)
        _ask(place, "-n")
        return []

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Start it where it is gone."""
        if not _has(bundle) or _daemon(place).pid() is not None:
            return []
        for failure in self._start(place):
            raise RuntimeError(failure.reason)
        return ["conntrackd was gone and was started again"]

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Tell whether it runs."""
        if not _has(bundle):
            return Observation(bundle.target)
        reason = "" if _daemon(place).pid() is not None else "conntrackd does not run: connections would not be kept"
        return Observation(bundle.target, (("conntrackd", reason),))

    def remove(self, place: Place) -> None:
        """Stop it."""
        _daemon(place).stop()


def _ask(place: Place, command: str) -> None:
    """Tell the running daemon something; see conntrackd(8)."""
    argv = ["conntrackd", "-C", CONF, command]
    netns.popen(place.namespace, argv, cwd=place.current, stdin=-3, stdout=-3, stderr=-3).wait(5)


def _daemon(place: Place) -> Daemon:
    return Daemon("conntrackd", place.namespace, place.folder / "run")


def _has(bundle: Bundle) -> bool:
    return any(file.path == CONF for file in bundle.files)
