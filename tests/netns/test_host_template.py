"""The default template: what its guests do with what DHCP, metadata, password server and user data tell them."""

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from drivers.vocabulary import Shell
from systemvm import netns
from tests.netns.hosts import NET, OTHER, nic, until, zone

pytestmark = pytest.mark.netns

KEY = "ssh-ed25519 AAAA tenant"
SCRIPT = "#!/bin/sh\necho ran >> /root/ran\n"


class Answers(BaseHTTPRequestHandler):
    """Metadata on one port and passwords on another, as a virtual router has them."""

    asked: ClassVar[list[str]] = []

    def do_GET(self):
        wish = self.headers.get("DomU_Request", "")
        type(self).asked.append(wish or self.path)
        texts = {
            "/latest/meta-data/public-keys": KEY,
            "/latest/user-data": SCRIPT,
            "send_my_password": "pa$$ 'word" if "saved_password" not in self.asked else "saved_password",
            "saved_password": "saved_password",
        }
        text = texts.get(wish or self.path)
        self.send_response(200 if text else 404)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def router(tmp_path):
    """A host with a shell in which the test itself runs dnsmasq and the two servers."""
    Answers.asked.clear()
    nics = (nic(1), nic(1, OTHER, 1))
    with zone(f"th{os.getpid()}-", tmp_path, "h1") as cloud:
        cloud.things = (NET, OTHER, Shell("router", "r-1-VM", nics))
        assert cloud.apply("h1", *cloud.things) == []
        space = f"{cloud.fabric.prefix}r-1-VM"
        netns.run(space, ["ip", "address", "add", "10.1.1.1/24", "dev", "eth0"])
        netns.run(space, ["ip", "address", "add", "10.2.2.1/24", "dev", "eth1"])
        config = tmp_path / "dnsmasq.conf"
        config.write_text(
            "port=0\nkeep-in-foreground\nbind-dynamic\nno-ping\nuser=root\n"
            f"dhcp-leasefile={tmp_path}/leases\npid-file={tmp_path}/dnsmasq.pid\n"
            "dhcp-range=set:a,10.1.1.0,static\ndhcp-range=set:b,10.2.2.0,static\n"
            f"dhcp-host={nic(10).mac},10.1.1.10,web-1\ndhcp-host={nic(10, OTHER, 1).mac},10.2.2.10,web-1\n"
            "dhcp-option=tag:a,option:router,10.1.1.1\ndhcp-option=tag:b,option:router\n"
            "dhcp-option=tag:a,option:dns-server,10.1.1.1\ndhcp-option=tag:a,option:domain-name,cs1.example\n"
            "dhcp-option=tag:b,option:mtu,1400\n"
        )
        daemon = netns.popen(space, ["dnsmasq", "-C", str(config)])
        with netns.entered(space):
            servers = [HTTPServer(("0.0.0.0", port), Answers) for port in (80, 8080)]
        threads = [threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}) for server in servers]
        for thread in threads:
            thread.start()
        try:
            yield cloud
        finally:
            for server in servers:
                server.shutdown()
                server.server_close()
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(5)


def test_a_guest_configures_itself_from_what_it_is_told(router):
    assert router.apply("h1", *router.things, router.guest(10)) == []
    until(lambda: router.exec("vm/vm10", "cat", "/www/index.html") == "web-1\n")
    assert router.exec("vm/vm10", "cat", "/etc/hostname") == "web-1\n"
    assert "10.1.1.10/24" in router.exec("vm/vm10", "ip", "address", "show", "eth0")
    assert "default via 10.1.1.1" in router.exec("vm/vm10", "ip", "route")
    assert router.exec("vm/vm10", "cat", "/etc/resolv.conf") == "search cs1.example\nnameserver 10.1.1.1\n"
    assert router.exec("router/r-1-VM", "busybox", "wget", "-q", "-O", "-", "http://10.1.1.10/") == "web-1\n"
    until(lambda: "saved_password" in Answers.asked and "/latest/user-data" in Answers.asked)
    until(lambda: router.exec("vm/vm10", "cat", "/root/ran", fails=True) == "ran\n")
    assert router.exec("vm/vm10", "cat", "/root/.ssh/authorized_keys").strip() == KEY


def test_a_password_is_set_once_and_user_data_runs_once_for_its_content(router):
    router.apply("h1", *router.things, router.guest(10))
    until(lambda: router.exec("vm/vm10", "cat", "/root/ran", fails=True) == "ran\n")
    line = router.exec("vm/vm10", "grep", "^root:", "/etc/shadow").split(":")[1]
    salt = line.split("$")[2]
    assert router.exec("vm/vm10", "mkpasswd", "-m", "sha512", "-S", salt, "pa$$ 'word").strip() == line
    Answers.asked.clear()
    Answers.asked.append("saved_password")  # the server has nothing more to give
    router.apply("h1", *router.things, router.guest(10, boot=2))
    until(lambda: "/latest/user-data" in Answers.asked)
    until(lambda: not router.exec("vm/vm10", "pidof", "metadata", fails=True))
    assert router.exec("vm/vm10", "cat", "/root/ran") == "ran\n"
    assert router.exec("vm/vm10", "grep", "^root:", "/etc/shadow").split(":")[1] == line


def test_a_nic_that_comes_later_gets_its_own_lease(router):
    router.apply("h1", *router.things, router.guest(10))
    until(lambda: "10.1.1.10/24" in router.exec("vm/vm10", "ip", "address"))
    assert router.apply("h1", *router.things, router.guest(10, nic(10), nic(10, OTHER, 1))) == []
    until(lambda: "10.2.2.10/24" in router.exec("vm/vm10", "ip", "address", "show", "eth1"))
    assert "mtu 1400" in router.exec("vm/vm10", "ip", "link", "show", "eth1")
    assert router.exec("vm/vm10", "ip", "route").count("default") == 1
    assert router.apply("h1", *router.things, router.guest(10)) == []
    until(lambda: router.exec("vm/vm10", "pidof", "udhcpc").count(" ") == 0)
