"""Fetching: which addresses may be asked, and what comes of what they answer; a real HTTP server on loopback."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network

import pytest

from controlplane.storage.fetch import Wanted, allowed_address, checksum_of, fetch

CONTENT = b"an image" * 1000
LOOPBACK = ("127.0.0.0/8",)


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/image"):
            self.send_response(200)
            if "chunked" not in self.path:
                self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)
        elif self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
        else:
            self.send_error(404)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::1",
        "2130706433",
        "0x7f.1",
    ],
)
def test_addresses_inside_are_refused(host):
    with pytest.raises(ValueError, match=r"is not public|has no address"):
        allowed_address(host, 80, ())


def test_public_and_listed_addresses_are_allowed():
    assert str(allowed_address("9.9.9.9", 443, ())) == "9.9.9.9"
    assert str(allowed_address("10.1.2.3", 80, [ip_network("10.0.0.0/8")])) == "10.1.2.3"


def test_content_is_fetched_and_compared(server, tmp_path):
    digest = hashlib.sha256(CONTENT).hexdigest()
    file = tmp_path / "store" / "image"
    assert fetch(Wanted(f"{server}/image", f"{{SHA-256}}{digest}", 1 << 20, LOOPBACK), file) == len(CONTENT)
    assert file.read_bytes() == CONTENT
    redirected = Wanted(f"{server}/to?/image", digest, 1 << 20, LOOPBACK)
    assert fetch(redirected, file) == len(CONTENT)


@pytest.mark.parametrize(
    ("path", "change", "why"),
    [
        ("/image", {"internal": ()}, "is not public; secstorage.allowed.internal.sites"),
        ("/image", {"checksum": "0" * 64}, "sha256 checksum is"),
        ("/image", {"most": 10}, "more than the 10 bytes"),
        ("/image?chunked", {"most": 10}, "more than the 10 bytes"),
        ("/none", {}, "404"),
        ("/to?http://169.254.169.254/latest/meta-data/", {}, "169.254.169.254, which is not public"),
        ("/to?file:///etc/passwd", {}, "no http or https URL"),
        ("/to?/to?/to?/to?/to?/to?/to?/image", {}, "more than 5 times"),
    ],
)
def test_what_is_refused_leaves_nothing(server, tmp_path, path, change, why):
    given = {"url": server + path, "checksum": "", "most": 1 << 20, "internal": LOOPBACK} | change
    with pytest.raises(ValueError, match=why):
        fetch(Wanted(**given), tmp_path / "image")
    assert list(tmp_path.iterdir()) == []


def test_files_are_taken_from_the_one_folder_only(tmp_path):
    folder, outside = tmp_path / "in", tmp_path / "secret"
    folder.mkdir()
    outside.write_bytes(b"secret")
    (folder / "image").write_bytes(CONTENT)
    (folder / "link").symlink_to(outside)
    wanted = Wanted((folder / "image").as_uri(), "", 1 << 20, folder=str(folder))
    assert fetch(wanted, tmp_path / "copy") == len(CONTENT)
    for url in ((folder / "link").as_uri(), f"{folder.as_uri()}/../secret", outside.as_uri(), "file://host/x"):
        with pytest.raises(ValueError, match="must be below"):
            fetch(Wanted(url, "", 1 << 20, folder=str(folder)), tmp_path / "other")
    with pytest.raises(ValueError, match="not allowed"):
        fetch(Wanted((folder / "image").as_uri(), "", 1 << 20), tmp_path / "other")
    with pytest.raises(ValueError, match="bytes, and 10 are allowed"):
        fetch(Wanted((folder / "image").as_uri(), "", 10, folder=str(folder)), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("text", ["", "xyz", "{SHA-256}" + "0" * 40, "0" * 33, "0" * 64 + "\n{"])
def test_what_is_no_checksum(text):
    with pytest.raises(ValueError, match="hexadecimal digits"):
        checksum_of(text)
