"""What a host is told of its guests' ports: the addresses that each may speak with, and the groups that guard it."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.network.networks import Network
from controlplane.network.nics import Nic, SecondaryAddress
from controlplane.network.security_facts import group_facts, groups_on, guarding_offerings, servers_on
from controlplane.offering import port_policies
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.zone.hosts import Host
from drivers.security import GroupMembers, PortFilter, SecurityGroup

_PORT = (
    Nic.uuid,
    Network.uuid.label("segment"),
    Nic.mac,
    Nic.id,
    Nic.vm_id,
    Nic.network_id,
    Nic.address,
    Nic.address6,
    Network.cidr,
    Network.cidr6,
    Network.offering_id,
)


class PortFacts(NamedTuple):
    """The parts of a host's facts that its filters are made of, by the names that they have there."""

    filters: tuple[PortFilter, ...]
    groups: tuple[SecurityGroup, ...] = ()
    members: tuple[GroupMembers, ...] = ()


def port_facts(session: Session, host: Host) -> PortFacts:
    """Return what each port of a guest on the host may send, by NIC, and what guards it.

    As for the guests themselves, a NIC on a network that is not implemented is left out.
    """
    here = _on(host)
    ports = session.execute(
        select(*_PORT)
        .join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
        .join(Network, Nic.network_id == Network.id)
        .where(here, Network.vnet.is_not(None))
        .order_by(Nic.uuid)
    ).all()
    further = _further(session, here)
    forging = _forging(session, {port.offering_id for port in ports})
    offerings = guarding_offerings(session)
    guarded = {port.vm_id for port in ports if port.offering_id in offerings}
    memberships = groups_on(session, here) if guarded else {}
    shared = {port.network_id for port in ports if port.offering_id in offerings}
    servers = servers_on(session, shared) if shared else {}
    filters = tuple(
        PortFilter(
            port.uuid,
            port.segment,
            port.mac,
            _addresses(port.address, port.address6, *further.get(port.id, ())) if port.cidr or port.cidr6 else None,
            memberships.get(port.vm_id, ((), ()))[0] if port.offering_id in offerings else None,
            port.offering_id in forging,
            servers.get(port.network_id, ()),
        )
        for port in ports
    )
    numbers = {number for vm in guarded if vm in memberships for number in memberships[vm][1]}
    return PortFacts(filters, *group_facts(session, numbers, host.zone_id, offerings))


def _on(host: Host) -> ColumnElement[bool]:
    return and_(
        VirtualMachine.host_id == host.id,
        VirtualMachine.removed.is_(None),
        VirtualMachine.state.not_in(("Expunging", "Error")),
    )


def _addresses(*found: str) -> tuple[str, ...]:
    return tuple(sorted(address for address in found if address))


def _further(session: Session, here: ColumnElement[bool]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    rows = session.execute(
        select(SecondaryAddress.nic_id, SecondaryAddress.address)
        .join(Nic, SecondaryAddress.nic_id == Nic.id)
        .join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
        .where(here)
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
