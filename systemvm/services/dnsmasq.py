"""dnsmasq: a target's DHCP and DNS. Host files are read again without a gap; a changed configuration restarts it.

dnsmasq leaves its working directory when it starts, so the agent starts it with a copy of its configuration in which
the paths, which a bundle gives relative to the folder in force, are absolute. See dnsmasq(8).
"""

from __future__ import annotations

import pwd
import re
import signal
import subprocess
import time
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import NamedTuple

from systemvm import netns
from systemvm.bundle import Bundle, Failure, Observation
from systemvm.daemon import Daemon
from systemvm.services import Place
from systemvm.services.dhcp_release import release

CONF = "dnsmasq/dnsmasq.conf"
_PATHS = (
    "addn-hosts|conf-dir|conf-file|dhcp-hostsdir|dhcp-hostsfile|dhcp-optsdir|dhcp-optsfile|hostsdir|resolv-file|"
    "servers-file|tftp-root|trust-anchors-file"
)
_RELATIVE = re.compile(rf"^(\s*(?:{_PATHS})\s*=\s*)([^/\s].*)$", re.MULTILINE)
_WATCHED = re.compile(r"^\s*hostsdir\s*=\s*([^\s,]+)", re.MULTILINE)
_HOST = re.compile(r"([0-9a-f]{2}(?::[0-9a-f]{2}){5}).*?,(\d+\.\d+\.\d+\.\d+)", re.IGNORECASE)
_LEASE_FIELDS = ("expiry", "MAC", "address", "name", "client")
_START, _LET_GO = 5.0, 0.5


class Lease(NamedTuple):
    """A line of dnsmasq's lease file."""

    mac: str
    address: str
    client_id: str


