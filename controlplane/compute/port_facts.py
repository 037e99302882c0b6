"""What a host is told of its guests' ports: the addresses that each may speak with, and the groups that guard it."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple, cast

from sqlalchemy import Table, and_, bindparam, select
from sqlalchemy.orm import Session

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.network.networks import Network
from controlplane.network.nics import Nic, SecondaryAddress
from controlplane.network.security_facts import group_facts, groups_on, guarding_offerings, servers_on
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.offering.port_policies import FORGED, MAC_CHANGES, allows
from controlplane.zone.hosts import Host
from drivers.security import GroupMembers, PortFilter, SecurityGroup

_vm, _nic, _further, _network = (
    cast("Table", table.__table__) for table in (VirtualMachine, Nic, SecondaryAddress, Network)
)
_HERE = and_(_vm.c.host_id == bindparam("host"), _vm.c.removed.is_(None), _vm.c.state.not_in(("Expunging", "Error")))
_PORTS = (  # built once: it is a part of every change
    select(
        _nic.c.uuid,
        _network.c.uuid.label("segment"),
        _nic.c.mac,
        _nic.c.id,
        _nic.c.vm_id,
        _nic.c.network_id,
        _nic.c.address,
        _nic.c.address6,
        _network.c.cidr,
        _network.c.cidr6,
        _network.c.offering_id,
    )
    .join_from(_vm, _nic, _nic.c.vm_id == _vm.c.id)
    .join(_network, _nic.c.network_id == _network.c.id)
    .where(_HERE, _network.c.vnet.is_not(None))
    .order_by(_nic.c.uuid)
)
_FURTHER = (
    select(_further.c.nic_id, _further.c.address)
    .join_from(_vm, _nic, _nic.c.vm_id == _vm.c.id)
    .join(_further, _further.c.nic_id == _nic.c.id)
    .where(_HERE)
)
_DETAILS = select(NetworkOffering.id, NetworkOffering.details).where(
    NetworkOffering.id.in_(bindparam("offerings", expanding=True))
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
    ports = session.execute(_PORTS, {"host": host.id}).all()
    further = _all_further(session, host)
    forging = _forging(session, {port.offering_id for port in ports})
    offerings = guarding_offerings(session)
    guarded = [port for port in ports if port.offering_id in offerings]
    memberships = groups_on(session, host.id) if guarded else {}
    servers = servers_on(session, {port.network_id for port in guarded}) if guarded else {}
    filters = tuple(
        PortFilter(
            port.uuid,
            port.segment,
            port.mac,
            _addresses(port.address, port.address6, *further.get(port.id, ())) if port.cidr or port.cidr6 else None,
            tuple(memberships.get(port.vm_id, {}).values()) if port.offering_id in offerings else None,
            port.offering_id in forging,
            servers.get(port.network_id, ()),
        )
        for port in ports
    )
    groups = {number: uuid for port in guarded for number, uuid in memberships.get(port.vm_id, {}).items()}
    return PortFacts(filters, *group_facts(session, groups, host.zone_id, offerings))


def _addresses(*found: str) -> tuple[str, ...]:
    return tuple(sorted(address for address in found if address))


def _all_further(session: Session, host: Host) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for nic, address in session.execute(_FURTHER, {"host": host.id}):
        found[nic].append(address)
    return found


def _forging(session: Session, offerings: set[int]) -> set[int]:
    details = session.execute(_DETAILS, {"offerings": list(offerings)})
    return {number for number, values in details if allows(values, FORGED, MAC_CHANGES)}
