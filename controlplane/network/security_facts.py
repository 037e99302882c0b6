"""What hosts are told of security groups: the groups of the guests there, and who is meant where a rule names one.

An address means a member only where the member is: on networks whose ports groups guard. A member in another zone is
meant by its address unless a guarded network of the host's own zone has that address too, where it is somebody else's.

A change of a group with many members is read once for each of its hosts: so the queries are built once, and the
database puts a group's addresses together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, cast

from sqlalchemy import BindParameter, Select, Table, bindparam, func, select
from sqlalchemy.orm import Session

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
_member, _group, _rule, _vm, _nic, _further, _network, _range = (
    cast("Table", table.__table__)
    for table in (
        SecurityGroupMember, SecurityGroup, SecurityGroupRule, VirtualMachine, Nic, SecondaryAddress, Network,
        VlanRange,
    )
)  # fmt: skip
_THESE: BindParameter[Any] = bindparam("these", expanding=True)
_OFFERINGS = select(NetworkOffering.id, NetworkOffering.services).where(NetworkOffering.guest_type == "Shared")
_SERVERS = select(_range.c.network_id, _range.c.router_ip, _range.c.router_ip6).where(_range.c.network_id.in_(_THESE))
_ON_HOST = (
    select(_member.c.vm_id, _group.c.uuid, _group.c.id)
    .join_from(_vm, _member, _member.c.vm_id == _vm.c.id)
    .join(_group, _member.c.group_id == _group.c.id)
    .where(_vm.c.host_id == bindparam("host"), _vm.c.removed.is_(None))
    .order_by(_group.c.uuid)
)
_allowed = _group.alias()
_RULES = (
    select(
        _rule.c.group_id, _rule.c.uuid, _rule.c.direction, _rule.c.protocol, _rule.c.start, _rule.c.end, _rule.c.peer,
        _rule.c.allowed_id, _allowed.c.uuid,
    )
    .select_from(_rule.outerjoin(_allowed, _rule.c.allowed_id == _allowed.c.id))
    .where(_rule.c.group_id.in_(_THESE))
    .order_by(_rule.c.id)
)  # fmt: skip
_GUARDED = select(_network.c.id).where(_network.c.offering_id.in_(bindparam("offerings", expanding=True)))
_RANGES = select(VlanRange).where(
    VlanRange.network_id.in_(_GUARDED.where(_network.c.zone_id == bindparam("zone", type_=_network.c.zone_id.type)))
)


def _of_members(*addresses: Any, further: bool = False) -> Select[Any]:
    """Return the query for group, zone, and what the columns hold of the members there, put together with commas."""
    nics = _member.join(_vm, _member.c.vm_id == _vm.c.id).join(_nic, _nic.c.vm_id == _vm.c.id)
    texts = [func.aggregate_strings(column, ",") for column in addresses]
    return (
        select(_member.c.group_id, _vm.c.zone_id, *texts)
        .select_from(nics.join(_further, _further.c.nic_id == _nic.c.id) if further else nics)
        .where(_member.c.group_id.in_(_THESE), _vm.c.removed.is_(None), _vm.c.state.not_in(GONE))
        .where(_nic.c.network_id.in_(_GUARDED))
        .group_by(_member.c.group_id, _vm.c.zone_id)
    )


_MEMBERS = _of_members(_nic.c.address, _nic.c.address6), _of_members(_further.c.address, further=True)


def guarding_offerings(session: Session) -> set[int]:
    """Return the numbers of the offerings whose networks' ports are guarded by security groups."""
    return {number for number, services in session.execute(_OFFERINGS) if SERVICE in services}


def servers_on(session: Session, networks: Collection[int]) -> dict[int, tuple[str, ...]]:
    """Return the addresses, sorted, that the routers of each of these networks serve at, by its number."""
    found: dict[int, set[str]] = defaultdict(set)
    for network, *addresses in session.execute(_SERVERS, {"these": list(networks)}):
        found[network].update(filter(None, addresses))
    return {network: tuple(sorted(addresses)) for network, addresses in found.items()}


def groups_on(session: Session, host_id: int) -> dict[int, dict[int, str]]:
    """Return the groups of each machine on the host, by its number: number → UUID, in the order of these."""
    found: dict[int, dict[int, str]] = defaultdict(dict)
    for machine, uuid, number in session.execute(_ON_HOST, {"host": host_id}):
        found[machine][number] = uuid
    return found


def group_facts(
    session: Session, groups: dict[int, str], zone_id: int, offerings: Collection[int]
) -> tuple[tuple[security.SecurityGroup, ...], tuple[GroupMembers, ...]]:
    """Return these groups with their rules, by UUID, and the members of every group that a rule of theirs names.

    :param groups: number → UUID.
    :param zone_id: where the host is.
    :param offerings: see :func:`guarding_offerings`.
    """
    if not groups:
        return (), ()
    rules, named = _rules(session, groups)
    shown = (security.SecurityGroup(uuid, *rules.get(number, ((), ()))) for number, uuid in groups.items())
    return tuple(sorted(shown)), _members(session, named, zone_id, offerings) if named else ()


def _rules(session: Session, groups: Collection[int]) -> tuple[dict[int, _LISTS], dict[int, str]]:
    """Return what each group lets in and out, and the groups that the rules name: number → UUID."""
    found: dict[int, tuple[list[GroupRule], list[GroupRule]]] = defaultdict(lambda: ([], []))
    named: dict[int, str] = {}
    rows = session.execute(_RULES, {"these": list(groups)})
    for group, uuid, direction, protocol, start, end, peer, number, allowed in rows:
        if number is None:
            fact = GroupRule(uuid, protocol, start, end, (peer,))
        else:
            named[number] = allowed
            fact = GroupRule(uuid, protocol, start, end, (), allowed)
        found[group][direction != INGRESS].append(fact)
    return {number: (tuple(inward), tuple(outward)) for number, (inward, outward) in found.items()}, named


def _members(
    session: Session, named: dict[int, str], zone_id: int, offerings: Collection[int]
) -> tuple[GroupMembers, ...]:
    given = {"these": list(named), "offerings": list(offerings)}
    here: dict[int, str] = dict.fromkeys(named, "")
    elsewhere: dict[int, list[str]] = defaultdict(list)
    for query in _MEMBERS:
        for group, zone, *texts in session.execute(query, given):
            if zone == zone_id:
                here[group] = ",".join((here[group], *texts))
            else:
                elsewhere[group] += texts
    if elsewhere:
        ranges = session.scalars(_RANGES, {"offerings": list(offerings), "zone": zone_id})
        own = [subnet for row in ranges for subnet in subnets_of(row)]
        for group, texts in elsewhere.items():
            here[group] = ",".join((here[group], *_outside(texts, own)))
    return tuple(sorted(GroupMembers(uuid, _listed(here[number])) for number, uuid in named.items()))


def _outside(texts: list[str], subnets: list[Any]) -> Iterator[str]:
    """Return those addresses that are in none of the subnets."""
    for address in filter(None, ",".join(texts).split(",")):
        if not any(ip_address(address) in subnet for subnet in subnets):
            yield address


@lru_cache(maxsize=256)
def _listed(text: str) -> tuple[str, ...]:
    """Return a text's addresses, each once, sorted: every host with a rule that names a group asks for the same."""
    return tuple(sorted(set(filter(None, text.split(",")))))
