"""Public ranges that only one account or domain gets addresses of."""

from __future__ import annotations

from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import optional, required
from controlplane.errors import BadParameter, InUse
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import account_named
from controlplane.network.public_ips import VlanRange
from controlplane.network.vlan_range_changes import used_of
from controlplane.network.vlan_ranges import vlan_range_views


class DedicatePublicIpRange(
    Command,
    name="dedicatePublicIpRange",
    answer=one("vlan", vlan_range_views),
    instance="VlanIpRange",
    event="VLAN.IP.RANGE.DEDICATE",
):
    """Have only one account, or one domain with its tree, get addresses of a public range."""

    unsupported = ("projectid",)

    id: VlanRange = required()
    domainid: Domain = required()
    account: str | None = optional()

    def run(self, ctx: Context) -> VlanRange:
        """Refuse while somebody else uses an address of it."""
        row = self.id
        if row.network_id is not None or row.zone.network_type == "Basic":
            raise BadParameter("Invalid parameter id: only public ranges of Advanced zones can be dedicated.")
        if row.for_system_vms:
            raise BadParameter("Invalid parameter id: the range is for system VMs.")
        if row.account_id is not None or row.domain_id is not None:
            raise BadParameter("Invalid parameter id: the range is dedicated already; release it first.")
        account = account_named(ctx, self.account, self.domainid) if self.account else None
        for ip in used_of(ctx.session, row):
            mine = ip.account_id == account.id if account else ip.domain_id == self.domainid.id
            if not mine:
                raise InUse(f"The range cannot be dedicated: {ip.address} is in use by another account.")
        row.account_id, row.domain_id = account.id if account else None, self.domainid.id
        return row


class ReleasePublicIpRange(
    Command,
    name="releasePublicIpRange",
    answer=success(),
    instance="VlanIpRange",
    event="VLAN.IP.RANGE.RELEASE",
):
    """Give a dedicated range back to everybody; addresses in use stay with whoever has them."""

    id: VlanRange = required()

    def run(self, ctx: Context) -> None:
        """Take the owner away."""
        row, ctx.instance = self.id, self.id
        if row.account_id is None and row.domain_id is None:
            raise BadParameter(f"Invalid parameter id value={row.uuid}: the range is not dedicated.")
        row.account_id = row.domain_id = None
