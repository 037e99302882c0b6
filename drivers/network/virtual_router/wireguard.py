"""WireGuard: tunnels for people's devices and to other sites, and what each peer may reach.

WireGuard itself holds that a packet's source is its peer's own (cryptokey routing), so the packet filter can tell peers
apart by address. A key never leaves the one file that the agent reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, collapse_addresses
from typing import Any

from drivers.network.virtual_router import filters
from drivers.network.virtual_router.config import Uplink
from drivers.network.virtual_router.filter_config import TunnelSide
from drivers.network.virtual_router.syntax import PORTS, address, identity, matched, network
from drivers.network.virtual_router.vpn_config import Tunnel, TunnelPeer
from drivers.vocabulary import ApplianceFacts, EgressRule, PublicAddress
from drivers.wireguard import Wireguard, WireguardPeer

SETS = ("tunnel_all", "tunnel_icmp", "tunnel_listen", "tunnel_ports", "tunnel_sites")
_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=", re.ASCII)
_ENDPOINT = re.compile(r"[0-9.]{7,15}:[1-9][0-9]{0,4}", re.ASCII)
_TCP_HEADERS = 40
_SMALLEST, _LARGEST = 576, 65535
_BEFORE_MARKS = 900
_MAIN = 254


def device(vpn: Wireguard) -> str:
    """Return the interface's name: the same on every router that ever serves the VPN."""
    return f"wg{identity(vpn.id, 'The VPN')[:8]}"


def plan(
    facts: ApplianceFacts, known: Mapping[str, PublicAddress], ways: Mapping[tuple[str, str], Uplink]
) -> tuple[Tunnel, ...] | None:
    """Decide the router's tunnels; None where it has none.

    :raises ValueError: a key, address or port cannot be; the sentence names it.
    """
    tunnels = tuple(_tunnel(vpn, known, ways) for vpn in sorted(facts.wireguards, key=lambda vpn: vpn.id))
    if len({tunnel.device for tunnel in tunnels}) < len(tunnels):
        raise ValueError(f"Two WireGuard VPNs of {facts.name} begin with the same eight characters.")
    return tunnels or None


def _tunnel(vpn: Wireguard, known: Mapping[str, PublicAddress], ways: Mapping[tuple[str, str], Uplink]) -> Tunnel:
    what = f"WireGuard VPN {vpn.id}"
    if vpn.address not in known:
        raise ValueError(f"{what} listens on {vpn.address!r}, which is no public address of this router.")
    if not 0 < vpn.port <= PORTS or not _SMALLEST <= vpn.mtu <= _LARGEST:
        raise ValueError(f"{what} has the port {vpn.port} and the MTU {vpn.mtu}: one of them cannot be.")
    public = known[vpn.address]
    block = network(vpn.cidr, f"The CIDR of {what}")
    peers = tuple(_peer(peer, what) for peer in sorted(vpn.peers, key=lambda peer: peer.id))
    allowed = [cidr for peer in peers for cidr in peer.allowed]
    if len(set(allowed)) < len(allowed):
        raise ValueError(f"Two peers of {what} have the same address or network behind them.")
    return Tunnel(
        id=vpn.id,
        device=device(vpn),
        address=f"{address(vpn.gateway, f'The address of {what}')}/{block.prefixlen}",
        mtu=vpn.mtu,
        port=vpn.port,
        mark=ways[public.nic, public.gateway].table if public.gateway else 0,
        routes=tuple(cidr for cidr in _sorted(allowed) if not network(cidr, "The route").subnet_of(block)),
        private_key=_key(vpn.private_key, f"The private key of {what}"),
        peers=peers,
    )


