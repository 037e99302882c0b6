"""Routes and policy rules of a target: exactly those that are wanted, the kernel's own left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any, NamedTuple

from pyroute2 import IPRoute

_STATIC = 4  # RTPROT_STATIC: marks the routes that are ours to remove
_MAIN = 254
_LINK = 253  # RT_SCOPE_LINK
_RESERVED_PRIORITIES = (0, 220, 32766, 32767)  # 220: what goes into tunnels (systemvm.services.charon)


class Route(NamedTuple):
    """One route. ``via`` is empty where the destination is on the link; ``table`` 254 is the main one."""

    to: str
    via: str
    device: int
    table: int


class Rule(NamedTuple):
    """One policy rule (ip-rule(8)): look into ``table`` for packets that match all that is not empty."""

    priority: int
    table: int
    source: str
    destination: str
    mark: int
    iif: str


def set_routes(ip: IPRoute, wanted: Sequence[Mapping[str, Any]], indexes: Mapping[str, int]) -> list[str]:
    """Make the static routes exactly these and return what was changed.

    :param wanted: ``{"to", "via"?, "dev"?, "table"?}`` each.
    :param indexes: the interfaces by name.
    """
    goal = {_route(entry, indexes) for entry in wanted}
    there = {_found_route(entry) for family in (2, 10) for entry in ip.get_routes(family=family, proto=_STATIC)}
    for route in there - goal:
        ip.route("del", **_route_options(route))
    for route in sorted(goal - there, key=lambda route: bool(route.via)):
        # replace, not add: a default route to another gateway is changed without a moment without one
        ip.route("replace", **_route_options(route))
    return [f"route {route.to}" for route in sorted(goal ^ there)]


def _route(entry: Mapping[str, Any], indexes: Mapping[str, int]) -> Route:
    to = "0.0.0.0/0" if entry["to"] == "default" else str(ip_network(entry["to"], strict=False))
    device = entry.get("dev")
    if device and device not in indexes:
        raise ValueError(f"interfaces.json: the route to {to} leaves by {device}, which is no interface here.")
    return Route(to, entry.get("via") or "", indexes[device] if device else 0, int(entry.get("table") or _MAIN))


def _found_route(entry: Any) -> Route:
    version = 4 if entry["family"] == 2 else 6
    to = f"{entry.get_attr('RTA_DST') or ('0.0.0.0' if version == 4 else '::')}/{entry['dst_len']}"  # noqa: S104
    via = entry.get_attr("RTA_GATEWAY") or ""
    return Route(to, via, entry.get_attr("RTA_OIF") or 0, entry.get_attr("RTA_TABLE") or entry["table"])


def _route_options(route: Route) -> dict[str, Any]:
    options: dict[str, Any] = {"dst": route.to, "table": route.table, "proto": _STATIC}
    if route.via:
        options["gateway"] = route.via
    elif ":" not in route.to:
        options["scope"] = _LINK  # so that a gateway beyond it is found in the same table
    if route.device:
        options["oif"] = route.device
    return options


def set_rules(ip: IPRoute, wanted: Sequence[Mapping[str, Any]]) -> list[str]:
    """Make the policy rules exactly these and return what was changed.

    :param wanted: ``{"table", "priority"?, "from"?, "to"?, "fwmark"?, "iif"?}`` each; without a priority the
        position in the list, from 1000, is it.
    """
    goal = {_rule(position, entry) for position, entry in enumerate(wanted)}
    found = [_found_rule(entry) for entry in ip.get_rules(family=2)]
    there = {rule for rule in found if rule.priority not in _RESERVED_PRIORITIES}
    for rule in goal - there:
        ip.rule("add", **_rule_options(rule))
    for rule in there - goal:
        ip.rule("del", **_rule_options(rule))
    return [f"rule for table {rule.table}" for rule in sorted(goal ^ there)]


def _network(text: str | None) -> str:
    return str(ip_network(text, strict=False)) if text and text not in ("all", "0.0.0.0/0") else ""


def _rule(position: int, entry: Mapping[str, Any]) -> Rule:
    return Rule(
        priority=int(entry.get("priority") or 1000 + position),
        table=int(entry["table"]),
        source=_network(entry.get("from")),
        destination=_network(entry.get("to")),
        mark=int(str(entry.get("fwmark") or 0), 0),
        iif=entry.get("iif") or "",
    )


def _found_rule(entry: Any) -> Rule:
    source, destination = entry.get_attr("FRA_SRC"), entry.get_attr("FRA_DST")
    return Rule(
        priority=entry.get_attr("FRA_PRIORITY") or 0,
        table=entry.get_attr("FRA_TABLE") or entry["table"],
        source=_network(source and f"{source}/{entry['src_len']}"),
        destination=_network(destination and f"{destination}/{entry['dst_len']}"),
        mark=entry.get_attr("FRA_FWMARK") or 0,
        iif=entry.get_attr("FRA_IIFNAME") or "",
    )


def _rule_options(rule: Rule) -> dict[str, Any]:
    options: dict[str, Any] = {"priority": rule.priority, "table": rule.table}
    if rule.source:
        options["src"], _, length = rule.source.partition("/")
        options["src_len"] = int(length)
    if rule.destination:
        options["dst"], _, length = rule.destination.partition("/")
        options["dst_len"] = int(length)
    if rule.mark:
        options["fwmark"] = rule.mark
    if rule.iif:
        options["iifname"] = rule.iif
    return options
