"""Which networks a new machine is put on, and which addresses it asks for there."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from controlplane.api.context import Context, visible
from controlplane.compute.dhcp_options import option_numbers
from controlplane.compute.virtual_machines import GONE, VirtualMachine
from controlplane.errors import BadParameter
from controlplane.identity.accounts import Account
from controlplane.network.network_permissions import require_use
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.pod_networks import by_pods, network_of, pod_of_address
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.zone.pods import Pod
from controlplane.zone.zones import BASIC, Zone

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LABEL = re.compile(r"[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")

Records = Sequence[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Wish:
    """One NIC that is asked for: on this network, with these addresses and MAC where they are not empty."""

    network: Network
    address: str = ""
    mac: str = ""
    address6: str = ""


def ipv4(value: str) -> str:
    """Accept an IPv4 address."""
    try:
        return str(ipaddress.IPv4Address(value.strip()))
    except ValueError:
        raise ValueError("it must be an IPv4 address such as 10.1.1.5") from None


def ipv6(value: str) -> str:
    """Accept an IPv6 address."""
    try:
        if "%" in value:
            raise ValueError
        return str(ipaddress.IPv6Address(value.strip()))
    except ValueError:
        raise ValueError("it must be an IPv6 address such as 2001:db8:1::5") from None


def mac(value: str) -> str:
    """Accept a unicast MAC address, and write it in lower case."""
    text = value.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(text) or int(text[:2], 16) & 1 or text == "00:00:00:00:00:00":
        raise ValueError("it must be a unicast MAC address such as 02:00:4c:5f:00:01")
    return text


def host_name(value: str) -> str:
    """Accept a host name: one label of RFC 1123 that begins with a letter."""
    if not _LABEL.fullmatch(value):
        raise ValueError(
            "a host name has 1 to 63 letters, digits and hyphens, begins with a letter and does not end with a hyphen"
        )
    return value


def listed(ctx: Context, records: Records) -> list[Wish]:
    """Read ``iptonetworklist``: records of ``networkid``, ``ip``, ``ipv6``, ``mac``.

    :raises BadParameter: a record is malformed, or names a network that the caller may not use.
    """
    wishes = []
    for record in records:
        for name in record:
            if name not in ("networkid", "ip", "ipv6", "mac"):
                raise BadParameter(
                    f"Invalid parameter iptonetworklist: {name} is not supported; use networkid, ip, ipv6, mac."
                )
        network = ctx.find(Network, record.get("networkid", ""), "iptonetworklist.networkid")
        assert isinstance(network, Network)
        given = _checked("ip", record, ipv4), _checked("mac", record, mac), _checked("ipv6", record, ipv6)
        wishes.append(Wish(network, *given))
    return wishes


def _checked(field: str, record: dict[str, str], check: object) -> str:
    text = record.get(field, "")
    if not text:
        return ""
    try:
        return str(check(text))  # type: ignore[operator]
    except ValueError as error:
        raise BadParameter(f"Invalid parameter iptonetworklist.{field} value={text}: {error}.") from None


def check_wishes(session: Session, wishes: Sequence[Wish], zone: Zone, owner: Account) -> None:
    """Make sure that the owner may put a machine of this zone on these networks.

    :raises BadParameter: a network is twice in the list, in another zone, or being removed.
    :raises Forbidden: a network is neither the account's, nor its domain's, nor was it permitted to use it.
    """
    seen: set[int] = set()
    for network in (wish.network for wish in wishes):
        if network.id in seen:
            raise BadParameter(f"Invalid parameter networkids: network {network.name} is in it twice.")
        seen.add(network.id)
        if network.zone_id != zone.id:
            raise BadParameter(f"Invalid parameter networkids: network {network.name} is not in zone {zone.name}.")
        if network.state in ("Destroy", "Shutdown"):
            raise BadParameter(f"Invalid parameter networkids: network {network.name} is being shut down.")
        require_use(session, network, owner)


def pod_of_wishes(session: Session, wishes: Sequence[Wish], place: Pod | None) -> int | None:
    """Return the pod where a machine must run for the addresses that it asks for; None where any will do.

    :param place: the pod that is asked for.
    :raises BadParameter: an address is another pod's.
    """
    for wish in wishes:
        if not wish.address or not by_pods(wish.network):
            continue
        number = pod_of_address(session, wish.network, wish.address)
        if place is not None and place.id != number:
            theirs = session.get_one(Pod, number).name
            raise BadParameter(
                f"Invalid parameter ipaddress value={wish.address}: it is an address of pod {theirs}, and pod "
                f"{place.name} was asked for."
            )
        return number
    return None


def check_name(ctx: Context, hostname: str, networks: Iterable[Network], but: VirtualMachine | None = None) -> None:
    """Make sure that no other machine has this host name on one of the networks, or on a tier of the same VPC.

    :raises BadParameter: one has.
    """
    there = list(networks)
    query = (
        select(Network.name)
        .join(Nic, Nic.network_id == Network.id)
        .join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
        .where(
            Network.id.in_([network.id for network in there]) | Network.vpc_id.in_([n.vpc_id for n in there]),
            func.lower(VirtualMachine.hostname) == hostname.lower(),
            VirtualMachine.removed.is_(None),
            VirtualMachine.state.not_in(GONE),
            VirtualMachine.id != (but.id if but else 0),
        )
    )
    name = ctx.session.scalar(query.limit(1))
    if name is not None:
        raise BadParameter(
            f"Invalid parameter name value={hostname}: network {name} has a machine of this name already."
        )


def hold_name(session: Session, vm: VirtualMachine) -> None:
    """Have the machine's host name be its own on its networks: a unique index keeps every other machine from it."""
    session.execute(update(Nic).where(Nic.vm_id == vm.id).values(guest_name=vm.hostname.lower()))


