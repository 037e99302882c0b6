"""The peers of WireGuard VPNs: people's devices, and other sites."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network
from typing import Any

from sqlalchemy import ForeignKey, String, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, required
from controlplane.api.responses import Response
from controlplane.db.base import Created, Owned, Row
from controlplane.db.secrets import Secret
from controlplane.identity.ownership import OwnedListing, owner_fields
from controlplane.identity.tags import TagResponse, tags_of
from controlplane.network.networks import Whole
from controlplane.network.rules import remove_rows
from controlplane.network.ways import Way, leads
from controlplane.network.wireguard_text import Allowed
from controlplane.network.wireguard_vpns import WireguardVpn, found_of, leads_to
from controlplane.reconcile.targets import Found, Target

PEER = "WireguardPeer"
ALIVE = 180
"""Seconds: WireGuard gives a session up that long after its last handshake (REJECT_AFTER_TIME)."""


class WireguardPeer(Created, Owned, Row):
    """One peer (addWireguardPeer).

    :ivar address: its own in the tunnel.
    :ivar remotes: CIDRs behind it: another site's; a device has none.
    :ivar endpoint: where it is called at; empty where it calls.
    :ivar passages: what it may reach: CIDR, protocol, first and last port (or ICMP type and code) each.
    :ivar private_key: made here and not handed out yet; gone once it was.
    :ivar shared_waiting: the preshared key was made here and not handed out yet.
    """

    __tablename__ = "wireguard_peers"
    __table_args__ = (
        UniqueConstraint("vpn_id", "name"),
        UniqueConstraint("vpn_id", "public_key"),
        UniqueConstraint("vpn_id", "address"),
    )

    vpn_id: Mapped[int] = mapped_column(ForeignKey("wireguard_vpns.id"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    address: Mapped[str] = mapped_column(String(40))
    public_key: Mapped[str] = mapped_column(String(44))
    private_key: Mapped[str | None] = mapped_column(Secret)
    preshared_key: Mapped[str | None] = mapped_column(Secret)
    shared_waiting: Mapped[bool] = mapped_column(default=False)
    remotes: Mapped[list[str]] = mapped_column(default=list)
    endpoint: Mapped[str] = mapped_column(String(40), default="")
    keepalive: Mapped[int] = mapped_column(default=0)
    passages: Mapped[list[Any]] = mapped_column(default=list)
    enabled: Mapped[bool] = mapped_column(default=True)
    vpn: Mapped[WireguardVpn] = relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its VPN."""
        return session.get_one(WireguardVpn, self.vpn_id).targets(session)

    @property
    def allowed(self) -> list[Allowed]:
        """What it may reach."""
        return [Allowed(*line) for line in self.passages]


dispatch.JOB_TABLES[PEER] = WireguardPeer


@leads
def ways(session: Session, whole: Whole) -> Iterable[Way]:
    """Return what is behind the peers of the VPN of a network or VPC."""
    columns = WireguardPeer.uuid, WireguardPeer.name, WireguardPeer.remotes
    for uuid, name, remotes in session.execute(select(*columns).join(WireguardVpn).where(leads_to(whole))):
        yield from (Way(f"behind peer {name}", IPv4Network(cidr), uuid) for cidr in remotes)


@dataclass(kw_only=True)
class PassageResponse(Response):
    """One line of what a peer may reach."""

    cidr: str
    protocol: str
    startport: int | None = None
    endport: int | None = None
    icmptype: int | None = None
    icmpcode: int | None = None


@dataclass(kw_only=True)
class WireguardPeerResponse(Response):
    """A peer of a WireGuard VPN. Bytes are the peer's: received from it, sent to it."""

    id: str
    name: str
    wireguardvpnid: str
    type: str
    ipaddress: str
    publickey: str
    haspresharedkey: bool
    keywaiting: bool
    remotecidrlist: str | None = None
    endpoint: str | None = None
    keepalive: int
    acl: list[PassageResponse]
    state: str
    lasthandshake: datetime | None = None
    lastendpoint: str | None = None
    receivedbytes: int
    sentbytes: int
    account: str
    domain: str
    domainid: str
    domainpath: str
    created: datetime
    tags: list[TagResponse]


