"""Public addresses: the ranges that the operator has, and who uses which address."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.api.caller import Caller
from controlplane.api.context import owned_by
from controlplane.db.base import Created, Row
from controlplane.network.networks import Network
from controlplane.reconcile.targets import Target
from controlplane.zone.zones import Zone


class VlanRange(Created, Row):
    """A range of addresses on a VLAN (createVlanIpRange).

    :ivar vlan: ``untagged``, or the VLAN's number.
    :ivar account_id: the account it is dedicated to, ``domain_id`` the domain.
    """

    __tablename__ = "vlan_ranges"

    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    physical_network_id: Mapped[int] = mapped_column(ForeignKey("physical_networks.id"))
    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"))
    pod_id: Mapped[int | None] = mapped_column(ForeignKey("pods.id"))
    vlan: Mapped[str] = mapped_column(String(40), default="untagged")
    gateway: Mapped[str] = mapped_column(String(40))
    netmask: Mapped[str] = mapped_column(String(40))
    start_ip: Mapped[str] = mapped_column(String(40))
    end_ip: Mapped[str] = mapped_column(String(40))
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"))
    domain_id: Mapped[int | None] = mapped_column(ForeignKey("domains.id"))
    for_system_vms: Mapped[bool] = mapped_column(default=False)
    zone: Mapped[Zone] = relationship()


class PublicIp(Row):
    """One public address of a range.

    :ivar state: ``Free``, ``Allocated`` or ``Releasing``.
    :ivar account_id: who has it; None while it is free.
    :ivar nic_address: with ``static_nat``: the guest's address that it stands for, on ``nic_id``.
    """

    __tablename__ = "public_ips"
    __table_args__ = (UniqueConstraint("zone_id", "address", "vlan"),)

    range_id: Mapped[int] = mapped_column(ForeignKey("vlan_ranges.id"), index=True)
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    vlan: Mapped[str] = mapped_column(String(40), default="untagged")
    address: Mapped[str] = mapped_column(String(40), index=True)
    number: Mapped[int] = mapped_column(index=True)
    state: Mapped[str] = mapped_column(String(20), default="Free", index=True)
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"), index=True)
    domain_id: Mapped[int | None] = mapped_column(ForeignKey("domains.id"), index=True)
    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"), index=True)
    allocated: Mapped[datetime | None]
    source_nat: Mapped[bool] = mapped_column(default=False)
    static_nat: Mapped[bool] = mapped_column(default=False)
    is_system: Mapped[bool] = mapped_column(default=False)
    display: Mapped[bool] = mapped_column(default=True)
    vm_id: Mapped[int | None] = mapped_column(ForeignKey("virtual_machines.id"), index=True)
    nic_id: Mapped[int | None] = mapped_column(ForeignKey("nics.id"))
    nic_address: Mapped[str | None] = mapped_column(String(40))
    range: Mapped[VlanRange] = relationship()
    network: Mapped[Network | None] = relationship()

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """The addresses of the caller's realm; free ones are the root admin's to see."""
        return owned_by(cls, caller)

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of the network that uses it."""
        return session.get_one(Network, self.network_id).targets(session) if self.network_id else []
