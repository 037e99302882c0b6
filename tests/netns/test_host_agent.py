"""A host under the agent's own apply: unit by unit, repeatable, and gone without a trace."""

import os
from dataclasses import replace

import pytest

from drivers.hypervisor.namespace import Namespace
from drivers.vocabulary import HostFacts, Shell
from systemvm.apply import Applier
from systemvm.bundle import Bundle
from systemvm.ledger import Ledger
from systemvm.services.kinds import KINDS, PARTIAL
from tests.netns.hosts import NET, nic, zone

pytestmark = pytest.mark.netns


def test_the_agent_applies_a_host_and_takes_it_down(tmp_path):
    with zone(f"th{os.getpid()}-", tmp_path, "h1") as cloud:
        settings = cloud.fabric.settings("h1", tmp_path / "h1")
        agent = Applier(settings, Ledger(tmp_path / "h1" / "ledger"), KINDS, PARTIAL)
        driver = Namespace()

        def bundle(generation, *guests):
            facts = HostFacts("h1", "h1", (NET,), guests, (Shell("router-1", "r-1-VM", (nic(1),)),))
            files, elements = driver.render(driver.plan(facts))
            return Bundle("h1", "h1", "host", generation, files, elements)

        first = bundle(1, cloud.guest(10), cloud.guest(11, image="/there/is/none"))
        outcome = agent.apply(first)
        assert (outcome.status, [failure.unit for failure in outcome.failures]) == ("applied", ["guest-11"])
        pid = cloud.pid("h1", "guest-10")
        assert agent.apply(first).status == "unchanged"
        assert agent.apply(replace(first, generation=2)).status == "unchanged"
        assert agent.apply(bundle(1)).status == "refused"
        second = agent.apply(bundle(3, cloud.guest(10), cloud.guest(12)))
        assert (second.status, second.failures, second.changed) == ("applied", (), ("guests",))
        assert cloud.pid("h1", "guest-10") == pid
        gone = Bundle("h1", "h1", "host", 4, absent=True)
        assert agent.apply(gone).status == "applied"
        assert cloud.links("h1") == {name for name in cloud.links("h1") if name.split()[0] in ("lo", "pub0", "und0")}
        kept = [path.name for path in (tmp_path / "h1" / "guests").glob("*")]
        assert sorted(kept) == ["guest-10", "guest-12"]  # their disks: the host may be wanted again