def peer_views(ctx: Context, rows: Sequence[WireguardPeer]) -> list[WireguardPeerResponse]:
    """Show peers; state and bytes are what their router says."""
    numbers = {row.vpn_id for row in rows}
    vpns = {vpn.id: vpn for vpn in ctx.session.scalars(select(WireguardVpn).where(WireguardVpn.id.in_(numbers)))}
    found = found_of(ctx.session, list(vpns.values()))
    owners, tags = owner_fields(ctx, rows), tags_of(ctx, PEER, rows)
    return [
        WireguardPeerResponse(
            id=row.uuid,
            name=row.name,
            wireguardvpnid=vpns[row.vpn_id].uuid,
            type="SiteToSite" if row.remotes else "RemoteAccess",
            ipaddress=row.address,
            publickey=row.public_key,
            haspresharedkey=row.preshared_key is not None,
            keywaiting=row.private_key is not None,
            remotecidrlist=",".join(row.remotes) or None,
            endpoint=row.endpoint or None,
            keepalive=row.keepalive,
            acl=[_passage(line) for line in row.allowed],
            created=row.created,
            tags=tags[row.id],
            **_seen(row, found.get(row.vpn_id, ()), ctx.now),
            **owners[row.account_id],
        )
        for row in rows
    ]


def _passage(line: Allowed) -> PassageResponse:
    first, last = "icmptype" if line.protocol == "icmp" else "startport", "icmpcode"
    shown = PassageResponse(cidr=line.cidr, protocol=line.protocol)
    if line.protocol != "icmp":
        first, last = "startport", "endport"
    if line.protocol == "icmp" or line.start >= 0:
        setattr(shown, first, line.start)
        setattr(shown, last, line.end)
    return shown


def _seen(row: WireguardPeer, founds: Sequence[Found], now: datetime) -> dict[str, Any]:
    """Return what the routers say of a peer: of two, the one that it spoke to last knows where it is."""
    shaken, where = max(
        (
            (int(found.states.get(f"{row.uuid}/handshake", 0)), found.states.get(f"{row.uuid}/endpoint"))
            for found in founds
        ),
        key=lambda seen: seen[0],
        default=(0, None),
    )
    moment = datetime.fromtimestamp(shaken, UTC) if shaken else None
    alive = moment is not None and (now - moment).total_seconds() < ALIVE
    name = row.uuid.replace("-", "")
    received, sent = (sum(found.counters.get(f"{way}_{name}", (0, 0))[1] for found in founds) for way in ("in", "out"))
    return {
        "state": ("Connected" if alive else "Disconnected") if row.enabled else "Disabled",
        "lasthandshake": moment,
        "lastendpoint": where,
        "receivedbytes": received,
        "sentbytes": sent,
    }


class RemoveWireguardPeer(Command, name="removeWireguardPeer", answer=success(), job=True, instance=PEER,
                          roles=EVERYONE, event="VPN.WIREGUARD.PEER.REMOVE"):  # fmt: skip
    """Remove a peer from its WireGuard VPN: it is cut off at once (Netspine's own)."""

    id: WireguardPeer = required()

    def run(self, ctx: Context) -> None:
        """Remove it."""
        ctx.instance = self.id
        ctx.touch(self.id)
        remove_rows(ctx.session, WireguardPeer, PEER, WireguardPeer.id == self.id.id)


class ListWireguardPeers(OwnedListing, name="listWireguardPeers", answer=many("wireguardpeer", peer_views),
                         roles=EVERYONE):  # fmt: skip
    """List the peers of WireGuard VPNs (Netspine's own)."""

    table = WireguardPeer
    keywords = (WireguardPeer.name, WireguardPeer.address)
    taggable = PEER

    id: WireguardPeer | None = matching(WireguardPeer.id)
    name: str | None = matching(WireguardPeer.name)
    wireguardvpnid: WireguardVpn | None = matching(WireguardPeer.vpn_id, description="list only this VPN's peers")
    publickey: str | None = matching(WireguardPeer.public_key)
