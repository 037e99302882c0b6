"""VPN connections: the tunnels between VPN gateways and customer gateways, in the state that the daemon reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from sqlalchemy import ForeignKey, Select, String, UniqueConstraint, or_, select
from sqlalchemy.orm import Mapped, Session, joinedload, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.parameters import matching
from controlplane.api.responses import Response
from controlplane.db.base import Created, Owned, Row, now
from controlplane.errors import BadParameter
from controlplane.events.events import ERROR, INFO, Event
from controlplane.identity.ownership import OwnedListing, owner_fields
from controlplane.identity.users import User
from controlplane.network.routers import Router
from controlplane.network.vpcs import Vpc
from controlplane.network.vpn_customers import VpnCustomerGateway, ike_fields
from controlplane.network.vpn_gateways import VpnGateway
from controlplane.network.ways import Way, leads, ways_of
from controlplane.reconcile.observations import on_observation
from controlplane.reconcile.sweep import duty
from controlplane.reconcile.targets import Found, Target
from drivers import ipsec
from systemvm.bundle import Observation

if TYPE_CHECKING:
    from controlplane.network.networks import Whole

STATES = CONNECTED, CONNECTING, FAILED, DISCONNECTED = "Connected", "Connecting", "Error", "Disconnected"
"""What a connection can be in, the best first: where two routers hold one, the better is what counts."""
PENDING = "Pending"
CHANGED = "VPN.S2S.CONNECTION.STATE"
_REASON = 255
_TOO_OLD = timedelta(minutes=2)


class VpnConnection(Created, Owned, Row):
    """A site-to-site tunnel (createVpnConnection).

    :ivar passive: the peer begins.
    :ivar state: as the router's daemon last reported it; ``Pending`` until it has for the first time.
    :ivar reason: why it is in ``Error``, in the daemon's words.
    :ivar resets: how often it was to begin anew.
    """

    __tablename__ = "vpn_connections"
    __table_args__ = (UniqueConstraint("gateway_id", "customer_id"),)

    gateway_id: Mapped[int] = mapped_column(ForeignKey("vpn_gateways.id"), index=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("vpn_customer_gateways.id"), index=True)
    passive: Mapped[bool] = mapped_column(default=False)
    display: Mapped[bool] = mapped_column(default=True)
    state: Mapped[str] = mapped_column(String(20), default=PENDING)
    reason: Mapped[str] = mapped_column(String(_REASON), default="")
    resets: Mapped[int] = mapped_column(default=0)
    gateway: Mapped[VpnGateway] = relationship()
    customer: Mapped[VpnCustomerGateway] = relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its VPC."""
        return session.get_one(VpnGateway, self.gateway_id).targets(session)


dispatch.JOB_TABLES["Site2SiteVpnConnection"] = VpnConnection


@dataclass(kw_only=True)
class VpnConnectionResponse(Response):
    """A VPN connection with what its two ends are."""

    id: str
    s2svpngatewayid: str
    publicip: str
    s2scustomergatewayid: str
    gateway: str
    cidrlist: str
    ipsecpsk: str
    ikepolicy: str
    esppolicy: str
    ikelifetime: int
    esplifetime: int
    ikeversion: str
    dpd: bool
    forceencap: bool
    splitconnections: bool
    passive: bool
    state: str
    created: datetime
    fordisplay: bool | None = None
    account: str
    domain: str
    domainid: str
    domainpath: str


def connection_views(ctx: Context, rows: Sequence[VpnConnection]) -> list[VpnConnectionResponse]:
    """Show VPN connections."""
    ends = joinedload(VpnConnection.customer), joinedload(VpnConnection.gateway).joinedload(VpnGateway.public_ip)
    ctx.session.scalars(
        select(VpnConnection).where(VpnConnection.id.in_([row.id for row in rows])).options(*ends)
    ).all()
    owners, admin = owner_fields(ctx, rows), ctx.caller.is_admin
    return [
        VpnConnectionResponse(
            id=row.uuid,
            s2svpngatewayid=row.gateway.uuid,
            publicip=row.gateway.public_ip.address,
            s2scustomergatewayid=row.customer.uuid,
            passive=row.passive,
            state=row.state,
            created=row.created,
            fordisplay=row.display if admin else None,
            **ike_fields(row.customer),
            **owners[row.account_id],
        )
        for row in rows
    ]


