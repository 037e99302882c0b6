"""Remote access VPNs: the users of an account dial a public address and are on its network (IKEv2 with EAP).

The server shows a certificate that the cloud's own authority signed; clients get it by listCaCertificate.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import AddressValueError, IPv4Address, IPv4Network, summarize_address_range

from sqlalchemy import ColumnElement, ForeignKey, Select, String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Created, Owned, Row, now
from controlplane.db.configuration import define
from controlplane.db.secrets import Secret
from controlplane.errors import BadParameter, Unsupported
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import OwnedListing, owner_fields, owner_of_new
from controlplane.network import vpn_authority, vpn_ports
from controlplane.network.firewall import FirewallRule, close_related, open_related
from controlplane.network.networks import Network, Whole, require_service, services_of
from controlplane.network.public_ips import ALLOCATED, PublicIp, clears_address
from controlplane.network.purposes import network_of
from controlplane.network.rule_text import EVERYONE as ANYWHERE
from controlplane.network.rules import rows_by_id, set_custom_id
from controlplane.network.vpcs import Vpc
from controlplane.network.vpn_users import VpnUser
from controlplane.network.ways import Way, leads, must_be_free, ways_of
from controlplane.reconcile.sweep import duty
from controlplane.reconcile.targets import Found, Target, touch
from drivers import ipsec

RANGE = define(
    "remote.access.vpn.client.iprange",
    "10.1.2.1-10.1.2.8",
    "Addresses of remote access VPN clients, first-last; the first is kept for the server",
    scopes=("Account",),
)
KEY_LENGTH = define("remote.access.vpn.psk.length", 24, "Characters of a fresh pre-shared key", within=(8, 256))
_MOST_CLIENTS = 1024
UNKNOWN = "Unknown: no router has said so far whether its host can do L2TP"
ONE_ADDRESS = "L2TP is off: iprange has one client's address only, and that is IKEv2's"
_RENEWED_BEFORE = timedelta(days=90)


class RemoteAccessVpn(Created, Owned, Row):
    """A remote access VPN (createRemoteAccessVpn) of a network, or of a VPC and all its tiers.

    :ivar first: first address that a client may get, ``last`` the last one.
    :ivar psk: the pre-shared key of L2TP over IPsec; IKEv2 clients do without it.
    :ivar certificate: PEM, for the public address; ``key`` its private key.
    """

    __tablename__ = "remote_access_vpns"

    public_ip_id: Mapped[int] = mapped_column(ForeignKey("public_ips.id"), unique=True)
    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"), unique=True)
    vpc_id: Mapped[int | None] = mapped_column(ForeignKey("vpcs.id"), unique=True)
    first: Mapped[str] = mapped_column(String(40))
    last: Mapped[str] = mapped_column(String(40))
    psk: Mapped[str] = mapped_column(Secret)
    certificate: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Secret)
    expires: Mapped[datetime]
    display: Mapped[bool] = mapped_column(default=True)
    public_ip: Mapped[PublicIp] = relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its network or VPC."""
        return session.get_one(PublicIp, self.public_ip_id).targets(session)


dispatch.JOB_TABLES["RemoteAccessVpn"] = RemoteAccessVpn


@dataclass(kw_only=True)
class RemoteAccessResponse(Response):
    """A remote access VPN. ``iprange`` is what clients get their addresses of."""

    id: str
    publicip: str
    publicipid: str
    iprange: str
    presharedkey: str
    state: str = "Running"
    l2tp: str
    fordisplay: bool | None = None
    account: str
    domain: str
    domainid: str
    domainpath: str


def remote_access_views(ctx: Context, rows: Sequence[RemoteAccessVpn]) -> list[RemoteAccessResponse]:
    """Show remote access VPNs; the server's private key is never shown."""
    owners, admin, said = owner_fields(ctx, rows), ctx.caller.is_admin, _said(ctx.session, rows)
    columns = PublicIp.id, PublicIp.uuid, PublicIp.address
    addresses = rows_by_id(ctx.session, columns, (row.public_ip_id for row in rows))
    return [
        RemoteAccessResponse(
            id=row.uuid,
            publicip=addresses[row.public_ip_id].address,
            publicipid=addresses[row.public_ip_id].uuid,
            iprange=f"{row.first}-{row.last}",
            presharedkey=row.psk,
            l2tp=said.get(row.id, UNKNOWN),
            fordisplay=row.display if admin else None,
            **owners[row.account_id],
        )
        for row in rows
    ]


