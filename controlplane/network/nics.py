"""NICs: the interfaces of guests and routers, with their addresses and MACs."""

from __future__ import annotations

import secrets
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from sqlalchemy import ForeignKey, String, UniqueConstraint, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.db.base import Base, Created, Row
from controlplane.errors import BadParameter, NoAddress
from controlplane.network.addressing import guest_range, mac_of
from controlplane.network.networks import Network
from controlplane.network.private_gateways import PrivateGateway

if TYPE_CHECKING:
    from controlplane.compute.virtual_machines import VirtualMachine
    from controlplane.network.routers import Router


class NetworkAddress(Base):
    """An address of a guest network that is taken, of either family: the primary key is why it is never given twice."""

    __tablename__ = "network_addresses"

    network_id: Mapped[int] = mapped_column(ForeignKey("networks.id", ondelete="CASCADE"), primary_key=True)
    address: Mapped[str] = mapped_column(String(40), primary_key=True)
    nic_id: Mapped[int | None] = mapped_column(ForeignKey("nics.id", ondelete="CASCADE"), index=True)


class Nic(Created, Row):
    """An interface of a virtual machine or of a router.

    A guest's NIC has a network; a router's may have a public range or a private gateway instead.

    :ivar device: position: 0 is the first.
    :ivar guest_name: the guest's host name in lower case, while nobody else may have it on the network.
    :ivar rate: Mbit/s, 0 unlimited.
    :ivar pod_id: the pod whose ranges its addresses are of, on the network of a basic zone; None until it has any.
    :ivar address6: on a network with IPv6: the one that its MAC makes, unless another was asked for.
    """

    __tablename__ = "nics"
    __table_args__ = (UniqueConstraint("network_id", "guest_name"),)

    vm_id: Mapped[int | None] = mapped_column(ForeignKey("virtual_machines.id", ondelete="CASCADE"), index=True)
    router_id: Mapped[int | None] = mapped_column(ForeignKey("routers.id", ondelete="CASCADE"), index=True)
    network_id: Mapped[int | None] = mapped_column(ForeignKey("networks.id"), index=True)
    private_gateway_id: Mapped[int | None] = mapped_column(ForeignKey("private_gateways.id"), index=True)
    range_id: Mapped[int | None] = mapped_column(ForeignKey("vlan_ranges.id"), index=True)
    traffic: Mapped[str] = mapped_column(String(20), default="Guest")
    mac: Mapped[str] = mapped_column(String(17), unique=True)
    address: Mapped[str] = mapped_column(String(40), default="")
    address6: Mapped[str] = mapped_column(String(50), default="")
    device: Mapped[int] = mapped_column(default=0)
    default: Mapped[bool] = mapped_column(default=False)
    rate: Mapped[int] = mapped_column(default=0)
    guest_name: Mapped[str | None] = mapped_column(String(63))
    pod_id: Mapped[int | None] = mapped_column(ForeignKey("pods.id"))
    network: Mapped[Network | None] = relationship()
    private_gateway: Mapped[PrivateGateway | None] = relationship()
    secondary: Mapped[list[SecondaryAddress]] = relationship(cascade="all, delete-orphan")


class SecondaryAddress(Created, Row):
    """A further address on a guest's NIC (addIpToNic)."""

    __tablename__ = "nic_secondary_addresses"
    __table_args__ = (UniqueConstraint("network_id", "address"),)

    nic_id: Mapped[int] = mapped_column(ForeignKey("nics.id", ondelete="CASCADE"), index=True)
    network_id: Mapped[int] = mapped_column(ForeignKey("networks.id"))
    address: Mapped[str] = mapped_column(String(40))


def allocate(
    session: Session,
    network: Network,
    *,
    address: str = "",
    address6: str = "",
    mac: str = "",
    vm: VirtualMachine | None = None,
    router: Router | None = None,
    device: int = 0,
    default: bool = False,
) -> Nic:
    """Make a NIC on a guest network, with an address of it.

    :param address: the wanted one; empty takes the lowest that is free, or none until it is known in which pod.
    :param address6: the wanted IPv6 address; empty takes the one that the MAC makes.
    :param mac: the wanted one; empty makes one.
    :raises BadParameter: the wanted address or MAC is not to be had.
    :raises NoAddress: the network has none left.
    """
    from controlplane.network.pod_networks import by_pods, pod_of_address

    nic = Nic(
        vm_id=vm.id if vm else None,
        router_id=router.id if router else None,
        network_id=network.id,
        mac=mac.lower() or new_mac(),
        device=device,
        default=default,
        guest_name=vm.hostname.lower() if vm else None,
    )
    if mac and session.scalar(select(Nic.id).where(Nic.mac == nic.mac)) is not None:
        raise BadParameter(f"Invalid parameter macaddress value={mac}: another interface has it.")
    session.add(nic)
    session.flush()
    if by_pods(network):
        nic.pod_id = pod_of_address(session, network, address) if address else None
    if network.cidr and (address or not by_pods(network)):
        nic.address = take_address(session, network, address, nic)
    elif address:
        raise BadParameter(f"Invalid parameter ipaddress value={address}: {_without(network, 'IPv4')}")
    if network.cidr6:
        nic.address6 = take_address6(session, network, nic, address6)
    elif address6:
        raise BadParameter(f"Invalid parameter ip6address value={address6}: {_without(network, 'IPv6')}")
    return nic


