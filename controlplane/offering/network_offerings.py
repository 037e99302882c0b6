"""Network offerings: which services a network has, and which provider gives each of them."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db.base import Created, Removable, Row


class NetworkOffering(Created, Removable, Row):
    """A network offering (createNetworkOffering).

    :ivar services: service → provider names, as ``{"Dhcp": ["VirtualRouter"], …}``.
    :ivar capabilities: service → capability → value, where the offering chooses one.
    :ivar network_rate: Mbit/s; None is the global default, 0 unlimited.
    :ivar availability: ``Optional``, ``Required`` or ``Unavailable``.
    """

    __tablename__ = "network_offerings"

    name: Mapped[str] = mapped_column(String(255))
    unique_name: Mapped[str] = mapped_column(String(255), unique=True)
    display_text: Mapped[str] = mapped_column(String(255))
    guest_type: Mapped[str] = mapped_column(String(20))
    traffic: Mapped[str] = mapped_column(String(20), default="Guest")
    state: Mapped[str] = mapped_column(String(20), default="Disabled")
    availability: Mapped[str] = mapped_column(String(20), default="Optional")
    services: Mapped[dict[str, list[str]]] = mapped_column(default=dict)
    capabilities: Mapped[dict[str, dict[str, str]]] = mapped_column(default=dict)
    specify_vlan: Mapped[bool] = mapped_column(default=False)
    specify_ip_ranges: Mapped[bool] = mapped_column(default=False)
    conserve_mode: Mapped[bool] = mapped_column(default=True)
    persistent: Mapped[bool] = mapped_column(default=False)
    egress_allow: Mapped[bool] = mapped_column(default=False)
    for_vpc: Mapped[bool] = mapped_column(default=False)
    network_rate: Mapped[int | None]
    max_connections: Mapped[int | None]
    keep_alive: Mapped[bool] = mapped_column(default=False)
    default: Mapped[bool] = mapped_column(default=False)
    tags: Mapped[list[str]] = mapped_column(default=list)
    domain_uuids: Mapped[list[str]] = mapped_column(default=list)
    zone_uuids: Mapped[list[str]] = mapped_column(default=list)
    details: Mapped[dict[str, str]] = mapped_column(default=dict)
    service_offering_id: Mapped[int | None] = mapped_column(ForeignKey("service_offerings.id"))
    sort_key: Mapped[int] = mapped_column(default=0)


class VpcOffering(Created, Removable, Row):
    """A VPC offering (createVPCOffering)."""

    __tablename__ = "vpc_offerings"

    name: Mapped[str] = mapped_column(String(255))
    unique_name: Mapped[str] = mapped_column(String(255), unique=True)
    display_text: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(20), default="Enabled")
    default: Mapped[bool] = mapped_column(default=False)
    services: Mapped[dict[str, list[str]]] = mapped_column(default=dict)
    redundant: Mapped[bool] = mapped_column(default=False)
    domain_uuids: Mapped[list[str]] = mapped_column(default=list)
    zone_uuids: Mapped[list[str]] = mapped_column(default=list)
    sort_key: Mapped[int] = mapped_column(default=0)
