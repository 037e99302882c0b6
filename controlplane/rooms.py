"""The rooms of the house: imports every module of the domain packages, so that all tables and commands are known."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

PACKAGES = ("identity", "zone", "offering", "storage", "network", "compute", "events", "usage")


@cache
def enter() -> None:
    """Import all domain modules, and the third parties' commands (entry points ``netspine.commands``)."""
    for package in PACKAGES:
        module = import_module(f"controlplane.{package}")
        for found in pkgutil.iter_modules(module.__path__):
            import_module(f"controlplane.{package}.{found.name}")
    for point in entry_points(group="netspine.commands"):
        point.load()
