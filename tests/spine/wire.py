"""Sockets inside namespaces: what the guests and the internet say to each other."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from systemvm import netns


@contextmanager
def answering(space: str, tcp: Iterable[int] = (), udp: Iterable[int] = (), *, v6: bool = False) -> Iterator[list[str]]:
    """Answer on these ports of the namespace with ``PORT PEER``; collect the peers."""
    selector, peers = selectors.DefaultSelector(), []
    waker, sleeper = socket.socketpair()
    selector.register(sleeper, selectors.EVENT_READ)
    with netns.entered(space):
        family = socket.AF_INET6 if v6 else socket.AF_INET
        for sock in [_bound(family, socket.SOCK_STREAM, port) for port in tcp] + [
            _bound(family, socket.SOCK_DGRAM, port) for port in udp
        ]:
            selector.register(sock, selectors.EVENT_READ)

    def answer(sock: socket.socket) -> None:
        port = sock.getsockname()[1]
        if sock.type == socket.SOCK_DGRAM:
            _, (peer, source, *_) = sock.recvfrom(2048)
            sock.sendto(f"{port} {peer}".encode(), (peer, source))
        else:
            line, (peer, *_) = sock.accept()
            with line:
                line.sendall(f"{port} {peer}".encode())
        peers.append(peer)

    def loop() -> None:
        while True:
            for key, _ in selector.select():
                if key.fileobj is sleeper:
                    return
                answer(key.fileobj)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield peers
    finally:
        waker.close()
        thread.join()
        for key in list(selector.get_map().values()):
            key.fileobj.close()
        selector.close()


def _bound(family: int, kind: int, port: int) -> socket.socket:
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
    if kind == socket.SOCK_STREAM:
        sock.listen(64)
    return sock


def ask(space: str, address: str, port: int, *, source: str = "", udp: bool = False, seconds: float = 2) -> str:
    """Return what is answered to the namespace at an address and port; empty when nothing is."""
    with netns.entered(space):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    with sock:
        sock.settimeout(seconds)
        try:
            sock.bind((source, 0))
            sock.connect((address, port))
            if udp:
                sock.send(b"?")
            return sock.recv(2048).decode()
        except OSError:
            return ""


@contextmanager
def listening(space: str, device: str) -> Iterator[list[bytes]]:
    """Collect every frame that arrives at a device of the namespace (packet(7))."""
    frames: list[bytes] = []
    with netns.entered(space):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sock.bind((device, 0))
    sock.setblocking(False)
    waker, sleeper = socket.socketpair()

    def loop() -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            selector.register(sleeper, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is sleeper:
                        return
                    frames.append(sock.recv(65536))

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield frames
    finally:
        waker.close()
        thread.join()
        sock.close()
        sleeper.close()
