"""Networks of type L2 on a host: what their offering lets guests see."""

import os

import pytest

from drivers.security import PortFilter
from drivers.vocabulary import Segment
from tests.netns.hosts import nic, until, zone
from tests.netns.test_host_vlans import capture, ping, shell

pytestmark = pytest.mark.netns

PLAIN = Segment("net-1", "vxlan://5001", "Guest")
HUB = PLAIN._replace(hub=True)


@pytest.fixture
def cloud(tmp_path):
    with zone(f"tl{os.getpid()}-", tmp_path, "h1", "h2") as made:
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


@pytest.mark.parametrize("forged", [True, False])
def test_a_guest_that_may_have_another_mac_is_reached_under_it_from_the_other_host(cloud, forged):
    """By flows: the switch lets in what is sent to the MACs that it knows, unless they are the guests' own business."""
    wire = Segment("s300", "vs://300", "Guest")
    ports = {number: nic(number, wire) for number in (10, 11)}
    for host, number in (("h1", 10), ("h2", 11)):
        port = ports[number]
        rule = PortFilter(port.id, wire.id, port.mac, None, forged=forged)
        assert cloud.apply(host, wire, cloud.guest(number, port), rule) == []
        cloud.address(number, f"10.1.1.{number}")
    reach = ("ping", "-c", "1", "-W", "1", "10.1.1.10")
    until(lambda: " 0% packet loss" in cloud.exec("vm/vm11", *reach, fails=True))
    cloud.exec("vm/vm10", "ip", "link", "set", "eth0", "address", "02:66:66:66:66:66")
    cloud.exec("vm/vm11", "ip", "neigh", "flush", "dev", "eth0")
    if forged:
        until(lambda: " 0% packet loss" in cloud.exec("vm/vm11", *reach, fails=True))
    else:
        assert " 0% packet loss" not in cloud.exec("vm/vm11", *reach, fails=True)