class Dnsmasq:
    """The service ``dnsmasq``."""

    name = "dnsmasq"

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """Let ``dnsmasq --test`` read the configuration."""
        if not (staged / CONF).exists():
            return [Failure(CONF, f"{CONF} is missing.")] if _files(bundle) else []
        copy = staged.parent / "run" / "dnsmasq.test"
        copy.write_text(_absolute((staged / CONF).read_text(encoding="utf-8"), staged), encoding="utf-8")
        argv = ["dnsmasq", "--test", f"--conf-file={copy}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        copy.unlink()
        if done.returncode == 0:
            return []
        said = done.stderr.strip().removeprefix("dnsmasq: ").replace(str(copy), CONF).replace(f"{staged}/", "")
        line = re.search(r"line (\d+)", said)
        return [Failure(CONF, f"{CONF} line {line[1]}: {said}" if line else f"{CONF}: {said}")]

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Start, restart, signal or stop it, as little as the change asks for."""
        daemon, files, before = _daemon(place), _files(new), _files(old)
        if CONF not in files:
            daemon.stop()
            return []
        same = old is not None and before.get(CONF) == files[CONF] and daemon.pid() is not None
        if not same:
            return self._restart(place, before, files)
        stale = _stale(place.folder / "run", before, files)
        touched = {path for path in before.keys() | files.keys() if before.get(path) != files.get(path)}
        watched = tuple(f"{folder.rstrip('/')}/" for folder in _WATCHED.findall(files[CONF]))
        if any(not path.startswith(watched) for path in touched):  # inotify sees the others by itself
            daemon.signal(signal.SIGHUP)
        if stale and not _release(place, stale):
            return self._restart(place, before, files)
        return []

    def _restart(self, place: Place, before: dict[str, str], files: dict[str, str]) -> list[Failure]:
        daemon, run = _daemon(place), place.folder / "run"
        daemon.stop()
        run.mkdir(parents=True, exist_ok=True)
        conf, leases = run / "dnsmasq.conf", run / "dnsmasq.leases"
        conf.write_text(_absolute(files[CONF], place.current), encoding="utf-8")
        if stale := _stale(run, before, files):
            _forget_leases(leases, stale)
        argv = [
            "dnsmasq",
            "--keep-in-foreground",
            f"--conf-file={conf}",
            "--pid-file",
            f"--dhcp-leasefile={leases}",
            "--log-facility=-",
            "--quiet-dhcp",
            f"--user={_user(place.current)}",
        ]
        pid = daemon.start(argv, place.current)
        deadline = time.monotonic() + _START
        while "started, version" not in daemon.said(50):
            if daemon.pid() != pid or time.monotonic() > deadline:
                reason = daemon.said() or "it did not come up"
                daemon.stop()
                return [Failure(CONF, f"{CONF}: dnsmasq did not start: {reason.replace(str(conf), CONF)}")]
            time.sleep(0.003)
        return []

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Start it where it is gone."""
        files = _files(bundle)
        if CONF not in files or _daemon(place).pid() is not None:
            return []
        for failure in self._restart(place, {}, files):
            raise RuntimeError(failure.reason)
        return ["dnsmasq was gone and was started again"]

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Tell whether it runs."""
        if CONF not in _files(bundle):
            return Observation(bundle.target)
        reason = "" if _daemon(place).pid() else "dnsmasq does not run"
        return Observation(bundle.target, health=(("dnsmasq", reason),))

    def remove(self, place: Place) -> None:
        """Stop it."""
        _daemon(place).stop()


def _daemon(place: Place) -> Daemon:
    return Daemon("dnsmasq", place.namespace, place.folder / "run")


def _files(bundle: Bundle | None) -> dict[str, str]:
    return {file.path: file.content for file in bundle.files if file.service == "dnsmasq"} if bundle else {}


def _absolute(conf: str, folder: Path) -> str:
    return _RELATIVE.sub(lambda found: f"{found[1]}{folder}/{found[2]}", conf)


def _user(folder: Path) -> str:
    """Return whom it becomes once its sockets are open: its own user, if that one can reach the files at all.

    In a developer's private folder it cannot, and stays root inside the namespace.
    """
    try:
        pwd.getpwnam("dnsmasq")
    except KeyError:
        return "root"
    return "dnsmasq" if all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents)) else "root"


def _owners(files: dict[str, str]) -> dict[str, str]:
    """Return address → MAC of every host line."""
    return {found[2]: found[1].lower() for text in files.values() for found in _HOST.finditer(text)}


def _leases(run: Path) -> list[Lease]:
    """Read dnsmasq's lease file, which it truncates and writes again: what is read twice is whole."""
    text: str | None = None
    again = ""
    while text != again:
        text = again
        time.sleep(0.01)
        try:
            again = (run / "dnsmasq.leases").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
    rows = [line.split() for line in again.splitlines()]
    return [Lease(row[1].lower(), row[2], row[4]) for row in rows if len(row) == len(_LEASE_FIELDS)]


def _stale(run: Path, before: dict[str, str], files: dict[str, str]) -> list[Lease]:
    """Return the leases of guests that are gone, or whose address is another's now."""
    former, owners = _owners(before), _owners(files)
    return [
        lease
        for lease in _leases(run)
        if owners.get(lease.address, lease.mac) != lease.mac
        or (lease.address not in owners and former.get(lease.address) == lease.mac)
    ]


def _release(place: Place, stale: list[Lease]) -> bool:
    """Release leases in the name of those who hold them; return whether dnsmasq let go of all."""
    with netns.netlink(place.namespace) as ip:
        found = [(entry.get_attr("IFA_LOCAL"), entry["prefixlen"], entry["index"]) for entry in ip.get_addr(family=2)]
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
    own = [(ip_interface(f"{address}/{length}"), names[index]) for address, length, index in found]
    with netns.entered(place.namespace):
        for lease in stale:
            for interface, device in own:
                if ip_address(lease.address) in interface.network:
                    release(device, str(interface.ip), lease.address, lease.mac, lease.client_id)
    deadline = time.monotonic() + _LET_GO
    while set(stale) & set(_leases(place.folder / "run")):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _forget_leases(path: Path, stale: list[Lease]) -> None:
    """Take leases out of the file, for a dnsmasq that is about to read it."""
    gone = {lease.address for lease in stale}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not gone & set(line.split()[2:3])), encoding="utf-8")
