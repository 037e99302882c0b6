"""strongswan: a target's tunnels. A change reaches the running daemon over vici, so the other tunnels stay up.

``strongswan/connections.json`` holds, in vici's own words, what the daemon is to have: ``connections``, ``secrets``,
``keys``, ``pools``; besides ``initiate`` (connection → children that this side brings up), ``resets`` (a higher number
means begin anew), ``routes``, and ``l2tp``: what comes to these where the host can do L2TP. What was loaded is noted
with digests beside the daemon, so that loading is repeatable and touches what differs only. A connection that is up is
never touched by the change of another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import vici
from vici.exception import CommandException, SessionException

from systemvm.bundle import Bundle, Failure, Observation
from systemvm.services import Place, l2tp
from systemvm.services.charon import Charon, impossible, text
from systemvm.services.dialling import Dialling
from systemvm.services.redundancy import turn
from systemvm.tally import Count, Tally

FILE = "strongswan/connections.json"
_SECTIONS = ("connections", "secrets", "keys", "pools", "initiate", "resets", "routes", "l2tp")
_UP = "INSTALLED", "REKEYING", "REKEYED", "UPDATING"
Wanted = Mapping[str, Any]
Note = dict[str, dict[str, str]]
"""Kind of thing → its name → the digest of what was loaded under this name."""


class Strongswan:
    """The service ``strongswan``."""

    name = "strongswan"

    def __init__(self) -> None:
        self._dialling = Dialling()
        self._tallies: dict[Path, Tally] = {}
        self._turns: dict[Path, str] = {}

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """Read the file, and ask the daemon, where it runs, whether it has all the algorithms."""
        if not _has(bundle):
            return []
        try:
            wanted = l2tp.added(read((staged / FILE).read_text(encoding="utf-8")), place.namespace)
        except (ValueError, OSError) as error:
            return [Failure(FILE, f"{FILE}: {error}")]
        charon = Charon(place)
        return _refused(charon, wanted) if charon.answers() else []

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Tell the daemon what differs; start it with the first connection, and stop it after the last."""
        charon = Charon(place)
        if not _has(new):
            self._stop(place, charon)
            return []
        wanted = _read(place)
        if not charon.answers():
            self._fold(place)
            charon.start()
        failures = _refused(charon, wanted)
        if failures:
            return failures
        charon.set_routes(wanted["routes"]["from"], wanted["routes"]["to"])
        try:
            if _load(charon, wanted):
                self._dialling.forget(place.folder)  # what failed before may go well now
        except CommandException as error:
            return [Failure(FILE, f"{FILE}: charon refused it: {error}")]
        self._dial(place, charon, wanted)
        return []

    def _stop(self, place: Place, charon: Charon) -> None:
        self._dialling.forget(place.folder)
        charon.daemon.stop()
        if charon.run.exists() and place.namespace:
            with suppress(OSError):  # the namespace may be gone before
                charon.set_routes((), ())

    def _dial(self, place: Place, charon: Charon, wanted: Wanted) -> None:
        """Have what is down brought up; of two routers of one owner, by the one that holds the address."""
        now = turn(place)
        stale = self._turns.get(place.folder, now) != now
        self._turns[place.folder] = now
        held = charon.addresses() if now else frozenset()
        with charon.session() as session:
            sas = list(_associations(session))
            for name, association in sas:
                if name in wanted["connections"] and (stale or not _held(wanted, name, held)):
                    _terminate(session, association)  # the peer speaks to the other router, or will
            sas = [] if stale else sas
        for name, children in wanted["initiate"].items():
            down = [child for child in children if not _installed(sas, name, child)]
            waiting = _connecting(sas, name) or not _held(wanted, name, held)
            self._dialling.keep(charon, name, [] if waiting else down)

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Start the daemon where it is gone, load what it lacks, and dial what is down."""
        if not _has(bundle):
            return []
        charon, wanted, said = Charon(place), _read(place), []
        if not charon.answers():
            self._fold(place)
            charon.start()
            said.append("charon was gone and was started again")
        charon.trim_log()
        repaired = charon.set_routes(wanted["routes"]["from"], wanted["routes"]["to"]) + _load(charon, wanted)
        said = said or repaired
        self._dial(place, charon, wanted)
        return said

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Read the state and the bytes of each connection, as the daemon has them, and which users are connected."""
        if not _has(bundle):
            return Observation(bundle.target)
        charon, wanted = Charon(place), _read(place)
        try:
            with charon.session() as session:
                sas, reason = list(_associations(session)), ""
        except (OSError, SessionException):
            sas, reason = [], "charon does not answer on its socket"
        states = {
            name: self._state(place, name, connection, sas)
            for name, connection in wanted["connections"].items()
            if "remote_addrs" in connection  # a site: people who dial have states of their own
        }
        for name, association in sas:
            if user := _user(wanted, name, association):
                states[f"{name}/{user}"] = "Connected"
        totals = self._tally(place).read(_counts(sas, wanted))
        counters = tuple((name, *count) for name, count in totals.items())
        return Observation(bundle.target, (("strongswan", reason),), counters, tuple(states.items()))

    def _state(self, place: Place, name: str, connection: Mapping[str, Any], sas: list[Any]) -> str:
        """Return ``Connected``, ``Connecting``, ``Disconnected``, or ``Error: `` and why."""
        down = [child for child in connection["children"] if not _installed(sas, name, child)]
        if not down:
            return "Connected"
        reason = self._dialling.reason(place.folder, name)
        if reason:
            return f"Error: {reason}"
        return "Connecting" if any(found == name for found, _ in sas) else "Disconnected"

    def remove(self, place: Place) -> None:
        """Stop the daemon, which closes its tunnels."""
        self._tallies.pop(place.folder, None)
        self._turns.pop(place.folder, None)
        self._dialling.forget(place.folder)
        Charon(place).daemon.stop()

    def _tally(self, place: Place) -> Tally:
        if place.folder not in self._tallies:
            self._tallies[place.folder] = Tally(place.folder / "run" / "counters-strongswan.json")
        return self._tallies[place.folder]

    def _fold(self, place: Place) -> None:
        self._tally(place).fold()


