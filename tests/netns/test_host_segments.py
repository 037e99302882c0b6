"""Segments and shells: what a host carries, and where appliances live."""

import os
from pathlib import Path

import pytest

from drivers.vocabulary import Segment, Shell
from systemvm import netns
from systemvm.services.segments import Segments
from tests.netns.hosts import NET, OTHER, PUBLIC, nic, until, zone

pytestmark = pytest.mark.netns


@pytest.fixture
def cloud(tmp_path):
    with zone(f"th{os.getpid()}-", tmp_path, "h1", "h2") as made:
        yield made


def links(cloud, host="h1"):
    with netns.netlink(cloud.fabric.namespace(host)) as ip:
        return {link.get_attr("IFLA_IFNAME"): link for link in ip.get_links()}


def shell(*nics, **more):
    return Shell("router-1", "r-1-VM", nics, **more)


def test_an_appliance_reaches_the_internet_over_the_public_uplink(cloud):
    assert cloud.apply("h1", PUBLIC, shell(nic(1, PUBLIC))) == []
    assert cloud.apply("h2", PUBLIC, Shell("router-2", "r-2-VM", (nic(2, PUBLIC),))) == []
    for number in (1, 2):
        cloud.exec(f"router/r-{number}-VM", "ip", "address", "add", f"203.0.113.{number + 9}/24", "dev", "eth0")
        cloud.exec(f"router/r-{number}-VM", "ip", "route", "add", "default", "via", "203.0.113.1")
    cloud.exec("router/r-1-VM", "busybox", "ping", "-c", "1", "-W", "2", "203.0.113.11")
    cloud.exec("router/r-1-VM", "busybox", "ping", "-c", "1", "-W", "2", "198.51.100.3")
    cloud.exec("internet", "busybox", "ping", "-c", "1", "-W", "2", "-I", "198.51.100.2", "203.0.113.11")
    assert cloud.exec("router/r-1-VM", "cat", "/sys/class/net/eth0/address").strip() == nic(1, PUBLIC).mac


def test_a_shell_takes_nics_while_it_runs_and_is_empty_after_a_new_boot(cloud):
    cloud.apply("h1", NET, OTHER, shell(nic(1)))
    space = f"{cloud.fabric.prefix}r-1-VM"
    cloud.exec("router/r-1-VM", "ip", "address", "add", "10.1.1.1/24", "dev", "eth0")
    inside = netns.popen(space, ["sleep", "100"])
    assert cloud.apply("h1", NET, OTHER, shell(nic(1), nic(1, OTHER, 1))) == []
    assert "UP" in cloud.exec("router/r-1-VM", "ip", "-br", "link", "show", "eth1")
    assert "10.1.1.1/24" in cloud.exec("router/r-1-VM", "ip", "address")
    assert inside.poll() is None
    assert cloud.states("h1") == {"router-1": "running"}
    assert cloud.apply("h1", NET, OTHER, shell(nic(1), boot=1)) == []
    assert inside.wait(5) == -9
    assert "10.1.1.1/24" not in cloud.exec("router/r-1-VM", "ip", "address")
    assert cloud.apply("h1", NET, OTHER, shell(nic(1), boot=1, running=False)) == []
    assert not netns.exists(space)
    assert cloud.states("h1") == {"router-1": "absent"}


def test_another_mtu_is_given_to_what_is_there_and_nothing_is_unplugged(cloud):
    cloud.apply("h1", NET, shell(nic(1)), cloud.guest(10))
    cloud.exec("router/r-1-VM", "ip", "address", "add", "10.1.1.1/24", "dev", "eth0")
    before = {name: link["index"] for name, link in links(cloud).items()}
    mine = nic(1)._replace(mtu=1400), nic(10)._replace(mtu=1400)
    assert cloud.apply("h1", NET._replace(mtu=1400), shell(mine[0]), cloud.guest(10, mine[1])) == []
    after = links(cloud)
    assert {name: link["index"] for name, link in after.items()} == before
    ours = {
        name: link.get_attr("IFLA_MTU")
        for name, link in after.items()
        if name.startswith(("vif", "vir", "br", "vxlan"))
    }
    assert set(ours.values()) == {1400}
    for where in ("router/r-1-VM", "vm/vm10"):
        assert "mtu 1400" in cloud.exec(where, "ip", "link", "show", "eth0")
    assert "10.1.1.1/24" in cloud.exec("router/r-1-VM", "ip", "address")
    assert cloud.ensure("h1") == []
    assert cloud.apply("h1", NET, shell(nic(1)), cloud.guest(10)) == []
    assert "mtu 1500" in cloud.exec("vm/vm10", "ip", "link", "show", "eth0")
    assert cloud.ensure("h1") == []


def test_a_lost_shell_is_made_again(cloud):
    cloud.apply("h1", NET, shell(nic(1)))
    netns.ensure_no(f"{cloud.fabric.prefix}r-1-VM")
    until(lambda: not any(name.startswith(("vif", "vir")) for name in links(cloud)))
    assert len(cloud.ensure("h1")) == 2
    assert cloud.ensure("h1") == []
    assert cloud.exec("router/r-1-VM", "cat", "/sys/class/net/eth0/address").strip() == nic(1).mac


