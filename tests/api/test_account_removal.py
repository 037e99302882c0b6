"""Deleting an account with machines, networks, addresses and rules: all of it goes, on the hosts as in the rows."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from controlplane.compute.virtual_machines import InstanceGroup, SshKeyPair, UserData, VirtualMachine
from controlplane.identity.accounts import Account
from controlplane.identity.limits import ResourceCount
from controlplane.network.load_balancers import Certificate
from controlplane.network.networks import Network
from controlplane.network.public_ips import PublicIp
from controlplane.network.routers import Router
from tests.api.compute_world import world
from tests.api.people import done


@pytest.fixture
def made(cloud):
    with world(cloud) as found:
        yield found


def owned(made, table, account):
    return made.rows(table, table.account_id == account)


def filled(made, cloud):
    """Alice's account: a machine on her network, and what else an account can have."""
    vm = made.deploy(cloud=cloud.as_user("alice"), group="web")
    assert vm["state"] == "Running", vm
    with cloud.database.write() as session:
        alice = session.scalars(select(Account).where(Account.name == "alice")).one()
        owner = {"account_id": alice.id, "domain_id": alice.domain_id}
        session.add(SshKeyPair(name="k", public_key="", fingerprint="", **owner))
        session.add(UserData(name="u", data="", **owner))
        session.add(Certificate(name="c", certificate="", key="", fingerprint="", **owner))
        return alice.id, alice.uuid


def test_all_of_it_goes(made, cloud):
    number, uuid = filled(made, cloud)
    assert owned(made, PublicIp, number), "its network has an address"
    counts = [row.count for row in made.rows(ResourceCount) if row.owner == "Account" and row.owner_id == number]
    assert sum(counts) > 0
    job = done(cloud, cloud("deleteAccount", id=uuid))
    assert (job["jobstatus"], job.get("jobresult")) == (1, {"success": True})
    assert [vm.state for vm in owned(made, VirtualMachine, number) if vm.removed is None] == []
    assert [network for network in owned(made, Network, number) if network.removed is None] == []
    for table in (PublicIp, SshKeyPair, Certificate, InstanceGroup):
        assert owned(made, table, number) == []
    assert [row for row in owned(made, Router, number) if row.removed is None] == []
    assert not any(agent.holds for agent in made.agents), "no host has anything of it"
    assert [row.count for row in made.rows(ResourceCount, ResourceCount.owner == "Domain") if row.count] == []


def test_a_protected_machine_is_in_the_way(made, cloud):
    number, uuid = filled(made, cloud)
    with cloud.database.write() as session:
        vm = session.scalars(select(VirtualMachine).where(VirtualMachine.account_id == number)).one()
        vm.delete_protection, name = True, vm.name
    with pytest.raises(Exception, match=f"instance {name} is protected from deletion"):
        cloud("deleteAccount", id=uuid)


def test_disabling_stops_the_machines_and_counting_finds_what_is_there(made, cloud):
    number, uuid = filled(made, cloud)
    root = cloud("listDomains", level=0)["domain"][0]["id"]

    def counted(**where):
        rows = cloud("updateResourceCount", domainid=root, **where)["resourcecount"]
        return {row["resourcetypename"]: row["resourcecount"] for row in rows if row["resourcecount"]}

    before = {
        row.kind: row.count
        for row in made.rows(ResourceCount)
        if row.owner_id == number and row.owner == "Account" and row.count
    }
    again = counted(account="alice")
    assert {kind: again[kind] for kind in before} == before
    assert (again["user_vm"], again["network"], again["public_ip"]) == (1, 1, 1)
    done(cloud, cloud("disableAccount", id=uuid, lock=False))
    assert not any(guest["running"] for agent in made.agents for guest in agent.holds.values())
