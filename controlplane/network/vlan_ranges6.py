"""The IPv6 side of public ranges: where the routers' own public addresses come from."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.errors import BadParameter, InUse, RuleConflict
from controlplane.network.ipv6 import RouterAddress6
from controlplane.network.ipv6_prefixes import refuse_overlap
from controlplane.network.networks import Network, Whole
from controlplane.network.public_ips import VlanRange
from controlplane.network.vpcs import Vpc
from controlplane.zone.zones import Zone


@dataclass(frozen=True, slots=True)
class Span6:
    """The IPv6 addresses of a range, checked.

    :param first: and ``last`` are inside of ``block``; None is the whole block.
    """

    block: IPv6Network
    gateway: IPv6Address
    first: IPv6Address | None
    last: IPv6Address | None

    @classmethod
    def of(cls, gateway: str | None, cidr: str | None, start: str | None, end: str | None) -> Span6:
        """Check that the four fit together.

        :raises BadParameter: the sentence says what does not.
        """
        if not gateway or not cidr:
            raise BadParameter("Invalid parameter ip6cidr: ip6gateway and ip6cidr go together.")
        block, way = IPv6Network(cidr), IPv6Address(gateway)
        if not 32 <= block.prefixlen <= 126 or block.is_multicast or block.is_link_local:
            raise BadParameter(f"Invalid parameter ip6cidr value={cidr}: it must be a unicast block of /32 to /126.")
        if not way.is_link_local and (way not in block or way == block.network_address):
            raise BadParameter(
                f"Invalid parameter ip6gateway value={gateway}: it must be link-local, or a host's address in {block}."
            )
        if end and not start:
            raise BadParameter(f"Invalid parameter endipv6 value={end}: it needs a startipv6.")
        if not start:
            return cls(block, way, None, None)
        first, last = IPv6Address(start), IPv6Address(end or start)
        if not block.network_address < first <= last <= block.broadcast_address or first <= way <= last:
            raise BadParameter(
                f"Invalid parameter startipv6 value={start}: {first}-{last} must lead forwards inside of {block}, "
                f"without its first address and without the gateway {way}."
            )
        return cls(block, way, first, last)

    def write(self, row: VlanRange) -> None:
        """Put it into the row."""
        row.cidr6, row.gateway6 = str(self.block), str(self.gateway)
        row.start_ip6 = str(self.first) if self.first else None
        row.end_ip6 = str(self.last) if self.last else None

    def refuse_clash(self, session: Session, row: VlanRange) -> None:
        """Refuse a block that another public range or a guest prefix of the zone has part of.

        :raises RuleConflict: names the other.
        """
        others = VlanRange.zone_id == row.zone_id, VlanRange.id != (row.id or 0), VlanRange.cidr6.is_not(None)
        for other in session.scalars(select(VlanRange).where(*others)):
            if self.block.overlaps(IPv6Network(other.cidr6 or "")):
                raise RuleConflict(
                    f"Invalid parameter ip6cidr value={self.block}: it overlaps {other.cidr6} of range {other.uuid}."
                )
        refuse_overlap(session, session.get_one(Zone, row.zone_id), self.block, "ip6cidr")

    def refuse_loss(self, session: Session, row: VlanRange) -> None:
        """Refuse to take away addresses that routers have.

        :raises InUse: names them.
        """
        query = select(RouterAddress6.address).where(RouterAddress6.range_id == row.id)
        first, last = self.first or self.block.network_address, self.last or self.block.broadcast_address
        lost = [one for one in session.scalars(query) if not first <= IPv6Address(one) <= last]
        if lost:
            raise InUse(f"The range must keep the addresses that routers have: {', '.join(lost[:20])}.")


def refuse_used6(session: Session, row: VlanRange) -> None:
    """Refuse to delete a range that routers have addresses of.

    :raises InUse: names the networks.
    """
    names = [whole.name for whole in routed_by(session, row)]
    if names:
        raise InUse(f"The range {row.cidr6} cannot be deleted: routers of {', '.join(names[:5])} have its addresses.")


def routed_by(session: Session, row: VlanRange) -> list[Whole]:
    """Return the networks and VPCs whose routers have an address of the range."""
    networks = select(Network).join(RouterAddress6, RouterAddress6.network_id == Network.id)
    vpcs = select(Vpc).join(RouterAddress6, RouterAddress6.vpc_id == Vpc.id)
    of_range = RouterAddress6.range_id == row.id
    return [*session.scalars(networks.where(of_range)), *session.scalars(vpcs.where(of_range))]
