"""Guests as containers: real packets between two hosts, and a life that nothing but the bundle decides."""

import os
import signal
import socket
from pathlib import Path

import pytest

from systemvm import netns
from systemvm.services.guests import Guests
from tests.netns.hosts import NET, OTHER, nic, until, zone

pytestmark = pytest.mark.netns


@pytest.fixture
def cloud(tmp_path):
    with zone(f"th{os.getpid()}-", tmp_path, "h1", "h2") as made:
        yield made


def address(cloud, number):
    cloud.address(number, f"10.1.1.{number % 100}")


def listen(namespace, interface="eth0"):
    """Return a socket that hears every ARP frame on an interface."""
    with netns.entered(namespace):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
        raw.bind((interface, 0x0806))
    raw.setblocking(False)
    return raw


def heard(raw):
    frames = []
    while True:
        try:
            frames.append(raw.recv(2048))
        except BlockingIOError:
            return frames


def test_guests_of_one_network_talk_across_hosts_and_another_network_hears_nothing(cloud):
    assert cloud.apply("h1", NET, OTHER, cloud.guest(10), cloud.guest(110, nic(110, OTHER))) == []
    assert cloud.apply("h2", NET, OTHER, cloud.guest(11), cloud.guest(12), cloud.guest(111, nic(111, OTHER))) == []
    for number in (10, 11, 12, 110, 111):
        address(cloud, number)
    prefix = cloud.fabric.prefix
    with listen(f"{prefix}i-2-12-VM") as same, listen(f"{prefix}i-2-111-VM") as other:
        ping = cloud.exec("vm/vm10", "ping", "-c", "3", "-i", "0.1", "-s", "1472", "10.1.1.11")
        assert "3 packets received" in ping
        assert cloud.exec("vm/vm10", "wget", "-q", "-O", "-", "http://10.1.1.11/") == "vm11\n"
        assert any(b"\x0a\x01\x01\x0b" in frame for frame in heard(same)), "the control heard no ARP request either"
        assert heard(other) == []
    # The other network has the same addresses, and answers with its own guests.
    assert cloud.exec("vm/vm110", "wget", "-q", "-O", "-", "http://10.1.1.11/") == "vm111\n"


def test_the_host_itself_is_not_on_its_guests_network(cloud):
    cloud.apply("h1", NET, cloud.guest(10))
    with netns.netlink(cloud.fabric.namespace("h1")) as ip:
        on_bridges = [m for m in ip.get_addr() if m.get_attr("IFA_LABEL") not in ("lo", "und0", None)]
        sixes = {ip.get_links(m["index"])[0].get_attr("IFLA_IFNAME") for m in ip.get_addr(family=10)}
    assert on_bridges == []
    assert sixes <= {"lo", "und0", "pub0"}


def test_nics_come_and_go_while_the_guest_runs(cloud):
    cloud.apply("h1", NET, OTHER, cloud.guest(10))
    pid = cloud.pid("h1", "guest-10")
    address(cloud, 10)
    index = cloud.exec("vm/vm10", "cat", "/sys/class/net/eth0/ifindex")
    assert cloud.apply("h1", NET, OTHER, cloud.guest(10, nic(10), nic(10, OTHER, 1))) == []
    assert cloud.exec("vm/vm10", "cat", "/sys/class/net/eth1/address").strip() == nic(10, OTHER, 1).mac
    assert cloud.apply("h1", NET, OTHER, cloud.guest(10)) == []
    assert cloud.exec("vm/vm10", "ls", "/sys/class/net").split() == ["eth0", "lo"]
    assert cloud.exec("vm/vm10", "cat", "/sys/class/net/eth0/ifindex") == index
    assert "10.1.1.10" in cloud.exec("vm/vm10", "ip", "address")
    assert cloud.pid("h1", "guest-10") == pid


def test_stop_and_start_keep_the_files_and_reboot_is_a_new_start(cloud):
    cloud.apply("h1", NET, cloud.guest(10))
    cloud.exec("vm/vm10", "sh", "-c", "echo kept > /root/file")
    first = cloud.pid("h1", "guest-10")
    cloud.apply("h1", NET, cloud.guest(10, running=False))
    assert cloud.states("h1") == {"guest-10": "stopped"}
    assert not Path(f"/proc/{first}/root").exists()
    assert not netns.exists(f"{cloud.fabric.prefix}i-2-10-VM")
    cloud.image.unlink()  # a template may be deleted once guests were made from it
    assert cloud.apply("h1", NET, cloud.guest(10, boot=2)) == []
    assert cloud.exec("vm/vm10", "cat", "/root/file") == "kept\n"
    second = cloud.pid("h1", "guest-10")
    assert cloud.apply("h1", NET, cloud.guest(10, boot=3)) == []
    assert cloud.pid("h1", "guest-10") not in (first, second)
    assert cloud.exec("vm/vm10", "cat", "/root/file") == "kept\n"
    assert cloud.apply("h1", NET) == []
    assert not (cloud.state / "h1" / "guests" / "guest-10").exists()