def _peer(peer: WireguardPeer, vpn: str) -> TunnelPeer:
    what = f"peer {identity(peer.id, 'The peer')} of {vpn}"
    if peer.endpoint:
        matched(
            _ENDPOINT, peer.endpoint, f"The endpoint of {what}", "an IPv4 address and a port such as 192.0.2.1:51820"
        )
        address(peer.endpoint.partition(":")[0], f"The endpoint of {what}")
    if not 0 <= peer.keepalive <= PORTS:
        raise ValueError(f"The keepalive of {what} is {peer.keepalive}: it must be 0 to {PORTS} seconds.")
    return TunnelPeer(
        id=peer.id,
        public_key=_key(peer.public_key, f"The public key of {what}"),
        allowed=_sorted(_own(peer, what)),
        endpoint=peer.endpoint,
        keepalive=peer.keepalive,
        preshared_key=_key(peer.preshared_key, f"The preshared key of {what}") if peer.preshared_key else "",
    )


def _own(peer: WireguardPeer, what: str) -> list[str]:
    """Return the addresses that are the peer's own."""
    return [f"{address(peer.address, f'The address of {what}')}/32", *_behind(peer, what)]


def _behind(peer: WireguardPeer, what: str) -> list[str]:
    return [str(network(cidr, f"The network behind {what}")) for cidr in peer.remotes]


def _sorted(cidrs: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(one) for one in sorted({IPv4Network(cidr) for cidr in cidrs}))


def _key(value: str, what: str) -> str:
    if not _KEY.fullmatch(value):  # the value itself may be a secret: it is not told
        raise ValueError(f"{what} is refused: it must be 32 bytes in base64, as wg genkey prints them.")
    return value


def routing_rules(tunnels: Iterable[Tunnel]) -> list[dict[str, Any]]:
    """Return the policy rules that lead into the tunnels before a mark for an uplink could lead out."""
    blocks = [str(network(tunnel.address, "The CIDR")) for tunnel in tunnels]
    routes = [route for tunnel in tunnels for route in tunnel.routes]
    return [{"priority": _BEFORE_MARKS, "to": to, "table": _MAIN} for to in _sorted([*blocks, *routes])]


def sides(facts: ApplianceFacts) -> tuple[TunnelSide, ...]:
    """Return the tunnels as the packet filter sees them."""
    return tuple(
        TunnelSide(device(vpn), vpn.address, vpn.port, vpn.gateway, vpn.mtu - _TCP_HEADERS)
        for vpn in sorted(facts.wireguards, key=lambda vpn: vpn.id)
    )


def elements(facts: ApplianceFacts) -> filters.Elements:
    """Return the elements of the sets in ``SETS``: who may reach what, and on which ports the tunnels listen."""
    peers = [peer for vpn in facts.wireguards for peer in vpn.peers]
    passages = [
        EgressRule(peer.id, way.protocol, way.start, way.end, tuple(_own(peer, peer.id)), (way.destination,))
        for peer in peers
        for way in peer.passages
    ]
    sites = [IPv4Network(cidr) for peer in peers for cidr in _behind(peer, peer.id)]
    return filters.crossing("tunnel", passages) | {
        "tunnel_listen": [f'{vpn.address} . {vpn.port} counter comment "{vpn.id}"' for vpn in facts.wireguards],
        "tunnel_sites": [str(site) for site in collapse_addresses(sites)],
    }


def written(tunnels: Iterable[Tunnel]) -> dict[str, Any]:
    """Return what ``wireguard.json`` holds."""
    return {
        "tunnels": [
            {
                "id": tunnel.id,
                "device": tunnel.device,
                "address": tunnel.address,
                "mtu": tunnel.mtu,
                "port": tunnel.port,
                "mark": tunnel.mark,
                "routes": tunnel.routes,
                "private_key": tunnel.private_key,
                "peers": [
                    {
                        "id": peer.id,
                        "public_key": peer.public_key,
                        "preshared_key": peer.preshared_key,
                        "allowed": peer.allowed,
                        "endpoint": peer.endpoint,
                        "keepalive": peer.keepalive,
                    }
                    for peer in tunnel.peers
                ],
            }
            for tunnel in tunnels
        ]
    }
