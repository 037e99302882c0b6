"""Commands that make, change, dedicate and end BGP peers, and say which networks have them."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import or_, select

from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import Long, optional, required
from controlplane.errors import BadParameter, InUse, RuleConflict
from controlplane.identity.domains import Domain
from controlplane.network.as_numbers import LAST
from controlplane.network.bgp_peers import (
    HOPS,
    BgpPeer,
    PeerChoice,
    announcing,
    bgp_peer_views,
    choose,
    open_to,
    peers_of,
)
from controlplane.network.dedication import dedicated_to
from controlplane.network.networks import Network, Whole
from controlplane.network.vpcs import Vpc
from controlplane.offering.routing_modes import DYNAMIC
from controlplane.zone import syntax
from controlplane.zone.zones import Zone

_PASSWORD = re.compile(r"[\x21-\x7e]{1,80}", re.ASCII)
_MOST_HOPS = 255


def _number(value: int) -> int:
    if not 1 <= value <= LAST:
        raise ValueError(f"an AS number is 1 to {LAST}")
    return value


def _password(value: str) -> str:
    if not _PASSWORD.fullmatch(value):
        raise ValueError("it must have 1 to 80 visible ASCII characters, without spaces")
    return value


def _details(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if name != HOPS:
            raise ValueError(f"there is no detail {name}; there is {HOPS}, how many routers away the peer is")
        if not text.isdecimal() or not 1 <= int(text) <= _MOST_HOPS:
            raise ValueError(f"{HOPS} is 1 to {_MOST_HOPS}, not {text}")
    return value


def _touch_all(ctx: Context, peer: BgpPeer) -> None:
    ctx.touch(*announcing(ctx.session, peer.zone_id))


def _refuse_twin(ctx: Context, peer: BgpPeer) -> None:
    """Refuse a peer with an address that another one of the zone has."""
    if not peer.address and not peer.address6:
        raise BadParameter("Invalid parameter ipaddress: a peer has an ipaddress, an ip6address, or both.")
    same: list[Any] = [BgpPeer.address == peer.address] if peer.address else []
    same += [BgpPeer.address6 == peer.address6] if peer.address6 else []
    with ctx.session.no_autoflush:
        others = select(BgpPeer).where(BgpPeer.zone_id == peer.zone_id, or_(*same), BgpPeer.id != (peer.id or 0))
        other = ctx.session.scalar(others.limit(1))
    if other is not None:
        raise RuleConflict(f"Invalid parameter ipaddress: peer {other.uuid} of the zone has this address already.")


class CreateBgpPeer(Command, name="createBgpPeer", answer=one("bgppeer", bgp_peer_views), job=True, instance="BgpPeer",
                    event="BGP.PEER.CREATE", post=True, unsupported=("projectid",)):  # fmt: skip
    """Name a router of the operator's that networks with dynamic routing tell their prefixes."""

    zoneid: Zone = required()
    asnumber: Long = required(check=_number)
    ipaddress: str | None = optional(check=syntax.ipv4)
    ip6address: str | None = optional(check=syntax.ipv6)
    password: str | None = optional(check=_password, description="of the session (TCP MD5)")
    details: dict[str, str] | None = optional(check=_details, description=f"{HOPS}: how many routers away it is")
    account: str | None = optional()
    domainid: Domain | None = optional()

    def run(self, ctx: Context) -> BgpPeer:
        """Refuse an address that is taken, and have every router that may speak with it do so."""
        peer = BgpPeer(zone_id=self.zoneid.id, number=self.asnumber, address=self.ipaddress, address6=self.ip6address)
        peer.password, peer.details = self.password or "", self.details or {}
        if self.account is not None or self.domainid is not None:
            peer.account_id, peer.domain_id = dedicated_to(ctx, self.account, self.domainid)
        _refuse_twin(ctx, peer)
        ctx.session.add(peer)
        ctx.session.flush()
        _touch_all(ctx, peer)
        return peer


class UpdateBgpPeer(Command, name="updateBgpPeer", answer=one("bgppeer", bgp_peer_views), job=True, instance="BgpPeer",
                    event="BGP.PEER.UPDATE", post=True):  # fmt: skip
    """Change a peer; sessions with it begin anew where they must, and no others do."""

    id: BgpPeer = required()
    asnumber: Long | None = optional(check=_number)
    ipaddress: str | None = optional(check=syntax.ipv4)
    ip6address: str | None = optional(check=syntax.ipv6)
    password: str | None = optional(check=_password)
    details: dict[str, str] | None = optional(check=_details)
    cleanupdetails: bool | None = optional(False, description="take all details away")

    def run(self, ctx: Context) -> BgpPeer:
        """Change what is given."""
        peer = self.id
        peer.number = self.asnumber or peer.number
        peer.address, peer.address6 = self.ipaddress or peer.address, self.ip6address or peer.address6
        peer.password = self.password or peer.password
        if self.cleanupdetails:
            peer.details = {}
        elif self.details is not None:
            peer.details = self.details
        _refuse_twin(ctx, peer)
        _touch_all(ctx, peer)
        return peer


