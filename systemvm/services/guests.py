"""Guests: the containers of a host, each a unit of its own.

What must stay true: one guest's trouble never touches another; a guest outlives the agent; one that died stays dead
until the control plane asks for it again (a higher ``boot``), so that whoever decides over high availability hears of
it. Only when its namespace is gone too (the host was started anew) is it rebuilt without being asked.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from systemvm import cgroup, links, netns
from systemvm.bundle import Bundle, Failure, Observation
from systemvm.cgroup import Limits
from systemvm.container import Container, Record
from systemvm.images import Images
from systemvm.ports import Bay, Port, counters
from systemvm.services import HostSettings, Place, segments

_AT_ONCE = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest as the bundle has it: see ``drivers.hypervisor.namespace.config.GuestConfig``."""

    id: str
    name: str
    hostname: str
    running: bool
    boot: int
    image: str
    image_checksum: str
    cpus: int
    mhz: int
    memory: int
    ports: tuple[Port, ...]

    @property
    def template(self) -> str:
        """What it is made from, as far as the control plane says it."""
        return f"{self.image} {self.image_checksum}".strip()


def wanted(bundle: Bundle) -> tuple[Guest, ...]:
    """Return the guests of a bundle."""
    found = (json.loads(file.content) for file in bundle.files if file.service == Guests.name)
    return tuple(Guest(**(guest | {"ports": tuple(Port(**port) for port in guest["ports"])})) for guest in found)


def folder(host: HostSettings) -> Path:
    """Return where the guests of a host have their folders, each by its UUID."""
    return host.state.absolute() / "guests"


def images(host: HostSettings) -> Images:
    """Return the templates that the host has unpacked."""
    return Images(host.state.absolute() / "images")


class Guests:
    """The service that holds the guests of a host."""

    name = "guests"

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """See that the files are what the driver writes."""
        del place, staged
        try:
            wanted(bundle)
        except (ValueError, TypeError, KeyError) as error:
            return [Failure("guests", f"The guests cannot be read: {error}.")]
        return []

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Start, stop, change and remove guests; each that fails is a failure of its own."""
        del old
        return self._bring_about(place.host, new)[1]

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Put back what was lost; a guest that died by itself is left for :meth:`observe` to tell."""
        done, failures = self._bring_about(place.host, bundle)
        for failure in failures:
            _log.warning("%s: %s", failure.unit, failure.reason)
        return done

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Say of each guest whether it runs, and what its cables carried."""
        with netns.netlink(place.host.namespace) as ip:
            present = links.read(ip)
        guests = wanted(bundle)
        lacking = cgroup.missing()
        reason = f"This machine has no cgroup controller for {', '.join(lacking)}: guests are not limited in it."
        return Observation(
            bundle.target,
            health=(("limits", reason if lacking else ""),),
            counters=tuple(count for guest in guests for count in counters(present, guest.ports)),
            states=tuple((guest.id, _state(Container(folder(place.host) / guest.id))) for guest in guests),
        )

    def remove(self, place: Place) -> None:
        """Stop every guest of the host; their files stay, as the host may be wanted again."""
        bay = segments.bay(place.host, None)
        _each([partial(_put_away, bay, Container(path)) for path in folder(place.host).glob("*")])

    def _bring_about(self, host: HostSettings, bundle: Bundle) -> tuple[list[str], list[Failure]]:
        guests = wanted(bundle)
        bay = segments.bay(host, bundle)
        keep = {guest.id for guest in guests}
        gone = sorted(path.name for path in folder(host).glob("*") if path.name not in keep)
        work = {name: partial(_destroy, host, bay, name) for name in gone}
        work |= {guest.id: partial(_ensure, host, bay, guest) for guest in guests}
        done: list[str] = []
        failures = []
        for unit, result in zip(work, _each(list(work.values())), strict=True):
            if isinstance(result, Exception):
                failures.append(Failure(unit, str(result) or type(result).__name__))
            else:
                done += result
        if gone:
            records = (Container(path).record for path in folder(host).glob("*"))
            images(host).prune(record.root for record in records if record)
        return done + segments.prune(host, bundle, bay.present), failures


def _each(work: Sequence[Callable[[], list[str]]]) -> list[list[str] | Exception]:
    """Do each thing for itself, a few at once: a slow stop or a broken guest holds up nobody else."""

    def one(thing: Callable[[], list[str]]) -> list[str] | Exception:
        try:
            return thing()
        except Exception as error:  # noqa: BLE001 - told as that unit's failure
            return error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(one, work))


def _state(container: Container) -> str:
    record = container.record
    if record is None:
        return "absent"
    return "running" if record.running else "stopped"


def _ensure(host: HostSettings, bay: Bay, guest: Guest) -> list[str]:
    container = Container(folder(host) / guest.id)
    record = container.record
    space = host.prefix + guest.name
    if record is None or record.pid == 0:
        return _start(host, bay, guest, container) if guest.running else []
    if not guest.running:
        _stop(bay, container, record)
        return [f"stopped {guest.name}"]
    if record.boot < guest.boot or not netns.exists(space):
        _stop(bay, container, record)
        return _start(host, bay, guest, container)
    return bay.plug(space, guest.ports) if record.running else []


def _start(host: HostSettings, bay: Bay, guest: Guest, container: Container) -> list[str]:
    space = host.prefix + guest.name
    root = _root(host, guest, container)
    record = Record(guest.name, guest.hostname, space, guest.template, root, guest.boot)
    container.write(record)
    try:
        netns.ensure(space)
        bay.plug(space, guest.ports)
        container.start(record, Limits(guest.memory, guest.cpus, guest.mhz))
    except BaseException:
        _stop(bay, container, record)
        raise
    return [f"started {guest.name}"]


def _root(host: HostSettings, guest: Guest, container: Container) -> str:
    """Return the template's root that the guest lies over: for its life the one that it was made from.

    The archive may be gone by then. Another template means a new root disk (restoreVirtualMachine): its files go.
    """
    record = container.record
    if record and record.image == guest.template and Path(record.root).is_dir():
        return record.root
    root = str(images(host).ensure(guest.image, guest.image_checksum))
    if record:
        container.wipe()
    return root


def _stop(bay: Bay, container: Container, record: Record) -> None:
    container.stop()
    bay.unplug(record.space)
    netns.ensure_no(record.space)


def _put_away(bay: Bay, container: Container) -> list[str]:
    record = container.record
    if record:
        _stop(bay, container, record)
    return []


def _destroy(host: HostSettings, bay: Bay, name: str) -> list[str]:
    container = Container(folder(host) / name)
    record = container.record
    container.destroy()
    if record:
        bay.unplug(record.space)
        netns.ensure_no(record.space)
    return [f"destroyed {record.name if record else name}"]
