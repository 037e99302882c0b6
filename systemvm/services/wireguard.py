"""wireguard: a target's tunnels, in the kernel where it has WireGuard, otherwise in a process (wireguard-go) of each.

What changes is found by comparing what is wanted with what the interface says of itself, and only that is set: the
sessions of all other peers go on. Keys are handed over on standard input, never as arguments (wg(8)). The file::

    {"tunnels": [{"id", "device", "address", "mtu", "port", "mark", "routes": […], "private_key",
     "peers": [{"id", "public_key", "preshared_key", "allowed": […], "endpoint", "keepalive"}]}]}
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from systemvm import netns
from systemvm.bundle import Bundle, Failure, Observation
from systemvm.daemon import Daemon
from systemvm.services import Place, tunnels
from systemvm.services.redundancy import turn
from systemvm.services.tunnels import DEVICE, Device, Tunnel
from systemvm.tally import Count, Tally

FILE = "wireguard.json"
_SOCKETS = Path("/var/run/wireguard")
_PROTOCOL = 87
"""Marks the routes that are this service's to remove: rtnetlink(7) leaves the numbers above 4 to their users."""
_UP = 0x1
_WAIT = 5.0
_SESSION = 180
"""Seconds that a session lasts after its handshake at the most (REJECT_AFTER_TIME)."""
_NO_SUCH_KIND = (22, 95)
"""EINVAL and EOPNOTSUPP: how kernels say that they know no WireGuard."""


class Wireguard:
    """The service ``wireguard``."""

    name = "wireguard"

    def __init__(self) -> None:
        self._tallies: dict[Path, Tally] = {}
        self._turns: dict[Path, str] = {}

    def check(self, place: Place, staged: Path, bundle: Bundle) -> list[Failure]:
        """Read the file."""
        try:
            tunnels.read(_text(staged))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return [Failure(FILE, f"{FILE}: {error!r}" if isinstance(error, KeyError) else f"{FILE}: {error}")]
        return []

    def activate(self, place: Place, old: Bundle | None, new: Bundle) -> list[Failure]:
        """Make the tunnels so."""
        before = next((file.content for file in old.files if file.path == FILE), "") if old else ""
        if before or old is None or _text(place.current):
            self._bring(place, tunnels.read(before))
        return []

    def ensure(self, place: Place, bundle: Bundle) -> list[str]:
        """Make them so again."""
        wanted = tunnels.read(_text(place.current))
        done = self._bring(place, wanted) if wanted else []
        now = turn(place)
        if now not in ("", self._turns.get(place.folder, now)):
            for tunnel in wanted:  # the sessions are the other router's: what is left of older ones leads nowhere
                seen = _ask(place, tunnel.device).peers
                where = {key: seen[key].endpoint or peer.endpoint for key, peer in tunnel.peers.items() if key in seen}
                _call(place, tunnel, {key: endpoint for key, endpoint in where.items() if endpoint})
        self._turns[place.folder] = now
        return done

    def _bring(self, place: Place, before: Iterable[Tunnel]) -> list[str]:
        """Bring the tunnels to what the file in force says, and return what was done.

        :param before: as they were last wanted.
        """
        wanted = {tunnel.device: tunnel for tunnel in tunnels.read(_text(place.current))}
        former, done = {tunnel.device: tunnel for tunnel in before}, []
        with netns.netlink(place.namespace) as ip:
            there = _links(ip)
            for device in there.keys() - wanted.keys():
                _take_down(ip, place, device)
                done.append(f"{device} removed")
            for device, tunnel in wanted.items():
                if device not in there or not _lives(place, there[device]):
                    self._tally(place).fold()
                    _take_down(ip, place, device)
                    _make(ip, place, device)
                    done.append(f"{device} made")
                done += _configure(place, tunnel, former.get(device))
                done += _connect(ip, tunnel)
        return done

    def observe(self, place: Place, bundle: Bundle) -> Observation:
        """Tell of each peer its bytes, when it last shook hands (seconds since 1970) and where from."""
        wanted = tunnels.read(_text(place.current))
        if not wanted:
            return Observation(bundle.target)
        health: list[tuple[str, str]] = []
        counts: dict[str, Count] = {}
        states: list[tuple[str, str]] = []
        for tunnel in wanted:
            try:
                found = _ask(place, tunnel.device)
            except RuntimeError as error:
                health.append((f"wireguard/{tunnel.device}", str(error)))
                continue
            health.append((f"wireguard/{tunnel.device}", ""))
            for key, seen in found.peers.items():
                if key in tunnel.peers:
                    peer = tunnel.peers[key].id
                    counts["in_" + peer.replace("-", "")] = (0, seen.received)
                    counts["out_" + peer.replace("-", "")] = (0, seen.sent)
                    if seen.handshake:
                        states += [(f"{peer}/handshake", str(seen.handshake)), (f"{peer}/endpoint", seen.endpoint)]
        counters = tuple((name, *count) for name, count in self._tally(place).read(counts).items())
        return Observation(bundle.target, tuple(health), counters, tuple(states))

    def remove(self, place: Place) -> None:
        """Take every tunnel down."""
        self._tallies.pop(place.folder, None)
        self._turns.pop(place.folder, None)
        for note in (place.folder / "run").glob("wireguard-*.pid"):
            _stop(place, note.stem.removeprefix("wireguard-"))
        if netns.exists(place.namespace):
            with netns.netlink(place.namespace) as ip:
                for device in _links(ip):
                    _take_down(ip, place, device)

    def _tally(self, place: Place) -> Tally:
        if place.folder not in self._tallies:
            (place.folder / "run").mkdir(parents=True, exist_ok=True)
            self._tallies[place.folder] = Tally(place.folder / "run" / "counters-wireguard.json")
        return self._tallies[place.folder]


