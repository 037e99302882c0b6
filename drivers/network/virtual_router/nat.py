"""Translation as map elements: port forwarding, static NAT, UDP load balancing.

Every key begins with the public address, then the protocol, then the port or ports: by that the agent finds the
connections that a changed element leaves behind. A range that keeps its ports is one element; one with an offset has
an element for each port, as nft cannot add.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import chain

from drivers.intervals import Box, Interval, Piece, disjoint
from drivers.network.virtual_router.filters import Elements
from drivers.network.virtual_router.singles import REMEMBERED, Run, Single, must_be_known, run_of, runs, split
from drivers.network.virtual_router.syntax import EVERYONE, addresses, cidr, identity, number, ports
from drivers.vocabulary import Network, PortForward


def forwards(networks: Iterable[Network], known: Mapping[str, object]) -> Elements:
    """Return the elements of ``dnat_ports``, ``dnat_ranges``, ``dnat_source_ports`` and ``dnat_source_ranges``.

    Those with a source in their key are asked first, so a forward for some sources goes before one for everyone.

    :raises ValueError: a rule names an address that is not the router's or not the network's, or ranges that differ.
    """
    blocks = [(net.forwards, cidr(net.cidr, "The network's CIDR")) for net in networks]
    parts = [_run(part, inside) for rules, inside in blocks for part in runs(rules)]
    must_be_known("Port forwarding", chain.from_iterable(rules for rules, _ in blocks), parts, known)
    alone, others = split(parts)
    insides = {rule: inside for rules, inside in blocks for rule in rules} if others else {}
    ordered = sorted(others, key=lambda rule: (not rule.sources, rule.id))
    groups: dict[tuple[str, str], list[Piece]] = {}
    for rank, rule in enumerate(ordered):
        what = f"Port forwarding rule {identity(rule.id, 'The port forwarding rule id')}"
        span = _checked(rule, what, insides[rule])
        group = groups.setdefault((rule.address, rule.protocol), [])
        for source in rule.sources:
            group.append(((span, cidr(source, f"The source CIDR of {what}")), rank))
        if not rule.sources:
            group.append(((span, EVERYONE), rank))
    found: Elements = {"dnat_ports": alone, "dnat_ranges": [], "dnat_source_ports": [], "dnat_source_ranges": []}
    for (address, protocol), boxes in groups.items():
        head = f"{address} . {protocol} . "
        for box, rank in disjoint(boxes):
            _write(found, head, box, ordered[rank])
    return found


@lru_cache(maxsize=REMEMBERED)
def _run(rules: tuple[PortForward, ...], inside: Interval) -> Run[PortForward]:
    return run_of(rules, lambda rule: _single(rule, inside))


def _single(rule: PortForward, inside: Interval) -> Single | None:
    """Return a rule that forwards one port for everyone as the element that it is."""
    if rule.public_start != rule.public_end or rule.sources:
        return None
    what = f"Port forwarding rule {identity(rule.id, 'The port forwarding rule id')}"
    port, _ = _checked(rule, what, inside)
    key = rule.address, rule.protocol, port
    return key, f"{rule.address} . {rule.protocol} . {port} : {rule.guest} . {rule.private_start}"


def _checked(rule: PortForward, what: str, inside: Interval) -> Interval:
    if rule.protocol not in ("tcp", "udp"):
        raise ValueError(f"{what} has the protocol {rule.protocol!r}: it must be tcp or udp.")
    if not inside[0] <= number(rule.guest, f"The guest of {what}") <= inside[1]:
        raise ValueError(f"{what} leads to {rule.guest}, which is not on its network.")
    span = ports(rule.public_start, rule.public_end, what)
    private = ports(rule.private_start, rule.private_end, what)
    if span[1] - span[0] != private[1] - private[0]:
        raise ValueError(
            f"{what} leads {span[0]}-{span[1]} to {private[0]}-{private[1]}: both ranges must have the same length."
        )
    return span


def _write(found: Elements, head: str, box: Box, rule: PortForward) -> None:
    (first, last), source = box
    offset = rule.private_start - rule.public_start
    kind, tail = ("dnat_", "") if source == EVERYONE else ("dnat_source_", f" . {addresses(*source)}")
    if not offset and (tail or first != last):
        found[kind + "ranges"].append(f"{head}{first if first == last else f'{first}-{last}'}{tail} : {rule.guest}")
    else:
        found[kind + "ports"] += [
            f"{head}{port}{tail} : {rule.guest} . {port + offset}" for port in range(first, last + 1)
        ]


def static(networks: Iterable[Network], known: Mapping[str, object]) -> Elements:
    """Return the elements of ``dnat_static`` (the way in) and ``snat_static`` (the way out).

    A guest with several public addresses leaves with the lowest of them.

    :raises ValueError: a public address is given twice, or an address is not the router's or not the network's.
    """
    into: dict[str, str] = {}
    out: dict[str, str] = {}
    rules = [
        (number(rule.address, "The static NAT address"), rule, net) for net in networks for rule in net.static_nats
    ]
    for _, rule, net in sorted(rules, key=lambda item: (item[0], item[1].id)):
        inside = cidr(net.cidr, "The network's CIDR")
        what = f"Static NAT {identity(rule.id, 'The static NAT id')}"
        if rule.address not in known:
            raise ValueError(f"{what} is for {rule.address!r}, which is no public address of this router.")
        if rule.address in into:
            raise ValueError(f"{what} is for {rule.address}, which guest {into[rule.address]} has already.")
        if not inside[0] <= number(rule.guest, f"The guest of {what}") <= inside[1]:
            raise ValueError(f"{what} leads to {rule.guest}, which is not on its network.")
        into[rule.address] = rule.guest
        out.setdefault(rule.guest, rule.address)
    return {
        "dnat_static": [f"{address} : {guest}" for address, guest in into.items()],
        "snat_static": [f"{guest} : {address}" for guest, address in out.items()],
    }


def merged(parts: Iterable[Elements]) -> Elements:
    """Put the elements of several networks or kinds together."""
    whole: Elements = {}
    for part in parts:
        for name, items in part.items():
            whole.setdefault(name, []).extend(items)
    return whole
