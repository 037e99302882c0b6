"""Virtual router elements: the switch that says that a provider made of virtual routers is configured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

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


class ElementListing(ListCommand):
    """What the elements of either kind are asked by.

    :cvar switch: those of the provider Ovs; otherwise those of all others.
    """

    table = VirtualRouterElement
    switch: ClassVar[bool] = False

    id: VirtualRouterElement | None = matching(VirtualRouterElement.id)
    nspid: NetworkServiceProvider | None = matching(VirtualRouterElement.provider_id)
    enabled: bool | None = matching(VirtualRouterElement.enabled)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep to those of the kind, and bring the providers along."""
        del ctx
        kind = NetworkServiceProvider.name == SWITCH if self.switch else NetworkServiceProvider.name != SWITCH
        return query.where(VirtualRouterElement.provider.has(kind)).options(joinedload(VirtualRouterElement.provider))


class ListVirtualRouterElements(
    ElementListing, name="listVirtualRouterElements", answer=many("virtualrouterelement", element_views)
):
    """List the elements of providers."""


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


class ElementSetting(Command):
    """What an element is enabled or disabled by.

    :cvar switch: it is to be one of the provider Ovs; otherwise to be none.
    """

    job = True
    instance = "VirtualRouterElement"
    event = "NETWORK.ELEMENT.CONFIGURE"
    switch: ClassVar[bool] = False

    id: VirtualRouterElement = required()
    enabled: bool = required()

    def run(self, ctx: Context) -> VirtualRouterElement:
        """Refuse to disable what an enabled provider needs."""
        del ctx
        element, provider = self.id, self.id.provider
        if (provider.name == SWITCH) is not self.switch:
            raise BadParameter(
                f"Invalid parameter id value={element.uuid}: it is the element of provider {provider.name}."
            )
        if not self.enabled and provider.state == "Enabled":
            raise BadParameter(f"Invalid parameter enabled value=false: disable provider {provider.uuid} first.")
        element.enabled = self.enabled
        return element


class ConfigureVirtualRouterElement(
    ElementSetting, name="configureVirtualRouterElement", answer=one("virtualrouterelement", element_views)
):
    """Enable or disable a provider's element; the provider itself is enabled afterwards."""
