"""BGP: which prefixes the router announces, and to whom (RFC 4271).

It listens to nothing that it is told: its way out is the gateway of its public range, and it carries no transit.
"""

from __future__ import annotations

import re

from drivers.network.virtual_router.config import Bgp, Neighbor
from drivers.network.virtual_router.filters import Elements
from drivers.network.virtual_router.links import ordered
from drivers.network.virtual_router.syntax import address, address6, matched, network, network6
from drivers.vocabulary import ApplianceFacts

_PASSWORD = re.compile(r"[\x21-\x7e]{1,80}", re.ASCII)
_LAST_NUMBER, _MOST_HOPS = 4294967294, 255


def plan(facts: ApplianceFacts) -> Bgp | None:
    """Decide the BGP speaker; None where the router has no peers, or no address of its own to speak from.

    :raises ValueError: a number, an address or a password cannot be; the sentence names it.
    """
    wanted, own = facts.bgp, ordered(facts.addresses)
    if wanted is None or not wanted.peers or not own:
        return None
    routed = [net for net in facts.networks if net.routed]
    return Bgp(
        number=_number(wanted.number),
        router=own[0].address,
        neighbors=_neighbors(facts),
        prefixes=tuple(sorted(str(network(net.cidr, "The CIDR")) for net in routed if net.cidr)),
        prefixes6=tuple(sorted(str(network6(net.cidr6, "The IPv6 CIDR")) for net in routed if net.cidr6)),
    )


def _number(value: int) -> int:
    if not 1 <= value <= _LAST_NUMBER:
        raise ValueError(f"The AS number {value} is refused: it must be 1 to {_LAST_NUMBER} (RFC 6793).")
    return value


def _neighbors(facts: ApplianceFacts) -> tuple[Neighbor, ...]:
    assert facts.bgp is not None
    found: dict[str, Neighbor] = {}
    for peer in sorted(facts.bgp.peers):
        number, hops = _number(peer.number), min(max(int(peer.hops), 1), _MOST_HOPS)
        password = peer.password
        if password:
            matched(_PASSWORD, password, "The password of a BGP peer", "1 to 80 visible ASCII characters")
        if peer.address:
            text = address(peer.address, "The BGP peer's address")
            found[text] = Neighbor(text, number, password, hops, six=False)
        if peer.address6 and any(nic.address6 for nic in facts.nics if nic.traffic == "Public"):
            text = address6(peer.address6, "The BGP peer's IPv6 address")
            found[text] = Neighbor(text, number, password, hops, six=True)
    return tuple(found[key] for key in sorted(found))


def elements(facts: ApplianceFacts) -> Elements:
    """Return the sets of the peers that may begin a session; nothing where the router does not speak BGP."""
    if plan(facts) is None:
        return {}
    neighbors = _neighbors(facts)
    return {
        "bgp_peers": [item.address for item in neighbors if not item.six],
        "bgp_peers6": [item.address for item in neighbors if item.six],
    }
