"""Providers whose services are the hosts' own work: they have capabilities, and no appliance to be planned."""

from __future__ import annotations

from typing import Never

from drivers.protocol import Capabilities
from drivers.vocabulary import ApplianceFacts
from systemvm.bundle import Elements, File


class ByHosts:
    """What such providers have in common."""

    name: str
    kind: str
    capabilities: Capabilities

    def plan(self, facts: ApplianceFacts) -> Never:
        """Refuse: hosts do its work, within their own targets.

        :raises ValueError: always.
        """
        raise ValueError(f"{facts.name} cannot be made by {self.name}: its services have no appliance.")

    def render(self, config: Never) -> tuple[tuple[File, ...], tuple[Elements, ...]]:
        """Have nothing to write down."""
        del config
        return (), ()
