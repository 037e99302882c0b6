"""Names: whatever is let through can break out of nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.events.events import _words
from controlplane.identity import names
from controlplane.identity.role_rules import pattern
from controlplane.identity.tags import pairs_of


@given(st.text(max_size=300))
def test_what_passes_is_one_line(value):
    for check in (names.text, names.name, names.path_part, names.dns_domain, names.timezone, names.new_id, pattern):
        try:
            kept = check(value)
        except ValueError:
            continue
        assert not re.search(r"[\x00-\x1f\x7f\u2028\u2029]", kept)
        assert check(kept) == kept


@given(st.text(max_size=60))
def test_a_dns_domain_has_nothing_that_a_file_could_mean(value):
    try:
        kept = names.dns_domain(value)
    except ValueError:
        return
    assert re.fullmatch(r"[a-z0-9.-]*", kept)
    assert ".." not in kept


@pytest.mark.parametrize("value", ["example.org", "a-b.c", "", "x" * 63])
def test_dns_domains(value):
    assert names.dns_domain(value) == value


@pytest.mark.parametrize(
    "value", ["-a", "a-", "a..b", ".a", "a.", "x" * 64, "a b", 'a"', "a/b", ".".join(["abcd"] * 40)]
)
def test_no_dns_domains(value):
    with pytest.raises(ValueError):
        names.dns_domain(value)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda key: key != "key"), st.text()
    )
)
def test_tags_mean_the_same_in_either_form(wanted):
    spread = pairs_of([wanted])
    records = pairs_of([{"key": key, "value": value} for key, value in wanted.items()])
    assert spread == records == list(wanted.items())


@given(st.from_regex(r"\A[a-z]+([A-Z][a-z]*)*\Z"))
def test_words_lose_no_letter(command):
    assert _words(command).replace(" ", "").lower() == command.lower()
