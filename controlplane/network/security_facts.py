"""What hosts are told of security groups: the groups of the guests there, and who is meant where a rule names one.

An address means a member only where the member is: on networks whose ports groups guard. A member in another zone is
meant by its address unless a guarded network of the host's own zone has that address too, where it is somebody else's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_address
from typing import Any

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session, aliased

from controlplane.compute.virtual_machines import GONE, VirtualMachine
from controlplane.network.guest_ranges import subnets_of
from controlplane.network.networks import Network
from controlplane.network.nics import Nic, SecondaryAddress
from controlplane.network.public_ips import VlanRange
from controlplane.network.security_groups import INGRESS, SecurityGroup, SecurityGroupMember, SecurityGroupRule
from controlplane.offering.network_offerings import NetworkOffering
from drivers import security
from drivers.security import GroupMembers, GroupRule

SERVICE = "SecurityGroup"
_LISTS = tuple[tuple[GroupRule, ...], tuple[GroupRule, ...]]


def guarding_offerings(session: Session) -> set[int]:
    """Return the numbers of the offerings whose networks' ports are guarded by security groups."""
    shared = select(NetworkOffering.id, NetworkOffering.services).where(NetworkOffering.guest_type == "Shared")
    return {number for number, services in session.execute(shared) if SERVICE in services}


def guarded_networks(offerings: Collection[int]) -> Select[Any]:
    """Return the query for the numbers of the networks with these offerings."""
    return select(Network.id).where(Network.offering_id.in_(offerings))


def servers_on(session: Session, networks: Collection[int]) -> dict[int, tuple[str, ...]]:
    """Return the addresses, sorted, that the routers of each of these networks serve at, by its number."""
    found: dict[int, list[str]] = defaultdict(list)
    columns = VlanRange.network_id, VlanRange.router_ip, VlanRange.router_ip6
    for network, *addresses in session.execute(select(*columns).where(VlanRange.network_id.in_(networks))):
        found[network or 0] += filter(None, addresses)
    return {network: tuple(sorted(set(addresses))) for network, addresses in found.items()}


def groups_on(session: Session, here: ColumnElement[bool]) -> dict[int, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Return the UUIDs, sorted, and the numbers of the groups of each machine, by its number.

    :param here: which machines are meant.
    """
    found: dict[int, list[tuple[str, int]]] = defaultdict(list)
    rows = session.execute(
        select(SecurityGroupMember.vm_id, SecurityGroup.uuid, SecurityGroup.id)
        .join(SecurityGroup, SecurityGroupMember.group_id == SecurityGroup.id)
        .join(VirtualMachine, SecurityGroupMember.vm_id == VirtualMachine.id)
        .where(here)
        .order_by(SecurityGroup.uuid)
    )
    for machine, uuid, number in rows:
        found[machine].append((uuid, number))
    return {vm: (tuple(uuid for uuid, _ in pairs), tuple(number for _, number in pairs)) for vm, pairs in found.items()}


def group_facts(
    session: Session, groups: Collection[int], zone_id: int, offerings: Collection[int]
) -> tuple[tuple[security.SecurityGroup, ...], tuple[GroupMembers, ...]]:
    """Return these groups with their rules, by UUID, and the members of every group that a rule of theirs names.

    :param groups: numbers.
    :param zone_id: where the host is.
    :param offerings: see :func:`guarding_offerings`.
    """
    if not groups:
        return (), ()
    rules, named = _rules(session, groups)
    uuids = session.execute(select(SecurityGroup.id, SecurityGroup.uuid).where(SecurityGroup.id.in_(groups)))
    shown = (security.SecurityGroup(uuid, *rules.get(number, ((), ()))) for number, uuid in uuids)
    return tuple(sorted(shown)), _members(session, named, zone_id, offerings)


def _rules(session: Session, groups: Collection[int]) -> tuple[dict[int, _LISTS], dict[int, str]]:
    """Return what each group lets in and out, and the groups that the rules name, by number."""
    rule, allowed = SecurityGroupRule, aliased(SecurityGroup)
    query = (
        select(
            rule.group_id, rule.uuid, rule.direction, rule.protocol, rule.start, rule.end, rule.peer,
            rule.allowed_id, allowed.uuid.label("allowed"),
        )
        .outerjoin(allowed, rule.allowed_id == allowed.id)
        .where(rule.group_id.in_(groups))
        .order_by(rule.id)
    )  # fmt: skip
    found: dict[int, tuple[list[GroupRule], list[GroupRule]]] = defaultdict(lambda: ([], []))
    named: dict[int, str] = {}
    for row in session.execute(query):
        cidrs, group = ((row.peer,), "") if row.allowed_id is None else ((), row.allowed)
        if row.allowed_id is not None:
            named[row.allowed_id] = row.allowed
        fact = GroupRule(row.uuid, row.protocol, row.start, row.end, cidrs, group)
        found[row.group_id][row.direction != INGRESS].append(fact)
    return {number: (tuple(inward), tuple(outward)) for number, (inward, outward) in found.items()}, named


def _members(
    session: Session, named: dict[int, str], zone_id: int, offerings: Collection[int]
) -> tuple[GroupMembers, ...]:
    if not named:
        return ()
    found: dict[int, set[str]] = {number: set() for number in named}
    elsewhere: list[tuple[int, str]] = []
    guarded = guarded_networks(offerings)
    for group, zone, address in _addresses(session, named, guarded):
        if zone == zone_id:
            found[group].add(address)
        else:
            elsewhere.append((group, address))
    for group, address in _foreign(session, elsewhere, guarded.where(Network.zone_id == zone_id)):
        found[group].add(address)
    return tuple(
        GroupMembers(uuid, tuple(sorted(found[number])))
        for number, uuid in sorted(named.items(), key=lambda item: item[1])
    )


def _addresses(session: Session, groups: Iterable[int], guarded: Select[Any]) -> Iterator[tuple[int, int, str]]:
    """Return group, zone and address of every member of the groups."""
    these = SecurityGroupMember.group_id.in_(list(groups))
    there = VirtualMachine.removed.is_(None), VirtualMachine.state.not_in(GONE), Nic.network_id.in_(guarded)
    who = SecurityGroupMember.group_id, VirtualMachine.zone_id
    first = (
        select(*who, Nic.address, Nic.address6)
        .join(VirtualMachine, SecurityGroupMember.vm_id == VirtualMachine.id)
        .join(Nic, Nic.vm_id == VirtualMachine.id)
        .where(these, *there)
    )
    further = (
        select(*who, SecondaryAddress.address)
        .join(VirtualMachine, SecurityGroupMember.vm_id == VirtualMachine.id)
        .join(Nic, Nic.vm_id == VirtualMachine.id)
        .join(SecondaryAddress, SecondaryAddress.nic_id == Nic.id)
        .where(these, *there)
    )
    for query in (first, further):
        for group, zone, *addresses in session.execute(query):
            for address in addresses:
                if address:
                    yield group, zone, address


def _foreign(session: Session, pairs: Iterable[tuple[int, str]], guarded: Select[Any]) -> Iterator[tuple[int, str]]:
    """Return those of other zones' members whose address no guarded network of this zone has."""
    pairs = list(pairs)
    if not pairs:
        return
    ranges = select(VlanRange).where(VlanRange.network_id.in_(guarded))
    own: list[Any] = [subnet for row in session.scalars(ranges) for subnet in subnets_of(row)]
    for group, address in pairs:
        if not any(ip_address(address) in block for block in own):
            yield group, address
