"""Ovs elements: the switch that says that the provider Ovs is configured on a physical network."""

from __future__ import annotations

from controlplane.api.command import many, one
from controlplane.zone.virtual_router_elements import ElementListing, ElementSetting, element_views


class ListOvsElements(ElementListing, name="listOvsElements", answer=many("ovselement", element_views)):
    """List the elements of the provider Ovs."""

    switch = True


class ConfigureOvsElement(ElementSetting, name="configureOvsElement", answer=one("ovselement", element_views)):
    """Enable or disable the element of the provider Ovs; the provider itself is enabled afterwards."""

    switch = True
