"""Firewall rules as set elements: what may come in by a public address, and what guests may send out.

Each set is a concatenation with intervals, so that a packet costs one look-up however many rules there are, and each
element counts for its rule, whose id is its comment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from drivers.intervals import Box, Interval, Piece, disjoint
from drivers.network.virtual_router.singles import REMEMBERED, Run, Single, must_be_known, run_of, runs, split
from drivers.network.virtual_router.syntax import EVERYONE, addresses, cidr, identity, ports
from drivers.routing import RoutedRule
from drivers.vocabulary import ApplianceFacts, EgressRule, IngressRule, Ipv6Rule, Network

_CODES = 256

Elements = dict[str, list[str]]


def ingress(rules: Sequence[IngressRule], known: Mapping[str, object]) -> Elements:
    """Return the elements of ``ingress_open``, ``ingress_ports``, ``ingress_icmp`` and ``ingress_all``.

    A single port that is open to everyone, as most are, goes into a set without intervals: ten thousand of them load
    twenty times faster, and one more does not copy the others (the kernel copies an interval set with every change).

    :param known: the public addresses that the router has.
    :raises ValueError: a rule names another address, protocol, port or CIDR than there can be.
    """
    groups: dict[tuple[str, str], list[Piece]] = {}
    parts = [_run(part) for part in runs(rules)]
    must_be_known("Firewall", rules, parts, known)
    opened, others = split(parts)
    ordered = sorted(others)
    for rank, rule in enumerate(ordered):
        what = f"Firewall rule {identity(rule.id, 'The firewall rule id')}"
        if not rule.sources:
            raise ValueError(f"{what} names no source CIDR: 0.0.0.0/0 is everyone.")
        group = groups.setdefault((rule.address, rule.protocol), [])
        head = service(rule, what)
        group += [((*head, cidr(source, f"The source CIDR of {what}")), rank) for source in rule.sources]
    found: Elements = {"ingress_open": opened, "ingress_ports": [], "ingress_icmp": [], "ingress_all": []}
    for (address, protocol), boxes in groups.items():
        name, write = written(protocol, "ingress")
        for box, rank in disjoint(boxes):
            tail = f'counter comment "{ordered[rank].id}"'
            if name == "ingress_ports" and box[-1] == EVERYONE and box[0][0] == box[0][1]:
                opened.append(f"{address} . {protocol} . {box[0][0]} {tail}")
            else:
                texts = write(protocol, box[:-1], (addresses(*box[-1]),))
                found[name] += [f"{address} . {text} {tail}" for text in texts]
    return found


@lru_cache(maxsize=REMEMBERED)
def _run(rules: tuple[IngressRule, ...]) -> Run[IngressRule]:
    return run_of(rules, _single)


def _single(rule: IngressRule) -> Single | None:
    """Return a rule that opens one port to everyone as the element that it is."""
    port = rule.start
    if rule.protocol not in ("tcp", "udp") or port != rule.end or port == -1 or rule.sources != ("0.0.0.0/0",):
        return None
    what = f"Firewall rule {identity(rule.id, 'The firewall rule id')}"
    ports(port, port, what)
    key = rule.address, rule.protocol, port
    return key, f'{rule.address} . {rule.protocol} . {port} counter comment "{rule.id}"'


def egress(network: Network) -> Elements:
    """Return the elements of ``egress_ports``, ``egress_icmp`` and ``egress_all`` of one network.

    :raises ValueError: as for :func:`ingress`.
    """

    def sources(rule: Crossing, what: str) -> list[Interval]:
        return [_inside(network, source, what) for source in rule.sources] or [cidr(network.cidr, "The CIDR")]

    return crossing("egress", network.egress, sources)


def routed(facts: ApplianceFacts) -> Elements:
    """Return the elements of ``routed_ports``, ``routed_icmp`` and ``routed_all``: what may come in to routed guests.

    The tiers of a VPC have network ACLs instead; a router without routed networks has no such sets.

    :raises ValueError: as for :func:`ingress`.
    """
    found: Elements = {}
    for net in sorted(facts.networks, key=lambda net: net.id):
        if not net.routed or not net.cidr or facts.vpc is not None:
            continue

        def inside(rule: Crossing, what: str, net: Network = net) -> list[Interval]:
            return [_inside(net, item, what) for item in rule.destinations] or [cidr(net.cidr, "The CIDR")]

        rules = net.ingress4 if "Firewall" in net.services else ()
        for name, items in crossing("routed", rules, destinations=inside).items():
            found.setdefault(name, []).extend(items)
    return found


Crossing = EgressRule | RoutedRule
Ends = Callable[[Crossing, str], list[Interval]]
"""Returns the addresses that a rule's packets come from, or go to."""


