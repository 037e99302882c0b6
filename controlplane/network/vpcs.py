"""VPCs: private networks of several tiers that one router serves."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ForeignKey, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.db.base import Created, Owned, Removable, Row
from controlplane.offering.vpc_offerings import VpcOffering
from controlplane.reconcile.targets import Target
from controlplane.zone.zones import Zone

TAGGABLE = "Vpc"


class Vpc(Created, Removable, Owned, Row):
    """A VPC (createVPC): its tiers are networks with its number.

    :ivar cidr: what the CIDRs of all tiers lie in.
    :ivar network_domain: the DNS domain of all tiers.
    :ivar dns: the resolvers that its router asks; empty are the zone's.
    :ivar dns6: those that it asks over IPv6, where a tier has it.
    :ivar public_mtu: of the router's public interfaces, in bytes.
    :ivar redundant: it is to have two routers.
    :ivar restart_required: its offering or settings changed in a way that only a restart brings about.
    """

    __tablename__ = "vpcs"

    name: Mapped[str] = mapped_column(String(255), index=True)
    display_text: Mapped[str] = mapped_column(String(255), default="")
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    offering_id: Mapped[int] = mapped_column(ForeignKey("vpc_offerings.id"))
    state: Mapped[str] = mapped_column(String(20), default="Enabled", index=True)
    cidr: Mapped[str] = mapped_column(String(40))
    network_domain: Mapped[str] = mapped_column(String(255), default="")
    dns: Mapped[list[str]] = mapped_column(default=list)
    dns6: Mapped[list[str]] = mapped_column(default=list)
    public_mtu: Mapped[int] = mapped_column(default=1500)
    redundant: Mapped[bool] = mapped_column(default=False)
    display: Mapped[bool] = mapped_column(default=True)
    restart_required: Mapped[bool] = mapped_column(default=False)
    zone: Mapped[Zone] = relationship()
    offering: Mapped[VpcOffering] = relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its routers."""
        from controlplane.network.routers import Router

        return list(session.scalars(select(Target).join(Router).where(Router.vpc_id == self.id)))


dispatch.JOB_TABLES["Vpc"] = Vpc
