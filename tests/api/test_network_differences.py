"""What an agent is sent of a large router: the difference to what it has, or all where that is not known."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from controlplane.network.nics import Nic, new_mac
from controlplane.network.public_ips import VlanRange
from controlplane.network.routers import Router
from controlplane.reconcile.door import Door
from controlplane.reconcile.targets import Agent, Target
from systemvm.bundle import Bundle, Outcome


@pytest.fixture
def router(ground):
    """A network with an address, a machine and a router that an agent serves: makes a rule on a port."""
    alice, network = ground.account("alice"), ground.network("alice")
    vm, ip = ground.machine(network, "vm1", "10.1.1.10"), ground.address(alice, network)
    target = ground.router(network)
    with ground.cloud.database.write() as session:
        agent = Agent(name="h1", token="x")
        session.add(agent)
        session.flush()
        session.get_one(Target, target).agent_id = agent.id
        own, row = session.scalars(select(Router)).one(), session.scalars(select(VlanRange)).one()
        nic = {"range_id": row.id, "mac": new_mac(), "address": "203.0.113.10", "traffic": "Public", "device": 1}
        session.add(Nic(router_id=own.id, **nic))

    def rule(port):
        given = {"ipaddressid": ip, "virtualmachineid": vm, "protocol": "tcp"}
        alice("createPortForwardingRule", publicport=port, privateport=80, **given)

    return rule


def pulled(door, base=None):
    """The one bundle of a pull, and how many of its elements were on the wire."""
    (data,) = door.pull(1, {}, {base.target: base.digest} if base else {})["bundles"]
    data = json.loads(json.dumps(data))
    sent = sum(len(entry.get("items", ())) + len(entry.get("come", ())) for entry in data["elements"])
    return Bundle.from_json(data, base), sent


def test_only_the_difference_to_what_the_agent_has_is_sent(ground, router):
    door = Door(ground.cloud.database)
    for port in range(1, 31):
        router(port)
    first, whole = pulled(door)
    router(31)
    second, sent = pulled(door, first)
    assert sent == 2
    assert whole > 60
    assert second.elements == pulled(door)[0].elements
    assert {len(entry.items) for entry in second.elements if entry.name in ("dnat_ports", "ingress_open")} == {31}
    door.outcomes(1, [Outcome(second.target, second.generation, second.digest, "applied")])
    router(32)
    third, sent = pulled(door, second)
    assert (sent, third.generation) == (2, second.generation + 1)


def test_who_knows_nothing_of_the_base_sends_all(ground, router):
    router(1)
    first, _ = pulled(Door(ground.cloud.database))
    router(2)
    other = Door(ground.cloud.database)  # another process of the control plane
    assert pulled(other, first) == pulled(other)
