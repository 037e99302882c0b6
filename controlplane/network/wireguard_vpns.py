"""WireGuard VPNs: one for a network or VPC, on a public address of its own. CloudStack has nothing of the kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network

from sqlalchemy import ColumnElement, ForeignKey, String, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Created, Owned, Row, new_uuid
from controlplane.db.configuration import define
from controlplane.db.secrets import Secret
from controlplane.errors import BadParameter, RuleConflict, Unsupported
from controlplane.identity.ownership import OwnedListing, owner_fields
from controlplane.identity.tags import TagResponse, tags_of
from controlplane.network import rule_text, wireguard_text
from controlplane.network.claims import WIREGUARD, PortClaim, claim, give_up
from controlplane.network.networks import Network, Whole, require_service
from controlplane.network.public_ips import ALLOCATED, PublicIp, clears_address, used_by
from controlplane.network.purposes import must_take, network_of
from controlplane.network.rules import remove_rows, rows_by_id
from controlplane.network.vpcs import Vpc
from controlplane.network.ways import Way, leads, must_be_free, ways_of
from controlplane.reconcile.targets import Found, Target

TAGGABLE = "WireguardVpn"
PORT = define("wireguard.vpn.port", 51820, "UDP port of a WireGuard VPN that is made without one",
              category="Network", within=(1, 65535))  # fmt: skip
CIDR = define("wireguard.vpn.cidr", "10.250.0.0/24", "Addresses of a WireGuard VPN's peers that is made without any",
              category="Network")  # fmt: skip
LARGEST, SMALLEST = 16, 30


class WireguardVpn(Created, Owned, Row):
    """A WireGuard VPN (createWireguardVpn).

    :ivar cidr: of the addresses in the tunnel; ``gateway``, the first of them, is the router's own.
    :ivar private_key: the VPN's own; only its router is ever told.
    """

    __tablename__ = "wireguard_vpns"

    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"), unique=True)
    vpc_id: Mapped[int | None] = mapped_column(ForeignKey("vpcs.id"), unique=True)
    public_ip_id: Mapped[int] = mapped_column(ForeignKey("public_ips.id"), index=True)
    port: Mapped[int]
    cidr: Mapped[str] = mapped_column(String(40))
    gateway: Mapped[str] = mapped_column(String(40))
    public_key: Mapped[str] = mapped_column(String(44))
    private_key: Mapped[str] = mapped_column(Secret)
    display: Mapped[bool] = mapped_column(default=True)
    network: Mapped[Network | None] = relationship()
    vpc: Mapped[Vpc | None] = relationship()
    public_ip: Mapped[PublicIp] = relationship()

    @property
    def whole(self) -> Whole:
        """The network or VPC that it leads to."""
        found = self.vpc or self.network
        assert found is not None
        return found

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its network or VPC."""
        return self.whole.targets(session)


dispatch.JOB_TABLES[TAGGABLE] = WireguardVpn


@dataclass(kw_only=True)
class WireguardVpnResponse(Response):
    """A WireGuard VPN."""

    id: str
    networkid: str | None = None
    networkname: str | None = None
    vpcid: str | None = None
    vpcname: str | None = None
    publicipid: str
    publicip: str
    port: int
    cidr: str
    gateway: str
    publickey: str
    peercount: int
    state: str
    reason: str | None = None
    account: str
    domain: str
    domainid: str
    domainpath: str
    created: datetime
    fordisplay: bool | None = None
    tags: list[TagResponse]


def vpn_views(ctx: Context, rows: Sequence[WireguardVpn]) -> list[WireguardVpnResponse]:
    """Show VPNs; the state is what their routers say."""
    from controlplane.network.wireguard_peers import WireguardPeer

    session, admin = ctx.session, ctx.caller.is_admin
    networks = rows_by_id(session, (Network.id, Network.uuid, Network.name), (row.network_id for row in rows))
    vpcs = rows_by_id(session, (Vpc.id, Vpc.uuid, Vpc.name), (row.vpc_id for row in rows))
    addresses = rows_by_id(session, (PublicIp.id, PublicIp.uuid, PublicIp.address), (row.public_ip_id for row in rows))
    counted = select(WireguardPeer.vpn_id, func.count()).group_by(WireguardPeer.vpn_id)
    counts = {number: count for number, count in session.execute(counted)}
    owners, tags, health = owner_fields(ctx, rows), tags_of(ctx, TAGGABLE, rows), health_of(session, rows)
    return [
        WireguardVpnResponse(
            id=row.uuid,
            networkid=networks[row.network_id].uuid if row.network_id else None,
            networkname=networks[row.network_id].name if row.network_id else None,
            vpcid=vpcs[row.vpc_id].uuid if row.vpc_id else None,
            vpcname=vpcs[row.vpc_id].name if row.vpc_id else None,
            publicipid=addresses[row.public_ip_id].uuid,
            publicip=addresses[row.public_ip_id].address,
            port=row.port,
            cidr=row.cidr,
            gateway=row.gateway,
            publickey=row.public_key,
            peercount=counts.get(row.id, 0),
            state=health[row.id][0],
            reason=health[row.id][1] or None,
            created=row.created,
            fordisplay=row.display if admin else None,
            tags=tags[row.id],
            **owners[row.account_id],
        )
        for row in rows
    ]


