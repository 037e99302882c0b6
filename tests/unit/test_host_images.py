"""Templates: what an archive may hold, and what a host keeps of it."""

import hashlib
import io
import os
import tarfile

import pytest

from systemvm import guest_image
from systemvm.images import Images, parse_checksum


def archive(path, *members, mode="w"):
    """Write a tar of (name, kind, link or content)."""
    with tarfile.open(path, mode) as tar:
        for name, kind, more in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = more
            content = more.encode() if kind == tarfile.REGTYPE else b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


FILE, LINK, HARD, FOLDER = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


@pytest.fixture
def images(tmp_path):
    return Images(tmp_path / "images")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_an_archive_is_unpacked_once_for_its_content(images, tmp_path, mode):
    members = (
        ("bin", FOLDER, ""),
        ("bin/sh", LINK, "/bin/busybox"),
        ("etc/name", FILE, "x"),
        ("same", HARD, "etc/name"),
    )
    one = archive(tmp_path / "one.tar", *members, mode=mode)
    root = images.ensure(str(one))
    assert (root / "bin/sh").readlink().as_posix() == "/bin/busybox"
    assert (root / "same").read_text() == "x"
    two = tmp_path / "two.tar"
    two.write_bytes(one.read_bytes())
    assert images.ensure(f"file://{two}") == root
    one.write_bytes(archive(tmp_path / "three.tar", ("etc/name", FILE, "y"), mode=mode).read_bytes())
    assert (images.ensure(str(one)) / "etc/name").read_text() == "y"
    assert (root / "etc/name").read_text() == "x"


@pytest.mark.parametrize(
    "members",
    [
        [("/etc/passwd", FILE, "x")],
        [("../out", FILE, "x")],
        [("a/../../out", FILE, "x")],
        [("disk", tarfile.BLKTYPE, "")],
        [("tty", tarfile.CHRTYPE, "")],
        [("pipe", tarfile.FIFOTYPE, "")],
        [("a", LINK, "OUTSIDE"), ("a/out", FILE, "x")],
        [("a", LINK, "OUTSIDE"), ("a", FOLDER, "")],
        [("a", LINK, ".."), ("a/out", FILE, "x")],
        [("a", HARD, "../../secret")],
        [("a", HARD, "/etc/passwd")],
        [("a", LINK, "OUTSIDE"), ("b", HARD, "a/secret")],
    ],
)
def test_a_member_that_leads_out_or_is_a_device_is_refused(images, tmp_path, members):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    bad = archive(tmp_path / "bad.tar", *((n, k, m.replace("OUTSIDE", str(outside))) for n, k, m in members))
    with pytest.raises(ValueError, match="in the template"):
        images.ensure(str(bad))
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert not (tmp_path / "out").exists()
    assert not list(images.folder.glob("*/root"))


def test_a_file_does_not_follow_a_link_that_came_before_it(images, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("s")
    root = images.ensure(str(archive(tmp_path / "t.tar", ("a", LINK, str(outside)), ("a", FILE, "x"))))
    assert outside.read_text() == "s"
    assert (root / "a").read_text() == "x"


def test_a_checksum_is_held_against_the_file(images, tmp_path):
    one = archive(tmp_path / "one.tar", ("a", FILE, "x"))
    for algorithm, prefix in (("sha256", "{SHA-256}"), ("sha512", "sha512:"), ("md5", ""), ("sha1", "{SHA-1}")):
        digest = hashlib.new(algorithm, one.read_bytes()).hexdigest()
        images.ensure(str(one), prefix + digest.upper())
        with pytest.raises(ValueError, match=f"has the {algorithm} {digest}, not 00"):
            images.ensure(str(one), prefix + "0" * len(digest))


@pytest.mark.parametrize("text", ["", "xyz", "abc", "{MD5}" + "0" * 64, "{SHA-256}", "{CRC}" + "0" * 32])
def test_what_is_no_checksum_is_said_to_be_none(text):
    with pytest.raises(ValueError, match="is no checksum"):
        parse_checksum(text)


@pytest.mark.parametrize("image", ["http://x/t.tar", "t.tar", "/there/is/none.tar"])
def test_only_paths_of_this_host_will_do(images, image):
    with pytest.raises(ValueError, match="on this host"):
        images.ensure(image)


def test_what_is_no_archive_is_refused(images, tmp_path):
    (tmp_path / "t.tar").write_text("no archive")
    with pytest.raises(ValueError, match="is no template archive"):
        images.ensure(str(tmp_path / "t.tar"))


def test_a_folder_is_used_as_it_is(images, tmp_path):
    assert images.ensure(str(tmp_path)) == tmp_path


def test_a_root_goes_when_no_guest_and_no_archive_needs_it(images, tmp_path):
    one = archive(tmp_path / "one.tar", ("a", FILE, "x"))
    root = images.ensure(str(one))
    images.prune([])
    assert root.exists()
    one.unlink()
    images.prune([str(root)])
    assert root.exists()
    images.prune([])
    assert not root.exists()


def test_the_default_template_has_the_same_bytes_each_time(tmp_path):
    outs = [tmp_path / "a.tar.gz", tmp_path / "b.tar.gz"]
    for out in outs:
        assert guest_image.main([str(out)]) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()
    root = Images(tmp_path / "images").ensure(str(outs[0]))
    assert os.access(root / "sbin/init", os.X_OK)
    assert (root / "sbin/init").read_text().startswith("#!/bin/sh")
    assert (root / "bin/sh").readlink().as_posix() == "/bin/busybox"
    assert (root / "etc/shadow").stat().st_mode & 0o777 == 0o600
    assert guest_image.main([]) == 2
