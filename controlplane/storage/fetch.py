"""Fetch: brings the content of a URL into a file, within limits, and never from inside the operator's own network.

What must stay true: an address is checked and then connected to, with no second look-up in between; a redirect is a new
URL with the same checks; nothing but the wanted file is ever left behind.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

if TYPE_CHECKING:
    import httpx

REDIRECTS = 5
BLOCK = 1 << 20
PATIENCE = 30.0
_ALGORITHMS = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}
_CHECKSUM = re.compile(r"(?:\{([A-Za-z0-9-]+)\})?([0-9A-Fa-f]+)")

Address = IPv4Address | IPv6Address
Sites = Sequence[IPv4Network | IPv6Network]
Tell = Callable[[int], None]
"""Is told how much of the content is there, in percent, as far as the server says how long it is."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be fetched.

    :param url: ``http``, ``https`` or ``file``.
    :param checksum: as :func:`checksum_of` reads it; empty is not checked.
    :param most: bytes allowed.
    :param internal: networks that may be asked although they are not public.
    :param folder: the only folder that ``file`` URLs may be below; empty allows none.
    """

    url: str
    checksum: str
    most: int
    internal: tuple[str, ...] = ()
    folder: str = ""


def checksum_of(text: str) -> tuple[str, str]:
    """Read ``{SHA-256}digits`` or digits alone, told apart by their number: (algorithm, digits).

    :raises ValueError: it is no checksum.
    """
    match = _CHECKSUM.fullmatch(text.strip())
    if match:
        by_length = _ALGORITHMS.get(len(match[2]))
        named = (match[1] or "").lower().replace("-", "")
        if by_length and named in ("", by_length):
            return by_length, match[2].lower()
    raise ValueError("it must be the hexadecimal digits of MD5, SHA-1, SHA-256 or SHA-512, as {SHA-256}…")


def fetch(wanted: Wanted, file: Path, tell: Tell | None = None) -> int:
    """Bring the content into the file and return its number of bytes.

    :param tell: called after each block that was received.
    :raises ValueError: the URL is refused, does not answer, is too large, or has another checksum.
    """
    part = file.with_name(f"{file.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        if urlsplit(wanted.url).scheme == "file":
            _copy(local_path(wanted.url, wanted.folder), part, wanted)
        else:
            _download(wanted, part, tell)
        part.replace(file)
    except OSError as error:
        raise ValueError(f"{wanted.url} cannot be fetched: {error}") from None
    finally:
        part.unlink(missing_ok=True)
    return file.stat().st_size


def local_path(url: str, folder: str) -> Path:
    """Return the path of a ``file`` URL.

    :raises ValueError: it is not below the folder that is allowed, or no such file is there.
    """
    if not folder:
        raise ValueError("file:// URLs are not allowed: no folder for them is set (template.import.folder)")
    parts = urlsplit(url)
    path, root = Path(unquote(parts.path)).resolve(), Path(folder).resolve()
    if parts.netloc not in ("", "localhost") or not path.is_relative_to(root):
        raise ValueError(f"a file:// URL must be below {root}")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    return path


def _copy(source: Path, part: Path, wanted: Wanted) -> None:
    if source.stat().st_size > wanted.most:
        raise ValueError(f"it has {source.stat().st_size} bytes, and {wanted.most} are allowed")
    shutil.copyfile(source, part)
    if wanted.checksum:
        with part.open("rb") as stream:
            _compare(wanted.checksum, iter(lambda: stream.read(BLOCK), b""))


def _compare(checksum: str, blocks: Iterable[bytes]) -> None:
    algorithm, digits = checksum_of(checksum)
    digest = hashlib.new(algorithm, usedforsecurity=False)
    for block in blocks:
        digest.update(block)
    if digest.hexdigest() != digits:
        raise ValueError(f"its {algorithm} checksum is {digest.hexdigest()}, and {digits} was expected")


def _download(wanted: Wanted, part: Path, tell: Tell | None) -> None:
    """Receive the content of an HTTP URL.

    :raises OSError: it cannot be received.
    """
    import httpx  # only who fetches pays for it: 5 MB

    try:
        patience = httpx.Timeout(PATIENCE, connect=PATIENCE / 2)
        with httpx.Client(follow_redirects=False, timeout=patience, trust_env=False) as client:
            _follow(client, wanted, part, tell)
    except httpx.HTTPError as error:
        raise OSError(str(error)) from error
    if wanted.checksum:
        with part.open("rb") as stream:
            _compare(wanted.checksum, iter(lambda: stream.read(BLOCK), b""))


def _follow(client: httpx.Client, wanted: Wanted, part: Path, tell: Tell | None) -> None:
    url = wanted.url
    internal = tuple(ip_network(site) for site in wanted.internal)
    for _ in range(REDIRECTS + 1):
        with closing(client.send(_request(client, url, internal), stream=True)) as response:
            if not response.is_redirect:
                response.raise_for_status()
                _receive(response, part, wanted.most, tell)
                break
            url = urljoin(url, response.headers["location"])
    else:
        raise ValueError(f"it leads from one URL to the next more than {REDIRECTS} times")


def _receive(response: httpx.Response, part: Path, most: int, tell: Tell | None) -> None:
    announced = response.headers.get("content-length", "")
    total, size = int(announced) if announced.isdecimal() else 0, 0
    with part.open("wb") as out:
        for block in response.iter_raw(BLOCK) if total <= most else ():
            size += len(block)
            if size > most:
                break
            out.write(block)
            if tell is not None and total:
                tell(min(100 * size // total, 100))
    if max(size, total) > most:
        raise ValueError(f"it has more than the {most} bytes that are allowed")


def _request(client: httpx.Client, url: str, internal: Sites) -> httpx.Request:
    """Make the request for an address that was checked: the name goes along as header and in TLS only."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url} is no http or https URL")
    address = allowed_address(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80), internal)
    host = f"[{address}]" if address.version == 6 else str(address)
    netloc = f"{host}:{parts.port}" if parts.port else host
    target = parts._replace(netloc=netloc, fragment="").geturl()
    name = parts.netloc.rpartition("@")[2]
    request = client.build_request("GET", target, headers={"Host": name, "Accept-Encoding": "identity"})
    request.extensions["sni_hostname"] = parts.hostname
    return request


def allowed_address(host: str, port: int, internal: Sites) -> Address:
    """Return an address of a host that may be asked.

    :raises ValueError: it has none, or one of its addresses is not public and not in ``internal``.
    """
    found: list[Address] = []
    with suppress(socket.gaierror, UnicodeError):
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found = [ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers]
    if not found:
        raise ValueError(f"{host} has no address")
    for address in found:
        if not _allowed(address, internal):
            raise ValueError(
                f"{host} is {address}, which is not public; secstorage.allowed.internal.sites would have to list it"
            )
    return found[0]


def _allowed(address: Address, internal: Sites) -> bool:
    if any(address in site for site in internal if site.version == address.version):
        return True
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if inner:
            return _allowed(inner, internal)
        if address in ip_network("64:ff9b::/96"):  # NAT64: the last four bytes are the IPv4 address
            return _allowed(IPv4Address(address.packed[-4:]), internal)
    return address.is_global and not address.is_multicast
