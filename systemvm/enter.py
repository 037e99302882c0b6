"""Enter a guest, an appliance or the zone's internet from the machine that holds them, to run a command inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from systemvm import netns
from systemvm.container import Container, Record

_IN_CONTAINER = ("--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd")


def command(where: str, argv: Sequence[str], *, prefix: str, states: Iterable[Path]) -> list[str]:
    """Return the command line that runs ``argv`` there, for ``os.execvp`` or ``subprocess.run``.

    :param where: ``vm/NAME`` (instance or host name), ``router/NAME``, ``host/NAME`` or ``internet``.
    :param prefix: of the zone's namespaces; ``states`` the state folders of the agents on this machine.
    :raises LookupError: there is no such place, or it does not run; the sentence says which there are.
    """
    kind, _, name = where.partition("/")
    if kind == "vm" and name:
        record = _guest(name, states)
        return ["nsenter", f"--target={record.pid}", *_IN_CONTAINER, *argv]
    if where != "internet" and not (kind in ("router", "host") and name):
        raise LookupError(f"{where!r} is no place: write vm/NAME, router/NAME, host/NAME or internet.")
    space = prefix + (name or kind)
    if kind == "router":
        space = _newest(space)
    if not netns.exists(space):
        there = ", ".join(found.removeprefix(prefix) for found in netns.names(prefix)) or "none"
        raise LookupError(f"There is no {where} on this machine. Its namespaces are: {there}.")
    return ["ip", "netns", "exec", space, *argv]


def _newest(space: str) -> str:
    """Return the shell that a router has now: one that was rebooted has a number behind its name."""
    again = [found for found in netns.names(f"{space}-") if found.removeprefix(f"{space}-").isdigit()]
    return max(again, key=lambda found: int(found.rpartition("-")[2]), default=space)


def _guest(name: str, states: Iterable[Path]) -> Record:
    records = list(_records(states))
    found = [record for record in records if name in (record.name, record.hostname)]
    running = [record for record in found if record.running]
    if len(running) == 1:
        return running[0]
    if running:
        names = ", ".join(sorted(record.name for record in running))
        raise LookupError(f"Several guests have the host name {name}: say which by its instance name, of {names}.")
    if found:
        raise LookupError(f"The guest {name} does not run.")
    names = ", ".join(sorted(record.name for record in records)) or "none"
    raise LookupError(f"There is no guest {name} on this machine. Its guests are: {names}.")


def _records(states: Iterable[Path]) -> Iterator[Record]:
    for state in states:
        for folder in sorted((state / "guests").glob("*")):
            if record := Container(folder).record:
                yield record
