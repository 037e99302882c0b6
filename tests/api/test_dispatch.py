"""Dispatch: what every command has in common."""

from __future__ import annotations

import pytest

from controlplane.errors import Unauthenticated


def test_an_unknown_command_is_told_as_one_that_is_not_allowed(cloud):
    with pytest.raises(Unauthenticated, match="does not exist or is not available for user"):
        cloud("noSuchCommand")
