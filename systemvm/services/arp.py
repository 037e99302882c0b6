"""Gratuitous ARP (RFC 5227, 3) and unsolicited neighbour adverts (RFC 4861, 7.2.6): an address lives here now."""

from __future__ import annotations

import contextlib
import socket
import struct
from ipaddress import IPv4Interface, ip_interface

_ARP = 0x0806
_BROADCAST = b"\xff" * 6
_REQUEST, _REPLY = 1, 2
_ADVERT, _ROUTER, _OVERRIDE, _TARGET_LINK_LAYER = 136, 1 << 31, 1 << 29, 2


def announce(device: str, address: str) -> None:
    """Send the announcement as a request and as a reply, as some neighbours learn from one of them only.

    The calling thread is in the device's namespace. An interface without carrier has no neighbours: that is no error.

    :param address: in CIDR notation.
    """
    parsed = ip_interface(address)
    if not isinstance(parsed, IPv4Interface):
        _advertise(device, parsed.ip.packed)
        return
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out, contextlib.suppress(OSError):
        out.bind((device, _ARP))
        mac = out.getsockname()[4]
        for operation in (_REQUEST, _REPLY):
            out.send(_frame(mac, parsed.ip.packed, operation))


def _advertise(device: str, address: bytes) -> None:
    """Tell all nodes of the link that the address is at this interface's MAC, whatever they have noted before."""
    index = socket.if_nametoindex(device)
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link,
        socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as out,
        contextlib.suppress(OSError),
    ):
        link.bind((device, 0))
        target = struct.pack("!BB", _TARGET_LINK_LAYER, 1) + link.getsockname()[4]
        out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        head = struct.pack("!BBHI", _ADVERT, 0, 0, _ROUTER | _OVERRIDE)  # the kernel fills the checksum in
        out.sendto(head + address + target, ("ff02::1", 0, 0, index))


def _frame(mac: bytes, address: bytes, operation: int) -> bytes:
    ethernet = _BROADCAST + mac + struct.pack("!H", _ARP)
    return ethernet + struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac + address + _BROADCAST + address
