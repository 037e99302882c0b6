"""Rolling upgrades: which routers an older release made, one that goes first, and what a failure stops."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.errors import BadParameter, MissingParameter
from controlplane.network.networks import Network
from controlplane.network.routers import Router
from controlplane.work.jobs import FAILED, SUCCEEDED, Job
from systemvm import VERSION
from tests.api import test_network_life

there = test_network_life.there
OLD = "0.0.9"


@pytest.fixture
def old(there):
    """Three networks, each with a router that an older release made."""
    with there.cloud.database.write() as session:
        offering = session.scalars(select(Network)).first().offering.uuid
    admin = there.cloud
    for name in ("one", "two"):
        made = admin("createNetwork", name=name, zoneid=there.zone, networkofferingid=offering)["network"]
        there.deploy(name=name, networkids=made["id"])
    there.deploy(name="zero")
    with there.cloud.database.write() as session:
        for router in session.scalars(select(Router)):
            router.version = OLD
    return sorted(there.rows(Router), key=lambda row: row.id)


def ended(there, answer):
    jobs = [one["jobid"] for one in answer["asyncjobs"]]
    for job in jobs:
        there.job({"jobid": job})
    by_uuid = {row.uuid: row for row in there.rows(Job)}
    return [by_uuid[job] for job in jobs]


def shown(there):
    found = there.cloud.as_user("admin")("listRouters", listall=True)["router"]
    return {row["id"]: (row["version"], row["requiresupgrade"]) for row in found if row["state"] == "Running"}


def test_all_of_a_zone_are_replaced_and_keep_their_ids(there, old):
    assert shown(there) == {row.uuid: (OLD, True) for row in old}
    assert {row["id"] for row in there.cloud.as_user("admin")("listRouters", version=OLD, listall=True)["router"]} == {
        row.uuid for row in old
    }
    jobs = ended(there, there.cloud.as_user("admin")("upgradeRouterTemplate", zoneid=there.zone))
    assert [job.instance_uuid for job in jobs] == [row.uuid for row in old]
    assert {job.status for job in jobs} == {SUCCEEDED}
    assert shown(there) == {row.uuid: (VERSION, False) for row in old}
    assert max(job.created for job in jobs) <= jobs[0].completed
    assert min(job.completed for job in jobs[1:]) >= jobs[0].completed, "one goes first"
    assert there.cloud.as_user("admin")("upgradeRouterTemplate", zoneid=there.zone).get("asyncjobs", []) == []


def test_when_the_first_one_fails_no_other_is_touched(there, old):
    first = f"{old[0].name}-{old[-1].id + 1}"
    for agent in there.agents:
        agent.failing.add(first)
    jobs = ended(there, there.cloud.as_user("admin")("upgradeRouterTemplate", zoneid=there.zone))
    assert {job.status for job in jobs} == {FAILED}
    assert "could not be made, and the old one goes on serving" in jobs[0].result["errortext"]
    for job in jobs[1:]:
        assert f"was not upgraded, and serves as before, since that of {old[0].name} failed" in job.result["errortext"]
    assert shown(there) == {row.uuid: (OLD, True) for row in old}
    for agent in there.agents:
        agent.failing.clear()
    (job,) = ended(there, there.cloud.as_user("admin")("upgradeRouterTemplate", id=old[1].uuid))
    assert job.status == SUCCEEDED
    assert shown(there)[old[1].uuid] == (VERSION, False)


def test_by_host_and_owner_and_one_way_only(there, old):
    cloud = there.cloud.as_user("admin")
    with pytest.raises(MissingParameter, match="give one of id, zoneid, podid, clusterid and domainid"):
        cloud("upgradeRouterTemplate")
    with pytest.raises(BadParameter, match="id and zoneid"):
        cloud("upgradeRouterTemplate", id=old[0].uuid, zoneid=there.zone)
    pod, cluster = (cloud(f"list{kind}s", zoneid=there.zone)[kind.lower()][0]["id"] for kind in ("Pod", "Cluster"))
    router = cloud("listRouters", id=old[0].uuid)["router"][0]
    assert (
        len(ended(there, cloud("upgradeRouterTemplate", account=router["account"], domainid=router["domainid"]))) == 3
    )
    with there.cloud.database.write() as session:
        for row in session.scalars(select(Router)):
            row.version = OLD
    assert len(ended(there, cloud("upgradeRouterTemplate", podid=pod))) == 3
    assert cloud("upgradeRouterTemplate", clusterid=cluster).get("asyncjobs", []) == []
    assert cloud("upgradeRouterTemplate", domainid=router["domainid"]).get("asyncjobs", []) == []


def test_without_the_check_nothing_is_said_of_it(there, old):
    there.cloud.as_user("admin")("updateConfiguration", name="router.version.check", value="false")
    assert shown(there) == {row.uuid: (OLD, False) for row in old}
