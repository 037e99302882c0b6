"""DHCP and DNS of the guests.

What changes with a guest (its lease and its names) is in files that dnsmasq reads again on SIGHUP; what changes with a
network is in its configuration, which needs a restart. No path is in it: the agent names the files on the command
line, because dnsmasq leaves its working directory when it starts.

A guest that comes needs a SIGHUP. One that goes, or changes its address, needs a restart (some 50 ms, and nothing is
forgotten that matters, as every address is given by the files): a running dnsmasq keeps the lease, answers to its name
and gives its address to nobody else. So the agent restarts it when a line of ``dhcp-hosts`` is no longer there.

A lease sets no tag: dnsmasq 2.90 chains the tags of a dhcp-host with those of the request, and when it reads the file
again it frees the whole chain, and falls. The few guests that need a tag (another default network, options of their
own) get theirs in the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from drivers.network.virtual_router import ipv6, subnets
from drivers.network.virtual_router.config import DhcpRange, Dnsmasq, SpecialGuest
from drivers.network.virtual_router.syntax import (
    DOMAIN,
    HOSTNAME,
    MAC,
    address,
    address6,
    matched,
    network,
    network6,
    number,
)
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
    wanting = {"Dhcp", "Dns"}
    served = [net for net in sorted(facts.networks, key=lambda net: net.id) if net.cidr6 or net.services & wanting]
    if not served:
        return None
    nics = {nic.mac: nic for nic in facts.nics}
    upstreams = tuple(address(item, "The resolver") for item in facts.dns)
    upstreams6 = tuple(address6(item, "The resolver") for item in facts.dns6)
    hosts: list[str] = []
    guests: list[str] = []
    special: list[SpecialGuest] = []
    for net in served:
        guests += [
            f"{own} {DATA_SERVER}.{_domain(net)} {DATA_SERVER}"
            for own in (*(subnet.address for subnet in subnets.of(net, nics[net.nic])), net.gateway6)
            if own
        ]
        for lease in sorted(net.leases):
            name, found = _name(net, lease), _lease_addresses(net, lease)
            guests += [f"{own} {name}.{_domain(net)} {name}" for own in found]
            if "Dhcp" in net.services:
                hosts.append(",".join([lease.mac, *(f"[{own}]" if ":" in own else own for own in found), name]))
                special += _special(net, lease)
    return Dnsmasq(
        ranges=tuple(item for net in served for item in _ranges(net, nics[net.nic], names, upstreams)),
        upstreams=upstreams + upstreams6,
        serves_names=any("Dns" in net.services for net in served),
        hosts=tuple(sorted(hosts)),
        names=tuple(sorted(guests)),
        special=tuple(sorted(special, key=lambda guest: guest.mac)),
        prefixes=tuple(ipv6.prefix(net, names, _domain(net), upstreams6) for net in ipv6.served(facts)),
    )


def _domain(net: Network) -> str:
    return matched(DOMAIN, net.domain or _LOCAL, f"The domain of network {net.id}", "a domain name such as cs1.local")


def _ranges(net: Network, nic: Nic, names: Mapping[str, str], upstreams: tuple[str, ...]) -> list[DhcpRange]:
    """Return what is served on the network: a range for each of its subnets."""
    leads = net.elastic is not None and net.elastic.way_out
    if not 576 <= net.mtu <= 65535:
        raise ValueError(f"The MTU of network {net.id} is {net.mtu}: it must be 576 to 65535.")
    found, within = [], subnets.of(net, nic)
    for position, subnet in enumerate(within):
        block = network(subnet.cidr, f"The CIDR of network {net.id}")
        found.append(
            DhcpRange(
                # every request carries its interface's name as a tag, so that names no subnet among several
                tag=f"{names[net.nic]}n{position}" if len(within) > 1 else names[net.nic],
                device=names[net.nic],
                start=str(block.network_address),
                netmask=str(block.netmask),
                address=subnet.address,
                gateway=subnet.address if leads or not subnet.gateway else subnet.gateway,
                domain=_domain(net),
                resolvers=(subnet.address,) if "Dns" in net.services else upstreams,
                mtu=net.mtu,
                dhcp="Dhcp" in net.services,
            )
        )
    return found


def _name(net: Network, lease: Lease) -> str:
    """Return the guest's host name, it and the MAC having been checked."""
    what = f"guest {lease.vm} on network {net.id}"
    matched(MAC, lease.mac, f"The MAC of {what}", "six pairs of lower case hex digits with colons between them")
    return matched(HOSTNAME, lease.hostname, f"The host name of {what}", "letters, digits and dashes, 63 at most")


def _lease_addresses(net: Network, lease: Lease) -> list[str]:
    """Return the guest's addresses, which are on its network."""
    what = f"guest {lease.vm} on network {net.id}"
    found = []
    if net.cidr:
        cidrs = [subnet.cidr for subnet in net.subnets if ":" not in subnet.cidr] or [net.cidr]
        blocks = [network(cidr, f"The CIDR of network {net.id}") for cidr in cidrs]
        if not any(IPv4Address(number(lease.address, f"The address of {what}")) in block for block in blocks):
            raise ValueError(f"The address {lease.address} of {what} is not in {', '.join(cidrs)}.")
        found.append(lease.address)
    if net.cidr6 and lease.address6:
        own = address6(lease.address6, f"The IPv6 address of {what}")
        if IPv6Address(own) not in network6(net.cidr6, f"The IPv6 CIDR of network {net.id}"):
            raise ValueError(f"The address {own} of {what} is not in {net.cidr6}.")
        found.append(own)
    return found


def _special(net: Network, lease: Lease) -> list[SpecialGuest]:
    """Return the guest if it is told anything but what all are told."""
    if lease.default and not lease.options:
        return []
    what = f"of guest {lease.vm} on network {net.id}"
    for code, value in lease.options:
        if code in _OWN or not 0 < code < 255:
            raise ValueError(f"The DHCP option {code} {what} is refused: it is the DHCP server's own.")
        matched(_VALUE, value, f"The DHCP option {code} {what}", "plain text without quotes or line breaks")
    return [SpecialGuest(lease.mac, f"g{lease.mac.replace(':', '')}", lease.default, tuple(sorted(lease.options)))]
