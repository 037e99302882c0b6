"""Config drives in guests: read by root alone, changed under a running guest, and gone with it."""

import base64
import os
from dataclasses import replace

import pytest

from drivers.config_drive import ConfigDrive, files
from drivers.hypervisor.namespace import Namespace
from drivers.vocabulary import HostFacts
from systemvm import config_drive
from systemvm.bundle import Bundle
from tests.netns.hosts import NET, until, zone

pytestmark = pytest.mark.netns

DRIVE = ConfigDrive("guest-10", (("local-hostname", "vm10"),), "aGVsbG8=", "Secret-1")
WORD = "/run/config-2/cloudstack/password/vm_password.txt"


@pytest.fixture
def cloud(tmp_path):
    with zone(f"tl{os.getpid()}-", tmp_path, "h1") as made:
        yield made


def give(cloud, guests, *drives):
    """Apply what the host is to hold, drives among it, as the agent does."""
    driver = Namespace()
    rendered = driver.render(driver.plan(HostFacts("h1", "h1", (NET,), guests, (), drives=drives)))
    cloud.generation += 1
    bundle, place = Bundle("h1", "h1", "host", cloud.generation, *rendered), cloud.place("h1")
    cloud.bundles["h1"], old = bundle, cloud.bundles.get("h1")
    return [failure for service in cloud.services for failure in service.activate(place, old, bundle)]


def test_a_guest_reads_its_drive_from_its_first_moment_on_and_cannot_write_to_it(cloud):
    assert give(cloud, (cloud.guest(10), cloud.guest(11)), DRIVE) == []
    assert cloud.exec("vm/vm10", "cat", "/run/config-2/openstack/latest/user_data") == "hello"
    assert cloud.exec("vm/vm10", "cat", WORD) == "Secret-1"
    assert cloud.exec("vm/vm11", "ls", "/run/config-2") == ""  # a drive without a medium
    for attempt in (f"echo x > {WORD}", "rm -r /run/config-2/openstack", "chmod 777 /run/config-2"):
        assert "done" not in cloud.exec("vm/vm10", "sh", "-c", f"{attempt} && echo done", fails=True)
    assert cloud.exec("vm/vm10", "cat", WORD) == "Secret-1"
    shut = cloud.exec("vm/vm10", "su", "-s", "/bin/sh", "nobody", "-c", f"cat {WORD} || echo shut", fails=True)
    assert "Secret-1" not in shut


def test_the_drive_of_a_running_guest_changes_and_is_repaired(cloud):
    guest = cloud.guest(10)
    give(cloud, (guest,), DRIVE)
    pid, folder = cloud.pid("h1", "guest-10"), cloud.state / "h1" / "guests" / "guest-10"
    assert give(cloud, (guest,), replace(DRIVE, user_data="d29ybGQ=", password="")) == []
    assert cloud.exec("vm/vm10", "cat", "/run/config-2/cloudstack/userdata/user_data.txt") == "world"
    assert cloud.exec("vm/vm10", "ls", "/run/config-2/cloudstack").split() == ["metadata", "userdata"]
    assert cloud.pid("h1", "guest-10") == pid
    assert cloud.ensure("h1") == []
    (folder / config_drive.IMAGE).unlink()
    (folder / "drive/cloudstack/userdata/user_data.txt").unlink()
    assert cloud.ensure("h1") == ["wrote the drive of guest-10"]
    assert cloud.exec("vm/vm10", "cat", "/run/config-2/cloudstack/userdata/user_data.txt") == "world"
    assert give(cloud, (guest,)) == []
    assert cloud.exec("vm/vm10", "ls", "/run/config-2") == ""
    assert not (folder / config_drive.IMAGE).exists()


def test_a_drive_goes_with_its_guest(cloud):
    give(cloud, (cloud.guest(10),), DRIVE)
    folder = cloud.state / "h1" / "guests" / "guest-10"
    assert config_drive.read(folder) == files(DRIVE)
    assert give(cloud, ()) == []
    assert not folder.exists()


def test_the_guest_does_what_its_drive_says(cloud):
    script = base64.b64encode(b"#!/bin/sh\necho ran >>/root/runs\n").decode()
    told = replace(DRIVE, items=(("public-keys", "ssh-ed25519 AAAA me"),), user_data=script)
    give(cloud, (cloud.guest(10),), told)
    until(lambda: cloud.exec("vm/vm10", "cat", "/root/runs", fails=True) == "ran\n")
    assert cloud.exec("vm/vm10", "cat", "/root/.ssh/authorized_keys") == "ssh-ed25519 AAAA me\n"
    assert cloud.exec("vm/vm10", "grep", "^root:", "/etc/shadow").startswith("root:$6$")
