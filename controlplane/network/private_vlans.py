"""Private VLANs (RFC 5517): networks that share a primary VLAN and hear each other by their roles only.

All members hear the promiscuous ones, with the gateway among them, and are heard by them. Members of a community hear
each other besides; isolated ones hear nobody else. Each network has a VLAN of its own below the primary one, except a
promiscuous one, which has the primary VLAN itself. A router of ours always is promiscuous.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.errors import BadParameter, InUse
from controlplane.network.networks import COMMUNITY, ISOLATED, PROMISCUOUS, Network
from controlplane.network.nics import Nic
from controlplane.network.routers import Router
from controlplane.network.vnets import refuse_overlap
from controlplane.zone import vnet_ranges
from controlplane.zone.hosts import Host
from controlplane.zone.physical_networks import PhysicalNetwork, Vnet

TYPES = (ISOLATED, COMMUNITY, PROMISCUOUS, "none")


@dataclass(frozen=True, slots=True)
class PrivateVlan:
    """A network's place in a private VLAN: the primary VLAN, and the one of its own, which has this role."""

    primary: int
    secondary: int
    role: str

    @property
    def numbers(self) -> set[int]:
        """Both VLANs."""
        return {self.primary, self.secondary}

    def conflict(self, name: str, other: PrivateVlan) -> str:
        """Say why another network, which has that place, does not let this one be; empty when it does."""
        if self.primary != other.primary:
            both = sorted(self.numbers & other.numbers)
            return f"VLAN {both[0]} is of network {name}, whose primary VLAN is {other.primary}" if both else ""
        if self.secondary == other.secondary and self.role != other.role:
            return f"VLAN {self.secondary} is {other.role} on network {name}"
        if self.role == other.role == ISOLATED and self.secondary != other.secondary:
            return f"a private VLAN has one isolated VLAN, which is {other.secondary} on network {name}"
        return ""


def named(network: Network, asked: Any) -> PrivateVlan | None:
    """Read what createNetwork says of a private VLAN; None where it says nothing.

    :param asked: the command: its vlan, isolatedpvlan and isolatedpvlantype.
    :raises BadParameter: the network cannot be in one, or the numbers and the role contradict each other.
    """
    secondary, role = asked.isolatedpvlan, (asked.isolatedpvlantype or "").lower()
    if secondary is None and role in ("", "none"):
        return None
    what = f"isolatedpvlan value={secondary}" if secondary is not None else f"isolatedpvlantype value={role}"
    wrong, physical = f"Invalid parameter {what}:", network.physical_network
    if network.guest_type == "Isolated":
        raise BadParameter(f"{wrong} private VLANs are for Shared and L2 networks; an isolated network is alone.")
    if physical.isolation != "VLAN":
        raise BadParameter(f"{wrong} physical network {physical.name} isolates by {physical.isolation}, not by VLAN.")
    if asked.vlan is None:
        raise BadParameter(f"{wrong} the primary VLAN must be named, too: vlan, with an offering that wants one.")
    primary = _number("vlan", asked.vlan)
    own = primary if secondary is None else _number("isolatedpvlan", secondary)
    role = role or (PROMISCUOUS if own == primary else ISOLATED)
    if role == "none":
        raise BadParameter(f"{wrong} isolatedpvlantype=none is for networks without one.")
    if (own == primary) != (role == PROMISCUOUS):
        raise BadParameter(
            f"{wrong} a promiscuous network has the primary VLAN itself (isolatedpvlan={primary}, or none given), an "
            f"isolated or community one another; {role} and {own} on {primary} do not go together."
        )
    return PrivateVlan(primary, own, role)


def _number(parameter: str, text: str) -> int:
    number = text.strip().lower().removeprefix("vlan://")
    if not (number.isascii() and number.isdigit() and 1 <= int(number) <= vnet_ranges.HIGHEST["VLAN"]):
        raise BadParameter(
            f"Invalid parameter {parameter} value={text}: in a private VLAN it is a VLAN from 1 to 4094."
        )
    return int(number)


