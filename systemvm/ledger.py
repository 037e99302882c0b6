"""The ledger: what each target of this machine was last brought to, kept over restarts and power cuts.

One file a target holds the whole bundle, so the ledger alone is enough to repair a target, or to go back to its former
state, without asking anyone. It is a journal: its first line is a bundle, each further one the difference to the line
before, until these are as long as the first; then it is written anew. A last line that a power cut left unfinished was
never promised to anybody. The ledger holds secrets: folder and files are readable by their owner only.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from systemvm.bundle import Bundle

_log = logging.getLogger(__name__)


def write_durably(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file so that after a power cut either the old or the new text is there, never a part."""
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)
    _sync_folder(path.parent)


def _append_durably(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Ledger:
    """What is applied, by the target's UUID. Different targets may be written by different threads."""

    def __init__(self, folder: Path) -> None:
        """Open the ledger in its folder, which is made where it is missing.

        :raises ValueError: an entry cannot be read at all.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._bundles: dict[str, Bundle] = {}
        self._doubtful: dict[str, Bundle] = {}
        for path in sorted(folder.glob("*.json")):
            bundle = _read(path)
            kept = self._doubtful if bundle.absent else self._bundles
            kept[bundle.target] = bundle
        self._room: dict[str, int] = {}

    def __iter__(self) -> Iterator[Bundle]:
        return iter(list(self._bundles.values()))

    @property
    def doubtful(self) -> list[Bundle]:
        """Targets whose entry does not prove itself, as when another version of the agent wrote it: to be applied anew.

        They are known well enough to be taken down: target, name and kind.
        """
        return list(self._doubtful.values())

    def get(self, target: str) -> Bundle | None:
        """Return what the target was last brought to, None where that is nothing."""
        return self._bundles.get(target)

    def put(self, bundle: Bundle) -> None:
        """Note that the target stands at the bundle; once this returns, a power cut cannot undo it."""
        held, room, path = self._bundles.get(bundle.target), self._room.pop(bundle.target, 0), self._path(bundle.target)
        line = _line(bundle, held) if held and room else ""
        if line and len(line) <= room:
            _append_durably(path, line)
            self._room[bundle.target] = room - len(line)
        else:
            whole = _line(bundle)
            write_durably(path, whole)
            self._room[bundle.target] = len(whole)
        self._bundles[bundle.target] = bundle
        self._doubtful.pop(bundle.target, None)

    def forget(self, target: str) -> None:
        """Note that nothing is left of the target."""
        self._path(target).unlink(missing_ok=True)
        self._bundles.pop(target, None)
        self._doubtful.pop(target, None)
        _sync_folder(self._folder)

    def standing(self) -> dict[str, tuple[int, str]]:
        """Return target → (generation, digest), as ``hello`` tells it."""
        return {bundle.target: (bundle.generation, bundle.digest) for bundle in self}

    def _path(self, target: str) -> Path:
        if not target or not all(letter.isalnum() or letter in "-_" for letter in target):
            raise ValueError(f"The target {target!r} is not a UUID: letters, digits and dashes are what it may hold.")
        return self._folder / f"{target}.json"


def _line(bundle: Bundle, base: Bundle | None = None) -> str:
    return json.dumps(bundle.to_json(base), separators=(",", ":")) + "\n"


def _read(path: Path) -> Bundle:
    """Return the bundle of an entry; an absent one where its content is not what its digest says."""
    first, *further = path.read_text(encoding="utf-8").split("\n")
    try:
        entry = json.loads(first)
        nothing = Bundle(entry["target"], entry["name"], entry["kind"], 0, absent=True)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"The ledger's entry {path} cannot be read ({error}); remove it to have the target applied anew."
        ) from error
    try:
        bundle = Bundle.from_json(entry)
        for line in further[:-1]:  # what comes after the last line's end was not finished
            bundle = Bundle.from_json(json.loads(line), bundle)
    except (ValueError, KeyError, TypeError) as error:
        _log.warning("%s is applied anew: its entry in the ledger is doubtful (%s)", nothing.name, error)
        return nothing
    return bundle
