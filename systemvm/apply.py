"""Apply: refuse what is older, stage all, check all, swap, activate only what changed, or restore; then the ledger.

Two things make every crash repairable. A mark in the target's folder tells that a swap began; whoever finds it takes
nothing for granted and activates from nothing (``old=None``), which every service can do. And the ledger holds the
whole bundle, so the former state can be restored, or repaired, without the control plane.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from systemvm import tree
from systemvm.bundle import Bundle, Failure, Observation, Outcome
from systemvm.ledger import Ledger
from systemvm.services import HostSettings, Place, Service

_log = logging.getLogger(__name__)

Verdict = Literal["apply", "unchanged"]


class Refused(ValueError):
    """The bundle may not be applied on top of what is there."""


def decide(held: Bundle | None, wanted: Bundle, *, torn: bool = False) -> Verdict:
    """Decide what a bundle asks for, given what the target stands at.

    :param torn: the last apply did not come to its end.
    :raises Refused: it is older than what is there, or is another state under the same generation.
    """
    if held is None:
        return "apply"
    if wanted.generation < held.generation:
        raise Refused(f"Generation {wanted.generation} of {wanted.name} is older than {held.generation}, in force.")
    if wanted.generation == held.generation and wanted.digest != held.digest:
        raise Refused(
            f"Generation {wanted.generation} of {wanted.name} is in force with another content "
            f"({held.digest[:12]}, not {wanted.digest[:12]}): a change needs a higher generation."
        )
    return "unchanged" if wanted.digest == held.digest and not torn else "apply"


def changed(old: Bundle | None, new: Bundle, services: Sequence[Service]) -> tuple[Service, ...]:
    """Return the services whose files or elements differ between two bundles; all of them from nothing."""
    if old is None:
        return tuple(services)
    parts = [_parts(bundle) for bundle in (old, new)]
    return tuple(service for service in services if parts[0].get(service.name) != parts[1].get(service.name))


def _parts(bundle: Bundle) -> dict[str, object]:
    parts: dict[str, object] = {}
    for service in {file.service for file in bundle.files} | ({"nft"} if bundle.elements else set()):
        files = sorted((file.path, file.content, file.secret) for file in bundle.files if file.service == service)
        parts[service] = (files, bundle.elements if service == "nft" else ())
    return parts


class Applier:
    """Applies bundles to targets of this machine. One call at a time per target; different targets in parallel."""

    def __init__(
        self,
        settings: HostSettings,
        ledger: Ledger,
        kinds: Mapping[str, Sequence[Service]],
        partial: frozenset[str] = frozenset(),
    ) -> None:
        """Work with these services.

        :param partial: kinds whose failures are those of single units: nothing is restored then.
        """
        self._settings = settings
        self.ledger = ledger
        self._kinds = kinds
        self._partial = partial

    def place(self, bundle: Bundle) -> Place:
        """Return where the target lives."""
        if not bundle.name or not all(letter.isalnum() or letter in "-_." for letter in bundle.name):
            raise ValueError(f"The name {bundle.name!r} is refused: letters, digits, dashes and dots are allowed.")
        host = bundle.kind == "host"
        namespace = self._settings.namespace if host else self._settings.prefix + bundle.name
        return Place(bundle.name, namespace, self._settings.state / "targets" / bundle.name, self._settings)

    def apply(self, wanted: Bundle) -> Outcome:
        """Bring a target to what is wanted of it. Never raises: the outcome says what went wrong."""
        began = time.monotonic()
        try:
            outcome = self._apply(wanted)
        except Refused as error:
            outcome = _outcome(wanted, "refused", [Failure("bundle", str(error))])
        except Exception as error:  # noqa: BLE001 - any failure is an outcome
            _log.exception("%s could not be applied", wanted.name)
            outcome = _outcome(wanted, "failed", [Failure("bundle", str(error) or repr(error))])
        return replace(outcome, seconds=round(time.monotonic() - began, 4))

    def _apply(self, wanted: Bundle) -> Outcome:
        held, place = self.ledger.get(wanted.target), self.place(wanted)
        if wanted.absent:
            return self._take_down(held, wanted)
        services = self._services(wanted)
        torn = tree.torn(place)
        if decide(held, wanted, torn=torn) == "unchanged":
            if held is None or held.generation != wanted.generation:
                self.ledger.put(wanted)
            return _outcome(wanted, "unchanged")
        staged = tree.stage(place, wanted)
        old = None if torn else held
        touched = changed(old, wanted, services)
        failures = [failure for service in touched for failure in self._check(service, place, staged, wanted)]
        if failures and wanted.kind not in self._partial:
            shutil.rmtree(staged, ignore_errors=True)
            return _outcome(wanted, "failed", failures)
        tree.swap(place, staged, wanted)
        done, broken = self._activate(touched, place, old, wanted)
        failures = list(dict.fromkeys(failures + broken))
        if failures and wanted.kind not in self._partial:
            failures += self._restore(done, place, held)
            return _outcome(wanted, "failed", failures)
        self.ledger.put(wanted)
        tree.settle(place)
        return _outcome(wanted, "applied", failures, [service.name for service in touched])

    def _services(self, bundle: Bundle) -> Sequence[Service]:
        services = self._kinds.get(bundle.kind)
        if services is None:
            known = ", ".join(sorted(self._kinds))
            raise ValueError(f"{bundle.name} is a {bundle.kind}, which this agent cannot apply; it can apply: {known}.")
        if strangers := {file.service for file in bundle.files} - {service.name for service in services}:
            raise ValueError(f"No service of a {bundle.kind} is called {', '.join(sorted(strangers))}.")
        return services

    def _check(self, service: Service, place: Place, staged: Path, wanted: Bundle) -> list[Failure]:
        try:
            return service.check(place, staged, wanted)
        except Exception as error:  # noqa: BLE001 - any failure is an outcome
            _log.exception("%s: %s could not be checked", place.name, service.name)
            return [Failure(_unit(service, wanted), str(error) or repr(error))]

    def _activate(
        self, services: Sequence[Service], place: Place, old: Bundle | None, new: Bundle
    ) -> tuple[list[Service], list[Failure]]:
        """Return the services that were touched, and why it stopped at the last of them where it did."""
        done: list[Service] = []
        failures: list[Failure] = []
        for service in services:
            done.append(service)
            try:
                failures += service.activate(place, old, new)
            except Exception as error:
                if new.kind in self._partial:
                    raise  # not one unit's failure but the service's own: the host does not stand there
                _log.exception("%s: %s could not be activated", place.name, service.name)
                failures.append(Failure(_unit(service, new), str(error) or repr(error)))
            if failures and new.kind not in self._partial:
                break
        return done, failures

    def _restore(self, touched: Sequence[Service], place: Place, held: Bundle | None) -> list[Failure]:
        """Bring the former state back, from nothing, as nobody knows how far the new one came."""
        if held is None:
            for service in reversed(touched):
                service.remove(place)
            shutil.rmtree(place.folder, ignore_errors=True)
            return []
        tree.swap(place, tree.stage(place, held), held)
        _, failures = self._activate(touched, place, None, held)
        if not failures:
            tree.settle(place)
        return [replace(failure, reason=f"Not restored either: {failure.reason}") for failure in failures]

    def repair_torn(self, held: Bundle) -> Outcome | None:
        """Apply the ledger's bundle from nothing where an apply was cut off; None where none was."""
        if not tree.torn(self.place(held)):
            return None
        _log.warning("%s: an apply was cut off; generation %d is applied from nothing", held.name, held.generation)
        return self.apply(held)

    def _take_down(self, held: Bundle | None, wanted: Bundle) -> Outcome:
        if held is not None and wanted.generation < held.generation:
            raise Refused(f"{wanted.name} was to be taken down at {wanted.generation}, before {held.generation}.")
        failures = self.remove(held or wanted)
        return _outcome(wanted, "failed" if failures else "applied", failures)

    def remove(self, bundle: Bundle) -> list[Failure]:
        """Take a target down, wholly: each service is tried, whatever becomes of the others; repeatable."""
        place, failures = self.place(bundle), []
        for service in reversed(self._kinds.get(bundle.kind, ())):
            try:
                service.remove(place)
            except Exception as error:  # noqa: BLE001 - any failure is an outcome
                _log.exception("%s: %s could not be removed", place.name, service.name)
                failures.append(Failure(service.name, str(error) or repr(error)))
        if not failures:
            shutil.rmtree(place.folder, ignore_errors=True)
            self.ledger.forget(bundle.target)
        return failures

    def ensure(self, held: Bundle) -> list[tuple[str, str]]:
        """Repair what is not as the ledger says; return (service, what was repaired or why it could not be)."""
        place, said = self.place(held), []
        edited = tree.edited(place, held)
        if edited:
            tree.swap(place, tree.stage(place, held), held)
            paths = ", ".join(file.path for file in edited)
            said.append(("files", f"repaired: {paths} had been changed"))
        for service in self._kinds.get(held.kind, ()):
            try:
                if any(file.service == service.name for file in edited):
                    said += [(service.name, failure.reason) for failure in service.activate(place, None, held)]
                said += [(service.name, f"repaired: {repaired}") for repaired in service.ensure(place, held)]
            except Exception as error:  # noqa: BLE001 - any failure is an outcome
                _log.debug("%s: %s could not be repaired", place.name, service.name, exc_info=True)
                said.append((service.name, str(error) or repr(error)))
                if held.kind in self._partial:
                    break  # what comes after it stands on it: no guest is started again without its filter
        if edited:
            tree.settle(place)
        return said

    def observe(self, held: Bundle) -> Observation:
        """Read a target back, all services together."""
        place, parts = self.place(held), []
        for service in self._kinds.get(held.kind, ()):
            try:
                parts.append(service.observe(place, held))
            except Exception as error:  # noqa: BLE001 - any failure is an outcome
                _log.debug("%s: %s could not be read back", place.name, service.name, exc_info=True)
                parts.append(Observation(held.target, health=((service.name, str(error) or repr(error)),)))
        return merge(held.target, parts)


def merge(target: str, parts: Sequence[Observation]) -> Observation:
    """Put the services' observations of one target together; counters of one name are added up."""
    counters: dict[str, tuple[int, int]] = {}
    for name, packets, size in (counter for part in parts for counter in part.counters):
        before = counters.get(name, (0, 0))
        counters[name] = (before[0] + packets, before[1] + size)
    return Observation(
        target,
        tuple(check for part in parts for check in part.health),
        tuple((name, packets, size) for name, (packets, size) in sorted(counters.items())),
        tuple(sorted(state for part in parts for state in part.states)),
    )


def _unit(service: Service, bundle: Bundle) -> str:
    """Name the service's file where it has exactly one, otherwise the service."""
    paths = [file.path for file in bundle.files if file.service == service.name]
    return paths[0] if len(paths) == 1 else service.name


def _outcome(
    wanted: Bundle,
    status: Literal["applied", "unchanged", "failed", "refused"],
    failures: Sequence[Failure] = (),
    services: Sequence[str] = (),
) -> Outcome:
    return Outcome(wanted.target, wanted.generation, wanted.digest, status, tuple(failures), tuple(services))