def _said(session: Session, rows: Sequence[RemoteAccessVpn]) -> dict[int, str]:
    """Return what the routers say of L2TP, by VPN: of two, the one that says the most, which is what it lacks."""
    from controlplane.network.routers import Router

    owners = {(row.network_id, row.vpc_id): row for row in rows}
    found: dict[int, str] = {row.id: ONE_ADDRESS for row in rows if row.first == row.last}
    mine = Router.network_id.in_([network for network, _ in owners]) | Router.vpc_id.in_([vpc for _, vpc in owners])
    query = select(Router.network_id, Router.vpc_id, Found.states).join(Found, Found.target_id == Router.target_id)
    for network, vpc, states in session.execute(query.where(mine, Router.removed.is_(None))):
        row = owners.get((None, vpc) if vpc is not None else (network, None))
        if row is not None and row.uuid in states:
            found[row.id] = max(found.get(row.id, ""), states[row.uuid], key=len)
    return found


def _range(text: str) -> tuple[IPv4Address, IPv4Address]:
    """Return the server's address and the last client's.

    :raises BadParameter: it is no range with room for a client.
    """
    first, _, last = text.partition("-")
    try:
        ends = IPv4Address(first.strip()), IPv4Address(last.strip())
    except AddressValueError:
        ends = IPv4Address(0), IPv4Address(0)
    if not 0 < int(ends[1]) - int(ends[0]) <= _MOST_CLIENTS:
        raise BadParameter(
            f"Invalid parameter iprange value={text}: it must be two IPv4 addresses with a dash between them, such as "
            f"{RANGE.default}, for at most {_MOST_CLIENTS} clients; the first address is the server's."
        )
    return ends


class CreateRemoteAccessVpn(Command, name="createRemoteAccessVpn", job=True, creates=True, roles=EVERYONE,
                            answer=one("remoteaccessvpn", remote_access_views), instance="RemoteAccessVpn",
                            event="VPN.REMOTE.ACCESS.CREATE"):  # fmt: skip
    """Let the account's VPN users dial a public address and be on its network."""

    publicipid: PublicIp = required()
    account: str | None = optional()
    domainid: Domain | None = optional()
    fordisplay: bool | None = optional(True, admin=True)
    iprange: str | None = optional(description="first-last; the first is the server's")
    openfirewall: bool | None = optional(True)

    def prepare(self, ctx: Context) -> None:
        """Draw the server's key."""
        del ctx
        self.drawn = vpn_authority.new_key()

    def run(self, ctx: Context) -> RemoteAccessVpn:
        """Check, and make it."""
        session, ip = ctx.session, self.publicipid
        whole = self._whole(session)
        self._must_be_theirs(ctx, whole)
        self._must_be_the_only_one(session, whole)
        first, last = _range(self.iprange or RANGE.text(session, account=whole.account_id))
        _must_be_outside(whole.cidr or "", first, last)
        others = ways_of(session, whole)
        for block in summarize_address_range(first, last):
            must_be_free("iprange", block, others)
        issued = vpn_authority.issue(session, ip.address, self.drawn)
        letters = string.ascii_letters + string.digits
        row = RemoteAccessVpn(
            account_id=whole.account_id, domain_id=whole.domain_id, public_ip_id=ip.id,
            first=str(first + 1), last=str(last), display=self.fordisplay is not False, **issued._asdict(),
            psk="".join(secrets.choice(letters) for _ in range(KEY_LENGTH.number(session))),
        )  # fmt: skip
        row.network_id, row.vpc_id = (None, whole.id) if isinstance(whole, Vpc) else (whole.id, None)
        vpn_ports.hold(session, ip, vpn_ports.L2TP)
        session.add(row)
        session.flush()
        if self.openfirewall and isinstance(whole, Network):
            for port in vpn_ports.PORTS:
                opened = FirewallRule(protocol="udp", start=port, end=port, sources=[ANYWHERE], related_uuid=row.uuid)
                open_related(session, whole, ip, opened)
        ctx.touch(whole)
        return row

    def _whole(self, session: Session) -> Whole:
        """Return what the clients are to reach: the address's network, or its VPC."""
        ip = self.publicipid
        if ip.vpc_id is None or ip.state != ALLOCATED:
            network = network_of(session, ip, None, "publicipid")
            require_service(network, "Vpn")
            return network
        vpc = session.get_one(Vpc, ip.vpc_id)
        if "Vpn" not in vpc.offering.services:
            raise Unsupported(
                f"VPC {vpc.name} does not have the service Vpn: its offering {vpc.offering.name} does not include it."
            )
        return vpc

    def _must_be_theirs(self, ctx: Context, whole: Whole) -> None:
        if self.account is None and self.domainid is None:
            return
        owner = owner_of_new(ctx, self.account, self.domainid)
        if owner.id != whole.account_id:
            raise BadParameter(
                f"Invalid parameter account value={owner.name}: {self.publicipid.address} is another account's."
            )

    def _must_be_the_only_one(self, session: Session, whole: Whole) -> None:
        there = session.scalar(select(RemoteAccessVpn).where(_of(whole)))
        if there is not None:
            raise BadParameter(
                f"Invalid parameter publicipid value={self.publicipid.uuid}: {whole.name} has remote access "
                f"VPN {there.uuid} already, on {there.public_ip.address}."
            )


