"""What people on call ask: where a target stands, and what its rows mean."""

from __future__ import annotations

import pytest

from controlplane import on_call
from controlplane.network.routers import Router
from tests.api.compute_world import world


def test_why_and_plan_tell_a_routers_story_without_its_secrets(cloud):
    with world(cloud, hosts=1) as there:
        there.deploy(name="one", userdata="c2VjcmV0")
        (router,) = there.rows(Router)
        told = "\n".join(on_call.why(cloud.database, router.name))
        planned = "\n".join(on_call.plan(cloud.database, router.name))
    assert "desired generation" in told
    assert "served by agent" in told
    assert f"# {router.name} generation" in planned
    assert "--- nftables.nft (nft)" in planned
    assert "(secret)" in planned
    assert "c2VjcmV0" not in planned


def test_an_unknown_target_is_told_with_the_known_ones(cloud):
    with pytest.raises(LookupError, match="There is no target r-9"):
        list(on_call.why(cloud.database, "r-9"))
