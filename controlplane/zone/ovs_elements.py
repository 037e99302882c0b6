"""Ovs elements: the switch that says that the provider Ovs is configured on a physical network."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select

from controlplane.api.command import Command, many, one
from controlplane.api.context import Context
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import matching, required
from controlplane.zone.providers import NetworkServiceProvider, VirtualRouterElement
from controlplane.zone.virtual_router_elements import configure, element_views, of_switch


class ListOvsElements(ListCommand, name="listOvsElements", answer=many("ovselement", element_views)):
    """List the elements of the provider Ovs."""

    table = VirtualRouterElement

    id: VirtualRouterElement | None = matching(VirtualRouterElement.id)
    nspid: NetworkServiceProvider | None = matching(VirtualRouterElement.provider_id)
    enabled: bool | None = matching(VirtualRouterElement.enabled)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep to those of Ovs."""
        del ctx
        return of_switch(query, wanted=True)


class ConfigureOvsElement(
    Command,
    name="configureOvsElement",
    answer=one("ovselement", element_views),
    job=True,
    instance="VirtualRouterElement",
    event="NETWORK.ELEMENT.CONFIGURE",
):
    """Enable or disable the element of the provider Ovs; the provider itself is enabled afterwards."""

    id: VirtualRouterElement = required()
    enabled: bool = required()

    def run(self, ctx: Context) -> VirtualRouterElement:
        """Refuse to disable what an enabled provider needs."""
        del ctx
        return configure(self.id, self.enabled, switch=True)
