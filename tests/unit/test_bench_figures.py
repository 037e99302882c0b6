"""The speed table's own arithmetic: a bar that does not hold must be seen."""

import pytest

from bench.figures import Bar, Figure, Raw, quantile, table


@pytest.mark.parametrize(("share", "found"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_quantiles_are_by_nearest_rank(share, found):
    assert quantile(list(range(100, 0, -1)), share) == found


def test_every_bar_must_hold():
    samples = [1.0] * 98 + [500.0] * 2
    assert Figure("a", "ms", samples, [Bar("median", 100)]).met is True
    assert Figure("a", "ms", samples, [Bar("median", 100), Bar("p99", 300)]).met is False
    assert Figure("a", "ms", samples, [Bar("worst", 500)]).met is True
    assert Figure("a", "ms", samples).met is None


def test_the_table_names_what_was_missed_and_what_it_is_compared_with():
    line = table([Figure("a", "ms", [30.0], [Bar("worst", 20)], Raw("b", [10.0]))]).splitlines()[-1]
    assert "**missed**" in line
    assert "worst ≤ 20" in line
    assert "10.0 (3.0 x) b" in line
