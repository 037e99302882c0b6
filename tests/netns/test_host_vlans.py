"""VLANs between hosts: by the kernel's 802.1Q where it has one, by the flows of Open vSwitch elsewhere and for Ovs."""

import json
import os
import re
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from drivers.vocabulary import Segment, Shell
from systemvm import netns
from systemvm.openflow import Lane, flows
from systemvm.ovs import Vswitch
from systemvm.services.segments import Segments, wanted
from tests.netns.hosts import NET, nic, until, zone

pytestmark = pytest.mark.netns

HOSTS = ("h1", "h2")
VLANS = (Segment("v100", "vlan://100", "Guest"), Segment("v200", "vlan://200", "Guest"))
FLOWS = (Segment("s300", "vs://300", "Guest"), Segment("s400", "vs://400", "Guest"))


@pytest.fixture
def cloud(tmp_path):
    with zone(f"tv{os.getpid()}-", tmp_path, *HOSTS) as made:
        yield made


def has_8021q(cloud):
    try:
        netns.run(
            cloud.fabric.namespace("h1"),
            ["ip", "link", "add", "link", "und0", "name", "probe", "type", "vlan", "id", "7"],
        )
    except RuntimeError:
        return False
    netns.run(cloud.fabric.namespace("h1"), ["ip", "link", "del", "probe"])
    return True


def shell(number, segment):
    return Shell(f"router-{number}", f"r-{number}-VM", (nic(number, segment),))


def place(cloud, segments, first=1):
    """Put one namespace of each segment on each host, with the same addresses in every segment."""
    shells = {}
    for at, host in enumerate(HOSTS):
        ours = [shell(first + 2 * index + at, segment) for index, segment in enumerate(segments)]
        assert cloud.apply(host, *segments, *ours) == []
        for one in ours:
            cloud.exec(f"router/{one.name}", "ip", "address", "add", f"10.1.1.{at + 1}/24", "dev", "eth0")
            shells[host, one.nics[0].segment] = one.name
    return shells


def ping(cloud, name, address="10.1.1.2", count=1):
    return cloud.exec(f"router/{name}", "busybox", "ping", "-c", str(count), "-W", "2", address, fails=True)


def answered(cloud, name, address="10.1.1.2"):
    return " 0% packet loss" in ping(cloud, name, address)


