"""What a load balancer rule is tuned to is in force in the running haproxy, and no connection is lost by it."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controlplane.demo_zone import NOW
from systemvm import netns
from systemvm.services import HostSettings, Place, haproxy
from tests.spine.world import World

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]
PORT = 7000


class Echo(socketserver.BaseRequestHandler):
    """Says again what it is told, for as long as the other side stays."""

    def handle(self):
        while heard := self.request.recv(2048):
            self.request.sendall(heard)


class EchoServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        """A check of haproxy's ends with a reset."""


@contextmanager
def echoing(space: str) -> Iterator[None]:
    """Echo at a port of the namespace."""
    with netns.entered(space):
        server = EchoServer(("0.0.0.0", PORT), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def connected(world: World, address: str) -> socket.socket:
    with netns.entered(world.space("internet")):
        sock = socket.socket()
    sock.settimeout(5)
    sock.connect((address, PORT))
    return sock


def echoed(sock: socket.socket, word: bytes) -> bytes:
    sock.sendall(word)
    return sock.recv(2048)


def running(world: World, rule: str) -> tuple[Path, str]:
    """The folder of the router whose haproxy serves the rule, and the limit of connections that haproxy says it has."""
    for host in world.cloud.fabric.hosts:
        state = world.cloud.place.state(host)
        for line in state.glob("targets/*/run/haproxy.sock"):
            folder = line.parent.parent
            for row in haproxy._stat(Place(folder.name, "", folder, HostSettings(host, "", "", state))):
                if row["pxname"] == rule and row["svname"] == "FRONTEND":
                    return folder, row["slim"]
    raise AssertionError(f"no haproxy serves {rule}")


def test_settings_change_in_the_running_haproxy_and_no_connection_is_lost(world: World, net, guests):
    ip, guest = world.address(net["id"]), guests[0]
    with echoing(world.space(f"vm/{guest['name']}")):
        rule = world.balance(ip, [guest], PORT, privateport=PORT)["id"]
        with connected(world, ip["ipaddress"]) as early:
            assert echoed(early, b"one") == b"one"
            folder, limit = running(world, rule)
            pid = (folder / "run" / "haproxy.pid").read_text()
            tuned = [{"key": "maxconn", "value": "321"}, {"key": "timeout.tunnel", "value": "500ms"}]
            of_rule = {"resourcetype": "LoadBalancer", "resourceid": rule}
            world.api.addResourceDetail(**of_rule, details=tuned, **NOW)
            assert limit != "321"
            assert running(world, rule) == (folder, "321")
            assert (folder / "run" / "haproxy.pid").read_text() == pid
            with connected(world, ip["ipaddress"]) as late:
                assert echoed(late, b"two") == b"two"
                assert late.recv(2048) == b""  # it has been silent for longer than the rule now allows
            assert echoed(early, b"three") == b"three"
            world.api.removeResourceDetail(**of_rule, key="maxconn", **NOW)
            assert running(world, rule) == (folder, limit)
            assert echoed(early, b"four") == b"four"
            said = world.refused("addResourceDetail", **of_rule, details=[{"key": "timeout.client", "value": "25d"}])
            assert "of 24 days at most" in said
        left = world.api.listResourceDetails(**of_rule)["resourcedetail"]
        assert [(detail["key"], detail["value"]) for detail in left] == [("timeout.tunnel", "500ms")]