def _sources(rule: Crossing, what: str) -> list[Interval]:
    return [cidr(source, f"The source CIDR of {what}") for source in rule.sources] or [EVERYONE]


def _destinations(rule: Crossing, what: str) -> list[Interval]:
    return [cidr(target, f"The destination CIDR of {what}") for target in rule.destinations] or [EVERYONE]


def crossing(
    direction: str, rules: Iterable[Crossing], sources: Ends = _sources, destinations: Ends = _destinations
) -> Elements:
    """Return the elements of ``…_ports``, ``…_icmp`` and ``…_all`` for packets that cross the router.

    :param direction: what the names of the sets begin with.
    :param sources: returns where a rule's packets come from, ``destinations`` where they go to.
    :raises ValueError: as for :func:`ingress`.
    """
    groups: dict[str, list[Piece]] = {}
    ordered = sorted(rules)
    for rank, rule in enumerate(ordered):
        what = f"{direction.capitalize()} rule {identity(rule.id, f'The {direction} rule id')}"
        head = service(rule, what)
        targets = destinations(rule, what)
        groups.setdefault(rule.protocol, []).extend(
            ((*head, source, target), rank) for source in sources(rule, what) for target in targets
        )
    found: Elements = {f"{direction}_ports": [], f"{direction}_icmp": [], f"{direction}_all": []}
    for protocol, boxes in groups.items():
        name, write = written(protocol, direction)
        found[name] += [
            f'{text} counter comment "{ordered[rank].id}"'
            for box, rank in disjoint(boxes)
            for text in write(protocol, box[:-2], (addresses(*box[-2]), addresses(*box[-1])))
        ]
    return found


def _inside(network: Network, source: str, what: str) -> Interval:
    """Return the part of a source that is on the network: the sets are one for all networks of the router.

    :raises ValueError: there is no such part.
    """
    first, last = cidr(source, f"The CIDR of {what}")
    low, high = cidr(network.cidr, "The CIDR")
    if last < low or high < first:
        raise ValueError(f"{what} has the CIDR {source}, which is not on its network, {network.cidr}.")
    return max(first, low), min(last, high)


def service(rule: IngressRule | Crossing | Ipv6Rule, what: str) -> Box:
    """Return the rule's ports, or its ICMP types and codes in one number, as a box; empty where neither is asked."""
    if rule.protocol in ("tcp", "udp"):
        return (ports(rule.start, rule.end, what),)
    if rule.protocol == "icmp":
        return (icmp(rule.start, rule.end, what),)
    if rule.protocol == "all":
        return ()
    raise ValueError(f"{what} has the protocol {rule.protocol!r}: it must be tcp, udp, icmp or all.")


def icmp(kind: int, code: int, what: str) -> Interval:
    """Return type * 256 + code, which makes "any code" and "any type" intervals as well."""
    if not (-1 <= kind < _CODES and -1 <= code < _CODES):
        raise ValueError(f"{what} has the ICMP type {kind} and code {code}: both must be 0 to 255, or -1 for any.")
    if kind == -1:
        return 0, _CODES * _CODES - 1
    return (kind * _CODES, kind * _CODES + _CODES - 1) if code == -1 else (kind * _CODES + code,) * 2


Written = Callable[[str, Box, Sequence[str]], list[str]]


def written(protocol: str, direction: str) -> tuple[str, Written]:
    """Return the set that rules of a protocol go into, and how its keys are written."""
    if protocol == "icmp":
        return f"{direction}_icmp", _write_icmp
    if protocol == "all":
        return f"{direction}_all", _write_all
    return f"{direction}_ports", _write_ports


def _write_ports(protocol: str, box: Box, ends: Sequence[str]) -> list[str]:
    first, last = box[0]
    return [f"{protocol} . {first if first == last else f'{first}-{last}'} . {' . '.join(ends)}"]


def _write_all(_protocol: str, _box: Box, ends: Sequence[str]) -> list[str]:
    return [" . ".join(ends)]


def _write_icmp(_protocol: str, box: Box, ends: Sequence[str]) -> list[str]:
    return [f"{_span(*kinds)} . {_span(*codes)} . {' . '.join(ends)}" for kinds, codes in rectangles(*box[0])]


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def rectangles(first: int, last: int) -> list[tuple[Interval, Interval]]:
    """Return an interval of type * 256 + code as intervals of types and of codes: whole types, and what sticks out."""
    found: list[tuple[Interval, Interval]] = []
    low, high = first // _CODES, last // _CODES
    head, tail = first % _CODES, last % _CODES
    if low == high:
        return [((low, low), (head, tail))]
    if head:
        found.append(((low, low), (head, _CODES - 1)))
        low += 1
    if tail != _CODES - 1:
        found.append(((high, high), (0, tail)))
        high -= 1
    if low <= high:
        found.append(((low, high), (0, _CODES - 1)))
    return found