@contextmanager
def capture(namespace, device, *what):
    """Yield a list that holds the captured lines once the block is left."""
    line = ["tcpdump", "-i", device, "-n", "-e", "-l", "--immediate-mode", *what]
    lines = []
    process = netns.popen(namespace, line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        while b"listening" not in process.stderr.readline():
            assert process.poll() is None
        yield lines
    finally:
        process.send_signal(signal.SIGINT)
        lines += filter(None, process.communicate(timeout=5)[0].decode().splitlines())


def switch(cloud, host):
    return Vswitch(cloud.place(host))


def model(cloud, host):
    """Return the flows that the bundle asks for."""
    segments = (s for s in wanted(cloud.bundles[host]) if s.kind in ("vs", "vlan"))
    return flows(Lane(s.far_end, s.number, s.members if s.kind == "vs" else None) for s in segments)


def pids(cloud, host):
    folder = cloud.place(host).folder / "ovs"
    return {name: json.loads((folder / f"{name}.pid").read_text())[0] for name in ("ovsdb-server", "ovs-vswitchd")}


@pytest.mark.parametrize("segments", [VLANS, FLOWS])
def test_networks_of_one_cidr_never_hear_each_other_and_their_tags_are_on_the_wire(cloud, segments):
    shells = place(cloud, segments)
    one, other = segments
    underlay, deaf = cloud.fabric.underlay, cloud.fabric.prefix + shells["h2", other.id]
    with capture(underlay, "h1", "vlan and (arp or icmp)") as wire, capture(deaf, "eth0", "arp") as heard:
        until(lambda: answered(cloud, shells["h1", one.id]))
    numbers = [segment.uri.rpartition("/")[2] for segment in segments]
    assert {tag for line in wire for tag in re.findall(r" vlan (\d+)", line)} == {numbers[0]}
    assert any("ARP" in line for line in wire)
    assert heard == []
    with capture(underlay, "h1", "vlan and (arp or icmp)") as wire:
        assert answered(cloud, shells["h1", other.id])
    assert {tag for line in wire for tag in re.findall(r" vlan (\d+)", line)} == {numbers[1]}
    # nobody of the other network answers for an address that only it has
    cloud.exec(f"router/{shells['h2', other.id]}", "ip", "address", "add", "10.1.1.77/24", "dev", "eth0")
    assert answered(cloud, shells["h1", other.id], "10.1.1.77")
    assert not answered(cloud, shells["h1", one.id], "10.1.1.77")
    assert cloud.ensure("h1") == []


def test_the_flows_read_back_equal_the_model_through_every_change(cloud):
    shells = place(cloud, FLOWS)
    for host in HOSTS:
        assert switch(cloud, host).flows("und0") == model(cloud, host)
        assert len(model(cloud, host)) == 2 * 4 + 1
    folder = cloud.place("h1").folder / "ovs"
    line = ["ovs-vsctl", f"--db=unix:{folder}/db.sock", "get", "Bridge", "ovs-und0", "fail_mode"]
    assert netns.run("", line).strip() == "secure"
    more = [shell(number, FLOWS[0]) for number in (1, 5, 6)]
    assert cloud.apply("h1", FLOWS[0], *more) == []
    assert switch(cloud, "h1").flows("und0") == model(cloud, "h1")
    assert sum(more[1].nics[0].mac in flow for flow in model(cloud, "h1")) == 1
    cloud.exec(f"router/{more[1].name}", "ip", "address", "add", "10.1.1.5/24", "dev", "eth0")
    until(lambda: answered(cloud, shells["h2", "s300"], "10.1.1.5"))
    # somebody else's flow goes, a lost one comes back
    rogue = "priority=999,in_port=65000,actions=drop"
    netns.run("", ["ovs-ofctl", "-O", "OpenFlow14", "add-flow", f"unix:{folder}/ovs-und0.mgmt", rogue])
    assert cloud.ensure("h1") == ["set the flows of ovs-und0"]
    netns.run("", ["ovs-ofctl", "-O", "OpenFlow14", "del-flows", f"unix:{folder}/ovs-und0.mgmt"])
    assert cloud.ensure("h1") == ["set the flows of ovs-und0"]
    assert switch(cloud, "h1").flows("und0") == model(cloud, "h1")
    assert cloud.ensure("h1") == []


def test_what_is_addressed_to_nobody_here_stays_out(cloud):
    shells = place(cloud, FLOWS[:1])
    inside = cloud.fabric.prefix + shells["h2", "s300"]
    stranger = ["ip", "neighbour", "replace", "10.1.1.99", "lladdr", "02:ff:ff:ff:ff:ff", "dev", "eth0"]
    cloud.exec(f"router/{shells['h1', 's300']}", *stranger)
    with capture(inside, "eth0", "icmp") as heard:
        assert not answered(cloud, shells["h1", "s300"], "10.1.1.99")
        assert answered(cloud, shells["h1", "s300"])
    assert heard
    assert not any("10.1.1.99" in line for line in heard)


def test_traffic_goes_on_without_the_agent_and_a_killed_switch_comes_back(cloud):
    shells = place(cloud, FLOWS[:1])
    name = shells["h1", "s300"]
    until(lambda: answered(cloud, name))
    before = pids(cloud, "h1")
    # nobody of ours runs between the passes: what carries now are the daemons alone
    assert " 0% packet loss" in ping(cloud, name, count=3)
    os.kill(before["ovs-vswitchd"], signal.SIGKILL)
    until(lambda: "ovs-vswitchd" in switch(cloud, "h1").trouble())
    assert not answered(cloud, name)
    health = dict(Segments().observe(cloud.place("h1"), cloud.bundles["h1"]).health)
    assert health["openvswitch"] == "ovs-vswitchd of Open vSwitch does not run"
    assert "started Open vSwitch" in cloud.ensure("h1")
    assert switch(cloud, "h1").flows("und0") == model(cloud, "h1")
    until(lambda: answered(cloud, name))
    assert pids(cloud, "h1")["ovsdb-server"] == before["ovsdb-server"]
    for pid in pids(cloud, "h1").values():
        os.kill(pid, signal.SIGKILL)
    until(lambda: "ovsdb-server and" in switch(cloud, "h1").trouble())
    (cloud.place("h1").folder / "ovs" / "conf.db").write_text("torn")
    assert "started Open vSwitch" in cloud.ensure("h1")
    until(lambda: answered(cloud, name))
    assert cloud.ensure("h1") == []


def test_a_lost_cable_and_a_lost_uplink_are_taken_in_anew(cloud):
    shells = place(cloud, FLOWS[:1])
    (segment,) = (s for s in wanted(cloud.bundles["h1"]) if s.kind == "vs")
    netns.run(cloud.fabric.namespace("h1"), ["ip", "link", "del", segment.far_end])
    done = cloud.ensure("h1")
    assert f"joined {segment.device} to {segment.bridge}" in done
    assert "set the ports of ovs-und0" in done
    until(lambda: answered(cloud, shells["h1", "s300"]))
    netns.run(cloud.fabric.namespace("h1"), ["ip", "link", "del", "und0"])
    cloud.fabric.ensure()
    assert "set the ports of ovs-und0" in cloud.ensure("h1")
    until(lambda: answered(cloud, shells["h1", "s300"]))
    assert cloud.ensure("h1") == []


def test_a_host_that_was_started_anew_gets_a_new_switch_and_the_former_is_ended(cloud):
    place(cloud, FLOWS[:1])
    before = pids(cloud, "h1")
    netns.ensure_no(cloud.fabric.namespace("h1"))
    cloud.fabric.ensure()
    assert "started Open vSwitch" in cloud.ensure("h1")
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in before.values())
    cloud.exec("router/r-1-VM", "ip", "address", "add", "10.1.1.1/24", "dev", "eth0")
    until(lambda: answered(cloud, "r-1-VM"))
    assert cloud.ensure("h1") == []


