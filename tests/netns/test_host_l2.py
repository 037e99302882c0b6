"""Networks of type L2 on a host: what their offering lets guests see."""

import os

import pytest

from drivers.vocabulary import Segment
from tests.netns.hosts import until, zone
from tests.netns.test_host_vlans import capture, ping, shell

pytestmark = pytest.mark.netns

PLAIN = Segment("net-1", "vxlan://5001", "Guest")
HUB = PLAIN._replace(hub=True)


@pytest.fixture
def cloud(tmp_path):
    with zone(f"tl{os.getpid()}-", tmp_path, "h1") as made:
        yield made


def seen(cloud, shells):
    """Return the frames between the first two that the third one sees, once the first two know each other."""
    until(lambda: " 0% packet loss" in ping(cloud, shells[0].name))
    with capture(f"{cloud.fabric.prefix}{shells[2].name}", "eth0", "icmp") as frames:
        ping(cloud, shells[0].name)
    return frames


def test_promiscuous_mode_is_given_and_taken_away_while_guests_run(cloud):
    shells = [shell(number, PLAIN) for number in (1, 2, 3)]
    assert cloud.apply("h1", PLAIN, *shells) == []
    for one in shells[:2]:
        cloud.exec(f"router/{one.name}", "ip", "address", "add", f"10.1.1.{one.target[-1]}/24", "dev", "eth0")
    assert seen(cloud, shells) == []
    before = cloud.links("h1")
    assert cloud.apply("h1", HUB, *shells) == []
    assert len(seen(cloud, shells)) == 2
    assert cloud.ensure("h1") == []
    assert cloud.apply("h1", PLAIN, *shells) == []
    until(lambda: seen(cloud, shells) == [])
    assert cloud.links("h1") == before
