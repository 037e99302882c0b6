"""WireGuard tunnels as values: what is wanted, what an interface says of itself, and the difference; all pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, NamedTuple

DEVICE = re.compile(r"wg[0-9a-f]{8}")
_NONE = "(none)"
_NO_KEY = base64.b64encode(bytes(32)).decode()
_KEY_SIZE = 32


class Peer(NamedTuple):
    """A peer as it is wanted; the fields are those of ``wireguard.json``."""

    id: str
    public_key: str
    preshared_key: str
    allowed: frozenset[str]
    endpoint: str
    keepalive: int


class Tunnel(NamedTuple):
    """An interface as it is wanted; the fields are those of ``wireguard.json``, the peers by public key."""

    id: str
    device: str
    address: str
    mtu: int
    port: int
    mark: int
    routes: frozenset[str]
    private_key: str
    peers: Mapping[str, Peer]


class Seen(NamedTuple):
    """A peer as the interface has it.

    :param endpoint: where it was last heard from; empty before it was.
    :param handshake: seconds since 1970; 0 is never.
    """

    preshared_key: str
    endpoint: str
    allowed: frozenset[str]
    handshake: int
    received: int
    sent: int
    keepalive: int


class Device(NamedTuple):
    """An interface as it says that it is."""

    private_key: str
    port: int
    mark: int
    peers: Mapping[str, Seen]


class Change(NamedTuple):
    """What to set to come from an interface to a tunnel.

    :param own: key, port or mark differ.
    :param removed: public keys.
    :param peers: those to add or change, as a configuration that ``wg addconf`` reads; empty where there are none.
    """

    own: bool
    removed: tuple[str, ...]
    peers: str


def read(text: str) -> list[Tunnel]:
    """Read ``wireguard.json``; no text is no tunnels.

    :raises ValueError: a value in it cannot be; the sentence says which, and never tells a secret.
    """
    entries: list[dict[str, Any]] = json.loads(text)["tunnels"] if text else []
    found = [_tunnel(entry) for entry in entries]
    if len({tunnel.device for tunnel in found}) < len(found):
        raise ValueError("two tunnels have the same device")
    return found


def _tunnel(entry: Mapping[str, Any]) -> Tunnel:
    if not DEVICE.fullmatch(entry["device"]):
        raise ValueError(f"the device {entry['device']!r} must be wg and eight hex digits")
    peers = [_peer(peer) for peer in entry["peers"]]
    if len({peer.public_key for peer in peers}) < len(peers):
        raise ValueError(f"two peers of {entry['device']} have the same public key")
    return Tunnel(
        id=entry["id"],
        device=entry["device"],
        address=str(ip_interface(entry["address"])),
        mtu=int(entry["mtu"]),
        port=int(entry["port"]),
        mark=int(entry["mark"]),
        routes=frozenset(str(ip_network(route)) for route in entry["routes"]),
        private_key=_key(entry["private_key"], f"the private key of {entry['device']}"),
        peers={peer.public_key: peer for peer in peers},
    )


def _peer(entry: Mapping[str, Any]) -> Peer:
    what = f"peer {entry['id']}"
    if entry["endpoint"]:
        address, _, port = entry["endpoint"].rpartition(":")
        ip_address(address.strip("[]"))
        int(port)
    return Peer(
        id=entry["id"],
        public_key=_key(entry["public_key"], f"the public key of {what}"),
        preshared_key=_key(entry["preshared_key"], f"the preshared key of {what}") if entry["preshared_key"] else "",
        allowed=frozenset(str(ip_network(cidr)) for cidr in entry["allowed"]),
        endpoint=entry["endpoint"],
        keepalive=int(entry["keepalive"]),
    )


def _key(text: str, what: str) -> str:
    if len(base64.b64decode(text, validate=True)) != _KEY_SIZE:
        raise ValueError(f"{what} must be {_KEY_SIZE} bytes")
    return text


def parse(dump: str) -> Device:
    """Read what ``wg show INTERFACE dump`` prints: a line of the interface, then one of each peer."""
    own, *lines = [line.split("\t") for line in dump.strip("\n").split("\n")]
    peers = {
        key: Seen(
            preshared_key="" if shared in (_NONE, _NO_KEY) else shared,
            endpoint="" if endpoint == _NONE else endpoint,
            allowed=frozenset(allowed.split(",")) - {_NONE},
            handshake=int(handshake),
            received=int(received),
            sent=int(sent),
            keepalive=0 if keepalive == "off" else int(keepalive),
        )
        for key, shared, endpoint, allowed, handshake, received, sent, keepalive in lines
    }
    return Device(own[0], int(own[2]), 0 if own[3] == "off" else int(own[3], 0), peers)


def change(there: Device, wanted: Tunnel, before: Tunnel | None) -> Change:
    """Return what to set.

    A peer that roams is where it was last heard from: its configured endpoint is only set when that is a new one.

    :param before: the tunnel as it was last wanted; None where nobody knows.
    """
    own = (there.private_key, there.port, there.mark) != (wanted.private_key, wanted.port, wanted.mark)
    sections = []
    for key, peer in wanted.peers.items():
        seen, former = there.peers.get(key), before.peers.get(key) if before else None
        moved = bool(peer.endpoint) and (
            seen is None or not seen.endpoint or former is None or former.endpoint != peer.endpoint
        )
        has = seen and (seen.preshared_key, seen.allowed, seen.keepalive)
        if moved or has != (peer.preshared_key, peer.allowed, peer.keepalive):
            sections.append(_section(peer, endpoint=moved))
    removed = tuple(sorted(there.peers.keys() - wanted.peers.keys()))
    return Change(own, removed, "\n".join(sections))


def called(peer: Peer, endpoint: str) -> str:
    """Return the configuration of a peer that is to be called there at once: keepalives begin with the first."""
    there = peer._replace(endpoint=endpoint, keepalive=peer.keepalive or 1)
    return _section(there, endpoint=True)


def _section(peer: Peer, *, endpoint: bool) -> str:
    lines = [
        "[Peer]",
        f"PublicKey = {peer.public_key}",
        f"PresharedKey = {peer.preshared_key or _NO_KEY}",
        f"AllowedIPs = {', '.join(sorted(peer.allowed))}",
        f"PersistentKeepalive = {peer.keepalive}",
    ]
    return "\n".join([*lines, f"Endpoint = {peer.endpoint}"] if endpoint else lines) + "\n"