def adopt(old: Place, new: Place) -> None:
    """Have a router that took another's place shake hands with the peers that the other one spoke to.

    Sessions cannot be carried; without this each peer would only find out when it got no answer for a while.
    """
    with netns.netlink(old.namespace) as before, netns.netlink(new.namespace) as after:
        devices = _links(before).keys() & _links(after).keys()
    for tunnel in tunnels.read(_text(new.current)):
        if tunnel.device in devices:
            _call(new, tunnel, _with_session(old, new, tunnel))


def _with_session(old: Place, new: Place, tunnel: Tunnel) -> dict[str, str]:
    """Return public key → endpoint of the peers that the old router has a session with, and the new one none."""
    known, there = _ask(old, tunnel.device), _ask(new, tunnel.device)
    return {
        key: known.peers[key].endpoint
        for key in tunnel.peers
        if key in known.peers and time.time() - known.peers[key].handshake < _SESSION
        if key in there.peers and not there.peers[key].handshake
    }


def _call(place: Place, tunnel: Tunnel, endpoints: Mapping[str, str]) -> None:
    """Shake hands with these peers (public key → endpoint) at once.

    A peer is made anew for it: one that could not be called before, as nobody knew where it is, would wait now.
    """
    if not endpoints:
        return
    name = _name(place, tunnel.device)
    removed = [word for key in endpoints for word in ("peer", key, "remove")]
    netns.run(place.namespace, ["wg", "set", name, *removed])
    text = "\n".join(tunnels.called(tunnel.peers[key], endpoint) for key, endpoint in endpoints.items())
    netns.run(place.namespace, ["wg", "addconf", name, "/dev/stdin"], text_in=text)
    quiet = [key for key in endpoints if not tunnel.peers[key].keepalive]
    if quiet:
        words = [word for key in quiet for word in ("peer", key, "persistent-keepalive", "0")]
        netns.run(place.namespace, ["wg", "set", name, *words])


def _text(folder: Path) -> str:
    file = folder / FILE
    return file.read_text(encoding="utf-8") if file.exists() else ""


def _links(ip: IPRoute) -> dict[str, Any]:
    """Return the tunnels' interfaces by name; the namespace is the target's own."""
    names = {link.get_attr("IFLA_IFNAME"): link for link in ip.get_links()}
    return {name: link for name, link in names.items() if DEVICE.fullmatch(name)}


def _daemon(place: Place, device: str) -> Daemon:
    return Daemon(f"wireguard-{device}", place.namespace, place.folder / "run")


def _handle(place: Place, device: str) -> str:
    """Return the name by which wg(8) finds wireguard-go: its sockets are in one folder for all namespaces."""
    return "ns" + hashlib.sha256(f"{place.namespace}/{device}".encode()).hexdigest()[:12]


