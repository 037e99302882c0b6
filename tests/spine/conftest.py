"""A whole cloud: control plane and agents as processes of their own, hosts and an internet as namespaces."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane import demo_zone, run
from controlplane.settings import Settings
from systemvm.fabric import Fabric
from tests.spine.world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A zone of two hosts, made through the API by the public ``cs`` client."""
    folder = tmp_path_factory.mktemp("cloud")
    for path in (folder, *folder.parents[:3]):
        if path.stat().st_uid == os.geteuid() and path != Path("/tmp"):
            path.chmod(0o755)  # the control plane has dropped root when it opens its own folder below
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = run.Place(folder)
    fabric = Fabric(f"t{os.getpid()}-", ("host-1", "host-2"))
    with run.standing(Settings(port=port), place, fabric) as cloud:
        zone = demo_zone.ensure_zone(cloud.client, run.specs_of(cloud), place.template)
        yield World(cloud, zone["id"])
