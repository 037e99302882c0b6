"""A whole cloud: control plane and agents as processes of their own, hosts and an internet as namespaces."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from controlplane import demo_zone, run
from controlplane.settings import Settings
from systemvm.fabric import Fabric
from tests.spine.world import World


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """A zone of two hosts, made through the API by the public ``cs`` client."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fabric = Fabric(f"t{os.getpid()}-", ("host-1", "host-2"))
    with TemporaryDirectory(prefix="netspine-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the control plane has dropped root when it opens its own folder below
        place = run.Place(folder)
        with run.standing(Settings(port=port), place, fabric) as cloud:
            zone = demo_zone.ensure_zone(cloud.client, run.specs_of(cloud), place.template)
            yield World(cloud, zone["id"])


@pytest.fixture(scope="session")
def net(world: World):
    """A network of the default offering, for all tests that only add to it."""
    return world.network()


@pytest.fixture(scope="session")
def guests(world: World, net):
    """Two guests on it, on two hosts."""
    return [world.guest(net["id"], hostid=world.host(number)) for number in (1, 2)]
