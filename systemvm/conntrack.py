"""Connection tracking of a namespace, read and written over ctnetlink, and carried from one namespace to another.

The library's own reader takes 100 µs an entry and a ``conntrack`` process 2 ms; here a dump is 4 µs an entry (measured)
and a write one message. See linux/netfilter/nfnetlink_conntrack.h and conntrack(8).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from systemvm import netns

_NETLINK_NETFILTER = 12
_NEW, _GET, DELETE = 1 << 8, (1 << 8) | 1, (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK
REQUEST, ACK = 0x1, 0x4
_DUMP, _EXCLUSIVE, _CREATE = 0x300, 0x200, 0x400
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_TYPE, _NESTED = 0x3FFF, 0x8000

ORIG, REPLY, STATUS, PROTOINFO = 1, 2, 3, 4  # CTA_…
ID, ZONE = 12, 18
_NAT_SRC, _TIMEOUT, _MARK, _NAT_DST, _LABELS = 6, 7, 8, 13, 22
_SEEN, _ASSURED, _CONFIRMED, _SNAT, _DNAT = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5  # IPS_…
_LIBERAL, _LEARNT = (
    0x08,
    0x30,
)  # IP_CT_TCP_FLAG_BE_LIBERAL; DATA_UNACKNOWLEDGED and MAXACK_SET, of the window kept there
_ICMP = (1, 58)
_ANSWER = {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17, 128: 129, 129: 128}
_CHUNK = 128


@dataclass(frozen=True, slots=True)
class Tuple:
    """One direction of a connection; addresses as packed bytes, for ICMP ``sport`` is the identifier.

    :param kind: ICMP's type, ``code`` its code.
    """

    source: bytes
    destination: bytes
    protocol: int
    sport: int = 0
    dport: int = 0
    kind: int = 0
    code: int = 0

    @classmethod
    def read(cls, data: bytes) -> Tuple:
        """Read a CTA_TUPLE_* attribute's content."""
        outer = attributes(data)
        ip, proto = attributes(outer[1]), attributes(outer[2])
        source, destination = (ip[1], ip[2]) if 1 in ip else (ip[3], ip[4])
        number, first = proto[1][0], 4 if 4 in proto else 7
        if first in proto:
            return cls(source, destination, number, _u16(proto[first]), 0, proto[first + 1][0], proto[first + 2][0])
        return cls(source, destination, number, _u16(proto.get(2, b"\0\0")), _u16(proto.get(3, b"\0\0")))

    @property
    def inverse(self) -> Tuple:
        """What answers it where nothing is translated."""
        answer = _ANSWER.get(self.kind, self.kind) if self.protocol in _ICMP else 0
        if self.protocol in _ICMP:
            return Tuple(self.destination, self.source, self.protocol, self.sport, 0, answer, self.code)
        return Tuple(self.destination, self.source, self.protocol, self.dport, self.sport)

    def written(self) -> bytes:
        """Write the attribute's content."""
        first = 1 if len(self.source) == 4 else 3
        ip = _attribute(first, self.source) + _attribute(first + 1, self.destination)
        proto = _attribute(1, bytes((self.protocol,)))
        if self.protocol in _ICMP:
            first = 4 if self.protocol == 1 else 7
            proto += _attribute(first, self.sport.to_bytes(2, "big"))
            proto += _attribute(first + 1, bytes((self.kind,))) + _attribute(first + 2, bytes((self.code,)))
        else:
            proto += _attribute(2, self.sport.to_bytes(2, "big")) + _attribute(3, self.dport.to_bytes(2, "big"))
        return _nest(1, ip) + _nest(2, proto)


@dataclass(frozen=True)
class Entry:
    """One connection, as the kernel dumps it: its attributes' contents by their numbers."""

    family: int
    parts: Mapping[int, bytes]

    @cached_property
    def orig(self) -> Tuple:
        """The direction of its first packet, as that was sent."""
        return Tuple.read(self.parts[ORIG])

    @cached_property
    def reply(self) -> Tuple:
        """The direction of its answers, as these are sent."""
        return Tuple.read(self.parts[REPLY])

    @property
    def key(self) -> bytes:
        """What the kernel finds it by."""
        return self.parts[ORIG] + self.parts.get(ZONE, b"")

    @property
    def state(self) -> tuple[bytes, ...]:
        """What a connection's further packets change in it, its timer aside."""
        return tuple(self.parts.get(part, b"") for part in (STATUS, PROTOINFO, _MARK, _LABELS))

    def ends_at(self, addresses: Collection[bytes]) -> bool:
        """Tell whether one of its ends has one of these addresses, once translated."""
        return self.orig.source in addresses or self.reply.source in addresses

    def message(self, *, fresh: bool) -> bytes:
        """Return the attributes that make it in another namespace, or bring it there to the present state.

        The translation is written as an order, for the kernel takes none from the tuples. TCP windows are not dumped,
        so they are not minded either (``BE_LIBERAL``, as conntrackd does).

        :param fresh: it is not there yet; a translation can be given then only.
        """
        status = int.from_bytes(self.parts[STATUS], "big")
        kept = status & (_SEEN | _ASSURED) | _CONFIRMED
        text = _nest(ORIG, self.parts[ORIG]) + _attribute(STATUS, kept.to_bytes(4, "big"))
        translated = status & (_SNAT | _DNAT)
        if fresh:
            text += _nest(REPLY, self.orig.inverse.written() if translated else self.parts[REPLY])
            ports = self.orig.protocol not in _ICMP
            if status & _DNAT:
                text += _nest(_NAT_DST, _translation(self.reply.source, self.reply.sport if ports else None))
            if status & _SNAT:
                text += _nest(_NAT_SRC, _translation(self.reply.destination, self.reply.dport or self.reply.sport))
        text += b"".join(_attribute(part, self.parts[part]) for part in (_TIMEOUT, _MARK, ZONE) if part in self.parts)
        if PROTOINFO in self.parts:
            text += _nest(PROTOINFO, _liberal(self.parts[PROTOINFO]))
        return text + (_attribute(_LABELS, self.parts[_LABELS]) if _LABELS in self.parts else b"")


