"""Giving the region ranges of portable addresses, and taking them away."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.api import dispatch
from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import optional, required
from controlplane.errors import InUse
from controlplane.network.portable_ips import forget_free
from controlplane.network.portable_ranges import PortableRange, portable_range_views
from controlplane.network.public_ips import FREE, PublicIp
from controlplane.network.vlan_ranges import UNTAGGED, Span, refuse_clash, refuse_guest_vlan, vlan_of
from controlplane.zone import syntax
from controlplane.zone.physical_networks import PhysicalNetwork, TrafficType
from controlplane.zone.regions import region_of

dispatch.JOB_TABLES["PortableIpRange"] = PortableRange


class CreatePortableIpRange(Command, name="createPortableIpRange", answer=one("portableiprange", portable_range_views),
                            job=True, creates=True, instance="PortableIpRange",
                            event="PORTABLE.IP.RANGE.CREATE"):  # fmt: skip
    """Give the region a range of portable addresses, whose VLAN every zone's public network carries."""

    regionid: int = required()
    startip: str = required(check=syntax.ipv4)
    endip: str = required(check=syntax.ipv4)
    gateway: str = required(check=syntax.ipv4)
    netmask: str = required(check=syntax.netmask)
    vlan: str | None = optional(description="untagged, unless given")

    def run(self, ctx: Context) -> PortableRange:
        """Check it against all other public ranges, and write it."""
        region = region_of(ctx.session, self.regionid)
        ctx.session.refresh(region, with_for_update=True)  # two overlapping ones at once wait for each other
        span = Span.of(self.gateway, self.netmask, self.startip, self.endip)
        row = PortableRange(region_id=region.id, vlan=vlan_of(self.vlan or UNTAGGED))
        span.write(row)
        refuse_clash(ctx.session, row, span)
        for physical in _public_networks(ctx.session):
            refuse_guest_vlan(physical, row.vlan)
        ctx.session.add(row)
        ctx.session.flush()
        return row


def _public_networks(session: Session) -> list[PhysicalNetwork]:
    query = select(PhysicalNetwork).join(TrafficType).where(TrafficType.traffic == "Public")
    return list(session.scalars(query.where(PhysicalNetwork.removed.is_(None))).unique())


class DeletePortableIpRange(Command, name="deletePortableIpRange", answer=success(), job=True,
                            envelope="deleteportablepublicipresponse", instance="PortableIpRange",
                            event="PORTABLE.IP.RANGE.DELETE"):  # fmt: skip
    """Delete a portable range that nobody has an address of."""

    id: PortableRange = required()

    def run(self, ctx: Context) -> None:
        """Refuse while an address is in use; the free ones go with the range."""
        row, ctx.instance = self.id, self.id
        ctx.session.refresh(row, with_for_update=True)
        mine = PublicIp.portable_range_id == row.id
        used = ctx.session.scalars(select(PublicIp.address).where(mine, PublicIp.state != FREE).limit(20)).all()
        if used:
            raise InUse(
                f"The portable range {row.start_ip}-{row.end_ip} cannot be deleted: accounts have "
                f"{', '.join(used)} of it."
            )
        forget_free(ctx.session, mine)
        ctx.session.delete(row)
