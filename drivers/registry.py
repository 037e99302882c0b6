"""Drivers by name: our own, and those found through entry points. A third party's driver is an installed package."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any

from drivers.protocol import HypervisorDriver, NetworkProvider

NETWORK_PROVIDERS = {
    "VirtualRouter": "drivers.network.virtual_router:VirtualRouter",
    "VpcVirtualRouter": "drivers.network.virtual_router:VpcVirtualRouter",
    "InternalLbVm": "drivers.network.virtual_router:InternalLbVm",
    "ConfigDrive": "drivers.network.config_drive:ConfigDrive",
    "Ovs": "drivers.network.openvswitch:Ovs",
    "SecurityGroupProvider": "drivers.network.security_groups:SecurityGroupProvider",
}
"""Our own network providers, by CloudStack's names for them."""


@cache
def network_providers() -> dict[str, NetworkProvider[Any]]:
    """Return every installed network provider by CloudStack's name for it; a third party's takes the place of ours."""
    own = {name: resolve_name(where)() for name, where in NETWORK_PROVIDERS.items()}
    return own | {point.name: point.load()() for point in entry_points(group="netspine.network")}


@cache
def hypervisors() -> dict[str, HypervisorDriver[Any]]:
    """Return every installed hypervisor driver by CloudStack's name for it."""
    return {point.name: point.load()() for point in entry_points(group="netspine.hypervisor")}


@cache
def by_kind() -> dict[str, NetworkProvider[Any] | HypervisorDriver[Any]]:
    """Return every driver by the kind of its targets."""
    drivers: list[NetworkProvider[Any] | HypervisorDriver[Any]] = [*network_providers().values()]
    drivers += hypervisors().values()
    return {driver.kind: driver for driver in drivers}
