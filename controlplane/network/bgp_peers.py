"""BGP peers: the operator's routers that the routers of networks with dynamic routing tell their prefixes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Select, String, UniqueConstraint, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import Long, matching, optional
from controlplane.api.responses import Response
from controlplane.db.base import Base, Created, Row
from controlplane.db.configuration import define
from controlplane.db.secrets import Secret
from controlplane.errors import BadParameter
from controlplane.identity.domains import Domain
from controlplane.network.as_numbers import AsNumber
from controlplane.network.as_numbers import of as number_of
from controlplane.network.dedication import dedicated_fields, of_realm
from controlplane.network.networks import Network, Whole
from controlplane.network.vpcs import Vpc
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.offering.routing_modes import DYNAMIC
from controlplane.offering.vpc_offerings import VpcOffering
from controlplane.zone.zones import Zone
from drivers import routing

USE_SYSTEM = define(
    "use.system.bgp.peers",
    True,
    "Whether networks of an account that has BGP peers of its own tell their prefixes to everybody's peers too",
    category="Network",
    scopes=("Account",),
)
HOPS = "EBGP_MultiHop"
"""The detail that says how many routers away a peer is."""


class BgpPeer(Created, Row):
    """A peer (createBgpPeer).

    :ivar account_id: for whose networks alone it is; with ``domain_id`` only, those of the domain and below.
    """

    __tablename__ = "bgp_peers"
    __table_args__ = (UniqueConstraint("zone_id", "address"), UniqueConstraint("zone_id", "address6"))

    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"))
    address: Mapped[str | None] = mapped_column(String(40))
    address6: Mapped[str | None] = mapped_column(String(50))
    number: Mapped[int] = mapped_column(BigInteger)
    password: Mapped[str] = mapped_column(Secret, default="")
    details: Mapped[dict[str, str]] = mapped_column(default=dict)
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"), index=True)
    domain_id: Mapped[int | None] = mapped_column(ForeignKey("domains.id"), index=True)
    zone: Mapped[Zone] = relationship()


class PeerChoice(Base):
    """A peer that was named for a network or VPC; what none was named for has all that are open to its owner."""

    __tablename__ = "bgp_peer_choices"
    __table_args__ = (UniqueConstraint("network_id", "vpc_id", "peer_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    peer_id: Mapped[int] = mapped_column(ForeignKey("bgp_peers.id"), index=True)
    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"), index=True)
    vpc_id: Mapped[int | None] = mapped_column(ForeignKey("vpcs.id"), index=True)


dispatch.JOB_TABLES["BgpPeer"] = BgpPeer


@dataclass(kw_only=True)
class BgpPeerResponse(Response):
    """A BGP peer; its password stays inside."""

    id: str
    asnumber: int
    ipaddress: str | None = None
    ip6address: str | None = None
    zoneid: str
    zonename: str
    account: str | None = None
    domain: str | None = None
    domainid: str | None = None
    details: dict[str, str] | None = None
    created: datetime


def bgp_peer_views(ctx: Context, rows: Sequence[BgpPeer]) -> list[BgpPeerResponse]:
    """Return the responses of these peers."""
    zones = select(Zone.id, Zone.uuid, Zone.name).where(Zone.id.in_({row.zone_id for row in rows}))
    known = {number: (uuid, name) for number, uuid, name in ctx.session.execute(zones)}
    kept = dedicated_fields(ctx.session, rows)
    return [
        BgpPeerResponse(
            id=row.uuid,
            asnumber=row.number,
            ipaddress=row.address,
            ip6address=row.address6,
            zoneid=known[row.zone_id][0],
            zonename=known[row.zone_id][1],
            details=row.details or None,
            created=row.created,
            **kept[row.id],
        )
        for row in rows
    ]


class ListBgpPeers(ListCommand, name="listBgpPeers", answer=many("bgppeer", bgp_peer_views),
                   unsupported=("projectid",)):  # fmt: skip
    """List BGP peers."""

    table = BgpPeer
    keywords = (BgpPeer.address, BgpPeer.address6)

    id: BgpPeer | None = matching(BgpPeer.id)
    zoneid: Zone | None = matching(BgpPeer.zone_id)
    asnumber: Long | None = matching(BgpPeer.number)
    isdedicated: bool | None = optional()
    account: str | None = optional()
    domainid: Domain | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep those that are dedicated, or not; to the account or domain."""
        if self.isdedicated is not None:
            query = query.where(BgpPeer.domain_id.is_not(None) == self.isdedicated)
        return of_realm(ctx, query, BgpPeer, self.account, self.domainid)


def open_to(session: Session, whole: Whole) -> list[BgpPeer]:
    """Return the peers that a network or VPC may have."""
    above = [int(part) for part in session.get_one(Domain, whole.domain_id).path.split("/") if part]
    table = BgpPeer
    common = table.account_id.is_(None) & or_(table.domain_id.is_(None), table.domain_id.in_(above))
    query = select(table).where(table.zone_id == whole.zone_id, or_(table.account_id == whole.account_id, common))
    return list(session.scalars(query.order_by(table.id)))


