"""metadata: what each guest may read about itself. One server process serves all routers of the host.

This service writes what a router's guests may read into the server's folder; the server opens its sockets inside the
router's namespace. ``metadata.json``::

    {"networks": [{"address": "10.1.1.1", "interface": "eth1", "guests": {"10.1.1.5": {"vm": UUID,
     "items": {"instance-id": "…", …}, "user_data": BASE64, "password": "…"}}}]}

With IPv6 a network has ``addresses6``, the router's own, and ``aliases``: further addresses that guests ask from.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from systemvm import netns
from systemvm.bundle import Bundle, Failure, Observation
from systemvm.daemon import Daemon
from systemvm.ledger import write_durably
from systemvm.metadata_server import taken_mark
from systemvm.services import HostSettings, Place

FILE = "metadata.json"


class Metadata:
    """The service ``metadata``."""

    name = "metadata"

    def __init__(self) -> None:
        self._starting = threading.Lock()

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """Read the file."""
        path = staged / FILE
        if not path.exists():
            return []
        try:
            _read(path.read_text(encoding="utf-8"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return [Failure(FILE, f"{FILE}: {error!r}" if isinstance(error, KeyError) else f"{FILE}: {error}")]
        return []

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Hand the file to the server."""
        self._register(place)
        return []

    def _register(self, place: Place) -> list[str]:
        """Return what was not as it should be."""
        entry, file = _entry(place), place.current / FILE
        if not file.exists():
            entry.unlink(missing_ok=True)
            self._poke(place.host)
            return []
        done = []
        text = json.dumps(
            {"namespace": place.namespace, "inode": netns.inode(place.namespace)} | _read(file.read_text())
        )
        if not entry.exists() or entry.read_text(encoding="utf-8") != text:
            entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_durably(entry, text)
            done.append("what the metadata server knew was not this and was written again")
        if self._serve(place.host):
            done.append("the metadata server was gone and was started again")
        elif done:
            self._poke(place.host)
        return done

    def _serve(self, host: HostSettings) -> bool:
        """Start the server unless it runs; return whether it was started now."""
        daemon, folder = _daemon(host), host.state / "metadata"
        with self._starting:
            if daemon.pid() is not None:
                return False
            argv = [sys.executable, "-S", "-E", str(Path(__file__).parent.parent / "metadata_server.py"), str(folder)]
            daemon.start(argv, folder)
        return True

    def _poke(self, host: HostSettings) -> None:
        _daemon(host).signal(signal.SIGHUP)

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Start the server where it is gone, and tell it again what it should know."""
        return self._register(place) if _has(bundle) else []

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Tell which passwords were fetched."""
        if not _has(bundle):
            return Observation(bundle.target)
        taken = place.host.state / "metadata" / "taken"
        networks = _read((place.current / FILE).read_text(encoding="utf-8"))["networks"]
        states = tuple(
            (f"{guest['vm']}/password", "taken")
            for network in networks
            for guest in network["guests"].values()
            if guest.get("password") and (taken / taken_mark(guest["vm"], guest["password"])).exists()
        )
        reason = "" if _daemon(place.host).pid() else "the metadata server does not run"
        return Observation(bundle.target, health=(("metadata", reason),), states=states)

    def remove(self, place: Place) -> None:
        """Take the target from the server, and end the server with its last one."""
        entry = _entry(place)
        entry.unlink(missing_ok=True)
        with self._starting:
            if any(entry.parent.glob("*.json")):
                self._poke(place.host)
            else:
                _daemon(place.host).stop()


def _daemon(host: HostSettings) -> Daemon:
    return Daemon("metadata", "", host.state / "metadata" / "run")


def _entry(place: Place) -> Path:
    return place.host.state / "metadata" / f"{place.namespace}.json"


def _has(bundle: Bundle) -> bool:
    return any(file.path == FILE for file in bundle.files)


def _read(text: str) -> dict[str, list[dict[str, Any]]]:
    data: dict[str, list[dict[str, Any]]] = json.loads(text)
    for network in data["networks"]:
        aliases: dict[str, str] = network.get("aliases", {})
        own = [network["address"]] if network["address"] else []
        for address in (*own, *network.get("addresses6", ()), *network["guests"], *aliases):
            ip_address(address)
        for key in aliases.values():
            network["guests"][key]
        for guest in network["guests"].values():
            guest["vm"] + guest.get("user_data", "") + guest.get("password", "")
            dict(guest.get("items", {}))
    return data
