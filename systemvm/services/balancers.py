"""haproxy's configuration as values, and what its runtime API can do to come from one to the next. All of it is pure.

At runtime haproxy changes weights, certificates, and which servers a rule has; whatever else differs (a listener, an
algorithm, a timeout) asks for a reload. What must stay true: from a difference that is not wholly understood comes
a reload, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_DYNAMIC = ("roundrobin", "leastconn")
"""The algorithms that can take up servers and weights as they run (haproxy's management guide, section 9.3)."""
_NEVER_ADDED = "cookie"
"""The word of a server that haproxy takes from a file only."""


class Server(NamedTuple):
    """A line ``server``. ``words`` are what follows the address, but for the weight."""

    address: str
    weight: int
    words: tuple[str, ...]


class Section(NamedTuple):
    """A section: its lines in their order, but for those of its servers.

    :param common: the words of ``default-server``.
    :param balance: the algorithm.
    """

    lines: tuple[str, ...]
    common: tuple[str, ...]
    balance: str
    servers: Mapping[str, Server]


class Step(NamedTuple):
    """One thing to say to a runtime socket.

    :param command: as haproxy reads it; it may span lines.
    :param answers: what the answer contains when it was done; empty where nothing is answered then.
    """

    command: str
    answers: str = ""


class Difference(NamedTuple):
    """What the runtime API is to do: say the steps, and see the servers off that are gone.

    :param leaving: ``SECTION/SERVER``, which takes no new connection any more.
    """

    steps: tuple[Step, ...]
    leaving: tuple[str, ...]


def read(text: str) -> dict[str, Section]:
    """Read a configuration: its sections by their head, as ``listen NAME``."""
    found: dict[str, Section] = {}
    head, balance, lines, servers = "", "", list[str](), dict[str, Server]()
    common: tuple[str, ...] = ()
    for line in [*text.splitlines(), "end"]:
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if not line[0].isspace():
            if head:
                found[head] = Section(tuple(lines), common, balance, servers)
            head, balance, lines, servers, common = " ".join(words), "", [], {}, ()
        elif words[0] == "server":
            servers[words[1]] = _server(words[2:])
        else:
            lines.append(" ".join(words))
            if words[0] == "default-server":
                common = tuple(words[1:])
            elif words[0] == "balance":
                balance = " ".join(words[1:])
    return found


def _server(words: list[str]) -> Server:
    address, *rest = words
    weight = 1
    if "weight" in rest:
        at = rest.index("weight")
        weight = int(rest[at + 1])
        del rest[at : at + 2]
    return Server(address, weight, tuple(rest))


def difference(
    old: Mapping[str, str], new: Mapping[str, str], conf: str, there: Mapping[str, str]
) -> Difference | None:
    """Return what the runtime API is to do; None where only a reload will do.

    :param old: the files that haproxy runs with by path, and ``new`` those that it is to run with.
    :param conf: which of them is the configuration; the others are certificates.
    :param there: ``SECTION/SERVER`` → address of the servers that it has now, those that are leaving too.
    """
    if old.keys() != new.keys():
        return None
    steps = [step for path in sorted(new) if path != conf and old[path] != new[path] for step in _exchange(path, new)]
    before, after, leaving = read(old[conf]), read(new[conf]), list[str]()
    if before.keys() != after.keys():
        return None
    for head in after:
        changed = _section(head.partition(" ")[2], before[head], after[head], there)
        if changed is None:
            return None
        steps += changed.steps
        leaving += changed.leaving
    return Difference(tuple(steps), tuple(leaving))


def _exchange(path: str, files: Mapping[str, str]) -> list[Step]:
    """Put a certificate in another's place. An empty line would end the text."""
    pem = "\n".join(line for line in files[path].splitlines() if line.strip())
    return [Step(f"set ssl cert {path} <<\n{pem}\n", "created"), Step(f"commit ssl cert {path}", "Success")]


def _section(name: str, old: Section, new: Section, there: Mapping[str, str]) -> Difference | None:
    """Return what to do within a section; None where that cannot be."""
    if old == new:
        return Difference((), ())
    if old.lines != new.lines or new.balance not in _DYNAMIC:
        return None
    steps = list[Step]()
    for server, wanted in new.servers.items():
        what, had = f"{name}/{server}", old.servers.get(server)
        if had is None:
            added = _add(what, wanted, new.common, there)
            if added is None:
                return None
            steps += added
        elif had._replace(weight=0) != wanted._replace(weight=0):
            return None
        elif had.weight != wanted.weight:
            steps.append(Step(f"set server {what} weight {wanted.weight}"))
    leaving = tuple(f"{name}/{server}" for server in sorted(old.servers.keys() - new.servers.keys()))
    return Difference((*steps, *(Step(f"set server {what} state maint") for what in leaving)), leaving)


def _add(what: str, wanted: Server, common: tuple[str, ...], there: Mapping[str, str]) -> list[Step] | None:
    """Return how a server is taken up: one that was leaving comes back, another is made."""
    if what in there:
        if there[what] != wanted.address:
            return None
        return [Step(f"set server {what} weight {wanted.weight}"), Step(f"set server {what} state ready")]
    if _NEVER_ADDED in wanted.words:
        return None
    words = " ".join((*common, *wanted.words))
    steps = [Step(f"add server {what} {wanted.address} {words} weight {wanted.weight}", "New server registered")]
    if "check" in (*common, *wanted.words):
        steps.append(Step(f"enable health {what}"))
    return [*steps, Step(f"enable server {what}")]
