"""The metadata and password server: one small process for all routers of a host, its sockets inside their namespaces.

A guest is known by its source address inside its router's namespace, and reads about itself only. Port 80 answers
CloudStack's metadata (``/latest/meta-data/…``, ``/latest/user-data``), port 8080 its password server: the header
``DomU_Request: send_my_password`` is answered with the password until ``saved_password`` says that it is set; from
then on it is gone, over restarts too. It imports nothing of the project and little else, to stay small.

Run as ``metadata_server.py FOLDER``: the agent writes ``FOLDER/*.json`` and sends SIGHUP.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import time
from _sha256 import sha256  # type: ignore[import-not-found]  # hashlib would bring OpenSSL in: 3 MB

_METADATA, _PASSWORD = 80, 8080
_CLONE_NEWNET = 0x40000000
_PATIENCE = 10.0
_LIMIT = 8192
_CLIENTS = 1024


def taken_mark(vm: str, password: str) -> str:
    """Return the name of the file that tells that a guest has set this password."""
    return f"{vm}.{sha256(f'{vm} {password}'.encode()).hexdigest()}"


class Router:
    """One router: its guests by its own address on their network and by theirs, and its sockets by (address, port)."""

    def __init__(self) -> None:
        self.entry: dict[str, object] = {}
        self.guests: dict[str, dict[str, dict[str, object]]] = {}
        self.sockets: dict[tuple[str, int], socket.socket] = {}


class Client:
    """One connection: what was read of its request, and what is still to be sent."""

    def __init__(self, line: socket.socket, peer: str, at: tuple[str, int], router: Router) -> None:
        self.line, self.peer, self.router = line, peer, router
        self.address, self.port = at
        self.read, self.answer = b"", b""
        self.deadline = time.monotonic() + _PATIENCE


class Server:
    """All routers of the host."""

    def __init__(self, folder: str) -> None:
        """Serve what is in the folder."""
        self.folder = folder
        self.taken = os.path.join(folder, "taken")  # noqa: PTH118 - pathlib costs memory here
        os.makedirs(self.taken, mode=0o700, exist_ok=True)  # noqa: PTH103
        self.selector = selectors.DefaultSelector()
        self.routers: dict[str, Router] = {}
        self.stamps: dict[str, tuple[int, int]] = {}
        self.clients: set[Client] = set()
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.libc = ctypes.CDLL(None, use_errno=True)

    def load(self) -> bool:
        """Read what changed in the folder; return whether everything that should listen does."""
        there = {}
        for item in os.scandir(self.folder):
            if item.name.endswith(".json") and not item.name.startswith("."):
                seen = item.stat()
                there[item.name] = (seen.st_mtime_ns, seen.st_ino)
        for name in self.routers.keys() - there.keys():
            self._close(self.routers.pop(name))
            self.stamps.pop(name, None)
        complete = True
        for name, stamp in there.items():
            if self.stamps.get(name) != stamp:
                try:
                    self._take(name)
                    self.stamps[name] = stamp
                except (OSError, ValueError) as error:  # tried again: the address may come a moment later
                    complete = False
                    print(f"{name}: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return complete

    def _take(self, name: str) -> None:
        with open(os.path.join(self.folder, name), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            entry = json.load(file)
        router = self.routers.setdefault(name, Router())
        if router.entry.get("inode") != entry["inode"]:
            self._close(router)
        router.entry, router.guests = entry, {}
        for net in entry["networks"]:
            guests = net["guests"] | {alias: net["guests"][key] for alias, key in net.get("aliases", {}).items()}
            own = [*([net["address"]] if net["address"] else []), *net.get("further", ())]
            # a link-local address is one of a link: every network of the router has the same
            own += [f"{a}%{net['interface']}" if a.startswith("fe80:") else a for a in net.get("addresses6", ())]
            router.guests |= dict.fromkeys(own, guests)
        wanted = {(address, port) for address in router.guests for port in (_METADATA, _PASSWORD)}
        for place in router.sockets.keys() - wanted:
            self._shut(router.sockets.pop(place))
        for place in wanted - router.sockets.keys():
            router.sockets[place] = self._listen(entry["namespace"], place)
            self.selector.register(router.sockets[place], selectors.EVENT_READ, (router, place))

    def _listen(self, namespace: str, place: tuple[str, int]) -> socket.socket:
        address, _, link = place[0].partition("%")
        family, scope = (socket.AF_INET6 if ":" in address else socket.AF_INET), 0
        there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        try:
            self._enter(there)
            line = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            scope = socket.if_nametoindex(link) if link else 0
        finally:
            self._enter(self.home)
            os.close(there)
        try:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            line.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND: the address may come a moment later
            line.bind((address, place[1], 0, scope) if family == socket.AF_INET6 else (address, place[1]))
            line.listen(128)
        except OSError:
            line.close()
            raise
        return line

    def _enter(self, descriptor: int) -> None:
        if self.libc.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "a namespace cannot be entered")

    def _close(self, router: Router) -> None:
        for line in router.sockets.values():
            self._shut(line)
        router.sockets.clear()

    def _shut(self, line: socket.socket) -> None:
        self.selector.unregister(line)
        line.close()

    def accept(self, listening: socket.socket, router: Router, at: tuple[str, int]) -> None:
        """Take one connection in."""
        try:
            line, (peer, *_) = listening.accept()
        except OSError:
            return
        if len(self.clients) >= _CLIENTS:
            line.close()
            return
        line.setblocking(False)
        client = Client(line, peer.partition("%")[0], at, router)
        self.clients.add(client)
        self.selector.register(line, selectors.EVENT_READ, client)

    def serve(self, client: Client, mask: int) -> None:
        """Read or write what is possible now."""
        try:
            if mask & selectors.EVENT_WRITE:
                client.answer = client.answer[client.line.send(client.answer) :]
                if not client.answer:
                    self.drop(client)
                return
            chunk = client.line.recv(4096)
            client.read += chunk
            if b"\r\n\r\n" in client.read or b"\n\n" in client.read:
                client.answer = self.answer(client)
                self.selector.modify(client.line, selectors.EVENT_WRITE, client)
            elif not chunk or len(client.read) > _LIMIT:
                self.drop(client)
        except OSError:
            self.drop(client)

    def drop(self, client: Client) -> None:
        """End a connection."""
        if client in self.clients:
            self.clients.discard(client)
            self._shut(client.line)

    def answer(self, client: Client) -> bytes:
        """Return the whole HTTP answer to a request."""
        lines = client.read.decode("latin-1").splitlines()
        words = lines[0].split() if lines else []
        guest = client.router.guests.get(client.address, {}).get(client.peer)
        if len(words) < 2 or words[0] not in ("GET", "HEAD"):
            status, body = "400 Bad Request", b"bad_request"
        elif client.port == _PASSWORD:
            headers = {name.strip().lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
            status, body = self._password(guest, headers.get("domu_request", ""))
        elif guest is None:
            status, body = "404 Not Found", b""
        else:
            found = _metadata(guest, words[1].partition("?")[0])
            status, body = ("404 Not Found", b"") if found is None else ("200 OK", found)
        head = (
            f"HTTP/1.0 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode("ascii") + (b"" if words[:1] == ["HEAD"] else body)

    def _password(self, guest: dict[str, object] | None, request: str) -> tuple[str, bytes]:
        if guest is None or request not in ("send_my_password", "saved_password"):
            return "400 Bad Request", b"bad_request"
        password = str(guest.get("password") or "")
        mark = os.path.join(self.taken, taken_mark(str(guest["vm"]), password))  # noqa: PTH118
        if not password or os.path.exists(mark):  # noqa: PTH110
            return "200 OK", b"saved_password"
        if request == "send_my_password":
            return "200 OK", password.encode()
        for old in os.listdir(self.taken):  # noqa: PTH208
            if old.startswith(f"{guest['vm']}."):
                os.unlink(os.path.join(self.taken, old))  # noqa: PTH108, PTH118
        descriptor = os.open(mark, os.O_WRONLY | os.O_CREAT, 0o600)
        os.fsync(descriptor)
        os.close(descriptor)
        return "200 OK", b"saved_password"

    def run(self) -> None:
        """Serve until the process is ended."""
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write)
        signal.signal(signal.SIGHUP, lambda *_: None)
        self.selector.register(read, selectors.EVENT_READ, None)
        complete, due = self.load(), 0.0
        while True:
            for key, mask in self.selector.select(0.1 if not complete else 2):
                if key.data is None:
                    os.read(read, 512)
                    due = 0
                elif isinstance(key.data, Client):
                    self.serve(key.data, mask)
                else:
                    self.accept(key.fileobj, *key.data)  # type: ignore[arg-type]
            now = time.monotonic()
            if now >= due or not complete:
                complete, due = self.load(), now + 5
                for client in [client for client in self.clients if client.deadline < now]:
                    self.drop(client)


def _metadata(guest: dict[str, object], path: str) -> bytes | None:
    """Return what is at a path; None where nothing is. Folders list their entries, as EC2 and CloudStack do."""
    items = {str(name): str(value) for name, value in guest.get("items", {}).items()}  # type: ignore[attr-defined]
    parts = [part for part in path.split("/") if part]
    if not parts:
        return b"1.0\nlatest"
    if parts[0] not in ("latest", "1.0", "2009-04-04"):
        return None
    rest = parts[1:]
    if not rest:
        return b"meta-data/\nuser-data" if guest.get("user_data") else b"meta-data/"
    if rest == ["user-data"]:
        return _decoded(str(guest.get("user_data") or ""))
    return _item(items, "/".join(rest[1:])) if rest[0] == "meta-data" else None


def _item(items: dict[str, str], item: str) -> bytes | None:
    """Return an item, or the names in a folder of items."""
    if item in items:
        return items[item].encode()
    prefix = f"{item}/" if item else ""
    names = {name[len(prefix) :].partition("/") for name in items if name.startswith(prefix)}
    return "\n".join(sorted({head + slash for head, slash, _ in names})).encode() if names or not item else None


def _decoded(text: str) -> bytes | None:
    if not text:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text.encode()


if __name__ == "__main__":
    Server(sys.argv[1]).run()
