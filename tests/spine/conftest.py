"""What the tests of the whole cloud share beside the cloud itself."""

from __future__ import annotations

import pytest

from tests.spine.world import World


@pytest.fixture(scope="session")
def net(world: World):
    """A network of the default offering, for all tests that only add to it."""
    return world.network()


@pytest.fixture(scope="session")
def guests(world: World, net):
    """Two guests on it, on two hosts."""
    return [world.guest(net["id"], hostid=world.host(number)) for number in (1, 2)]
