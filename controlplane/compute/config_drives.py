"""Config drives: which machines read about themselves on a drive, and when it changes.

It is the network of a machine's default NIC that says who tells the guest about itself. Where that is ConfigDrive, the
guest's host is told what its router would have been told.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.api.context import Context
from controlplane.compute.outcomes import networks_of
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.network.networks import Network, services_of
from controlplane.network.nics import Nic

PROVIDER = "ConfigDrive"


def by_drive(network: Network, service: str) -> bool:
    """Tell whether a drive gives the network's guests this service."""
    return PROVIDER in services_of(network).get(service, ())


def has_drive(session: Session, vm: VirtualMachine) -> bool:
    """Tell whether the machine reads about itself on a drive."""
    query = select(Network).join(Nic).where(Nic.vm_id == vm.id, Nic.default)
    return any(by_drive(network, "UserData") for network in session.scalars(query))


def tell(ctx: Context, vm: VirtualMachine) -> None:
    """Have whoever tells the machine about itself know of a change: its networks, and its host if it has a drive."""
    ctx.touch(*networks_of(ctx.session, vm), *drives_of(ctx.session, vm))


def drives_of(session: Session, *machines: VirtualMachine) -> list[VirtualMachine]:
    """Return those of the machines that have a drive."""
    return [vm for vm in machines if has_drive(session, vm)]


def forget_password(session: Session, vm: VirtualMachine) -> None:
    """A password is on the drive for one start: the guest took it then, or never will."""
    if vm.password is not None and vm.boot > vm.password_boot and has_drive(session, vm):
        vm.password = None
