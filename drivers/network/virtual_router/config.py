"""What a virtual router is to be, decided: frozen values that the templates only have to write down.

What comes by the ten thousand (set elements) is text already, because each element is one line of nft syntax and
nothing is left to decide about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


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
class GuestSide:
    """One guest network, as the packet filter sees it.

    :param address: the router's own on this network.
    :param ports: TCP ports of the router that its guests may use, besides DNS.
    :param source_nat: the public address that its guests leave with; empty means that they leave with their own.
    :param mark: of the uplink that they leave through; 0 is the main one.
    :param routed: guests are reached by their own addresses; ``guarded`` says that rules open what may come in.
    :param elastic: the operator's gateway is here too, and leads wherever no public address of a guest has to be.
    """

    id: str
    device: str
    cidr: str
    address: str
    egress_allow: bool
    dhcp: bool
    dns: bool
    ports: tuple[int, ...]
    source_nat: str
    mark: int
    routed: bool = False
    guarded: bool = True
    elastic: bool = False


@dataclass(frozen=True, slots=True)
class TunnelSide:
    """One WireGuard tunnel, as the packet filter sees it.

    :param listen: the public address, and ``port`` the UDP port, that it answers on.
    :param address: the router's own in the tunnel.
    :param mss: the largest TCP segment (RFC 9293) that fits through it, in bytes.
    """

    device: str
    listen: str
    port: int
    address: str
    mss: int


@dataclass(frozen=True, slots=True)
class GuestSide6:
    """One guest network's IPv6, as the packet filter sees it.

    :param alone: the network has no IPv4: nothing else counts its bytes.
    :param address: the router's own on this network; guests reach it by its link-local ones, too.
    :param guarded: closed from outside until a rule opens it.
    :param ports: TCP ports of the router that its guests may use, besides DNS.
    """

    id: str
    device: str
    cidr: str
    address: str
    alone: bool
    egress_allow: bool
    guarded: bool
    dhcp: bool
    dns: bool
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GatewaySide:
    """One private gateway of a VPC, as the packet filter sees it.

    :param source_nat: the address that what leaves by it has; empty is its own.
    """

    device: str
    address: str
    source_nat: str


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The packet filter: the values of its skeleton, and the elements of its sets and maps by name.

    :param vpc: the guest networks are the tiers of a VPC: network ACLs say who may talk to whom. It is the VPC's CIDR.
    :param ipsec: it has IPsec tunnels.
    :param uncounted: the traffic of some addresses outside is not counted.
    :param bgp: it speaks BGP.
    :param link: the interface to a redundant router's other half; empty where there is none.
    """

    publics: tuple[str, ...]
    guests: tuple[GuestSide, ...]
    counters: tuple[str, ...]
    marked: bool
    vpc: str
    elements: Mapping[str, tuple[str, ...]]
    tunnels: tuple[TunnelSide, ...] = ()
    guests6: tuple[GuestSide6, ...] = ()
    ipsec: bool = False
    gateways: tuple[GatewaySide, ...] = ()
    uncounted: bool = False
    link: str = ""
    bgp: bool = False


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
    """

    tag: str
    device: str
    start: str
    length: int
    domain: str
    resolvers: tuple[str, ...]
    mtu: int
    dhcp: bool


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
class Ipsec:
    """The IKE daemon: what it is to have, in the words of strongSwan's vici, by name.

    :param initiate: connection → the children that this side brings up; a passive connection is not there.
    :param resets: connection → a number; a higher one means that it is to begin anew.
    :param sources: the CIDRs that tunnels lead from, ``destinations`` those that they lead to.
    :param l2tp: sections (``connections``, ``secrets``, ``pools``) that are added where the host can do L2TP.
    """

    connections: Mapping[str, Any]
    secrets: Mapping[str, Any] = field(repr=False)
    keys: Mapping[str, str] = field(repr=False)
    pools: Mapping[str, Any]
    initiate: Mapping[str, Sequence[str]]
    resets: Mapping[str, int]
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    l2tp: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class L2tp:
    """xl2tpd, and the PPP sessions in it.

    :param id: the remote access VPN's. ``local`` is the public address that is dialled.
    :param server: the router's address in each session; ``first`` to ``last`` are the clients'.
    :param users: name and password, as chap-secrets has them between its quotes.
    """

    id: str
    local: str
    server: str
    first: str
    last: str
    dns: tuple[str, ...]
    users: tuple[tuple[str, str], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TunnelPeer:
    """A peer of a tunnel. ``allowed`` are the addresses that are its own: what it may send from, and is sent."""

    id: str
    public_key: str
    allowed: tuple[str, ...]
    endpoint: str
    keepalive: int
    preshared_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A WireGuard interface.

    :param address: in CIDR notation; ``routes`` are the networks behind its peers.
    :param mark: of the packets that it sends, which chooses their uplink; 0 is none.
    """

    id: str
    device: str
    address: str
    mtu: int
    port: int
    mark: int
    routes: tuple[str, ...]
    private_key: str = field(repr=False)
    peers: tuple[TunnelPeer, ...]


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
