"""Interfaces of a host as they are, and the mark by which its own are known again.

Whatever the agent makes carries a link alias that begins with :func:`mark` and says what it was made as. So the kernel
itself is the record: reading the links back tells what is there, whose it is and whether it is as wanted, also after
the agent or its files were lost. Nothing without the mark is ever changed or removed.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from systemvm import netns

_GROUPS = 65_536

if TYPE_CHECKING:
    from pyroute2 import IPRoute


_HEADER, _LINK, _MASTER = struct.Struct("=IHHII"), struct.Struct("=BBHiII"), struct.Struct("=HHI")
_NEWLINK, _REQUEST, _ACK, _IFLA_MASTER = 16, 0x1, 0x4, 10


@dataclass(frozen=True, slots=True)
class Link:
    """One interface.

    :param kind: ``bridge``, ``veth``, ``vxlan`` …; empty for hardware.
    :param master: index of the bridge that it is a port of, 0 when of none.
    :param hub: of a bridge: it remembers no MAC, and so floods all frames.
    :param received: packets and bytes that came in, ``sent`` that went out, since the interface was made.
    :param filtered: a bridge that hands its packets to the L3 hooks.
    """

    name: str
    index: int
    kind: str
    master: int
    mtu: int
    alias: str
    up: bool
    hub: bool
    received: tuple[int, int]
    sent: tuple[int, int]
    filtered: bool = False


def read(ip: IPRoute, only: str = "") -> dict[str, Link]:
    """Return every interface that the handle sees, or the one that is named, by name."""
    found = {}
    for message in ip.link("get", ifname=only) if only else ip.get_links():
        info = message.get_attr("IFLA_LINKINFO")
        stats = message.get_attr("IFLA_STATS64") or {}
        kind = (info.get_attr("IFLA_INFO_KIND") or "") if info else ""
        bridge = info.get_attr("IFLA_INFO_DATA") if kind == "bridge" else None
        link = Link(
            name=message.get_attr("IFLA_IFNAME"),
            index=message["index"],
            kind=kind,
            master=message.get_attr("IFLA_MASTER") or 0,
            mtu=message.get_attr("IFLA_MTU") or 0,
            alias=message.get_attr("IFLA_IFALIAS") or "",
            up=message["state"] == "up",
            hub=_is_hub(info),
            received=(stats.get("rx_packets", 0), stats.get("rx_bytes", 0)),
            sent=(stats.get("tx_packets", 0), stats.get("tx_bytes", 0)),
            filtered=bool(bridge and bridge.get_attr("IFLA_BR_NF_CALL_IPTABLES")),
        )
        found[link.name] = link
    return found


def _is_hub(info: Any) -> bool:
    data = info.get_attr("IFLA_INFO_DATA") if info and info.get_attr("IFLA_INFO_KIND") == "bridge" else None
    return data is not None and data.get_attr("IFLA_BR_AGEING_TIME") == 0


def mark(prefix: str, what: str) -> str:
    """Return how the alias of every ``what`` (segment, port) of the agent with this prefix begins."""
    return f"netspine {what} of [{prefix}] "


def index(ip: IPRoute, name: str) -> int:
    """Return the interface's index.

    :raises RuntimeError: there is none of this name.
    """
    found = ip.link_lookup(ifname=name)
    if not found:
        raise RuntimeError(f"There is no interface {name}.")
    return int(found[0])


def silence(namespace: str, name: str) -> None:
    """Take IPv6 off the interface, so that the host itself neither speaks nor listens on its guests' segments."""
    with netns.entered(namespace), suppress(FileNotFoundError):
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")


def admit_groups(namespace: str) -> None:
    """Let the host listen to as many multicast groups as VNIs may need; the kernel by itself has it at twenty."""
    with netns.entered(namespace):
        limit = Path("/proc/sys/net/ipv4/igmp_max_memberships")
        if int(limit.read_text()) < _GROUPS:
            limit.write_text(str(_GROUPS))


def mute(namespace: str, name: str) -> None:
    """Have the host answer no ARP request on the interface: nobody there is to take it for somebody else."""
    with netns.entered(namespace):
        Path(f"/proc/sys/net/ipv4/conf/{name}/arp_ignore").write_text("8")


def remaster(namespace: str, moves: Sequence[tuple[int, int]]) -> None:
    """Put interfaces into bridges, or out of any (0), as (index, master), in this order and in one call.

    The kernel takes all messages of a datagram before it returns, so nothing of this process comes in between; see
    rtnetlink(7).

    :raises OSError: it refused one; the others are done.
    """
    if not moves:
        return
    size = _HEADER.size + _LINK.size + _MASTER.size
    text = b"".join(
        _HEADER.pack(size, _NEWLINK, _REQUEST | _ACK, number, 0)
        + _LINK.pack(0, 0, 0, index, 0, 0)
        + _MASTER.pack(_MASTER.size, _IFLA_MASTER, master)
        for number, (index, master) in enumerate(moves)
    )
    with netns.entered(namespace):
        line = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    with line:
        line.settimeout(10)
        line.send(text)
        problems: list[int] = []
        while len(problems) < len(moves):
            data, at = line.recv(1 << 16), 0
            while at < len(data):
                problems.append(-struct.unpack_from("=i", data, at + _HEADER.size)[0])
                at += (struct.unpack_from("=I", data, at)[0] + 3) & ~3
    for number in filter(None, problems):
        raise OSError(number, f"A cable cannot be moved: {os.strerror(number)}")
