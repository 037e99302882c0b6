"""xl2tpd: L2TP for remote access, a PPP session for each client, inside of what the IKE daemon made (transport mode).

pppd(8) reads its secrets and calls its scripts in ``/etc/ppp`` and nowhere else, so the daemon sees a folder of the
target's own there (and in ``/run``), in a mount namespace of its own. A session notes there whose it is; one whose user
is gone, or has another password now, is ended. Where the host cannot do L2TP nothing runs, and the state says why.
"""

from __future__ import annotations

import os
import signal
import time
from configparser import ConfigParser
from configparser import Error as ConfigError
from contextlib import suppress
from pathlib import Path

from systemvm import netns
from systemvm.bundle import Bundle, Failure, Observation
from systemvm.daemon import Daemon
from systemvm.services import Place, l2tp
from systemvm.services.charon import Charon

CONF, OPTIONS, SECRETS = "xl2tpd/xl2tpd.conf", "xl2tpd/options.xl2tpd", "xl2tpd/chap-secrets"
RUNNING = "L2TP is on"
_ETC = "/etc/ppp"
_CONFINED = 'mount --bind "$1" /etc/ppp && mount --bind "$1" /run && shift && exec "$@"'
_COMMAND = [
    "unshare", "--mount", "--propagation", "private", "sh", "-c", _CONFINED, "sh", "{folder}",
    "xl2tpd", "-D", "-c", f"{_ETC}/xl2tpd.conf", "-s", f"{_ETC}/l2tp-secrets", "-p", f"{_ETC}/xl2tpd.pid",
    "-C", f"{_ETC}/xl2tpd.control",
]  # fmt: skip
_UP = '#!/bin/sh\necho "$PPPD_PID $PEERNAME" > "/etc/ppp/session-$IFNAME"\n'
_DOWN = '#!/bin/sh\nrm -f "/etc/ppp/session-$IFNAME"\n'
_WAIT, _END = 5.0, 2.0
_MOST_LOG = 4 << 20


class Xl2tpd:
    """The service ``xl2tpd``."""

    name = "xl2tpd"

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """See that the configuration has what is needed; the daemon itself has no dry run."""
        if not _has(bundle):
            return []
        try:
            _dialled(staged)
        except (ConfigError, KeyError, OSError) as error:
            return [Failure(CONF, f"{CONF}: {error}")]
        return []

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Start it, or stop it; of a change of users it needs to know nothing."""
        if not _has(new):
            self.remove(place)
            return []
        if old is not None and _content(old, CONF, OPTIONS) != _content(new, CONF, OPTIONS):
            _daemon(place).stop()
        before = _users("".join(_content(old, SECRETS))) if old else {}
        users = _users("".join(_content(new, SECRETS)))
        self._bring(place)
        _end(place, {user for user in before if before[user] != users.get(user)})
        return []

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Start the daemon where it is gone; end the sessions of users who are."""
        if not _has(bundle):
            return []
        said = self._bring(place)
        users = _users((place.current / SECRETS).read_text(encoding="ascii"))
        strangers = {user for _, user in _sessions(place)} - users.keys()
        _end(place, strangers)
        with suppress(OSError):
            if _daemon(place).log.stat().st_blocks * 512 > _MOST_LOG:
                os.truncate(_daemon(place).log, 0)
        return said + [f"session of {user}" for user in sorted(strangers)]

    def _bring(self, place: Place) -> list[str]:
        """Have it run where the host can do it and the address is here; a standby's is with the other router.

        :raises RuntimeError: it did not start.
        """
        daemon = _daemon(place)
        if l2tp.missing(place.namespace) or _dialled(place.current) not in Charon(place).addresses():
            self.remove(place)
            return []
        _furnish(place)
        if daemon.pid() is not None:
            return []
        _start(place, daemon)
        return ["xl2tpd was not there and was started"]

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Tell whether L2TP is spoken, and who is connected by it."""
        if not _has(bundle):
            return Observation(bundle.target)
        name, reason = _parsed(place.current)["lns default"]["name"], l2tp.missing(place.namespace)
        if reason:
            return Observation(bundle.target, states=((name, reason),))
        users = dict.fromkeys(user for _, user in _sessions(place))
        states = [(name, RUNNING), *((f"{name}/{user}", "Connected") for user in users)]
        held = _dialled(place.current) in Charon(place).addresses()
        health = "xl2tpd does not run" if held and _daemon(place).pid() is None else ""
        return Observation(bundle.target, (("xl2tpd", health),), states=tuple(states))

    def remove(self, place: Place) -> None:
        """Stop the daemon and end all sessions."""
        users = {user for _, user in _sessions(place)}
        _daemon(place).stop()
        _end(place, users)


def _has(bundle: Bundle) -> bool:
    return any(file.path == CONF for file in bundle.files)


def _content(bundle: Bundle, *paths: str) -> list[str]:
    return [file.content for file in bundle.files if file.path in paths]


def _parsed(folder: Path) -> ConfigParser:
    conf = ConfigParser(interpolation=None)
    with (folder / CONF).open(encoding="ascii") as file:
        conf.read_file(file)
    return conf


def _dialled(folder: Path) -> str:
    return _parsed(folder)["global"]["listen-addr"]


def _users(secrets: str) -> dict[str, str]:
    """Return user → the line that is about it; a user's name has no space in it."""
    lines = [line for line in secrets.splitlines() if line.startswith('"')]
    return {line.partition(" ")[0].strip('"'): line for line in lines}


