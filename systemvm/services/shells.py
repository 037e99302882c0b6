"""Shells: the namespaces that appliances live in, each with its cables into the host's segments.

What is inside (addresses, rules, daemons) belongs to the appliance's own target; here is only the machine around it.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from systemvm import links, netns
from systemvm.bundle import Bundle, Failure, Observation
from systemvm.ports import Bay, Port, counters
from systemvm.services import HostSettings, Place, drain, frr, handover, redundancy, segments


@dataclass(frozen=True, slots=True)
class Shell:
    """A shell as the bundle has it: see ``drivers.hypervisor.namespace.config.ShellConfig``."""

    id: str
    name: str
    running: bool
    boot: int
    ports: tuple[Port, ...]
    dark: bool = False
    follows: str = ""


def wanted(bundle: Bundle) -> tuple[Shell, ...]:
    """Return the shells of a bundle."""
    found = (json.loads(file.content) for file in bundle.files if file.service == Shells.name)
    return tuple(Shell(**(shell | {"ports": tuple(Port(**port) for port in shell["ports"])})) for shell in found)


class Shells:
    """The service that holds the shells of a host."""

    name = "shells"

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """See that the files are what the driver writes."""
        del place, staged
        try:
            wanted(bundle)
        except (ValueError, TypeError, KeyError) as error:
            return [Failure("shells", f"The shells cannot be read: {error}.")]
        return []

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Make, renew and remove shells; one that cannot be made is a failure of its own."""
        del old
        return self._bring_about(place.host, new)[1]

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Make again what was lost."""
        return self._bring_about(place.host, bundle)[0]

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Say of each shell whether it is there, and what its cables carried."""
        with netns.netlink(place.host.namespace) as ip:
            present = links.read(ip)
        shells = wanted(bundle)
        return Observation(
            bundle.target,
            counters=tuple(count for shell in shells if not shell.dark for count in counters(present, shell.ports)),
            states=tuple((shell.id, _state(place.host, shell)) for shell in shells),
        )

    def remove(self, place: Place) -> None:
        """Remove every shell of the host."""
        bay = segments.bay(place.host, None)
        for name in _recorded(place.host):
            _remove(place.host, bay, name)

    def _bring_about(self, host: HostSettings, bundle: Bundle) -> tuple[list[str], list[Failure]]:
        done: list[str] = []
        failures = []
        waiting: set[str] = set()
        shells = wanted(bundle)
        bay = segments.bay(host, bundle)
        kept = {shell.name for shell in shells if shell.running}
        for shell in shells:
            if shell.running and handover.is_due(host, bay, shell.name, shell.follows, shell.ports):
                try:
                    done += _take_over(host, bay, shell)
                except Exception as error:  # noqa: BLE001 - tried again; the one that it follows goes on serving
                    kept |= {shell.follows}
                    waiting |= {shell.name, shell.follows}
                    failures.append(Failure(shell.id, f"{shell.name} cannot take over from {shell.follows}: {error}"))
        for name in sorted(_recorded(host) - kept):
            _remove(host, bay, name)
            done.append(f"removed the shell {name}")
        for shell in shells:
            if not shell.running or shell.name in waiting:
                continue
            try:
                done += _ensure(host, bay, shell)
            except Exception as error:  # noqa: BLE001 - one shell's trouble is not the others'
                failures.append(Failure(shell.id, f"The shell {shell.name} cannot be made: {error}"))
        return done + segments.prune(host, bundle, bay.present), failures


def _folder(host: HostSettings) -> Path:
    return host.state / "shells"


def _recorded(host: HostSettings) -> set[str]:
    return {path.stem for path in _folder(host).glob("*.boot")}


def _ensure(host: HostSettings, bay: Bay, shell: Shell) -> list[str]:
    record = _folder(host) / f"{shell.name}.boot"
    space = host.prefix + shell.name
    if record.exists() and int(record.read_text() or 0) < shell.boot:
        _remove(host, bay, shell.name)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(str(shell.boot))
    done = [f"made the shell {shell.name}"] if netns.ensure(space) else []
    if done:
        _trust_addresses(space)
    plugged = bay.plug(space, shell.ports, up=True, dark=shell.dark)
    if plugged and not shell.dark:
        handover.announce_addresses(space)  # it may have been made in the dark, and served elsewhere until now
    return done + plugged


def _take_over(host: HostSettings, bay: Bay, shell: Shell) -> list[str]:
    """Make the shell in the dark where it is not there, and hand it what the one has that it follows."""
    whole = netns.exists(host.prefix + shell.name) and all(port.port in bay.present for port in shell.ports)
    done = [] if whole else _ensure(host, bay, replace(shell, dark=True))
    return done + handover.take_over(host, bay, shell.name, shell.follows, shell.ports)


def _state(host: HostSettings, shell: Shell) -> str:
    space = host.prefix + shell.name
    if not netns.exists(space):
        return "absent"
    if not shell.dark:
        return "running"
    return "dark" if drain.busy(space) else "drained"


def _trust_addresses(space: str) -> None:
    """Have every interface to come use its IPv6 addresses at once: they are unique by the control plane's tables."""
    with netns.entered(space), suppress(FileNotFoundError):
        Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")


def _remove(host: HostSettings, bay: Bay, name: str) -> None:
    space = host.prefix + name
    place = Place(name, space, host.state / "targets" / name, host)
    drain.end(host, space)
    frr.take_leave(place)
    redundancy.take_leave(place)
    bay.unplug(space)
    end_processes(space)
    netns.ensure_no(space)
    (_folder(host) / f"{name}.boot").unlink(missing_ok=True)


def end_processes(space: str) -> None:
    """End whatever still runs in a namespace: it would keep it alive without a name."""
    if not netns.exists(space):
        return
    inode = Path(f"{netns.FOLDER}/{space}").stat().st_ino
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended by itself meanwhile
            if (process / "ns/net").stat().st_ino == inode and int(process.name) != os.getpid():
                os.kill(int(process.name), signal.SIGKILL)
