"""What a host is told of its guests' ports: the addresses that each may speak with, and the groups that guard it."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.network.networks import Network
from controlplane.network.nics import Nic, SecondaryAddress
from controlplane.offering import port_policies
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.zone.hosts import Host
from drivers.security import PortFilter


def port_filters(session: Session, host: Host) -> tuple[PortFilter, ...]:
    """Return what each port of a guest on the host may send, by NIC.

    As for the guests themselves, a NIC on a network that is not implemented is left out.
    """
    there = _on(host)
    rows = session.execute(
        select(
            Nic.uuid,
            Network.uuid.label("segment"),
            Nic.mac,
            Nic.id,
            Nic.address,
            Nic.address6,
            Network.cidr,
            Network.cidr6,
            Network.offering_id,
        )
        .join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
        .join(Network, Nic.network_id == Network.id)
        .where(there)
        .order_by(Nic.uuid)
    ).all()
    further = _further(session, there)
    forging = _forging(session, {row.offering_id for row in rows})
    return tuple(
        PortFilter(
            row.uuid,
            row.segment,
            row.mac,
            _addresses(row.address, row.address6, *further.get(row.id, ())) if row.cidr or row.cidr6 else None,
            None,
            row.offering_id in forging,
        )
        for row in rows
    )


def _on(host: Host) -> ColumnElement[bool]:
    return and_(
        VirtualMachine.host_id == host.id,
        VirtualMachine.removed.is_(None),
        VirtualMachine.state.not_in(("Expunging", "Error")),
        Network.vnet.is_not(None),
    )


def _addresses(*found: str) -> tuple[str, ...]:
    return tuple(sorted(address for address in found if address))


def _further(session: Session, there: ColumnElement[bool]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    rows = session.execute(
        select(SecondaryAddress.nic_id, SecondaryAddress.address)
        .join(Nic, SecondaryAddress.nic_id == Nic.id)
        .join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
        .join(Network, Nic.network_id == Network.id)
        .where(there)
    )
    for nic, address in rows:
        found[nic].append(address)
    return found


def _forging(session: Session, offerings: set[int]) -> set[int]:
    details = session.execute(
        select(NetworkOffering.id, NetworkOffering.details).where(NetworkOffering.id.in_(offerings))
    )
    return {
        number
        for number, values in details
        if port_policies.allows(values, port_policies.FORGED, port_policies.MAC_CHANGES)
    }
