"""A rule that another hand made impossible, in the database itself, stops no other rule and no other router."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from controlplane.events.alerts import Alert
from controlplane.network.implement import ensure_public_nics
from controlplane.network.networks import Network
from controlplane.network.port_forwarding import PortForward
from controlplane.network.public_ips import PublicIp
from controlplane.network.routers import Router
from controlplane.reconcile.bundles import Bundles
from controlplane.reconcile.targets import Target


@pytest.fixture
def served(ground):
    """Alice, her address, her machine and her router's target."""
    alice, network = ground.account("alice"), ground.network("alice")
    vm = ground.machine(network, "vm1", "10.1.1.10")
    ip = ground.address(alice, network)
    target = ground.router(network)
    with ground.cloud.database.write() as session:
        ensure_public_nics(session, session.get_one(Network, ground.numbers[network]))
    return alice, ip, vm, target


def forward(alice, ip, vm, port):
    return alice(
        "createPortForwardingRule",
        ipaddressid=ip,
        virtualmachineid=vm,
        protocol="tcp",
        publicport=port,
        privateport=80,
    )


def spoil(ground, rule, **values):
    with ground.cloud.database.write() as session:
        session.execute(update(PortForward).where(PortForward.uuid == rule).values(**values))


def carried(bundle):
    return {item for part in bundle.elements if part.name == "dnat_ports" for item in part.items}


def test_a_bad_rule_in_the_database_stops_no_other(ground, served):
    alice, ip, vm, target = served
    bundles = Bundles(ground.cloud.database)
    bad = forward(alice, ip, vm, 81)
    bundles.of(target)
    ground.settle(target)
    spoil(ground, bad["id"], guest="192.0.2.7")

    good = forward(alice, ip, vm, 82)
    bundle = bundles.of(target)
    assert [item.split()[4] for item in carried(bundle)] == ["82"]
    ground.settle(target)
    assert ground.done(good)["publicport"] == "82"

    (alert,) = ground.rows(Alert, Alert.resolved.is_(None))
    assert f"The port forwarding rule {bad['id']} is left out: " in alert.description
    assert "leads to 192.0.2.7, which is not on its network" in alert.description
    failing = {"listall": True, "healthchecksfailed": True}
    (shown,) = ground.cloud("listRouters", **failing)["router"]
    assert "healthcheckresults" not in shown
    (shown,) = ground.cloud("listRouters", **failing, fetchhealthcheckresults=True)["router"]
    assert [check["details"] for check in shown["healthcheckresults"]] == list(
        ground.rows(Target, Target.id == target)[0].failures.values()
    )

    alice("deletePortForwardingRule", id=bad["id"])
    bundles.of(target)
    ground.settle(target)
    assert ground.rows(Alert, Alert.resolved.is_(None)) == []
    assert "router" not in ground.cloud("listRouters", listall=True, healthchecksfailed=True)


def test_the_job_about_a_rule_that_is_left_out_fails_with_the_reason(ground, served):
    alice, ip, vm, target = served
    made = forward(alice, ip, vm, 81)
    spoil(ground, made["id"], guest="192.0.2.7")
    Bundles(ground.cloud.database).of(target)
    ground.settle(target)
    status, result = ground.job(made)
    assert (status, result["errorcode"]) == (2, 534)
    assert "which is not on its network" in result["errortext"]


def test_facts_that_cannot_be_read_are_that_routers_own_trouble(ground, served):
    alice, ip, vm, target = served
    waiting = forward(alice, ip, vm, 81)
    with ground.cloud.database.write() as session:
        session.execute(update(PublicIp).where(PublicIp.uuid == ip).values(vlan="no such VLAN"))
    assert Bundles(ground.cloud.database).of(target) is None
    status, result = ground.job(waiting)
    assert status == 2
    assert "kept its former configuration" in result["errortext"]
    assert ground.rows(Router)[0].target_id == target