class ListVpnConnections(OwnedListing, name="listVpnConnections", answer=many("vpnconnection", connection_views),
                         roles=EVERYONE):  # fmt: skip
    """List VPN connections in the state that the daemon reports."""

    table = VpnConnection
    tags = None

    id: VpnConnection | None = matching(VpnConnection.id)
    fordisplay: bool | None = matching(VpnConnection.display, admin=True)
    vpcid: Vpc | None = matching(VpnGateway.vpc_id)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep those whose customer gateway has the keyword in its name or address."""
        del ctx
        query = query.join(VpnGateway, VpnConnection.gateway_id == VpnGateway.id)
        if not self.keyword:
            return query
        columns = VpnCustomerGateway.name, VpnCustomerGateway.gateway
        word = or_(*(column.icontains(self.keyword, autoescape=True) for column in columns))
        return query.where(VpnConnection.customer_id.in_(select(VpnCustomerGateway.id).where(word)))


def connections_from(session: Session, gateway: VpnGateway) -> Sequence[VpnConnection]:
    """Return the connections of a VPN gateway."""
    return session.scalars(select(VpnConnection).where(VpnConnection.gateway_id == gateway.id)).all()


def connections_to(session: Session, customer: VpnCustomerGateway) -> Sequence[VpnConnection]:
    """Return the connections that lead to a customer gateway."""
    return session.scalars(select(VpnConnection).where(VpnConnection.customer_id == customer.id)).all()


def targets_of_customer(session: Session, customer: VpnCustomerGateway) -> list[Target]:
    """Return the targets of all routers whose connections lead to a customer gateway."""
    return [target for row in connections_to(session, customer) for target in row.targets(session)]


def must_fit_connections(session: Session, customer: VpnCustomerGateway) -> None:
    """Make sure that a customer gateway, as it is now, can be the other end of all its connections."""
    for row in connections_to(session, customer):
        must_fit(session, row.gateway, customer, row)


def must_fit(
    session: Session, gateway: VpnGateway, customer: VpnCustomerGateway, but: VpnConnection | None = None
) -> None:
    """Make sure that a tunnel between these two leads where nothing else does.

    :param but: the connection that is theirs already.
    :raises BadParameter: the customer's networks overlap the VPC, or another connection leads there; it is named.
    """
    what = f"Invalid parameter s2scustomergatewayid value={customer.uuid}: customer gateway {customer.name}"
    vpc = gateway.vpc
    if customer.gateway == gateway.public_ip.address:
        raise BadParameter(f"{what} is VPN gateway {gateway.uuid} itself, {customer.gateway}.")
    if cidr := _overlap(customer.cidrs, [vpc.cidr]):
        raise BadParameter(f"{what} has {cidr}, which overlaps {vpc.cidr} of VPC {vpc.name}.")
    for other in connections_from(session, gateway):
        theirs = other.customer
        if other is but:
            continue
        if theirs.gateway == customer.gateway:
            raise BadParameter(f"{what} is at {customer.gateway}, where VPN connection {other.uuid} leads already.")
        if cidr := _overlap(customer.cidrs, theirs.cidrs):
            raise BadParameter(f"{what} has {cidr}, which overlaps where VPN connection {other.uuid} leads.")
    mine = {other.uuid for other in connections_from(session, gateway)}
    for way in ways_of(session, vpc):
        if way.owner not in mine and (cidr := _overlap(customer.cidrs, [str(way.cidr)])):
            raise BadParameter(f"{what} has {cidr}, which overlaps {way.cidr}, {way.what}.")


@leads
def ways(session: Session, whole: Whole) -> Iterable[Way]:
    """Return the networks behind the VPN connections of a VPC."""
    if isinstance(whole, Vpc):
        query = select(VpnConnection).join(VpnGateway).where(VpnGateway.vpc_id == whole.id)
        for row in session.scalars(query.options(joinedload(VpnConnection.customer))):
            what = f"where VPN connection {row.uuid} leads"
            yield from (Way(what, IPv4Network(cidr), row.uuid) for cidr in row.customer.cidrs)


def _overlap(ours: Sequence[str], theirs: Sequence[str]) -> str:
    blocks = [IPv4Network(cidr) for cidr in theirs]
    return next((cidr for cidr in ours if any(IPv4Network(cidr).overlaps(block) for block in blocks)), "")


def tunnel_facts(session: Session, vpc: Vpc) -> tuple[ipsec.Tunnel, ...]:
    """Return the tunnels that the VPC's router is to hold."""
    ends = joinedload(VpnConnection.customer), joinedload(VpnConnection.gateway).joinedload(VpnGateway.public_ip)
    query = select(VpnConnection).join(VpnGateway).where(VpnGateway.vpc_id == vpc.id).options(*ends)
    return tuple(
        ipsec.Tunnel(
            id=row.uuid,
            local=row.gateway.public_ip.address,
            networks=(vpc.cidr,),
            peer=row.customer.gateway,
            remotes=tuple(row.customer.cidrs),
            psk=row.customer.psk,
            version=row.customer.ike_version,
            ike_policy=row.customer.ike_policy,
            esp_policy=row.customer.esp_policy,
            ike_lifetime=row.customer.ike_lifetime,
            esp_lifetime=row.customer.esp_lifetime,
            dpd=row.customer.dpd,
            encap=row.customer.encap,
            passive=row.passive,
            split=row.customer.split,
            resets=row.resets,
        )
        for row in session.scalars(query.order_by(VpnConnection.id))
    )