def read(content: str) -> Wanted:
    """Read the file.

    :raises ValueError: a section is missing, or it is no JSON.
    """
    wanted = json.loads(content)
    if missing := [section for section in _SECTIONS if section not in wanted]:
        raise ValueError(f"it has no {', '.join(missing)}.")
    return wanted  # type: ignore[no-any-return]


def _read(place: Place) -> Wanted:
    return l2tp.added(read((place.current / FILE).read_text(encoding="utf-8")), place.namespace)


def _has(bundle: Bundle) -> bool:
    return any(file.path == FILE for file in bundle.files)


def _refused(charon: Charon, wanted: Wanted) -> list[Failure]:
    with charon.session() as session:
        algorithms = {kind: [text(name) for name in names] for kind, names in session.get_algorithms().items()}
    failures = []
    for name, connection in wanted["connections"].items():
        parts = [connection, *connection["children"].values()]
        proposals = [item for part in parts for key in ("proposals", "esp_proposals") for item in part.get(key, ())]
        if words := impossible(proposals, algorithms):
            reason = f"the daemon has no algorithm for {', '.join(words)} of its proposals"
            failures.append(Failure(FILE, f"{FILE}: connection {name}: {reason}."))
    return failures


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _load(charon: Charon, wanted: Wanted) -> list[str]:
    """Bring the daemon to what is wanted of it; return what was changed.

    :raises CommandException: it will not have something.
    """
    note, goal = _noted(charon), _goal(wanted)
    with charon.session() as session:
        there = {
            "secrets": {text(name) for name in session.get_shared().get("keys", ())},
            "keys": set(note.get("keys", {})),
            "pools": {text(name) for name in session.get_pools()},
            "connections": {text(name) for name in session.get_conns().get("conns", ())},
        }
        same = {
            kind: {name for name in there[kind] & goal[kind].keys() if note.get(kind, {}).get(name) == goal[kind][name]}
            for kind in goal
        }
        done = [f"{kind} {name}" for kind in goal for name in sorted((goal[kind].keys() | there[kind]) - same[kind])]
        if done:
            _put(session, wanted, {kind: goal[kind].keys() - same[kind] for kind in goal})
            _take(session, wanted, {kind: there[kind] - goal[kind].keys() for kind in goal})
            _write(charon, goal)
        changed = {kind: there[kind] - same[kind] for kind in goal}
        _cut_off(session, wanted, changed)
    return done


def _goal(wanted: Wanted) -> Note:
    resets = wanted["resets"]
    kinds = "secrets", "keys", "pools"
    goal = {kind: {name: _digest(value) for name, value in wanted[kind].items()} for kind in kinds}
    connections = {name: _digest([value, resets.get(name, 0)]) for name, value in wanted["connections"].items()}
    return {**goal, "connections": connections}


