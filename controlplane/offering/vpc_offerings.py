"""VPC offerings: which services the tiers of a VPC may have, and which providers may give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, ForeignKey, Select, String, and_, select, true
from sqlalchemy.orm import Mapped, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE, Caller
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import Records, matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Created, Removable, Row, new_uuid
from controlplane.errors import BadParameter
from controlplane.identity.domains import Domain
from controlplane.offering import scope
from controlplane.offering.routing_modes import MODES, NATTED, ROUTED, ROUTINGS, TRANSLATING, routing_of
from controlplane.offering.scope import for_domain, has, in_zone, scope_fields, usable_by
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.offering.services import (
    Matrix,
    ServiceResponse,
    capabilities_chosen,
    providers_named,
    service_name,
    service_responses,
)
from controlplane.zone import syntax
from controlplane.zone.zones import Zone
from drivers import registry

DEFAULT_PROVIDER = "VpcVirtualRouter"
ALWAYS = ("SourceNat", "NetworkACL")
"""Services that every VPC has, asked for or not."""


class VpcOffering(Created, Removable, Row):
    """A VPC offering (createVPCOffering).

    :ivar services: service → the providers that tiers may have it of, as ``{"Lb": ["VpcVirtualRouter"], …}``.
    :ivar capabilities: service → capability → value, where the offering chooses one.
    :ivar internet_protocol: ``IPv4``, or ``DualStack``: tiers may have IPv6, too.
    :ivar network_mode: of all its tiers: ``NATTED`` or ``ROUTED``; see NetworkOffering.
    :ivar redundant: its VPCs have two routers.
    """

    __tablename__ = "vpc_offerings"

    name: Mapped[str] = mapped_column(String(255))
    unique_name: Mapped[str] = mapped_column(String(255), unique=True)
    display_text: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(20), default="Enabled")
    default: Mapped[bool] = mapped_column(default=False)
    services: Mapped[dict[str, list[str]]] = mapped_column(default=dict)
    capabilities: Mapped[dict[str, dict[str, str]]] = mapped_column(default=dict)
    redundant: Mapped[bool] = mapped_column(default=False)
    internet_protocol: Mapped[str] = mapped_column(String(20), default="IPv4")
    network_mode: Mapped[str] = mapped_column(String(20), default="NATTED")
    routing_mode: Mapped[str | None] = mapped_column(String(20))
    specify_as_number: Mapped[bool] = mapped_column(default=False)
    domain_uuids: Mapped[list[str]] = mapped_column(default=list)
    zone_uuids: Mapped[list[str]] = mapped_column(default=list)
    service_offering_id: Mapped[int | None] = mapped_column(ForeignKey("service_offerings.id"))
    sort_key: Mapped[int] = mapped_column(default=0)
    service_offering: Mapped[ServiceOffering | None] = relationship()

    @property
    def routed(self) -> bool:
        """Whether its tiers' guests are reached by their own IPv4 addresses."""
        return self.network_mode == ROUTED

    @classmethod
    def visible_to(cls, caller: Caller) -> ColumnElement[bool]:
        """Tenants see enabled offerings for everybody or for a domain on their path."""
        return and_(usable_by(cls, caller), true() if caller.is_admin else cls.state == "Enabled")


dispatch.JOB_TABLES["VpcOffering"] = VpcOffering


@dataclass(kw_only=True)
class VpcOfferingResponse(Response):
    """A VPC offering."""

    id: str
    name: str
    displaytext: str
    state: str
    isdefault: bool
    internetprotocol: str
    networkmode: str
    routingmode: str | None = None
    specifyasnumber: bool
    distributedvpcrouter: bool = False
    supportsregionLevelvpc: bool = False  # noqa: N815 - the wire's own spelling
    service: list[ServiceResponse]
    domain: str | None = None
    domainid: str | None = None
    zone: str | None = None
    zoneid: str | None = None
    created: datetime


def vpc_offering_views(ctx: Context, rows: Sequence[VpcOffering]) -> list[VpcOfferingResponse]:
    """Return the responses of these VPC offerings."""
    scopes = scope_fields(ctx, rows)
    return [
        VpcOfferingResponse(
            id=row.uuid,
            name=row.name,
            displaytext=row.display_text,
            state=row.state,
            isdefault=row.default,
            internetprotocol=row.internet_protocol,
            networkmode=row.network_mode,
            routingmode=row.routing_mode,
            specifyasnumber=row.specify_as_number,
            service=service_responses(row.services, row.capabilities),
            created=row.created,
            **cast("dict[str, Any]", scopes[row.id]),
        )
        for row in rows
    ]


