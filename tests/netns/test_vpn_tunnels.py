"""Site-to-site tunnels between two real routers: what passes, what never leaks, and what heals."""

import os
import signal
import socket
import time

import pytest

from systemvm import netns
from systemvm.services.kinds import KINDS
from tests.netns.router_lab import ping
from tests.netns.vpn_lab import ADDRESS, CONNECTION, VpnLab, Wire, facts, ports, tunnel, until

pytestmark = pytest.mark.netns
GUEST = {"a": "10.1.1.5", "b": "10.2.1.5"}
SECRET = b"this is to be read by nobody"


@pytest.fixture
def lab(tmp_path):
    lab = VpnLab(tmp_path)
    try:
        yield lab
    finally:
        for bundle in lab.bundles.values():
            log = lab.applier.place(bundle).folder / "run/charon.log"
            print(bundle.name, log.read_text()[-3000:] if log.exists() else "-")
        lab.remove()


def say(lab, side, other):
    """Send a datagram from guest to guest; return what arrived and from whom."""
    with netns.entered(lab.guest(other)):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with netns.entered(lab.guest(side)):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.bind((GUEST[other], 7777))
        server.settimeout(1)
        client.sendto(SECRET, (GUEST[other], 7777))
        try:
            return server.recvfrom(100)
        except TimeoutError:
            return None


@pytest.mark.parametrize("version", ["ikev2", "ikev1", "ike"])
def test_guests_reach_each_other_through_esp_and_nothing_is_readable(lab, version):
    assert [outcome.status for outcome in lab.join(version=version, esp_policy="aes256-sha256;modp2048")] == [
        "applied"
    ] * 2
    until(lab.connected)
    wire = Wire(lab)
    assert ping(lab.guest("a"), GUEST["b"], timeout=2)
    assert ping(lab.guest("b"), GUEST["a"], timeout=2)
    said, (source, _) = say(lab, "a", "b")
    assert (said, source) == (SECRET, GUEST["a"])  # not source-NATed
    packets = wire.packets()
    wire.close()
    assert packets
    for _, _, protocol, payload in packets:
        assert SECRET not in payload
        assert protocol == 50 or (protocol == 17 and set(ports(payload)) & {500, 4500})
    seen = {name: size for name, _, size in lab.applier.observe(lab.bundles["a"]).counters}
    assert seen[CONNECTION["a"]] > len(SECRET)


def test_a_passive_side_waits_for_the_other(lab):
    lab.join(a={"passive": True}, b={"passive": True})
    for _ in range(5):
        assert lab.state("a") == lab.state("b") == "Disconnected"
    lab.apply(facts("b", tunnel("b")))
    until(lab.connected)
    assert ping(lab.guest("a"), GUEST["b"], timeout=2)


def test_a_daemon_that_is_killed_comes_back_and_so_does_the_tunnel(lab):
    lab.join()
    until(lab.connected)
    first = lab.pid("a")
    os.kill(first, signal.SIGKILL)
    began = time.monotonic()
    until(lambda: lab.connected() and ping(lab.guest("a"), GUEST["b"], timeout=0.3))
    assert lab.pid("a") != first
    assert ("strongswan", "repaired: charon was gone and was started again") in lab.repairs
    assert time.monotonic() - began < 10


def test_a_connection_that_is_removed_is_closed_on_both_sides_and_leaks_nothing(lab):
    lab.join()
    until(lab.connected)
    assert ping(lab.guest("a"), GUEST["b"], timeout=2)
    lab.apply(facts("b"))
    assert lab.pid("b") is None
    until(lambda: lab.state("a") != "Connected")
    wire = Wire(lab)
    assert not ping(lab.guest("a"), GUEST["b"])
    assert all(GUEST["a"] not in packet[:2] and packet[2] != 1 for packet in wire.packets())
    wire.close()
    lab.apply(facts("a"))
    assert lab.pid("a") is None
    assert "from 10.1.1.0/24" not in netns.run(lab.router("a"), ["ip", "rule"])


