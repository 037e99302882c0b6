"""Routed networks through the rendered router: no translation, the routing firewall, and prefixes told to a real FRR."""

import json
import signal
import socket
from dataclasses import replace

import pytest

from drivers.network.virtual_router import VirtualRouter
from drivers.routing import BgpPeer, RoutedRule
from systemvm import netns
from systemvm.bundle import Bundle
from systemvm.services import HostSettings, Place
from systemvm.services.frr import Frr
from tests.golden.router.cases import appliance, network, routed, routed_bgp, uid, vpc_routed
from tests.netns.router_lab import Lab, ask, ping, until

pytestmark = [pytest.mark.netns, pytest.mark.timeout(60)]
FIVE, SIX = "10.1.1.5", "10.1.1.6"
STRANGER = "198.51.100.7"
OUTSIDE = "203.0.113.1"
PREFIX = "10.1.1.0/24"
UPSTREAM = """log stdout
router bgp 65000
 bgp router-id 203.0.113.1
 no bgp ebgp-requires-policy
 neighbor 203.0.113.5 remote-as 65001
 neighbor 203.0.113.5 password s3cret
 neighbor 203.0.113.5 timers connect 1
 neighbor 2001:db8::5 remote-as 65001
 neighbor 2001:db8::5 password s3cret
 neighbor 2001:db8::5 timers connect 1
 address-family ipv4 unicast
  network 192.0.2.0/24
 exit-address-family
 address-family ipv6 unicast
  neighbor 2001:db8::5 activate
 exit-address-family
exit
"""


class Router:
    """The lab's router, told what it announces as the agent tells it."""

    def __init__(self, lab):
        self.lab, self.service, self.held = lab, Frr(), None
        self.place = Place("r", lab.router, lab.folder, HostSettings("h", "", "", lab.folder))

    def apply(self, facts):
        router = VirtualRouter()
        rendered = router.render(router.plan(facts))
        self.lab.apply(rendered)
        new = Bundle("t", "r", "router", 1, *rendered)
        assert self.service.check(self.place, self.place.current, new) == []
        assert self.service.activate(self.place, self.held, new) == []
        self.held = new

    def states(self):
        return dict(self.service.observe(self.place, self.held).states)


@pytest.fixture
def lab():
    lab = Lab()
    for name in (lab.g5, lab.g6, lab.outside):
        for port in (22, 80, 81):
            lab.serve(name, port)
    yield lab
    lab.remove()


@pytest.fixture
def router(lab):
    router = Router(lab)
    yield router
    router.service.remove(router.place)


class Upstream:
    """The operator's router: zebra and bgpd of FRR beside the lab's outside."""

    def __init__(self, lab):
        self.lab, self.daemons = lab, []
        folder = lab.folder / "upstream"
        folder.mkdir()
        lab.folder.chmod(0o755)
        folder.chmod(0o777)  # its daemons become a user of their own
        (folder / "zebra.conf").write_text("log stdout\n")
        (folder / "bgpd.conf").write_text(UPSTREAM)
        for name, more in (("zebra", []), ("bgpd", ["-P", "0"])):
            argv = [f"/usr/lib/frr/{name}", "-f", str(folder / f"{name}.conf"), "-i", str(folder / f"{name}.pid")]
            argv += ["-z", str(folder / "zserv.api"), "--vty_socket", str(folder), *more]
            log = (folder / f"{name}.log").open("wb")
            self.daemons.append(netns.popen(lab.outside, argv, cwd=folder, stdin=-3, stdout=log, stderr=log))
            log.close()
            until(lambda name=name: (folder / f"{name}.vty").exists())

    def learned(self, family="-4"):
        shown = netns.run(self.lab.outside, ["ip", family, "-j", "route", "show", "proto", "bgp"])
        return {route["dst"]: route.get("gateway", route.get("via")) for route in json.loads(shown)}

    def end(self):
        for process in reversed(self.daemons):
            process.send_signal(signal.SIGTERM)
            process.wait(10)


@pytest.fixture
def upstream(lab):
    lab.ip(lab.outside, "addr add 2001:db8::1/64 dev o0 nodad")
    made = Upstream(lab)
    yield made
    made.end()


def by_hand(lab):
    lab.ip(lab.outside, f"route add {PREFIX} via 203.0.113.5")


def test_guests_leave_and_are_reached_by_their_own_addresses_as_the_firewall_says(lab, router):
    by_hand(lab)
    router.apply(routed())
    assert ask(lab.g5, STRANGER, 80)[0] == FIVE, "nothing is translated on the way out"
    assert ask(lab.g5, STRANGER, 81) is None, "an egress rule is the default's exception"
    assert ask(lab.outside, FIVE, 80, STRANGER)[0] == STRANGER
    assert ask(lab.outside, SIX, 80, STRANGER) is None
    assert ask(lab.outside, SIX, 22, STRANGER)
    assert ask(lab.outside, SIX, 22, OUTSIDE) is None
    assert ask(lab.outside, SIX, 81, STRANGER) is None
    assert ping(lab.outside, SIX, STRANGER)
    lab.ip(lab.outside, "addr add 192.0.2.9/32 dev lo")
    assert ask(lab.outside, SIX, 81, "192.0.2.9"), "10.1.1.6 is in 10.1.1.4/30"
    counters = json.dumps(lab.nft("list", "set", "inet", "netspine", "routed_ports"))
    assert uid(15, 1) in counters
    router.apply(routed(ingress4=(), egress_allow=False))
    assert ask(lab.outside, FIVE, 80, STRANGER) is None
    assert not ping(lab.outside, SIX, STRANGER)
    assert ask(lab.g5, STRANGER, 80) is None
    assert ask(lab.g5, STRANGER, 81)[0] == FIVE


