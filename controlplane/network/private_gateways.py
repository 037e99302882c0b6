"""Private gateways and static routes: the ways from a VPC into the operator's other networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from sqlalchemy import ForeignKey, String, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.db.base import Created, Owned, Row
from controlplane.network.acls import AclList, acl_facts
from controlplane.network.vpcs import Vpc
from controlplane.network.ways import Way, leads
from controlplane.reconcile.targets import Target
from controlplane.zone.physical_networks import PhysicalNetwork
from drivers import vpc as facts

if TYPE_CHECKING:
    from controlplane.network.networks import Whole
    from controlplane.network.nics import Nic


class PrivateGateway(Created, Owned, Row):
    """A VPC's interface on a VLAN or VNI of the operator's (createPrivateGateway).

    :ivar address: the VPC router's own there; ``gateway`` is who leads on.
    :ivar source_nat: what leaves through it has its address.
    """

    __tablename__ = "private_gateways"
    __table_args__ = (UniqueConstraint("physical_network_id", "vlan", "address"),)

    vpc_id: Mapped[int] = mapped_column(ForeignKey("vpcs.id"), index=True)
    physical_network_id: Mapped[int] = mapped_column(ForeignKey("physical_networks.id"), index=True)
    vlan: Mapped[int]
    address: Mapped[str] = mapped_column(String(40))
    gateway: Mapped[str] = mapped_column(String(40))
    netmask: Mapped[str] = mapped_column(String(40))
    source_nat: Mapped[bool] = mapped_column(default=False)
    acl_id: Mapped[int] = mapped_column(ForeignKey("acl_lists.id"), index=True)
    state: Mapped[str] = mapped_column(String(20), default="Ready")
    vpc: Mapped[Vpc] = relationship()
    acl: Mapped[AclList] = relationship()
    physical_network: Mapped[PhysicalNetwork] = relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its VPC's routers."""
        return session.get_one(Vpc, self.vpc_id).targets(session)


class StaticRoute(Created, Owned, Row):
    """A route of a VPC to a CIDR outside of it (createStaticRoute).

    :ivar gateway_id: the private gateway that it leads through; None where ``next_hop`` was given.
    """

    __tablename__ = "static_routes"
    __table_args__ = (UniqueConstraint("vpc_id", "cidr"),)

    vpc_id: Mapped[int] = mapped_column(ForeignKey("vpcs.id"), index=True)
    gateway_id: Mapped[int | None] = mapped_column(ForeignKey("private_gateways.id"), index=True)
    cidr: Mapped[str] = mapped_column(String(40))
    next_hop: Mapped[str] = mapped_column(String(40))
    state: Mapped[str] = mapped_column(String(20), default="Active")

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its VPC's routers."""
        return session.get_one(Vpc, self.vpc_id).targets(session)


dispatch.JOB_TABLES["PrivateGateway"] = PrivateGateway
dispatch.JOB_TABLES["StaticRoute"] = StaticRoute


@leads
def ways(session: Session, whole: Whole) -> Iterable[Way]:
    """Return the networks of a VPC's private gateways, and where its static routes lead."""
    if not isinstance(whole, Vpc):
        return
    for row in gateways_of(session, whole):
        block = IPv4Network(f"{row.gateway}/{row.netmask}", strict=False)
        yield Way(f"the network of private gateway {row.uuid}", block, row.uuid, connected=True)
    routes = select(StaticRoute.uuid, StaticRoute.cidr).where(StaticRoute.vpc_id == whole.id)
    for uuid, cidr in session.execute(routes):
        yield Way(f"where static route {uuid} leads", IPv4Network(cidr), uuid)


def gateways_of(session: Session, vpc: Vpc) -> Sequence[PrivateGateway]:
    """Return the VPC's private gateways, the oldest first."""
    query = select(PrivateGateway).where(PrivateGateway.vpc_id == vpc.id)
    return session.scalars(query.order_by(PrivateGateway.id)).all()


def gateway_facts(session: Session, nics: Sequence[Nic]) -> tuple[facts.PrivateGateway, ...]:
    """Return the private gateways that a router has interfaces of."""
    rows = [(nic.mac, nic.private_gateway) for nic in nics if nic.private_gateway is not None]
    acls = acl_facts(session, {row.acl_id for _, row in rows})
    return tuple(
        facts.PrivateGateway(row.uuid, mac, row.address, row.source_nat, acls[row.acl_id]) for mac, row in rows
    )


def route_facts(session: Session, vpc: Vpc) -> tuple[facts.StaticRoute, ...]:
    """Return the VPC's static routes."""
    query = select(StaticRoute.uuid, StaticRoute.cidr, StaticRoute.next_hop).where(StaticRoute.vpc_id == vpc.id)
    return tuple(facts.StaticRoute(*row) for row in session.execute(query.order_by(StaticRoute.id)))
