"""IPv6 through the rendered router: advertised prefixes, leases, names, and what the packet filter lets through."""

import json
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import dns.message
import dns.query
import pytest

from drivers.network.virtual_router import VirtualRouter
from drivers.vocabulary import Ipv6Rule
from systemvm import netns
from tests.golden.router.cases import ipv6_only, network, uid, vpc_dual_stack, with_v6
from tests.netns.router_lab import Lab, ask, until

pytestmark = pytest.mark.netns
OUTSIDE, STRANGER = "2001:db8:c::7", "2001:db8:d::7"
FIVE, SIX = "2001:db8:1:0:0:ff:fe00:205", "2001:db8:1:0:0:ff:fe00:206"
OWN = "2001:db8:1::1"


@pytest.fixture
def lab():
    lab = Lab()
    lab.ip(lab.outside, "addr add 2001:db8::1/64 dev o0 nodad", f"addr add {OUTSIDE}/128 dev lo nodad")
    lab.ip(lab.outside, f"addr add {STRANGER}/128 dev lo nodad", "route add 2001:db8:1::/64 via 2001:db8::5")
    netns.run(lab.outside, ["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"])
    yield lab
    lab.remove()


def apply(lab, facts):
    router = VirtualRouter()
    lab.apply(router.render(router.plan(facts)))


def start(lab):
    folder = lab.folder / "current/dnsmasq"
    files = [f"--conf-file={folder}/dnsmasq.conf", f"--dhcp-hostsfile={folder}/dhcp-hosts"]
    files += [f"--addn-hosts={folder}/hosts", f"--dhcp-leasefile={lab.folder}/leases"]
    lab.start(["dnsmasq", "--keep-in-foreground", "--pid-file=", *files])


def addresses(name):
    found = json.loads(netns.run(name, ["ip", "-6", "-j", "addr", "show", "dev", "eth0", "scope", "global"]))
    return {
        address["local"]
        for link in found
        for address in link.get("addr_info", ())
        if "local" in address and not address.get("tentative")
    }


def settled(lab):
    """Wait until both guests have the addresses that their MACs make (RFC 4291, appendix A)."""
    for guest, wanted in ((lab.g5, FIVE), (lab.g6, SIX)):
        until(lambda guest=guest, wanted=wanted: wanted.replace(":0:0:", "::") in addresses(guest), 15)


def pings(name, address, source=""):
    words = ["busybox", "ping6", "-c1", "-W1", *(("-I", source) if source else ()), address]
    with netns.entered(name):
        return subprocess.run(words, capture_output=True, check=False, timeout=10).returncode == 0


def facts(**more):
    return with_v6(network(mtu=1450), **more)


@pytest.mark.timeout(60)
def test_guests_make_addresses_of_the_advertised_prefix_and_are_told_of_resolver_and_mtu(lab):
    apply(lab, facts())
    start(lab)
    settled(lab)
    routes = json.loads(netns.run(lab.g5, ["ip", "-6", "-j", "route", "show", "default"]))
    assert routes[0]["protocol"] == "ra"
    with netns.entered(lab.g5):
        mtu = Path("/proc/sys/net/ipv6/conf/eth0/mtu").read_text().strip()
    assert mtu == "1450"
    for name, kind, wanted in (
        ("vm6.cs1.example", "AAAA", "2001:db8:1::ff:fe00:206"),
        ("vm6.cs1.example", "A", "10.1.1.6"),
        ("data-server", "AAAA", OWN),
    ):
        with netns.entered(lab.g5):
            answer = dns.query.udp(dns.message.make_query(name, kind), OWN, timeout=2)
        assert [str(item) for record in answer.answer for item in record] == [wanted]


@pytest.mark.timeout(60)
def test_dhcpv6_gives_a_known_guest_its_address_and_a_stranger_none(lab):
    apply(lab, replace(facts(), networks=(replace(facts().networks[0], leases=(_lease(),)),)))
    start(lab)
    settled(lab)
    assert "2001:db8:1::77" in _dhclient(lab, lab.g5)
    assert "iaaddr" not in _dhclient(lab, lab.g6)


def _lease():
    return network().leases[0]._replace(address6="2001:db8:1::77")


def _dhclient(lab, guest):
    """Run the reference client until it is bound, and return the address that it was leased; empty without one."""
    leases, conf, script = (lab.folder / f"{guest}.{name}" for name in ("leases", "conf", "sh"))
    conf.write_text("timeout 4;\nretry 60;\n")
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    words = ["dhclient", "-6", "-1", "-d", "-D", "LL", "-cf", str(conf), "-lf", str(leases), "-sf", str(script)]
    words += ["-pf", str(lab.folder / f"{guest}.pid"), "eth0"]
    process = netns.popen(guest, words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: "iaaddr" in _read(leases) or process.poll() is not None, 12)
        return _read(leases)
    finally:
        process.kill()
        process.wait()


def _read(path):
    return path.read_text() if path.exists() else ""