def _of(whole: Whole) -> ColumnElement[bool]:
    """Return the condition for the VPN of a network or a VPC."""
    return (RemoteAccessVpn.vpc_id if isinstance(whole, Vpc) else RemoteAccessVpn.network_id) == whole.id


def _must_be_outside(cidr: str, first: IPv4Address, last: IPv4Address) -> None:
    block = IPv4Network(cidr)
    if first <= block.broadcast_address and block.network_address <= last:
        raise BadParameter(
            f"Invalid parameter iprange value={first}-{last}: it must lie outside of the network's CIDR, {cidr}."
        )


@leads
def ways(session: Session, whole: Whole) -> Iterable[Way]:
    """Return the addresses of the clients of a network or VPC, and the server's, which is before them."""
    for row in session.scalars(select(RemoteAccessVpn).where(_of(whole))):
        what = f"the clients' of remote access VPN {row.uuid}"
        for block in summarize_address_range(IPv4Address(row.first) - 1, IPv4Address(row.last)):
            yield Way(what, block, row.uuid)


class DeleteRemoteAccessVpn(Command, name="deleteRemoteAccessVpn", answer=success(), job=True, roles=EVERYONE,
                            instance="RemoteAccessVpn", event="VPN.REMOTE.ACCESS.DESTROY"):  # fmt: skip
    """Delete the remote access VPN of a public address; whoever is connected is cut off."""

    publicipid: PublicIp = required()

    def run(self, ctx: Context) -> None:
        """Find it, and delete it."""
        row = ctx.session.scalar(select(RemoteAccessVpn).where(RemoteAccessVpn.public_ip_id == self.publicipid.id))
        if row is None:
            raise BadParameter(
                f"Invalid parameter publicipid value={self.publicipid.uuid}: {self.publicipid.address} has no remote "
                "access VPN."
            )
        ctx.instance = row
        ctx.touch(row)
        _remove(ctx.session, row)


def _remove(session: Session, row: RemoteAccessVpn) -> None:
    close_related(session, row.uuid)
    ip = session.get_one(PublicIp, row.public_ip_id)
    session.delete(row)
    vpn_ports.let_go(session, ip, vpn_ports.L2TP)