@on_observation("router")
def take_states(session: Session, target: Target, observation: Observation) -> None:
    """Keep what the daemon says of each connection, and leave an event where it is another state than before."""
    if not any(state.partition(":")[0] in STATES for _, state in observation.states):
        return
    vpc = session.scalar(select(Router.vpc_id).where(Router.target_id == target.id))
    query = (
        select(VpnConnection)
        .join(VpnGateway)
        .where(VpnGateway.vpc_id == vpc)
        .options(joinedload(VpnConnection.customer))
    )
    rows = session.scalars(query).all() if vpc is not None else ()
    if not rows:
        return
    members = (
        select(Found.states)
        .join(Router, Router.target_id == Found.target_id)
        .where(Router.vpc_id == vpc, Found.target_id != target.id)
    )
    said = [dict(observation.states), *session.scalars(members)]
    for row in rows:
        found = [states[row.uuid].partition(": ") for states in said if row.uuid in states]
        if found:
            state, _, reason = min(found, key=lambda each: STATES.index(each[0]))
            _keep(session, row, state, reason[:_REASON])


@duty(30)
def doubt_old_states(session: Session) -> None:
    """Believe no state that its router has not repeated for a while: it is stopped, gone or cut off."""
    fresh = select(Router.vpc_id).join(Found, Found.target_id == Router.target_id).where(Found.at > now() - _TOO_OLD)
    silent = VpnGateway.vpc_id.not_in(fresh.where(Router.vpc_id.is_not(None)))
    doubtful = VpnConnection.state.in_((CONNECTED, CONNECTING)), silent
    for row in session.scalars(select(VpnConnection).join(VpnGateway).where(*doubtful)).all():
        _keep(session, row, DISCONNECTED, "its router has not been heard of")


def _keep(session: Session, row: VpnConnection, state: str, reason: str) -> None:
    if (row.state, row.reason) == (state, reason):
        return
    if row.state != state:
        system = session.scalars(select(User.id).where(User.username == "system").order_by(User.id)).first()
        assert system is not None
        why = f": {reason}" if reason else ""
        session.add(
            Event(
                type=CHANGED,
                level=ERROR if state == FAILED else INFO,
                state="Completed",
                description=f"VPN connection ({row.uuid}) to {row.customer.name} went from {row.state} to {state}{why}",
                account_id=row.account_id,
                domain_id=row.domain_id,
                user_id=system,
                resource_type="Site2SiteVpnConnection",
                resource_uuid=row.uuid,
                resource_name=row.customer.name,
            )
        )
    row.state, row.reason = state, reason
