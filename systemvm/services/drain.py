"""Drain: what ends at a router itself stays with the old one until it ends, while the new one has the addresses.

A connection that a proxy has accepted lives in the old shell's kernel and cannot be carried. So the host hands the old
shell the frames of these connections, and lets out of it theirs alone: in a table of its own, on the hooks of the
cables' host ends. See nft(8), the netdev family.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from systemvm import netns
from systemvm.services import HostSettings

_log = logging.getLogger(__name__)
_TALKING = frozenset({"01", "03", "04", "05", "08", "09", "0B"})
"""States, as proc_net_tcp(5) has them, of a connection that somebody still wants."""
_LATE = frozenset({"02", "06"})
"""One that is only asked for yet, and one that is over but may see a late frame."""
Flow = tuple[str, int, str, int]
"""Peer's address and port, own address and port."""


def flows(space: str, states: frozenset[str] = _TALKING | _LATE) -> set[Flow]:
    """Return the IPv4 TCP connections that end in a namespace, those within it aside."""
    with netns.entered(space):
        lines = Path("/proc/thread-self/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    found = set()
    for _, own, peer, state, *_ in map(str.split, lines):
        if state in states:
            found.add((*_end(peer), *_end(own)))
    return {flow for flow in found if not flow[0].startswith("127.")}


def _end(text: str) -> tuple[str, int]:
    address, _, port = text.partition(":")
    return socket.inet_ntoa(struct.pack("=I", int(address, 16))), int(port, 16)


def busy(space: str) -> bool:
    """Tell whether a connection that ends in the namespace is still wanted."""
    return bool(flows(space, _TALKING))


def prepare(host: HostSettings, old: str, ways: Mapping[str, str]) -> bool:
    """Have the frames of the old shell's own connections handed to it, as soon as the new one is plugged.

    :param ways: the new cable's host end → the old one's.
    :return: False where the kernel cannot (netdev egress hooks came with Linux 5.16): these connections break then.
    """
    chains = "".join(
        f'\tchain to_{number} {{ type filter hook egress device "{new}" priority filter; '
        f'ip saddr . tcp sport . ip daddr . tcp dport @flows fwd to "{before}"; }}\n'
        for number, (new, before) in enumerate(ways.items())
    )
    table = f"netdev {_table(old)}"
    text = f"table {table}\ndelete table {table}\ntable {table} {{\n{_SET}{chains}}}\n"
    return _run(host, text + _add(table, flows(old)))


_SET = "\tset flows { type ipv4_addr . inet_service . ipv4_addr . inet_service; flags dynamic; size 262144; }\n"


def begin(host: HostSettings, old: str, bridges: Mapping[str, str]) -> None:
    """Let the old shell's own connections out, and what it opens for them, and nothing else.

    :param bridges: the old cable's host end → the bridge that it was in.
    """
    table, flow = f"netdev {_table(old)}", "ip daddr . tcp dport . ip saddr . tcp sport"
    chains = "".join(
        f'\tchain from_{number} {{ type filter hook ingress device "{device}" priority filter; '
        f'{flow} @flows fwd to "{bridge}"; '
        f'tcp flags & (syn | ack) == syn add @flows {{ {flow} }} fwd to "{bridge}"; drop; }}\n'
        for number, (device, bridge) in enumerate(bridges.items())
    )
    _run(host, f"table {table} {{\n{chains}}}\n" + _add(table, flows(old)))


def end(host: HostSettings, old: str) -> None:
    """Take the table away; repeatable."""
    if not host.namespace or netns.exists(host.namespace):
        table = f"netdev {_table(old)}"
        _run(host, f"table {table}\ndelete table {table}\n")


def _table(old: str) -> str:
    return f"drain_{old}"


def _add(table: str, found: Iterable[Flow]) -> str:
    items = ", ".join(" . ".join(map(str, flow)) for flow in sorted(found))
    return f"add element {table} flows {{ {items} }}\n" if items else ""


def _run(host: HostSettings, text: str) -> bool:
    try:  # a process of its own: the library looks interfaces up in a list that all its threads share
        netns.run(host.namespace, ["nft", "-f", "-"], text_in=text)
    except RuntimeError as error:
        _log.warning("Connections to a retired router itself cannot be kept: %s", error)
        return False
    return True
