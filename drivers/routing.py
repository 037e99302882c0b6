"""The nouns of dynamic routing that the control plane and its drivers share: facts, as frozen plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True, order=True)
class BgpPeer:
    """A router of the operator's that is told the guests' prefixes (createBgpPeer).

    :param address: IPv4, to tell IPv4 prefixes to; ``address6`` IPv6 likewise; one of them may be empty.
    :param number: its autonomous system.
    :param password: of the session (RFC 2385); empty means none.
    :param hops: how many routers away it may be; 1 is on the same wire.
    """

    address: str
    address6: str
    number: int
    password: str = field(default="", repr=False)
    hops: int = 1


@dataclass(frozen=True, slots=True)
class Bgp:
    """BGP as an appliance speaks it (RFC 4271): which prefixes, its routed networks say.

    :param number: the appliance's own autonomous system.
    """

    number: int
    peers: tuple[BgpPeer, ...]


class RoutedRule(NamedTuple):
    """createRoutingFirewallRule for what comes in: guests are known by their own addresses.

    :param protocol: ``tcp``, ``udp``, ``icmp`` or ``all``; ports, or ICMP type and code: -1 is any.
    :param sources: CIDRs; none is everyone. ``destinations`` likewise, of the network.
    """

    id: str
    protocol: str
    start: int
    end: int
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
