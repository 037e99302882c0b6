"""DHCP and DNS of the guests.

What changes with a guest (its lease, its names, its options) is in files that dnsmasq reads again on SIGHUP; what
changes with a network is in its configuration, which needs a restart. No path is in it: the agent names the files on
the command line, because dnsmasq leaves its working directory when it starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address

from drivers.network.virtual_router.config import DhcpRange, Dnsmasq
from drivers.network.virtual_router.syntax import DOMAIN, HOSTNAME, MAC, address, matched, network, number
from drivers.vocabulary import ApplianceFacts, Lease, Network, Nic

DATA_SERVER = "data-server"
"""By this name guests find their metadata (cloud-init's CloudStack source)."""

_VALUE = re.compile(r"[A-Za-z0-9._:/,+=@-](?:[A-Za-z0-9._:/,+=@ -]{0,253}[A-Za-z0-9._:/,+=@-])?", re.ASCII)
_OWN = frozenset({0, 1, 12, 28, *range(50, 62), 81, 82, 255})
"""Options that are the protocol's own business, or the lease's."""

_LOCAL = "localdomain"


def plan(facts: ApplianceFacts, names: Mapping[str, str]) -> Dnsmasq | None:
    """Decide DHCP and DNS; None where no network wants either.

    :raises ValueError: a name, address or option cannot be; the sentence names it.
    """
    served = [net for net in sorted(facts.networks, key=lambda net: net.id) if net.services & {"Dhcp", "Dns"}]
    if not served:
        return None
    nics = {nic.mac: nic for nic in facts.nics}
    upstreams = tuple(address(item, "The resolver") for item in facts.dns)
    lines: tuple[list[str], list[str], list[str]] = ([], [], [])
    for net in served:
        for lease in sorted(net.leases):
            _lease(net, lease, names[net.nic], lines)
        lines[1].append(f"{nics[net.nic].address} {DATA_SERVER}.{_domain(net)} {DATA_SERVER}")
    return Dnsmasq(
        ranges=tuple(_range(net, nics[net.nic], names, upstreams) for net in served),
        upstreams=upstreams,
        serves_names=any("Dns" in net.services for net in served),
        hosts=tuple(sorted(lines[0])),
        names=tuple(sorted(lines[1])),
        options=tuple(sorted(lines[2])),
    )


def _domain(net: Network) -> str:
    return matched(DOMAIN, net.domain or _LOCAL, f"The domain of network {net.id}", "a domain name such as cs1.local")


def _range(net: Network, nic: Nic, names: Mapping[str, str], upstreams: tuple[str, ...]) -> DhcpRange:
    block = network(net.cidr, f"The CIDR of network {net.id}")
    own = address(nic.address, f"The router's address on network {net.id}")
    if not 576 <= net.mtu <= 65535:  # noqa: PLR2004
        raise ValueError(f"The MTU of network {net.id} is {net.mtu}: it must be 576 to 65535.")
    return DhcpRange(
        tag=names[net.nic],
        device=names[net.nic],
        start=str(block.network_address),
        netmask=str(block.netmask),
        address=own,
        gateway=address(net.gateway, f"The gateway of network {net.id}") if net.gateway else own,
        domain=_domain(net),
        resolvers=(own,) if "Dns" in net.services else upstreams,
        mtu=net.mtu,
        dhcp="Dhcp" in net.services,
    )


def _lease(net: Network, lease: Lease, device: str, lines: tuple[list[str], list[str], list[str]]) -> None:
    """Add a guest's lines: its lease, its names, its options."""
    hosts, names, options = lines
    block = network(net.cidr, f"The CIDR of network {net.id}")
    what = f"guest {lease.vm} on network {net.id}"
    if IPv4Address(number(lease.address, f"The address of {what}")) not in block:
        raise ValueError(f"The address {lease.address} of {what} is not in {net.cidr}.")
    name = matched(HOSTNAME, lease.hostname, f"The host name of {what}", "letters, digits and dashes, 63 at most")
    mac = matched(MAC, lease.mac, f"The MAC of {what}", "six pairs of lower case hex digits with colons between them")
    names.append(f"{lease.address} {name}.{_domain(net)} {name}")
    if "Dhcp" not in net.services:
        return
    own = f"g{mac.replace(':', '')}"
    tags = [f"set:{device}", f"set:{own}", *(["set:default"] if lease.default else [])]
    hosts.append(f"{mac},{','.join(tags)},{lease.address},{name}")
    for number_, value in lease.options:
        if number_ in _OWN or not 0 < number_ < 255:  # noqa: PLR2004
            raise ValueError(f"The DHCP option {number_} of {what} is refused: it is the DHCP server's own.")
        matched(_VALUE, value, f"The DHCP option {number_} of {what}", "plain text without quotes or line breaks")
        options.append(f"tag:{own},{number_},{value}")
