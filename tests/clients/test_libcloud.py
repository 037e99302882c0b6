"""Apache Libcloud's CloudStack driver: GET only, unversioned signature over lower-cased names."""

from __future__ import annotations

import pytest
from libcloud.common.types import InvalidCredsError
from libcloud.compute.providers import get_driver
from libcloud.compute.types import Provider

from tests.serving import KEYS


def driver(server, secret=KEYS["admin"][1]):
    made = get_driver(Provider.CLOUDSTACK)
    return made(KEYS["admin"][0], secret, secure=False, host="127.0.0.1", port=server.settings.port, path="/client/api")


def test_it_lists_zones_and_what_there_is_to_choose(server):
    cloud = driver(server)
    assert [location.name for location in cloud.list_locations()] == ["zone-1"]
    assert cloud.list_sizes()
    assert cloud.list_nodes() == []
    assert cloud.ex_list_networks() == []
    assert cloud.ex_list_public_ips() == []


def test_it_polls_a_job(server):
    cloud = driver(server)
    zone = cloud.list_locations()[0]
    answer = cloud._async_request(
        "createPhysicalNetwork", params={"zoneid": zone.id, "name": "of libcloud"}, method="GET"
    )
    made = answer["physicalnetwork"]
    assert made["name"] == "of libcloud"
    job = cloud._sync_request("deletePhysicalNetwork", params={"id": made["id"]}, method="GET")["jobid"]
    assert cloud._sync_request("queryAsyncJobResult", params={"jobid": job}, method="GET")["jobstatus"] == 1


def test_it_knows_bad_keys(server):
    with pytest.raises(InvalidCredsError):
        driver(server, secret="wrong").list_locations()
