"""The commands that make, change and end VPN connections."""

from __future__ import annotations

from sqlalchemy import select

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import optional, required
from controlplane.db.configuration import define
from controlplane.errors import BadParameter, LimitReached
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import account_named
from controlplane.network.rules import set_custom_id
from controlplane.network.vpn_connections import VpnConnection, connection_views, connections_from, must_fit
from controlplane.network.vpn_customers import VpnCustomerGateway
from controlplane.network.vpn_gateways import VpnGateway

LIMIT = define(
    "site2site.vpn.vpngateway.connection.limit", 4, "How many VPN connections a VPN gateway may have", within=(1, 1000)
)


class CreateVpnConnection(Command, name="createVpnConnection", answer=one("vpnconnection", connection_views), job=True,
                          creates=True, instance="Site2SiteVpnConnection", roles=EVERYONE,
                          event="VPN.S2S.CONNECTION.CREATE"):  # fmt: skip
    """Join a VPC with the networks behind a customer gateway."""

    s2scustomergatewayid: VpnCustomerGateway = required()
    s2svpngatewayid: VpnGateway = required()
    fordisplay: bool | None = optional(True, admin=True)
    passive: bool | None = optional(False, description="the peer begins")

    def run(self, ctx: Context) -> VpnConnection:
        """Check, and make it."""
        session, customer, gateway = ctx.session, self.s2scustomergatewayid, self.s2svpngatewayid
        if customer.account_id != gateway.account_id:
            raise BadParameter(
                f"Invalid parameter s2scustomergatewayid value={customer.uuid}: customer gateway {customer.name} and "
                f"VPN gateway {gateway.uuid} belong to different accounts."
            )
        same = VpnConnection.gateway_id == gateway.id, VpnConnection.customer_id == customer.id
        there = session.scalar(select(VpnConnection.uuid).where(*same))
        if there is not None:
            raise BadParameter(
                f"Invalid parameter s2scustomergatewayid value={customer.uuid}: VPN connection {there} joins it with "
                f"VPN gateway {gateway.uuid} already."
            )
        most = LIMIT.number(session)
        if len(connections_from(session, gateway)) >= most:
            raise LimitReached(
                f"VPN gateway {gateway.uuid} has {most} VPN connections, the most that {LIMIT.name} allows."
            )
        must_fit(session, gateway, customer)
        row = VpnConnection(
            gateway_id=gateway.id, customer_id=customer.id, passive=bool(self.passive),
            display=self.fordisplay is not False, account_id=gateway.account_id, domain_id=gateway.domain_id,
        )  # fmt: skip
        session.add(row)
        ctx.touch(gateway)
        return row


class UpdateVpnConnection(Command, name="updateVpnConnection", answer=one("vpnconnection", connection_views), job=True,
                          instance="Site2SiteVpnConnection", roles=EVERYONE,
                          event="VPN.S2S.CONNECTION.UPDATE"):  # fmt: skip
    """Change how a VPN connection is shown."""

    id: VpnConnection = required()
    customid: str | None = optional(admin=True)
    fordisplay: bool | None = optional(admin=True)

    def run(self, ctx: Context) -> VpnConnection:
        """Change it."""
        if self.fordisplay is not None:
            self.id.display = self.fordisplay
        if self.customid is not None:
            set_custom_id(ctx, self.id, "VpnConnection", self.customid)
            ctx.touch(self.id)  # the daemon knows the connection by its id
        return self.id


class ResetVpnConnection(Command, name="resetVpnConnection", answer=one("vpnconnection", connection_views), job=True,
                         instance="Site2SiteVpnConnection", roles=EVERYONE,
                         event="VPN.S2S.CONNECTION.RESET"):  # fmt: skip
    """Have a VPN connection begin anew, with fresh keys."""

    id: VpnConnection = required()
    account: str | None = optional()
    domainid: Domain | None = optional()

    def run(self, ctx: Context) -> VpnConnection:
        """Check whose it is, and reset it."""
        if self.account is not None and account_named(ctx, self.account, self.domainid).id != self.id.account_id:
            raise BadParameter(
                f"Invalid parameter account value={self.account}: VPN connection {self.id.uuid} is another account's."
            )
        self.id.resets += 1
        ctx.touch(self.id)
        return self.id


class DeleteVpnConnection(Command, name="deleteVpnConnection", answer=success(), job=True, roles=EVERYONE,
                          instance="Site2SiteVpnConnection", event="VPN.S2S.CONNECTION.DELETE"):  # fmt: skip
    """Delete a VPN connection; it is closed at both ends."""

    id: VpnConnection = required()

    def run(self, ctx: Context) -> None:
        """Delete it."""
        ctx.instance = self.id
        ctx.touch(self.id)
        ctx.session.delete(self.id)
