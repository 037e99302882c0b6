"""Security groups on the wire: what comes in, what leaves, and what ends when a rule goes."""

import os
import socket
import threading
from contextlib import contextmanager, suppress

import pytest

from drivers.security import GroupMembers, GroupRule, PortFilter, SecurityGroup
from systemvm import netns
from systemvm.conntrack import Table
from tests.netns.hosts import NET, OTHER, nic, until, zone

pytestmark = pytest.mark.netns

ANY = ("0.0.0.0/0", "::/0")


@pytest.fixture
def cloud(tmp_path):
    with zone(f"tf{os.getpid()}-", tmp_path, "h1", "h2") as made:
        yield made


def rule(protocol, start=-1, end=None, cidrs=(), group=""):
    identity = f"{protocol}-{start}-{end}-{len(cidrs)}-{group}"
    return GroupRule(identity, protocol, start, start if end is None else end, tuple(cidrs), group)


def group(name, *ingress, egress=()):
    return SecurityGroup(name, ingress, tuple(egress))


def held(number, *groups, segment=NET, **more):
    port = nic(number, segment)
    guarded = groups if groups != (None,) else None
    last = number % 100
    return PortFilter(port.id, port.segment, port.mac, (f"10.1.1.{last}", f"2001:db8::{last}"), guarded, **more)


def space(cloud, number):
    return f"{cloud.fabric.prefix}i-2-{number}-VM"


class Hosts:
    """Guests 10 and 11 on the first host and 12 on the second, and what is wanted of their groups."""

    def __init__(self, cloud, **groups):
        self.cloud = cloud
        self.of = {10: ("web",), 11: ("app",), 12: ("app",)} | {int(key[1:]): value for key, value in groups.items()}
        self.groups, self.members = [], []

    def apply(self, *groups, members=()):
        self.groups = groups
        self.members = [GroupMembers(name, tuple(addresses)) for name, addresses in members]
        for host, numbers in (("h1", (10, 11)), ("h2", (12,))):
            guests = [self.cloud.guest(number) for number in numbers]
            filters = [held(number, *self.of[number]) for number in numbers]
            assert self.cloud.apply(host, NET, *guests, *filters, *self.groups, *self.members) == []

    def address(self):
        for number in (10, 11, 12):
            self.cloud.address(number, f"10.1.1.{number}")
            line = ["ip", "address", "add", f"2001:db8::{number}/64", "dev", "eth0", "nodad"]
            netns.run(space(self.cloud, number), line)


@pytest.fixture
def hosts(cloud):
    made = Hosts(cloud)
    made.apply(group("web"), group("app"))
    made.address()
    return made