def test_nobody_outside_speaks_in_a_guests_name(lab, router):
    by_hand(lab)
    router.apply(routed(ingress4=(RoutedRule(uid(15, 9), "all", -1, -1, (), ()),)))
    assert ping(lab.outside, FIVE, STRANGER)
    lab.ip(lab.outside, "addr add 10.1.1.9/32 dev lo")
    with netns.entered(lab.outside):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with netns.entered(lab.g5):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.bind(("", 5000))
        receiver.settimeout(1)
        sender.bind(("10.1.1.9", 0))
        sender.sendto(b"forged", (FIVE, 5000))
        sender.close()
        with netns.entered(lab.outside):
            honest = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with honest:
            honest.sendto(b"honest", (FIVE, 5000))
        assert receiver.recv(64) == b"honest"


def test_routed_tiers_follow_their_lists(lab, router):
    lab.ip(lab.outside, "link del o2", "route add 10.1.0.0/16 via 203.0.113.5")
    lab.ip(lab.switch, "link del s6")
    lab._wire(lab.g6, "eth0", lab.router, "02:00:00:00:01:02", "eth2")
    router.apply(vpc_routed())
    lab.ip(lab.g6, "addr add 10.1.2.7/24 dev eth0", "route replace default via 10.1.2.1")
    assert ask(lab.outside, FIVE, 80, STRANGER)[0] == STRANGER
    assert ask(lab.outside, FIVE, 22, STRANGER) is None, "the second item denies it"
    assert ask(lab.outside, FIVE, 22, OUTSIDE)
    assert ask(lab.outside, "10.1.2.7", 80, STRANGER) is None
    assert ask(lab.g5, STRANGER, 80)[0] == FIVE


def test_a_peer_learns_the_prefixes_and_no_change_resets_its_session(lab, router, upstream):
    router.apply(routed_bgp())
    until(lambda: upstream.learned().get(PREFIX) == "203.0.113.5", 15)
    until(lambda: "2001:db8:1::/64" in upstream.learned("-6"), 15)
    assert router.states() == {
        "bgp/203.0.113.1": "Established",
        "bgp/2001:db8::1": "Established",
        "bgp/198.51.100.9": router.states()["bgp/198.51.100.9"],
    }
    assert ask(lab.outside, FIVE, 80, STRANGER)[0] == STRANGER
    assert ask(lab.g5, STRANGER, 80)[0] == FIVE
    assert ask(lab.outside, SIX, 80, STRANGER) is None
    pid, since = _pid(router), _established(router)
    other = replace(network(), id=uid(2, 2), cidr="10.1.2.0/24", gateway="10.1.2.1", routed=True)
    facts = routed_bgp()
    router.apply(replace(facts, networks=(*facts.networks, replace(other, leases=(), services=frozenset()))))
    until(lambda: "10.1.2.0/24" in upstream.learned())
    router.apply(facts)
    until(lambda: "10.1.2.0/24" not in upstream.learned())
    router.apply(routed_bgp(BgpPeer("203.0.113.1", "2001:db8::1", 65000, "s3cret")))
    assert set(router.states()) == {"bgp/203.0.113.1", "bgp/2001:db8::1"}
    assert (_pid(router), _established(router)) == (pid, since), "the session was not reset"
    router.apply(appliance())
    until(lambda: PREFIX not in upstream.learned())
    assert _pid(router) is None


def test_a_wrong_password_is_seen_and_a_right_one_heals_it(lab, router, upstream):
    router.apply(routed_bgp(BgpPeer("203.0.113.1", "", 65000, "wrong")))
    assert router.states()["bgp/203.0.113.1"] != "Established"
    router.apply(routed_bgp(BgpPeer("203.0.113.1", "", 65000, "s3cret")))
    until(lambda: router.states()["bgp/203.0.113.1"] == "Established", 20)
    pid = _pid(router)
    router.apply(routed_bgp(BgpPeer("203.0.113.1", "", 65000, "s3cret"), number=65002))
    assert _pid(router) != pid, "another AS is another daemon"


def test_a_daemon_that_is_gone_is_started_again(lab, router):
    router.apply(routed_bgp())
    assert router.service.ensure(router.place, router.held) == []
    lab.ip(lab.router, "link show")
    from systemvm.services.frr import _daemon

    _daemon(router.place).stop()
    assert router.service.ensure(router.place, router.held) == ["bgpd was gone and was started again"]
    assert _pid(router)


def test_what_bgpd_cannot_read_is_refused_by_line(lab, router):
    facts = routed_bgp()
    rendered = VirtualRouter().render(VirtualRouter().plan(facts))
    lab.write(rendered)
    path = router.place.current / "frr/bgpd.conf"
    path.write_text(path.read_text().replace("router-id 203", "router-it 203"))
    (failure,) = router.service.check(router.place, router.place.current, Bundle("t", "r", "router", 1, *rendered))
    assert failure.unit == "frr/bgpd.conf"
    assert "line 7" in failure.reason


def _pid(router):
    from systemvm.services.frr import _daemon

    return _daemon(router.place).pid()


def _established(router):
    from systemvm.services.frr import _ask

    summary = json.loads(_ask(router.place, ["enable", "show bgp summary json"])[-1][1])
    peer = summary["ipv4Unicast"]["peers"]["203.0.113.1"]
    return peer["connectionsEstablished"], peer["connectionsDropped"]