@pytest.mark.timeout(60)
def test_nothing_comes_in_but_what_a_rule_names(lab):
    apply(lab, facts())
    start(lab)
    settled(lab)
    for port in (22, 80):
        lab.serve(lab.g5, port, family=socket.AF_INET6)
    lab.serve(lab.g6, 22, family=socket.AF_INET6)
    lab.serve(lab.g5, 53, socket.SOCK_DGRAM, family=socket.AF_INET6)
    assert ask(lab.outside, FIVE, 22, OUTSIDE) is None
    assert not pings(lab.outside, FIVE, OUTSIDE)
    rules = (
        Ipv6Rule(uid(12, 1), "tcp", 20, 30, ("2001:db8:c::/48",), (f"{FIVE}/128",)),
        Ipv6Rule(uid(12, 2), "udp", 53, 53, (), ()),
        Ipv6Rule(uid(12, 3), "icmp", 128, 0, (f"{STRANGER}/128",), ()),
    )
    apply(lab, facts(ingress6=rules))
    assert ask(lab.outside, FIVE, 22, OUTSIDE)[0] == OUTSIDE, "not translated"
    assert ask(lab.outside, FIVE, 53, STRANGER, kind=socket.SOCK_DGRAM)
    assert ask(lab.outside, FIVE, 80, OUTSIDE) is None
    assert ask(lab.outside, FIVE, 22, STRANGER) is None
    assert ask(lab.outside, SIX, 22, OUTSIDE) is None
    assert pings(lab.outside, FIVE, STRANGER)
    assert not pings(lab.outside, FIVE, OUTSIDE)
    assert ask(lab.outside, FIVE, 22, OUTSIDE), "what is refused leaves the allowed alone"
    counted = lab.nft("list", "set", "inet", "netspine", "ingress_ports6")
    assert '"packets": 0' not in json.dumps(counted)


@pytest.mark.timeout(60)
def test_what_leaves_follows_the_default_and_its_exceptions(lab):
    rules = (
        Ipv6Rule(uid(13, 1), "tcp", 80, 80, (), ("2001:db8:c::/48",)),
        Ipv6Rule(uid(13, 2), "icmp", -1, -1, (f"{FIVE}/128",), ()),
    )
    apply(lab, facts(egress_allow=True, egress6=rules))
    start(lab)
    settled(lab)
    for port in (80, 81):
        lab.serve(lab.outside, port, family=socket.AF_INET6)
    for allow in (True, False):
        apply(lab, facts(egress_allow=allow, egress6=rules))
        assert bool(ask(lab.g5, OUTSIDE, 80)) is not allow
        assert bool(ask(lab.g5, STRANGER, 80)) is allow
        assert bool(ask(lab.g5, OUTSIDE, 81)) is allow
        assert pings(lab.g5, OUTSIDE) is not allow
        assert pings(lab.g6, OUTSIDE) is allow
    assert pings(lab.g5, OWN), "its router answers its guests, whatever leaves"


@pytest.mark.timeout(60)
def test_nobody_speaks_in_anothers_name(lab):
    apply(lab, facts(egress_allow=True, ingress6=(Ipv6Rule(uid(12, 1), "all", -1, -1, (), ()),)))
    start(lab)
    settled(lab)
    lab.serve(lab.outside, 80, family=socket.AF_INET6)
    lab.serve(lab.g5, 80, family=socket.AF_INET6)
    lab.ip(lab.g5, "addr add 2001:db8:2::5/128 dev lo nodad")
    lab.ip(lab.outside, "route add 2001:db8:2::/64 via 2001:db8::5", f"addr add {SIX[:-1]}9/128 dev lo nodad")
    assert ask(lab.g5, OUTSIDE, 80)
    assert ask(lab.g5, OUTSIDE, 80, "2001:db8:2::5") is None
    assert ask(lab.outside, FIVE, 80, OUTSIDE)
    assert ask(lab.outside, FIVE, 80, f"{SIX[:-1]}9") is None


@pytest.mark.timeout(60)
def test_a_network_without_ipv4_is_whole(lab):
    apply(lab, ipv6_only())
    start(lab)
    settled(lab)
    lab.serve(lab.outside, 80, family=socket.AF_INET6)
    assert ask(lab.g5, OUTSIDE, 80)
    assert ask(lab.outside, FIVE, 22, OUTSIDE) is None
    assert lab.counter("out_" + uid(2, 1).replace("-", "")) > 0
    with netns.entered(lab.g5):
        answer = dns.query.udp(dns.message.make_query("vm6.cs1.example", "AAAA"), OWN, timeout=2)
    assert answer.answer


@pytest.mark.timeout(60)
def test_tiers_of_a_vpc_follow_their_lists_over_ipv6(lab):
    lab.ip(lab.outside, "link del o2", "route add 2001:db8:2::/64 via 2001:db8::5")
    lab.ip(lab.switch, "link del s6")
    lab._wire(lab.g6, "eth0", lab.router, "02:00:00:00:01:02", "eth2")
    web, db = "2001:db8:1::5", "2001:db8:2::6"
    for guest, address, way in ((lab.g5, web, "2001:db8:1::1"), (lab.g6, db, "2001:db8:2::1")):
        lab.ip(guest, f"addr add {address}/64 dev eth0 nodad")
        apply(lab, vpc_dual_stack())
        lab.ip(guest, f"route replace default via {way} dev eth0")
    for name, ports in ((lab.g5, (80, 81)), (lab.g6, (80, 81)), (lab.outside, (80,))):
        for port in ports:
            lab.serve(name, port, family=socket.AF_INET6)
    until(lambda: ask(lab.outside, web, 80, OUTSIDE))
    assert ask(lab.outside, web, 80, STRANGER) is None
    assert ask(lab.outside, web, 81, OUTSIDE) is None
    assert ask(lab.outside, db, 80, OUTSIDE) is None
    assert pings(lab.outside, web, STRANGER)
    assert not pings(lab.outside, db, OUTSIDE)
    assert ask(lab.g5, db, 80)[0] == web
    assert ask(lab.g5, db, 81) is None
    assert ask(lab.g6, web, 80) is None
    assert ask(lab.g5, OUTSIDE, 80)[0] == web
    assert ask(lab.g6, OUTSIDE, 80)[0] == db
