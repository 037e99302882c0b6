"""What is on the config drives of a host's guests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from ipaddress import IPv4Network

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from controlplane.compute.config_drives import by_drive
from controlplane.compute.guests import described
from controlplane.compute.virtual_machines import GONE, VirtualMachine
from controlplane.network.guest_ranges import SHARED, range_with, ranges_of, subnet_of
from controlplane.network.ipv6_prefixes import SUBNET
from controlplane.network.networks import Network, services_of
from controlplane.network.nics import Nic
from controlplane.zone.hosts import Host
from drivers.config_drive import DHCP, STATIC, ConfigDrive, DriveLink


def drive_facts(session: Session, host: Host) -> tuple[ConfigDrive, ...]:
    """Return the drives of the guests that the host is to hold, by the guest's UUID."""
    here = VirtualMachine.host_id == host.id, VirtualMachine.removed.is_(None), VirtualMachine.state.not_in(GONE)
    first = select(Network).join(Nic).join(VirtualMachine, Nic.vm_id == VirtualMachine.id).where(*here, Nic.default)
    networks = session.scalars(first.options(joinedload(Network.offering)).distinct()).unique()
    telling = [network for network in networks if by_drive(network, "UserData")]
    if not telling:
        return ()
    links = _links(session, host, {network.id for network in telling})
    told = [one for network in telling for one in described(session, network, here[0], Nic.default.is_(True))]
    return tuple(
        ConfigDrive(one.vm, one.items, one.user_data, one.password, links[one.vm])
        for one in sorted(told, key=lambda one: one.vm)
    )


def _links(session: Session, host: Host, telling: Iterable[int]) -> dict[str, tuple[DriveLink, ...]]:
    """Return the NICs of the guests that these networks tell about themselves, by the guest's UUID."""
    default = select(Nic.vm_id).where(Nic.default, Nic.network_id.in_(telling))
    query = (
        select(VirtualMachine.uuid, Nic)
        .join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
        .where(VirtualMachine.host_id == host.id, Nic.vm_id.in_(default))
        .order_by(Nic.vm_id, Nic.device)
        .options(joinedload(Nic.network).options(joinedload(Network.offering), joinedload(Network.zone)))
    )
    found: dict[str, list[DriveLink]] = defaultdict(list)
    for uuid, nic in session.execute(query):
        found[uuid].append(_link(session, nic))
    return {uuid: tuple(links) for uuid, links in found.items()}


def _link(session: Session, nic: Nic) -> DriveLink:
    network = nic.network
    assert network is not None
    services = services_of(network)
    method = (STATIC if by_drive(network, "Dhcp") else DHCP) if "Dhcp" in services else ""
    subnet, gateway = _subnet(session, network, nic.address)
    return DriveLink(
        device=nic.device,
        mac=nic.mac,
        network=network.uuid,
        mtu=network.mtu,
        method=method,
        address=nic.address,
        prefix=subnet.prefixlen if subnet else 0,
        gateway=gateway if nic.default else "",
        address6=nic.address6,
        prefix6=SUBNET if nic.address6 else 0,
        gateway6=(network.gateway6 or "") if nic.default else "",
        dns=_resolvers(network) if by_drive(network, "Dns") else (),
    )


def _subnet(session: Session, network: Network, address: str) -> tuple[IPv4Network | None, str]:
    """Return the subnet that an address of the network is in, and its gateway; a Shared network has several."""
    own = range_with(ranges_of(session, network), address) if network.guest_type == SHARED and address else None
    if own is not None:
        return subnet_of(own), own.gateway or ""
    return (IPv4Network(network.cidr) if network.cidr else None), network.gateway or ""


def _resolvers(network: Network) -> tuple[str, ...]:
    zone = network.zone
    of_zone = zone.dns1, zone.dns2, zone.ip6_dns1, zone.ip6_dns2
    return tuple(address for address in (*network.dns, *network.dns6) or of_zone if address)
