"""Network service providers: which of the installed drivers a physical network uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ForeignKey, Select, String, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, joinedload, mapped_column, relationship

from controlplane.api import dispatch
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Row
from controlplane.errors import BadParameter, InUse
from controlplane.zone.physical_networks import PhysicalNetwork
from drivers import registry

DEFAULTS = ("VirtualRouter", "VpcVirtualRouter", "InternalLbVm", "ConfigDrive", "SecurityGroupProvider")
"""The providers that come with every physical network, as far as they are installed; others are devices to add."""
WITH_ELEMENT = ("VirtualRouter", "VpcVirtualRouter", "InternalLbVm", "Ovs")
"""The providers that have an element to be enabled before they can be (configureVirtualRouterElement …)."""
SWITCH = "Ovs"
"""The one whose element is configured by configureOvsElement."""


class NetworkServiceProvider(Row):
    """A provider on a physical network (addNetworkServiceProvider); only an enabled one gets new networks."""

    __tablename__ = "network_service_providers"
    __table_args__ = (UniqueConstraint("physical_network_id", "name"),)

    physical_network_id: Mapped[int] = mapped_column(ForeignKey("physical_networks.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(60))
    state: Mapped[str] = mapped_column(String(20), default="Disabled")
    services: Mapped[list[str]] = mapped_column(default=list)
    physical_network: Mapped[PhysicalNetwork] = relationship()
    element: Mapped[VirtualRouterElement | None] = relationship(
        back_populates="provider", cascade="all, delete-orphan", lazy="joined"
    )


class VirtualRouterElement(Row):
    """The element of a provider made of virtual routers, or of Ovs: whether it is configured."""

    __tablename__ = "virtual_router_elements"

    provider_id: Mapped[int] = mapped_column(
        ForeignKey("network_service_providers.id", ondelete="CASCADE"), unique=True
    )
    enabled: Mapped[bool] = mapped_column(default=False)
    provider: Mapped[NetworkServiceProvider] = relationship(back_populates="element")


dispatch.JOB_TABLES["NetworkServiceProvider"] = NetworkServiceProvider


def add_defaults(session: Session, network: PhysicalNetwork) -> None:
    """Give a new physical network the providers that come with every one."""
    installed = registry.network_providers()
    for name in DEFAULTS:
        if name in installed and (name != "SecurityGroupProvider" or network.zone.security_groups):
            session.add(new_provider(network, name))
    session.flush()


def new_provider(network: PhysicalNetwork, name: str) -> NetworkServiceProvider:
    """Make a disabled provider with all services that its driver has."""
    return NetworkServiceProvider(
        physical_network_id=network.id,
        name=name,
        services=sorted(registry.network_providers()[name].capabilities),
        element=VirtualRouterElement() if name in WITH_ELEMENT else None,
    )


def enabled_providers(session: Session, network: PhysicalNetwork) -> set[str]:
    """Return the names of the providers that new networks on this physical network may have."""
    query = select(NetworkServiceProvider.name).where(
        NetworkServiceProvider.physical_network_id == network.id, NetworkServiceProvider.state == "Enabled"
    )
    return set(session.scalars(query))


def driver_name(name: str) -> str:
    """Return an installed provider's name in its own spelling.

    :raises BadParameter: there is none; the sentence names those that there are.
    """
    installed = {known.lower(): known for known in registry.network_providers()}
    if name.lower() not in installed:
        raise BadParameter(
            f"Invalid parameter name value={name}: no such provider is installed; "
            f"there are {', '.join(sorted(installed.values()))}."
        )
    return installed[name.lower()]


@dataclass(kw_only=True)
class ProviderResponse(Response):
    """A provider; on a physical network, or of a service."""

    name: str
    id: str | None = None
    physicalnetworkid: str | None = None
    destinationphysicalnetworkid: str | None = None
    state: str | None = None
    servicelist: list[str] | None = None
    canenableindividualservice: bool | None = None


def provider_views(ctx: Context, rows: Sequence[NetworkServiceProvider]) -> list[ProviderResponse]:
    """Return the responses of these providers."""
    del ctx
    return [
        ProviderResponse(
            id=row.uuid,
            name=row.name,
            physicalnetworkid=row.physical_network.uuid,
            state=row.state,
            servicelist=row.services,
            canenableindividualservice=True,
        )
        for row in rows
    ]


class ListNetworkServiceProviders(
    ListCommand, name="listNetworkServiceProviders", answer=many("networkserviceprovider", provider_views)
):
    """List the providers on physical networks."""

    table = NetworkServiceProvider
    keywords = (NetworkServiceProvider.name,)

    name: str | None = matching(NetworkServiceProvider.name)
    physicalnetworkid: PhysicalNetwork | None = matching(NetworkServiceProvider.physical_network_id)
    state: str | None = matching(NetworkServiceProvider.state)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Bring the physical networks along."""
        del ctx
        return query.options(joinedload(NetworkServiceProvider.physical_network))


