"""The process that renews the leases of all redundant routers of a host: it moves what ``systemvm.election`` decides.

It outlives the agent, so that an agent's upgrade moves no address, and imports little, to stay small. The agent writes
``FOLDER/*.json``, one for each router, and sends SIGHUP; ``FOLDER/state/*.json`` says in return how each one stands.
Routers speak to one another over UDP on the link that only the two of them are on.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any

from systemvm import bpf
from systemvm.election import Action, Ask, AskPlane, Member, ReleasePlane
from systemvm.lease_plane import Plane
from systemvm.services.arp import announce

PORT = 3781
_CLONE_NEWNET = 0x40000000
_TICK = 0.02
_ANNOUNCE_AGAIN = (0.15, 1.0)
_REREAD = 2.0


class Router:
    """One router's part: its lease, its line to the peer, and the deadline that the kernel keeps."""

    def __init__(self, name: str, state: str) -> None:
        self.name, self.state = name, state
        self.entry: dict[str, Any] = {}
        self.member: Member | None = None
        self.line: socket.socket | None = None
        self.deadline = -1
        self.held, self.told, self.changes = False, "", 0
        self.announcements: list[float] = []

    def take(self, entry: dict[str, Any]) -> None:
        """Take what the agent wrote."""
        if entry["map"] != self.entry.get("map"):
            self.close_deadline()
            self.deadline = bpf.open_map(entry["map"])
        now, roster = bpf.clock(), entry["roster"]
        how = {"peer": bool(entry["peer"]), "sole": entry["sole"], "rank": entry["rank"]}
        if self.member is not None and self.entry.get("inode") == entry["inode"]:
            self.member.change(now, roster, **how)
        elif self._known(entry):
            self.member = Member.restarted(now, bpf.get(self.deadline), roster, **how)
        else:
            self.member = Member.fresh(now, roster, **how)
        self.entry = entry
        self.tell()

    def _known(self, entry: dict[str, Any]) -> bool:
        """Tell whether a process before this one may have promised something for this router."""
        try:
            with open(self.state, encoding="ascii") as file:  # noqa: PTH123
                return bool(json.load(file)["inode"] == entry["inode"])
        except (OSError, ValueError, KeyError):
            return False

    def open_gate(self) -> bool:
        """Write the deadline down in the kernel; return whether the lease was taken over just now."""
        assert self.member is not None
        bpf.put(self.deadline, max(self.member.gate, 0))
        held = self.member.holds(bpf.clock())
        fresh, self.held = held and not self.held, held
        return fresh

    def tell(self) -> None:
        """Write down how it stands, where that is news."""
        assert self.member is not None
        settled = self.member.settled(bpf.clock())
        word = "PRIMARY" if self.held else "BACKUP"
        news = f"{word} {settled} {self.entry['roster']}"
        if news == self.told:
            return
        self.changes += not self.told.startswith(word)
        self.told = news
        said = {"state": word, "roster": self.entry["roster"], "settled": settled, "inode": self.entry["inode"]}
        with open(f"{self.state}.new", "w", encoding="ascii") as file:  # noqa: PTH123
            json.dump(said | {"changes": self.changes}, file)
        os.replace(f"{self.state}.new", self.state)  # noqa: PTH105

    def close_deadline(self) -> None:
        """Let go of the kernel's map."""
        if self.deadline >= 0:
            os.close(self.deadline)
            self.deadline = -1