def test_a_guest_that_was_killed_is_told_and_not_restarted_unasked(cloud):
    cloud.apply("h1", NET, cloud.guest(10), cloud.guest(11))
    os.kill(cloud.pid("h1", "guest-10"), signal.SIGKILL)
    until(lambda: cloud.states("h1")["guest-10"] == "stopped")
    assert cloud.ensure("h1") == []
    assert cloud.apply("h1", NET, cloud.guest(10), cloud.guest(11), cloud.guest(12)) == []
    assert cloud.states("h1") == {"guest-10": "stopped", "guest-11": "running", "guest-12": "running"}
    assert cloud.apply("h1", NET, cloud.guest(10, boot=2), cloud.guest(11), cloud.guest(12)) == []
    assert cloud.states("h1")["guest-10"] == "running"


def test_a_new_agent_finds_what_is_there_and_touches_nothing(cloud):
    cloud.apply("h1", NET, cloud.guest(10), cloud.guest(11))
    with netns.netlink(cloud.fabric.namespace("h1")) as ip:
        before = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
    pids = [cloud.pid("h1", f"guest-{number}") for number in (10, 11)]
    cloud.bundles.clear()
    cloud.services = tuple(type(service)() for service in cloud.services)
    assert cloud.apply("h1", NET, cloud.guest(10), cloud.guest(11)) == []
    assert cloud.ensure("h1") == []
    with netns.netlink(cloud.fabric.namespace("h1")) as ip:
        assert {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()} == before
    assert [cloud.pid("h1", f"guest-{number}") for number in (10, 11)] == pids


def test_a_guest_that_cannot_start_disturbs_nobody_and_starts_once_it_can(cloud):
    late = cloud.state / "late.tar.gz"
    failures = cloud.apply("h1", NET, cloud.guest(10), cloud.guest(11, image=str(late)))
    assert [failure.unit for failure in failures] == ["guest-11"]
    assert str(late) in failures[0].reason
    assert cloud.states("h1") == {"guest-10": "running", "guest-11": "absent"}
    late.write_bytes(cloud.image.read_bytes())
    assert cloud.ensure("h1") == ["started i-2-11-VM"]


def test_a_template_without_init_or_with_another_checksum_is_refused(cloud):
    empty = cloud.state / "empty"
    empty.mkdir()
    wrong = {"image_checksum": "{SHA-256}" + "0" * 64}
    failures = cloud.apply("h1", NET, cloud.guest(10, image=str(empty)), cloud.guest(11, **wrong))
    reasons = {failure.unit: failure.reason for failure in failures}
    assert "/sbin/init" in reasons["guest-10"]
    assert "0000" in reasons["guest-11"]
    assert netns.names(f"{cloud.fabric.prefix}i-2-") == []


def test_a_host_that_lost_its_namespaces_is_rebuilt_from_the_bundle(cloud):
    cloud.apply("h1", NET, cloud.guest(10))
    cloud.apply("h2", NET, cloud.guest(11))
    cloud.exec("vm/vm10", "sh", "-c", "echo kept > /root/file")
    os.kill(cloud.pid("h1", "guest-10"), signal.SIGKILL)
    netns.ensure_no(f"{cloud.fabric.prefix}i-2-10-VM")
    netns.ensure_no(cloud.fabric.namespace("h1"))
    cloud.fabric.ensure()
    assert "started i-2-10-VM" in cloud.ensure("h1")
    assert cloud.ensure("h1") == []
    for number in (10, 11):
        address(cloud, number)
    assert cloud.exec("vm/vm11", "wget", "-q", "-O", "-", "http://10.1.1.10/") == "vm10\n"
    assert cloud.exec("vm/vm10", "cat", "/root/file") == "kept\n"


def test_a_lost_cable_is_plugged_again(cloud):
    cloud.apply("h1", NET, cloud.guest(10))
    cloud.exec("vm/vm10", "ip", "link", "del", "eth0")
    assert len(cloud.ensure("h1")) == 1
    assert cloud.exec("vm/vm10", "cat", "/sys/class/net/eth0/address").strip() == nic(10).mac


def test_bytes_of_each_nic_are_counted(cloud):
    cloud.apply("h1", NET, cloud.guest(10), cloud.guest(11))
    address(cloud, 10)
    address(cloud, 11)
    cloud.exec("vm/vm10", "ping", "-c", "5", "-i", "0.1", "-s", "1000", "10.1.1.11")
    observed = Guests().observe(cloud.place("h1"), cloud.bundles["h1"])
    counts = {name: size for name, _, size in observed.counters}
    assert counts["nic_net1100_out"] >= 5 * 1042
    assert counts["nic_net1110_in"] >= 5 * 1042