def chosen_for(whole: Whole) -> Any:
    """Return the condition for the choices of a network or VPC."""
    return PeerChoice.vpc_id == whole.id if isinstance(whole, Vpc) else PeerChoice.network_id == whole.id


def peers_of(session: Session, whole: Whole) -> list[BgpPeer]:
    """Return the peers that a network or VPC tells its prefixes: the named ones, or all that are open to it."""
    return all_peers_of(session, [whole])[whole.uuid]


def all_peers_of(session: Session, wholes: Sequence[Whole]) -> dict[str, list[BgpPeer]]:
    """Return the peers of each of these, by UUID, with as many queries for many as for one."""
    vpcs = [whole.id for whole in wholes if isinstance(whole, Vpc)]
    networks = [whole.id for whole in wholes if not isinstance(whole, Vpc)]
    chosen = or_(PeerChoice.network_id.in_(networks), PeerChoice.vpc_id.in_(vpcs))
    named: dict[tuple[int | None, int | None], list[BgpPeer]] = {}
    query = select(PeerChoice.network_id, PeerChoice.vpc_id, BgpPeer).join(BgpPeer).where(chosen)
    for network, vpc, peer in session.execute(query.order_by(BgpPeer.id)):
        named.setdefault((network, vpc), []).append(peer)
    there = select(BgpPeer).where(BgpPeer.zone_id.in_({whole.zone_id for whole in wholes})).order_by(BgpPeer.id)
    peers = session.scalars(there).all()
    domains = select(Domain.id, Domain.path).where(Domain.id.in_({whole.domain_id for whole in wholes}))
    above = {number: {int(part) for part in path.split("/") if part} for number, path in session.execute(domains)}
    found = {}
    for whole in wholes:
        key = (None, whole.id) if isinstance(whole, Vpc) else (whole.id, None)
        found[whole.uuid] = named.get(key) or _unnamed(session, whole, peers, above[whole.domain_id])
    return found


def _unnamed(session: Session, whole: Whole, peers: Sequence[BgpPeer], above: Collection[int]) -> list[BgpPeer]:
    """Return the peers that are open to what names none: those dedicated to it alone, where there are any."""
    every = [
        peer
        for peer in peers
        if peer.zone_id == whole.zone_id
        and (peer.account_id == whole.account_id or (peer.account_id is None and peer.domain_id in (None, *above)))
    ]
    own = [peer for peer in every if peer.domain_id is not None]
    return own if own and not USE_SYSTEM.flag(session, account=whole.account_id) else every


def choose(session: Session, whole: Whole, peers: Sequence[BgpPeer]) -> None:
    """Name the peers of a network or VPC; none means all that are open to it.

    :raises BadParameter: it cannot have one of them.
    """
    allowed = {peer.id for peer in open_to(session, whole)}
    for peer in peers:
        if peer.id not in allowed:
            raise BadParameter(
                f"Invalid parameter bgppeerids value={peer.uuid}: it is of another zone than {whole.name}, or "
                "dedicated to somebody else."
            )
    for old in session.scalars(select(PeerChoice).where(chosen_for(whole))).all():
        session.delete(old)
    session.flush()
    mine = {"vpc_id": whole.id} if isinstance(whole, Vpc) else {"network_id": whole.id}
    session.add_all([PeerChoice(peer_id=number, **mine) for number in dict.fromkeys(peer.id for peer in peers)])


def announcing(session: Session, zone_id: int) -> list[Whole]:
    """Return the networks and VPCs of a zone that speak BGP."""
    alone = select(Network).join(NetworkOffering, Network.offering_id == NetworkOffering.id)
    here = Network.zone_id == zone_id, Network.removed.is_(None), Network.vpc_id.is_(None)
    networks = session.scalars(alone.where(*here, NetworkOffering.routing_mode == DYNAMIC)).all()
    shared = select(Vpc).join(VpcOffering, Vpc.offering_id == VpcOffering.id)
    vpcs = shared.where(Vpc.zone_id == zone_id, Vpc.removed.is_(None), VpcOffering.routing_mode == DYNAMIC)
    return [*networks, *session.scalars(vpcs)]


def bgp_facts(session: Session, whole: Whole) -> routing.Bgp | None:
    """Return with which number a router speaks BGP, and with whom; None where its networks are not announced."""
    if whole.offering.routing_mode != DYNAMIC:
        return None
    number = session.scalar(select(AsNumber.number).where(number_of(whole)))
    if number is None:
        return None
    peers = tuple(
        routing.BgpPeer(
            peer.address or "", peer.address6 or "", peer.number, peer.password, int(peer.details.get(HOPS, 1))
        )
        for peer in peers_of(session, whole)
    )
    return routing.Bgp(number, peers)