class DeleteBgpPeer(Command, name="deleteBgpPeer", answer=success(), job=True, instance="BgpPeer",
                    event="BGP.PEER.DELETE"):  # fmt: skip
    """Delete a peer that was named for no network."""

    id: BgpPeer = required()

    def run(self, ctx: Context) -> None:
        """Refuse while networks or VPCs name it; they are told."""
        peer, ctx.instance = self.id, self.id
        having = self._having(ctx)
        if having:
            raise InUse(
                f"Peer {peer.address or peer.address6} cannot be deleted: it was named for {', '.join(having)} "
                "(changeBgpPeersForNetwork)."
            )
        _touch_all(ctx, peer)
        ctx.session.delete(peer)

    def _having(self, ctx: Context) -> list[str]:
        names: list[str] = []
        for table, column in ((Network, PeerChoice.network_id), (Vpc, PeerChoice.vpc_id)):
            query = select(table.name).join(PeerChoice, column == table.id).where(PeerChoice.peer_id == self.id.id)
            names += ctx.session.scalars(query.where(table.removed.is_(None)).limit(5))
        return names


class DedicateBgpPeer(Command, name="dedicateBgpPeer", answer=one("bgppeer", bgp_peer_views), job=True,
                      instance="BgpPeer", event="BGP.PEER.DEDICATE", unsupported=("projectid",)):  # fmt: skip
    """Keep a peer for the networks of one account, or of one domain with its tree."""

    id: BgpPeer = required()
    account: str | None = optional()
    domainid: Domain | None = optional()

    def run(self, ctx: Context) -> BgpPeer:
        """Refuse while it was named for a network of somebody else."""
        peer = self.id
        if peer.domain_id is not None:
            raise BadParameter(f"Invalid parameter id value={peer.uuid}: the peer is dedicated; release it first.")
        named = [one for one in announcing(ctx.session, peer.zone_id) if peer in _named(ctx, one)]
        peer.account_id, peer.domain_id = dedicated_to(ctx, self.account, self.domainid)
        ctx.session.flush()
        for whole in named:
            if peer not in open_to(ctx.session, whole):
                raise InUse(f"The peer cannot be dedicated: it was named for {whole.name}, which is another account's.")
        _touch_all(ctx, peer)
        return peer


def _named(ctx: Context, whole: Whole) -> list[BgpPeer]:
    from controlplane.network.bgp_peers import chosen_for

    return list(ctx.session.scalars(select(BgpPeer).join(PeerChoice).where(chosen_for(whole))))


class ReleaseBgpPeer(Command, name="releaseBgpPeer", answer=one("bgppeer", bgp_peer_views), job=True,
                     instance="BgpPeer", event="BGP.PEER.RELEASE"):  # fmt: skip
    """Give a dedicated peer back to everybody."""

    id: BgpPeer = required()

    def run(self, ctx: Context) -> BgpPeer:
        """Take the owner away."""
        peer = self.id
        if peer.domain_id is None:
            raise BadParameter(f"Invalid parameter id value={peer.uuid}: the peer is not dedicated.")
        peer.account_id = peer.domain_id = None
        ctx.session.flush()
        _touch_all(ctx, peer)
        return peer


def _change(ctx: Context, whole: Whole, peers: list[BgpPeer]) -> BgpPeer:
    """Name other peers for a network or VPC.

    :raises BadParameter: it has no dynamic routing, or cannot have one of the peers.
    """
    if whole.offering.routing_mode != DYNAMIC:
        raise BadParameter(f"{whole.name} has no dynamic routing: its offering {whole.offering.name} has another mode.")
    choose(ctx.session, whole, peers)
    ctx.session.flush()
    ctx.touch(whole)
    now = peers_of(ctx.session, whole)
    if not now:
        raise BadParameter(f"Invalid parameter bgppeerids: zone {whole.zone.name} has no peer for {whole.name}.")
    return now[0]


class ChangeBgpPeersForNetwork(Command, name="changeBgpPeersForNetwork", answer=one("bgppeer", bgp_peer_views),
                               job=True, instance="BgpPeer", event="NETWORK.BGP.PEER.UPDATE"):  # fmt: skip
    """Name the peers of a network; without any, it has all that are open to its owner. Answers with the first."""

    networkid: Network = required()
    bgppeerids: list[BgpPeer] | None = optional()

    def run(self, ctx: Context) -> BgpPeer:
        """Name them."""
        network = self.networkid
        if network.vpc is not None:
            raise BadParameter(
                f"Invalid parameter networkid value={network.uuid}: it is a tier of {network.vpc.name}: use "
                "changeBgpPeersForVpc."
            )
        return _change(ctx, network, self.bgppeerids or [])


class ChangeBgpPeersForVpc(Command, name="changeBgpPeersForVpc", answer=one("bgppeer", bgp_peer_views), job=True,
                           instance="BgpPeer", event="VPC.BGP.PEER.UPDATE"):  # fmt: skip
    """Name the peers of a VPC; without any, it has all that are open to its owner. Answers with the first."""

    vpcid: Vpc = required()
    bgppeerids: list[BgpPeer] | None = optional()

    def run(self, ctx: Context) -> BgpPeer:
        """Name them."""
        return _change(ctx, self.vpcid, self.bgppeerids or [])
