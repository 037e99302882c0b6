"""Quarantine: the rule or guest that cannot be planned is left out and named, so that it never stops the others. Pure.

The API lets nothing bad in; what was put into the database by another hand still gets here. Plans need not know who is
to blame: the culprit is found by planning without it, which serves every provider, ours or not.

What is left out must leave less open, never more. So an egress rule that denies, as all do where the network's default
is to allow, cannot be left out: then the whole is refused, and the appliance keeps what it has. A network ACL is closed
instead: from the place of a rule that denies on, all of its direction is denied, and for one that allows, at the end,
for a list without any egress rule would let everything leave.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from drivers.vocabulary import ApplianceFacts, Network
from drivers.vpc import AclItem, Vpc

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
ACL = "acl"
"""The field of a tier or private gateway with the network ACL's rules, each of which can be closed."""
_LAST = 1 << 31
"""Behind every rule's number."""


class Part(NamedTuple):
    """An item of a network's facts.

    :param kind: the field, one of :data:`KINDS`, :data:`VPNS` or :data:`PEERS`, or :data:`ACL`; ``item`` is the
        rule's, guest's or peer's UUID.
    :param network: its network, private gateway or WireGuard VPN; empty for an item of the appliance itself.
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
    parts += [Part(item.id, ACL, place) for place, items in _acls(facts) for item in items]
    parts.sort(key=lambda part: (part.kind in PEERS, part))  # a VPN is tried before its peers, so that they have one
    kept: set[Part] = set()
    best = plan(_only(facts, kept))
    named = {item.id: _closed_name(item) for _, items in _acls(facts) for item in items}
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
                name = named.get(part.item) or f"{_NAMES[part.kind]} {part.item} is left out"
                refused[part.item] = f"The {name}: {error}"
        else:
            kept |= set(group)
    return best, refused


def _parts(net: Network) -> list[Part]:
    return [Part(_id(item), kind, net.id) for kind in KINDS if _droppable(net, kind) for item in getattr(net, kind)]


def _acls(facts: ApplianceFacts) -> list[tuple[str, tuple[AclItem, ...]]]:
    """Return the network ACL of each tier and private gateway that has one."""
    gateways = facts.vpc.gateways if facts.vpc else ()
    return [(net.id, net.acl) for net in facts.networks if net.acl] + [(side.id, side.acl) for side in gateways]


def _closed_name(item: AclItem) -> str:
    rule = f"network ACL rule {item.id} (number {item.number})"
    if item.allow:
        return f"{rule} is left out"
    return f"{rule}, which denies, cannot be: all that it and the {_way(item)} rules behind it name is denied"


def _way(item: AclItem) -> str:
    return "ingress" if item.ingress else "egress"


def _closed(item: AclItem) -> AclItem:
    """Return what stands for a rule that cannot be: it denies all that the rule could have, and allows nothing."""
    number = _LAST if item.allow else item.number
    return AclItem("", number, allow=False, ingress=item.ingress, protocol="all")


def _narrowed_acl(items: Sequence[AclItem], place: str, kept: Collection[Part]) -> tuple[AclItem, ...]:
    """Return the rules, with those that are not kept closed, each closing once."""
    return tuple(dict.fromkeys(item if Part(item.id, ACL, place) in kept else _closed(item) for item in items))


def _narrowed_vpc(vpc: Vpc, kept: Collection[Part]) -> Vpc:
    gateways = tuple(replace(side, acl=_narrowed_acl(side.acl, side.id, kept)) for side in vpc.gateways)
    return replace(vpc, gateways=gateways)


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
    vpc = _narrowed_vpc(facts.vpc, kept) if facts.vpc else None
    return replace(facts, networks=networks, vpc=vpc, **vpns)  # type: ignore[arg-type]


def _narrowed(net: Network, kept: Collection[Part]) -> Network:
    fields = {
        kind: tuple(item for item in getattr(net, kind) if Part(_id(item), kind, net.id) in kept)
        for kind in KINDS
        if _droppable(net, kind)
    }
    acl = None if net.acl is None else _narrowed_acl(net.acl, net.id, kept)
    return replace(net, acl=acl, **fields)  # type: ignore[arg-type]
