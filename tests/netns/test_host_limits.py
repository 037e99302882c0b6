"""What a guest may not do: take more than its share, or reach the machine that it runs on."""

import os
import socket
import threading
import time

import pytest

from systemvm import cgroup, netns
from tests.netns.hosts import NET, nic, zone

pytestmark = pytest.mark.netns


@pytest.fixture
def cloud(tmp_path):
    with zone(f"th{os.getpid()}-", tmp_path, "h1") as made:
        yield made


def cgi(cloud, script):
    """Run a script as a process of the guest itself, with its own rights and limits; return what it printed."""
    lines = f"#!/bin/sh\necho Content-Type: text/plain\necho\nexec 2>&1\n{script}\necho end=$?\n"
    cloud.exec("vm/vm10", "mkdir", "-p", "/www/cgi-bin")
    cloud.exec("vm/vm10", "sh", "-c", f"cat > /www/cgi-bin/run <<'E'\n{lines}E\nchmod 755 /www/cgi-bin/run")
    return cloud.exec("vm/vm10", "wget", "-q", "-O", "-", "http://127.0.0.1/cgi-bin/run", fails=True)


def test_memory_processes_and_processors_are_limited(cloud):
    cloud.apply("h1", NET, cloud.guest(10, memory=64, cpus=2, mhz=500))
    assert "end=0" in cgi(cloud, "dd if=/dev/zero of=/dev/shm/x bs=1M count=30")
    assert "end=0" not in cgi(cloud, "dd if=/dev/zero of=/dev/shm/x bs=1M count=100")
    assert cloud.states("h1")["guest-10"] == "running"
    groups = cgroup.controllers()
    name = f"netspine-{cloud.fabric.prefix}i-2-10-VM"
    root, version = groups["cpu"]
    if version == 1:
        assert (root / name / "cpu.shares").read_text().strip() == "1000"
        assert (root / name / "cpu.cfs_quota_us").read_text().strip() == "200000"
    else:
        assert (root / name / "cpu.max").read_text().split() == ["200000", "100000"]
    assert (groups["pids"][0] / name / "pids.max").read_text().strip() == "4096"
    assert cgroup.missing() == []


def test_the_guests_root_is_not_the_machines(cloud):
    cloud.apply("h1", NET, cloud.guest(10))
    assert "end=0" not in cgi(cloud, "mount -t tmpfs none /tmp")
    assert "end=0" not in cgi(cloud, "mknod /tmp/disk b 254 0")
    assert "end=0" not in cgi(cloud, "echo core > /proc/sys/kernel/core_pattern")
    assert "end=0" not in cgi(cloud, "test -w /proc/sysrq-trigger && ! mount | grep -q ' /proc/sysrq-trigger .*[(]ro'")
    assert "end=0" not in cgi(cloud, "mount -o remount,rw /proc/sys")
    assert "end=0" in cgi(cloud, "echo 1 > /proc/sys/net/ipv4/ip_forward")  # its own network's settings are its own
    assert str(cloud.state) not in cgi(cloud, "ls -R /proc/1/fd /tmp /run; ps")
    assert cgi(cloud, "ps").count("/sbin/init") == 1


def transfer(cloud, sender, receiver, size):
    """Send ``size`` bytes between two namespaces; return the seconds that it took."""
    with netns.entered(f"{cloud.fabric.prefix}{receiver[0]}"):
        door = socket.create_server((receiver[1], 5555))

    def take():
        with door, door.accept()[0] as inner:
            while inner.recv(65536):
                pass

    taker = threading.Thread(target=take)
    taker.start()
    began = time.monotonic()
    with netns.entered(f"{cloud.fabric.prefix}{sender}"):
        outer = socket.create_connection((receiver[1], 5555), timeout=20)
    with outer:
        outer.sendall(bytes(size))
    taker.join(20)
    return time.monotonic() - began


def test_a_nic_is_slowed_down_in_both_directions_and_set_free_while_it_runs(cloud):
    slow, fast = cloud.guest(10, nic(10, rate=20)), cloud.guest(11)
    assert cloud.apply("h1", NET, slow, fast) == []
    for number in (10, 11):
        cloud.address(number, f"10.1.1.{number}")
    megabyte = 2**20
    for sender, receiver in (
        ("i-2-10-VM", ("i-2-11-VM", "10.1.1.11")),
        ("i-2-11-VM", ("i-2-10-VM", "10.1.1.10")),
    ):
        seconds = transfer(cloud, sender, receiver, 3 * megabyte)
        assert 0.9 < seconds < 3, f"{sender}: {3 * 8.39 / seconds:.1f} Mbit/s instead of 20"
    index = cloud.exec("vm/vm10", "cat", "/sys/class/net/eth0/ifindex")
    assert cloud.apply("h1", NET, cloud.guest(10, nic(10)), fast) == []
    assert transfer(cloud, "i-2-10-VM", ("i-2-11-VM", "10.1.1.11"), 3 * megabyte) < 0.5
    assert transfer(cloud, "i-2-11-VM", ("i-2-10-VM", "10.1.1.10"), 3 * megabyte) < 0.5
    assert cloud.exec("vm/vm10", "cat", "/sys/class/net/eth0/ifindex") == index
    assert "ifb" not in netns.run(cloud.fabric.namespace("h1"), ["ip", "link"])
