"""DHCP as a guest speaks it, in raw frames: a DISCOVER out of a device, until an OFFER comes back (RFC 2131)."""

from __future__ import annotations

import random
import socket
import struct
import time
from contextlib import suppress

from systemvm import netns

_ALL = 3  # ETH_P_ALL
_TURN = 0.005
"""Seconds between two frames."""


def await_offer(space: str, device: str, mac: str, seconds: float = 15.0) -> str:
    """Ask for an address as this guest, out of a device of a namespace, and return the one that is offered.

    :raises TimeoutError: nobody offers one.
    """
    with netns.entered(space):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    with wire:
        wire.bind((device, _ALL))
        wire.settimeout(_TURN)
        number, deadline = random.getrandbits(32), time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(OSError):
                wire.send(_discover(mac, number))
            turn = time.monotonic() + _TURN
            while time.monotonic() < turn:
                with suppress(TimeoutError):
                    if offered := _offered(wire.recv(2048), number):
                        return offered
    raise TimeoutError(f"Nobody offers {mac} an address within {seconds:g} s.")


def _discover(mac: str, number: int) -> bytes:
    """Return an Ethernet frame that asks to be answered by broadcast."""
    source = bytes.fromhex(mac.replace(":", ""))
    bootp = struct.pack("!BBBBIHH16x16s192xI", 1, 1, 6, 0, number, 0, 0x8000, source.ljust(16, b"\0"), 0x63825363)
    payload = (bootp + b"\x35\x01\x01\xff").ljust(300, b"\0")
    udp = struct.pack("!HHHH", 68, 67, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, b"\0" * 4, b"\xff" * 4)
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return b"\xff" * 6 + source + b"\x08\x00" + head[:10] + struct.pack("!H", check) + head[12:] + udp


def _offered(frame: bytes, number: int) -> str:
    """Return the address that a frame offers; empty where it is no answer to this number."""
    udp = frame[34:]
    if frame[12:14] != b"\x08\x00" or udp[:2] != b"\x00\x43" or udp[8:9] != b"\x02":
        return ""
    return socket.inet_ntoa(udp[24:28]) if udp[12:16] == struct.pack("!I", number) else ""