def _put(session: vici.Session, wanted: Wanted, fresh: Mapping[str, set[str]]) -> None:
    for name in sorted(fresh["secrets"]):
        session.load_shared({"id": name, **wanted["secrets"][name]})
    for name in sorted(fresh["keys"]):
        session.load_key({"type": "any", "data": wanted["keys"][name]})
    for name in sorted(fresh["pools"]):
        session.load_pool({name: wanted["pools"][name]})
    for name in sorted(fresh["connections"]):
        session.load_conn({name: wanted["connections"][name]})


def _take(session: vici.Session, wanted: Wanted, gone: Mapping[str, set[str]]) -> None:
    for name in sorted(gone["connections"]):
        session.unload_conn({"name": name})
    for name in sorted(gone["secrets"]):
        session.unload_shared({"id": name})
    if gone["keys"]:  # the daemon names them in its own way: all go, and those that stay come back
        for key in session.get_keys().get("keys", ()):
            session.unload_key({"id": key})
        for key in wanted["keys"].values():
            session.load_key({"type": "any", "data": key})


def _cut_off(session: vici.Session, wanted: Wanted, changed: Mapping[str, set[str]]) -> None:
    """Close what must not go on: connections that are gone or changed, and users that are gone or changed."""
    secrets: Mapping[str, Mapping[str, Any]] = wanted["secrets"]
    users = {
        secret["owners"][0]
        for name, secret in secrets.items()
        if secret["type"] == "EAP" and name not in changed["secrets"]
    }
    for name, association in list(_associations(session)):
        user = _user(wanted, name, association)
        stale = name in changed["connections"] or name in changed["secrets"]
        if name not in wanted["connections"] or stale or (user and user not in users):
            _terminate(session, association)
    for pool in {text(name) for name in session.get_pools()} - wanted["pools"].keys():
        with suppress(CommandException):  # its last lease is still being given back: the next look takes it
            session.unload_pool({"name": pool})


def _terminate(session: vici.Session, association: Mapping[str, Any]) -> None:
    number = text(association["uniqueid"])
    with suppress(CommandException):  # it closed by itself
        list(session.terminate({"ike-id": number, "force": "yes", "timeout": "-1", "loglevel": "-1"}))


def _held(wanted: Wanted, name: str, addresses: frozenset[str]) -> bool:
    """Tell whether this router holds the address of a connection: a standby, or one in the making, does not."""
    return not addresses.isdisjoint(wanted["connections"][name]["local_addrs"])


def _noted(charon: Charon) -> Note:
    """Return what was loaded into this very process; empty for a fresh one."""
    try:
        pid, note = json.loads((charon.run / "charon.loaded").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}
    return note if pid == charon.daemon.pid() else {}


def _write(charon: Charon, note: Note) -> None:
    fresh = charon.run / "charon.loaded.new"
    fresh.write_text(json.dumps([charon.daemon.pid(), note]), encoding="ascii")
    fresh.replace(charon.run / "charon.loaded")


def _associations(session: vici.Session) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for found in session.list_sas():
        for name, association in found.items():
            yield text(name), association


def _user(wanted: Wanted, name: str, association: Mapping[str, Any]) -> str:
    """Return who dialled; empty for a site, and for somebody who has not shown yet who it is."""
    if "pools" not in wanted["connections"].get(name, ()) or association["state"] != b"ESTABLISHED":
        return ""
    return text(association.get("remote-eap-id") or association["remote-id"])  # told apart where they differ only


def _connecting(sas: list[tuple[str, Mapping[str, Any]]], name: str) -> bool:
    return any(found == name and association["state"] in (b"CREATED", b"CONNECTING") for found, association in sas)


def _installed(sas: list[tuple[str, Mapping[str, Any]]], name: str, child: str) -> bool:
    return any(
        text(part["name"]) == child and text(part["state"]) in _UP
        for found, association in sas
        if found == name
        for part in association.get("child-sas", {}).values()
    )


def _counts(sas: list[tuple[str, Mapping[str, Any]]], wanted: Wanted) -> dict[str, Count]:
    """Return connection → (packets, bytes) in both directions."""
    counts: dict[str, Count] = dict.fromkeys(wanted["connections"], (0, 0))
    for name, association in sas:
        for part in association.get("child-sas", {}).values():
            packets, size = counts.get(name, (0, 0))
            for way in ("in", "out"):
                packets += int(part.get(f"packets-{way}", 0))
                size += int(part.get(f"bytes-{way}", 0))
            counts[name] = packets, size
    return {name: count for name, count in counts.items() if name in wanted["connections"]}
