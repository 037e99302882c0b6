"""What a virtual router is to be, decided: frozen values that the templates only have to write down.

What comes by the ten thousand (set elements) is text already, because each element is one line of nft syntax and
nothing is left to decide about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of the router. ``rate`` is what may leave through it, in Mbit/s; 0 is unlimited."""

    mac: str
    name: str
    addresses: tuple[str, ...]
    mtu: int
    rate: int


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


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The packet filter: the values of its skeleton, and the elements of its sets and maps by name.

    :param vpc: the guest networks are the tiers of a VPC: network ACLs say who may talk to whom.
    """

    publics: tuple[str, ...]
    guests: tuple[GuestSide, ...]
    counters: tuple[str, ...]
    marked: bool
    vpc: bool
    elements: Mapping[str, tuple[str, ...]]


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
class RouterConfig:
    """The whole router. A service that is None has no files: the agent stops it."""

    links: Links
    ruleset: Ruleset
    dnsmasq: Dnsmasq | None
    haproxy: Haproxy | None
    metadata: Mapping[str, Any] | None = field(repr=False)
