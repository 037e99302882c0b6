"""WireGuard tunnels as values: reading, refusing, and the difference between what is and what is wanted."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from systemvm.services import tunnels
from systemvm.services.tunnels import Device, Peer, Seen, Tunnel

KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(1, 9)]


def peer(number, **more):
    fields = {"preshared_key": "", "allowed": frozenset({f"10.250.0.{number}/32"}), "endpoint": "", "keepalive": 0}
    return Peer(id=f"p{number}", public_key=KEYS[number], **(fields | more))


def tunnel(*peers):
    found = {one.public_key: one for one in peers}
    return Tunnel("t", "wg00000001", "10.250.0.1/24", 1420, 51820, 0, frozenset(), KEYS[0], found)


def device(*peers, endpoint=""):
    seen = {one.public_key: Seen(one.preshared_key, endpoint, one.allowed, 0, 0, 0, one.keepalive) for one in peers}
    return Device(KEYS[0], 51820, 0, seen)


peers = st.lists(
    st.builds(
        peer,
        st.integers(1, 7),
        preshared_key=st.sampled_from(["", KEYS[0]]),
        keepalive=st.integers(0, 3),
        endpoint=st.sampled_from(["", "192.0.2.1:1"]),
    ),
    unique_by=lambda one: one.public_key,
)


@given(peers, peers)
def test_the_difference_names_just_those_that_differ(now, then):
    there, wanted = device(*now), tunnel(*then)
    due = tunnels.change(there, wanted, None)
    assert not due.own
    assert set(due.removed) == {one.public_key for one in now} - {one.public_key for one in then}
    had = {one.public_key: one for one in now}
    touched = {
        one.public_key
        for one in then
        if one.endpoint or one._replace(endpoint="") != had.get(one.public_key, one)._replace(endpoint="")
        or one.public_key not in had
    }  # fmt: skip
    assert {line.split(" = ")[1] for line in due.peers.splitlines() if line.startswith("PublicKey")} == touched


def test_an_endpoint_that_roamed_stays_until_another_is_configured():
    site = peer(1, endpoint="192.0.2.1:51820")
    there = device(site, endpoint="198.51.100.7:4000")
    assert tunnels.change(there, tunnel(site), tunnel(site)).peers == ""
    moved = site._replace(endpoint="192.0.2.9:51820")
    assert "Endpoint = 192.0.2.9:51820" in tunnels.change(there, tunnel(moved), tunnel(site)).peers
    slower = site._replace(keepalive=9)
    assert "Endpoint" not in tunnels.change(there, tunnel(slower), tunnel(site)).peers
    assert "Endpoint" in tunnels.change(there, tunnel(site), None).peers


def test_a_dump_is_read():
    dump = f"{KEYS[0]}\t{KEYS[1]}\t51820\t0x65\n{KEYS[2]}\t(none)\t203.0.113.1:4000\t10.0.0.0/8,10.1.0.2/32\t17\t5\t6\t25\n"
    found = tunnels.parse(dump + f"{KEYS[3]}\t{KEYS[4]}\t(none)\t(none)\t0\t0\t0\toff\n")
    assert (found.private_key, found.port, found.mark) == (KEYS[0], 51820, 101)
    assert found.peers == {
        KEYS[2]: Seen("", "203.0.113.1:4000", frozenset({"10.0.0.0/8", "10.1.0.2/32"}), 17, 5, 6, 25),
        KEYS[3]: Seen(KEYS[4], "", frozenset(), 0, 0, 0, 0),
    }
    assert tunnels.parse(f"{KEYS[0]}\t{KEYS[1]}\t51820\toff\n").peers == {}


def written(**more):
    entry = {"id": "t", "device": "wg00000001", "address": "10.250.0.1/24", "mtu": 1420, "port": 1, "mark": 0}
    one = {"id": "p", "public_key": KEYS[1], "preshared_key": "", "allowed": [], "endpoint": "", "keepalive": 0}
    entry |= {"routes": [], "private_key": KEYS[0], "peers": [one | more.pop("peer", {})]}
    return json.dumps({"tunnels": [entry | more]})


@pytest.mark.parametrize(
    "more",
    [
        {"device": "eth0"},
        {"device": "wg00000001; x"},
        {"private_key": "c2hvcnQ="},
        {"address": "10.250.0.300/24"},
        {"peer": {"public_key": "no key"}},
        {"peer": {"allowed": ["10.0.0.1/8"]}},
        {"peer": {"endpoint": "vpn.example:51820"}},
        {"port": "x"},
    ],
)
def test_what_cannot_be_is_refused_without_telling_a_key(more):
    assert len(tunnels.read(written())) == 1
    with pytest.raises(ValueError, match=r"\w") as refused:
        tunnels.read(written(**more))
    assert KEYS[0] not in str(refused.value)
