"""What the tests of the API share: one control plane in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving import Server, running


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A running control plane that no test changes for the others."""
    with running() as found:
        yield found