def free_name(session: Session, vm: VirtualMachine) -> None:
    """Let others have the machine's host name: it is gone, though its interfaces may still be there."""
    session.execute(update(Nic).where(Nic.vm_id == vm.id).values(guest_name=None))


def own_network(ctx: Context, zone: Zone, owner: Account) -> Network:
    """Return the network for a machine of a caller who names none: the owner's only one, or a new default one.

    In a basic zone it is the zone's.

    :raises BadParameter: the owner has several, or there is no offering to make one from.
    """
    if zone.network_type == BASIC:
        return _network_of_all(ctx, zone)
    query = select(Network).where(
        Network.account_id == owner.id,
        Network.zone_id == zone.id,
        Network.guest_type == "Isolated",
        Network.vpc_id.is_(None),
        Network.removed.is_(None),
        Network.state.not_in(("Destroy", "Shutdown")),
        visible(Network, ctx.caller),
    )
    networks = [network for network in ctx.session.scalars(query) if "SourceNat" in network.offering.services]
    if len(networks) > 1:
        names = ", ".join(sorted(network.name for network in networks))
        raise BadParameter(f"Parameter networkids is missing: account {owner.name} has several networks: {names}.")
    return networks[0] if networks else _new_network(ctx, zone, owner)


def _network_of_all(ctx: Context, zone: Zone) -> Network:
    found = network_of(ctx.session, zone)
    if found is None:
        raise BadParameter(
            f"Invalid parameter zoneid value={zone.uuid}: zone {zone.name} has no guest network yet; an admin makes it "
            "(createNetwork)."
        )
    return found


def _new_network(ctx: Context, zone: Zone, owner: Account) -> Network:
    from controlplane.network.create_network import make_network

    query = select(NetworkOffering).where(
        NetworkOffering.availability == "Required",
        NetworkOffering.state == "Enabled",
        NetworkOffering.guest_type == "Isolated",
        NetworkOffering.removed.is_(None),
    )
    offering = ctx.session.scalar(query.order_by(NetworkOffering.id).limit(1))
    if offering is None:
        raise BadParameter(
            "Parameter networkids is missing, and there is no Required network offering to make one from."
        )
    return make_network(ctx, owner, zone, offering, f"{owner.name}-network")


def dhcp_options(records: Records, networks: Iterable[Network]) -> dict[str, dict[str, str]]:
    """Read ``dhcpoptionsnetworklist``: records of ``networkid`` and ``dhcp:NUMBER``.

    :return: network UUID → option number → value.
    :raises BadParameter: an option or its value would not do, or the machine is not on the network.
    """
    known = {network.uuid for network in networks}
    found: dict[str, dict[str, str]] = {}
    for record in records:
        network = record.get("networkid", "").lower()
        if network not in known:
            raise BadParameter(f"Invalid parameter dhcpoptionsnetworklist: the machine is not on network {network}.")
        options = {name: value for name, value in record.items() if name != "networkid"}
        found.setdefault(network, {}).update(option_numbers(options))
    return found
