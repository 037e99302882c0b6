"""FRR's bgpd: what a router announces. A change is told to the running daemon, so that no session is reset by it.

It speaks for itself, without zebra: it puts no routes into the kernel. Its peers keep its prefixes for 30 s when it
falls silent (graceful restart, RFC 4724), as it does when another router takes this one's place; when it goes for
good, it says so (RFC 8538, a hard reset). See bgpd(8) and FRR's user guide, "BGP".
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from systemvm.bundle import Bundle, Failure, Observation
from systemvm.daemon import Daemon
from systemvm.services import Place, bgp_changes, redundancy

CONF = "frr/bgpd.conf"
_PROGRAM = "/usr/lib/frr/bgpd"
_WAIT = 5.0
_END = b"\0\0\0"


class Frr:
    """The service ``frr``."""

    name = "frr"

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """Let ``bgpd --dryrun`` read the configuration; it says what is wrong, and exits with 0 all the same."""
        if not (staged / CONF).exists():
            return [Failure(CONF, f"{CONF} is missing.")] if _text(bundle) is not None else []
        argv = [_PROGRAM, "--dryrun", "--skip_runas", "-f", CONF]
        done = subprocess.run(argv, cwd=staged, capture_output=True, text=True, timeout=30, check=False)
        said = [text for text in (done.stderr + done.stdout).splitlines() if "config line" in text or done.returncode]
        if not said:
            return []
        line = re.search(r"line (\d+)", said[0])
        reason = said[0].rpartition("] ")[2]
        return [Failure(CONF, f"{CONF} line {line[1]}: {reason}" if line else f"{CONF}: {reason}")]

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Start it, tell it what is different, or stop it."""
        daemon, before, text = _daemon(place), _text(old), _text(new)
        if text is None:
            take_leave(place)
            return []
        if daemon.pid() is None or before is None:
            return self._start(place)
        if before == text:
            return []
        steps = bgp_changes.difference(before, text)
        if steps is not None and all(not code for code, _ in _ask(place, ["enable", "configure terminal", *steps])):
            return []
        return self._start(place)  # another AS, or a change that was not understood

    def _start(self, place: Place) -> list[Failure]:
        daemon, run = _daemon(place), place.folder / "run"
        take_leave(place)
        run.mkdir(parents=True, exist_ok=True)
        (run / "bgpd.vty").unlink(missing_ok=True)
        argv = [_PROGRAM, "--no_zebra", "--skip_runas", "-f", CONF]  # in the foreground, as its caller in the namespace
        argv += ["-i", "../run/bgpd-own.pid", "--vty_socket", "../run", "-P", "0"]
        pid, deadline = daemon.start(argv, place.current), time.monotonic() + _WAIT
        while not _ask(place, ["show version"]):
            if daemon.pid() != pid or time.monotonic() > deadline:
                reason = daemon.said(3) or "it did not come up"
                daemon.stop()
                return [Failure(CONF, f"{CONF}: bgpd did not start: {reason}")]
            time.sleep(0.005)
        return []

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Start it where it is gone."""
        if _text(bundle) is None or _daemon(place).pid() is not None:
            return []
        for failure in self._start(place):
            raise RuntimeError(failure.reason)
        return ["bgpd was gone and was started again"]

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Tell whether it runs, and read each peer's state."""
        if _text(bundle) is None:
            return Observation(bundle.target)
        families = _families(place)
        reason = "" if families is not None else "bgpd does not answer: the guests' prefixes are not announced"
        states = tuple((f"bgp/{address}", state) for address, state in sorted(_peers(families or []).items()))
        return Observation(bundle.target, (("bgp", reason),), states=states)

    def remove(self, place: Place) -> None:
        """Stop it: its peers forget the prefixes as soon as the sessions end."""
        take_leave(place)


def take_leave(place: Place) -> None:
    """End the sessions while the wires are there: peers forget the prefixes at once, not after their hold time.

    One of two routers falls silent: the other goes on announcing them.
    """
    daemon = _daemon(place)
    if redundancy.has_other_half(place):
        fall_silent(place)
    elif daemon.pid() is not None:
        families = _families(place) or []
        own = [f"router bgp {number}" for number in {family["as"] for family in families if "as" in family}]
        _ask(place, ["enable", "configure terminal", *own, *(f"neighbor {peer} shutdown" for peer in _peers(families))])
    daemon.stop()


def fall_silent(place: Place) -> None:
    """End it without a word: whoever has its addresses next goes on where it ended, and its peers wait for that.

    Its connections are closed while the wires are there: a peer that finds the next one's before it knows of that
    takes it for a second connection, and may forget what it learned.
    """
    _daemon(place).kill()


def _families(place: Place) -> list[dict[str, Any]] | None:
    """Return what bgpd tells of each address family that it speaks; None where it does not answer."""
    answers = _ask(place, ["enable", "show bgp summary json"])
    if not answers:
        return None
    try:
        return [family for family in json.loads(answers[-1][1]).values() if isinstance(family, dict)]
    except ValueError:
        return []


def _peers(families: list[dict[str, Any]]) -> dict[str, str]:
    return {address: peer["state"] for family in families for address, peer in family.get("peers", {}).items()}


def _ask(place: Place, commands: list[str]) -> list[tuple[int, str]]:
    """Tell bgpd commands by its own socket, and return code (0 is good) and text of each; empty without an answer.

    A command ends with a NUL, an answer with three and the code. The path may be longer than a socket's address can
    be, so the folder is opened first and named by its number.
    """
    try:
        folder = os.open(place.folder / "run", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(2)
            line.connect(f"/proc/self/fd/{folder}/bgpd.vty")
            return [_answer(line, command) for command in commands]
    except OSError:
        return []
    finally:
        os.close(folder)


def _answer(line: socket.socket, command: str) -> tuple[int, str]:
    line.sendall(command.encode() + b"\0")
    said = b""
    while said[-4:-1] != _END:
        part = line.recv(65536)
        if not part:
            raise ConnectionResetError
        said += part
    return said[-1], said[:-4].decode(errors="replace")


def _daemon(place: Place) -> Daemon:
    return Daemon("bgpd", place.namespace, place.folder / "run")


def _text(bundle: Bundle | None) -> str | None:
    return next((file.content for file in bundle.files if file.path == CONF), None) if bundle else None
