"""How much the agent adds to the kernel's own price, as ratios in one run, as absolute times drift with the machine."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from systemvm import netns
from systemvm.apply import Applier
from systemvm.bundle import Bundle, Elements, File
from systemvm.ledger import Ledger
from systemvm.services import HostSettings, elements
from systemvm.services.nft import Nft
from tests.netns.agent_world import SKELETON

pytestmark = pytest.mark.netns
N = 10_000


@pytest.fixture
def applier(tmp_path: Path) -> Iterator[Applier]:
    prefix = f"ta{os.getpid()}b-"
    netns.ensure(prefix + "r-1")
    settings = HostSettings("h", "", prefix, tmp_path)
    yield Applier(settings, Ledger(tmp_path / "ledger"), {"router": (Nft(),)})
    netns.ensure_no(prefix + "r-1")


def bundle(generation: int, changed: int = 0) -> Bundle:
    items = [
        f"203.{n // 62500}.{n // 250 % 250}.{n % 250} . tcp . 80 : 10.1.{n // 250}.{n % 250} . 80" for n in range(N)
    ]
    for n in range(changed):
        items[n * 97 % N] = items[n * 97 % N].removesuffix("80") + str(8000 + generation)
    files = (File("nftables.nft", SKELETON, "nft"),)
    return Bundle("t", "r-1", "router", generation, files, (Elements("dnat_forward", tuple(sorted(items))),))


def seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_ten_thousand_elements(applier: Applier, tmp_path: Path) -> None:
    (tmp_path / "raw.nft").write_text(elements.replacing(SKELETON, bundle(1).elements))
    namespace = applier.place(bundle(1)).namespace
    raw, whole, one, none = [], [], [], []
    generation, statuses = 1, []
    for _ in range(5):
        raw.append(seconds(lambda: netns.run(namespace, ["nft", "-f", str(tmp_path / "raw.nft")])))
        fresh = bundle(generation)
        applier.remove(fresh)
        assert fresh.digest
        whole.append(seconds(lambda fresh=fresh: applier.apply(fresh)))
        assert applier.ledger.get("t") == fresh
        for _ in range(3):
            generation += 1
            wanted = bundle(generation, changed=1)
            assert wanted.digest
            one.append(seconds(lambda wanted=wanted: statuses.append(applier.apply(wanted).status)))
        generation += 1
        same = replace(wanted, generation=generation)
        none.append(seconds(lambda same=same: statuses.append(applier.apply(same).status)))
    assert statuses == ["applied", "applied", "applied", "unchanged"] * 5
    middle = {
        name: statistics.median(times) for name, times in (("raw", raw), ("whole", whole), ("one", one), ("none", none))
    }
    print(
        {name: f"{time * 1000:.1f} ms" for name, time in middle.items()}, f"ratio {middle['whole'] / middle['raw']:.2f}"
    )
    # the bar, 1.5, is the bench's to measure on a quiet machine; here a busy one must not turn into a failure
    assert min(whole) <= 3 * min(raw)
    assert min(one) <= min(raw)


def counted(generation: int, further: int = 0) -> Bundle:
    """A bundle with a counter to each of its elements."""
    items = [f'10.{n // 62500}.{n // 250 % 250}.{n % 250} . 80 counter comment "{n}"' for n in range(N + further)]
    skeleton = "table ip speed {\n set opened {\n  type ipv4_addr . inet_service\n  counter\n }\n}\n"
    files = (File("nftables.nft", skeleton, "nft"),)
    return Bundle("t", "r-1", "router", generation, files, (Elements("opened", tuple(sorted(items))),))


def test_no_apply_waits_while_a_large_table_is_read_back(applier: Applier) -> None:
    assert applier.apply(counted(1)).status == "applied"
    raw = seconds(lambda: netns.run(applier.place(counted(1)).namespace, ["nft", "-j", "list", "table", "ip", "speed"]))

    def observed(held: Bundle) -> tuple[float, int]:
        began = time.monotonic()
        seen = applier.observe(held)
        return time.monotonic() - began, len(seen.counters)

    took, found = [], []
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not any(found):
        taken, count = observed(counted(1))
        took.append(taken)
        found.append(count)
        if len(took) == 1:  # while the table is being read
            assert applier.apply(counted(2, further=1)).status == "applied"
        time.sleep(0.01)
    assert found[-1] in (N, N + 1)
    assert took[0] < raw
    assert applier.ensure(counted(2, further=1)) == []
