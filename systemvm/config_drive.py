"""A guest's drive as its host has it: a folder, which a container finds mounted, and an ISO 9660 image for machines.

Both hold the same files, readable by root alone, on the host as in the guest. The folder itself is never replaced: a
running guest has it mounted, and sees each file's new content at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Final

from systemvm.container import DRIVE

LABEL: Final = "config-2"
IMAGE: Final = "config-2.iso"
_FILE, _FOLDER = 0o400, 0o700
_REGULAR, _DIRECTORY = 0o100000, 0o040000


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Have the guest's folder hold a drive with these files and no others; none at all is a drive without a medium.

    :param files: contents by path.
    :raises ValueError: a path leads out of the drive.
    """
    for path in files:
        if Path(path).is_absolute() or ".." in Path(path).parts or not Path(path).name:
            raise ValueError(f"The file {path!r} is refused: it is not inside the drive.")
    _write_tree(folder / DRIVE, files)
    image = folder / IMAGE
    if not files:
        image.unlink(missing_ok=True)
        return
    _replace(image, iso(files), 0o600)


def read(folder: Path) -> dict[str, bytes]:
    """Return the files of the drive in the guest's folder, by path; empty where it has no medium.

    The image is what the files were made into, or the drive is not whole.
    """
    tree = folder / DRIVE
    if not (folder / IMAGE).is_file():
        return {}
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in sorted(tree.rglob("*")) if path.is_file()}


def _write_tree(tree: Path, files: Mapping[str, bytes]) -> None:
    tree.mkdir(parents=True, exist_ok=True, mode=_FOLDER)
    tree.chmod(_FOLDER)
    for path, content in files.items():
        place = tree / path
        for parent in reversed(place.relative_to(tree).parents[:-1]):
            (tree / parent).mkdir(exist_ok=True, mode=_FOLDER)
        _replace(place, content, _FILE)
    for found in sorted(tree.rglob("*"), reverse=True):
        if found.is_dir():
            with suppress(OSError):  # it has files
                found.rmdir()
        elif found.relative_to(tree).as_posix() not in files:
            found.unlink()


def _replace(path: Path, content: bytes, mode: int) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(content)
    fresh.replace(path)


def iso(files: Mapping[str, bytes]) -> bytes:
    """Return an ISO 9660 image with these files, under the label ``config-2``, with Rock Ridge and Joliet names."""
    import pycdlib

    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, sys_ident="LINUX", vol_ident=LABEL, joliet=3, rock_ridge="1.09")
    short = {Path(): ""}
    for path in sorted({parent for name in files for parent in Path(name).parents} - {Path()}):
        short[path] = f"{short[path.parent]}/D{len(short)}"
        mode = _DIRECTORY | _FOLDER
        image.add_directory(short[path], rr_name=path.name, joliet_path=f"/{path.as_posix()}", file_mode=mode)
    for number, name in enumerate(sorted(files)):
        path = Path(name)
        plain = f"{short[path.parent]}/F{number}.;1"
        content, mode = files[name], _REGULAR | _FILE
        image.add_fp(BytesIO(content), len(content), plain, path.name, joliet_path=f"/{name}", file_mode=mode)
    out = BytesIO()
    image.write_fp(out)
    image.close()
    return out.getvalue()


def clear(folder: Path) -> None:
    """Take the medium out of the guest's drive."""
    if (folder / DRIVE).is_dir() or (folder / IMAGE).exists():
        write(folder, {})
