"""Commands about the parts of a zone's IPv4 subnets that routed networks have."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

from sqlalchemy import Select, select

from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, optional, required
from controlplane.errors import BadParameter, InUse, NoAddress
from controlplane.network.ipv4_subnets import FREE, GuestSubnet, ZoneSubnet, first_gap, parts_of, refuse_overlap
from controlplane.network.networks import Network
from controlplane.network.vpcs import Vpc
from controlplane.network.zone_subnets import INSTANCE_OF_PART, guest_subnet_views, subnet_of
from controlplane.zone.zones import Zone


class CreateIpv4SubnetForGuestNetwork(Command, name="createIpv4SubnetForGuestNetwork", job=True,
                                      instance=INSTANCE_OF_PART,
                                      answer=one("ipv4subnetsforguestnetwork", guest_subnet_views),
                                      event="IP4.GUEST.SUBNET.CREATE"):  # fmt: skip
    """Set a part of a zone's subnet aside: a certain one, or the lowest free one of a size."""

    parentid: ZoneSubnet = required()
    subnet: str | None = optional(check=subnet_of)
    cidrsize: int | None = optional(description="prefix length, where no subnet is named")

    def run(self, ctx: Context) -> GuestSubnet:
        """Refuse what overlaps or lies outside, and write the row."""
        parent = self.parentid
        ctx.session.refresh(parent, with_for_update=True)
        if (self.subnet is None) == (self.cidrsize is None):
            raise BadParameter("Invalid parameter subnet: give either a subnet or a cidrsize.")
        row = GuestSubnet(parent=parent, subnet=str(self._block(ctx, parent)), state=FREE)
        ctx.session.add(row)
        ctx.session.flush()
        return row

    def _block(self, ctx: Context, parent: ZoneSubnet) -> IPv4Network:
        whole, parts = IPv4Network(parent.subnet), parts_of(ctx.session, parent)
        if self.subnet is not None:
            block = IPv4Network(self.subnet)
            if not block.subnet_of(whole):
                raise BadParameter(f"Invalid parameter subnet value={block}: it must lie in {whole}.")
            for part in parts:
                refuse_overlap(block, part, "subnet")
            return block
        size = self.cidrsize or 0
        if not whole.prefixlen <= size <= 29:
            raise BadParameter(
                f"Invalid parameter cidrsize value={size}: a part of {whole} is /{whole.prefixlen} to /29 large."
            )
        found = first_gap(whole, [IPv4Network(part.subnet) for part in parts], size)
        if found is None:
            raise NoAddress(f"The subnet {whole} has no /{size} left.")
        return found


class DeleteIpv4SubnetForGuestNetwork(Command, name="deleteIpv4SubnetForGuestNetwork", answer=success(), job=True,
                                      instance=INSTANCE_OF_PART, event="IP4.GUEST.SUBNET.DELETE"):  # fmt: skip
    """Delete a part that no network has."""

    id: GuestSubnet = required()

    def run(self, ctx: Context) -> None:
        """Refuse while it is in use; its network is named."""
        row, ctx.instance = self.id, self.id
        ctx.session.refresh(row, with_for_update=True)
        owner = row.network or row.vpc
        if owner is not None:
            raise InUse(f"The subnet {row.subnet} cannot be deleted: {owner.name} has it.")
        ctx.session.delete(row)


class ListIpv4SubnetsForGuestNetwork(ListCommand, name="listIpv4SubnetsForGuestNetwork",
                                     answer=many("ipv4subnetsforguestnetwork", guest_subnet_views)):  # fmt: skip
    """List the parts of zones' subnets."""

    table = GuestSubnet
    keywords = (GuestSubnet.subnet,)

    id: GuestSubnet | None = matching(GuestSubnet.id)
    parentid: ZoneSubnet | None = matching(GuestSubnet.parent_id)
    networkid: Network | None = matching(GuestSubnet.network_id)
    vpcid: Vpc | None = matching(GuestSubnet.vpc_id)
    subnet: str | None = matching(GuestSubnet.subnet)
    zoneid: Zone | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep those of the zone."""
        del ctx
        if self.zoneid is None:
            return query
        parents = select(ZoneSubnet.id).where(ZoneSubnet.zone_id == self.zoneid.id)
        return query.where(GuestSubnet.parent_id.in_(parents))
