"""VPN gateways: the own end of a VPC's site-to-site tunnels, on one of its public addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Created, Owned, Row
from controlplane.errors import BadParameter, InUse
from controlplane.identity.ownership import OwnedListing, owner_fields
from controlplane.network import vpn_ports
from controlplane.network.public_ips import ALLOCATED, PublicIp, clears_address
from controlplane.network.rules import rows_by_id, set_custom_id
from controlplane.network.vpcs import Vpc
from controlplane.reconcile.targets import Target


class VpnGateway(Created, Owned, Row):
    """A VPN gateway (createVpnGateway): one for each VPC."""

    __tablename__ = "vpn_gateways"

    vpc_id: Mapped[int] = mapped_column(ForeignKey("vpcs.id"), unique=True)
    public_ip_id: Mapped[int] = mapped_column(ForeignKey("public_ips.id"), unique=True)
    display: Mapped[bool] = mapped_column(default=True)
    vpc: Mapped[Vpc] = relationship()
    public_ip: Mapped[PublicIp] = relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its VPC."""
        return session.get_one(Vpc, self.vpc_id).targets(session)


dispatch.JOB_TABLES["Site2SiteVpnGateway"] = VpnGateway


@dataclass(kw_only=True)
class VpnGatewayResponse(Response):
    """A VPN gateway."""

    id: str
    publicip: str
    vpcid: str
    vpcname: str
    fordisplay: bool | None = None
    account: str
    domain: str
    domainid: str
    domainpath: str


def gateway_views(ctx: Context, rows: Sequence[VpnGateway]) -> list[VpnGatewayResponse]:
    """Show VPN gateways."""
    owners, admin = owner_fields(ctx, rows), ctx.caller.is_admin
    vpcs = rows_by_id(ctx.session, (Vpc.id, Vpc.uuid, Vpc.name), (row.vpc_id for row in rows))
    addresses = rows_by_id(ctx.session, (PublicIp.id, PublicIp.address), (row.public_ip_id for row in rows))
    return [
        VpnGatewayResponse(
            id=row.uuid,
            publicip=addresses[row.public_ip_id].address,
            vpcid=vpcs[row.vpc_id].uuid,
            vpcname=vpcs[row.vpc_id].name,
            fordisplay=row.display if admin else None,
            **owners[row.account_id],
        )
        for row in rows
    ]


class CreateVpnGateway(Command, name="createVpnGateway", answer=one("vpngateway", gateway_views), job=True,
                       creates=True, instance="Site2SiteVpnGateway", roles=EVERYONE,
                       event="VPN.S2S.VPN.GATEWAY.CREATE"):  # fmt: skip
    """Give a VPC the own end of site-to-site tunnels, on its source NAT address unless another is named."""

    vpcid: Vpc = required()
    fordisplay: bool | None = optional(True, admin=True)
    ipaddressid: str | None = optional(description="one of the VPC's public addresses; its source NAT one by default")

    def run(self, ctx: Context) -> VpnGateway:
        """Check, and make it."""
        session, vpc = ctx.session, self.vpcid
        there = session.scalar(select(VpnGateway).where(VpnGateway.vpc_id == vpc.id))
        if there is not None:
            raise BadParameter(
                f"Invalid parameter vpcid value={vpc.uuid}: VPC {vpc.name} has VPN gateway {there.uuid}."
            )
        if "Vpn" not in vpc.offering.services:
            raise BadParameter(
                f"Invalid parameter vpcid value={vpc.uuid}: offering {vpc.offering.name} of VPC {vpc.name} does not "
                "include the service Vpn."
            )
        ip = self._address(ctx)
        vpn_ports.hold(session, ip)
        owner = {"account_id": vpc.account_id, "domain_id": vpc.domain_id}
        row = VpnGateway(vpc_id=vpc.id, public_ip_id=ip.id, display=self.fordisplay is not False, **owner)
        session.add(row)
        ctx.touch(vpc)
        return row

    def _address(self, ctx: Context) -> PublicIp:
        mine = PublicIp.vpc_id == self.vpcid.id, PublicIp.state == ALLOCATED
        if self.ipaddressid is None:
            ip = ctx.session.scalar(select(PublicIp).where(*mine, PublicIp.source_nat))
            if ip is None:
                raise BadParameter(
                    f"Invalid parameter vpcid value={self.vpcid.uuid}: VPC {self.vpcid.name} has no source NAT "
                    "address; name one of its addresses by ipaddressid."
                )
            return ip
        ip = ctx.session.scalar(select(PublicIp).where(*mine, PublicIp.uuid == self.ipaddressid.lower()))
        if ip is None:
            raise BadParameter(
                f"Invalid parameter ipaddressid value={self.ipaddressid}: it must be a public address of VPC "
                f"{self.vpcid.name}."
            )
        return ip


class UpdateVpnGateway(Command, name="updateVpnGateway", answer=one("vpngateway", gateway_views), job=True,
                       instance="Site2SiteVpnGateway", roles=EVERYONE,
                       event="VPN.S2S.VPN.GATEWAY.UPDATE"):  # fmt: skip
    """Change how a VPN gateway is shown."""

    id: VpnGateway = required()
    customid: str | None = optional(admin=True)
    fordisplay: bool | None = optional(admin=True)

    def run(self, ctx: Context) -> VpnGateway:
        """Change it."""
        if self.fordisplay is not None:
            self.id.display = self.fordisplay
        set_custom_id(ctx, self.id, "VpnGateway", self.customid)
        return self.id


class DeleteVpnGateway(Command, name="deleteVpnGateway", answer=success(), job=True, instance="Site2SiteVpnGateway",
                       roles=EVERYONE, event="VPN.S2S.VPN.GATEWAY.DELETE"):  # fmt: skip
    """Delete a VPN gateway without connections."""

    id: VpnGateway = required()

    def run(self, ctx: Context) -> None:
        """Check, and delete it."""
        from controlplane.network.vpn_connections import connections_from

        ctx.instance = self.id
        if used := connections_from(ctx.session, self.id):
            names = ", ".join(row.uuid for row in used)
            raise InUse(f"VPN gateway {self.id.uuid} has VPN connections {names}: delete them first.")
        ctx.touch(self.id)
        _remove(ctx.session, self.id)


def _remove(session: Session, row: VpnGateway) -> None:
    ip = session.get_one(PublicIp, row.public_ip_id)
    session.delete(row)
    vpn_ports.let_go(session, ip)


class ListVpnGateways(OwnedListing, name="listVpnGateways", answer=many("vpngateway", gateway_views), roles=EVERYONE):
    """List VPN gateways."""

    table = VpnGateway
    tags = None

    id: VpnGateway | None = matching(VpnGateway.id)
    fordisplay: bool | None = matching(VpnGateway.display, admin=True)
    vpcid: Vpc | None = matching(VpnGateway.vpc_id)


@vpn_ports.holds_ports
def holds(session: Session, ip: PublicIp) -> bool:
    """Tell whether the address has a VPN gateway."""
    return session.scalar(select(VpnGateway.id).where(VpnGateway.public_ip_id == ip.id)) is not None


@clears_address
def clear_address(session: Session, ip: PublicIp) -> None:
    """Delete the gateway of an address that is given back, and its connections."""
    from controlplane.network.vpn_connections import connections_from

    row = session.scalar(select(VpnGateway).where(VpnGateway.public_ip_id == ip.id))
    if row is not None:
        for connection in connections_from(session, row):
            session.delete(connection)
        session.flush()
        _remove(session, row)