class UpdateRemoteAccessVpn(Command, name="updateRemoteAccessVpn", job=True, roles=EVERYONE,
                            answer=one("remoteaccessvpn", remote_access_views), instance="RemoteAccessVpn",
                            event="VPN.REMOTE.ACCESS.UPDATE"):  # fmt: skip
    """Change how a remote access VPN is shown."""

    id: RemoteAccessVpn = required()
    customid: str | None = optional(admin=True)
    fordisplay: bool | None = optional(admin=True)

    def run(self, ctx: Context) -> RemoteAccessVpn:
        """Change it."""
        row = self.id
        if self.fordisplay is not None:
            row.display = self.fordisplay
        if self.customid is not None:
            former = row.uuid
            set_custom_id(ctx, row, "RemoteAccessVpn", self.customid)
            for rule in ctx.session.scalars(select(FirewallRule).where(FirewallRule.related_uuid == former)):
                rule.related_uuid = row.uuid
            ctx.touch(row)
        return row


class ListRemoteAccessVpns(OwnedListing, name="listRemoteAccessVpns", roles=EVERYONE,
                           answer=many("remoteaccessvpn", remote_access_views)):  # fmt: skip
    """List remote access VPNs."""

    table = RemoteAccessVpn
    tags = None

    id: RemoteAccessVpn | None = matching(RemoteAccessVpn.id)
    fordisplay: bool | None = matching(RemoteAccessVpn.display, admin=True)
    networkid: Network | None = matching(RemoteAccessVpn.network_id)
    publicipid: PublicIp | None = matching(RemoteAccessVpn.public_ip_id)

    def narrow(self, ctx: Context, query: Select[tuple[RemoteAccessVpn]]) -> Select[tuple[RemoteAccessVpn]]:
        """Keep those whose address has the keyword in it."""
        del ctx
        if not self.keyword:
            return query
        theirs = select(PublicIp.id).where(PublicIp.address.icontains(self.keyword, autoescape=True))
        return query.where(RemoteAccessVpn.public_ip_id.in_(theirs))


@clears_address
def clear_address(session: Session, ip: PublicIp) -> None:
    """Delete the VPN of an address that is given back."""
    row = session.scalar(select(RemoteAccessVpn).where(RemoteAccessVpn.public_ip_id == ip.id))
    if row is not None:
        _remove(session, row)


@vpn_ports.holds_ports
def holds(session: Session, ip: PublicIp) -> bool:
    """Tell whether the address has a remote access VPN."""
    return session.scalar(select(RemoteAccessVpn.id).where(RemoteAccessVpn.public_ip_id == ip.id)) is not None


def targets_of_account(session: Session, account_id: int) -> list[Target]:
    """Return the targets of all remote access VPNs of an account."""
    rows = session.scalars(select(RemoteAccessVpn).where(RemoteAccessVpn.account_id == account_id)).all()
    return [target for row in rows for target in row.targets(session)]


@duty(3600)
def renew_certificates(session: Session) -> None:
    """Give the servers whose certificates end soon new ones."""
    ending = select(RemoteAccessVpn).where(RemoteAccessVpn.expires < now() + _RENEWED_BEFORE)
    for row in session.scalars(ending).all():
        issued = vpn_authority.issue(session, row.public_ip.address, vpn_authority.new_key())
        row.certificate, row.key, row.expires = issued
        touch(session, row.targets(session))


def remote_access_facts(session: Session, whole: Whole) -> ipsec.RemoteAccess | None:
    """Return what the router of a network or VPC needs of its remote access VPN; None where it has none."""
    row = session.scalar(select(RemoteAccessVpn).where(_of(whole)))
    if row is None:
        return None
    resolvers = tuple(whole.dns) or (whole.zone.dns1, whole.zone.dns2)
    if isinstance(whole, Network) and "Dns" in services_of(whole):
        resolvers = (whole.gateway or "",)
    users = select(VpnUser).where(VpnUser.account_id == row.account_id).order_by(VpnUser.username)
    return ipsec.RemoteAccess(
        id=row.uuid,
        local=row.public_ip.address,
        networks=(whole.cidr or "",),
        first=row.first,
        last=row.last,
        certificate=row.certificate,
        key=row.key,
        dns=tuple(resolver for resolver in resolvers if resolver),
        psk=row.psk,
        server=str(IPv4Address(row.first) - 1),
        users=tuple(ipsec.VpnUser(user.username, user.password) for user in session.scalars(users)),
    )