def health_of(session: Session, rows: Sequence[WireguardVpn]) -> dict[int, tuple[str, str]]:
    """Return, by VPN, ``Running``, ``Stopped`` (no router runs) or ``Alert``, and the reason for the last."""
    names = {row.id: f"wireguard/wg{row.uuid[:8]}" for row in rows}
    states = {row.id: ("Stopped", "") for row in rows}
    for number, founds in found_of(session, rows).items():
        reasons = [found.health[names[number]] for found in founds if names[number] in found.health]
        if reasons:
            states[number] = ("Running", "") if "" in reasons else ("Alert", reasons[0])
    return states


def found_of(session: Session, rows: Sequence[WireguardVpn]) -> dict[int, list[Found]]:
    """Return what was last read back from the routers of each VPN, by VPN."""
    from controlplane.network.routers import Router

    networks = {row.network_id: row.id for row in rows if row.network_id}
    vpcs = {row.vpc_id: row.id for row in rows if row.vpc_id}
    query = select(Router.network_id, Router.vpc_id, Found).join(Found, Found.target_id == Router.target_id)
    mine = Router.network_id.in_(networks) | Router.vpc_id.in_(vpcs)
    found: dict[int, list[Found]] = {}
    for network, vpc, seen in session.execute(query.where(mine, Router.removed.is_(None)).order_by(Router.id)):
        number = vpcs[vpc] if vpc is not None else networks[network or 0]
        found.setdefault(number, []).append(seen)
    return found


class CreateWireguardVpn(Command, name="createWireguardVpn", answer=one("wireguardvpn", vpn_views), job=True,
                         creates=True, instance=TAGGABLE, roles=EVERYONE, event="VPN.WIREGUARD.CREATE"):  # fmt: skip
    """Make a WireGuard VPN for a network or VPC (Netspine's own: CloudStack has no WireGuard)."""

    networkid: Network | None = optional(description="the network that the VPN leads to")
    vpcid: Vpc | None = optional(description="the VPC that the VPN leads to, in a network's place")
    publicipid: PublicIp | None = optional(
        description="public address that it listens on; the source NAT address by default"
    )
    port: int | None = optional(description="UDP port that it listens on; the setting wireguard.vpn.port by default")
    cidr: str | None = optional(description="addresses of its peers; the setting wireguard.vpn.cidr by default")
    fordisplay: bool | None = optional(True, admin=True)

    def run(self, ctx: Context) -> WireguardVpn:
        """Check, and make the VPN."""
        session, whole = ctx.session, self._whole()
        ip = self._address(session, whole)
        other = session.scalar(select(WireguardVpn.uuid).where(leads_to(whole)))
        if other is not None:
            raise RuleConflict(f"{_noun(whole)} {whole.name} has a WireGuard VPN already, {other}: add peers to that.")
        vpn = WireguardVpn(uuid=new_uuid(), account_id=whole.account_id, domain_id=whole.domain_id)
        vpn.network, vpn.vpc = (None, whole) if isinstance(whole, Vpc) else (whole, None)
        vpn.public_ip, vpn.display = ip, self.fordisplay is not False
        vpn.port = PORT.number(session) if self.port is None else self.port
        rule_text.port_range("port", vpn.port, "port", None)
        cidr = self._cidr(session, whole)
        vpn.cidr, vpn.gateway = str(cidr), str(cidr[1])
        vpn.private_key, vpn.public_key = wireguard_text.new_pair()
        wanted = PortClaim(public_ip_id=ip.id, protocol="udp", port=vpn.port, rule_uuid=vpn.uuid, purpose=WIREGUARD)
        claim(session, wanted, vpn.port)
        session.add(vpn)
        ctx.touch(whole)
        return vpn

    def _whole(self) -> Whole:
        if (self.networkid is None) == (self.vpcid is None):
            raise BadParameter("Invalid parameter networkid: exactly one of networkid and vpcid must be given.")
        if self.vpcid is not None:
            if "Vpn" not in self.vpcid.offering.services:
                offering = self.vpcid.offering.name
                raise Unsupported(f"VPC {self.vpcid.name} does not have the service Vpn: its offering is {offering}.")
            return self.vpcid
        network = self.networkid
        assert network is not None
        if network.vpc_id is not None:
            raise BadParameter(
                f"Invalid parameter networkid value={network.uuid}: {network.name} is a tier; give its VPC's vpcid."
            )
        require_service(network, "Vpn")
        return network

    def _address(self, session: Session, whole: Whole) -> PublicIp:
        ip = self.publicipid
        if ip is None:
            own = used_by(whole), PublicIp.source_nat, PublicIp.state == ALLOCATED
            ip = session.scalar(select(PublicIp).where(*own))
        if ip is None:
            raise BadParameter(
                f"Invalid parameter publicipid: {whole.name} has no source NAT address yet; associate an address with "
                "it and name that one."
            )
        if isinstance(whole, Network):
            network_of(session, ip, whole, "publicipid")
            if not ip.source_nat:  # that one carries VPNs beside what else it does
                must_take(session, ip, whole, WIREGUARD)
        elif ip.vpc_id != whole.id or ip.state != ALLOCATED or ip.static_nat:
            use = "has static NAT" if ip.static_nat else f"is no address of VPC {whole.name}"
            raise RuleConflict(f"Invalid parameter publicipid value={ip.uuid}: {ip.address} {use}.")
        return ip

    def _cidr(self, session: Session, whole: Whole) -> IPv4Network:
        text = self.cidr or CIDR.text(session)
        cidr = wireguard_text.block("cidr", text)
        if not LARGEST <= cidr.prefixlen <= SMALLEST:
            raise BadParameter(f"Invalid parameter cidr value={text}: it must be /{LARGEST} to /{SMALLEST} large.")
        must_be_free("cidr", cidr, ways_of(session, whole))
        return cidr