def _daemon(place: Place) -> Daemon:
    return Daemon("xl2tpd", place.namespace, place.folder / "run")


def _folder(place: Place) -> Path:
    return place.folder / "run" / "ppp"


def _furnish(place: Place) -> None:
    """Lay out what the daemon sees in /etc/ppp; pppd reads it for each session anew."""
    folder = _folder(place)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    contents = {
        Path(path).name: (place.current / path).read_text(encoding="ascii") for path in (CONF, OPTIONS, SECRETS)
    }
    contents |= {"options": "", "l2tp-secrets": "", "ip-up": _UP, "ip-down": _DOWN}
    for name, content in contents.items():
        path = folder / name
        if path.exists() and path.read_text(encoding="ascii") == content:
            continue
        mode = 0o700 if name.startswith("ip-") else 0o600
        fresh = folder / f"{name}.new"
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(content)
        fresh.replace(path)


def _start(place: Place, daemon: Daemon) -> None:
    """Start it and wait until it listens."""
    folder = _folder(place)
    daemon.stop()
    for left in (*folder.glob("session-*"), folder / "xl2tpd.control", folder / "xl2tpd.pid"):
        left.unlink(missing_ok=True)
    pid = daemon.start([word.format(folder=folder) for word in _COMMAND], folder)
    deadline = time.monotonic() + _WAIT
    while not (folder / "xl2tpd.control").exists():
        if daemon.pid() != pid or time.monotonic() > deadline:
            reason = daemon.said() or "it did not come up"
            daemon.stop()
            raise RuntimeError(f"xl2tpd did not start: {reason}")
        time.sleep(0.005)


def _sessions(place: Place) -> list[tuple[int, str]]:
    """Return pid and user of each session that lives."""
    found = []
    for note in sorted(_folder(place).glob("session-*")):
        with suppress(OSError, ValueError):
            number, user = note.read_text(encoding="ascii").split()
            if _is_pppd(place, int(number)):
                found.append((int(number), user))
    return found


def _is_pppd(place: Place, pid: int) -> bool:
    """Tell whether it is a session of this target: a pid alone may belong to somebody else by now."""
    process = Path(f"/proc/{pid}")
    with suppress(OSError):
        name = (process / "comm").read_text(encoding="ascii", errors="replace").strip()
        return name == "pppd" and (process / "ns/net").stat().st_ino == netns.inode(place.namespace)
    return False


def _end(place: Place, users: set[str]) -> None:
    """End the sessions of these users, by force where one does not end itself."""
    pids = [pid for pid, user in _sessions(place) if user in users]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + _END
        while (pids := [pid for pid in pids if _is_pppd(place, pid)]) and time.monotonic() < deadline:
            time.sleep(0.01)
