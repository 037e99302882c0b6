"""Images are looked into: real archives and images made by hand, good and bad."""

from __future__ import annotations

import io
import struct
import tarfile

import pytest

from controlplane.storage.formats import check

MOST = 1 << 30


def qcow2(size=1 << 20, backing=0, version=3, features=0):
    head = b"QFI\xfb" + struct.pack(
        ">IQIIQIIQQIIQ", version, backing, 4 if backing else 0, 16, size, 0, 0, 0, 0, 0, 0, 0
    )
    return head + struct.pack(">QQQII", features, 0, 0, 4, 104)


def archive(*members, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            content = b"content" if kind == tarfile.REGTYPE else b""
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


GOOD_TAR = archive(
    ("bin", tarfile.DIRTYPE, ""),
    ("bin/sh", tarfile.REGTYPE, ""),
    ("bin/ls", tarfile.LNKTYPE, "bin/sh"),
    ("etc", tarfile.SYMTYPE, "/usr/etc"),
)
ISO = b"\0" * 32769 + b"CD001" + b"\0" * 100
VHD = b"\0" * 512 + b"conectix" + b"\0" * 40 + struct.pack(">QII", 4096, 0, 3) + b"\0" * 448


@pytest.mark.parametrize(
    ("form", "content", "size"),
    [
        ("TAR", GOOD_TAR, 7),
        ("TAR", archive(("a", tarfile.REGTYPE, ""), mode="w:xz"), 7),
        ("QCOW2", qcow2(), 1 << 20),
        ("QCOW2", qcow2(version=2), 1 << 20),
        ("RAW", b"\0" * 512, 512),
        ("ISO", ISO, len(ISO)),
        ("VHD", VHD, 4096),
        ("OVA", archive(("vm.ovf", tarfile.REGTYPE, ""), ("disk.vmdk", tarfile.REGTYPE, ""), mode="w"), 14),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,
)
def test_good_images(tmp_path, form, content, size):
    file = tmp_path / "image"
    file.write_bytes(content)
    assert check(file, form, MOST) == size


@pytest.mark.parametrize(
    ("form", "content", "why"),
    [
        ("QCOW2", qcow2(backing=104), "has a backing file"),
        ("QCOW2", qcow2(features=4), "keeps its data in another file"),
        ("QCOW2", qcow2(size=2 << 30), "virtual size is"),
        ("QCOW2", GOOD_TAR, "no QCOW2 image"),
        ("QCOW2", b"QFI\xfb", "no QCOW2 image"),
        ("RAW", qcow2(backing=104), "no RAW image but has a header"),
        ("ISO", GOOD_TAR, "no ISO 9660"),
        ("VHD", VHD[:-452] + struct.pack(">I", 4) + VHD[-448:], "differencing VHD"),
        ("VMDK", b"# Disk DescriptorFile\nRW 1 FLAT /etc/shadow 0\n", "only describes other files"),
        ("VDI", b"\0" * 512, "no VDI image"),
        ("TAR", b"nothing of the kind", "no tar archive"),
        ("TAR", archive(), "empty archive"),
        ("TAR", archive(("/etc/passwd", tarfile.REGTYPE, "")), "leads out of it"),
        ("TAR", archive(("a/../../b", tarfile.REGTYPE, "")), "leads out of it"),
        ("TAR", archive(("a", tarfile.LNKTYPE, "/etc/shadow")), "links to '/etc/shadow'"),
        ("TAR", archive(("a", tarfile.LNKTYPE, "../b")), "links to"),
        ("TAR", archive(("dev/sda", tarfile.BLKTYPE, "")), "is a device"),
        ("TAR", GOOD_TAR[: len(GOOD_TAR) // 2], "no tar archive"),
        ("OVA", archive(("a", tarfile.REGTYPE, "")), "holds no .ovf"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,
)
def test_bad_images(tmp_path, form, content, why):
    file = tmp_path / "image"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=why):
        check(file, form, MOST)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path):
    file = tmp_path / "image"
    file.write_bytes(archive(*((f"f{number}", tarfile.REGTYPE, "") for number in range(10))))
    assert check(file, "TAR", 70) == 70
    with pytest.raises(ValueError, match="unpacks to more than 69 bytes"):
        check(file, "TAR", 69)
