"""The real agent against real namespaces: applied, unchanged, refused, broken, crashed, taken down."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from systemvm import netns
from systemvm.bundle import Bundle, File
from tests.netns.agent_world import SKELETON, World, answer, connect, interfaces, serving, until

pytestmark = pytest.mark.netns


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, "a")
    try:
        world.build()
        world.start()
        yield world
    finally:
        world.destroy()
        print(world.log()[-6000:])


def test_a_bundle_becomes_packets(world: World) -> None:
    with serving(world.guest, 8000, b"one"), serving(world.guest, 8001, b"two"):
        outcome = world.door.apply(world.bundle(1, forward="8000"))
        assert outcome.status == "applied", outcome
        assert outcome.changed == ("links", "nft", "dnsmasq", "haproxy", "metadata")
        assert answer(world.client, "198.51.100.1", 80) == b"one"
        assert world.door.apply(world.bundle(2, forward="8000")).status == "unchanged"
        outcome = world.door.apply(world.bundle(3, forward="8001"))
        assert (outcome.status, outcome.changed) == ("applied", ("nft",))
        assert answer(world.client, "198.51.100.1", 80) == b"two"
