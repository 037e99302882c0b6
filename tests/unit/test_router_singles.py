"""Rules that stand alone: what is remembered of runs never changes what comes of the rules."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.network.virtual_router import filters, nat
from drivers.network.virtual_router.singles import run_of, runs, split
from drivers.vocabulary import IngressRule, Network, PortForward

KNOWN = {"203.0.113.1": None, "203.0.113.2": None}


def rule(number, address, protocol, port, last, end="01"):
    uuid = str(UUID(int=number << 8 | int(end, 16)))
    return IngressRule(uuid, address, protocol, port, last, ("0.0.0.0/0",))


RULES = st.lists(
    st.builds(
        lambda address, protocol, port, more, end: (address, protocol, port, port + more, end),
        st.sampled_from(sorted(KNOWN)),
        st.sampled_from(("tcp", "udp")),
        st.integers(1, 12),
        st.sampled_from((0, 0, 0, 0, 2)),
        st.sampled_from(("01", "00")),  # a third or so of them ends a run
    ),
    max_size=24,
).map(lambda items: [rule(number, *item) for number, item in enumerate(items)])


def one(found):
    """What a rule takes, when it opens one port."""
    key = found.address, found.protocol, found.start
    return (key, f"{key}") if found.start == found.end else None


@given(RULES)
def test_runs_together_are_the_rules(rules):
    parts = runs(rules)
    assert [each for part in parts for each in part] == rules
    assert all(parts)


@given(RULES)
def test_a_rule_stands_alone_where_no_other_has_its_port_and_its_protocol_has_no_ranges(rules):
    texts, others = split([run_of(part, one) for part in runs(rules)])
    keys = [one(each) for each in rules]
    mixed = {
        (each.address, each.protocol)
        for each, found in zip(rules, keys, strict=True)
        if found is None or keys.count(found) > 1
    }
    alone = [each for each in rules if (each.address, each.protocol) not in mixed]
    assert sorted(texts) == sorted(one(each)[1] for each in alone)
    assert sorted(others) == sorted(each for each in rules if each not in alone)


@given(RULES, RULES)
def test_what_was_planned_before_changes_nothing(before, rules):
    filters._run.cache_clear()
    fresh = filters.ingress(rules, KNOWN)
    filters.ingress(before, KNOWN)
    filters.ingress(rules[::2], KNOWN)
    assert filters.ingress(rules, KNOWN) == fresh


def test_one_more_rule_has_one_run_looked_at_again():
    rules = [rule(number, "203.0.113.1", "tcp", number % 60000 + 1, number % 60000 + 1, f"{number % 256:02x}")
             for number in range(10_000)]  # fmt: skip
    filters._run.cache_clear()
    filters.ingress(rules, KNOWN)
    before = filters._run.cache_info().misses
    for changed in (
        [*rules, rule(10_000, "203.0.113.1", "tcp", 60001, 60001)],
        rules[:5000] + rules[5001:],
        rules[:1] + rules[2:],
    ):
        filters.ingress(changed, KNOWN)
        after = filters._run.cache_info().misses
        assert after - before == 1
        before = after


@pytest.mark.parametrize("place", [0, 1, 299])
def test_an_address_that_is_not_the_routers_is_named(place):
    rules = [rule(number, "203.0.113.1", "tcp", number + 1, number + 1, f"{number % 256:02x}") for number in range(300)]
    rules[place] = rules[place]._replace(address="203.0.113.9")
    with pytest.raises(ValueError, match=f"Firewall rule {rules[place].id} is for '203.0.113.9'"):
        filters.ingress(rules, KNOWN)
    forwards = tuple(
        PortForward(each.id, each.address, "tcp", each.start, each.start, "10.1.1.5", 80, 80) for each in rules
    )
    network = Network("n", "10.1.1.0/24", "10.1.1.1", "", "", frozenset(), forwards=forwards)
    with pytest.raises(ValueError, match=f"Port forwarding rule {rules[place].id} is for '203.0.113.9'"):
        nat.forwards([network], KNOWN)
