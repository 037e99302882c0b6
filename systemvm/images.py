"""Templates of containers, unpacked once per content and shared by every guest that was made from one.

What must stay true: nothing in an archive can name a file outside its own root, and a root is complete or not there at
all (it is renamed into place).
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_BY_LENGTH: Final = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}
_CHECKSUM: Final = re.compile(r"(?:\{([A-Za-z0-9-]+)\}|([A-Za-z0-9-]+):)?([0-9A-Fa-f]+)")
_one_at_a_time = threading.Lock()


def parse_checksum(text: str) -> tuple[str, str]:
    """Return (algorithm, hex digits) of ``{SHA-256}…``, ``sha256:…`` or bare digits, told apart by their number.

    :raises ValueError: it is no checksum.
    """
    match = _CHECKSUM.fullmatch(text.strip())
    if match:
        digits = match[3].lower()
        by_length = _BY_LENGTH.get(len(digits))
        named = (match[1] or match[2] or "").lower().replace("-", "")
        if by_length and named in ("", by_length):
            return by_length, digits
    raise ValueError(f"{text!r} is no checksum: give hex digits of MD5, SHA-1, SHA-256 or SHA-512.")


def vet(member: tarfile.TarInfo, root: Path) -> None:
    """Refuse a member of an archive that would be, or would write, anything but a file below ``root``.

    A symbolic link may point anywhere: it is followed inside the guest. But nothing is written through one.

    :raises ValueError: the member is refused; the sentence names it.
    """
    if member.name.startswith("/") or ".." in Path(member.name).parts:
        raise ValueError(f"{member.name!r} in the template leads out of it.")
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise ValueError(f"{member.name!r} in the template is a device; a template has only files, folders and links.")
    places = [root / member.name]
    if member.islnk():
        places.append(root / member.linkname)
    for place in places:
        if not place.parent.resolve().is_relative_to(root) or ".." in place.parts:
            raise ValueError(f"{member.name!r} in the template leads out of it through a link.")
    target = root / member.name
    if target.is_symlink() and member.isdir():
        raise ValueError(f"{member.name!r} in the template is a link and a folder at once.")


def unpack(archive: Path, root: Path) -> None:
    """Unpack a tar archive, compressed or not, with its owners and modes.

    :raises ValueError: it is no archive, or a member is refused.
    """
    root = root.resolve()
    trusted = {"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                vet(member, root)
                if (root / member.name).is_symlink():
                    (root / member.name).unlink()
                tar.extract(member, root, numeric_owner=True, **trusted)  # type: ignore[arg-type]
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{archive} is no template archive: {error}.") from error


@dataclass(frozen=True, slots=True)
class Images:
    """The templates that this host has unpacked, below ``folder``."""

    folder: Path

    def ensure(self, image: str, checksum: str = "") -> Path:
        """Return the root folder of a template.

        :param image: path of an archive (``.tar``, ``.tar.gz``, ``.tar.xz``) or of a folder.
        :param checksum: what an archive's content must have; empty asks nothing.
        :raises ValueError: the file is not there, is not what it should be, or has members that are refused.
        """
        path = Path(image.removeprefix("file://"))
        if not path.is_absolute():
            raise ValueError(f"The template {image!r} is not a path on this host.")
        if path.is_dir():
            return path
        if not path.is_file():
            raise ValueError(f"The template {image} is not on this host.")
        with _one_at_a_time:
            digest = self._digest(path, checksum)
            home = self.folder / digest
            if not (home / "root").is_dir():
                self._unpack(path, home)
            return home / "root"

    def _digest(self, path: Path, checksum: str) -> str:
        """Hash the file once for each time that it changes, and compare with what it should be."""
        status = path.stat()
        seen: dict[str, Any] = {
            "path": str(path),
            "file": [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns],
        }
        note = self.folder / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
        known: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            known = json.loads(note.read_text())
        digests = known["digests"] if known.get("file") == seen["file"] else {}
        algorithm, wanted = parse_checksum(checksum) if checksum else ("sha256", "")
        for name in {algorithm, "sha256"} - digests.keys():
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, name).hexdigest()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        note.write_text(json.dumps(seen | {"digests": digests}))
        if wanted and digests[algorithm] != wanted:
            raise ValueError(f"The template {path} has the {algorithm} {digests[algorithm]}, not {wanted}.")
        return str(digests["sha256"])

    def _unpack(self, path: Path, home: Path) -> None:
        fresh = Path(tempfile.mkdtemp(prefix="new-", dir=self.folder))
        try:
            (fresh / "root").mkdir()
            unpack(path, fresh / "root")
            (fresh / "source").write_text(str(path))
            shutil.rmtree(home, ignore_errors=True)
            fresh.rename(home)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def prune(self, used: Iterable[str]) -> None:
        """Remove the roots that no guest lies over and whose archive is gone.

        :param used: root folders of guests, running or not.
        """
        keep = set(used)
        for home in self.folder.glob("*/source"):
            if str(home.parent / "root") not in keep and not Path(home.read_text()).exists():
                shutil.rmtree(home.parent, ignore_errors=True)
