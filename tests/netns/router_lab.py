"""A router between an outside and two guests, each in a namespace of its own, with the rendered files applied by hand.

The outside has 203.0.113.1 (the gateway), 198.51.100.7 (a stranger's address) and, on a second wire, 192.0.2.1.
Guests are 10.1.1.5 and 10.1.1.6. Sockets are made inside of the namespaces by this process itself.
"""

import http.client
import itertools
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from systemvm import netns

_numbers = itertools.count()


class Lab:
    """The namespaces; ``apply`` makes the router what is rendered."""

    def __init__(self):
        self.prefix = f"tr{os.getpid()}n{next(_numbers)}"
        self.outside, self.router, self.switch, self.g5, self.g6 = (
            f"{self.prefix}{part}" for part in ("o", "r", "s", "g5", "g6")
        )
        self.folder = Path(tempfile.mkdtemp(prefix=self.prefix))
        self.over = threading.Event()
        self.servers = []
        self.daemons = []
        for name in (self.outside, self.router, self.switch, self.g5, self.g6):
            netns.ensure(name)
        self._wire(self.outside, "o0", self.router, "02:00:00:00:00:01", "eth0")
        self._wire(self.outside, "o2", self.router, "02:00:00:00:00:02", "eth2")
        self._wire(self.switch, "s1", self.router, "02:00:00:00:01:01", "eth1")
        self.ip(self.switch, "link add br0 type bridge", "link set br0 up", "link set s1 master br0")
        for guest, number in ((self.g5, 5), (self.g6, 6)):
            self._wire(self.switch, f"s{number}", guest, f"02:00:00:00:02:0{number}", "eth0")
            self.ip(self.switch, f"link set s{number} master br0")
            self.ip(guest, f"addr add 10.1.1.{number}/24 dev eth0", "route add default via 10.1.1.1")
        self.ip(self.outside, "addr add 203.0.113.1/24 dev o0", "addr add 192.0.2.1/24 dev o2")
        self.ip(self.outside, "addr add 198.51.100.7/32 dev lo")
        # As a provider does: a packet whose source belongs on the other wire is not taken.
        netns.run(self.outside, ["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1"])

    @staticmethod
    def ip(name, *commands):
        for command in commands:
            netns.run(name, ["ip", *command.split()])

    def _wire(self, one, device, other, mac, its):
        self.ip(one, f"link add {device} type veth peer name {its} address {mac} netns {other}")
        self.ip(one, f"link set {device} up")
        self.ip(other, f"link set {its} up")

    def apply(self, rendered):
        """Bring interfaces and packet filter about, and put the files in place."""
        self.write(rendered)
        self._links(json.loads((self.folder / "current/interfaces.json").read_text()))
        netns.run(self.router, ["nft", "-f", "-"], text_in=ruleset(rendered))

    def write(self, rendered):
        """Put the files in place, and no more."""
        current = self.folder / "current"
        shutil.rmtree(current, ignore_errors=True)
        (self.folder / "run").mkdir(exist_ok=True)
        for file in rendered[0]:
            path = current / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.content)
        self.folder.chmod(0o755)

    def _links(self, wanted):
        names = {link.get("address"): link["ifname"] for link in self.json(self.router, "link")}
        for key, value in wanted["sysctls"].items():
            netns.run(self.router, ["sysctl", "-qw", f"{key}={value}"])
        for interface in wanted["interfaces"]:
            assert names[interface["mac"]] == interface["name"]
            device = interface["name"]
            self.ip(self.router, f"addr flush dev {device} scope global")
            for address in interface["addresses"]:
                self.ip(self.router, f"addr replace {address} dev {device}")
        for route in wanted["routes"]:
            words = [
                route["to"],
                *(word for key in ("via", "dev", "table") if key in route for word in (key, str(route[key]))),
            ]
            netns.run(self.router, ["ip", "route", "replace", *words])
        netns.run(self.router, ["ip", "rule", "flush"])
        self.ip(self.router, "rule add priority 32766 table main")
        for rule in wanted["rules"]:
            words = [word for key, value in rule.items() for word in (key, str(value))]
            netns.run(self.router, ["ip", "rule", "add", *words])

    @staticmethod
    def json(name, what):
        return json.loads(netns.run(name, ["ip", "-j", what, "show"]))

    def nft(self, *words):
        return json.loads(netns.run(self.router, ["nft", "-j", *words]))["nftables"]

    def counter(self, name):
        return next(
            item["counter"]["bytes"]
            for item in self.nft("list", "counter", "inet", "netspine", name)
            if "counter" in item
        )

    def serve(self, name, port, kind=socket.SOCK_STREAM, *, http=False, family=socket.AF_INET, address=""):
        """Answer each connection or datagram in a namespace with who asked: ``[peer's address, own port, name]``."""
        with netns.entered(name):
            server = socket.socket(family, kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address or ("" if family == socket.AF_INET else "::"), port))
        if kind == socket.SOCK_STREAM:
            server.listen(64)
        argv = (server, name[len(self.prefix) :], port, self.over, http)
        thread = threading.Thread(target=_serve, args=argv, daemon=True)
        self.servers.append((server, thread))
        thread.start()

    def start(self, argv):
        """Start a daemon in the router."""
        log = (self.folder / "log").open("ab")
        process = netns.popen(
            self.router, argv, cwd=self.folder / "current", stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        self.daemons.append(process)
        return process

    def remove(self):
        self.over.set()
        for server, thread in self.servers:
            thread.join()
            server.close()
        for process in self.daemons:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in (self.g5, self.g6, self.switch, self.router, self.outside):
            netns.ensure_no(name)
        shutil.rmtree(self.folder, ignore_errors=True)


def _serve(server, name, port, over, http):
    stream = server.type == socket.SOCK_STREAM
    while not over.is_set():
        try:
            if not select.select([server], [], [], 0.1)[0]:
                continue
            if not stream:
                _, peer = server.recvfrom(64)
                server.sendto(json.dumps([peer[0], port, name]).encode(), peer)
                continue
            connection, peer = server.accept()
            with connection:
                connection.settimeout(1)
                asked = connection.recv(4096).decode() if http else ""
                said = json.dumps([peer[0], port, name, asked] if http else [peer[0], port, name])
                cookie = f"Set-Cookie: SESSION={name}-1; path=/\r\n" if "/login" in asked else ""
                head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(said)}\r\n{cookie}\r\n" if http else ""
                connection.sendall((head + said).encode())
        except OSError:  # whoever asked is gone
            continue


