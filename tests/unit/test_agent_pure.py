"""The agent's pure parts: what is decided, what differs, what a translation matches, what a counter adds up to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from systemvm import settle, tree
from systemvm.apply import Refused, changed, decide, merge
from systemvm.bundle import Bundle, Elements, File, Observation
from systemvm.ledger import Ledger
from systemvm.metadata_server import taken_mark
from systemvm.services import HostSettings, Place, elements
from systemvm.services.kinds import KINDS
from systemvm.services.links import read
from systemvm.settle import Flow, Index, Translation
from systemvm.tally import Tally

BUNDLE = Bundle("t", "r-1", "router", 5, (File("nftables.nft", "table ip x {\n}\n", "nft"),))


def test_what_a_bundle_asks_for() -> None:
    assert decide(None, BUNDLE) == "apply"
    assert decide(BUNDLE, replace(BUNDLE, generation=6)) == "unchanged"
    assert decide(BUNDLE, BUNDLE) == "unchanged"
    assert decide(BUNDLE, BUNDLE, torn=True) == "apply"
    assert decide(BUNDLE, replace(BUNDLE, generation=6, files=())) == "apply"
    with pytest.raises(Refused, match="older than 5"):
        decide(BUNDLE, replace(BUNDLE, generation=4))
    with pytest.raises(Refused, match="another content"):
        decide(BUNDLE, replace(BUNDLE, files=()))


def test_only_services_whose_files_differ_are_touched() -> None:
    services = KINDS["router"]
    assert [service.name for service in services][:2] == ["links", "nft"]
    assert changed(None, BUNDLE, services) == services

    def names(new: Bundle) -> list[str]:
        return [service.name for service in changed(BUNDLE, new, services)]

    assert names(BUNDLE) == []
    assert names(replace(BUNDLE, elements=(Elements("a", ("1.1.1.1",)),))) == ["nft"]
    assert names(replace(BUNDLE, files=())) == ["nft"]
    assert names(replace(BUNDLE, files=(*BUNDLE.files, File("dnsmasq/hosts", "", "dnsmasq")))) == ["dnsmasq"]


KEYS = st.lists(st.integers(1, 40).map(lambda n: f"10.0.0.{n} . tcp . {n}-{n + 5}"), unique=True)
TAILS = st.sampled_from(["", " counter", ' counter comment "a : b, c"', ' comment "x"'])
VALUES = st.sampled_from(["", " : 10.1.1.1 . 80", " : 10.1.1.2 . 81", " : jump other"])


@st.composite
def items(draw: st.DrawFn) -> list[str]:
    return [key + draw(TAILS) + draw(VALUES) for key in draw(KEYS)]


@given(items(), items())
def test_the_difference_leads_from_one_list_to_the_other(old: list[str], new: list[str]) -> None:
    """Applied to a kernel that knows keys alone, the difference gives exactly the new elements."""
    gone, fresh = elements.difference(old, new)
    kernel = {elements.key_of(item): item for item in old}
    for key in gone:
        del kernel[key]  # raises where the key is not one that the kernel has
    for item in fresh:
        assert elements.key_of(item) not in kernel
        kernel[elements.key_of(item)] = item
    assert sorted(kernel.values()) == sorted(new)
    assert len(gone) <= len(set(old) - set(new))


@pytest.mark.parametrize(
    ("item", "key", "value"),
    [
        ("10.0.0.1", "10.0.0.1", ""),
        ("10.0.0.1 . tcp . 80 : 10.1.1.1 . 80", "10.0.0.1 . tcp . 80", "10.1.1.1 . 80"),
        ('10.0.0.0/8 counter comment "u : v"', "10.0.0.0/8", ""),
        ('fd00::1 . udp . 1-9 counter comment "u" : fd00::2 . 53', "fd00::1 . udp . 1-9", "fd00::2 . 53"),
        ('"eth0" . 10.0.0.1 : jump counter_chain', '"eth0" . 10.0.0.1', "jump counter_chain"),
    ],
)
def test_the_parts_of_an_element(item: str, key: str, value: str) -> None:
    assert elements.key_of(item) == key
    assert elements.value_of(item) == value


def test_items_that_are_more_than_one_element_are_found() -> None:
    good = ['10.0.0.1 counter comment "a-b c"', "1.1.1.1 . tcp . 80-90 : 2.2.2.2 . 80", '"eth0" . 1.1.1.1']
    bad = [
        "1.1.1.1 }",
        "1.1.1.1; flush ruleset",
        "1.1.1.1\n",
        "1.1.1.1, 2.2.2.2",
        '1.1.1.1 comment "a',
        "",
        '1 comment "}"',
    ]
    assert list(elements.unsafe(good)) == []
    assert list(elements.unsafe(bad)) == bad


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# no table\n",
        "table ip a {\n}\ndelete table ip b\n",
        "flush ruleset\ntable ip a {\n}\n",
        'table ip a {\n}\ninclude "/etc/passwd"\n',
    ],
)
def test_a_skeleton_declares_tables_and_does_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match=r"refused|at least one table"):
        elements.tables_of(text)


def test_a_skeletons_table() -> None:
    repeatable = "table inet a\ndelete table inet a\n\ntable inet a {\n}\n"
    assert elements.tables_of(repeatable) == (("inet", "a"),)
    with pytest.raises(ValueError, match="line 2"):
        elements.tables_of(repeatable.replace("delete table inet a", "delete table inet b"))
    assert elements.tables_of("# x\ntable inet a {\n}\n") == (("inet", "a"),)
    assert elements.tables_of("table a {\n  chain c { }\n}\n") == (("ip", "a"),)
    skeleton = "table ip a {\n  set s {\n }\n  map m { type ipv4_addr : ipv4_addr; }\n}\n"
    assert [elements.declares(skeleton, name) for name in ("s", "m", "n", "a")] == [True, True, False, False]


def test_elements_go_to_the_table_that_declares_their_set() -> None:
    skeleton = "table bridge b {\n set s { typeof iifname; }\n}\ntable inet a {\n map m { type mark : mark; }\n}\n"
    sets = (Elements("m", ("1 : 2",)), Elements("s", ("vif1",)))
    text = elements.replacing(skeleton, sets)
    assert text.startswith("table bridge b\ndelete table bridge b\ntable inet a\ndelete table inet a\ntable bridge b {")
    assert text.endswith("add element inet a m { 1 : 2 }\nadd element bridge b s { vif1 }\n")
    old = Bundle("t", "t", "host", 1, elements=sets)
    new = Bundle("t", "t", "host", 2, elements=(Elements("m", ("1 : 3",)), Elements("s", ())))
    assert elements.changing(skeleton, old, new).splitlines() == [
        "delete element inet a m { 1 }",
        "delete element bridge b s { vif1 }",
        "add element inet a m { 1 : 3 }",
    ]


PORTS = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: (min(pair), max(pair)))
PLACES = st.tuples(st.integers(0, 6), st.integers(0, 6)).map(lambda pair: (min(pair), max(pair)))
TRANSLATIONS = st.builds(
    Translation,
    st.one_of(st.integers(0, 6).map(lambda n: (n, n)), PLACES),
    st.sampled_from([0, 6, 17]),
    st.one_of(st.integers(0, 30).map(lambda n: (n, n)), PORTS, st.just((0, 65535))),
    PLACES,
)
FLOWS = st.builds(Flow, st.integers(0, 6), st.integers(0, 6), st.sampled_from([1, 6, 17]), st.integers(0, 30))


@given(st.lists(TRANSLATIONS), FLOWS)
def test_the_index_finds_what_a_search_through_all_finds(translations: list[Translation], flow: Flow) -> None:
    assert Index.of(translations).meets(flow) == any(each.matches(flow) for each in translations)


def test_translations_that_changed() -> None:
    old = {"dnat_a": ["1.1.1.1 . tcp . 80 : 10.0.0.1 . 80", "1.1.1.2 : 10.0.0.2"], "snat_b": ["9.9.9.9 : 8.8.8.8"]}
    new = {
        "dnat_a": ['1.1.1.1 . tcp . 80 comment "x" : 10.0.0.1 . 80', "1.1.1.2 : 10.0.0.3"],
        "dnat_c": ["1.1.1.3 . udp . 5-9 . 10.0.0.0/8 : 1.2.3.4"],
    }
    assert settle.changed(old, new) == {"1.1.1.2"}
    assert settle.changed(new, old) == {"1.1.1.2", "1.1.1.3 . udp . 5-9 . 10.0.0.0/8"}
    assert settle.changed(new, new) == set()
    assert settle.translation("1.1.1.1 . udp . 53 . 0x1f") == settle.translation("1.1.1.1 . udp . 53")


@pytest.mark.parametrize(
    ("before", "settled"),
    [
        ({}, False),
        ({"dnat_ports": ["1.1.1.1 . tcp . 81 : 10.0.0.1 . 80"]}, False),
        ({"dnat_static": ["1.1.1.2 : 10.0.0.1"]}, False),
        ({"dnat_static": ["1.1.1.1 : 10.0.0.1"]}, True),
        ({"dnat_ranges": ["1.1.1.0/24 . tcp . 1-99 : 10.0.0.1"]}, True),
    ],
)
def test_a_translation_that_appears_takes_connections_only_from_another_map(
    before: dict[str, list[str]], settled: bool
) -> None:
    fresh = "1.1.1.1 . tcp . 80"
    after = before | {"dnat_ports": [*before.get("dnat_ports", ()), f"{fresh} : 10.0.0.2 . 80"]}
    assert settle.changed(before, after) == ({fresh} if settled else set())


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.booleans())))
def test_totals_only_rise(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bool]]) -> None:
    """Whatever is counted, folded and begun anew: no total falls, and nothing is counted twice."""
    tally = Tally(tmp_path_factory.mktemp("tally") / "counters.json")
    kernel = {"a": (0, 0), "b": (0, 0)}
    truth = {"a": 0, "b": 0}
    for name, packets, replaced in steps:
        kernel[name] = (kernel[name][0] + packets, 0)
        truth[name] += packets
        assert {key: count[0] for key, count in tally.read(kernel).items()} == truth
        if replaced:
            tally.fold(kernel)
            kernel = {"a": (0, 0), "b": (0, 0)}


def test_the_ledger_is_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.put(BUNDLE)
    again = Ledger(tmp_path / "ledger")
    assert again.get("t") == BUNDLE
    assert again.standing() == {"t": (5, BUNDLE.digest)}
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "ledger").iterdir()] == [0o600]
    again.forget("t")
    assert list(Ledger(tmp_path / "ledger")) == []
    (tmp_path / "ledger/t.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read"):
        Ledger(tmp_path / "ledger")
    with pytest.raises(ValueError, match="not a UUID"):
        again.put(replace(BUNDLE, target="../x"))


def test_an_entry_of_another_version_is_applied_anew_and_can_be_taken_down(tmp_path: Path) -> None:
    Ledger(tmp_path).put(BUNDLE)
    path = tmp_path / "t.json"
    path.write_text(path.read_text().replace(BUNDLE.digest, "0" * 64))
    ledger = Ledger(tmp_path)
    assert (list(ledger), ledger.standing(), ledger.get("t")) == ([], {}, None)
    assert [(each.target, each.name, each.kind) for each in ledger.doubtful] == [("t", BUNDLE.name, BUNDLE.kind)]
    ledger.put(BUNDLE)
    assert (list(ledger), ledger.doubtful) == ([BUNDLE], [])
    path.write_text(path.read_text().replace(BUNDLE.digest, "0" * 64))
    ledger = Ledger(tmp_path)
    ledger.forget("t")
    assert (ledger.doubtful, path.exists()) == ([], False)


def place(folder: Path) -> Place:
    return Place("r-1", "", folder / "r-1", HostSettings("h", "", "", folder))


def test_files_are_swapped_in_place(tmp_path: Path) -> None:
    here = place(tmp_path)
    old = replace(BUNDLE, files=(File("a/one", "1", "x"), File("a/two", "2", "x"), File("b", "3", "x", secret=True)))
    tree.swap(here, tree.stage(here, old), old)
    assert tree.torn(here)
    tree.settle(here)
    folder, kept = here.current.stat().st_ino, (here.current / "a/two").stat().st_ino
    new = replace(BUNDLE, files=(File("a/one", "changed", "x"), File("a/two", "2", "x"), File("b/c", "4", "x")))
    assert [file.path for file in tree.edited(here, new)] == ["a/one", "b/c"]
    tree.swap(here, tree.stage(here, new), new)
    found = {
        str(path.relative_to(here.current)): path.read_text() for path in here.current.rglob("*") if path.is_file()
    }
    assert found == {"a/one": "changed", "a/two": "2", "b/c": "4"}
    assert (here.current.stat().st_ino, (here.current / "a/two").stat().st_ino) == (folder, kept)
    assert tree.edited(here, new) == []
    tree.swap(here, tree.stage(here, old), old)
    assert (here.current / "b").stat().st_mode & 0o777 == 0o600
    assert not (here.folder / "staged").exists()


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "nftables.nft"])
def test_paths_that_leave_the_folder_or_come_twice_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="refused"):
        tree.stage(place(tmp_path), replace(BUNDLE, files=(*BUNDLE.files, File(path, "", "nft"))))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"interfaces": [{"mac": "a", "name": "e"}, {"mac": "A", "name": "f"}]}', "same|two interfaces"),
        ('{"interfaces": [], "sysctls": {"kernel.core_pattern": "|x"}}', "kernel.core_pattern"),
        ('{"interfaces": [], "sysctls": {"net/../kernel/x": "1"}}', "refused"),
        ('{"interfaces": [{"mac": "a", "name": "e", "addresses": ["10.0.0.300/24"]}]}', "10.0.0.300"),
    ],
)
def test_what_no_interface_can_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"(?i){said}"):
        read(text)


def test_observations_are_merged() -> None:
    parts = [
        Observation("t", (("nft", ""),), (("rule", 1, 10),)),
        Observation("t", (("haproxy", "gone"),), (("rule", 2, 20), ("other", 1, 1)), (("b", "UP"), ("a", "DOWN"))),
    ]
    merged = merge("t", parts)
    assert merged.counters == (("other", 1, 1), ("rule", 3, 30))
    assert merged.health == (("nft", ""), ("haproxy", "gone"))
    assert merged.states == (("a", "DOWN"), ("b", "UP"))


def test_the_mark_of_a_password_says_nothing_of_it() -> None:
    assert taken_mark("vm", "secret").startswith("vm.")
    assert "secret" not in taken_mark("vm", "secret")
    assert taken_mark("vm", "secret") != taken_mark("vm", "other") != taken_mark("mv", "other")
