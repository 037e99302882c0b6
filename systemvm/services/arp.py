"""Gratuitous ARP (RFC 5227, 3): tells neighbours at once that an address lives here now."""

from __future__ import annotations

import contextlib
import socket
import struct
from ipaddress import IPv4Interface, ip_interface

_ARP = 0x0806
_BROADCAST = b"\xff" * 6
_REQUEST, _REPLY = 1, 2


def announce(device: str, address: str) -> None:
    """Send the announcement as a request and as a reply, as some neighbours learn from one of them only.

    The calling thread is in the device's namespace. An interface without carrier has no neighbours: that is no error.

    :param address: in CIDR notation; IPv6 is announced by the kernel itself.
    """
    parsed = ip_interface(address)
    if not isinstance(parsed, IPv4Interface):
        return
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out, contextlib.suppress(OSError):
        out.bind((device, _ARP))
        mac = out.getsockname()[4]
        for operation in (_REQUEST, _REPLY):
            out.send(_frame(mac, parsed.ip.packed, operation))


def _frame(mac: bytes, address: bytes, operation: int) -> bytes:
    ethernet = _BROADCAST + mac + struct.pack("!H", _ARP)
    return ethernet + struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac + address + _BROADCAST + address
