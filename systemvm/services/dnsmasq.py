"""dnsmasq: a target's DHCP and DNS. Host files are read again without a gap; a changed configuration restarts it.

dnsmasq leaves its working directory when it starts, so its configuration names no path: ``dnsmasq/dhcp-hosts`` and
``dnsmasq/hosts`` are named on the command line. See dnsmasq(8).
"""

from __future__ import annotations

import pwd
import re
import signal
import subprocess
import time
from ipaddress import ip_address, ip_interface
from pathlib import Path

from systemvm import netns
from systemvm.bundle import Bundle, Failure, Observation
from systemvm.daemon import Daemon
from systemvm.services import Place
from systemvm.services.dhcp_release import release

CONF = "dnsmasq/dnsmasq.conf"
LEASES, NAMES = "dnsmasq/dhcp-hosts", "dnsmasq/hosts"
_OPTIONS = {LEASES: "dhcp-hostsfile", NAMES: "addn-hosts"}
_HOST = re.compile(r"^([0-9a-f]{2}(?::[0-9a-f]{2}){5}),.*?\b(\d+\.\d+\.\d+\.\d+)\b", re.IGNORECASE | re.MULTILINE)
_HOST6 = re.compile(r"^([0-9a-f]{2}(?::[0-9a-f]{2}){5}),.*?\[([0-9a-f:]+)\],(.*)$", re.IGNORECASE | re.MULTILINE)
_START = 5.0


class Dnsmasq:
    """The service ``dnsmasq``."""

    name = "dnsmasq"

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """Let ``dnsmasq --test`` read the configuration."""
        if not (staged / CONF).exists():
            return [Failure(CONF, f"{CONF} is missing.")] if _files(bundle) else []
        argv = ["dnsmasq", "--test", *_named(staged, _files(bundle))]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode == 0:
            return []
        said = done.stderr.strip().removeprefix("dnsmasq: ").replace(f"{staged}/", "")
        line = re.search(r"line (\d+)", said)
        return [Failure(CONF, f"{CONF} line {line[1]}: {said}" if line else f"{CONF}: {said}")]

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Start, restart, signal or stop it, as little as the change asks for."""
        daemon, files, before = _daemon(place), _files(new), _files(old)
        if CONF not in files:
            daemon.stop()
            return []
        named = before.keys() & _OPTIONS.keys() == files.keys() & _OPTIONS.keys()
        anew = old is None or not named or before.get(CONF) != files[CONF] or _gone6(before, files)
        if anew or daemon.pid() is None:
            return self._restart(place, files)
        if before != files:
            daemon.signal(signal.SIGHUP)
            _release(place, _gone(before, files))
        return []

    def _restart(self, place: Place, files: dict[str, str]) -> list[Failure]:
        daemon, run = _daemon(place), place.folder / "run"
        daemon.stop()
        run.mkdir(parents=True, exist_ok=True)
        (run / "dnsmasq.leases").unlink(missing_ok=True)  # every address is given by the files
        argv = [
            "dnsmasq",
            "--keep-in-foreground",
            "--pid-file",
            f"--dhcp-leasefile={run}/dnsmasq.leases",
            "--log-facility=-",
            "--quiet-dhcp",
            f"--user={_user(place.current)}",
            *_named(place.current, files),
        ]
        pid = daemon.start(argv, place.current)
        deadline = time.monotonic() + _START
        while "started, version" not in daemon.said(50):
            if daemon.pid() != pid or time.monotonic() > deadline:
                reason = daemon.said() or "it did not come up"
                daemon.stop()
                return [Failure(CONF, f"{CONF}: dnsmasq did not start: {reason}")]
            time.sleep(0.003)
        return []

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Start it where it is gone."""
        files = _files(bundle)
        if CONF not in files or _daemon(place).pid() is not None:
            return []
        for failure in self._restart(place, files):
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


def _named(folder: Path, files: dict[str, str]) -> list[str]:
    """Return the arguments that name the files that are there."""
    options = {CONF: "conf-file"} | _OPTIONS
    return [f"--{option}={folder / path}" for path, option in options.items() if path in files]


def _user(folder: Path) -> str:
    """Return whom it becomes once its sockets are open: its own user, if that one can reach the files at all.

    In a developer's private folder it cannot, and stays root inside the namespace.
    """
    try:
        pwd.getpwnam("dnsmasq")
    except KeyError:
        return "root"
    return "dnsmasq" if all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents)) else "root"


def _gone(before: dict[str, str], files: dict[str, str]) -> list[tuple[str, str]]:
    """Return (MAC, address) of the hosts that are gone, or are another's now."""
    former, now = (set(_HOST.findall(texts.get(LEASES, ""))) for texts in (before, files))
    return sorted(former - now)


def _gone6(before: dict[str, str], files: dict[str, str]) -> bool:
    """Tell whether an IPv6 address is gone, or is another's now: its lease cannot be released in its guest's name.

    A DHCPv6 client signs with an identity of its own (RFC 8415, 11), which only a new dnsmasq forgets.
    """
    former, now = (set(_HOST6.findall(texts.get(LEASES, ""))) for texts in (before, files))
    return not former <= now


def _release(place: Place, gone: list[tuple[str, str]]) -> None:
    """Release in the name of each what it may hold; a running dnsmasq would keep its lease, address and name."""
    if not gone:
        return
    with netns.netlink(place.namespace) as ip:
        found = [(entry.get_attr("IFA_LOCAL"), entry["prefixlen"], entry["index"]) for entry in ip.get_addr(family=2)]
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
    own = [(ip_interface(f"{address}/{length}"), names[index]) for address, length, index in found]
    with netns.entered(place.namespace):
        for mac, address in gone:
            for interface, device in own:
                if ip_address(address) in interface.network:
                    release(device, str(interface.ip), address, mac)
