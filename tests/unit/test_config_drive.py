"""What is on a config drive: the files as pure values, and the image and folder that are made of them."""

import base64
import io
import json

import pycdlib
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from drivers.config_drive import LABEL, ConfigDrive, DriveLink, files
from drivers.hypervisor.namespace import Namespace
from drivers.vocabulary import HostFacts
from systemvm import config_drive

ITEMS = (
    ("availability-zone", "zone-1"),
    ("instance-id", "11111111-1111-1111-1111-111111111111"),
    ("local-hostname", "vm-1"),
    ("local-ipv4", ""),
    ("public-keys", "ssh-ed25519 AAAA me\nssh-rsa BBBB you"),
)
SCRIPT = b"#!/bin/sh\necho \xff\n"
DRIVE = ConfigDrive("vm-1", ITEMS, base64.b64encode(SCRIPT).decode(), "Se:cret'\"1")


def read(drive, name):
    return json.loads(files(drive)[f"openstack/latest/{name}.json"])


def test_a_drive_has_cloudstacks_files_and_openstacks():
    found = files(DRIVE)
    assert found["cloudstack/userdata/user_data.txt"] == found["openstack/latest/user_data"] == SCRIPT
    assert found["cloudstack/password/vm_password.txt"] == b"Se:cret'\"1"
    assert found["cloudstack/metadata/local-hostname.txt"] == b"vm-1"
    assert "cloudstack/metadata/local-ipv4.txt" not in found  # there is none
    meta = read(DRIVE, "meta_data")
    assert meta["uuid"] == "11111111-1111-1111-1111-111111111111"
    assert (meta["hostname"], meta["availability_zone"]) == ("vm-1", "zone-1")
    assert meta["public_keys"] == {"key-1": "ssh-ed25519 AAAA me", "key-2": "ssh-rsa BBBB you"}


def test_without_user_data_and_password_there_are_no_such_files():
    found = files(ConfigDrive("vm-1", ITEMS))
    assert not [path for path in found if "password" in path or "user" in path]
    assert read(ConfigDrive("vm-1", ITEMS), "vendor_data") == {}


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=6, max_size=64))
def test_cloud_init_is_told_the_very_password(password):
    order = read(ConfigDrive("vm-1", (), password=password), "vendor_data")["cloud-init"]
    assert order.startswith("#cloud-config\n")
    assert yaml.safe_load(order) == {"password": password, "chpasswd": {"expire": False}}


def test_a_drive_says_addresses_where_nobody_else_does():
    link = DriveLink(0, "02:00:00:00:00:01", "net-1", 1450, "static", "10.1.1.5", 24, "10.1.1.1",
                     "2001:db8::5", 64, "2001:db8::1", ("192.0.2.53",))  # fmt: skip
    found = read(ConfigDrive("vm-1", (), links=(link,)), "network_data")
    assert found["links"][0]["ethernet_mac_address"] == "02:00:00:00:00:01"
    assert found["links"][0]["mtu"] == 1450
    four, six = found["networks"]
    assert (four["type"], four["ip_address"], four["netmask"]) == ("ipv4", "10.1.1.5", "255.255.255.0")
    assert four["routes"] == [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.1.1.1"}]
    assert (six["type"], six["ip_address"], six["netmask"]) == ("ipv6", "2001:db8::5", "ffff:ffff:ffff:ffff::")
    assert six["routes"][0]["gateway"] == "2001:db8::1"
    assert found["services"] == [{"type": "dns", "address": "192.0.2.53"}]


def test_where_a_router_gives_addresses_the_drive_says_so_and_on_l2_it_says_nothing():
    links = (
        DriveLink(1, "02:00:00:00:00:02", "net-2", method="dhcp", address="10.1.2.5", prefix=24),
        DriveLink(0, "02:00:00:00:00:01", "net-1"),
    )
    found = read(ConfigDrive("vm-1", (), links=links), "network_data")
    assert [link["id"] for link in found["links"]] == ["eth0", "eth1"]
    assert [(network["link"], network["type"]) for network in found["networks"]] == [("eth1", "ipv4_dhcp")]
    assert found["services"] == []


def test_a_host_writes_drives_as_secrets_of_their_own():
    rendered, _ = Namespace().render(Namespace().plan(HostFacts("h", "h", (), (), (), drives=(DRIVE,))))
    (file,) = [file for file in rendered if file.service == "drives"]
    assert file.secret
    assert file.path == "drives/vm-1.json"
    with pytest.raises(ValueError, match="item of metadata"):
        Namespace().plan(HostFacts("h", "h", (), (), (), drives=(ConfigDrive("vm-1", (("../x", "y"),)),)))
    assert "Se:cret" not in repr(DRIVE)


def test_the_image_is_iso_9660_under_the_label_that_guests_look_for():
    wanted = files(DRIVE)
    image = pycdlib.PyCdlib()
    image.open_fp(io.BytesIO(config_drive.iso(wanted)))
    assert image.pvd.volume_identifier.decode().strip() == LABEL == config_drive.LABEL
    assert image.joliet_vd.volume_identifier.decode("utf-16-be").strip() == LABEL
    for names in ("rr_path", "joliet_path"):
        for path, content in wanted.items():
            out = io.BytesIO()
            image.get_file_from_iso_fp(out, **{names: f"/{path}"})
            assert out.getvalue() == content
    image.close()


def test_a_drive_on_a_host_is_changed_in_place_and_emptied(tmp_path):
    folder = tmp_path / "guest"
    assert config_drive.read(folder) == {}
    config_drive.write(folder, files(DRIVE))
    assert config_drive.read(folder) == files(DRIVE)
    inode = (folder / "drive").stat().st_ino
    assert (folder / "drive").stat().st_mode & 0o777 == 0o700
    assert (folder / "config-2.iso").stat().st_mode & 0o777 == 0o600
    assert (folder / "drive/cloudstack/password/vm_password.txt").stat().st_mode & 0o777 == 0o400
    plain = files(ConfigDrive("vm-1", ITEMS))
    config_drive.write(folder, plain)
    assert config_drive.read(folder) == plain
    assert not (folder / "drive/cloudstack/password").exists()
    config_drive.clear(folder)
    assert config_drive.read(folder) == {}
    assert list((folder / "drive").iterdir()) == []
    assert not (folder / "config-2.iso").exists()
    assert (folder / "drive").stat().st_ino == inode


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a/../../b", ""])
def test_a_file_outside_of_the_drive_is_refused(tmp_path, path):
    with pytest.raises(ValueError, match="not inside the drive"):
        config_drive.write(tmp_path / "guest", {path: b""})
    assert not (tmp_path / "guest").exists()
