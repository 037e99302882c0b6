"""Pools and volumes, and what kinds of hosts can do."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.errors import BadParameter, InUse, Unsupported
from controlplane.identity.accounts import Account
from controlplane.storage.volumes import StoragePool, Volume
from controlplane.zone.zones import Zone as ZoneRow
from tests.api.counting import queries
from tests.api.people import Company
from tests.api.zone_steps import add_host, make_zone


def a_volume(session, account, name):
    owner = session.scalars(select(Account).where(Account.name == account)).one()
    row = Volume(
        name=name,
        type="DATADISK",
        state="Ready",
        size=5 << 30,
        zone_id=session.scalars(select(ZoneRow.id)).one(),
        pool_id=session.scalars(select(StoragePool.id)).first(),
        account_id=owner.id,
        domain_id=owner.domain_id,
    )
    session.add(row)


def test_pools_and_the_volumes_on_them(cloud):
    zone, company = make_zone(cloud), Company(cloud)
    host = add_host(cloud, zone)
    sam, sid = company("sam"), company("sid")
    with cloud.database.write() as session:
        for name in ("one", "two"):
            a_volume(session, "sam", name)
    (pool,) = cloud("listStoragePools", zoneid=zone.id)["storagepool"]
    assert (pool["scope"], pool["disksizeallocated"], pool["clusterid"]) == ("HOST", 10 << 30, zone.cluster)
    with pytest.raises(BadParameter, match=f"volumes take {10 << 30} bytes"):
        cloud("updateStoragePool", id=pool["id"], capacitybytes=1)
    changed = cloud("updateStoragePool", id=pool["id"], enabled=False, tags="ssd", name="disk")["storagepool"]
    assert (changed["state"], changed["tags"], changed["name"]) == ("Disabled", "ssd", "disk")
    assert [tag["name"] for tag in cloud("listStorageTags")["storagetag"]] == ["ssd"]
    with pytest.raises(BadParameter, match="own disk of a host"):
        cloud("deleteStoragePool", id=pool["id"])
    with pytest.raises(Unsupported, match="Primary storage of type nfs cannot be used"):
        cloud("createStoragePool", zoneid=zone.id, name="p", url="nfs://host/share")
    with pytest.raises(InUse, match="its own disk holds the volumes one, two"):
        cloud("deleteHost", id=host["id"])

    assert {row["name"] for row in sam("listVolumes")["volume"]} == {"one", "two"}
    assert sid("listVolumes", listall=True) == {}
    assert cloud("listVolumes") == {}
    assert cloud("listVolumes", listall=True, storageid=pool["id"])["count"] == 2
    with queries(cloud) as few:
        cloud("listVolumes", listall=True, name="one")
    with queries(cloud) as more:
        assert cloud("listVolumes", listall=True)["count"] == 2
    assert len(more) == len(few)
    cloud("deleteHost", id=host["id"], forcedestroylocalstorage=True)
    assert {row["state"] for row in sam("listVolumes")["volume"]} == {"Allocated"}


def test_what_kinds_of_hosts_can_do(cloud):
    rows = {row["hypervisor"]: row for row in cloud("listHypervisorCapabilities")["hypervisorCapabilities"]}
    assert set(rows) == {"LXC", "Simulator"}
    changed = cloud("updateHypervisorCapabilities", hypervisor="lxc", maxguestslimit=7)["hypervisorCapabilities"]
    assert (changed["id"], changed["maxguestslimit"]) == (rows["LXC"]["id"], 7)
    for parameters, text in (
        ({}, "say which capabilities"),
        ({"hypervisor": "LXC", "maxguestslimit": -1}, "from 0"),
        ({"hypervisor": "LXC", "vmsnapshotenabled": True}, "not supported"),
    ):
        with pytest.raises(BadParameter, match=text):
            cloud("updateHypervisorCapabilities", **parameters)
