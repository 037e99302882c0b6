"""Drain: what ends at a router itself stays with the old one until it ends, while the new one has the addresses.

A connection that a proxy has accepted lives in the old shell's kernel and cannot be carried. So the host hands the old
shell the frames of these connections, and lets out of it theirs alone: in a table of its own, on the hooks of the
cables' host ends. See nft(8), the netdev family.
"""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from systemvm import netns
from systemvm.services import HostSettings

_log = logging.getLogger(__name__)
_TALKING = frozenset({"01", "03", "04", "05", "08", "09", "0B"})
"""States, as proc_net_tcp(5) has them, of a connection that somebody still wants."""
_ACCEPTED = frozenset({"03"})
"""A connection that a client has asked for, and has not yet said anything on."""
_SETTLING = 0.5
_ASKED = "02"
"""A connection that the router has asked for, and that may come about yet."""
Flow = tuple[str, int, str, int]
"""Peer's address and port, own address and port."""


def flows(space: str, states: frozenset[str] = _TALKING | {_ASKED}) -> set[Flow]:
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


class Way(NamedTuple):
    """One of the router's segments: the old cable's end on the host, the new one's, and the bridge of both."""

    old: str
    new: str
    bridge: str


def prepare(host: HostSettings, old: str, ways: Sequence[Way]) -> bool:
    """Have the frames of the old shell's own connections go their own way, before the new one is plugged.

    What the old one opens for them, towards its balancers' servers, is let out, too. Who asks for a connection (again,
    as no answer came, or with ports that were used before) is the new one's from then on.

    :return: False where the kernel cannot (netdev egress hooks came with Linux 5.16): these connections break then.
    """
    chains = "".join(_chains(number, way) for number, way in enumerate(ways))
    table = f"netdev {_table(old)}"
    text = f"table {table}\ndelete table {table}\ntable {table} {{\n{_SET}{chains}}}\n"
    return _run(host, text + _add(table, flows(old)))


_SET = "\tset flows { type ipv4_addr . inet_service . ipv4_addr . inet_service; flags dynamic; size 262144; }\n"


def _chains(number: int, way: Way) -> str:
    inward, outward = "ip saddr . tcp sport . ip daddr . tcp dport", "ip daddr . tcp dport . ip saddr . tcp sport"
    return f"""\tchain to_{number} {{
\t\ttype filter hook egress device "{way.new}" priority filter;
\t\ttcp flags & (syn | ack) == syn delete @flows {{ {inward} }}
\t\t{inward} @flows fwd to "{way.old}"
\t}}
\tchain from_{number} {{
\t\ttype filter hook ingress device "{way.old}" priority filter;
\t\t{outward} @flows fwd to "{way.bridge}"
\t\ttcp flags & (syn | ack) == syn add @flows {{ {outward} }} fwd to "{way.bridge}"
\t}}
"""


def begin(host: HostSettings, old: str, ways: Sequence[Way]) -> None:
    """Take in what the old shell accepted until it was unplugged, and let nothing else out of it from now on."""
    table = f"netdev {_table(old)}"
    closed = "".join(f"add rule {table} from_{number} drop\n" for number in range(len(ways)))
    _run(host, closed + _add(table, flows(old)))


def settle(space: str) -> None:
    """Wait, not for long, for the clients that were answered just before the cut: their listener must be there yet."""
    deadline = time.monotonic() + _SETTLING
    while flows(space, _ACCEPTED) and time.monotonic() < deadline:
        time.sleep(0.01)


def end(host: HostSettings, old: str) -> None:
    """Take the table away; repeatable."""
    if not host.namespace or netns.exists(host.namespace):
        table = f"netdev {_table(old)}"
        # A transaction for nothing would look like somebody else's to whoever minds the host's other tables.
        if f"table {table}" in netns.run(host.namespace, ["nft", "list", "tables", "netdev"]).splitlines():
            _run(host, f"delete table {table}\n")


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
