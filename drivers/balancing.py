"""The nouns of load balancing, as facts; see ``drivers.vocabulary``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Member(NamedTuple):
    """A guest behind a load balancer rule.

    :param id: the virtual machine's UUID (twice the same where two of its addresses serve).
    """

    id: str
    address: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Stickiness:
    """createLBStickinessPolicy.

    :param method: ``LbCookie``, ``AppCookie`` or ``SourceBased``; the parameters have CloudStack's names.
    """

    name: str
    method: str
    params: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """createLBHealthCheckPolicy. Interval and timeout in seconds.

    :param path: for an HTTP check; empty means that a TCP connection is enough.
    """

    path: str
    interval: int
    timeout: int
    healthy: int
    unhealthy: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """uploadSslCert: PEM texts. The key is a secret."""

    id: str
    certificate: str
    chain: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """createLoadBalancerRule.

    :param algorithm: ``roundrobin``, ``leastconn`` or ``source``.
    :param protocol: ``tcp``, ``udp``, ``tcp-proxy`` or ``ssl``.
    :param sources: CIDRs that may connect; empty is everyone.
    :param settings: per-rule tuning by name (``maxconn``, ``timeout.client`` …).
    :param internal: between the tiers of a VPC: the address is one of the network's own (createLoadBalancer).
    """

    id: str
    name: str
    address: str
    port: int
    private_port: int
    algorithm: str
    protocol: str
    members: tuple[Member, ...]
    sources: tuple[str, ...] = ()
    stickiness: Stickiness | None = None
    health: HealthCheck | None = None
    certificate: Certificate | None = None
    settings: tuple[tuple[str, str], ...] = ()
    internal: bool = False
