"""Rules that stand alone: one port of one address and protocol, for everyone. Most rules are of this kind.

Nothing of them has to be cut against another rule, and their elements are known from the rule itself. Rules are looked
at in runs, and what a run comes to is remembered by its rules: of ten thousand that were planned before, with one more
among them, only the run that has changed is looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

from drivers.vocabulary import IngressRule, PortForward

Key = tuple[str, str, int]
"""Address, protocol and port."""
Single = tuple[Key, str]
"""What a rule that stands alone takes, and its element."""
Rule = TypeVar("Rule", IngressRule, PortForward)
REMEMBERED = 256
"""Runs that are remembered, of each kind."""
_LAST = "00"
"""What the id of a run's last rule ends with: one UUID in 256 does."""


class Run(NamedTuple, Generic[Rule]):
    """What some rules come to.

    :param alone: those that stand alone among these, with their elements, by what they take.
    :param others: those that have to be cut against each other.
    :param addresses: the public addresses that all of them name.
    """

    alone: dict[Key, tuple[str, Rule]]
    others: tuple[Rule, ...]
    addresses: frozenset[str]


def runs(rules: Sequence[Rule]) -> list[tuple[Rule, ...]]:
    """Cut rules into runs; their ids say where, so that a rule that comes or goes changes one run, wherever it is."""
    ends: list[int] = [place for place, rule in enumerate(rules, 1) if rule.id.endswith(_LAST)]
    return [tuple(rules[first:last]) for first, last in pairwise([0, *ends, len(rules)]) if first < last]


def run_of(rules: Iterable[Rule], single: Callable[[Rule], Single | None]) -> Run[Rule]:
    """Look at the rules of a run.

    :param single: returns what a rule takes by itself; None when it is of another kind.
    """
    alone: dict[Key, tuple[str, Rule]] = {}
    others: list[Rule] = []
    addresses: set[str] = set()
    for rule in rules:
        addresses.add(rule.address)
        found = single(rule)
        if found is None or found[0] in alone:
            others.append(rule)
        else:
            alone[found[0]] = found[1], rule
    return Run(alone, tuple(others), frozenset(addresses))


def split(parts: Iterable[Run[Rule]]) -> tuple[list[str], list[Rule]]:
    """Return the elements of the rules that stand alone, and the rules that have to be cut against each other."""
    alone: dict[Key, tuple[str, Rule]] = {}
    others: list[Rule] = []
    for part in parts:
        others += part.others
        if not alone.keys().isdisjoint(part.alone):
            others += [alone[key][1] for key in part.alone if key in alone]
        alone |= part.alone
    if not others:
        return [text for text, _ in alone.values()], others
    shared = {(rule.address, rule.protocol) for rule in others}
    others += [rule for _, rule in alone.values() if (rule.address, rule.protocol) in shared]
    return [text for text, rule in alone.values() if (rule.address, rule.protocol) not in shared], others


def must_be_known(kind: str, rules: Iterable[Rule], parts: Iterable[Run[Rule]], known: Mapping[str, object]) -> None:
    """Make sure that rules name public addresses that the router has.

    :param kind: what they are called; ``parts`` are their runs.
    :raises ValueError: one names another; the sentence says which.
    """
    if all(part.addresses <= known.keys() for part in parts):
        return
    rule = next(rule for rule in rules if rule.address not in known)
    raise ValueError(f"{kind} rule {rule.id} is for {rule.address!r}, which is no public address of this router.")
