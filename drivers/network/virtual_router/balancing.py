"""Load balancing: haproxy for TCP and HTTP, the packet filter for UDP, which haproxy does not carry.

A listener is only there when it can serve: with members, and, where it is to speak TLS, with its certificate.
UDP takes turns over a fixed number of slots, each a map element: one look-up however many members there are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from drivers.balancing import Certificate, HealthCheck, LoadBalancer, Member
from drivers.intervals import disjoint
from drivers.network.virtual_router import stickiness
from drivers.network.virtual_router.config import Check, Haproxy, Listener, Server
from drivers.network.virtual_router.filters import Elements
from drivers.network.virtual_router.syntax import EVERYONE, addresses, cidr, identity, matched, number, ports
from drivers.vocabulary import ApplianceFacts, Network

ALGORITHMS = ("roundrobin", "leastconn", "source")
PROTOCOLS = ("tcp", "udp", "tcp-proxy", "ssl")
SLOTS = 240
"""Turns of a UDP rule: divisible by 1 to 6, 8, 10, 12, 15, 16 and 20, so that so many members share evenly."""

_DEFAULT_CHECK = Check(path="", interval=2, timeout=2, rise=2, fall=3)
_FORWARD = "option.forwardfor"
_MAXCONN = "network.loadbalancer.haproxy.max.conn"
_HTTP_PORT = 80
_LONGEST = 86_400
_PATH = re.compile(r"/[A-Za-z0-9._~/%?&=+:@,-]{0,254}", re.ASCII)
_PEM = re.compile(r"(?:\s*-----BEGIN ([A-Z0-9 ]+)-----\s+[A-Za-z0-9+/=\s]+-----END \1-----\s*)+", re.ASCII)
_COUNT = (re.compile(r"[1-9][0-9]{0,6}", re.ASCII), "a number from 1 to 9999999")
_TIME = (re.compile(r"([1-9][0-9]{0,8})(ms|s|m|h|d|)", re.ASCII), "a time such as 30s, of 24 days at most")
_UNITS = {"": 1, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LONGEST_TIME = 24 * _UNITS["d"]
"""In milliseconds: haproxy counts its timers in 31 bits, and reads no file in which one overflows."""
_SWITCH = (re.compile(r"true|false", re.ASCII), "true or false")

SETTINGS: dict[str, tuple[re.Pattern[str], str]] = {
    "maxconn": _COUNT,
    "fullconn": _COUNT,
    "backlog": _COUNT,
    "retries": _COUNT,
    **{
        f"timeout.{name}": _TIME
        for name in ("client", "server", "connect", "queue", "tunnel", "http-request", "http-keep-alive")
    },
    "option.httpclose": _SWITCH,
    _FORWARD: _SWITCH,
    "option.tcpka": _SWITCH,
    "server.maxconn": _COUNT,
    "server.maxqueue": _COUNT,
    "server.slowstart": _TIME,
}
"""What may be tuned in a load balancer rule, and how its value looks."""


def plan(facts: ApplianceFacts) -> Haproxy | None:
    """Decide haproxy's part; None where there is nothing for it to do.

    :raises ValueError: a rule asks for what cannot be done; the sentence names the rule.
    """
    rules = [
        rule
        for net in facts.networks
        if "Lb" in net.services
        for rule in sorted(net.balancers, key=lambda rule: rule.id)
        if rule.protocol != "udp" and served(rule)
    ]
    listeners = tuple(sorted((_listener(rule) for rule in rules), key=lambda listener: listener.id))
    if not listeners:
        return None
    maxconn = dict(facts.settings).get(_MAXCONN, "4096")
    return Haproxy(
        maxconn=int(matched(_COUNT[0], maxconn, f"The setting {_MAXCONN}", _COUNT[1])),
        peers=any(line.startswith("stick-table") for listener in listeners for line in listener.sticky),
        listeners=listeners,
        certificates=tuple(
            (_path(rule), _pem(rule.certificate, rule.id))
            for rule in rules
            if rule.protocol == "ssl" and rule.certificate
        ),
    )


def served(rule: LoadBalancer) -> bool:
    """Tell whether the rule can serve: it has members, and a certificate where it needs one."""
    return bool(rule.members) and (rule.protocol != "ssl" or rule.certificate is not None)


def elements(networks: Mapping[str, Network], known: Mapping[str, object]) -> Elements:
    """Return who may reach the listeners (``balanced``), their byte counters, and the turns of UDP rules.

    :param networks: by the name of their byte counters.
    :raises ValueError: a rule asks for what cannot be done; the sentence names the rule.
    """
    found: Elements = {"balanced": [], "balanced_in": [], "balanced_out": [], "dnat_turns": [], "dnat_hashed": []}
    taken: dict[tuple[str, int, bool], str] = {}
    for counter, net in networks.items():
        for rule in sorted(net.balancers, key=lambda rule: rule.id):
            what = _checked(rule, net, known)
            other = taken.setdefault((rule.address, rule.port, rule.protocol == "udp"), what)
            if other != what:
                raise ValueError(f"{what} is for {rule.address}:{rule.port}, which {other} has already.")
            if rule.protocol == "udp":
                name, items = _turns(rule, what)
                found[name] += items
            elif served(rule):
                key = f"{rule.address} . {rule.port}"
                sources = [cidr(source, f"The source CIDR of {what}") for source in rule.sources] or [EVERYONE]
                pieces = disjoint([((source,), 0) for source in sources])
                found["balanced"] += [f"{key} . {addresses(*box[0])}" for box, _ in pieces]
                found["balanced_in"].append(f'{key} : "in_{counter}"')
                found["balanced_out"].append(f'{key} : "out_{counter}"')
    return found


def _checked(rule: LoadBalancer, net: Network, known: Mapping[str, object]) -> str:
    """Check what all protocols have in common, and return how to name the rule."""
    what = f"Load balancer rule {identity(rule.id, 'The load balancer rule id')}"
    if rule.internal:
        first, last = cidr(net.cidr, "The network's CIDR")
        if not first < number(rule.address, f"The address of {what}") < last or rule.address == net.gateway:
            raise ValueError(f"{what} is for {rule.address}, which is no address that {net.cidr} has to give.")
    elif rule.address not in known:
        raise ValueError(f"{what} is for {rule.address!r}, which is no public address of this router.")
    if rule.algorithm not in ALGORITHMS:
        raise ValueError(f"{what} has the algorithm {rule.algorithm!r}: it must be one of {', '.join(ALGORITHMS)}.")
    if rule.protocol not in PROTOCOLS:
        raise ValueError(f"{what} has the protocol {rule.protocol!r}: it must be one of {', '.join(PROTOCOLS)}.")
    for port in (rule.port, rule.private_port):
        ports(port, port, what)
    blocks = [cidr(block, "The network's CIDR") for block in (net.cidr, *(net.elastic.inside if net.elastic else ()))]
    for member in rule.members:
        own = number(member.address, f"The member of {what}")
        if not any(first <= own <= last for first, last in blocks):
            raise ValueError(f"{what} has the member {member.address}, which is not on its network.")
    return what


def _turns(rule: LoadBalancer, what: str) -> tuple[str, list[str]]:
    """Return the map and the elements of a UDP rule.

    :raises ValueError: it asks for what only a proxy can do.
    """
    sticky = rule.stickiness.method if rule.stickiness else ""
    if rule.algorithm == "leastconn" or sticky not in ("", "SourceBased"):
        raise ValueError(f"{what} is for UDP, which has no connections or cookies: use roundrobin or source.")
    if rule.health is not None:
        raise ValueError(f"{what} is for UDP, whose guests cannot be checked: remove its health check.")
    if rule.sources:
        raise ValueError(f"{what} is for UDP, which takes its source CIDRs from the firewall: leave them out.")
    if rule.settings:
        raise ValueError(f"{what} is for UDP, which has nothing to tune: remove its settings.")
    weighted = [member for member in _members(rule.members) for _ in range(_weight(member, what))]
    if len(weighted) > SLOTS:
        raise ValueError(f"{what} has members of the weights {len(weighted)} in all: {SLOTS} is the most for UDP.")
    head = f"{rule.address} . udp . {rule.port} . "
    name = "dnat_hashed" if sticky or rule.algorithm == "source" else "dnat_turns"
    turns = [weighted[slot % len(weighted)] for slot in range(SLOTS)] if weighted else []
    return name, [f"{head}0x{slot:x} : {member.address} . {rule.private_port}" for slot, member in enumerate(turns)]


def _members(members: Iterable[Member]) -> list[Member]:
    return sorted({(member.id, member.address): member for member in members}.values())


def _weight(member: Member, what: str) -> int:
    if not 0 <= member.weight <= 256:
        raise ValueError(f"{what} gives {member.address} the weight {member.weight}: it must be 0 to 256.")
    return member.weight


def _listener(rule: LoadBalancer) -> Listener:
    what = f"Load balancer rule {identity(rule.id, 'The load balancer rule id')}"
    sticky = stickiness.plan(rule)
    common, of_servers = _settings(rule.settings, what)
    return Listener(
        id=rule.id,
        address=rule.address,
        port=rule.port,
        balance=rule.algorithm,
        http=sticky.http or rule.protocol == "ssl" or (rule.protocol == "tcp" and rule.port == _HTTP_PORT),
        forwardfor=dict(rule.settings).get(_FORWARD) != "false",
        proxy_protocol=rule.protocol == "tcp-proxy",
        certificate=_path(rule) if rule.protocol == "ssl" else "",
        servers=tuple(_server(rule, member, what) for member in _members(rule.members)),
        check=_check(rule.health, what),
        sticky=sticky.lines,
        cookies=sticky.cookies,
        settings=common,
        server_settings=of_servers,
    )


def _server(rule: LoadBalancer, member: Member, what: str) -> Server:
    name = f"{identity(member.id, f'The member of {what}')}-{member.address}"
    cookie = hashlib.sha256(f"{rule.id}/{name}".encode()).hexdigest()[:16]
    return Server(name, member.address, rule.private_port, _weight(member, what), cookie)


def _check(health: HealthCheck | None, what: str) -> Check:
    if health is None:
        return _DEFAULT_CHECK
    check = Check(health.path, health.interval, health.timeout, health.healthy, health.unhealthy)
    if check.path:
        matched(_PATH, check.path, f"The ping path of {what}", "an absolute URL path without blanks or quotes")
    for name, value in (("interval", check.interval), ("timeout", check.timeout)):
        if not 1 <= value <= _LONGEST:
            raise ValueError(f"The health check {name} of {what} is {value}: it must be 1 to {_LONGEST} seconds.")
    for name, value in (("healthy", check.rise), ("unhealthy", check.fall)):
        if not 1 <= value <= 100:
            raise ValueError(f"The {name} threshold of {what} is {value}: it must be 1 to 100.")
    return check


Words = tuple[tuple[str, str], ...]


def _settings(given: Sequence[tuple[str, str]], what: str) -> tuple[Words, Words]:
    """Return haproxy's directives for the listener and for its servers."""
    common: list[tuple[str, str]] = []
    of_servers: list[tuple[str, str]] = []
    for name, value in sorted(given):
        if name not in SETTINGS:
            raise ValueError(f"{what} has no setting {name!r}; it has {', '.join(SETTINGS)}.")
        _check_value(name, value, f"The setting {name} of {what}")
        scope, _, rest = name.partition(".")
        if scope == "server":
            of_servers.append((rest, value))
        elif scope == "option":
            # Off is haproxy's default, but for forwardfor, which the listener decides.
            common += [(name.replace(".", " "), "")] if value == "true" and name != _FORWARD else []
        else:
            common.append((name.replace(".", " "), value))
    return tuple(common), tuple(of_servers)


def _check_value(name: str, value: str, what: str) -> None:
    pattern, right = SETTINGS[name]
    matched(pattern, value, what, right)
    time = pattern.fullmatch(value) if SETTINGS[name] is _TIME else None
    if time and int(time[1]) * _UNITS[time[2]] > _LONGEST_TIME:
        raise ValueError(f"{what} {value!r} is refused: it must be {right}.")


def _path(rule: LoadBalancer) -> str:
    return f"haproxy/certs/{rule.id}.pem"


def _pem(certificate: Certificate, rule: str) -> str:
    """Return certificate, chain and key as haproxy reads them.

    :raises ValueError: one of them is not PEM; what it holds is not told.
    """
    parts = [part.strip() for part in (certificate.certificate, certificate.chain, certificate.key) if part.strip()]
    if not all(_PEM.fullmatch(part) for part in parts):
        raise ValueError(f"The certificate of load balancer rule {rule} is refused: it must be PEM blocks and no more.")
    return "".join(f"{part}\n" for part in parts)