def _translation(address: bytes, port: int | None) -> bytes:
    low, high = (1, 2) if len(address) == 4 else (4, 5)
    text = _attribute(low, address) + _attribute(high, address)
    if port is None:
        return text
    packed = port.to_bytes(2, "big")
    return text + _nest(3, _attribute(1, packed) + _attribute(2, packed))


def _liberal(data: bytes) -> bytes:
    """Return CTA_PROTOINFO with both directions liberal where it is TCP's, unchanged otherwise."""
    tcp = attributes(data).get(1)
    if tcp is None:
        return data
    parts = attributes(tcp)
    text = b"".join(_attribute(part, parts[part][:1]) for part in (1, 2, 3) if part in parts)
    for part in (4, 5):
        flags = parts.get(part, b"\0")[0] & ~_LEARNT | _LIBERAL
        text += _attribute(part, bytes((flags, 0xFF)))
    return _nest(1, text)


def attributes(data: bytes) -> dict[int, bytes]:
    """Return the contents of netlink attributes by their numbers."""
    found, at = {}, 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        found[kind & _TYPE] = data[at + 4 : at + size]
        at += (size + 3) & ~3
    return found


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


def _nest(kind: int, data: bytes) -> bytes:
    return _attribute(kind | _NESTED, data)


def _u16(data: bytes) -> int:
    return int.from_bytes(data[:2], "big")


class Table:
    """The connections of one namespace, over a socket of its own."""

    def __init__(self, namespace: str) -> None:
        """Open it.

        :raises OSError: there is no such namespace.
        """
        with netns.entered(namespace):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.settimeout(10)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def __enter__(self) -> Self:
        """Close it at the block's end."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def entries(self, family: int = socket.AF_UNSPEC) -> Iterator[Entry]:
        """Yield every connection, of one family or of all; a dump must be read to its end before the next call."""
        self._socket.send(_HEADER.pack(20, _GET, REQUEST | _DUMP, 1, 0) + struct.pack("!BBH", family, 0, 0))
        while True:
            data, at = self._socket.recv(1 << 17), 0
            while at < len(data):
                size, kind = _HEADER.unpack_from(data, at)[:2]
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", data, at + 16)[0]
                    raise OSError(number, "The kernel does not list its connections")
                yield Entry(data[at + 16], attributes(data[at + 20 : at + size]))
                at += (size + 3) & ~3

    def delete(self, entry: Entry) -> int:
        """Delete one connection; 0 where it ended by itself meanwhile."""
        names = b"".join(_attribute(part, entry.parts[part]) for part in (ORIG, ZONE, ID) if part in entry.parts)
        (failed,) = self._ask([(entry.family, DELETE, 0, names)])
        return 0 if failed else 1

    def load(self, entries: Iterable[Entry]) -> dict[int, int]:
        """Make these connections, or bring those that are there already to the state given.

        :return: error number → how many could not be made for it.
        """
        waiting = list(entries)
        failed: dict[int, int] = {}
        for first in range(0, len(waiting), _CHUNK):
            chunk = waiting[first : first + _CHUNK]
            make = [(each.family, _NEW, _CREATE | _EXCLUSIVE, each.message(fresh=True)) for each in chunk]
            answers = list(zip(chunk, self._ask(make), strict=True))
            there = [each for each, problem in answers if problem == errno.EEXIST]
            change = [(each.family, _NEW, 0, each.message(fresh=False)) for each in there]
            for problem in [problem for _, problem in answers if problem != errno.EEXIST] + self._ask(change):
                if problem:
                    failed[problem] = failed.get(problem, 0) + 1
        return failed

    def _ask(self, orders: list[tuple[int, int, int, bytes]]) -> list[int]:
        """Send messages (family, kind, flags, attributes) at once; return the error number of each, 0 where done."""
        if not orders:
            return []
        text = b""
        for number, (family, kind, flags, body) in enumerate(orders):
            text += _HEADER.pack(20 + len(body), kind, REQUEST | ACK | flags, number, 0)
            text += struct.pack("!BBH", family, 0, 0) + body
        self._socket.send(text)
        found: dict[int, int] = {}
        while len(found) < len(orders):
            data, at = self._socket.recv(1 << 17), 0
            while at < len(data):
                size, _, _, number, _ = _HEADER.unpack_from(data, at)
                found[number] = -struct.unpack_from("=i", data, at + 16)[0]
                at += (size + 3) & ~3
        return [found[number] for number in range(len(orders))]