def test_one_connection_changes_and_another_stays_up(lab):
    other = tunnel("a", id="00000014-0000-4000-8000-000000000009", peer="203.0.113.77", remotes=("10.9.0.0/24",))
    lab.join()
    until(lab.connected)
    pid = lab.pid("a")
    before = unique(lab, "a")
    assert lab.apply(facts("a", tunnel("a"), other)).status == "applied"
    assert (
        lab.apply(
            facts(
                "a",
                tunnel("a"),
            )
        ).status
        == "applied"
    )
    assert (lab.pid("a"), unique(lab, "a")) == (pid, before)
    lab.apply(facts("a", tunnel("a", resets=1)))
    until(lab.connected)
    assert lab.pid("a") == pid
    assert unique(lab, "a") != before


def unique(lab, side):
    from systemvm.services.charon import Charon

    with Charon(lab.applier.place(lab.bundles[side])).session() as session:
        return [sa["initiator-spi"] for found in session.list_sas() for sa in found.values()]


def test_a_wrong_key_is_an_error_with_the_daemons_reason(lab):
    lab.join(b={"psk": "another key"}, a={"passive": True})
    state = until(lambda: (found := lab.state("b")) and found.startswith("Error") and found)
    assert "AUTHENTICATION_FAILED" in state
    lab.apply(facts("b", tunnel("b")))
    until(lab.connected)


def test_a_peer_that_wants_another_proposal_is_an_error(lab):
    lab.join(a={"ike_policy": "aes128-sha1;modp1024", "passive": True})
    state = until(lambda: (found := lab.state("b")) and found.startswith("Error") and found)
    assert "NO_PROPOSAL_CHOSEN" in state


def test_a_router_without_the_address_holds_no_tunnel_and_takes_it_up_with_the_address(lab):
    lab.join(b={"passive": True})
    until(lab.connected)
    service = next(service for service in KINDS["router"] if service.name == "strongswan")
    place, bundle = lab.applier.place(lab.bundles["a"]), lab.bundles["a"]
    lab.ip(lab.router("a"), f"addr del {ADDRESS['a']}/24 dev eth0")

    def state():
        service.ensure(place, bundle)  # and no other service, which would bring the address back
        return dict(service.observe(place, bundle).states)[CONNECTION["a"]]

    until(lambda: state() == "Disconnected")
    assert state() == "Disconnected"
    until(lab.connected)


def test_split_connections_have_a_child_for_each_network(lab):
    many = ("10.2.1.0/24", "10.2.2.0/24")
    lab.join(a={"remotes": many, "split": True}, b={"networks": many, "split": True, "passive": True})
    until(lambda: lab.connected("a"))
    assert ping(lab.guest("a"), GUEST["b"], timeout=2)


def test_only_the_peer_may_speak_ike(lab):
    assert lab.apply(facts("a", tunnel("a", passive=True))).status == "applied"
    wire = Wire(lab)
    with netns.entered(lab.outside):
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with stranger:
        stranger.settimeout(0.3)
        stranger.sendto(b"\0" * 8 + b"\0" * 8 + b"\x21\x20\x22\x08" + b"\0" * 4 + b"\0\0\0\x1c", (ADDRESS["a"], 500))
        with pytest.raises(TimeoutError):
            stranger.recv(1000)
    assert any(packet[2] == 17 for packet in wire.packets())
    wire.close()


def test_what_only_a_tunnel_leads_to_is_not_taken_in_clear(lab):
    lab.join()
    until(lab.connected)
    lab.ip(lab.outside, "addr add 10.2.1.99/32 dev br0", f"route add 10.1.1.0/24 via {ADDRESS['a']}")
    wire = Wire(lab)
    assert not ping(lab.outside, GUEST["a"], source="10.2.1.99")
    assert any(packet[0] == "10.2.1.99" for packet in wire.packets())
    wire.close()
