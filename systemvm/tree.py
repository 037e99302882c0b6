"""A target's files: staged beside those in force, then put in force file by file, inside the same folder.

The folder in force is never replaced itself: running daemons have it as their working directory (haproxy re-executes
itself in it) or watch it (dnsmasq), and would go on in the old one. Each file is renamed into it, so a reader sees the
old or the new text. A crash between two renames is repaired by applying again: ``torn`` tells that one happened.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from systemvm.bundle import Bundle, File
from systemvm.services import Place

_MARK = "applying"


def stage(place: Place, bundle: Bundle) -> Path:
    """Write all files of the bundle beside those in force and return their folder.

    :raises ValueError: a path leaves the target's folder, or is there twice.
    """
    staged = place.folder / "staged"
    shutil.rmtree(staged, ignore_errors=True)
    _folder(staged)
    _folder(place.current)
    _folder(place.folder / "run")
    seen: set[str] = set()
    for file in bundle.files:
        _write(staged, file, seen)
    return staged


def _folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True, mode=0o755)


def _write(staged: Path, file: File, seen: set[str]) -> None:
    parts = Path(file.path).parts
    if not parts or Path(file.path).is_absolute() or ".." in parts or "\0" in file.path or file.path in seen:
        raise ValueError(f"The file {file.path!r} is refused: each path is there once, and inside the target's folder.")
    seen.add(file.path)
    path = staged / file.path
    _folder(path.parent)
    path.touch(mode=0o600)
    path.write_text(file.content, encoding="utf-8")
    path.chmod(0o600 if file.secret else 0o644)


def swap(place: Place, staged: Path, bundle: Bundle) -> None:
    """Put the staged files in force; what the bundle does not name is removed. Unchanged files keep their inode."""
    (place.folder / _MARK).touch()
    wanted = {file.path for file in bundle.files}
    for path in wanted:
        fresh, target = staged / path, place.current / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        for parent in target.relative_to(place.current).parents:
            if (place.current / parent).is_file():
                (place.current / parent).unlink()
        if not _same(target, fresh):
            _folder(target.parent)
            fresh.replace(target)
    for found in sorted(place.current.rglob("*"), reverse=True):
        if found.is_dir() and not found.is_symlink():
            if not any(found.iterdir()):
                found.rmdir()
        elif str(found.relative_to(place.current)) not in wanted:
            found.unlink()
    shutil.rmtree(staged, ignore_errors=True)


def _same(one: Path, other: Path) -> bool:
    try:
        ours, theirs = one.stat(), other.stat()
        if (ours.st_size, ours.st_mode) != (theirs.st_size, theirs.st_mode):
            return False
        return one.read_bytes() == other.read_bytes()
    except FileNotFoundError:
        return False


def torn(place: Place) -> bool:
    """Tell whether an apply began that never came to its end: nobody knows then what is in force."""
    return (place.folder / _MARK).exists()


def settle(place: Place) -> None:
    """Note that the files in force, and what they mean, are those of the ledger."""
    (place.folder / _MARK).unlink(missing_ok=True)


def edited(place: Place, bundle: Bundle) -> list[File]:
    """Return the bundle's files that are not in force as they should be: somebody changed or removed them."""
    return [file for file in bundle.files if _differs(place.current / file.path, file)]


def _differs(path: Path, file: File) -> bool:
    try:
        return path.read_text(encoding="utf-8") != file.content
    except (OSError, UnicodeDecodeError):
        return True
