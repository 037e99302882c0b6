"""Traffic that goes on while something is changed, with everything counted that went wrong."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from systemvm import netns

PACE = 0.005
"""Seconds between two packets: 200 a second."""
_PATIENCE = 2.0


@dataclass
class Counted:
    """What was sent, which of it never came back, and how long the longest took, in seconds."""

    sent: int = 0
    lost: list[int] = field(default_factory=list)
    longest: float = 0.0
    failed: list[str] = field(default_factory=list)

    @property
    def gap(self) -> int:
        """How many in a row were lost at most."""
        longest = run = 0
        lost = set(self.lost)
        for number in range(self.sent):
            run = run + 1 if number in lost else 0
            longest = max(longest, run)
        return longest


def _inside(space: str, kind: int, protocol: int = 0) -> socket.socket:
    with netns.entered(space):
        return socket.socket(socket.AF_INET, kind, protocol)


@contextmanager
def _looping(*loops: Callable[[threading.Event], None]) -> Iterator[None]:
    done = threading.Event()
    threads = [threading.Thread(target=loop, args=(done,)) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


@contextmanager
def _echoed(
    sock: socket.socket, packet: Callable[[int], bytes], number_of: Callable[[bytes], int]
) -> Iterator[Counted]:
    """Send at the pace, whatever comes back, and note which number did."""
    counted, answered = Counted(), {}
    at: dict[int, float] = {}
    sock.settimeout(0.05)

    def send(done: threading.Event) -> None:
        due = time.monotonic()
        while not done.is_set():
            at[counted.sent] = time.monotonic()
            try:
                sock.send(packet(counted.sent))
            except OSError as error:
                counted.failed.append(str(error))
            counted.sent += 1
            due += PACE
            time.sleep(max(0.0, due - time.monotonic()))

    def receive(done: threading.Event) -> None:
        deadline = None
        while deadline is None or (time.monotonic() < deadline and len(answered) < counted.sent):
            if done.is_set() and deadline is None:
                deadline = time.monotonic() + _PATIENCE
            try:
                number = number_of(sock.recv(2048))
            except TimeoutError:
                continue
            except OSError as error:
                counted.failed.append(str(error))
                continue
            if number in at:
                answered[number] = time.monotonic() - at[number]

    with sock, _looping(send, receive):
        yield counted
    counted.lost = [number for number in range(counted.sent) if number not in answered]
    counted.longest = max(answered.values(), default=0.0)


@contextmanager
def datagrams(space: str, address: str, port: int) -> Iterator[Counted]:
    """Send datagrams, numbered, to a port that sends them back."""
    sock = _inside(space, socket.SOCK_DGRAM)
    sock.connect((address, port))
    with _echoed(
        sock, lambda number: struct.pack("!I", number), lambda data: struct.unpack("!I", data[:4])[0]
    ) as found:
        yield found


@contextmanager
def pings(space: str, address: str) -> Iterator[Counted]:
    """Send echo requests of one identifier (RFC 792)."""
    sock = _inside(space, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sock.connect((address, 0))
    own = 0x4E53

    def request(number: int) -> bytes:
        body = struct.pack("!HHI", own, number & 0xFFFF, number)
        head = struct.pack("!BBH", 8, 0, 0) + body
        total = sum(struct.unpack(f"!{len(head) // 2}H", head))
        total = (total >> 16) + (total & 0xFFFF)
        return struct.pack("!BBH", 8, 0, ~(total + (total >> 16)) & 0xFFFF) + body

    def number_of(data: bytes) -> int:
        icmp = data[(data[0] & 15) * 4 :]
        return struct.unpack("!I", icmp[8:12])[0] if icmp[0] == 0 and icmp[4:6] == struct.pack("!H", own) else -1

    with _echoed(sock, request, number_of) as found:
        yield found


@contextmanager
def requests(space: str, address: str, port: int, *, keep: bool = False) -> Iterator[Counted]:
    """Fetch a page again and again.

    :param keep: over one connection, as long as the server keeps it.
    """
    counted = Counted()

    def loop(done: threading.Event) -> None:
        client = None
        while not done.is_set():
            begun = time.monotonic()
            try:
                if client is None:
                    client = _client(space, address, port)
                client.request("GET", "/", headers={} if keep else {"Connection": "close"})
                answer = client.getresponse()
                answer.read()
                if answer.status != 200:
                    counted.failed.append(f"{counted.sent}: {answer.status}")
                if not keep or answer.will_close:
                    client.close()
                    client = None
            except (OSError, http.client.HTTPException) as error:
                counted.failed.append(f"{counted.sent}: {error!r}")
                client = None
            counted.sent += 1
            counted.longest = max(counted.longest, time.monotonic() - begun)
            done.wait(PACE)

    with _looping(loop):
        yield counted


def _client(space: str, address: str, port: int) -> http.client.HTTPConnection:
    client = http.client.HTTPConnection(address, port, timeout=5)
    client.sock = _inside(space, socket.SOCK_STREAM)
    client.sock.settimeout(5)
    client.sock.connect((address, port))
    return client


@contextmanager
def conversation(space: str, address: str, port: int) -> Iterator[Counted]:
    """Hold one TCP connection to a port that sends everything back, and say something every few milliseconds."""
    counted, sock = Counted(), _inside(space, socket.SOCK_STREAM)
    sock.settimeout(5)
    sock.connect((address, port))

    def loop(done: threading.Event) -> None:
        while not done.is_set() and not counted.failed:
            begun = time.monotonic()
            try:
                sock.sendall(struct.pack("!I", counted.sent))
                if (said := sock.recv(4, socket.MSG_WAITALL)) != struct.pack("!I", counted.sent):
                    counted.failed.append(f"{counted.sent}: {said!r}")
            except OSError as error:
                counted.failed.append(f"{counted.sent}: {error!r}")
            counted.sent += 1
            counted.longest = max(counted.longest, time.monotonic() - begun)
            done.wait(PACE)

    with sock, _looping(loop):
        yield counted


def echoes(space: str, address: str, port: int) -> bool:
    """Tell whether a port sends back what it is told."""
    with _inside(space, socket.SOCK_STREAM) as sock:
        sock.settimeout(2)
        try:
            sock.connect((address, port))
            sock.sendall(b"here")
            return sock.recv(4) == b"here"
        except OSError:
            return False


@contextmanager
def echoing(space: str, *, tcp: int = 0, udp: int = 0) -> Iterator[None]:
    """Send back what comes to these ports, each connection in a thread of its own."""
    with ExitStack() as stack:
        if tcp:
            server = stack.enter_context(_inside(space, socket.SOCK_STREAM))
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("0.0.0.0", tcp))
            server.listen(64)
            server.settimeout(0.1)
            stack.enter_context(_looping(lambda done: _accept(server, done)))
        if udp:
            sock = stack.enter_context(_inside(space, socket.SOCK_DGRAM))
            sock.bind(("0.0.0.0", udp))
            sock.settimeout(0.1)
            stack.enter_context(_looping(lambda done: _return(sock, done)))
        yield


def _accept(server: socket.socket, done: threading.Event) -> None:
    while not done.is_set():
        try:
            line, _ = server.accept()
        except TimeoutError:
            continue
        threading.Thread(target=_talk, args=(line, done), daemon=True).start()


def _talk(line: socket.socket, done: threading.Event) -> None:
    line.settimeout(0.1)
    with line:
        while not done.is_set():
            try:
                data = line.recv(4096)
                if not data:
                    return
                line.sendall(data)
            except TimeoutError:
                continue
            except OSError:
                return


def _return(sock: socket.socket, done: threading.Event) -> None:
    while not done.is_set():
        try:
            data, peer = sock.recvfrom(2048)
        except TimeoutError:
            continue
        sock.sendto(data, peer)


@contextmanager
def resets(space: str, device: str) -> Iterator[list[str]]:
    """Collect the TCP resets that pass a device of the namespace, in words (packet(7))."""
    found: list[str] = []
    with netns.entered(space):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sock.bind((device, 0))
    sock.settimeout(0.05)

    def read(done: threading.Event) -> None:
        while not done.is_set():
            with suppress(TimeoutError):
                if said := _reset(sock.recv(65536)):
                    found.append(said)

    with sock, _looping(read):
        yield found


def _reset(frame: bytes) -> str:
    """Return who resets whom, empty for any other frame."""
    if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_TCP:
        return ""
    tcp = frame[14 + (frame[14] & 15) * 4 :]
    if not tcp[13] & 4:
        return ""
    source, destination = (socket.inet_ntoa(frame[at : at + 4]) for at in (26, 30))
    ports = struct.unpack("!HH", tcp[:4])
    return f"{source}:{ports[0]} > {destination}:{ports[1]}"