class AddNetworkServiceProvider(
    Command,
    name="addNetworkServiceProvider",
    answer=one("networkserviceprovider", provider_views),
    job=True,
    creates=True,
    instance="NetworkServiceProvider",
    event="SERVICE.PROVIDER.CREATE",
):
    """Have a physical network use an installed provider."""

    unsupported = ("destinationphysicalnetworkid",)

    name: str = required()
    physicalnetworkid: PhysicalNetwork = required()
    servicelist: list[str] | None = optional()

    def run(self, ctx: Context) -> NetworkServiceProvider:
        """Check that there is such a driver, and that it has the services."""
        network, name = self.physicalnetworkid, driver_name(self.name)
        has = select(NetworkServiceProvider.id).where(
            NetworkServiceProvider.physical_network_id == network.id, NetworkServiceProvider.name == name
        )
        if ctx.session.scalar(has) is not None:
            raise BadParameter(f"Invalid parameter name value={name}: physical network {network.name} has it already.")
        row = new_provider(network, name)
        if self.servicelist:
            row.services = known_services(name, self.servicelist)
        ctx.session.add(row)
        ctx.session.flush()
        return row


def known_services(provider: str, wanted: Sequence[str]) -> list[str]:
    """Return the services in the driver's spelling.

    :raises BadParameter: the driver lacks one.
    """
    has = {service.lower(): service for service in registry.network_providers()[provider].capabilities}
    for service in wanted:
        if service.lower() not in has:
            raise BadParameter(
                f"Invalid parameter servicelist value={service}: provider {provider} has "
                f"{', '.join(sorted(has.values()))} only."
            )
    return sorted({has[service.lower()] for service in wanted})


class UpdateNetworkServiceProvider(
    Command,
    name="updateNetworkServiceProvider",
    answer=one("networkserviceprovider", provider_views),
    job=True,
    instance="NetworkServiceProvider",
    event="SERVICE.PROVIDER.UPDATE",
):
    """Enable or disable a provider, or choose its services. A disabled one keeps the networks that it has."""

    id: NetworkServiceProvider = required()
    servicelist: list[str] | None = optional()
    state: str | None = optional(choices=("Enabled", "Disabled", "Shutdown"))

    def run(self, ctx: Context) -> NetworkServiceProvider:
        """Refuse to enable one whose element is not configured."""
        del ctx
        row = self.id
        if self.state == "Enabled" and row.name in WITH_ELEMENT and not (row.element and row.element.enabled):
            which = row.element.uuid if row.element else "with createVirtualRouterElement"
            raise BadParameter(
                f"Invalid parameter state value=Enabled: provider {row.name} is not ready: enable its element {which} "
                f"first ({'configureOvsElement' if row.name == SWITCH else 'configureVirtualRouterElement'})."
            )
        if self.servicelist:
            row.services = known_services(row.name, self.servicelist)
        row.state = self.state or row.state
        return row


class DeleteNetworkServiceProvider(
    Command,
    name="deleteNetworkServiceProvider",
    answer=success(),
    job=True,
    instance="NetworkServiceProvider",
    event="SERVICE.PROVIDER.DELETE",
):
    """Have a physical network no longer use a provider."""

    id: NetworkServiceProvider = required()

    def run(self, ctx: Context) -> None:
        """Refuse while a network of this physical network is served by it."""
        row, ctx.instance = self.id, self.id
        names = networks_served(ctx, row)
        if names:
            raise InUse(f"Provider {row.name} cannot be deleted: it serves the networks {', '.join(names[:10])}.")
        ctx.session.delete(row)


def networks_served(ctx: Context, provider: NetworkServiceProvider) -> list[str]:
    """Return the names of the networks that this provider serves on its physical network."""
    from controlplane.network.networks import Network
    from controlplane.offering.network_offerings import NetworkOffering

    query = (
        select(Network.name, NetworkOffering.services)
        .join(NetworkOffering, NetworkOffering.id == Network.offering_id)
        .where(Network.physical_network_id == provider.physical_network_id, Network.removed.is_(None))
    )
    return [
        name
        for name, services in ctx.session.execute(query)
        if any(provider.name in providers for providers in services.values())
    ]
