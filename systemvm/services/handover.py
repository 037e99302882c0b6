"""Hand-over: a shell that was made and checked in the dark takes the place of another one on the same host.

Both have the same MACs and addresses, so that for everybody outside nothing has changed. Connections that are only
translated are carried to the new shell, before the cut and once more after it; those that end at the router itself
stay with the old one until they end (:mod:`systemvm.services.drain`). In between the new one takes up no connection
that it was not told of: it would translate it otherwise, or reset it.

Everything may be repeated: a note tells that a hand-over began and did not come to its end.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroute2.netlink.exceptions import NetlinkError

from systemvm import netns
from systemvm.conntrack import Table
from systemvm.ports import Bay, Port
from systemvm.services import HostSettings, Place, drain, frr, haproxy, wireguard
from systemvm.services.arp import announce

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_log = logging.getLogger(__name__)
_LOOSE = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose")
_KNOWN, _STALE, _PERMANENT = 0x02 | 0x04 | 0x08 | 0x10 | 0x80, 0x04, 0x80  # NUD_…


def is_due(host: HostSettings, bay: Bay, name: str, follows: str, ports: Sequence[Port]) -> bool:
    """Tell whether the shell is still to take over from the one that it follows."""
    if not follows or not netns.exists(host.prefix + follows):
        return False
    return _note(host, name).exists() or not all(map(bay.is_lit, ports))


def take_over(host: HostSettings, bay: Bay, name: str, follows: str, ports: Sequence[Port]) -> list[str]:
    """Move connections, cables and proxied work from one shell to the other; return what was done.

    :param name: the new shell's, which is there, its cables in no bridge; ``follows`` the old one's.
    """
    old, new = host.prefix + follows, host.prefix + name
    note = _note(host, name)
    if not note.exists():
        note.write_text(_loose(new), encoding="ascii")
    _loose(new, "0")
    try:
        carried = _Carried(old, new)
        carried.more()
        _keep_neighbours(old, new)
        haproxy.adopt(_place(host, follows), _place(host, name))
        ways = _ways(bay, old, ports)
        frr.fall_silent(_place(host, follows))
        steered = drain.prepare(host, old, ways)
        bay.move(old, ports)
        carried.more()
        if steered:
            drain.begin(host, old, ways)
        announce_addresses(new)
        _adopt_tunnels(_place(host, follows), _place(host, name))
        drain.settle(old)
        haproxy.retire(_place(host, follows))
    finally:
        _loose(new, note.read_text(encoding="ascii"))
    note.unlink()
    return [f"{name} took over from {follows} with {carried.count} connections"]


class _Carried:
    """The connections that pass through the old shell, and how they were when they were last carried to the new one."""

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new, self._states = old, new, dict[bytes, tuple[bytes, ...]]()
        self._own = _addresses(new)

    @property
    def count(self) -> int:
        return len(self._states)

    def more(self) -> None:
        """Carry what came and what changed since the last time; what ends at the router itself stays."""
        with Table(self._old) as old, Table(self._new) as new:
            fresh = [
                entry
                for entry in old.entries()
                if self._states.get(entry.key) != entry.state and not entry.ends_at(self._own)
            ]
            for number, count in new.load(fresh).items():
                _log.warning("%s: %d connections could not be carried: %s", self._new, count, os.strerror(number))
        self._states |= {entry.key: entry.state for entry in fresh}


def _adopt_tunnels(old: Place, new: Place) -> None:
    try:
        wireguard.adopt(old, new)
    except RuntimeError as error:  # the peers come back by themselves, later
        _log.warning("%s: its tunnels do not answer: %s", new.name, error)


def _addresses(space: str) -> Collection[bytes]:
    with netns.netlink(space) as ip:
        texts = [message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS") for message in ip.get_addr()]
    return frozenset(ip_address(text).packed for text in texts)


def _keep_neighbours(old: str, new: str) -> None:
    """Tell the new shell who its neighbours are, and keep the old one from asking: it would get no answer."""
    with netns.netlink(old) as before, netns.netlink(new) as after:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in before.get_links()}
        indexes = {link.get_attr("IFLA_IFNAME"): link["index"] for link in after.get_links()}
        for entry in before.get_neighbours():
            mac, index = entry.get_attr("NDA_LLADDR"), indexes.get(names.get(entry["ifindex"]))
            if not entry["state"] & _KNOWN or not mac or index is None:
                continue
            known = {"family": entry["family"], "dst": entry.get_attr("NDA_DST"), "lladdr": mac}
            _set_neighbour(after, **known, ifindex=index, state=_STALE)
            _set_neighbour(before, **known, ifindex=entry["ifindex"], state=_PERMANENT)


def _set_neighbour(ip: IPRoute, **entry: Any) -> None:
    with suppress(NetlinkError):  # it went meanwhile, with its address or its interface
        ip.neigh("replace", **entry)


def _ways(bay: Bay, old: str, ports: Sequence[Port]) -> list[drain.Way]:
    """Return the cables of the old shell, each with the one of the new shell that has its MAC."""
    by_mac = {port.mac: port for port in ports}
    found = [(link.name, by_mac.get(bay.mac_of(link))) for link in bay.held(old)]
    return [drain.Way(name, port.port, bay.bridges[port.segment]) for name, port in found if port is not None]


def announce_addresses(space: str) -> None:
    """Tell the neighbours of a shell where its addresses are now (RFC 5227, 3)."""
    with netns.netlink(space) as ip:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
        found = [(names[entry["index"]], entry.get_attr("IFA_LOCAL")) for entry in ip.get_addr(family=2)]
    with netns.entered(space):
        for name, address in found:
            if name != "lo":
                announce(name, address)


def _loose(space: str, value: str = "") -> str:
    """Return whether the namespace takes up connections whose beginning it has not seen; set it where it is given."""
    with netns.entered(space):
        if value:
            _LOOSE.write_text(value, encoding="ascii")
        return _LOOSE.read_text(encoding="ascii").strip()


def _note(host: HostSettings, name: str) -> Path:
    return host.state / "shells" / f"{name}.handover"


def _place(host: HostSettings, name: str) -> Place:
    return Place(name, host.prefix + name, host.state / "targets" / name, host)
