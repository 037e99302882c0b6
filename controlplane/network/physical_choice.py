"""Which physical network can carry the networks of an offering, and why another cannot."""

from __future__ import annotations

from sqlalchemy.orm import Session

from controlplane.offering.network_offerings import NetworkOffering
from controlplane.zone.physical_networks import PhysicalNetwork
from controlplane.zone.providers import enabled_providers
from drivers import registry


def objection(session: Session, physical: PhysicalNetwork, offering: NetworkOffering) -> str:
    """Say why the physical network cannot carry a network of the offering; empty when it can."""
    if physical.state != "Enabled":
        return f"{physical.name} is {physical.state.lower()}"
    if not any(traffic.traffic == "Guest" for traffic in physical.traffic_types):
        return f"{physical.name} carries no guest traffic"
    if lacking := set(offering.tags) - set(physical.tags):
        return f"{physical.name} lacks the tags {', '.join(sorted(lacking))}"
    asked = {provider for providers in offering.services.values() for provider in providers}
    if missing := asked - set(enabled_providers(session, physical)):
        return f"{physical.name} has not enabled {', '.join(sorted(missing))}"
    for provider in offering.services.get("Connectivity", ()):
        methods = registry.network_providers()[provider].capabilities["Connectivity"]["SupportedIsolationMethods"]
        if physical.isolation not in methods.split(","):
            return f"{physical.name} isolates by {physical.isolation}, where {provider} needs {methods}"
    return ""
