"""Everything that is wanted of a host: what its target's bundle is made from, for every installed hypervisor."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.compute.drive_facts import drive_facts
from controlplane.compute.guests import guest_facts, see_guests
from controlplane.compute.port_facts import port_facts
from controlplane.network.segments import segment_facts
from controlplane.network.shells import shell_facts
from controlplane.reconcile.hosted import reached_at
from controlplane.reconcile.observations import on_observation
from controlplane.reconcile.targets import Target, facts_of
from controlplane.zone.hosts import Host
from drivers import registry
from drivers.vocabulary import HostFacts


def host_facts(session: Session, target: Target) -> HostFacts:
    """Return what the host is to carry and hold."""
    host = _host(session, target)
    return HostFacts(
        target=target.uuid,
        name=host.name,
        segments=segment_facts(session, host),
        guests=guest_facts(session, host),
        shells=shell_facts(session, host),
        settings=tuple(sorted(host.details.items())),
        **port_facts(session, host)._asdict(),
        drives=drive_facts(session, host),
    )


def where_it_is(session: Session, target: Target) -> tuple[str, Mapping[str, str]]:
    """Return a host's URL and its settings, credentials among them: for one that the control plane itself drives."""
    host = _host(session, target)
    return host.url, host.details | {"username": host.username, "password": host.password or ""}


def _host(session: Session, target: Target) -> Host:
    return session.scalars(select(Host).where(Host.target_id == target.id)).one()


for _kind in sorted({driver.kind for driver in registry.hypervisors().values()}):
    facts_of(_kind)(host_facts)
    on_observation(_kind)(see_guests)
    reached_at(_kind)(where_it_is)
