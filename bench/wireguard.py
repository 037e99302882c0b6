"""WireGuard: a device out on the internet that was just added, and how soon it reaches a guest."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.cloud import Cloud, Guest
from bench.figures import Bar, Figure, timed, until
from systemvm import netns

DEVICES, PATIENCE = 8, 0.1


def tunnels(cloud: Cloud, network: str, guest: Guest) -> list[Figure]:
    """Add devices one after the other: from the call to the guest's answer through the tunnel."""
    whole: list[float] = []
    added: list[float] = []
    vpn = cloud.caller.job("createWireguardVpn", networkid=network)["wireguardvpn"]
    for number in range(DEVICES):
        with ExitStack() as stack:
            with timed(whole):
                with timed(added):
                    peer = cloud.caller.job("addWireguardPeer", wireguardvpnid=vpn["id"], name=f"device {number}")
                told = cloud.caller.call("getWireguardPeerConfiguration", id=peer["wireguardpeer"]["id"])
                there = device(cloud.fabric.internet, number, told["configuration"])
                space = stack.enter_context(there)
                until(lambda space=space: _answers(space, guest.address))  # type: ignore[misc]
    cloud.caller.job("deleteWireguardVpn", id=vpn["id"])
    return [
        Figure("a WireGuard device: addWireguardPeer → a guest answers it", "ms", whole, [Bar("worst", 1000)]),
        Figure("… of it: until the job has ended", "ms", added),
    ]


def _answers(space: str, address: str) -> bool:
    with netns.entered(space), suppress(OSError), socket.create_connection((address, 80), timeout=PATIENCE):
        return True
    return False


@contextmanager
def device(internet: str, number: int, configuration: str) -> Iterator[str]:
    """Hold a device up that took the configuration; yield its network namespace.

    :param internet: the namespace that it is out in; ``number`` tells it from others, 0 to 255.
    """
    space = f"{internet[:40]}-device{number}"
    handle = "wd" + hashlib.sha256(f"{os.getpid()}/{space}".encode()).hexdigest()[:12]
    netns.ensure(space)
    process = None
    try:
        _plug(internet, space, handle, f"172.31.{number}")
        process = netns.popen(
            space, ["wireguard-go", "-f", handle], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(Path(f"/var/run/wireguard/{handle}.sock").is_socket)
        _take(space, handle, configuration)
        yield space
    finally:
        if process is not None:
            process.terminate()
            process.wait(5)
        with suppress(RuntimeError):
            netns.run(internet, ["ip", "link", "del", handle])
        netns.ensure_no(space)


def _plug(internet: str, space: str, wire: str, block: str) -> None:
    """Connect a namespace to the internet with a small network of its own."""
    netns.run(internet, ["ip", "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", space])
    netns.run(internet, ["ip", "addr", "add", f"{block}.1/24", "dev", wire])
    netns.run(internet, ["ip", "link", "set", wire, "up"])
    netns.run(internet, ["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    netns.run(space, ["ip", "addr", "add", f"{block}.2/24", "dev", "eth0"])
    netns.run(space, ["ip", "link", "set", "eth0", "up"])
    netns.run(space, ["ip", "route", "add", "default", "via", f"{block}.1"])


def _take(space: str, handle: str, configuration: str) -> None:
    """Do what wg-quick(8) does with a configuration."""
    lines = [line for line in configuration.splitlines() if not line.startswith("#")]
    fields = dict(line.split(" = ") for line in lines if " = " in line)
    own = "\n".join(line for line in lines if not line.startswith(("Address", "MTU"))) + "\n"
    netns.run(space, ["wg", "setconf", handle, "/dev/stdin"], text_in=own)
    netns.run(space, ["ip", "addr", "add", fields["Address"], "dev", handle])
    netns.run(space, ["ip", "link", "set", handle, "mtu", fields["MTU"], "up"])
    for cidr in fields["AllowedIPs"].split(", "):
        netns.run(space, ["ip", "route", "add", cidr, "dev", handle])