def _lives(place: Place, link: Any) -> bool:
    info = link.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else ""
    return kind == "wireguard" or _daemon(place, link.get_attr("IFLA_IFNAME")).pid() is not None


def _make(ip: IPRoute, place: Place, device: str) -> None:
    try:
        ip.link("add", ifname=device, kind="wireguard")
    except NetlinkError as error:
        if error.code not in _NO_SUCH_KIND:
            raise
        _start(ip, place, device)


def _start(ip: IPRoute, place: Place, device: str) -> None:
    """Start wireguard-go under a name that is its own on the whole machine, and name its interface as it is wanted."""
    handle, daemon, deadline = _handle(place, device), _daemon(place, device), time.monotonic() + _WAIT
    pid = daemon.start(["wireguard-go", "-f", handle], place.folder)
    while not (_SOCKETS / f"{handle}.sock").is_socket() or not (found := ip.link_lookup(ifname=handle)):
        if daemon.pid() != pid or time.monotonic() > deadline:
            reason = daemon.said() or "it did not come up"
            daemon.stop()
            raise RuntimeError(f"{FILE}: wireguard-go for {device} did not start: {reason}")
        time.sleep(0.002)
    ip.link("set", index=found[0], ifname=device)


def _stop(place: Place, device: str) -> None:
    _daemon(place, device).stop()
    (_SOCKETS / f"{_handle(place, device)}.sock").unlink(missing_ok=True)


def _take_down(ip: IPRoute, place: Place, device: str) -> None:
    """End the interface; that of wireguard-go goes with its process."""
    _stop(place, device)
    for index in ip.link_lookup(ifname=device):
        ip.link("del", index=index)


def _name(place: Place, device: str) -> str:
    return device if _daemon(place, device).pid() is None else _handle(place, device)


def _ask(place: Place, device: str) -> Device:
    return tunnels.parse(netns.run(place.namespace, ["wg", "show", _name(place, device), "dump"]))


def _configure(place: Place, wanted: Tunnel, before: Tunnel | None) -> list[str]:
    """Set what differs. Who goes, goes first: an address may be another's the next moment."""
    name, due = _name(place, wanted.device), tunnels.change(_ask(place, wanted.device), wanted, before)
    if due.own:
        argv = ["wg", "set", name, "private-key", "/dev/stdin", "listen-port", str(wanted.port)]
        netns.run(place.namespace, [*argv, "fwmark", str(wanted.mark)], text_in=wanted.private_key)
    if due.removed:
        words = [word for key in due.removed for word in ("peer", key, "remove")]
        netns.run(place.namespace, ["wg", "set", name, *words])
    if due.peers:
        netns.run(place.namespace, ["wg", "addconf", name, "/dev/stdin"], text_in=due.peers)
    changed = (due.own, "key or port"), (due.removed, "peers that go"), (due.peers, "peers")
    return [f"{what} of {wanted.device}" for differs, what in changed if differs]


def _connect(ip: IPRoute, wanted: Tunnel) -> list[str]:
    """Give the interface its address, size and routes, and bring it up."""
    link = _links(ip)[wanted.device]
    index, done = link["index"], []
    if link.get_attr("IFLA_MTU") != wanted.mtu:
        ip.link("set", index=index, mtu=wanted.mtu)
        done.append(f"MTU of {wanted.device}")
    there = {f"{entry.get_attr('IFA_LOCAL')}/{entry['prefixlen']}" for entry in ip.get_addr(family=2, index=index)}
    for text in there ^ {wanted.address}:
        address = ip_interface(text)
        verb = "add" if text == wanted.address else "del"
        ip.addr(verb, index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
        done.append(f"address {text} on {wanted.device}")
    if not link["flags"] & _UP:
        ip.link("set", index=index, state="up")
        done.append(f"{wanted.device} up")
    return done + _set_routes(ip, index, wanted.routes)


def _set_routes(ip: IPRoute, index: int, wanted: frozenset[str]) -> list[str]:
    found = ip.get_routes(family=2, proto=_PROTOCOL, oif=index)
    there = {f"{route.get_attr('RTA_DST')}/{route['dst_len']}" for route in found}
    for to in sorted(there ^ wanted):
        ip.route("replace" if to in wanted else "del", dst=to, oif=index, proto=_PROTOCOL)
    return [f"route {to}" for to in sorted(there ^ wanted)]
