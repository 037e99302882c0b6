"""What each guest may read about itself, by the address that it asks from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from drivers.network.virtual_router import ipv6, subnets
from drivers.network.virtual_router.syntax import address, address6, identity, matched
from drivers.vocabulary import ApplianceFacts, Network, Nic

_ITEM = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/_=-]*", re.ASCII)


def plan(facts: ApplianceFacts, names: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Decide what the metadata and password servers hold; None where no network wants them.

    :raises ValueError: a path or user data is malformed.
    """
    served = [net for net in sorted(facts.networks, key=lambda net: net.id) if "UserData" in net.services]
    if not served:
        return None
    nics = {nic.mac: nic for nic in facts.nics}
    return {"networks": [_network(net, nics[net.nic], names[net.nic]) for net in served]}


def _network(net: Network, nic: Nic, device: str) -> dict[str, Any]:
    """Return one network: ``aliases`` are further addresses that its guests ask from, ``further`` those of its own."""
    guests = {}
    aliases: dict[str, str] = {}
    for guest in sorted(net.metadata, key=lambda guest: (guest.address, guest.vm)):
        what = f"guest {guest.vm} on network {net.id}"
        sources = [address6(source, f"The IPv6 address of {what}") for source in guest.sources6] if net.cidr6 else []
        key = address(guest.address, f"The address of {what}") if net.cidr else sources[0]
        aliases |= {source: key for source in sources if source != key}
        guests[key] = {
            "vm": identity(guest.vm, "The guest"),
            "items": {
                matched(_ITEM, path, f"The metadata path of {what}", "a relative path such as instance-id"): value
                for path, value in sorted(guest.items)
            },
            "user_data": matched(_BASE64, guest.user_data, f"The user data of {what}", "base64"),
            "password": guest.password,
        }
    found: dict[str, Any] = {"address": nic.address, "interface": device, "guests": guests}
    if further := [subnet.address for subnet in subnets.of(net, nic) if subnet.address != nic.address]:
        found["further"] = further
    if net.cidr6:
        found |= {"addresses6": [net.gateway6, ipv6.METADATA_ADDRESS], "aliases": aliases}
    return found
