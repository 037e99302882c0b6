"""What the tests of the API share: one control plane in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.ground import Ground, lay
from tests.conftest import Cloud
from tests.serving import Server, running


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A running control plane that no test changes for the others."""
    with running() as found:
        yield found


@pytest.fixture
def ground(cloud: Cloud) -> Ground:
    """A zone with public addresses, and no host: what rules are made on."""
    return lay(cloud)


@pytest.fixture
def alice(ground: Ground) -> Cloud:
    """The cloud as alice calls it, who has an account of her own."""
    return ground.account("alice")


@pytest.fixture
def network(ground: Ground) -> str:
    """The UUID of alice's network."""
    return ground.network("alice")


@pytest.fixture
def ip(ground: Ground, alice: Cloud, network: str) -> str:
    """The UUID of a public address of alice's network."""
    return ground.address(alice, network)
