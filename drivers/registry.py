"""Drivers by name, found through entry points: a third party's driver is an installed package and nothing more."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from drivers.protocol import HypervisorDriver, NetworkProvider


@cache
def network_providers() -> dict[str, NetworkProvider[Any]]:
    """Return every installed network provider by CloudStack's name for it."""
    return {point.name: point.load()() for point in entry_points(group="netspine.network")}


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
