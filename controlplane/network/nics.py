"""NICs: the interfaces of guests and routers, with their addresses and MACs."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from controlplane.db.base import Base, Created, Row
from controlplane.network.networks import Network


class NetworkAddress(Base):
    """An IPv4 address of a guest network that is taken: the primary key is why it is never given twice."""

    __tablename__ = "network_addresses"

    network_id: Mapped[int] = mapped_column(ForeignKey("networks.id", ondelete="CASCADE"), primary_key=True)
    address: Mapped[str] = mapped_column(String(40), primary_key=True)
    nic_id: Mapped[int | None] = mapped_column(ForeignKey("nics.id", ondelete="CASCADE"), index=True)


class Nic(Created, Row):
    """An interface of a virtual machine or of a router.

    A guest's NIC has a network; a router's public NIC has a public range instead.

    :ivar device: position: 0 is the first.
    :ivar rate: Mbit/s, 0 unlimited.
    """

    __tablename__ = "nics"

    vm_id: Mapped[int | None] = mapped_column(ForeignKey("virtual_machines.id", ondelete="CASCADE"), index=True)
    router_id: Mapped[int | None] = mapped_column(ForeignKey("routers.id", ondelete="CASCADE"), index=True)
    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"), index=True)
    range_id: Mapped[int | None] = mapped_column(ForeignKey("vlan_ranges.id"), index=True)
    traffic: Mapped[str] = mapped_column(String(20), default="Guest")
    mac: Mapped[str] = mapped_column(String(17), unique=True)
    address: Mapped[str] = mapped_column(String(40), default="")
    device: Mapped[int] = mapped_column(default=0)
    default: Mapped[bool] = mapped_column(default=False)
    rate: Mapped[int] = mapped_column(default=0)
    network: Mapped[Network | None] = relationship()
    secondary: Mapped[list[SecondaryAddress]] = relationship(cascade="all, delete-orphan")


class SecondaryAddress(Created, Row):
    """A further address on a guest's NIC (addIpToNic)."""

    __tablename__ = "nic_secondary_addresses"
    __table_args__ = (UniqueConstraint("network_id", "address"),)

    nic_id: Mapped[int] = mapped_column(ForeignKey("nics.id", ondelete="CASCADE"), index=True)
    network_id: Mapped[int] = mapped_column(ForeignKey("networks.id"))
    address: Mapped[str] = mapped_column(String(40))