def _without(network: Network, family: str) -> str:
    own = "it is L2, and its guests choose their own" if network.guest_type == "L2" else f"it has no {family}"
    return f"network {network.name} gives no {family} addresses: {own}; leave it out."


def plug_server(session: Session, network: Network, router: Router, device: int) -> Nic:
    """Give the router of a Shared network its interface, with the addresses that it keeps there.

    An appliance that balances for an account has an address of a guest instead.
    """
    from controlplane.network.guest_ranges import address_router
    from controlplane.network.pod_networks import of_pod

    ranges = of_pod(address_router(session, network), router.pod_id)
    nic = Nic(router_id=router.id, network_id=network.id, mac=new_mac(), device=device)
    nic.pod_id = router.pod_id
    if router.balances:
        session.add(nic)
        session.flush()
        nic.address = take_address(session, network, "", nic)
        return nic
    nic.address = next((row.router_ip for row in ranges if row.router_ip), "")
    nic.address6 = next((row.router_ip6 for row in ranges if row.router_ip6), "")
    session.add(nic)
    session.flush()
    return nic


def take_address(session: Session, network: Network, address: str, nic: Nic) -> str:
    """Take an address of the network for the NIC: the wanted one, or the lowest that is free.

    :raises BadParameter: the wanted address is outside the network or taken.
    :raises NoAddress: the network has none left.
    """
    from controlplane.network.guest_ranges import SHARED, lowest_free, ranges_of, spans, taken_of
    from controlplane.network.pod_networks import must_be_placed, of_pod

    if not network.cidr:
        raise BadParameter(f"Invalid parameter ipaddress value={address}: {_without(network, 'IPv4')}")
    must_be_placed(network, nic)
    taken = taken_of(session, network)
    within = spans(network, of_pod(ranges_of(session, network), nic.pod_id) if network.guest_type == SHARED else ())
    chosen = address or lowest_free(network, within, taken)
    if chosen is None:
        texts = ", ".join(f"{first}-{last}" for first, last in within)
        raise NoAddress(f"Network {network.name} has no free address left in {texts}.")
    if address:
        _must_be_free(network, address, taken)
        if nic.router_id is None:
            _must_not_be_reserved(network, address)
        if network.guest_type == SHARED and not any(first <= IPv4Address(address) <= last for first, last in within):
            texts = ", ".join(f"{first}-{last}" for first, last in within)
            raise BadParameter(f"Invalid parameter ipaddress value={address}: guests of {network.name} have {texts}.")
    session.add(NetworkAddress(network_id=network.id, address=chosen, nic_id=nic.id))
    session.flush()
    return chosen


def _must_be_free(network: Network, address: str, taken: set[str]) -> None:
    if network.guest_type == "Isolated":
        try:
            guest_range(network.cidr or "", address, address)
        except ValueError:
            raise BadParameter(f"Invalid parameter ipaddress value={address}: it must lie in {network.cidr}.") from None
    if address in taken:
        raise BadParameter(f"Invalid parameter ipaddress value={address}: it is taken on network {network.name}.")


def take_address6(session: Session, network: Network, nic: Nic, wanted: str) -> str:
    """Take an address of the network's /64 for a NIC: the wanted one, or the one that its MAC makes.

    :raises BadParameter: the wanted address is outside the /64, the router's, or taken.
    """
    from controlplane.network.guest_ranges import address6_of

    assert network.cidr6 is not None
    block = IPv6Network(network.cidr6)
    address = str(IPv6Address(wanted)) if wanted else address6_of(session, network, nic.mac)
    mine = NetworkAddress.network_id == network.id, NetworkAddress.address == address
    if IPv6Address(address) not in block or IPv6Address(address) == block.network_address:
        raise BadParameter(f"Invalid parameter ip6address value={wanted}: it must lie in {block}.")
    if address == network.gateway6 and nic.router_id is None:
        raise BadParameter(f"Invalid parameter ip6address value={wanted}: the router of {network.name} has it.")
    if session.scalar(select(NetworkAddress.network_id).where(*mine)) is not None:
        raise BadParameter(f"Invalid parameter ip6address value={wanted}: it is taken on network {network.name}.")
    session.add(NetworkAddress(network_id=network.id, address=address, nic_id=nic.id))
    session.flush()
    return address


def _must_not_be_reserved(network: Network, address: str) -> None:
    part = network.guest_cidr
    if part and IPv4Address(address) not in IPv4Network(part):
        raise BadParameter(
            f"Invalid parameter ipaddress value={address}: it is reserved; guests of network {network.name} get "
            f"addresses of {part}."
        )


def release(session: Session, nic: Nic) -> None:
    """Remove a NIC and free its addresses; whatever leads to it must have been removed before."""
    session.execute(delete(NetworkAddress).where(NetworkAddress.nic_id == nic.id))
    session.delete(nic)
    session.flush()


def new_mac() -> str:
    """Return a random locally administered MAC; the unique index of the table keeps two from being the same."""
    return mac_of(secrets.randbits(40))
