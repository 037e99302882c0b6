"""Network ACLs: numbered rules that say who may talk to a tier of a VPC, and whom it may talk to.

A list belongs to a VPC; those without one (default_allow, default_deny) are everybody's and never change. The lowest
number that matches a new connection decides; its answers need no rule.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import cast

from sqlalchemy import ColumnElement, ForeignKey, String, Table, UniqueConstraint, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import Caller
from controlplane.api.context import owned_by
from controlplane.db.base import Created, Row
from controlplane.network.vpcs import Vpc
from controlplane.reconcile.targets import Target
from drivers.vpc import AclItem as AclFact

INGRESS, EGRESS = "Ingress", "Egress"
DEFAULT_ALLOW, DEFAULT_DENY = "default_allow", "default_deny"


class AclList(Created, Row):
    """A network ACL list (createNetworkACLList).

    :ivar vpc_id: whose tiers it is for; None is every VPC's.
    :ivar account_id: the VPC's owner.
    """

    __tablename__ = "acl_lists"

    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str] = mapped_column(String(255), default="")
    vpc_id: Mapped[int | None] = mapped_column(ForeignKey("vpcs.id"), index=True)
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"), index=True)
    domain_id: Mapped[int | None] = mapped_column(ForeignKey("domains.id"), index=True)
    display: Mapped[bool] = mapped_column(default=True)
    vpc: Mapped[Vpc | None] = relationship()

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """The lists of the caller's realm, and those that are everybody's."""
        return or_(owned_by(cls, caller), cls.vpc_id.is_(None))

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of the routers that enforce it."""
        from controlplane.network.networks import Network
        from controlplane.network.private_gateways import PrivateGateway
        from controlplane.network.routers import Router

        tiers = select(Network.vpc_id).where(Network.acl_id == self.id, Network.removed.is_(None))
        gateways = select(PrivateGateway.vpc_id).where(PrivateGateway.acl_id == self.id)
        there = Router.vpc_id.in_(tiers) | Router.vpc_id.in_(gateways)
        return list(session.scalars(select(Target).join(Router).where(there)))


class AclItem(Created, Row):
    """One rule of a network ACL list (createNetworkACL).

    :ivar number: its place; unique in its list.
    :ivar traffic: ``Ingress`` (to the tier) or ``Egress`` (from it).
    :ivar protocol: ``tcp``, ``udp``, ``icmp``, ``all``, or a protocol's number.
    :ivar start: first port or the ICMP type, ``end`` last port or the ICMP code; -1 is any.
    :ivar cidrs: the other end: sources of ingress, destinations of egress.
    """

    __tablename__ = "acl_items"
    __table_args__ = (UniqueConstraint("list_id", "number"),)

    list_id: Mapped[int] = mapped_column(ForeignKey("acl_lists.id", ondelete="CASCADE"), index=True)
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"), index=True)
    domain_id: Mapped[int | None] = mapped_column(ForeignKey("domains.id"), index=True)
    number: Mapped[int]
    traffic: Mapped[str] = mapped_column(String(10), default=INGRESS)
    allow: Mapped[bool] = mapped_column(default=True)
    protocol: Mapped[str] = mapped_column(String(10))
    start: Mapped[int] = mapped_column(default=-1)
    end: Mapped[int] = mapped_column(default=-1)
    cidrs: Mapped[list[str]] = mapped_column(default=list)
    reason: Mapped[str] = mapped_column(String(2500), default="")
    display: Mapped[bool] = mapped_column(default=True)
    state: Mapped[str] = mapped_column(String(20), default="Active")
    acl: Mapped[AclList] = relationship()

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """Whoever sees the list sees its rules."""
        return cls.list_id.in_(select(AclList.id).where(AclList.visible_to(caller)))

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of its list."""
        return session.get_one(AclList, self.list_id).targets(session)


dispatch.JOB_TABLES["NetworkAcl"] = AclList
dispatch.JOB_TABLES["NetworkAclItem"] = AclItem


def default_list(session: Session, name: str) -> AclList:
    """Return one of the lists that are everybody's: ``default_allow`` or ``default_deny``."""
    return session.scalars(select(AclList).where(AclList.vpc_id.is_(None), AclList.name == name)).one()


def acl_facts(session: Session, numbers: Collection[int]) -> dict[int | None, tuple[AclFact, ...]]:
    """Return the rules of lists by the list's number, in one query."""
    from controlplane.network.rule_facts import Lists, stored

    item = cast("Table", AclItem.__table__).c
    columns = item.list_id, item.uuid, item.number, item.allow, item.traffic, item.protocol, item.start, item.end
    query = select(*columns, stored(item.cidrs)).where(item.list_id.in_(numbers)).order_by(item.list_id, item.number)
    found: dict[int | None, list[AclFact]] = {number: [] for number in numbers}
    known = Lists()
    for number, uuid, place, allow, traffic, protocol, start, end, cidrs in session.execute(query):
        fact = AclFact(uuid, place, allow, traffic == INGRESS, protocol, start, end, known[cidrs])
        found[number].append(fact)
    return {number: tuple(items) for number, items in found.items()}
