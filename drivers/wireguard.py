"""The nouns of WireGuard tunnels, as facts; see ``drivers.vocabulary``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Passage(NamedTuple):
    """What a WireGuard peer may reach.

    :param destination: CIDR behind the tunnel.
    :param protocol: ``tcp``, ``udp``, ``icmp`` or ``all``.
    :param start: first port, or the ICMP type (-1 is any); ``end`` the last, or the ICMP code.
    """

    destination: str
    protocol: str = "all"
    start: int = -1
    end: int = -1


@dataclass(frozen=True, slots=True)
class WireguardPeer:
    """One peer of a WireGuard VPN: a person's device, or another site.

    :param public_key: base64, as ``wg pubkey`` prints it; ``preshared_key`` alike, empty is none.
    :param address: its own in the tunnel.
    :param remotes: CIDRs behind it; empty for a device.
    :param endpoint: ``address:port`` where it is called at; empty where it calls.
    :param keepalive: seconds between empty packets that keep a NAT open; 0 is none.
    """

    id: str
    public_key: str
    address: str
    remotes: tuple[str, ...] = ()
    endpoint: str = ""
    keepalive: int = 0
    passages: tuple[Passage, ...] = ()
    preshared_key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Wireguard:
    """A WireGuard VPN (createWireguardVpn).

    :param address: the public address that it listens on, ``port`` the UDP port.
    :param gateway: the appliance's own address in the tunnel, which is ``cidr`` wide.
    :param mtu: of the tunnel, in bytes.
    """

    id: str
    address: str
    port: int
    gateway: str
    cidr: str
    mtu: int
    private_key: str = field(repr=False)
    peers: tuple[WireguardPeer, ...] = ()