def ask(name, address, port, source="", *, kind=socket.SOCK_STREAM, timeout=0.5):
    """Connect from a namespace and return the answer; None when nothing came back."""
    with netns.entered(name):
        client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    with client:
        client.settimeout(timeout)
        if source:
            client.bind((source, 0))
        try:
            client.connect((address, port))
            if kind == socket.SOCK_DGRAM:
                client.send(b"?")
            said = client.recv(256)
        except OSError:
            return None
    return json.loads(said) if said else None


def fetch(name, address, port, path="/", *, cookie="", context=None):
    """Ask by HTTP and return (answer, cookie that was set); None when nothing came back."""
    with netns.entered(name):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with client:
        client.settimeout(2)
        try:
            client.connect((address, port))
            stream = context.wrap_socket(client, server_hostname="lb.example") if context else client
            sent = f"Cookie: {cookie}\r\n" if cookie else ""
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n{sent}\r\n".encode())
            response = http.client.HTTPResponse(stream)
            response.begin()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return None
    if response.status != 200:
        return None
    return json.loads(body), (response.getheader("set-cookie") or "").partition(";")[0]


def ping(name, address, source="", timeout=0.5):
    """Tell whether an ICMP echo is answered (RFC 792)."""
    number = next(_numbers) & 0xFFFF
    body = struct.pack("!HH", number, 1)
    total = 0x0800 + number + 1
    request = struct.pack("!BBH", 8, 0, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + body
    with netns.entered(name):
        client = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with client:
        client.bind((source, 0))
        client.sendto(request, (address, 0))
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0 and select.select([client], [], [], left)[0]:
            answer = client.recv(256)[20:]
            if answer[0] == 0 and answer[4:8] == body:
                return True
    return False


def until(condition, seconds=5):
    """Poll until the condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come about in time"
        select.select([], [], [], 0.02)
    return value


def ruleset(rendered):
    """Return the packet filter as one text, as the agent loads it: in the old one's place, skeleton and elements."""
    files, elements = rendered
    text = "table inet netspine\ndelete table inet netspine\n" + next(
        file.content for file in files if file.path == "nftables.nft"
    )
    return text + "".join(
        f"add element inet netspine {item.name} {{ {', '.join(item.items)} }}\n" for item in elements if item.items
    )
