"""The world of the agent's tests: a door that speaks the control plane's side, real namespaces, and the real agent."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

from systemvm import netns
from systemvm.bundle import Bundle, Elements, File, Observation, Outcome

TOKEN = "a-token-of-this-test"
ROOT = Path(__file__).parents[2]


def until(what: Callable[[], object], seconds: float = 10, why: str = "") -> object:
    """Poll until there is something, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, why or "it did not come about in time"
        time.sleep(0.01)
    return found


class FakeDoor(ThreadingHTTPServer):
    """The control plane's side of the protocol, in memory. It listens in the namespace of the test process."""

    daemon_threads = True

    def __init__(self) -> None:
        self.news = threading.Condition()
        self.wanted: dict[str, Bundle] = {}
        self.applied: dict[str, int] = {}
        self.outcomes: list[Outcome] = []
        self.observations: list[Observation] = []
        self.hellos: list[dict] = []
        self.refuse: dict[str, int] = {}  # path -> how many times to answer 503
        self.admitted = True
        self.forgotten: set[str] = set()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def want(self, *bundles: Bundle) -> None:
        with self.news:
            self.wanted |= {bundle.target: bundle for bundle in bundles}
            self.news.notify_all()

    def forget(self, target: str) -> None:
        with self.news:
            self.wanted.pop(target)
            self.forgotten.add(target)
            self.news.notify_all()

    def outcome(self, bundle: Bundle, seconds: float = 15) -> Outcome:
        """Wait for the outcome of one generation of a target."""

        def found() -> Outcome | None:
            mine = (
                o for o in reversed(self.outcomes) if (o.target, o.generation) == (bundle.target, bundle.generation)
            )
            return next(mine, None)

        return until(found, seconds, f"no outcome of {bundle.name} {bundle.generation}: {self.outcomes}")

    def apply(self, bundle: Bundle, seconds: float = 15) -> Outcome:
        self.want(bundle)
        return self.outcome(bundle, seconds)

    def seen(self, target: str, after: int = 0) -> Observation | None:
        return next((o for o in reversed(self.observations[after:]) if o.target == target), None)

    def pull(self, wait: float, holding: dict[str, int]) -> dict:
        deadline = time.monotonic() + wait
        forgotten = len(self.forgotten)
        with self.news:
            while True:
                due = [
                    bundle
                    for bundle in self.wanted.values()
                    if self.applied.get(bundle.target) != bundle.generation
                    and holding.get(bundle.target) != bundle.generation
                ]
                left = deadline - time.monotonic()
                if due or left <= 0 or len(self.forgotten) != forgotten:
                    return {"bundles": [bundle.to_json() for bundle in due], "known": list(self.wanted)}
                self.news.wait(left)


class _Handler(BaseHTTPRequestHandler):
    server: FakeDoor
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        query = parse_qs(urlparse(self.path).query)
        holding = dict(pair.split(":") for pair in query.get("holding", [""])[0].split(",") if pair)
        if self._welcome("bundle"):
            self._say(self.server.pull(float(query["wait"][0]), {t: int(g) for t, g in holding.items()}))

    def do_POST(self) -> None:
        path = self.path.rpartition("/")[2]
        data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._welcome(path):
            return
        door = self.server
        with door.news:
            if path == "hello":
                door.hellos.append(data)
                door.applied = {target: standing[0] for target, standing in data["ledger"].items()}
                self._say({"target": "host-target"})
                return
            for outcome in map(Outcome.from_json, data.get("outcomes", ())):
                door.outcomes.append(outcome)
                if outcome.status in ("applied", "unchanged"):
                    door.applied[outcome.target] = outcome.generation
            door.observations += map(Observation.from_json, data.get("observations", ()))
            door.news.notify_all()
        self._say({})

    def _welcome(self, path: str) -> bool:
        if self.headers["Authorization"] != f"Bearer {TOKEN}" or not self.server.admitted:
            self._say({"error": "unknown host"}, 401)
            return False
        if self.server.refuse.get(path, 0) > 0:
            self.server.refuse[path] -= 1
            self._say({"error": "not now"}, 503)
            return False
        return True

    def _say(self, data: dict, status: int = 200) -> None:
        body = json.dumps(data).encode()
        with suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


