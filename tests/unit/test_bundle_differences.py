"""Differences between bundles: on the wire and in the ledger, and what they come to at the other end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from systemvm.bundle import Bundle, Elements, File
from systemvm.ledger import Ledger

ITEMS = st.sets(st.integers(0, 60).map(lambda number: f"10.0.0.{number} : 10.1.1.{number}")).map(
    lambda items: tuple(sorted(items))
)
SETS = st.dictionaries(st.sampled_from("abc"), ITEMS).map(
    lambda sets: tuple(Elements(name, items) for name, items in sorted(sets.items()))
)
MANY = tuple(f"10.0.{number // 200}.{number % 200} : 10.1.1.1" for number in range(2000))


def bundle(sets: tuple[Elements, ...], generation: int = 1) -> Bundle:
    return Bundle("t", "r-1", "router", generation, (File("nftables.nft", "table ip x {}\n", "nft"),), sets)


def large(*further: str, generation: int = 1) -> Bundle:
    return bundle((Elements("a", tuple(sorted((*MANY, *further)))),), generation)


def sent(data: dict) -> dict:
    return json.loads(json.dumps(data))


@given(SETS, SETS)
def test_a_difference_comes_to_the_whole(before: tuple[Elements, ...], after: tuple[Elements, ...]) -> None:
    old, new = bundle(before), bundle(after, 2)
    assert Bundle.from_json(sent(new.to_json(old)), old) == new
    assert Bundle.from_json(sent(new.to_json()), old) == new
    assert Bundle.from_json(sent(new.to_json())).digest == new.digest
    assert (old.digest == new.digest) == (before == after)


def test_a_difference_is_small_and_keeps_what_is_the_same() -> None:
    old, new = large(), large("10.9.9.9 : 10.1.1.1", generation=2)
    old = replace(old, elements=(*old.elements, Elements("b", MANY)))
    new = replace(new, elements=(*new.elements, Elements("b", MANY)))
    data = sent(new.to_json(old))
    assert len(json.dumps(data)) < 1000
    read = Bundle.from_json(data, old)
    assert read == new
    assert read.elements[1] is old.elements[1]


def test_a_difference_to_another_base_is_noticed() -> None:
    data = sent(large("10.9.9.9 : 10.1.1.1", generation=2).to_json(large()))
    with pytest.raises(ValueError, match="damaged"):
        Bundle.from_json(data, large("10.8.8.8 : 10.1.1.1"))
    with pytest.raises(KeyError):
        Bundle.from_json(data)


def test_the_ledger_grows_by_differences_and_is_written_anew(tmp_path: Path) -> None:
    ledger, path = Ledger(tmp_path), tmp_path / "t.json"
    ledger.put(large())
    whole = path.stat().st_size
    for generation in range(2, 600):
        ledger.put(large(f"10.9.9.9 : 10.1.1.{generation}", generation=generation))
        assert path.stat().st_size <= 2 * whole + 200
        if generation in (2, 3, 599):
            assert list(Ledger(tmp_path)) == list(ledger)
    assert path.read_text().count("\n") > 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_that_was_not_finished_was_never_written(tmp_path: Path) -> None:
    ledger, path = Ledger(tmp_path), tmp_path / "t.json"
    ledger.put(large())
    second, third = (large(f"10.9.9.{number} : 10.1.1.1", generation=number) for number in (2, 3))
    ledger.put(second)
    done = path.stat().st_size
    ledger.put(third)
    written = path.read_text()
    for end in (done, done + 1, len(written) - 1):
        path.write_text(written[:end])
        again = Ledger(tmp_path)
        assert list(again) == [second]
        again.put(third)
        assert list(Ledger(tmp_path)) == [third]
    path.write_text(written.replace('"gone"', '"lost"', 1))
    assert [each.target for each in Ledger(tmp_path).doubtful] == ["t"]


def test_after_an_append_that_failed_the_whole_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(large())
    second = large("10.9.9.2 : 10.1.1.1", generation=2)

    def full(path: Path, text: str) -> None:
        with path.open("a") as file:
            file.write(text[:20])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("systemvm.ledger._append_durably", full)
        with pytest.raises(OSError, match="No space"):
            ledger.put(second)
    assert list(ledger) == list(Ledger(tmp_path)) == [large()]
    ledger.put(second)
    assert list(Ledger(tmp_path)) == [second]
