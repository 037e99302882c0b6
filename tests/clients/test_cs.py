"""The ``cs`` client, which Ansible uses too: GET, POST, signature version 3, jobs and lists in pages."""

from __future__ import annotations

import pytest
from cs import CloudStack, CloudStackApiException, CloudStackException

from tests.serving import KEYS

METHODS = ("get", "post")


@pytest.fixture(params=METHODS)
def cloud(request, server):
    key, secret = KEYS["admin"]
    return CloudStack(endpoint=server.url, key=key, secret=secret, method=request.param, poll_interval=0.05)


def test_it_lists_zones(cloud):
    (zone,) = cloud.listZones(fetch_list=True)
    assert (zone["name"], zone["networktype"]) == ("zone-1", "Advanced")
    assert cloud.listZones(name="nowhere") == {}


def test_it_pages_through_a_list(cloud):
    offerings = cloud.listNetworkOfferings(fetch_list=True)
    assert len(offerings) == cloud.listNetworkOfferings()["count"]
    cloud.page_size = 2
    assert [offering["id"] for offering in cloud.listNetworkOfferings(fetch_list=True)] == [
        offering["id"] for offering in offerings
    ]


def test_it_waits_for_a_job(cloud):
    (zone,) = cloud.listZones(fetch_list=True)
    made = cloud.createPhysicalNetwork(zoneid=zone["id"], name="physical é~*[1]", fetch_result=True)["physicalnetwork"]
    assert made["name"] == "physical é~*[1]"
    started = cloud.deletePhysicalNetwork(id=made["id"])
    job = cloud.queryAsyncJobResult(jobid=started["jobid"])
    assert (job["jobstatus"], job["jobresultcode"], job["jobresult"]) == (1, 0, {"success": True})


def test_it_sends_maps(cloud):
    (user,) = cloud.listUsers(username="admin", fetch_list=True)
    for text in ("first", "two words & more"):
        tags = [{"key": "colour", "value": text}]
        cloud.createTags(resourcetype="User", resourceids=user["id"], tags=tags, fetch_result=True)
        assert [tag["value"] for tag in cloud.listTags(resourceid=user["id"], fetch_list=True)] == [text]
        cloud.deleteTags(resourcetype="User", resourceids=user["id"], tags=[{"key": "colour"}], fetch_result=True)


def test_it_tells_what_went_wrong(cloud, server):
    with pytest.raises(CloudStackApiException) as refused:
        cloud.queryAsyncJobResult(jobid="00000000-0000-0000-0000-000000000000")
    assert (refused.value.error["errorcode"], refused.value.error["cserrorcode"]) == (431, 4350)
    with pytest.raises(CloudStackApiException) as refused:
        CloudStack(endpoint=server.url, key=KEYS["admin"][0], secret="wrong").listZones()
    assert refused.value.error["errorcode"] == 401
    with pytest.raises(CloudStackException):
        cloud.noSuchCommand()


def test_it_needs_no_keys_on_the_integration_port(server):
    cloud = CloudStack(endpoint=server.integration_url, key=None, secret=None)
    assert cloud.listZones()["count"] == 1