def test_tcp_fits_and_arrives_whole_beside_the_hosts_own_traffic_and_tunnels(cloud):
    """Checksums and large frames are right, and the uplink keeps its address and its VXLAN."""
    shells = place(cloud, (*FLOWS[:1], NET))
    netns.run(cloud.fabric.namespace("h1"), ["ping", "-c", "1", "-W", "2", cloud.fabric.tunnel("h2")])
    for segment in ("s300", NET.id):
        inside = cloud.fabric.prefix + shells["h2", segment]
        server = netns.popen(inside, ["iperf3", "-s", "-1"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            until(lambda there=inside: ":5201" in netns.run(there, ["ss", "-ltn"]))
            said = cloud.exec(f"router/{shells['h1', segment]}", "iperf3", "-c", "10.1.1.2", "-n", "20M", "-J")
            server.communicate(timeout=10)
        finally:
            server.kill()
            server.wait()
        assert json.loads(said)["end"]["sum_received"]["bytes"] > 10_000_000


def test_the_daemons_are_there_only_while_a_segment_needs_them(cloud):
    place(cloud, FLOWS)
    running = pids(cloud, "h1")
    assert cloud.apply("h1", NET) == []
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in running.values())
    assert not (cloud.place("h1").folder / "ovs").exists()
    with netns.netlink(cloud.fabric.namespace("h1")) as ip:
        names = {link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
    assert not any(name.startswith(("ovs-", "ovs", "brvs")) for name in names)


def test_a_vlan_of_a_kernel_with_8021q_needs_no_switch(cloud):
    place(cloud, VLANS)
    assert (cloud.place("h1").folder / "ovs").exists() is not has_8021q(cloud)
    if not has_8021q(cloud):
        assert switch(cloud, "h1").flows("und0") == model(cloud, "h1")
