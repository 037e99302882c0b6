"""Which services apply which kind of target, in the order in which they are activated."""

from __future__ import annotations

from systemvm.services import Service
from systemvm.services.conntrackd import Conntrackd
from systemvm.services.dnsmasq import Dnsmasq
from systemvm.services.drives import Drives
from systemvm.services.filters import Filters
from systemvm.services.frr import Frr
from systemvm.services.guests import Guests
from systemvm.services.haproxy import Haproxy
from systemvm.services.links import Links
from systemvm.services.metadata import Metadata
from systemvm.services.nft import Nft
from systemvm.services.redundancy import Redundancy
from systemvm.services.segments import Segments
from systemvm.services.shells import Shells
from systemvm.services.strongswan import Strongswan
from systemvm.services.wireguard import Wireguard
from systemvm.services.xl2tpd import Xl2tpd

KINDS: dict[str, tuple[Service, ...]] = {
    "host": (Segments(), Filters(), Shells(), Drives(), Guests()),
    "router": (
        Links(),
        Nft(),
        Wireguard(),
        Dnsmasq(),
        Haproxy(),
        Metadata(),
        Strongswan(),
        Xl2tpd(),
        Frr(),
        Conntrackd(),
        Redundancy(),
    ),
}

PARTIAL = frozenset({"host"})
"""Kinds that are applied unit by unit: the failure of one guest takes nothing back from the others."""
