"""The standard catalogue of the physical cloud: its region, and what each installed hypervisor can do at most."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.zone.hypervisors import HypervisorCapabilities
from controlplane.zone.regions import ENDPOINT, OWN, Region
from drivers import registry

MOST_GUESTS = {"LXC": 500, "Simulator": 1000}


def fill(session: Session) -> None:
    """Put in what is missing."""
    known = set(session.scalars(select(HypervisorCapabilities.hypervisor)))
    for name in sorted(registry.hypervisors()):
        if name not in known:
            session.add(HypervisorCapabilities(hypervisor=name, max_guests=MOST_GUESTS.get(name, 50)))
    if session.get(Region, OWN) is None:
        session.add(Region(id=OWN, name="Local", endpoint=ENDPOINT))