class Server:
    """All redundant routers of the host."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        os.makedirs(f"{folder}/state", mode=0o700, exist_ok=True)  # noqa: PTH103
        self.routers: dict[str, Router] = {}
        self.stamps: dict[str, tuple[int, int]] = {}
        self.selector = selectors.DefaultSelector()
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.plane = Plane()

    def load(self) -> None:
        """Read what changed in the folder."""
        there = {}
        for item in os.scandir(self.folder):
            if item.name.endswith(".json"):
                seen = item.stat()
                there[item.name.removesuffix(".json")] = (seen.st_mtime_ns, seen.st_ino)
        for name in self.routers.keys() - there.keys():
            self._leave(name)
        for name, stamp in there.items():
            if self.stamps.get(name) != stamp:
                try:
                    self._take(name)
                    self.stamps[name] = stamp
                except (OSError, ValueError, KeyError) as error:  # tried again
                    print(f"{name}: {error!r}", file=sys.stderr, flush=True)  # noqa: T201

    def _take(self, name: str) -> None:
        with open(f"{self.folder}/{name}.json", encoding="utf-8") as file:  # noqa: PTH123
            entry = json.load(file)
        router = self.routers.setdefault(name, Router(name, f"{self.folder}/state/{name}.json"))
        former = router.entry
        router.take(entry)
        if entry["server"]:
            self.plane.point(entry["server"], entry["token"])
        line = ("inode", "address", "peer_address")
        if any(former.get(key) != entry[key] for key in line):
            self._hang_up(router)
        if router.line is None and entry["peer"]:
            self._listen(router)

    def _listen(self, router: Router) -> None:
        entry = router.entry
        with self._inside(entry["namespace"]):
            line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        line.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND: the address may come a moment later
        line.bind((entry["address"], PORT))
        line.connect((entry["peer_address"], PORT))  # nobody else is heard
        router.line = line
        self.selector.register(line, selectors.EVENT_READ, router)

    def _hang_up(self, router: Router) -> None:
        if router.line is not None:
            self.selector.unregister(router.line)
            router.line.close()
            router.line = None

    @contextlib.contextmanager
    def _inside(self, namespace: str) -> Any:
        there = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._enter(there)
            yield
        finally:
            self._enter(self.home)
            os.close(there)

    def _enter(self, descriptor: int) -> None:
        if self.libc.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "a namespace cannot be entered")

    def _leave(self, name: str) -> None:
        """Give a router's lease up, and forget it."""
        router = self.routers.pop(name)
        self.stamps.pop(name, None)
        if router.member is not None:
            self._do(router, router.member.leave())
            self._say(router, {"kind": "left", "round": router.member.round, "roster": router.member.roster})
        self._hang_up(router)
        router.close_deadline()
        with contextlib.suppress(OSError):
            os.unlink(router.state)  # noqa: PTH108

    def _do(self, router: Router, actions: Iterable[Action]) -> None:
        """Let the kernel know first, then the others."""
        if router.open_gate():
            self._take_over(router)
        router.tell()
        for action in actions:
            if isinstance(action, Ask):
                assert router.member is not None
                how = {"roster": router.entry["roster"], "rank": router.entry["rank"], "holding": action.holding}
                self._say(router, {"kind": "ask", "round": action.round} | how)
            elif isinstance(action, AskPlane):
                self.plane.ask(router.name, router.entry, action.round, action.length)
            elif isinstance(action, ReleasePlane):
                self.plane.release(router.entry, action.round)

    def _say(self, router: Router, message: dict[str, Any]) -> None:
        if router.line is not None:
            with contextlib.suppress(OSError):  # nobody is there
                router.line.send(json.dumps(message).encode("ascii"))

    def _take_over(self, router: Router) -> None:
        """Tell the neighbours where the addresses are now, and let the load balancer try every server."""
        now = time.monotonic()
        router.announcements = [now + pause for pause in _ANNOUNCE_AGAIN]
        self._announce(router)
        revive(router.entry["haproxy"])

    def _announce(self, router: Router) -> None:
        try:
            with self._inside(router.entry["namespace"]):
                for device, address in router.entry["announce"]:
                    announce(device, address)
        except OSError as error:
            print(f"{router.name}: {error!r}", file=sys.stderr, flush=True)  # noqa: T201

    def _hear(self, router: Router) -> None:
        """Take what the peer said."""
        member = router.member
        while router.line is not None and member is not None:
            try:
                message = json.loads(router.line.recv(2048))
                kind, number = message["kind"], int(message["round"])
                if kind == "ask":
                    self._vote(router, member, number, message)
                elif kind == "answer":
                    self._do(router, member.answered(bpf.clock(), number, vote=bool(message["vote"])))
                elif kind == "left":
                    member.peer_left(number, str(message["roster"]))
                    self._do(router, member.tick(bpf.clock()))
            except OSError:
                return
            except (ValueError, KeyError, TypeError) as error:
                print(f"{router.name}: {error!r}", file=sys.stderr, flush=True)  # noqa: T201

    def _vote(self, router: Router, member: Member, number: int, message: dict[str, Any]) -> None:
        roster, rank, holding = str(message["roster"]), int(message["rank"]), bool(message["holding"])
        vote, actions = member.asked_by_peer(bpf.clock(), number, roster, rank, holding=holding)
        self._do(router, actions)
        self._say(router, {"kind": "answer", "round": number, "vote": vote})

    def _hear_plane(self) -> None:
        for name, number, length, vote in self.plane.answers():
            router = self.routers.get(name)
            if router is None or router.member is None:
                continue
            if vote is None:
                router.member.plane_silent()
            else:
                self._do(router, router.member.plane_answered(number, length, vote=vote))

    def run(self) -> None:
        """Work until the process is ended."""
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write)
        signal.signal(signal.SIGHUP, lambda *_: None)
        self.selector.register(read, selectors.EVENT_READ, None)
        self.selector.register(self.plane.news, selectors.EVENT_READ, self.plane)
        reread = 0.0
        while True:
            if time.monotonic() >= reread:
                self.load()
                reread = time.monotonic() + _REREAD
            for key, _ in self.selector.select(_TICK):
                if key.data is None:
                    os.read(read, 512)
                    reread = 0.0
                elif key.data is self.plane:
                    self._hear_plane()
                else:
                    self._hear(key.data)
            for router in self.routers.values():
                if router.member is not None:
                    self._do(router, router.member.tick(bpf.clock()))
                    self._repeat(router)

    def _repeat(self, router: Router) -> None:
        if router.announcements and time.monotonic() >= router.announcements[0]:
            router.announcements.pop(0)
            if router.held:
                self._announce(router)


def revive(path: str) -> None:
    """Have haproxy take every server for healthy: behind a shut gate its checks could reach none; they go on now."""
    try:
        rows = [line.split(",") for line in _ask(path, "show stat").splitlines() if line and line[0] != "#"]
    except OSError:
        return  # it balances nothing
    servers = [f"{row[0]}/{row[1]}" for row in rows if len(row) > 2 and row[1] not in ("FRONTEND", "BACKEND")]
    for server in servers:
        with contextlib.suppress(OSError):
            _ask(path, f"set server {server} health up")


def _ask(path: str, command: str) -> str:
    folder, _, name = path.rpartition("/")
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # the path may be too long for a socket
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(0.2)
            line.connect(f"/proc/self/fd/{descriptor}/{name}")
            line.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: line.recv(65536), b"")).decode(errors="replace")
    finally:
        os.close(descriptor)


def main() -> None:
    """Serve the folder that the command line names, before other processes where the machine allows it."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    Server(sys.argv[1]).run()
