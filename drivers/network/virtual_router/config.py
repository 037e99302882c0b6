"""What a virtual router is to be, decided: frozen values that the templates only have to write down.

What comes by the ten thousand (set elements) is text already, because each element is one line of nft syntax and
nothing is left to decide about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from drivers.network.virtual_router.filter_config import Ruleset
from drivers.network.virtual_router.vpn_config import Ipsec, L2tp, Tunnel


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of the router. ``rate`` is what may leave through it, in Mbit/s; 0 is unlimited.

    :param shared: the MAC that a redundant router's interface has in common with its other half's; empty otherwise.
    """

    mac: str
    name: str
    addresses: tuple[str, ...]
    mtu: int
    rate: int
    shared: str = ""


@dataclass(frozen=True, slots=True)
class Uplink:
    """A way out: a gateway on a public interface.

    :param table: the routing table that leads through it, which is its packet mark too; 0 is the main table.
    """

    device: str
    gateway: str
    table: int


@dataclass(frozen=True, slots=True)
class Links:
    """The router's interfaces and the way its packets go.

    :param routes: as ``interfaces.json`` has them: ``to``, ``via``, ``dev`` and, outside of the main one, ``table``.
    :param rules: policy routing: ``priority``, ``from`` or ``fwmark``, ``table``.
    """

    interfaces: tuple[Interface, ...]
    routes: tuple[Mapping[str, Any], ...]
    rules: tuple[Mapping[str, Any], ...]
    sysctls: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DhcpRange:
    """A network that dnsmasq serves.

    :param tag: names it inside of dnsmasq. ``gateway`` is told to guests whose default network it is.
    :param dhcp: False means that it is served with names only.
    """

    tag: str
    device: str
    start: str
    netmask: str
    address: str
    gateway: str
    domain: str
    resolvers: tuple[str, ...]
    mtu: int
    dhcp: bool


@dataclass(frozen=True, slots=True)
class Prefix:
    """A network's IPv6, advertised (RFC 4861) and served by DHCPv6.

    :param start: the prefix's first address, ``length`` the prefix's.
    :param dhcp: False means that guests make their addresses themselves, and are told nothing else.
    :param leads: the router is their way out, and says so.
    :param slaac: guests may make their addresses themselves.
    """

    tag: str
    device: str
    start: str
    length: int
    domain: str
    resolvers: tuple[str, ...]
    mtu: int
    dhcp: bool
    leads: bool = True
    slaac: bool = True


@dataclass(frozen=True, slots=True)
class SpecialGuest:
    """A guest that DHCP tells something else than the others.

    :param tag: names it inside of dnsmasq.
    :param default: False means that it is told no gateway.
    :param options: (number, value).
    """

    mac: str
    tag: str
    default: bool
    options: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Dnsmasq:
    """DHCP and DNS: the part that needs a restart, and the lines that a SIGHUP reads again."""

    ranges: tuple[DhcpRange, ...]
    upstreams: tuple[str, ...]
    serves_names: bool
    hosts: tuple[str, ...]
    names: tuple[str, ...]
    special: tuple[SpecialGuest, ...]
    prefixes: tuple[Prefix, ...] = ()


@dataclass(frozen=True, slots=True)
class Server:
    """A guest behind a listener. ``cookie`` is what a client is known by that sticks to it."""

    name: str
    address: str
    port: int
    weight: int
    cookie: str


@dataclass(frozen=True, slots=True)
class Check:
    """How a guest is found to be alive; seconds and counts. Without a path a TCP connection is enough."""

    path: str
    interval: int
    timeout: int
    rise: int
    fall: int


@dataclass(frozen=True, slots=True)
class Listener:
    """One load balancer rule in haproxy.

    :param http: haproxy reads HTTP (cookies, X-Forwarded-For) instead of passing bytes on.
    :param forwardfor: HTTP requests tell the guest who asked, in X-Forwarded-For.
    :param sticky: the lines that make clients stick, decided by the policy.
    :param settings: haproxy's own directives with their values.
    :param certificate: path of the PEM file relative to the folder of files; empty means no TLS.
    """

    id: str
    address: str
    port: int
    balance: str
    http: bool
    forwardfor: bool
    proxy_protocol: bool
    certificate: str
    servers: tuple[Server, ...]
    check: Check
    sticky: tuple[str, ...]
    cookies: bool
    settings: tuple[tuple[str, str], ...]
    server_settings: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Haproxy:
    """All listeners, and their certificates as (path, PEM text)."""

    maxconn: int
    peers: bool
    listeners: tuple[Listener, ...]
    certificates: tuple[tuple[str, str], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Redundancy:
    """One of two routers, as its agent is told.

    :param group: their owner; ``member`` is this router, ``peer`` the other, empty while there is none.
    :param roster: names the routers that vote; votes under another name do not count.
    :param sole: there is no other router, and none of a former roster is left.
    :param address: on the link between the two; ``announce`` is (device, address) of what they have in common.
    """

    group: str
    member: str
    peer: str
    roster: str
    rank: int
    sole: bool
    address: str
    peer_address: str
    announce: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Conntrackd:
    """Where connections are told to the other router."""

    device: str
    address: str
    peer_address: str


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A BGP peer by one of its addresses. ``hops`` is how far away it may be; ``six`` says that it is told IPv6."""

    address: str
    number: int
    password: str = field(repr=False)
    hops: int
    six: bool


@dataclass(frozen=True, slots=True)
class Bgp:
    """The BGP speaker.

    :param number: its autonomous system; ``router`` is its identifier (RFC 4271, 4.2), an address of its own.
    :param prefixes: that it announces, ``prefixes6`` those of IPv6.
    """

    number: int
    router: str
    neighbors: tuple[Neighbor, ...]
    prefixes: tuple[str, ...]
    prefixes6: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """The whole router. A service that is None has no files: the agent stops it."""

    links: Links
    ruleset: Ruleset
    dnsmasq: Dnsmasq | None
    haproxy: Haproxy | None
    metadata: Mapping[str, Any] | None = field(repr=False)
    wireguard: tuple[Tunnel, ...] | None = None
    ipsec: Ipsec | None = None
    l2tp: L2tp | None = None
    redundancy: Redundancy | None = None
    conntrackd: Conntrackd | None = None
    bgp: Bgp | None = None
