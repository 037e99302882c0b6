"""Two redundant routers on two hosts, with real agents' services, guests, an outside, and a control plane that votes.

Every frame that leaves a router with a shared MAC is captured at its port, so it is seen who owned the addresses when.
"""

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from drivers.balancing import LoadBalancer
from drivers.balancing import Member as Served
from drivers.network.virtual_router import VirtualRouter
from drivers.redundancy import Redundancy, shared_mac
from drivers.vocabulary import ApplianceFacts, IngressRule, Network, Nic, PublicAddress
from systemvm import bpf, gate, netns
from systemvm.apply import Applier
from systemvm.bundle import Bundle
from systemvm.ledger import Ledger
from systemvm.services import HostSettings
from systemvm.services.kinds import KINDS

OWNER = "00000002-0000-4000-8000-000000000001"
PUBLIC, GATEWAY, OUTSIDE, GUEST = "203.0.113.5", "10.1.1.1", "203.0.113.1", "10.1.1.5"
SERVICES = frozenset({"Firewall", "SourceNat", "PortForwarding"})


def uid(kind, number):
    return f"{kind:08x}-0000-4000-8000-{number:012x}"


class Plane:
    """The control plane's vote, over HTTP; it can be cut off from each router."""

    def __init__(self):
        self.holder, self.until, self.round, self.lock = "", 0.0, 0, threading.Lock()
        self.cut, self.servers = set(), {}

    def listen(self, name):
        plane = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if name in plane.cut:
                    self.close_connection = True
                    return
                said = json.dumps({"votes": plane.vote(body)}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        self.servers[name] = (server, thread)
        return f"http://127.0.0.1:{server.server_address[1]}"

    def vote(self, body):
        votes, now = {}, time.monotonic()
        with self.lock:
            for item in body["releases"]:
                if self.holder == item["router"] and self.round <= item["round"]:
                    self.holder = ""
            for item in body["asks"]:
                free = self.holder in ("", item["router"]) or now >= self.until
                votes[item["router"]] = free
                if free:
                    former = self.until if self.holder == item["router"] else 0.0
                    self.holder, self.round = item["router"], item["round"]
                    self.until = max(former, now + item["milliseconds"] / 1000 * 16 / 15)
        return votes

    def close(self):
        for server, thread in self.servers.values():
            server.shutdown()
            thread.join()
            server.server_close()


class Member:
    """One of the routers, on a host of its own."""

    def __init__(self, lab, number):
        self.lab, self.number, self.name = lab, number, f"r-{number}-VM"
        self.prefix = f"{lab.prefix}{'ab'[number]}-"
        self.space = self.prefix + self.name
        self.state = lab.folder / "ab"[number]
        self.state.mkdir(parents=True)
        (self.state / "token").write_text("secret")
        settings = HostSettings(
            f"host-{number}", "", self.prefix, self.state,
            server=lab.plane.listen(number), token=str(self.state / "token"),
        )  # fmt: skip
        self.applier = Applier(settings, Ledger(self.state / "ledger"), {"router": KINDS["router"]})
        self.generation, self.lock = 0, threading.Lock()
        netns.ensure(self.space)
        self.ports = {}
        for device, where in (("eth0", "guest"), ("eth1", "link"), ("eth2", "public")):
            self.plug(device, where)

    def plug(self, device, where):
        """Give it an interface on a bridge, as the host's bundle does."""
        port = f"{'ab'[self.number]}{where}"
        self.lab.cable(port, where, self.space, device, self.mac(device))
        self.ports[where] = port

    def mac(self, device):
        return f"02:00:00:00:0{self.number}:0{device[-1]}"

    def facts(self, members, *, balanced=False):
        others = [other for other in members if other is not self]
        nics = (
            Nic(uid(4, 0), self.mac("eth0"), OWNER, "Guest", GATEWAY, 24, "", 0, OWNER),
            Nic(uid(4, 1), self.mac("eth1"), f"link-{OWNER}", "Control", self.address, 30, "", 1),
            Nic(uid(4, 2), self.mac("eth2"), "public-1", "Public", PUBLIC, 24, OUTSIDE, 2),
        )
        balancer = LoadBalancer(uid(8, 1), "web", PUBLIC, 7000, 7000, "roundrobin", "tcp", (Served(uid(3, 1), GUEST),))
        network = Network(
            OWNER, "10.1.1.0/24", GATEWAY, self.mac("eth0"), "cs1.example", SERVICES | ({"Lb"} if balanced else set()),
            balancers=(balancer,) if balanced else (),
            ingress=(IngressRule(uid(6, 1), PUBLIC, "tcp", 7000, 7000, ("0.0.0.0/0",)),),
        )  # fmt: skip
        address = PublicAddress(uid(1, 1), PUBLIC, 24, OUTSIDE, self.mac("eth2"), True, OWNER)
        pair = Redundancy(
            OWNER, self.uuid, others[0].uuid if others else "", tuple((other.uuid, 0) for other in members),
            self.number, not others, self.mac("eth1"), self.address, others[0].address if others else "",
        )  # fmt: skip
        return ApplianceFacts(self.uuid, self.name, nics, (address,), (network,), redundancy=pair)

    @property
    def uuid(self):
        return uid(7, self.number)

    @property
    def address(self):
        return f"169.254.240.{self.number + 1}"

    def apply(self, members, *, balanced=False):
        self.generation += 1
        driver = VirtualRouter()
        files, elements = driver.render(driver.plan(self.lab.shape(self, self.facts(members, balanced=balanced))))
        with self.lock:
            outcome = self.applier.apply(Bundle(self.uuid, self.name, "router", self.generation, files, elements))
        assert outcome.status == "applied", outcome

    def ensure(self):
        with self.lock:
            held = self.applier.ledger.get(self.uuid)
            return self.applier.ensure(held) if held else []

    def health(self):
        """Return the states of the balanced guests, as haproxy has them."""
        states = self.applier.observe(self.applier.ledger.get(self.uuid)).states
        return {state for unit, state in states if "/" in unit}

    def states(self):
        return dict(self.applier.observe(self.applier.ledger.get(self.uuid)).states)

    def observe(self):
        return self.states()["redundancy"]

    @property
    def run(self):
        return self.state / "targets" / self.name / "run"

    def holds(self):
        """Tell whether its gate is open, as the kernel has it."""
        number = gate.number(self.run)
        if not number:
            return False
        descriptor = bpf.open_map(number)
        try:
            return bpf.clock() < bpf.get(descriptor)
        finally:
            os.close(descriptor)

    def pids(self):
        notes = [self.state / "leases" / "run" / "leases.pid", self.run / "conntrackd.pid"]
        return [json.loads(note.read_text())[0] for note in notes if note.exists()]

    def signal(self, number, *, only_lease=False):
        for pid in self.pids()[: 1 if only_lease else None]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def wire(self, what, *, up):
        self.lab.set(self.ports[what], up=up)


class Lab:
    """The two of them.

    :param shape: changes a member's facts before they are applied.
    """

    def __init__(self, folder, shape=lambda _member, facts: facts):
        self.shape = shape
        self.folder, self.prefix = Path(folder), f"t{os.getpid()}"
        self.switch, self.outside, self.guest = (f"{self.prefix}{name}" for name in ("sw", "out", "g"))
        self.plane, self.captured, self.over = Plane(), [], threading.Event()
        self.threads, self.open = [], []
        for space in (self.switch, self.outside, self.guest):
            netns.ensure(space)
        with netns.netlink(self.switch) as ip:
            for name in ("guest", "other", "public", "link"):
                ip.link("add", ifname=name, kind="bridge", br_forward_delay=0)
                ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")
        self.cable("out", "public", self.outside, "eth0", "02:00:00:00:09:01", f"{OUTSIDE}/24")
        self.cable("in", "guest", self.guest, "eth0", "02:00:00:00:09:05", f"{GUEST}/24", GATEWAY)
        self.members = [Member(self, number) for number in range(2)]
        for member in self.members:
            for where in ("guest", "public"):
                self.capture(member.number, member.ports[where], where)

    def cable(self, port, bridge, space, device, mac, address="", gateway=""):
        with netns.netlink(self.switch) as ip:
            master = ip.link_lookup(ifname=bridge)[0]
            peer = {"ifname": device, "net_ns_fd": space, "address": mac}
            ip.link("add", ifname=port, kind="veth", master=master, peer=peer)
            ip.link("set", index=ip.link_lookup(ifname=port)[0], state="up")
        with netns.netlink(space) as ip:
            index = ip.link_lookup(ifname=device)[0]
            ip.link("set", index=index, state="up")
            if address:
                ip.addr("add", index=index, address=address.split("/")[0], prefixlen=24)
            if gateway:
                ip.route("add", dst="default", gateway=gateway)

    def set(self, port, *, up):
        with netns.netlink(self.switch) as ip:
            ip.link("set", index=ip.link_lookup(ifname=port)[0], state="up" if up else "down")

    def capture(self, owner, port, where):
        """Note each frame that comes out of a router with the MAC that both share."""
        mac = bytes.fromhex(shared_mac(OWNER, OWNER if where == "guest" else "public-1").replace(":", ""))
        with netns.entered(self.switch):
            line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        line.bind((port, 3))

        def read():
            while not self.over.is_set():
                if select.select([line], [], [], 0.1)[0]:
                    with contextlib.suppress(OSError):
                        frame, (_, _, kind, *_) = line.recvfrom(256)
                        if frame[6:12] == mac and kind != socket.PACKET_OUTGOING:
                            self.captured.append((time.monotonic(), owner, where, frame[12:14] == b"\x08\x06"))
            line.close()

        self.start(read)

    def start(self, call):
        thread = threading.Thread(target=call)
        thread.start()
        self.threads.append(thread)

    def bring_up(self, *, balanced=False):
        for member in self.members:
            member.apply(self.members, balanced=balanced)
        return until(self.owner)

    def tend(self):
        """Look after both again and again, at the agent's pace."""

        def look():
            while not self.over.wait(2):
                for member in self.members:
                    member.ensure()

        self.start(look)

    def owner(self):
        held = [member for member in self.members if member.holds()]
        assert len(held) < 2, "two hold the addresses"
        return held[0] if held else None

    def other(self, member):
        return self.members[1 - member.number]

    def close(self):
        self.over.set()
        for member in self.members:
            member.signal(signal.SIGCONT)
        for thread in self.threads:
            thread.join()
        for each in self.open:
            each.close()
        for member in self.members:
            held = member.applier.ledger.get(member.uuid)
            if held:
                member.applier.remove(held)
            for pid in member.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.plane.close()
        for space in (self.switch, self.outside, self.guest, *(member.space for member in self.members)):
            netns.ensure_no(space)


def until(condition, seconds=8.0):
    """Poll until the condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come about in time"
        select.select([], [], [], 0.005)
    return value


def answering(lab):
    """Have the guest answer on port 7000."""
    with netns.entered(lab.guest):
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind((GUEST, 7000))
    server.listen()
    server.settimeout(0.1)
    lab.open.append(server)

    def serve():
        while not lab.over.is_set():
            with contextlib.suppress(OSError):
                line, _ = server.accept()
                with line:
                    line.sendall(b"ok")

    lab.start(serve)


def balanced(lab):
    """Tell whether the outside reaches the guest through the balancer."""
    with netns.entered(lab.outside):
        line = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with line, contextlib.suppress(OSError):
        line.settimeout(0.3)
        line.connect((PUBLIC, 7000))
        return line.recv(8) == b"ok"
    return False


class Traffic:
    """A guest's datagrams to the outside, which echoes them, and one TCP connection, both without end."""

    def __init__(self, lab, outside=OUTSIDE):
        self.lab, self.back, self.broken, self.turns = lab, [], "", []
        family = socket.AF_INET6 if ":" in outside else socket.AF_INET
        with netns.entered(lab.outside):
            self.echo = socket.socket(family, socket.SOCK_DGRAM)
            self.listening = socket.socket(family, socket.SOCK_STREAM)
        with netns.entered(lab.guest):
            self.line = socket.socket(family, socket.SOCK_DGRAM)
            self.stream = socket.socket(family, socket.SOCK_STREAM)
        self.echo.bind((outside, 7))
        self.listening.bind((outside, 8))
        self.listening.listen()
        self.line.connect((outside, 7))
        self.stream.settimeout(10)
        self.stream.connect((outside, 8))
        self.served, _ = self.listening.accept()
        self.served.settimeout(0.2)
        lab.open += [self.echo, self.listening, self.line, self.stream, self.served]
        for call in (self._answer, self._send, self._hear, self._talk, self._serve):
            lab.start(call)

    def _answer(self):
        self.echo.settimeout(0.1)
        while not self.lab.over.is_set():
            with contextlib.suppress(OSError):
                data, peer = self.echo.recvfrom(64)
                self.echo.sendto(data, peer)

    def _send(self):
        number = 0
        while not self.lab.over.is_set():
            number += 1
            with contextlib.suppress(OSError):
                self.line.send(struct.pack("!I", number))
            select.select([], [], [], 0.01)

    def _hear(self):
        self.line.settimeout(0.1)
        while not self.lab.over.is_set():
            with contextlib.suppress(OSError):
                self.line.recv(64)
                self.back.append(time.monotonic())

    def _talk(self):
        while not self.lab.over.is_set():
            try:
                self.stream.sendall(b"x")
                if not self.stream.recv(1):
                    self.broken = "it was closed"
                    return
            except OSError as error:
                self.broken = repr(error)
                return
            self.turns.append(time.monotonic())
            select.select([], [], [], 0.01)

    def _serve(self):
        while not self.lab.over.is_set():
            with contextlib.suppress(OSError):
                if not (data := self.served.recv(64)):
                    return
                self.served.sendall(data)

    def gap(self, since):
        """Return the longest time without an answer since then, in seconds."""
        times = [since, *(moment for moment in self.back if moment > since), time.monotonic()]
        return max(later - earlier for earlier, later in itertools.pairwise(times))
