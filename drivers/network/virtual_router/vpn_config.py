"""What a virtual router's VPN daemons are to be, decided: see :mod:`drivers.network.virtual_router.config`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Ipsec:
    """The IKE daemon: what it is to have, in the words of strongSwan's vici, by name.

    :param initiate: connection → the children that this side brings up; a passive connection is not there.
    :param resets: connection → a number; a higher one means that it is to begin anew.
    :param sources: the CIDRs that tunnels lead from, ``destinations`` those that they lead to.
    :param l2tp: sections (``connections``, ``secrets``, ``pools``) that are added where the host can do L2TP.
    """

    connections: Mapping[str, Any]
    secrets: Mapping[str, Any] = field(repr=False)
    keys: Mapping[str, str] = field(repr=False)
    pools: Mapping[str, Any]
    initiate: Mapping[str, Sequence[str]]
    resets: Mapping[str, int]
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    l2tp: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class L2tp:
    """xl2tpd, and the PPP sessions in it.

    :param id: the remote access VPN's. ``local`` is the public address that is dialled.
    :param server: the router's address in each session; ``first`` to ``last`` are the clients'.
    :param users: name and password, as chap-secrets has them between its quotes.
    """

    id: str
    local: str
    server: str
    first: str
    last: str
    dns: tuple[str, ...]
    users: tuple[tuple[str, str], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TunnelPeer:
    """A peer of a tunnel. ``allowed`` are the addresses that are its own: what it may send from, and is sent."""

    id: str
    public_key: str
    allowed: tuple[str, ...]
    endpoint: str
    keepalive: int
    preshared_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A WireGuard interface.

    :param address: in CIDR notation; ``routes`` are the networks behind its peers.
    :param mark: of the packets that it sends, which chooses their uplink; 0 is none.
    """

    id: str
    device: str
    address: str
    mtu: int
    port: int
    mark: int
    routes: tuple[str, ...]
    private_key: str = field(repr=False)
    peers: tuple[TunnelPeer, ...]
