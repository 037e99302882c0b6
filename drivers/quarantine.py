"""Quarantine: the rule or guest that cannot be planned is left out and named, so that it never stops the others. Pure.

The API lets nothing bad in; what was put into the database by another hand still gets here. Plans need not know who is
to blame: the culprit is found by planning without it, which serves every provider, ours or not.

What is left out must leave less open, never more. So an egress rule that denies, as all do where the network's default
is to allow, cannot be left out: then the whole is refused, and the appliance keeps what it has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from drivers.vocabulary import ApplianceFacts, Network

Result = TypeVar("Result")
KINDS = {
    "leases": "DHCP and DNS of guest",
    "metadata": "metadata of guest",
    "ingress": "firewall rule",
    "egress": "egress rule",
    "ingress6": "IPv6 firewall rule",
    "egress6": "IPv6 egress rule",
    "forwards": "port forwarding rule",
    "static_nats": "static NAT",
    "balancers": "load balancer rule",
}
"""The fields of a network whose items can be left out one by one, and what such an item is called."""
VPNS = {"wireguards": "WireGuard VPN", "tunnels": "VPN tunnel"}
"""The fields of an appliance of which the same is true."""
PEERS = {"peers": "WireGuard peer"}
"""The field of a WireGuard VPN of which the same is true."""
_NAMES = KINDS | VPNS | PEERS


class Part(NamedTuple):
    """An item of a network's facts.

    :param kind: the field, one of :data:`KINDS`, :data:`VPNS` or :data:`PEERS`; ``item`` is the rule's, guest's or
        peer's UUID.
    :param network: its network or WireGuard VPN; empty for an item of the appliance itself.
    """

    item: str
    kind: str
    network: str


def plan_around(
    plan: Callable[[ApplianceFacts], Result], facts: ApplianceFacts, suspects: Collection[str] = ()
) -> tuple[Result, dict[str, str]]:
    """Plan all that can be planned.

    :param plan: what is to be made of the facts; it raises for what cannot be.
    :param suspects: items that were left out the last time: of two that exclude each other, the same one is again.
    :return: the plan, and for each item that it is without (a rule's or a guest's UUID) the reason.
    :raises Exception: as the plan does, where leaving items out does not help.
    """
    try:
        return plan(facts), {}
    except Exception as error:  # noqa: BLE001 - as below
        try:
            return _without_the_bad(plan, facts, frozenset(suspects))
        except Exception:  # noqa: BLE001 - the first error is the one about the whole
            raise error from None


def _without_the_bad(
    plan: Callable[[ApplianceFacts], Result], facts: ApplianceFacts, suspects: frozenset[str]
) -> tuple[Result, dict[str, str]]:
    parts = [part for net in facts.networks for part in _parts(net)]
    parts += [Part(_id(item), kind, "") for kind in VPNS for item in getattr(facts, kind)]
    parts += [Part(_id(peer), "peers", vpn.id) for vpn in facts.wireguards for peer in vpn.peers]
    parts.sort(key=lambda part: (part.kind in PEERS, part))  # a VPN is tried before its peers, so that they have one
    kept: set[Part] = set()
    best = plan(_only(facts, kept))
    refused: dict[str, str] = {}
    waiting: list[Sequence[Part]] = [[part] for part in parts if part.item in suspects]
    waiting.append([part for part in parts if part.item not in suspects])
    while waiting:
        group = waiting.pop()
        try:
            best = plan(_only(facts, kept | set(group)))
        except Exception as error:  # noqa: BLE001 - whatever a plan raises is why this cannot be
            half = len(group) // 2
            if half:
                waiting += [group[half:], group[:half]]
            else:
                (part,) = group
                refused[part.item] = f"The {_NAMES[part.kind]} {part.item} is left out: {error}"
        else:
            kept |= set(group)
    return best, refused


def _parts(net: Network) -> list[Part]:
    return [Part(_id(item), kind, net.id) for kind in KINDS if _droppable(net, kind) for item in getattr(net, kind)]


def _droppable(net: Network, kind: str) -> bool:
    return kind not in ("egress", "egress6") or not net.egress_allow


def _id(item: Any) -> str:
    return str(getattr(item, "vm", "") or getattr(item, "id", ""))


def _only(facts: ApplianceFacts, kept: Collection[Part]) -> ApplianceFacts:
    """Return the facts with no other droppable items than these."""
    networks = tuple(_narrowed(net, kept) for net in facts.networks)
    vpns = {kind: tuple(item for item in getattr(facts, kind) if Part(_id(item), kind, "") in kept) for kind in VPNS}
    vpns["wireguards"] = tuple(
        replace(vpn, peers=tuple(peer for peer in vpn.peers if Part(_id(peer), "peers", vpn.id) in kept))
        for vpn in vpns["wireguards"]
    )
    return replace(facts, networks=networks, **vpns)  # type: ignore[arg-type]


def _narrowed(net: Network, kept: Collection[Part]) -> Network:
    fields = {
        kind: tuple(item for item in getattr(net, kind) if Part(_id(item), kind, net.id) in kept)
        for kind in KINDS
        if _droppable(net, kind)
    }
    return replace(net, **fields)  # type: ignore[arg-type]
