"""A running control plane for the clients that people really use, each as it comes from PyPI."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving import Server, running


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A control plane in a process of its own, with an empty zone ``zone-1``."""
    with running() as found:
        answer = found.get(
            "createZone",
            name="zone-1",
            networktype="Advanced",
            dns1="192.0.2.53",
            internaldns1="192.0.2.53",
            guestcidraddress="10.1.1.0/24",
        )
        assert answer.status_code == 200, answer.text
        yield found