def take(session: Session, network: Network, place: PrivateVlan, *, sharing: bool) -> None:
    """Give the network its place.

    :param sharing: an operator said so: another network may have the very same one, and both are one wire then.
    :raises InUse: another network stands in the way; it is named.
    :raises BadParameter: a VLAN is one of those that isolated networks are given by themselves.
    """
    physical = session.get_one(PhysicalNetwork, network.physical_network_id, with_for_update=True)
    wrong = f"Invalid parameter isolatedpvlan value={place.secondary}:"
    others = _others(session, network, place.numbers)
    if problems := [problem for other in others if (problem := _problem(place, other, sharing=sharing))]:
        raise InUse(f"{wrong} {'; '.join(problems)}.")
    known = {number for other in others if (held := place_of(other)) for number in held.numbers}
    for number in sorted(place.numbers - known):
        if not sharing:
            refuse_overlap(session, network, number)
        if session.get(Vnet, (physical.id, number)) is not None:
            raise InUse(f"{wrong} VLAN {number} is taken on physical network {physical.name}.")
        session.add(Vnet(physical_network_id=physical.id, number=number, network_id=network.id))
    network.vnet, network.pvlan, network.pvlan_role = place.primary, place.secondary, place.role
    session.flush()


def _problem(place: PrivateVlan, other: Network, *, sharing: bool) -> str:
    held = place_of(other)
    if held is None:
        return f"network {other.name} has VLAN {other.vnet}, which is not private"
    if held == place and not sharing:
        return f"network {other.name} has this very place; bypassvlanoverlapcheck=true puts both on one wire"
    return place.conflict(other.name, held)


def refuse_mixed(session: Session, network: Network, number: int) -> None:
    """Refuse a VLAN that is part of a private one to a network that is not, whatever an operator says.

    :raises InUse: names a network of the private VLAN.
    """
    for other in _others(session, network, {number}):
        if (place := place_of(other)) is not None:
            raise InUse(
                f"Invalid parameter vlan value={number}: it is part of the private VLAN {place.primary} of network "
                f"{other.name}: name isolatedpvlan, too, or choose another."
            )


def place_of(network: Network) -> PrivateVlan | None:
    """Return the network's place in a private VLAN, if it is in one."""
    if network.pvlan is None or network.vnet is None:
        return None
    return PrivateVlan(network.vnet, network.pvlan, network.pvlan_role)


def _others(session: Session, network: Network, numbers: Iterable[int]) -> Sequence[Network]:
    """Return the other networks of the physical network with one of these VLANs, and those below them."""
    there = Network.physical_network_id == network.physical_network_id, Network.removed.is_(None)
    touching = Network.vnet.in_(numbers) | Network.pvlan.in_(numbers)
    return session.scalars(select(Network).where(*there, touching, Network.id != network.id).order_by(Network.id)).all()


def below(session: Session, network: Network) -> tuple[int, ...]:
    """Return the VLANs below the network's primary one, which its promiscuous members hear."""
    mine = Network.physical_network_id == network.physical_network_id, Network.vnet == network.vnet
    query = select(Network.pvlan).where(*mine, Network.removed.is_(None), Network.pvlan != Network.vnet).distinct()
    return tuple(sorted(number for number in session.scalars(query) if number is not None))


def hearing_hosts(session: Session, network: Network) -> Sequence[Host]:
    """Return the hosts with promiscuous members of the network's private VLAN: they must know all VLANs below it."""
    if network.pvlan is None:
        return []
    mine = Network.physical_network_id == network.physical_network_id, Network.vnet == network.vnet
    private = Network.pvlan.is_not(None)
    guests = select(VirtualMachine.host_id).join(Nic, Nic.vm_id == VirtualMachine.id).join(Network)
    guests = guests.where(*mine, Network.pvlan_role == PROMISCUOUS)
    routers = select(Router.host_id).join(Nic, Nic.router_id == Router.id).join(Network, Nic.network_id == Network.id)
    here = Host.id.in_(guests) | Host.id.in_(routers.where(*mine, private))
    return session.scalars(select(Host).where(here).order_by(Host.id)).all()
