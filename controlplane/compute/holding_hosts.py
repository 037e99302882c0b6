"""Which hosts hold machines: what changes for a machine changes on its host."""

from __future__ import annotations

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.network.nics import Nic
from controlplane.reconcile.targets import Target
from controlplane.zone.hosts import Host


def hosts_holding(session: Session, *conditions: ColumnElement[bool]) -> list[Target]:
    """Return the targets of the hosts that hold machines of which this is true, each once."""
    machines = select(VirtualMachine.host_id).where(
        VirtualMachine.host_id.is_not(None), VirtualMachine.removed.is_(None), *conditions
    )
    return list(session.scalars(select(Target).join(Host, Host.target_id == Target.id).where(Host.id.in_(machines))))


def hosts_of_guests(session: Session, network_id: int) -> list[Target]:
    """Return the targets of the hosts that hold machines with an interface on the network."""
    on_it = select(Nic.vm_id).where(Nic.network_id == network_id, Nic.vm_id.is_not(None))
    return hosts_holding(session, VirtualMachine.id.in_(on_it))
