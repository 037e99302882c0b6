"""What the ports of guests may send, and what may reach them, as elements of a packet filter that never changes.

A port is known by the name of its cable on the host. What guards it is a *profile*: a number for its groups taken
together, which the bridge's hooks write on a frame as its mark and the groups' rules begin with. So a packet costs the
same few look-ups however many rules there are, and a change of a rule, a member or a port is a change of elements.

Whatever a tenant wrote cannot stop the others: a rule that cannot be is left out, which lets less pass, and is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv6Address, ip_address

from drivers.hypervisor.namespace import groups
from drivers.hypervisor.namespace.config import FilterConfig, SegmentConfig, port_name
from drivers.network.virtual_router.syntax import MAC
from drivers.security import PortFilter
from drivers.vocabulary import HostFacts

Elements = dict[str, list[str]]

_BRIDGE_SETS = (
    "guards", "lladdrs", "macs", "ports", "refused", "requests", "senders", "solicitors",
    "speakers4", "speakers6", "targets",
)  # fmt: skip
_INET_SETS = ("circles4", "circles6", "open", "servers4", "servers6", "zones", *groups.SETS)


def plan(facts: HostFacts, segments: Iterable[SegmentConfig]) -> FilterConfig:
    """Decide the filter; a port that is not among ``facts.filters`` neither sends nor receives."""
    ports = sorted(set(facts.filters), key=lambda port: port.nic)
    elements: Elements = {}
    refused: list[tuple[str, str]] = []
    for port in ports:
        try:
            _add(elements, _held(port))
        except ValueError as error:
            refused.append((port.nic, str(error)))
    guarded = {port.nic: groups.Profile.of(port) for port in ports if port.groups is not None}
    if guarded:
        guard = groups.Guard(sorted(set(guarded.values())), facts.groups, facts.members)
        _add(elements, guard.elements)
        _add(elements, {"guards": [f"{port_name(nic)} : {guard.mark(profile)}" for nic, profile in guarded.items()]})
        _add(elements, {"zones": [f"{segment.bridge} : {segment.zone}" for segment in segments if segment.zone]})
        refused += guard.refused
    names = _BRIDGE_SETS + (_INET_SETS if guarded else ())
    chosen = {name: tuple(sorted(set(elements.get(name, ())))) for name in names}
    return FilterConfig(bool(guarded), chosen, tuple(sorted(set(refused))))


def zones(filters: Iterable[PortFilter]) -> dict[str, int]:
    """Return a number from 1 to 65535 for each segment with a guarded port: its connections are kept apart."""
    guarded = {(port.segment,) for port in filters if port.groups is not None}
    return {segment: number for (segment,), number in groups.numbered(guarded, 0xFFFF).items()}


def link_local(mac: str) -> str:
    """Return the IPv6 address that an interface gives itself (RFC 4291, appendix A)."""
    octets = [int(part, 16) for part in mac.split(":")]
    parts = (octets[0] ^ 2, octets[1], octets[2], 0xFF, 0xFE, *octets[3:])
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + bytes(parts)))


def _held(port: PortFilter) -> Elements:
    """Return what one port may send.

    :raises ValueError: its MAC or an address is none; it sends nothing then.
    """
    name = port_name(port.nic)
    if not MAC.fullmatch(port.mac):
        raise ValueError(f"The MAC {port.mac!r} of NIC {port.nic} is refused: it must be like 02:00:00:00:00:01.")
    chain = "anything" if port.forged else "by_mac" if port.addresses is None else "by_address"
    counter = f'counter comment "nic_{_short(port.nic)}_refused"'
    elements: Elements = {"ports": [name], "refused": [f"{name} {counter}"], "senders": [f"{name} : goto {chain}"]}
    if port.forged:
        return elements
    elements["macs"] = [f"{name} . {port.mac}"]
    if port.addresses is None:
        return elements
    mac = port.mac.replace(":", "")
    spoken = [ip_address(text) for text in (*port.addresses, link_local(port.mac))]
    return elements | {
        "speakers4": [f"{name} . {address}" for address in spoken if address.version == 4],
        "speakers6": [f"{name} . {address}" for address in spoken if address.version == 6],
        # Fields that nft has no name for are looked up as numbers: an address, a MAC, an option with its head.
        "targets": [f"{name} . {int(address):#034x}" for address in spoken if address.version == 6],
        "lladdrs": [f"{name} . 0x{kind}{mac}" for kind in ("0101", "0201")],
        "solicitors": [f"{name} . 0x0101{mac}"],
        "requests": [f"{name} . 0x{mac}"],
    }


def _short(text: str) -> str:
    """Return an id as it stands in a counter's name (see ``systemvm.ports.Port.counter``)."""
    short = text.replace("-", "")
    return short if short.isalnum() else hashlib.blake2s(text.encode(), digest_size=16).hexdigest()


def _add(elements: Elements, more: Mapping[str, Sequence[str]]) -> None:
    for name, items in more.items():
        elements.setdefault(name, []).extend(items)
