"""The VLAN or VNI of a guest network: chosen, or named by an operator; 0 means untagged."""

from __future__ import annotations

import re

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from controlplane.errors import BadParameter, InUse, NoCapacity
from controlplane.network import routing
from controlplane.network.addressing import lowest_number
from controlplane.network.networks import Network, scheme_of, uri_of
from controlplane.network.public_ips import VlanRange
from controlplane.zone import vnet_ranges
from controlplane.zone.dedicated_vnets import ranges_for
from controlplane.zone.physical_networks import PhysicalNetwork, Vnet

UNTAGGED = 0
FLOWS = "vs"
"""The scheme of networks whose VLAN Open vSwitch carries by flows for their own MACs."""
_NAMED = re.compile(r"(?:([a-z]+)://)?(untagged|\d{1,8})", re.ASCII)


def vnet_named(network: Network, text: str) -> int:
    """Read the VLAN or VNI that a network is to have: ``100``, ``vlan://100``, ``vxlan://5000`` or ``untagged``.

    :raises BadParameter: the network's physical network has no such number.
    """
    scheme, match = scheme_of(network), _NAMED.fullmatch(text.strip().lower())
    highest = vnet_ranges.HIGHEST["VXLAN" if scheme == "vxlan" else "VLAN"]
    right = f"untagged, or a {scheme.upper()} number from 1 to {highest}"
    if match is None:
        raise BadParameter(f"Invalid parameter vlan value={text}: it must be {right}.")
    if match[2] == "untagged":
        return UNTAGGED
    if match[1] not in (None, scheme) or not 1 <= int(match[2]) <= highest:
        name = network.physical_network.name
        raise BadParameter(f"Invalid parameter vlan value={text}: on physical network {name} it must be {right}.")
    return int(match[2])


def refuse_overlap(session: Session, network: Network, number: int) -> None:
    """Refuse a number that is another network's, or may become one's.

    :raises InUse: names the other network.
    :raises BadParameter: names the range that numbers are chosen from.
    """
    physical, wrong = network.physical_network, f"Invalid parameter vlan value={number or 'untagged'}:"
    other = session.scalar(select(Network.name).where(*_having(network, number)).limit(1))
    claimed = select(Vnet.number).where(Vnet.physical_network_id == physical.id, Vnet.number == number)
    if other is None and session.scalar(claimed) is not None:
        other = "of two routers' link, or a private gateway,"
    if other is not None:
        raise InUse(f"{wrong} network {other} has it.")
    if network.guest_type == "Isolated":
        return
    if vnet_ranges.holds(physical.vnets, number):
        raise BadParameter(
            f"{wrong} it is one of the numbers {vnet_ranges.text_of(physical.vnets)} that physical network "
            f"{physical.name} gives isolated networks by itself: choose another, or bypassvlanoverlapcheck=true."
        )
    public = VlanRange.physical_network_id == physical.id, VlanRange.network_id.is_(None)
    ranges = select(VlanRange.uuid).where(*public, VlanRange.vlan == str(number)).limit(1)
    if physical.isolation == "VLAN" and (taken := session.scalar(ranges)) is not None:
        raise BadParameter(f"{wrong} public range {taken} is on it: choose another, or bypassvlanoverlapcheck=true.")


def refuse_flows(
    session: Session, physical: PhysicalNetwork, number: int, wrong: str, network: Network | None = None
) -> None:
    """Refuse a VLAN that one wire is to carry twice: as a plain one, and by flows that admit a network's own MACs only.

    :param physical: where it is to be; physical networks of the zone with a label in common are on the same wire.
    :param wrong: how the sentence begins; ``network`` is for whom the number is, none where it is a plain VLAN.
    :raises InUse: names what has it.
    """
    labels = {label for row in physical.traffic_types for label in row.labels.values() if label}
    mine = PhysicalNetwork.zone_id == physical.zone_id, PhysicalNetwork.removed.is_(None)
    wires = {
        one.id: one.name
        for one in session.scalars(select(PhysicalNetwork).where(*mine))
        if one.id == physical.id or labels & {label for row in one.traffic_types for label in row.labels.values()}
    }
    flows = network is not None and scheme_of(network) == FLOWS
    there = Network.physical_network_id.in_(wires), Network.vnet == number, Network.removed.is_(None)
    for other in session.scalars(select(Network).where(*there)):
        if other is not network and flows != (scheme_of(other) == FLOWS) and scheme_of(other) != "vxlan":
            raise InUse(
                f"{wrong} network {other.name} has {uri_of(other)} on the same wire, and a VLAN is one of them."
            )
    if not flows:
        return
    plain = VlanRange.physical_network_id.in_(wires), VlanRange.network_id.is_(None), VlanRange.vlan == str(number)
    if (taken := session.scalar(select(VlanRange.uuid).where(*plain).limit(1))) is not None:
        raise InUse(f"{wrong} public range {taken} has vlan://{number} on the same wire: choose another.")


def _having(network: Network, number: int) -> tuple[ColumnElement[bool], ...]:
    has = (Network.vnet == number) | (Network.pvlan == number)
    same = Network.physical_network_id == network.physical_network_id, has
    return (*same, Network.removed.is_(None), Network.id != (network.id or 0))


def take_vnet(session: Session, network: Network, wanted: int | None = None) -> None:
    """Give the network a VLAN or VNI: the wanted one, or the lowest free one, those of its account alone first.

    Two networks share a number only where an operator said so; it is then taken until the last of them has gone.

    :raises NoCapacity: all are taken.
    :raises InUse: the wanted one is a plain VLAN on the same wire, or one of flows.
    """
    physical = session.get_one(PhysicalNetwork, network.physical_network_id, with_for_update=True)
    taken = set(session.scalars(select(Vnet.number).where(Vnet.physical_network_id == physical.id)))
    number = wanted
    if number:
        refuse_flows(session, physical, number, f"Invalid parameter vlan value={number}:", network)
    if number is None:
        choices = (lowest_number(ranges, taken) for ranges in ranges_for(session, physical, network.account_id))
        number = next((choice for choice in choices if choice is not None), None)
    if number is None:
        raise NoCapacity(f"Physical network {physical.name} has no free VLAN or VNI left: widen its range.")
    if number not in taken:
        session.add(Vnet(physical_network_id=physical.id, number=number, network_id=network.id))
    network.vnet = number
    session.flush()


def free_vnet(session: Session, network: Network) -> None:
    """Give the network's VLAN or VNI back, unless its offering fixes it."""
    fixed = network.offering.specify_vlan or network.guest_type == "Shared"
    if not fixed or network.removed is not None:
        for claim in session.scalars(select(Vnet).where(Vnet.network_id == network.id)).all():
            heir = session.scalar(select(Network.id).where(*_having(network, claim.number)).limit(1))
            if heir is None:
                session.delete(claim)
            else:
                claim.network_id = heir
        session.flush()
        network.vnet = None
    if network.removed is not None:
        routing.give_back(session, network)
    if network.state == "Shutdown":
        network.state = "Allocated"
