"""The default guest template: a small Linux made of Debian's busybox, for containers.

``python -m systemvm.guest_image OUT.tar.gz`` packs it: the same busybox gives the same bytes. What a guest does when it
starts is in the texts below ``systemvm/guest/``, which go into the archive as they are.
"""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

_TEXTS: Final = Path(__file__).parent / "guest"
_FOLDERS: Final = (
    "bin",
    "dev",
    "etc",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr/share/udhcpc",
    "var/lib",
    "www",
)
_SHARED: Final = {"tmp": 0o1777, "root": 0o700}
_PROGRAMS: Final = 0o755
_TEXT_MODES: Final = {"etc/shadow": 0o600}


def busybox() -> Path:
    """Return the statically linked busybox of this machine.

    :raises FileNotFoundError: it is not installed, or it needs libraries, which a guest would not have.
    """
    found = shutil.which("busybox")
    if found is None:
        raise FileNotFoundError("There is no busybox here: install Debian's package busybox-static.")
    if b"/ld-linux" in Path(found).read_bytes():
        raise FileNotFoundError(f"{found} needs shared libraries: install Debian's package busybox-static.")
    return Path(found)


def applets(program: Path) -> list[str]:
    """Return where the applets of a busybox belong, relative to the root (``bin/ls``)."""
    done = subprocess.run([program, "--list-full"], capture_output=True, text=True, check=True, timeout=10)
    return sorted(set(done.stdout.split()) - {"bin/busybox", "sbin/init", "linuxrc"})


def members(program: Path) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """Return all that goes into the archive, by path."""
    found = {}
    for path in _FOLDERS:
        for folder in (*reversed(Path(path).parents[:-1]), Path(path)):
            found[str(folder)] = _member(str(folder), tarfile.DIRTYPE, _SHARED.get(str(folder), 0o755))
    for path in applets(program):
        parents = Path(path).parents[:-1]
        found |= {str(p): _member(str(p), tarfile.DIRTYPE, 0o755) for p in parents if str(p) not in found}
        found[path] = _member(path, tarfile.SYMTYPE, 0o777, link="/bin/busybox")
    found["bin/busybox"] = _member("bin/busybox", tarfile.REGTYPE, _PROGRAMS, program.read_bytes())
    for text in sorted(_TEXTS.rglob("*")):
        if text.is_file():
            path = text.relative_to(_TEXTS).as_posix()
            content = text.read_bytes()
            mode = _PROGRAMS if content.startswith(b"#!") else _TEXT_MODES.get(path, 0o644)
            found[path] = _member(path, tarfile.REGTYPE, mode, content)
    return found


def _member(path: str, kind: bytes, mode: int, content: bytes = b"", link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.size, info.linkname = kind, mode, len(content), link
    info.uname = info.gname = "root"
    return info, content


def pack(out: Path) -> None:
    """Write the template; the same busybox gives the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for _, (info, content) in sorted(members(busybox()).items()):
            tar.addfile(info, io.BytesIO(content))
    fresh = out.with_name(f"{out.name}.new")
    fresh.write_bytes(gzip.compress(buffer.getvalue(), mtime=0))
    fresh.replace(out)


def main(arguments: list[str]) -> int:
    """Pack the template into the file that the only argument names."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m systemvm.guest_image OUT.tar.gz\n")
        return 2
    pack(Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