class ListVpcOfferings(
    ListCommand, name="listVPCOfferings", answer=many("vpcoffering", vpc_offering_views), roles=EVERYONE
):
    """List VPC offerings."""

    table = VpcOffering
    keywords = (VpcOffering.name, VpcOffering.display_text)
    order = (VpcOffering.sort_key, VpcOffering.id)

    id: VpcOffering | None = matching(VpcOffering.id)
    name: str | None = matching(VpcOffering.name)
    displaytext: str | None = matching(VpcOffering.display_text)
    isdefault: bool | None = matching(VpcOffering.default)
    state: str | None = matching(VpcOffering.state)
    supportedservices: list[str] | None = optional()
    domainid: Domain | None = optional()
    zoneid: Zone | None = optional()

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Look into services and scopes."""
        del ctx
        for service in self.supportedservices or ():
            query = query.where(has(VpcOffering.services, service_name(service)))
        if self.domainid is not None:
            query = query.where(for_domain(VpcOffering, self.domainid))
        if self.zoneid is not None:
            query = query.where(in_zone(VpcOffering, self.zoneid))
        return query


class CreateVpcOffering(Command, name="createVPCOffering", answer=one("vpcoffering", vpc_offering_views), job=True,
                        creates=True, instance="VpcOffering", event="VPC.OFFERING.CREATE"):  # fmt: skip
    """Create a VPC offering; it is disabled until it is enabled.

    A service without a provider in serviceproviderlist is given by the VPC's router.
    """

    unsupported = ("fornsx", "nsxsupportlb", "provider")

    name: str = required(check=syntax.name)
    displaytext: str | None = optional(check=syntax.name)
    supportedservices: list[str] | None = optional(description="all that the VPC's router can, unless given")
    serviceproviderlist: Records | None = optional()
    servicecapabilitylist: Records | None = optional()
    serviceofferingid: ServiceOffering | None = optional(description="of the routers; one for domainrouter")
    domainid: list[Domain] | None = optional()
    zoneid: list[Zone] | None = optional()
    internetprotocol: str | None = optional("IPv4", choices=("IPv4", "DualStack"))
    networkmode: str | None = optional(NATTED, choices=MODES, description="ROUTED: guests keep their own addresses")
    routingmode: str | None = optional(choices=ROUTINGS, description="of ROUTED VPCs: Static unless given")
    specifyasnumber: bool | None = optional(False, description="whoever makes a VPC names its AS number")
    enable: bool | None = optional(False)

    def run(self, ctx: Context) -> VpcOffering:
        """Check the matrix of services and providers, and write the row."""
        services, chosen = self._services(), capabilities_chosen(self.servicecapabilitylist or ())
        specify_number, protocol = bool(self.specifyasnumber), self.internetprotocol or "IPv4"
        routing = routing_of(self.networkmode, self.routingmode, specify_number=specify_number, protocol=protocol)
        Matrix(services, chosen, for_vpc=True, alternatives=True, routed=routing is not None).check()
        taken = select(VpcOffering.id).where(VpcOffering.name == self.name, VpcOffering.removed.is_(None))
        if ctx.session.scalar(taken) is not None:
            raise BadParameter(f"Invalid parameter name value={self.name}: there is a VPC offering with this name.")
        offering = self.serviceofferingid
        if offering is not None and offering.system_vm_type != "domainrouter":
            raise BadParameter(
                f"Invalid parameter serviceofferingid value={offering.uuid}: it must be a system offering for "
                "domainrouter (createServiceOffering with issystem=true)."
            )
        row = VpcOffering(
            name=self.name,
            unique_name=f"{self.name}-{new_uuid()}"[:255],
            display_text=self.displaytext or self.name,
            state="Enabled" if self.enable else "Disabled",
            services=services,
            capabilities=chosen,
            internet_protocol=protocol,
            network_mode=self.networkmode or NATTED,
            routing_mode=routing,
            specify_as_number=specify_number,
            redundant=chosen.get("SourceNat", {}).get("RedundantRouter", "").lower() == "true",
            service_offering=offering,
            domain_uuids=scope.uuids(self.domainid),
            zone_uuids=scope.uuids(self.zoneid),
        )
        ctx.session.add(row)
        ctx.session.flush()
        return row

    def _services(self) -> dict[str, list[str]]:
        supported = {service_name(name) for name in self.supportedservices or ()} or self._all_of_the_router()
        named = providers_named(self.serviceproviderlist or (), supported)
        supported |= {"NetworkACL", "Gateway"} if self.networkmode == ROUTED else {*ALWAYS, "Gateway"}
        return {name: list(dict.fromkeys(named.get(name) or [DEFAULT_PROVIDER])) for name in sorted(supported)}

    def _all_of_the_router(self) -> set[str]:
        every = set(registry.network_providers()[DEFAULT_PROVIDER].capabilities)
        return every - set(TRANSLATING) if self.networkmode == ROUTED else every


class UpdateVpcOffering(Command, name="updateVPCOffering", answer=one("vpcoffering", vpc_offering_views), job=True,
                        instance="VpcOffering", event="VPC.OFFERING.UPDATE"):  # fmt: skip
    """Update a VPC offering's texts, state and scope; its services never change, as VPCs have them."""

    id: VpcOffering = required()
    name: str | None = optional(check=syntax.name)
    displaytext: str | None = optional(check=syntax.name)
    domainid: str | None = optional(description="the new domains, or public")
    zoneid: str | None = optional(length=4096, description="the new zones, or all")
    sortkey: int | None = optional()
    state: str | None = optional(choices=("Enabled", "Disabled"))

    def run(self, ctx: Context) -> VpcOffering:
        """Refuse to enable what no installed provider can give, and change what is given."""
        row = self.id
        if self.state == "Enabled":
            Matrix(row.services, row.capabilities, for_vpc=True, alternatives=True, routed=row.routed).check()
        row.name, row.display_text = self.name or row.name, self.displaytext or row.display_text
        row.state = self.state or row.state
        row.sort_key = row.sort_key if self.sortkey is None else self.sortkey
        if self.domainid is not None:
            row.domain_uuids = scope.rescoped(ctx, Domain, self.domainid, "domainid")
        if self.zoneid is not None:
            row.zone_uuids = scope.rescoped(ctx, Zone, self.zoneid, "zoneid")
        return row


class DeleteVpcOffering(Command, name="deleteVPCOffering", answer=success(), job=True, instance="VpcOffering",
                        event="VPC.OFFERING.DELETE"):  # fmt: skip
    """Delete an offering; VPCs that have it keep it."""

    id: VpcOffering = required()

    def run(self, ctx: Context) -> None:
        """Refuse to delete one of the standard catalogue, and mark the row removed."""
        ctx.instance = self.id
        scope.retire(ctx, self.id)
