"""What a rule of a network ACL may say, read from what a caller gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from controlplane.errors import BadParameter
from controlplane.network import rule_text
from controlplane.network.acls import EGRESS, INGRESS, AclItem

ALLOW, DENY = "Allow", "Deny"
HIGHEST = 1_000_000
"""The largest number that a rule may have."""
LONGEST_REASON = 2500


@dataclass(frozen=True, slots=True)
class Given:
    """A rule as a caller gave it; None is what was left out. The names are the parameters'."""

    protocol: str = "all"
    startport: int | None = None
    endport: int | None = None
    icmptype: int | None = None
    icmpcode: int | None = None
    cidrlist: Sequence[str] | None = None
    traffictype: str | None = None
    action: str | None = None
    reason: str | None = None

    @classmethod
    def of(cls, command: Any) -> Given:
        """Return what a command's parameters say."""
        named = {field.name: getattr(command, field.name) for field in fields(cls)}
        return cls(**{name: value for name, value in named.items() if value is not None})

    @classmethod
    def again(cls, item: AclItem) -> Given:
        """Return what the rule says now."""
        span = (None, None) if (item.start, item.end) == (-1, -1) else (item.start, item.end)
        names = ("icmptype", "icmpcode") if item.protocol == "icmp" else ("startport", "endport")
        ports = dict(zip(names, (item.start, item.end) if item.protocol == "icmp" else span, strict=True))
        said = {"cidrlist": item.cidrs, "traffictype": item.traffic, "reason": item.reason}
        return cls(protocol=item.protocol, action=ALLOW if item.allow else DENY, **said, **ports)  # type: ignore[arg-type]


def write(item: AclItem, given: Given) -> None:
    """Have the row say what was given.

    :raises BadParameter: it cannot be a rule; the sentence says what would be right.
    """
    item.protocol = rule_text.any_protocol(given.protocol)
    item.traffic = _one_of("traffictype", given.traffictype or INGRESS, (INGRESS, EGRESS))
    item.allow = _one_of("action", given.action or ALLOW, (ALLOW, DENY)) == ALLOW
    item.cidrs = rule_text.cidr_list_any("cidrlist", given.cidrlist or []) or [rule_text.EVERYONE]
    item.reason = _reason(given.reason or "")
    item.start, item.end = rule_text.span(item.protocol, given)


def _one_of(name: str, value: str, choices: Sequence[str]) -> str:
    for choice in choices:
        if value.strip().lower() == choice.lower():
            return choice
    raise BadParameter(f"Invalid parameter {name} value={value}: it must be {' or '.join(choices)}.")


def _reason(text: str) -> str:
    if not text.isprintable() or len(text) > LONGEST_REASON:
        raise BadParameter(f"Invalid parameter reason: it must be one line of at most {LONGEST_REASON} characters.")
    return text


def place(number: int) -> int:
    """Return the number of a rule.

    :raises BadParameter: it is none.
    """
    if not 1 <= number <= HIGHEST:
        raise BadParameter(f"Invalid parameter number value={number}: it must be 1 to {HIGHEST}.")
    return number
