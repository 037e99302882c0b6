"""Adding and changing the peers of a WireGuard VPN, and handing a peer's configuration out.

A private key that is made here is handed out once and then forgotten: see ``docs/decisions/0006-wireguard-keys.md``.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from ipaddress import IPv4Address, IPv4Network

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, flat, one
from controlplane.api.context import Context
from controlplane.api.parameters import Records, optional, required
from controlplane.api.responses import Response
from controlplane.db.configuration import define
from controlplane.errors import BadParameter, LimitReached, RuleConflict
from controlplane.network import wireguard_text
from controlplane.network.addressing import first_free
from controlplane.network.ways import Way, must_be_free, ways_of
from controlplane.network.wireguard_facts import mtu_of
from controlplane.network.wireguard_peers import PEER, WireguardPeer, peer_views
from controlplane.network.wireguard_vpns import WireguardVpn

LIMIT = define("wireguard.vpn.peers", 1000, "How many peers one WireGuard VPN may have",
               category="Network", within=(1, None))  # fmt: skip
KEEPALIVE = 25
"""Seconds between the empty packets of a device: what the NATs of this world remember (WireGuard's own advice)."""
_LONGEST = 65535


class PeerTerms(Command):
    """The parameters that adding and changing a peer have in common."""

    publickey: str | None = optional(
        check=wireguard_text.key, description="the peer's public key; a pair is made here without one"
    )
    presharedkey: str | None = optional(check=wireguard_text.key, description="a further secret that both sides know")
    remotecidrlist: list[str] | None = optional(description="networks behind the peer, which make it another site")
    endpoint: str | None = optional(
        check=wireguard_text.endpoint, description="address:port where the peer is called at; without one, it calls"
    )
    keepalive: int | None = optional(description="seconds between empty packets that keep a NAT open; 0 for none")
    cidrlist: list[str] | None = optional(
        description="destinations that the peer may reach; the whole network by default"
    )
    acl: Records | None = optional(
        description="destinations with protocols: acl[0].cidr, .protocol, .startport, .endport, .icmptype, .icmpcode"
    )

    def set_terms(self, session: Session, peer: WireguardPeer) -> None:
        """Check what was given, and set it; the VPN is locked.

        :raises BadParameter: a value cannot be.
        :raises RuleConflict: another peer has it.
        """
        vpn = peer.vpn
        others = session.scalars(
            select(WireguardPeer).where(WireguardPeer.vpn_id == vpn.id, WireguardPeer.id != peer.id)
        )
        siblings = [other for other in others if other is not peer]
        if self.remotecidrlist is not None:
            peer.remotes = _remotes(session, peer, self.remotecidrlist)
        if self.endpoint is not None:
            peer.endpoint = self.endpoint
        if self.keepalive is not None:
            if not 0 <= self.keepalive <= _LONGEST:
                raise BadParameter(
                    f"Invalid parameter keepalive value={self.keepalive}: it must be 0 to {_LONGEST} seconds."
                )
            peer.keepalive = self.keepalive
        if self.cidrlist is not None or self.acl is not None or not peer.passages:
            remotes = [IPv4Network(cidr) for other in siblings for cidr in other.remotes]
            within = [*_networks(vpn), IPv4Network(vpn.cidr), *remotes]
            lines = wireguard_text.passages(self.cidrlist, self.acl, within)
            peer.passages = [list(astuple(line)) for line in lines]

    def set_keys(self, session: Session, peer: WireguardPeer, *, anew: bool) -> None:
        """Set the peer's keys: those given, or new ones.

        :param anew: make what is not given.
        :raises RuleConflict: the VPN knows the key already.
        """
        if self.publickey is not None:
            peer.public_key, peer.private_key = self.publickey, None
        elif anew:
            peer.private_key, peer.public_key = wireguard_text.new_pair()
        if self.presharedkey is not None:
            peer.preshared_key, peer.shared_waiting = self.presharedkey, False
        elif anew and self.publickey is None:
            peer.preshared_key, peer.shared_waiting = wireguard_text.new_shared(), True
        with session.no_autoflush:
            known = select(WireguardPeer.name).where(
                WireguardPeer.vpn_id == peer.vpn.id, WireguardPeer.public_key == peer.public_key
            )
            other = session.scalar(known.where(WireguardPeer.id != peer.id) if peer.id else known)
        if peer.public_key == peer.vpn.public_key or other is not None:
            who = f"peer {other}" if other is not None else "the VPN itself"
            raise RuleConflict(f"Invalid parameter publickey value={peer.public_key}: {who} has this key.")


def _networks(vpn: WireguardVpn) -> list[IPv4Network]:
    return [IPv4Network(vpn.whole.cidr)] if vpn.whole.cidr else []


def _remotes(session: Session, peer: WireguardPeer, wanted: list[str]) -> list[str]:
    blocks = [wireguard_text.block("remotecidrlist", text) for text in wanted]
    others = ways_of(session, peer.vpn.whole, but=peer.uuid or "")
    for number, block in enumerate(blocks):
        before = [Way("which is in the list as well", other) for other in blocks[:number]]
        must_be_free("remotecidrlist", block, [*others, *before])
    return [str(block) for block in blocks]


def locked(session: Session, vpn: WireguardVpn) -> WireguardVpn:
    """Lock a VPN, so that what its peers must not share is decided by one at a time."""
    if session.get_bind().dialect.name != "sqlite":  # which has one writer at a time
        session.execute(select(WireguardVpn.id).where(WireguardVpn.id == vpn.id).with_for_update())
    return vpn


class AddWireguardPeer(PeerTerms, name="addWireguardPeer", answer=one("wireguardpeer", peer_views), job=True,
                       creates=True, instance=PEER, roles=EVERYONE, event="VPN.WIREGUARD.PEER.ADD"):  # fmt: skip
    """Add a device or another site to a WireGuard VPN (Netspine's own)."""

    wireguardvpnid: WireguardVpn = required(description="the VPN that it is added to")
    name: str = required(length=64, check=wireguard_text.name)
    ipaddress: str | None = optional(description="the peer's address in the tunnel; the lowest free one by default")

    def run(self, ctx: Context) -> WireguardPeer:
        """Check, and add the peer."""
        session, vpn = ctx.session, locked(ctx.session, self.wireguardvpnid)
        has = session.execute(select(WireguardPeer.name, WireguardPeer.address).where(WireguardPeer.vpn_id == vpn.id))
        names = {name: address for name, address in has}
        if len(names) >= LIMIT.number(session):
            raise LimitReached(f"The WireGuard VPN has {len(names)} peers, as many as wireguard.vpn.peers allows.")
        if self.name in names:
            raise RuleConflict(f"Invalid parameter name value={self.name}: another peer of the VPN has this name.")
        peer = WireguardPeer(account_id=vpn.account_id, domain_id=vpn.domain_id, vpn=vpn, name=self.name)
        with session.no_autoflush:
            peer.address = self._address(vpn, set(names.values()))
            self.set_keys(session, peer, anew=True)
            peer.keepalive = KEEPALIVE if self.remotecidrlist is None else 0
            self.set_terms(session, peer)
        session.add(peer)
        ctx.touch(vpn)
        return peer

    def _address(self, vpn: WireguardVpn, used: set[str]) -> str:
        block, used = IPv4Network(vpn.cidr), used | {vpn.gateway}
        if self.ipaddress is not None:
            try:
                wanted = IPv4Address(self.ipaddress)
            except ValueError:
                wanted = IPv4Address(0)
            if wanted not in block or wanted in (block[0], block[-1]):
                raise BadParameter(
                    f"Invalid parameter ipaddress value={self.ipaddress}: it must be an address within {block}."
                )
            if str(wanted) in used:
                raise RuleConflict(
                    f"Invalid parameter ipaddress value={wanted}: it is another peer's, or the router's."
                )
            return str(wanted)
        free = first_free(block[1], block[-2], used)
        if free is None:
            raise LimitReached(f"The WireGuard VPN's addresses, {block}, are all taken: remove peers.")
        return free


class UpdateWireguardPeer(PeerTerms, name="updateWireguardPeer", answer=one("wireguardpeer", peer_views), job=True,
                          instance=PEER, roles=EVERYONE, event="VPN.WIREGUARD.PEER.UPDATE"):  # fmt: skip
    """Change a peer in place: what it may reach, where it is, its keys, and whether it is let in (Netspine's own)."""

    id: WireguardPeer = required()
    name: str | None = optional(length=64, check=wireguard_text.name)
    enabled: bool | None = optional(description="false cuts the peer off and keeps its address and keys")
    regeneratekeys: bool | None = optional(False, description="make new keys here; the old ones are void at once")

    def run(self, ctx: Context) -> WireguardPeer:
        """Check, and change the peer."""
        session, peer = ctx.session, self.id
        locked(session, peer.vpn)
        if self.name is not None and self.name != peer.name:
            named = WireguardPeer.vpn_id == peer.vpn_id, WireguardPeer.name == self.name
            if session.scalar(select(func.count()).where(*named)):
                raise RuleConflict(f"Invalid parameter name value={self.name}: another peer of the VPN has this name.")
            peer.name = self.name
        if self.regeneratekeys and self.publickey is not None:
            raise BadParameter("Invalid parameter regeneratekeys: it makes a key, and publickey gives one; choose.")
        self.set_keys(session, peer, anew=bool(self.regeneratekeys))
        self.set_terms(session, peer)
        if self.enabled is not None:
            peer.enabled = self.enabled
        ctx.touch(peer)
        return peer


@dataclass(kw_only=True)
class WireguardPeerConfigurationResponse(Response):
    """What a peer's owner needs.

    :ivar configuration: for wg-quick(8) and the apps; ``qrcode`` the same as an image in base64.
    """

    id: str
    name: str
    configuration: str
    qrcode: str
    qrcodetype: str
    keyincluded: bool


class GetWireguardPeerConfiguration(Command, name="getWireguardPeerConfiguration",
                                    answer=flat(WireguardPeerConfigurationResponse), roles=EVERYONE,
                                    instance=PEER, event="VPN.WIREGUARD.PEER.CONFIGURATION"):  # fmt: skip
    """Hand a peer's configuration out, as text and QR code (Netspine's own).

    A private key that was made here is in the first answer only: it is forgotten with it.
    """

    id: WireguardPeer = required()
    qrformat: str | None = optional("svg", choices=tuple(wireguard_text.IMAGES), description="svg or png")

    def run(self, ctx: Context) -> WireguardPeerConfigurationResponse:
        """Write the configuration, and forget the private key."""
        session, peer = ctx.session, self.id
        session.refresh(peer, with_for_update=True)
        ctx.instance = peer
        text = _configuration(peer).text()
        handed = peer.private_key is not None
        peer.private_key, peer.shared_waiting = None, False
        kind = self.qrformat or "svg"
        return WireguardPeerConfigurationResponse(
            id=peer.uuid,
            name=peer.name,
            configuration=text,
            qrcode=wireguard_text.qr_code(text, kind),
            qrcodetype=wireguard_text.IMAGES[kind],
            keyincluded=handed,
        )


def _configuration(peer: WireguardPeer) -> wireguard_text.Configuration:
    vpn = peer.vpn
    # the whole network, so that a longer list needs no other configuration: what passes is the router's to say
    reaches = [*map(str, _networks(vpn)), *(line.cidr for line in peer.allowed), f"{vpn.gateway}/32"]
    return wireguard_text.Configuration(
        name=peer.name,
        address=peer.address,
        mtu=mtu_of(vpn),
        public_key=vpn.public_key,
        server=f"{vpn.public_ip.address}:{vpn.port}",
        reaches=wireguard_text.collapsed(reaches),
        keepalive=peer.keepalive,
        listen=int(peer.endpoint.rpartition(":")[2]) if peer.endpoint else 0,
        private_key=peer.private_key or "",
        preshared_key=(peer.preshared_key or "") if peer.shared_waiting else "",
        shares=peer.preshared_key is not None,
    )
