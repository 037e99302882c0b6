"""redundancy: a router that is one of two, and holds their addresses while it has the lease.

``redundancy.json`` says who the two are; the interfaces with the common addresses have a gate (``links``), and one
process for all routers of the host keeps it open as long as the election says (``systemvm.lease_server``).
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from systemvm import gate, netns
from systemvm.bundle import Bundle, Failure, Observation
from systemvm.daemon import Daemon
from systemvm.ledger import write_durably
from systemvm.services import HostSettings, Place

FILE = "redundancy.json"
_KEYS = ("group", "member", "peer", "roster", "rank", "sole", "address", "peer_address", "announce")
_WAIT = 3.0
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from systemvm.lease_server import main; main()"


class Redundancy:
    """The service ``redundancy``."""

    name = "redundancy"

    def __init__(self) -> None:
        self._starting = threading.Lock()

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """Read the file."""
        path = staged / FILE
        try:
            if path.exists():
                _read(path)
        except (ValueError, KeyError, TypeError) as error:
            return [Failure(FILE, f"{FILE}: {error!r}")]
        return []

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Hand it to the process, and wait until nothing rests on a former roster any more."""
        if not (place.current / FILE).exists():
            self.remove(place)
            return []
        self._register(place)
        roster, deadline = _read(place.current / FILE)["roster"], time.monotonic() + _WAIT
        while (state := _state(place)).get("roster") != roster or not state.get("settled"):
            if time.monotonic() > deadline:
                return [Failure(FILE, f"{FILE}: the lease's process did not take it: {_daemon(place.host).said()}")]
            time.sleep(0.01)
        return []

    def _register(self, place: Place) -> list[str]:
        """Return what was not as it should be."""
        entry, done = _entry(place), []
        known = {
            "namespace": place.namespace,
            "inode": netns.inode(place.namespace),
            "map": gate.number(place.folder / "run"),
            "server": place.host.server,
            "token": place.host.token,
            "haproxy": str(place.folder / "run" / "haproxy.sock"),
        }
        text = json.dumps(known | _read(place.current / FILE))
        if not entry.exists() or entry.read_text(encoding="utf-8") != text:
            entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_durably(entry, text)
            done.append("what the lease's process knew was not this and was written again")
        if self._serve(place.host):
            done.append("the lease's process was gone and was started again")
        elif done:
            _daemon(place.host).signal(signal.SIGHUP)
        return done

    def _serve(self, host: HostSettings) -> bool:
        """Start the process unless it runs; return whether it was started now."""
        daemon, folder = _daemon(host), _folder(host)
        with self._starting:
            if daemon.pid() is not None:
                return False
            root = str(Path(__file__).parents[2])
            daemon.start([sys.executable, "-S", "-E", "-c", _START, root, str(folder)], folder)
        return True

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Start the process where it is gone, and tell it again what it should know."""
        return self._register(place) if _has(bundle) else []

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Tell whether it holds the addresses: ``PRIMARY`` or ``BACKUP``, ``FAULT`` where that cannot be told."""
        if not _has(bundle):
            return Observation(bundle.target)
        alive = _daemon(place.host).pid() is not None
        state = str(_state(place).get("state", "FAULT")) if alive else "FAULT"
        reason = "" if alive else "the lease's process does not run: this router may hold no address"
        return Observation(bundle.target, health=(("redundancy", reason),), states=(("redundancy", state),))

    def remove(self, place: Place) -> None:
        """Give the lease up, so that the other router takes over at once; end the process with its last router."""
        folder = _entry(place).parent
        if not folder.exists():
            return
        take_leave(place)
        with self._starting:
            if not any(folder.glob("*.json")):
                _daemon(place.host).stop()


def take_leave(place: Place) -> None:
    """Give the lease up while the shell is there, and the vote back: the other router need not wait for its end."""
    entry = _entry(place)
    if not entry.exists():
        return
    entry.unlink()
    daemon, deadline = _daemon(place.host), time.monotonic() + 1
    daemon.signal(signal.SIGHUP)
    while daemon.pid() is not None and _state_file(place).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    _state_file(place).unlink(missing_ok=True)


def turn(place: Place) -> str:
    """Name the time for which this router holds its addresses: another name means that another router had them between.

    :return: empty while it does not hold them; always the same for a router that is not redundant.
    """
    if not (place.current / FILE).exists():
        return "always"
    state = _state(place)
    held = state.get("state") == "PRIMARY" and gate.is_open(place.folder / "run")
    return str(state["changes"]) if held else ""


def has_other_half(place: Place) -> bool:
    """Tell whether another router stands by to take over."""
    try:
        return bool(_read(place.current / FILE)["peer"])
    except (OSError, ValueError, KeyError):
        return False


def _folder(host: HostSettings) -> Path:
    return host.state / "leases"


def _daemon(host: HostSettings) -> Daemon:
    return Daemon("leases", "", _folder(host) / "run")


def _entry(place: Place) -> Path:
    return _folder(place.host) / f"{place.namespace}.json"


def _state_file(place: Place) -> Path:
    return _folder(place.host) / "state" / f"{place.namespace}.json"


def _state(place: Place) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(_state_file(place).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}
    return found


def _has(bundle: Bundle) -> bool:
    return any(file.path == FILE for file in bundle.files)


def _read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    ip_address(data["address"])
    if data["peer"]:
        ip_address(data["peer_address"])
    return {key: data[key] for key in _KEYS}
