"""Network offerings: which services a network has, and which provider gives each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, ForeignKey, String, and_, select, true
from sqlalchemy.orm import Mapped, mapped_column, relationship

from controlplane.api.caller import Caller
from controlplane.api.context import Context
from controlplane.api.responses import Response
from controlplane.db.base import Created, Removable, Row
from controlplane.offering.routing_modes import ROUTED
from controlplane.offering.scope import scope_fields, usable_by
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.offering.services import ServiceResponse, chosen_is, service_responses


class NetworkOffering(Created, Removable, Row):
    """A network offering (createNetworkOffering).

    :ivar services: service → provider names, as ``{"Dhcp": ["VirtualRouter"], …}``.
    :ivar capabilities: service → capability → value, where the offering chooses one.
    :ivar network_rate: Mbit/s; None is the global default, 0 unlimited.
    :ivar internet_protocol: ``IPv4``, ``DualStack``, or ``IPv6`` alone.
    :ivar network_mode: ``NATTED``, or ``ROUTED``: guests are reached by their own IPv4 addresses, as ``routing_mode``
        (``Static`` or ``Dynamic``) says; None is NATTED's.
    :ivar specify_as_number: whoever makes a network names its AS number.
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
    internet_protocol: Mapped[str] = mapped_column(String(20), default="IPv4")
    network_mode: Mapped[str] = mapped_column(String(20), default="NATTED")
    routing_mode: Mapped[str | None] = mapped_column(String(20))
    specify_as_number: Mapped[bool] = mapped_column(default=False)
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
    service_offering: Mapped[ServiceOffering | None] = relationship()

    @property
    def routed(self) -> bool:
        """Whether its networks' guests are reached by their own IPv4 addresses."""
        return self.network_mode == ROUTED

    @property
    def redundant_router(self) -> bool:
        """Whether its networks have two routers that stand in for each other."""
        return self.capabilities.get("SourceNat", {}).get("RedundantRouter", "").lower() == "true"

    @property
    def elastic_ip(self) -> bool:
        """Whether guests of its networks have public addresses of their own."""
        return self.guest_type == "Shared" and chosen_is(self.capabilities, "ElasticIp")

    @property
    def elastic_lb(self) -> bool:
        """Whether a load balancer rule of its networks brings an appliance and an address along."""
        return self.guest_type == "Shared" and chosen_is(self.capabilities, "ElasticLb")

    @property
    def associates(self) -> bool:
        """Whether each guest of its networks gets a public address when it starts."""
        return self.elastic_ip and chosen_is(self.capabilities, "AssociatePublicIP", otherwise=True)

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """Tenants see enabled offerings for everybody or for a domain on their path."""
        return and_(usable_by(cls, caller), true() if caller.is_admin else cls.state == "Enabled")


def has_ipv4(offering: NetworkOffering) -> bool:
    """Tell whether networks of the offering have IPv4."""
    return offering.internet_protocol != "IPv6"


def has_ipv6(offering: NetworkOffering) -> bool:
    """Tell whether networks of the offering have IPv6."""
    return offering.internet_protocol != "IPv4"


@dataclass(kw_only=True)
class NetworkOfferingResponse(Response):
    """A network offering."""

    id: str
    name: str
    displaytext: str
    guestiptype: str
    traffictype: str
    state: str
    availability: str
    isdefault: bool
    specifyvlan: bool
    specifyipranges: bool
    conservemode: bool
    ispersistent: bool
    egressdefaultpolicy: bool
    forvpc: bool
    internetprotocol: str
    networkmode: str
    routingmode: str | None = None
    specifyasnumber: bool
    networkrate: int | None = None
    maxconnections: int | None = None
    serviceofferingid: str | None = None
    tags: str | None = None
    details: dict[str, str] | None = None
    domain: str | None = None
    domainid: str | None = None
    zone: str | None = None
    zoneid: str | None = None
    service: list[ServiceResponse]
    created: datetime


def network_offering_views(ctx: Context, rows: Sequence[NetworkOffering]) -> list[NetworkOfferingResponse]:
    """Return the responses of these network offerings; tags and details are root admins' business."""
    scopes = scope_fields(ctx, rows)
    system = ServiceOffering.system_vm_type == "domainrouter", ServiceOffering.removed.is_(None)
    # one that names none is served by the standard routers; clients such as Libcloud rely on being told which
    standard = ctx.session.scalar(select(ServiceOffering.uuid).where(*system).order_by(ServiceOffering.id).limit(1))
    return [
        NetworkOfferingResponse(
            id=row.uuid,
            name=row.name,
            displaytext=row.display_text,
            guestiptype=row.guest_type,
            traffictype=row.traffic,
            state=row.state,
            availability=row.availability,
            isdefault=row.default,
            specifyvlan=row.specify_vlan,
            specifyipranges=row.specify_ip_ranges,
            conservemode=row.conserve_mode,
            ispersistent=row.persistent,
            egressdefaultpolicy=row.egress_allow,
            forvpc=row.for_vpc,
            internetprotocol=row.internet_protocol,
            networkmode=row.network_mode,
            routingmode=row.routing_mode,
            specifyasnumber=row.specify_as_number,
            networkrate=row.network_rate,
            maxconnections=row.max_connections,
            serviceofferingid=row.service_offering.uuid if row.service_offering else standard,
            tags=",".join(row.tags) or None,
            details=row.details or None,
            service=service_responses(row.services, row.capabilities),
            created=row.created,
            **scopes[row.id],
        )
        for row in rows
    ]
