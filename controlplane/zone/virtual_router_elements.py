"""Virtual router elements: the switch that says that a provider made of virtual routers is configured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select
from sqlalchemy.orm import joinedload

from controlplane.api import dispatch
from controlplane.api.command import Command, many, one
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter
from controlplane.zone.providers import SWITCH, WITH_ELEMENT, NetworkServiceProvider, VirtualRouterElement

dispatch.JOB_TABLES["VirtualRouterElement"] = VirtualRouterElement


@dataclass(kw_only=True)
class ElementResponse(Response):
    """The one element of a provider."""

    id: str
    nspid: str
    enabled: bool


def element_views(ctx: Context, rows: Sequence[VirtualRouterElement]) -> list[ElementResponse]:
    """Return the responses of these elements."""
    del ctx
    return [ElementResponse(id=row.uuid, nspid=row.provider.uuid, enabled=row.enabled) for row in rows]


class ListVirtualRouterElements(
    ListCommand, name="listVirtualRouterElements", answer=many("virtualrouterelement", element_views)
):
    """List the elements of providers."""

    table = VirtualRouterElement

    id: VirtualRouterElement | None = matching(VirtualRouterElement.id)
    nspid: NetworkServiceProvider | None = matching(VirtualRouterElement.provider_id)
    enabled: bool | None = matching(VirtualRouterElement.enabled)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Bring the providers along."""
        del ctx
        return of_switch(query, wanted=False)


class CreateVirtualRouterElement(
    Command,
    name="createVirtualRouterElement",
    answer=one("virtualrouterelement", element_views),
    job=True,
    creates=True,
    instance="VirtualRouterElement",
    event="NETWORK.ELEMENT.CONFIGURE",
):
    """Give a provider its element, disabled; one that came with a physical network has it."""

    unsupported = ("providertype",)

    nspid: NetworkServiceProvider = required()

    def run(self, ctx: Context) -> VirtualRouterElement:
        """Refuse a second one."""
        provider = self.nspid
        if provider.name not in WITH_ELEMENT:
            raise BadParameter(
                f"Invalid parameter nspid value={provider.uuid}: provider {provider.name} has no element."
            )
        if provider.element is not None:
            raise BadParameter(
                f"Invalid parameter nspid value={provider.uuid}: it has its element {provider.element.uuid}."
            )
        provider.element = VirtualRouterElement()
        ctx.session.flush()
        return provider.element


class ConfigureVirtualRouterElement(
    Command,
    name="configureVirtualRouterElement",
    answer=one("virtualrouterelement", element_views),
    job=True,
    instance="VirtualRouterElement",
    event="NETWORK.ELEMENT.CONFIGURE",
):
    """Enable or disable a provider's element; the provider itself is enabled afterwards."""

    id: VirtualRouterElement = required()
    enabled: bool = required()

    def run(self, ctx: Context) -> VirtualRouterElement:
        """Refuse to disable what an enabled provider needs."""
        del ctx
        return configure(self.id, self.enabled, switch=False)


def of_switch(query: Select[Any], *, wanted: bool) -> Select[Any]:
    """Narrow a query of elements to those of Ovs, or to all others; the providers come along."""
    name = NetworkServiceProvider.name == SWITCH if wanted else NetworkServiceProvider.name != SWITCH
    return query.where(VirtualRouterElement.provider.has(name)).options(joinedload(VirtualRouterElement.provider))


def configure(element: VirtualRouterElement, enabled: bool, *, switch: bool) -> VirtualRouterElement:
    """Enable or disable an element.

    :param switch: it is to be one of Ovs; otherwise to be none.
    :raises BadParameter: it is of the other kind, or its provider is enabled and needs it.
    """
    provider = element.provider
    if (provider.name == SWITCH) is not switch:
        raise BadParameter(f"Invalid parameter id value={element.uuid}: it is the element of provider {provider.name}.")
    if not enabled and provider.state == "Enabled":
        raise BadParameter(f"Invalid parameter enabled value=false: disable provider {provider.uuid} first.")
    element.enabled = enabled
    return element
