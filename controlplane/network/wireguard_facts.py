"""Facts of WireGuard VPNs: what a router is to know of them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from controlplane.network.networks import Whole
from controlplane.network.wireguard_peers import WireguardPeer
from controlplane.network.wireguard_vpns import WireguardVpn, leads_to
from drivers import wireguard

OVERHEAD = 80
"""Bytes that WireGuard puts around a packet, over IPv6 at most (its whitepaper, section 5.4.6)."""
_SMALLEST = 1280


def mtu_of(vpn: WireguardVpn) -> int:
    """Return the tunnel's MTU: what is left of the public side's."""
    return max(_SMALLEST, min(vpn.whole.public_mtu, 1500) - OVERHEAD)


def wireguard_facts(session: Session, whole: Whole) -> tuple[wireguard.Wireguard, ...]:
    """Return the VPN of a network or VPC with its peers that are let in."""
    eager = joinedload(WireguardVpn.public_ip)
    vpns = session.scalars(select(WireguardVpn).where(leads_to(whole)).options(eager)).all()
    return tuple(
        wireguard.Wireguard(
            id=vpn.uuid,
            address=vpn.public_ip.address,
            port=vpn.port,
            gateway=vpn.gateway,
            cidr=vpn.cidr,
            mtu=mtu_of(vpn),
            private_key=vpn.private_key,
            peers=_peers(session, vpn),
        )
        for vpn in vpns
    )


def _peers(session: Session, vpn: WireguardVpn) -> tuple[wireguard.WireguardPeer, ...]:
    let_in = select(WireguardPeer).where(WireguardPeer.vpn_id == vpn.id, WireguardPeer.enabled)
    return tuple(
        wireguard.WireguardPeer(
            id=peer.uuid,
            public_key=peer.public_key,
            address=peer.address,
            remotes=tuple(peer.remotes),
            endpoint=peer.endpoint,
            keepalive=peer.keepalive,
            passages=tuple(wireguard.Passage(*line) for line in peer.passages),
            preshared_key=peer.preshared_key or "",
        )
        for peer in session.scalars(let_in.order_by(WireguardPeer.id))
    )
