"""Frames as bytes: what a guest can put on its wire, forged or not."""

import socket
import struct
from ipaddress import ip_address

BROADCAST, ALL_NODES = "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"
TCP, UDP, ICMP6, HOP, FRAGMENT, DESTINATION = 6, 17, 58, 0, 44, 60


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def ether(source, kind, body, to=BROADCAST):
    return mac(to) + mac(source) + struct.pack("!H", kind) + body


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip4(source, body, *, to="10.1.1.255", protocol=UDP, fragment=0):
    """:param fragment: as in the header: offset in units of 8 bytes, 0x2000 for more to come."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 77, fragment, 64, protocol, 0)
    head += socket.inet_aton(source) + socket.inet_aton(to)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def ip6(source, body, *, to="ff02::1", following=UDP):
    head = struct.pack("!IHBB", 6 << 28, len(body), following, 255)
    return head + ip_address(source).packed + ip_address(to).packed + body


def extension(following, body):
    """Return an 8 byte hop-by-hop or destination options header, and what is behind it."""
    return bytes((following, 0, 1, 4, 0, 0, 0, 0)) + body


def fragment6(following, body, *, offset=0, more=False):
    return struct.pack("!BBHI", following, 0, offset << 3 | more, 77) + body


def udp(sport, dport, body=b""):
    return struct.pack("!HHHH", sport, dport, 8 + len(body), 0) + body


def icmp6(source, kind, body, *, code=0, to="ff02::1"):
    plain = bytes((kind, code, 0, 0)) + body
    pseudo = ip_address(source).packed + ip_address(to).packed + struct.pack("!II", len(plain), ICMP6)
    return plain[:2] + struct.pack("!H", checksum(pseudo + plain)) + plain[4:]


def arp(operation, sender, address, *, target="10.1.1.77", hardware=1, sizes=(6, 4)):
    head = struct.pack("!HHBBH", hardware, 0x0800, *sizes, operation)
    return head + mac(sender) + socket.inet_aton(address) + bytes(6) + socket.inet_aton(target)


def option(kind, address):
    return bytes((kind, 1)) + mac(address)


def bootp(operation, chaddr, mark):
    return bytes((operation, 1, 6, 0)) + bytes(24) + mac(chaddr) + bytes(10) + mark.ljust(64, b"\0") + bytes(128)
