"""Providers whose service is done by the hosts, within their own targets: they have no appliance to plan."""

from __future__ import annotations

from typing import Never

from drivers.vocabulary import ApplianceFacts
from systemvm.bundle import Elements, File


class WithoutAppliance:
    """A provider that plans nothing of its own."""

    name = ""

    def plan(self, facts: ApplianceFacts) -> Never:
        """Refuse: hosts do its work, within their own targets.

        :raises ValueError: always.
        """
        raise ValueError(f"{facts.name} cannot be made by {self.name}: its service has no appliance.")

    def render(self, config: Never) -> tuple[tuple[File, ...], tuple[Elements, ...]]:
        """Have nothing to write down."""
        del config
        return (), ()
