"""A router that is one of two: which interfaces they share, and how they know one another.

Both have the same addresses under the same MACs on every interface but the link between them, so a failover changes
nothing that a guest or a neighbour could notice but the port that a switch finds the MAC on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from drivers.network.virtual_router.config import Conntrackd, Links, Redundancy
from drivers.network.virtual_router.syntax import address, identity
from drivers.redundancy import roster, shared_mac
from drivers.vocabulary import ApplianceFacts

_LINK = "Control"
_NOBODY = "0.0.0.0/32"
"""Announced where there is no IPv4 address: any frame tells a switch where the MAC is now."""
_LIBERAL = {"net.netfilter.nf_conntrack_tcp_be_liberal": "1"}
"""The other router may have seen a little less of a connection than its end points have."""


def plan(facts: ApplianceFacts, names: Mapping[str, str], links: Links) -> tuple[Redundancy | None, Conntrackd | None]:
    """Decide how this router takes its part.

    :raises ValueError: it has no interface for the link between the two, or a name is none.
    """
    wanted = facts.redundancy
    if wanted is None:
        return None, None
    device = names.get(wanted.nic)
    if device is None:
        raise ValueError(f"{facts.name} has no interface {wanted.nic} for the link to its other half.")
    own = address(wanted.address, "The router's address on the link to its other half")
    other = address(wanted.peer_address, "The other half's address on the link") if wanted.peer else ""
    members = sorted((identity(name, "The router's id"), boot) for name, boot in wanted.roster)
    redundancy = Redundancy(
        group=identity(wanted.group, "The owner's id"),
        member=identity(wanted.member, "The router's id"),
        peer=identity(wanted.peer, "The other half's id") if wanted.peer else "",
        roster=roster(members),
        rank=int(wanted.rank),
        sole=bool(wanted.sole),
        address=own,
        peer_address=other,
        announce=tuple(
            (interface.name, item)
            for interface in links.interfaces
            if interface.shared
            for item in ([text for text in interface.addresses if ":" not in text] or [_NOBODY])
        ),
    )
    return redundancy, Conntrackd(device, own, other) if wanted.peer else None


def shared(facts: ApplianceFacts, links: Links) -> Links:
    """Return the links of a redundant router: what it has in common with its other half shares a MAC with it."""
    if facts.redundancy is None:
        return links
    segments = {nic.mac: nic.segment for nic in facts.nics if nic.traffic != _LINK}
    group = facts.redundancy.group
    interfaces = tuple(
        replace(item, shared=shared_mac(group, segments[item.mac])) if item.mac in segments else item
        for item in links.interfaces
    )
    return replace(links, interfaces=interfaces, sysctls={**links.sysctls, **_LIBERAL})