def test_a_segment_goes_when_nothing_wants_it_and_not_before_its_last_port(cloud):
    cloud.apply("h1", NET, OTHER, PUBLIC, cloud.guest(10))
    made = links(cloud)
    assert {"brvx-5001", "vxlan5001", "brvx-5002", "vxlan5002"} <= made.keys()
    # A port that another program put there keeps the bridge.
    with netns.netlink(cloud.fabric.namespace("h1")) as ip:
        ip.link("add", ifname="tap0", kind="veth", peer="tap1", master=made["brvx-5002"]["index"])
        ip.link("add", ifname="foreign", kind="bridge")
    assert cloud.apply("h1", NET, cloud.guest(10)) == []
    assert {"brvx-5001", "brvx-5002", "foreign", "pub0"} <= links(cloud).keys()
    assert not any(name.startswith("brun-") for name in links(cloud))
    netns.run(cloud.fabric.namespace("h1"), ["ip", "link", "del", "tap0"])
    assert cloud.ensure("h1") == ["removed the unused bridge brvx-5002"]
    assert cloud.apply("h1") == []
    assert links(cloud).keys() == {"lo", "pub0", "und0", "foreign"}


def test_lost_devices_of_a_segment_come_back(cloud):
    cloud.apply("h1", NET, cloud.guest(10))
    netns.run(cloud.fabric.namespace("h1"), ["ip", "link", "del", "vxlan5001"])
    assert cloud.ensure("h1") == ["joined vxlan5001 to brvx-5001"]
    netns.run(cloud.fabric.namespace("h1"), ["ip", "link", "del", "brvx-5001"])
    done = cloud.ensure("h1")
    assert "made the bridge brvx-5001" in done
    assert any("eth0" in line for line in done), done
    assert cloud.ensure("h1") == []


def test_bridged_frames_stay_out_of_the_hosts_own_rules(cloud):
    space = cloud.fabric.namespace("h1")
    cloud.apply("h1", NET)
    with netns.entered(space):
        files = [Path(f"/proc/sys/net/bridge/bridge-nf-call-{family}tables") for family in ("ip", "ip6", "arp")]
        switches = [file.read_text().strip() for file in files]
    assert switches == ["0", "0", "0"]


@pytest.mark.parametrize(
    ("segment", "sentence"),
    [
        (Segment("s", "vxlan://7", "Guest", mtu=1600), "MTU of 1650 on und0, which has 1600: raise it, or lower"),
        (Segment("s", "vxlan://7", "Guest", "cloudbr7"), "there is no device cloudbr7"),
        (Segment("s", "vlan://untagged", "Guest"), "carries the host's own address 172.31.255.1"),
        (Segment("s", "vxlan://7", "Storage"), "no uplink for Storage traffic"),
    ],
)
def test_a_segment_that_cannot_be_says_why_and_the_others_stand(cloud, segment, sentence):
    guest = cloud.guest(12, nic(12)._replace(segment="s"))
    failures = cloud.apply("h1", NET, segment, cloud.guest(10), guest)
    assert [failure.unit for failure in failures] == ["s", "guest-12"]
    assert sentence in failures[0].reason
    assert "segment s" in failures[1].reason
    assert cloud.states("h1")["guest-10"] == "running"
    health = dict(Segments().observe(cloud.place("h1"), cloud.bundles["h1"]).health)
    assert health["segment net-1"] == ""
    assert health["segment s"]


def test_a_host_carries_more_vnis_than_a_kernel_listens_to_groups_by_itself(cloud):
    many = [Segment(f"net-{number}", f"vxlan://{number}", "Guest") for number in range(6001, 6041)]
    assert cloud.apply("h1", *many) == []
    assert {f"vxlan{number}" for number in range(6001, 6041)} <= links(cloud).keys()


def test_a_vni_that_another_device_has_is_named_and_taken_once_it_is_free(cloud):
    host = cloud.fabric.namespace("h1")
    foreign = "type vxlan id 5001 dstport 4789 local 192.0.2.1 group 239.0.19.137 dev und0"
    netns.run(host, ["ip", "link", "add", "theirs", *foreign.split()])
    (failure,) = cloud.apply("h1", NET)
    sentence = "h1 cannot carry Guest vxlan 5001: its device theirs has this VNI already: remove it, or use another VNI"
    assert failure.reason == sentence
    netns.run(host, ["ip", "link", "del", "theirs"])
    assert cloud.apply("h1", NET) == []


def test_an_operators_own_bridge_is_used_and_left(cloud):
    space = cloud.fabric.namespace("h1")
    netns.run(space, ["ip", "link", "add", "cloudbr0", "type", "bridge"])
    netns.run(space, ["ip", "link", "set", "cloudbr0", "up"])
    netns.run(space, ["ip", "link", "set", "pub0", "master", "cloudbr0"])
    labelled = PUBLIC._replace(label="cloudbr0")
    assert cloud.apply("h1", labelled, shell(nic(1, PUBLIC))) == []
    cloud.exec("router/r-1-VM", "ip", "address", "add", "203.0.113.10/24", "dev", "eth0")
    cloud.exec("router/r-1-VM", "busybox", "ping", "-c", "1", "-W", "2", "203.0.113.1")
    assert cloud.apply("h1") == []
    assert "cloudbr0" in links(cloud)