@contextmanager
def serving(cloud, number, port, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    """Answer everything that is sent to a port of a guest with the same, in capitals."""
    with netns.entered(space(cloud, number)):
        line = (
            socket.create_server(("", port), family=family)
            if kind == socket.SOCK_STREAM
            else socket.socket(family, kind)
        )
    if kind == socket.SOCK_DGRAM:
        line.bind(("", port))
    threading.Thread(target=_serve, args=(line, kind), daemon=True).start()
    try:
        yield
    finally:
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
        line.close()


def _serve(line, kind):
    with suppress(OSError):
        while True:
            if kind == socket.SOCK_DGRAM:
                data, peer = line.recvfrom(65536)
                if peer is None:  # it was shut down
                    return
                line.sendto(data.upper(), peer)
            else:
                threading.Thread(target=_echo, args=(line.accept()[0],), daemon=True).start()


def _echo(line):
    with suppress(OSError), line:
        while data := line.recv(65536):
            line.sendall(data.upper())


def connect(cloud, number, address, port, *, kind=socket.SOCK_STREAM, source=0, wait=1.6):
    """Return a socket of a guest that was answered, or None."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.entered(space(cloud, number)):
        line = socket.socket(family, kind)
    line.settimeout(wait)
    try:
        if source:
            line.bind(("", source))
        line.connect((address, port))
        line.sendall(b"hello")
        assert line.recv(100) == b"HELLO"
    except OSError:
        line.close()
        return None
    return line


def reaches(*args, **more):
    line = connect(*args, **more)
    if line:
        line.close()
    return line is not None


def pings(cloud, number, address, *more):
    word = "ping6" if ":" in address else "ping"
    said = cloud.exec(f"vm/i-2-{number}-VM", word, "-c", "2", "-W", "1", *more, address, fails=True)
    return " 0% packet loss" in said or "1 packets received" in said


def test_nothing_comes_in_and_everything_leaves_until_a_rule_says_otherwise(cloud, hosts):
    with (
        serving(cloud, 10, 8000),
        serving(cloud, 12, 8000),
        serving(cloud, 12, 8000, socket.AF_INET6, socket.SOCK_DGRAM),
    ):
        assert not reaches(cloud, 12, "10.1.1.10", 8000, wait=0.5)
        assert not reaches(cloud, 11, "10.1.1.10", 8000, wait=0.5)
        assert not pings(cloud, 11, "10.1.1.10")
        assert not pings(cloud, 12, "2001:db8::10")
        hosts.apply(
            group("web"),
            group("app", rule("tcp", 8000, cidrs=ANY), rule("icmp", cidrs=ANY), rule("udp", 8000, cidrs=ANY)),
        )
        assert reaches(cloud, 10, "10.1.1.12", 8000)
        assert reaches(cloud, 10, "2001:db8::12", 8000, kind=socket.SOCK_DGRAM)
        assert pings(cloud, 10, "10.1.1.12")
        assert pings(cloud, 10, "2001:db8::12")
        assert not reaches(cloud, 12, "10.1.1.10", 8000, wait=0.5)


@pytest.mark.parametrize("client", [11, 12])
def test_a_rule_by_cidr_opens_its_ports_to_its_sources_alone(cloud, hosts, client):
    web = group(
        "web",
        rule("tcp", 8000, 8010, cidrs=(f"10.1.1.{client}/32", f"2001:db8::{client}/128")),
        rule("udp", 53, cidrs=("10.1.0.0/16",)),
        rule("icmp", 8, 0, cidrs=("10.1.1.0/24",)),
        rule("icmpv6", 128, 0, cidrs=(f"2001:db8::{client}/128",)),
    )
    other = 23 - client
    hosts.apply(web, group("app"))
    with serving(cloud, 10, 8000), serving(cloud, 10, 8011), serving(cloud, 10, 8005, socket.AF_INET6):
        with serving(cloud, 10, 53, kind=socket.SOCK_DGRAM), serving(cloud, 10, 54, kind=socket.SOCK_DGRAM):
            assert reaches(cloud, client, "10.1.1.10", 8000)
            assert reaches(cloud, client, "2001:db8::10", 8005)
            assert not reaches(cloud, client, "10.1.1.10", 8011, wait=0.5)
            assert not reaches(cloud, other, "10.1.1.10", 8000, wait=0.5)
            assert not reaches(cloud, other, "2001:db8::10", 8005, wait=0.5)
            assert reaches(cloud, other, "10.1.1.10", 53, kind=socket.SOCK_DGRAM)
            assert not reaches(cloud, client, "10.1.1.10", 54, kind=socket.SOCK_DGRAM, wait=0.5)
    assert pings(cloud, other, "10.1.1.10")
    assert pings(cloud, client, "2001:db8::10")
    assert not pings(cloud, other, "2001:db8::10")


def test_a_rule_by_group_follows_its_members(cloud, hosts):
    web, app = group("web", rule("tcp", 8000, group="app"), rule("all", group="ops")), group("app")
    with serving(cloud, 10, 8000), serving(cloud, 10, 22), serving(cloud, 10, 8000, socket.AF_INET6, socket.SOCK_DGRAM):
        hosts.apply(web, app, members=[("app", ["10.1.1.11"]), ("ops", [])])
        assert reaches(cloud, 11, "10.1.1.10", 8000)
        assert not reaches(cloud, 12, "10.1.1.10", 8000, wait=0.5)
        hosts.apply(web, app, members=[("app", ["10.1.1.11", "10.1.1.12"]), ("ops", ["2001:db8::11", "10.1.1.12"])])
        assert reaches(cloud, 12, "10.1.1.10", 8000)
        assert reaches(cloud, 12, "10.1.1.10", 22)
        assert not reaches(cloud, 11, "10.1.1.10", 22, wait=0.5)
        assert reaches(cloud, 11, "2001:db8::10", 8000, kind=socket.SOCK_DGRAM)
        assert pings(cloud, 12, "10.1.1.10")
        assert not pings(cloud, 11, "10.1.1.10")
        hosts.apply(web, app, members=[("app", []), ("ops", [])])
        assert not reaches(cloud, 11, "10.1.1.10", 8000, wait=0.5)
        assert not reaches(cloud, 12, "10.1.1.10", 22, wait=0.5)


def test_an_egress_rule_closes_all_else_but_the_networks_own_services(cloud, hosts):
    open_to_all = [rule("all", cidrs=ANY)]
    app = group("app", *open_to_all)
    closed = group("web", egress=[rule("tcp", 8000, cidrs=("10.1.1.11/32",)), rule("udp", 99, group="app")])
    hosts.apply(closed, app, members=[("app", ["10.1.1.12"])])
    udp = socket.SOCK_DGRAM
    with (
        serving(cloud, 11, 8000),
        serving(cloud, 12, 8000),
        serving(cloud, 12, 99, kind=udp),
        serving(cloud, 12, 53, kind=udp),
    ):
        assert reaches(cloud, 10, "10.1.1.11", 8000)
        assert not reaches(cloud, 10, "10.1.1.12", 8000, wait=0.5)
        assert reaches(cloud, 10, "10.1.1.12", 99, kind=udp)
        assert reaches(cloud, 10, "10.1.1.12", 53, kind=udp)
        assert not pings(cloud, 10, "10.1.1.11")
        assert pings(cloud, 12, "10.1.1.11")
        cloud.exec("vm/i-2-10-VM", "ip", "neigh", "flush", "all")
        assert reaches(cloud, 10, "10.1.1.11", 8000), "ARP is nobody's to forbid"
    with serving(cloud, 10, 22):
        hosts.apply(group("web", rule("tcp", 22, cidrs=ANY), egress=closed.egress), app)
        assert reaches(cloud, 12, "10.1.1.10", 22), "what came in is answered"


def test_servers_of_the_network_are_reached_whatever_the_egress_rules_say(cloud):
    hosts = Hosts(cloud)
    closed = group("web", egress=[rule("tcp", 1, cidrs=("192.0.2.1/32",))])
    hosts.apply(closed, group("app", rule("all", cidrs=ANY)))
    hosts.address()
    with serving(cloud, 11, 8080):
        assert not reaches(cloud, 10, "10.1.1.11", 8080, wait=0.5)
        guests = [cloud.guest(number) for number in (10, 11)]
        filters = [held(10, "web", servers=("10.1.1.11",)), held(11, "app")]
        assert cloud.apply("h1", NET, *guests, *filters, *hosts.groups) == []
        assert reaches(cloud, 10, "10.1.1.11", 8080)


def alive(line):
    try:
        line.sendall(b"hello")
        return line.recv(100) == b"HELLO"
    except OSError:
        return False


@pytest.mark.parametrize("client", [11, 12])
def test_a_revoked_rule_ends_what_it_let_begin_and_nothing_else(cloud, hosts, client):
    ssh, web = rule("tcp", 22, cidrs=("10.1.1.0/24",)), rule("tcp", 8000, group="app")
    dns = rule("udp", 99, cidrs=("10.1.1.0/24",))
    members = [("app", ["10.1.1.11", "10.1.1.12"])]
    hosts.apply(group("web", ssh, web, dns), group("app"), members=members)
    udp = socket.SOCK_DGRAM
    with serving(cloud, 10, 22), serving(cloud, 10, 8000), serving(cloud, 10, 99, kind=udp):
        first = connect(cloud, client, "10.1.1.10", 22)
        second = connect(cloud, client, "10.1.1.10", 8000)
        third = connect(cloud, client, "10.1.1.10", 99, kind=udp)
        assert alive(first)
        assert alive(second)
        hosts.apply(group("web", web), group("app"), members=members)
        for line in (first, second, third):
            line.settimeout(0.7)
        assert not alive(first)
        assert not alive(third)
        assert alive(second)
        hosts.apply(group("web", web), group("app"), members=[("app", [])])
        assert not alive(second)
        # who is let in again goes on, as TCP sends again what was lost
        hosts.apply(group("web", web, ssh), group("app"), members=members)
        third = connect(cloud, client, "10.1.1.10", 22)
        assert alive(third)


def test_a_guest_whose_group_is_taken_is_cut_off_by_what_remains(cloud, hosts):
    hosts.of[10] = ("web", "extra")
    extra = group("extra", rule("tcp", 22, cidrs=ANY))
    hosts.apply(group("web", rule("tcp", 8000, cidrs=ANY)), group("app"), extra)
    with serving(cloud, 10, 22), serving(cloud, 10, 8000):
        ssh, web = connect(cloud, 12, "10.1.1.10", 22), connect(cloud, 12, "10.1.1.10", 8000)
        hosts.of[10] = ("web",)
        hosts.apply(group("web", rule("tcp", 8000, cidrs=ANY)), group("app"))
        ssh.settimeout(0.7)
        assert not alive(ssh)
        assert alive(web)


def test_equal_addresses_on_two_segments_have_nothing_to_do_with_each_other(cloud):
    """The same four addresses and ports, on two bridges of one host, at the same time."""
    guests = [cloud.guest(10), cloud.guest(11), cloud.guest(110, nic(110, OTHER)), cloud.guest(111, nic(111, OTHER))]
    filters = [held(10, "web"), held(11, "app"), held(110, "shut", segment=OTHER), held(111, "app", segment=OTHER)]
    groups = [group("web", rule("tcp", 8000, cidrs=ANY), rule("udp", 9, cidrs=ANY)), group("app"), group("shut")]
    assert cloud.apply("h1", NET, OTHER, *guests, *filters, *groups) == []
    for number in (10, 11, 110, 111):
        cloud.address(number, f"10.1.1.{number % 100}")
    with serving(cloud, 10, 8000), serving(cloud, 110, 8000), serving(cloud, 10, 9, kind=socket.SOCK_DGRAM):
        here = connect(cloud, 11, "10.1.1.10", 8000, source=40000)
        assert alive(here)
        assert connect(cloud, 111, "10.1.1.10", 8000, source=40000, wait=0.5) is None
        assert alive(here)
        with serving(cloud, 110, 9, kind=socket.SOCK_DGRAM):
            big = b"x" * 4000  # fragments of both segments: same addresses, maybe the same ids
            lines = [_datagrams(cloud, number) for number in (11, 111)]
            for _ in range(5):
                for line in lines:
                    line.send(big)
                assert lines[0].recv(5000) == big.upper()
            with pytest.raises(TimeoutError):
                lines[1].recv(5000)
    with Table(cloud.fabric.namespace("h1")) as table:
        zones = {entry.parts.get(18) for entry in table.entries() if entry.orig.dport == 8000}
    assert len(zones) == 1
    assert None not in zones


def _datagrams(cloud, number):
    with netns.entered(space(cloud, number)):
        line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    line.settimeout(1)
    line.bind(("", 5000))
    line.connect(("10.1.1.10", 9))
    return line


def test_a_segment_without_groups_is_not_tracked_and_one_with_is_no_longer_when_they_go(cloud, hosts):
    hosts.of = dict.fromkeys((10, 11, 12), (None,))
    hosts.apply()
    with serving(cloud, 10, 8000):
        assert reaches(cloud, 12, "10.1.1.10", 8000)
    with Table(cloud.fabric.namespace("h1")) as table:
        assert not [entry for entry in table.entries() if entry.orig.dport == 8000]
    assert "inet" not in netns.run(cloud.fabric.namespace("h1"), ["nft", "list", "tables"])


def test_a_bridge_that_asks_nobody_lets_nothing_through_and_is_repaired(cloud, hosts):
    hosts.apply(group("web", rule("tcp", 8000, cidrs=ANY)), group("app"))
    with serving(cloud, 10, 8000):
        assert reaches(cloud, 11, "10.1.1.10", 8000)
        switch = ["ip", "link", "set", "brvx-5001", "type", "bridge", "nf_call_iptables", "0"]
        netns.run(cloud.fabric.namespace("h1"), switch)
        assert not reaches(cloud, 11, "10.1.1.10", 8000, wait=0.5)
        assert cloud.ensure("h1") == ["brvx-5001 hands its packets to the security groups"]
        assert reaches(cloud, 11, "10.1.1.10", 8000)
        netns.run(cloud.fabric.namespace("h1"), ["nft", "delete", "table", "inet", "netspine"])
        assert not reaches(cloud, 11, "10.1.1.10", 8000, wait=0.5)
        assert len(cloud.ensure("h1")) == 1
        assert reaches(cloud, 11, "10.1.1.10", 8000)
        assert cloud.ensure("h1") == []


def test_several_nics_are_guarded_each_by_its_own_groups(cloud):
    both = cloud.guest(10, nic(10), nic(10, OTHER, 1))
    ports = [held(10, "web")]
    second = nic(10, OTHER, 1)
    ports.append(PortFilter(second.id, second.segment, second.mac, ("10.1.2.10",), ("shut",)))
    client = PortFilter(nic(12, OTHER).id, OTHER.id, nic(12, OTHER).mac, ("10.1.2.12",), ("app",))
    groups = [group("web", rule("tcp", 8000, cidrs=ANY)), group("shut"), group("app")]
    assert cloud.apply("h1", NET, OTHER, both, cloud.guest(11), *ports, held(11, "app"), *groups) == []
    assert cloud.apply("h2", OTHER, cloud.guest(12, nic(12, OTHER)), client, *groups) == []
    until(lambda: cloud.exec("vm/i-2-10-VM", "cat", "/run/udhcpc.eth1.pid", fails=True))
    cloud.exec("vm/i-2-10-VM", "sh", "-c", "kill $(cat /run/udhcpc.eth1.pid)", fails=True)
    cloud.address(10, "10.1.1.10")
    cloud.address(11, "10.1.1.11")
    cloud.address(12, "10.1.2.12")
    cloud.exec("vm/i-2-10-VM", "ip", "link", "set", "eth1", "up")
    cloud.exec("vm/i-2-10-VM", "ip", "address", "add", "10.1.2.10/24", "dev", "eth1")
    with serving(cloud, 10, 8000), serving(cloud, 12, 8000):
        assert reaches(cloud, 11, "10.1.1.10", 8000)
        assert not reaches(cloud, 12, "10.1.2.10", 8000, wait=0.5)
        both_open = [groups[0], group("shut", rule("tcp", 8000, cidrs=("10.1.2.0/24",))), groups[2]]
        assert cloud.apply("h1", NET, OTHER, both, cloud.guest(11), *ports, held(11, "app"), *both_open) == []
        assert reaches(cloud, 12, "10.1.2.10", 8000)
