"""Formats: looks into an image before anything uses it, and refuses what is not what it says, or reaches outside.

A disk image that names a backing file would read that file of its host; an archive could name a path outside its root.
"""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

QCOW2, VMDK, VHD, VDI, ISO = b"QFI\xfb", b"KDMV", b"conectix", 0xBEDA107F, b"CD001"
MOST_MEMBERS = 2_000_000
_EXTERNAL_DATA = 1 << 2


def check(file: Path, form: str, most: int) -> int:
    """Return the virtual size of an image in bytes.

    :param form: ``TAR``, ``QCOW2``, ``RAW``, ``ISO``, ``VHD``, ``VMDK``, ``VDI`` or ``OVA``.
    :param most: the virtual size that is allowed, in bytes.
    :raises ValueError: it is of another format, needs another file, or is too large; the sentence says which.
    """
    size = CHECKS[form](file, most)
    if size > most:
        raise ValueError(f"its virtual size is {size} bytes, and {most} are allowed")
    return size


def _head(file: Path, length: int, offset: int = 0) -> bytes:
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read(length)


def _qcow2(file: Path, _most: int) -> int:
    head = _head(file, 104)
    if not head.startswith(QCOW2) or len(head) < 72:
        raise ValueError("it is no QCOW2 image")
    version, backing = struct.unpack_from(">IQ", head, 4)
    (size,) = struct.unpack_from(">Q", head, 24)
    if backing:
        raise ValueError("it has a backing file, which would be read on the host: flatten it first")
    if version >= 3:
        (features,) = struct.unpack_from(">Q", head, 72)
        if features & _EXTERNAL_DATA:
            raise ValueError("it keeps its data in another file, which would be read on the host")
    return int(size)


def _raw(file: Path, _most: int) -> int:
    if _head(file, 4) in (QCOW2, VMDK):
        raise ValueError("it is no RAW image but has a header that names other files")
    return file.stat().st_size


def _iso(file: Path, _most: int) -> int:
    if _head(file, 5, 32769) != ISO:
        raise ValueError("it is no ISO 9660 image")
    return file.stat().st_size


def _vhd(file: Path, _most: int) -> int:
    length = file.stat().st_size
    foot = _head(file, 512, max(0, length - 512))
    if not foot.startswith(VHD):
        raise ValueError("it is no VHD image")
    size, kind = struct.unpack_from(">Q", foot, 48)[0], struct.unpack_from(">I", foot, 60)[0]
    if kind not in (2, 3):
        raise ValueError("it is a differencing VHD, which needs a parent file: merge it first")
    return int(size)


def _vmdk(file: Path, _most: int) -> int:
    head = _head(file, 512)
    if not head.startswith(VMDK):
        raise ValueError("it is no sparse VMDK image; one that only describes other files is refused")
    sectors, descriptor, length = struct.unpack_from("<Q", head, 12)[0], *struct.unpack_from("<QQ", head, 28)
    text = _head(file, min(length, 128) * 512, descriptor * 512).split(b"\0", 1)[0].decode("utf-8", "replace")
    if "parentFileNameHint" in text or text.count("\nRW ") > 1:
        raise ValueError("it needs other files: it has a parent or several extents")
    return int(sectors) * 512


def _vdi(file: Path, _most: int) -> int:
    head = _head(file, 512)
    if len(head) < 376 or struct.unpack_from("<I", head, 64)[0] != VDI:
        raise ValueError("it is no VDI image")
    if struct.unpack_from("<I", head, 76)[0] not in (1, 2):
        raise ValueError("it is a differencing VDI, which needs a parent file")
    return int(struct.unpack_from("<Q", head, 368)[0])


def _ova(file: Path, most: int) -> int:
    names: list[str] = []
    size = _members(file, most, names)
    if not any(name.lower().endswith(".ovf") for name in names):
        raise ValueError("it is no OVA: it holds no .ovf")
    return size


def _tar(file: Path, most: int) -> int:
    return _members(file, most, [])


def _members(file: Path, most: int, names: list[str]) -> int:
    size = count = 0
    try:
        with file.open("rb") as stream, _archive(stream) as archive:
            for member in archive:
                vet(member)
                names.append(member.name)
                size, count = size + member.size, count + 1
                vars(archive)["members"].clear()  # millions of them would fill the memory
                if count > MOST_MEMBERS or size > most:
                    raise ValueError(f"it unpacks to more than {most} bytes or {MOST_MEMBERS} files")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"it is no tar archive: {error}") from None
    if not count:
        raise ValueError("it is an empty archive")
    return size


def _archive(stream: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="r:*")


def vet(member: tarfile.TarInfo) -> None:
    """Refuse a member that would be, or would write, anything but a file below the archive's root.

    :raises ValueError: the sentence names it.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"its member {member.name!r} leads out of it")
    if member.islnk():
        target = PurePosixPath(member.linkname)
        if target.is_absolute() or ".." in target.parts:
            raise ValueError(f"its member {member.name!r} links to {member.linkname!r}, which leads out of it")
    elif not (member.isreg() or member.isdir() or member.issym()):
        raise ValueError(f"its member {member.name!r} is a device; files, folders and links are allowed only")


CHECKS: dict[str, Callable[[Path, int], int]] = {
    "TAR": _tar,
    "QCOW2": _qcow2,
    "RAW": _raw,
    "ISO": _iso,
    "VHD": _vhd,
    "VMDK": _vmdk,
    "VDI": _vdi,
    "OVA": _ova,
}
"""The formats that there are, and how each is looked into."""
