"""Drives: what the guests of a host read about themselves, each beside its guest's own files.

What must stay true: a drive is there before its guest starts, and goes with it; a guest that runs sees a new content
without being touched; what is on a drive is never told, in no failure and no observation.
"""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path

from systemvm import config_drive
from systemvm.bundle import Bundle, Failure, Observation
from systemvm.services import HostSettings, Place, guests

_log = logging.getLogger(__name__)


def wanted(bundle: Bundle) -> dict[str, dict[str, bytes]]:
    """Return the files of each drive of a bundle, by the guest's UUID."""
    found = (json.loads(file.content) for file in bundle.files if file.service == Drives.name)
    return {drive["vm"]: {path: base64.b64decode(text) for path, text in drive["files"]} for drive in found}


class Drives:
    """The service that makes the drives of a host's guests."""

    name = "drives"

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """See that the files are what the driver writes."""
        try:
            wanted(bundle)
        except (ValueError, TypeError, KeyError) as error:
            return [Failure("drives", f"The drives cannot be read: {type(error).__name__}.")]
        return []

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Write the drives that changed; each that fails is a failure of its guest."""
        return self._bring_about(place.host, new)[1]

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Write again what was lost or changed."""
        done, failures = self._bring_about(place.host, bundle)
        for failure in failures:
            _log.warning("%s: %s", failure.unit, failure.reason)
        return done

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Have nothing to tell: whatever a drive lacks, the next pass puts back."""
        return Observation(bundle.target)

    def remove(self, place: Place) -> None:
        """Take every medium out."""
        for folder in guests.folder(place.host).glob("*"):
            config_drive.clear(folder)

    def _bring_about(self, host: HostSettings, bundle: Bundle) -> tuple[list[str], list[Failure]]:
        drives, home = wanted(bundle), guests.folder(host)
        kept = {guest.id for guest in guests.wanted(bundle)}
        emptied = (path.name for path in home.glob("*") if path.name in kept)
        done: list[str] = []
        failures = []
        for guest in sorted(drives.keys() | set(emptied)):
            files = drives.get(guest, {})
            try:
                if config_drive.read(home / guest) == files:
                    continue
                home.mkdir(parents=True, exist_ok=True, mode=0o700)
                config_drive.write(home / guest, files)
                done.append(f"wrote the drive of {guest}" if files else f"emptied the drive of {guest}")
            except (OSError, ValueError) as error:
                failures.append(Failure(guest, f"Its drive cannot be written: {error}."))
        return done, failures