def leads_to(whole: Whole) -> ColumnElement[bool]:
    """Return the condition for the VPN of a network or VPC."""
    return WireguardVpn.vpc_id == whole.id if isinstance(whole, Vpc) else WireguardVpn.network_id == whole.id


def _noun(whole: Whole) -> str:
    return "VPC" if isinstance(whole, Vpc) else "Network"


@leads
def ways(session: Session, whole: Whole) -> Iterable[Way]:
    """Return the addresses within the tunnels of the VPN of a network or VPC."""
    for uuid, cidr in session.execute(select(WireguardVpn.uuid, WireguardVpn.cidr).where(leads_to(whole))):
        yield Way(f"the addresses of WireGuard VPN {uuid}", IPv4Network(cidr), uuid)


class DeleteWireguardVpn(Command, name="deleteWireguardVpn", answer=success(), job=True, instance=TAGGABLE,
                         roles=EVERYONE, event="VPN.WIREGUARD.DELETE"):  # fmt: skip
    """Delete a WireGuard VPN with all its peers (Netspine's own)."""

    id: WireguardVpn = required()

    def run(self, ctx: Context) -> None:
        """Delete it."""
        ctx.instance = self.id
        ctx.touch(self.id)
        remove(ctx.session, self.id)


def remove(session: Session, vpn: WireguardVpn) -> None:
    """Remove a VPN, its peers and its claim."""
    from controlplane.network.wireguard_peers import PEER, WireguardPeer

    remove_rows(session, WireguardPeer, PEER, WireguardPeer.vpn_id == vpn.id)
    give_up(session, vpn.uuid)
    remove_rows(session, WireguardVpn, TAGGABLE, WireguardVpn.id == vpn.id)


class ListWireguardVpns(OwnedListing, name="listWireguardVpns", answer=many("wireguardvpn", vpn_views),
                        roles=EVERYONE):  # fmt: skip
    """List WireGuard VPNs (Netspine's own)."""

    table = WireguardVpn
    keywords = (WireguardVpn.cidr,)
    taggable = TAGGABLE

    id: WireguardVpn | None = matching(WireguardVpn.id)
    networkid: Network | None = matching(WireguardVpn.network_id)
    vpcid: Vpc | None = matching(WireguardVpn.vpc_id)
    publicipid: PublicIp | None = matching(WireguardVpn.public_ip_id)
    fordisplay: bool | None = matching(WireguardVpn.display, admin=True)


@clears_address
def clear_address(session: Session, ip: PublicIp) -> None:
    """Remove the VPNs of an address that is given back."""
    for vpn in session.scalars(select(WireguardVpn).where(WireguardVpn.public_ip_id == ip.id)):
        remove(session, vpn)
