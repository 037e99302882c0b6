"""DHCPRELEASE (RFC 2131, 4.4.6) in the name of a guest that is gone, so that its address and name are free at once.

dnsmasq keeps a lease until it ends: it answers DNS for a destroyed guest, and refuses the address to its next owner.
SIGHUP changes nothing of that, but it takes a release from its own machine, bound to the guests' interface. Without a
client identifier it finds the lease by the MAC alone.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address

_SERVER_PORT = 67
_COOKIE = b"\x63\x82\x53\x63"


def release(device: str, server: str, address: str, mac: str) -> None:
    """Send one release; nothing answers it. The calling thread is in the server's namespace.

    :param device: the interface that the guest is behind.
    :param server: the server's own address on it.
    """
    hardware = bytes.fromhex(mac.replace(":", ""))
    head = struct.pack("!BBBBIHH", 1, 1, len(hardware), 0, 0, 0, 0)
    addresses = IPv4Address(address).packed + bytes(12)
    options = _COOKIE + bytes((53, 1, 7, 54, 4)) + IPv4Address(server).packed
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        out.sendto(
            head + addresses + hardware.ljust(16, b"\0") + bytes(192) + options + b"\xff", (server, _SERVER_PORT)
        )
