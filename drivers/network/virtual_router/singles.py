"""Rules that stand alone: one port of one address and protocol, for everyone. Most rules are of this kind.

Nothing of them has to be cut against another rule, and their elements are known from the rule itself, so ten thousand
that were planned before cost ten thousand look-ups.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from drivers.vocabulary import IngressRule, PortForward

Key = tuple[str, str, int]
"""Address, protocol and port."""
Single = tuple[Key, str]
"""What a rule that stands alone takes, and its element."""
Rule = TypeVar("Rule", IngressRule, PortForward)
REMEMBERED = 1 << 16
"""Rules whose element is remembered, of each kind."""


def split(rules: Iterable[tuple[Rule, Single | None]]) -> tuple[list[str], list[Rule]]:
    """Return the elements of the rules that stand alone, and the rules that have to be cut against each other.

    :param rules: each with what it takes by itself; None when it is of another kind.
    """
    alone: dict[Key, tuple[str, Rule]] = {}
    others: list[Rule] = []
    for rule, found in rules:
        if found is None or found[0] in alone:
            others.append(rule)
        else:
            alone[found[0]] = found[1], rule
    if not others:
        return [text for text, _ in alone.values()], others
    shared = {(rule.address, rule.protocol) for rule in others}
    others += [rule for _, rule in alone.values() if (rule.address, rule.protocol) in shared]
    return [text for text, rule in alone.values() if (rule.address, rule.protocol) not in shared], others
