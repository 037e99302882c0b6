"""What 20 hosts with 1,000 members of one group are told costs little: a change of it is everywhere within a second."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import func, insert, select

from controlplane.compute.port_facts import port_facts
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.security_groups import SecurityGroup, SecurityGroupMember
from controlplane.reconcile.bundles import make
from controlplane.zone.hosts import Host
from tests.api.counting import queries
from tests.api.group_world import group_world

HOSTS, MEMBERS, RULES = 20, 1000, 50


def crowd(session, here, group, machines):
    """Spread members of a group over the hosts, as the first one is; their numbers are as many from 1000."""
    network = session.scalars(select(Network).where(Network.uuid == here.guarded["alice"])).one()
    hosts = session.scalars(select(Host.id).order_by(Host.id)).all()
    first = session.scalars(select(VirtualMachine).order_by(VirtualMachine.id)).first()
    like = {column.key: getattr(first, column.key) for column in VirtualMachine.__table__.columns}
    numbers = range(1000, 1000 + machines)
    session.execute(
        insert(VirtualMachine),
        [
            like
            | {"id": n, "uuid": f"vm-{n}", "hostname": f"h{n}", "host_id": hosts[n % len(hosts)], "state": "Running"}
            for n in numbers
        ],
    )
    mac = "02:00:00:00:{:02x}:{:02x}".format
    session.execute(
        insert(Nic),
        [
            {"vm_id": n, "network_id": network.id, "mac": mac(*divmod(n, 256)), "address": f"10.6.{n // 250}.{n % 250}"}
            for n in numbers
        ],
    )
    number = session.scalars(select(SecurityGroup.id).where(SecurityGroup.uuid == group)).one()
    session.execute(insert(SecurityGroupMember), [{"group_id": number, "vm_id": n} for n in numbers])


@pytest.fixture
def estate(cloud):
    with group_world(cloud, hosts=HOSTS) as here:
        group = here.group("web")
        here.deploy(securitygroupids=group)
        for number in range(RULES - 1):
            here.allow(group, protocol="tcp", startport=1000 + number, cidrlist=f"192.0.2.{number}/32")
        member = {"usersecuritygrouplist[0].account": "alice", "usersecuritygrouplist[0].group": "web"}
        here.allow(group, protocol="tcp", startport=22, **member)
        with cloud.database.write() as session:
            crowd(session, here, group, MEMBERS)
        yield here


def hosts(session):
    return session.scalars(select(Host).order_by(Host.id)).all()


def test_a_change_of_a_group_of_1000_members_is_planned_for_20_hosts_within_a_second(estate):
    def once():
        with estate.cloud.database.read() as session:
            targets = [host.target for host in hosts(session)]
            begun = time.thread_time()
            for target in targets:
                make(session, target)
            return time.thread_time() - begun

    with estate.cloud.database.read() as session:
        assert session.scalar(select(func.count()).select_from(SecurityGroupMember)) == MEMBERS + 1
        found = [port_facts(session, host) for host in hosts(session)]
        assert sum(len(facts.filters) for facts in found) == MEMBERS + 1
        assert {len(facts.members[0].addresses) for facts in found} == {MEMBERS + 1}
        assert {len(facts.groups[0].ingress) for facts in found} == {RULES}
    assert min(once() for _ in range(3)) < 0.8


def test_facts_of_ports_cost_the_same_queries_whatever_is_there(estate):
    with estate.cloud.database.read() as session:
        host = hosts(session)[3]
        with queries(estate.cloud) as seen:
            port_facts(session, host)
    assert len(seen) <= 10
