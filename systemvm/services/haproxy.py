"""haproxy: a target's load balancers, in master-worker mode. No change loses a connection.

Weights, certificates and servers are changed as it runs; anything else is a reload. A server that is taken away gets no
new connection, and goes when its last one has ended.

It runs in the folder in force. The bundle's configuration gives ``stats socket unix@../run/haproxy.sock … expose-fd
listeners``; by it the counters and the servers' states are read, and a new worker inherits the listening sockets.
"""

from __future__ import annotations

import csv
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from systemvm.bundle import Bundle, Failure, Observation
from systemvm.daemon import Daemon
from systemvm.services import Place, balancers
from systemvm.tally import Count, Tally

CONF = "haproxy/haproxy.cfg"
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_MASTER = re.compile(r"^\d+\s+master\s+(\d+)\s+\[failed: (\d+)\]", re.MULTILINE)
_WAIT = 10.0
_PORT = 18
"""Which word of a line of ``show servers state`` is the port."""
_RUNNING = "2"


class Haproxy:
    """The service ``haproxy``."""

    name = "haproxy"

    def __init__(self) -> None:
        self._tallies: dict[Path, Tally] = {}

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """Let ``haproxy -c`` read the configuration in the staged folder, certificates included."""
        if not (staged / CONF).exists():
            return [Failure(CONF, f"{CONF} is missing.")] if _has(bundle, any_file=True) else []
        argv = ["haproxy", "-c", "-f", CONF]
        done = subprocess.run(argv, cwd=staged, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            return []
        alerts = [line.partition(" : ")[2] for line in done.stderr.splitlines() if "[ALERT]" in line]
        first = (alerts or [done.stderr.strip()])[0]
        line = re.search(re.escape(CONF) + r":(\d+)", first)
        return [Failure(CONF, f"{CONF} line {line[1]}: {first}" if line else f"{CONF}: {first}")]

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Start it, change it as it runs, reload it or stop it."""
        daemon = _daemon(place)
        if not _has(new):
            daemon.stop()
            return []
        if _retired(place).exists():
            return []
        if daemon.pid() is None:
            return self._start(place)
        if old is not None and _has(old) and _change(place, _files(old), _files(new)):
            return []
        self._tally(place).fold(_counts(_stat(place)))
        return _reload(place, daemon)

    def _start(self, place: Place) -> list[Failure]:
        daemon, deadline = _daemon(place), time.monotonic() + _WAIT
        daemon.stop()
        self._tally(place).fold()
        pid = daemon.start(["haproxy", "-W", "-S", "unix@../run/master.sock,mode,600", "-f", CONF], place.current)
        while "Loading success" not in daemon.said(50):
            if daemon.pid() != pid or time.monotonic() > deadline:
                reason = daemon.said(2) or "it did not come up"
                daemon.stop()
                return [Failure(CONF, f"{CONF}: haproxy did not start: {reason}")]
            time.sleep(0.005)
        return []

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Start it where it is gone, and see the servers off that were taken away."""
        if not _has(bundle) or _retired(place).exists():
            return []
        if _daemon(place).pid() is not None:
            _see_off(place, _files(bundle)[CONF])
            return []
        for failure in self._start(place):
            raise RuntimeError(failure.reason)
        return ["haproxy was gone and was started again"]

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Read each rule's sessions and bytes, and the state of each of its servers."""
        if not _has(bundle):
            return Observation(bundle.target)
        rows, leaving = _stat(place), _leaving(place).exists()
        wanted = balancers.read(_files(bundle)[CONF]) if leaving else {}
        rows = [row for row in rows if not leaving or _is_wanted(row, wanted)]
        states = [
            (f"{_rule(row['pxname'])}/{row['svname']}", _state(row["status"]))
            for row in rows
            if row["svname"] not in ("FRONTEND", "BACKEND")
        ]
        totals = self._tally(place).read(_counts(rows))
        reason = "" if rows else "haproxy does not answer on its runtime socket"
        counters = tuple((name, *count) for name, count in totals.items())
        return Observation(bundle.target, (("haproxy", reason),), counters, tuple(states))

    def remove(self, place: Place) -> None:
        """Stop it."""
        self._tallies.pop(place.folder, None)
        _daemon(place).stop()

    def _tally(self, place: Place) -> Tally:
        if place.folder not in self._tallies:
            self._tallies[place.folder] = Tally(place.folder / "run" / "counters-haproxy.json")
        return self._tallies[place.folder]


def adopt(old: Place, new: Place) -> None:
    """Have the new one believe what the old one knows of its servers: in the dark its own checks reach nobody.

    It is told of those that it has not given up yet, too: a fresh haproxy does so with the first check that fails.
    """
    known = _servers(old)
    for name in _servers(new):
        if name in known:
            _ask(new, "haproxy.sock", f"set server {name} health {'up' if known[name] else 'down'}")


def retire(place: Place) -> None:
    """Have it finish what it has begun, and not be started again.

    A soft stop (management guide, 4) tells clients that keep their connection to make another with the next answer,
    and ends with the last of them.
    """
    if _daemon(place).pid() is not None:
        _retired(place).touch()
        _daemon(place).signal(signal.SIGUSR1)


def _servers(place: Place) -> dict[str, bool]:
    """Return BACKEND/SERVER → whether it gets connections."""
    return {f"{row[1]}/{row[3]}": row[5] == _RUNNING for row in _rows(place)}


def _rows(place: Place) -> list[list[str]]:
    """Return the servers that it has, those that were taken away and still have connections too."""
    rows = [line.split() for line in _ask(place, "haproxy.sock", "show servers state").splitlines()[2:]]
    return [row for row in rows if len(row) > _PORT]


def _retired(place: Place) -> Path:
    """Where it is noted that it is not to be started again."""
    return place.folder / "run" / "haproxy.retired"


def _daemon(place: Place) -> Daemon:
    return Daemon("haproxy", place.namespace, place.folder / "run")


def _has(bundle: Bundle, *, any_file: bool = False) -> bool:
    return any(file.service == "haproxy" and (any_file or file.path == CONF) for file in bundle.files)


def _files(bundle: Bundle) -> dict[str, str]:
    return {file.path: file.content for file in bundle.files if file.service == "haproxy"}


def _leaving(place: Place) -> Path:
    """Return the mark that tells that haproxy may have servers that its configuration has no more."""
    return place.folder / "run" / "haproxy-leaving"


def _change(place: Place, old: Mapping[str, str], new: Mapping[str, str]) -> bool:
    """Change it as it runs; False where that cannot be, or was not understood: a reload puts everything right."""
    there = {f"{row[1]}/{row[3]}": f"{row[4]}:{row[_PORT]}" for row in _rows(place)}
    due = balancers.difference(old, new, CONF, there)
    if due is None:
        return False
    if due.leaving:
        _leaving(place).touch()
    for step in due.steps:
        said = _ask(place, "haproxy.sock", step.command).strip()
        if step.answers not in said or (said and not step.answers):
            return False
    _see_off(place, new[CONF])
    return True


def _see_off(place: Place, conf: str) -> None:
    """Delete the servers that the configuration has no more; who still has connections stays a while."""
    if not _leaving(place).exists():
        return
    wanted = balancers.read(conf)
    gone = [
        server
        for server in _servers(place)
        if (section := wanted.get(f"listen {server.partition('/')[0]}"))
        and server.partition("/")[2] not in section.servers
    ]
    said = [_ask(place, "haproxy.sock", f"del server {server}") for server in gone]
    if all("deleted" in answer for answer in said):
        _leaving(place).unlink(missing_ok=True)


def _is_wanted(row: Mapping[str, str], wanted: Mapping[str, balancers.Section]) -> bool:
    section = wanted.get(f"listen {row['pxname']}")
    return section is None or row["svname"] in ("FRONTEND", "BACKEND", *section.servers)


def _reload(place: Place, daemon: Daemon) -> list[Failure]:
    """Let the master execute itself anew, and wait for its word on the new worker."""
    deadline = time.monotonic() + _WAIT
    before = _MASTER.search(_ask(place, "master.sock", "show proc"))
    daemon.signal(signal.SIGUSR2)
    while daemon.pid() is not None and time.monotonic() < deadline:
        processes = _ask(place, "master.sock", "show proc")
        now = _MASTER.search(processes)
        if now and (before is None or int(now[1]) > int(before[1])):
            failed = int(now[2]) > 0
            if failed or not _answers_still(place, processes):
                _leaving(place).unlink(missing_ok=True)
                return [Failure(CONF, f"{CONF}: haproxy did not reload: {_alert(daemon)}")] if failed else []
        time.sleep(0.005)
    return [Failure(CONF, f"{CONF}: haproxy did not come back from its reload: {daemon.said()}")]


def _answers_still(place: Place, processes: str) -> bool:
    """Tell whether a former worker still listens: the master tells it to stop, and speaks before it has.

    :param processes: what ``show proc`` said.
    """
    former = re.findall(r"^(\d+)\s+worker", processes.partition("# old workers")[2], re.MULTILINE)
    return any("Stopping: 0" in _ask(place, "master.sock", f"@!{pid} show info") for pid in former)


def _alert(daemon: Daemon) -> str:
    alerts = [line for line in daemon.said(30).split(" / ") if "[ALERT]" in line]
    return alerts[0].partition(" : ")[2] if alerts else daemon.said()


def _ask(place: Place, name: str, command: str) -> str:
    """Ask a runtime socket; empty where nobody answers.

    The path may be longer than a socket's address can be, so the folder is opened first and named by its number.
    """
    try:
        folder = os.open(place.folder / "run", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(2)
            line.connect(f"/proc/self/fd/{folder}/{name}")
            line.sendall(command.encode() + b"\n")
            line.shutdown(socket.SHUT_WR)  # the master of 2.6 closes only then
            return b"".join(iter(lambda: line.recv(65536), b"")).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(folder)


def _stat(place: Place) -> list[dict[str, str]]:
    text = _ask(place, "haproxy.sock", "show stat").removeprefix("# ")
    rows = [dict(row) for row in csv.DictReader(text.splitlines())]
    return [row for row in rows if _UUID.search(row.get("pxname") or "")]


def _rule(proxy: str) -> str:
    found = _UUID.search(proxy)
    return found[0] if found else proxy


def _counts(rows: list[dict[str, str]]) -> dict[str, Count]:
    """Return rule → (sessions, bytes both ways), as its backend counted them."""
    return {
        _rule(row["pxname"]): (int(row["stot"] or 0), int(row["bin"] or 0) + int(row["bout"] or 0))
        for row in rows
        if row["svname"] == "BACKEND"
    }


def _state(status: str) -> str:
    """Return ``UP``, ``DOWN``, or ``MAINT`` and ``DRAIN`` as they are; a server without a check counts as up."""
    word = status.partition(" ")[0] or "DOWN"
    return "UP" if word == "no" else word