class World:
    """A client and a guest with a router's empty namespace between them, and the agent that is to fill it."""

    public, inside = "02:00:00:00:00:01", "02:00:00:00:00:02"
    target = "11111111-1111-1111-1111-111111111111"

    def __init__(self, state: Path, tag: str) -> None:
        self.prefix = f"ta{os.getpid()}{tag}-"
        self.client, self.guest = f"{self.prefix}client", f"{self.prefix}guest"
        self.state = state
        self.door = FakeDoor()
        self.agent: subprocess.Popen[bytes] | None = None
        self.name = "r-1"
        (state / "token").write_text(TOKEN)

    @property
    def router(self) -> str:
        return self.prefix + self.name

    def build(self) -> None:
        for name in (self.client, self.guest, self.router):
            netns.ensure(name)
        self.plug(self.client, "198.51.100.9/24", self.public, "p")
        self.plug(self.guest, "10.1.1.5/24", self.inside, "g")
        netns.run(self.guest, ["ip", "route", "add", "default", "via", "10.1.1.1"])

    def plug(self, outside: str, address: str, mac: str, letter: str) -> None:
        argv = f"ip link add x{letter} address {mac} netns {self.router} type veth peer name e0 netns {outside}"
        netns.run("", argv.split())
        netns.run(outside, ["ip", "addr", "add", address, "dev", "e0"])
        netns.run(outside, ["ip", "link", "set", "e0", "up"])

    def argv(self, *more: str) -> list[str]:
        options = ["--host", "h1", "--state", str(self.state), "--prefix", self.prefix]
        return [sys.executable, "-m", "systemvm", *options, *more]

    def start(self) -> None:
        server = f"http://127.0.0.1:{self.door.server_address[1]}"
        more = ["--server", server, "--token-file", str(self.state / "token"), "--observe-seconds", "0.3"]
        with (self.state / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(self.argv(*more), cwd=ROOT, stdout=log, stderr=log)

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.agent:
            self.agent.send_signal(number)
            self.agent.wait(20)
            self.agent = None

    def clean(self) -> None:
        self.end()
        subprocess.run(self.argv("--clean"), cwd=ROOT, check=True)

    def destroy(self) -> None:
        try:
            self.clean()
        finally:
            self.door.shutdown()
            self.door.server_close()
            for name in netns.names(self.prefix):
                netns.ensure_no(name)

    def log(self) -> str:
        return (self.state / "agent.log").read_text()

    def pid(self, daemon: str) -> int | None:
        where = self.state / "metadata/run" if daemon == "metadata" else self.state / f"targets/{self.name}/run"
        try:
            return json.loads((where / f"{daemon}.pid").read_text())[0]
        except FileNotFoundError:
            return None

    def bundle(self, generation: int, *files: File, elements: tuple[Elements, ...] = (), forward: str = "") -> Bundle:
        """A router's bundle; ``forward`` is the port of the guest that port 80 leads to."""
        pf = (f"198.51.100.1 . tcp . 80 : 10.1.1.5 . {forward}",) if forward else ()
        mine = (File("interfaces.json", json.dumps(interfaces()), "links"), File("nftables.nft", SKELETON, "nft"))
        chosen = {file.path: file for file in (*mine, *files)}
        return Bundle(
            self.target,
            self.name,
            "router",
            generation,
            tuple(chosen.values()),
            elements or (Elements("dnat_forward", pf), Elements("allowed", ())),
        )


@contextmanager
def standing(world: World) -> Iterator[World]:
    """The world with its agent, until the block ends; its log is printed for who looks why a test failed."""
    try:
        world.build()
        world.start()
        yield world
    finally:
        world.destroy()
        print(world.log()[-6000:])


def interfaces(**change: object) -> dict:
    return {
        "interfaces": [
            {"mac": World.public, "name": "eth0", "addresses": ["198.51.100.1/24"], "mtu": 1500, "rate": 0},
            {"mac": World.inside, "name": "eth1", "addresses": ["10.1.1.1/24"], "mtu": 1500, "rate": 0},
        ],
        "routes": [{"to": "0.0.0.0/0", "via": "198.51.100.9", "dev": "eth0"}],
        "rules": [],
        "sysctls": {"net.ipv4.ip_forward": "1"},
    } | change


SKELETON = """table ip netspine {
  counter in_public { }
  map dnat_forward {
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
  }
  set allowed {
    type ipv4_addr . inet_proto . inet_service
    flags interval
    counter
  }
  chain prerouting {
    type nat hook prerouting priority dstnat
    dnat ip to ip daddr . meta l4proto . th dport map @dnat_forward
  }
  chain forward {
    type filter hook forward priority filter; policy drop
    iifname "eth0" counter name "in_public"
    ct state established,related accept
    ct status dnat accept
    iifname "eth1" accept
  }
}
"""


@contextmanager
def serving(namespace: str, port: int, answer: bytes) -> Iterator[list[tuple[str, int]]]:
    """Answer every connection to a port with some bytes and hold it open, echoing what comes; yield the peers."""
    with netns.entered(namespace):
        listening = socket.create_server(("0.0.0.0", port))
    peers: list[tuple[str, int]] = []

    def talk(line: socket.socket) -> None:
        with line, suppress(OSError):
            line.sendall(answer)
            while data := line.recv(4096):
                line.sendall(data)

    def take() -> None:
        with suppress(OSError):
            while True:
                line, peer = listening.accept()
                peers.append(peer)
                threading.Thread(target=talk, args=(line,), daemon=True).start()

    taking = threading.Thread(target=take, daemon=True)
    taking.start()
    try:
        yield peers
    finally:
        # wakes the thread: one that still waited would take the connections of whatever gets this descriptor next
        listening.shutdown(socket.SHUT_RDWR)
        taking.join()
        listening.close()


def connect(namespace: str, address: str, port: int, timeout: float = 1) -> socket.socket:
    with netns.entered(namespace):
        line = socket.socket()
    line.settimeout(timeout)
    line.connect((address, port))
    return line


def answer(namespace: str, address: str, port: int, ask: bytes = b"", timeout: float = 1) -> bytes:
    """What a connection brings at first; empty where it cannot be made."""
    try:
        with connect(namespace, address, port, timeout) as line:
            if ask:
                line.sendall(ask)
            return line.recv(65536)
    except OSError:
        return b""
