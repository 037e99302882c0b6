"""WireGuard VPNs and their peers: what is made, what is handed out, and what is refused."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sqlalchemy import select, text

from controlplane.errors import ApiError, BadParameter, LimitReached, RuleConflict, Unsupported
from controlplane.network.claims import PortClaim
from controlplane.network.networks import Network
from controlplane.network.public_ips import PublicIp, release
from controlplane.network.routers import Router
from controlplane.network.wireguard_facts import wireguard_facts
from controlplane.network.wireguard_peers import WireguardPeer
from controlplane.network.wireguard_vpns import WireguardVpn
from controlplane.reconcile import observations
from controlplane.reconcile.targets import Target, load_facts
from drivers import wireguard
from systemvm.bundle import Observation
from tests.api.ground import SERVICES
from tests.api.vpc_world import vpc_world


@pytest.fixture
def network(ground):
    return ground.network("alice", services=SERVICES | {"Vpn": ["VirtualRouter"]})


@pytest.fixture
def vpn(ground, alice, network, ip):
    return ground.done(alice("createWireguardVpn", networkid=network, publicipid=ip))


@pytest.fixture
def add(ground, alice, vpn):
    def add(name="laptop", cloud=alice, **parameters):
        raw = {"command": "addWireguardPeer", "wireguardvpnid": vpn["id"], "name": name} | parameters
        return ground.done(cloud.raw(raw))

    return add


def keys():
    private = X25519PrivateKey.generate()
    return [
        base64.b64encode(raw).decode() for raw in (private.private_bytes_raw(), private.public_key().public_bytes_raw())
    ]


def facts(ground, network):
    with ground.cloud.database.read() as session:
        (found,) = wireguard_facts(session, session.get_one(Network, ground.numbers[network]))
        return found


def test_a_vpn_claims_its_port_and_has_keys_of_its_own(ground, alice, network, ip, vpn):
    shown = {key: vpn[key] for key in ("networkid", "publicipid", "publicip", "port", "cidr", "gateway", "peercount")}
    assert shown == {
        "networkid": network,
        "publicipid": ip,
        "publicip": "203.0.113.10",
        "port": 51820,
        "cidr": "10.250.0.0/24",
        "gateway": "10.250.0.1",
        "peercount": 0,
    }
    assert vpn["state"] == "Stopped"
    assert [claim.purpose for claim in ground.rows(PortClaim, PortClaim.port == 51820)] == ["WireGuard VPN"]
    found = facts(ground, network)
    private = X25519PrivateKey.from_private_bytes(base64.b64decode(found.private_key))
    assert base64.b64encode(private.public_key().public_bytes_raw()).decode() == vpn["publickey"]
    assert (found.address, found.port, found.gateway, found.mtu) == ("203.0.113.10", 51820, "10.250.0.1", 1420)
    for column in ("private_key",):
        with ground.cloud.database.read() as session:
            stored = session.execute(text(f"SELECT {column} FROM wireguard_vpns")).scalar_one()
        assert found.private_key not in stored
    listed = alice("listWireguardVpns", networkid=network, publicipid=ip, keyword="10.250")["wireguardvpn"]
    assert [row["id"] for row in listed] == [vpn["id"]]
    assert found.private_key not in str(listed)


def test_the_source_nat_address_is_the_default(ground, alice, network):
    with pytest.raises(BadParameter, match="has no source NAT address yet"):
        alice("createWireguardVpn", networkid=network)
    number = ground.address(alice, network)
    with ground.cloud.database.write() as session:
        session.scalars(select(PublicIp).where(PublicIp.uuid == number)).one().source_nat = True
    made = ground.done(alice("createWireguardVpn", networkid=network, port=443, cidr="10.99.0.0/28"))
    assert (made["publicipid"], made["port"], made["gateway"]) == (number, 443, "10.99.0.1")


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"port": 0}, BadParameter, "it must be 1 to 65535"),
        ({"cidr": "10.250.0.0"}, BadParameter, "IPv4 CIDR"),
        ({"cidr": "10.0.0.0/8"}, BadParameter, "/16 to /30"),
        ({"cidr": "10.250.0.0/31"}, BadParameter, "/16 to /30"),
        ({"cidr": "169.254.0.0/24"}, BadParameter, "reserved"),
        ({"cidr": "10.1.0.0/16"}, RuleConflict, "overlaps 10.1.1.0/24, network web"),
        ({"cidr": "203.0.113.128/25"}, RuleConflict, "overlaps 203.0.113.0/24, the zone's public range"),
    ],
)
def test_what_a_vpn_cannot_be(alice, network, ip, parameters, error, words):
    with pytest.raises(error, match=words):
        alice("createWireguardVpn", networkid=network, publicipid=ip, **parameters)


def test_a_network_has_one_vpn_and_a_port_one_use(ground, alice, network, ip, vpn):
    with pytest.raises(RuleConflict, match=f"has a WireGuard VPN already, {vpn['id']}"):
        alice("createWireguardVpn", networkid=network, publicipid=ip, port=51821)
    guest = ground.machine(network, "vm1", "10.1.1.10")
    forward = {"ipaddressid": ip, "virtualmachineid": guest, "privateport": 51820, "publicport": 51820}
    with pytest.raises(RuleConflict, match=f"WireGuard VPN {vpn['id']}"):
        alice("createPortForwardingRule", protocol="udp", **forward)
    alice("createPortForwardingRule", protocol="tcp", **forward)
    with pytest.raises(RuleConflict, match="is used by"):
        alice("enableStaticNat", ipaddressid=ip, virtualmachineid=guest)
    alice("deleteWireguardVpn", id=vpn["id"])
    assert alice("listWireguardVpns") == {}
    alice("createPortForwardingRule", protocol="udp", **forward)


def test_a_network_without_the_service_and_an_address_with_static_nat_are_refused(ground, alice):
    plain = ground.network("alice", "plain")
    with pytest.raises(Unsupported, match="does not have the service Vpn"):
        alice("createWireguardVpn", networkid=plain, publicipid=ground.address(alice, plain))
    net = ground.network("alice", "vpn", services=SERVICES | {"Vpn": ["VirtualRouter"]}, cidr="10.3.0.0/24")
    ip = ground.address(alice, net)
    alice("enableStaticNat", ipaddressid=ip, virtualmachineid=ground.machine(net, "vm2", "10.3.0.9"))
    with pytest.raises(RuleConflict, match="has static NAT"):
        alice("createWireguardVpn", networkid=net, publicipid=ip)
    with pytest.raises(BadParameter, match="associated with another network"):
        alice("createWireguardVpn", networkid=net, publicipid=ground.address(alice, plain))


def test_keys_made_here_are_handed_out_once(ground, alice, vpn, network, add):
    peer = add()
    assert (peer["type"], peer["ipaddress"], peer["keepalive"]) == ("RemoteAccess", "10.250.0.2", 25)
    assert peer["acl"] == [{"cidr": "10.1.1.0/24", "protocol": "all"}]
    assert peer["keywaiting"] is peer["haspresharedkey"] is True
    (row,) = ground.rows(WireguardPeer)
    for secret in (row.private_key, row.preshared_key):
        assert secret not in str(peer)
        with ground.cloud.database.read() as session:
            raw = session.execute(text("SELECT private_key, preshared_key FROM wireguard_peers")).one()
        assert secret not in str(raw)
    first = alice("getWireguardPeerConfiguration", id=peer["id"])
    assert first["configuration"] == (
        f"[Interface]\n# laptop\nPrivateKey = {row.private_key}\nAddress = 10.250.0.2/32\nMTU = 1420\n\n"
        f"[Peer]\nPublicKey = {vpn['publickey']}\nPresharedKey = {row.preshared_key}\n"
        "AllowedIPs = 10.1.1.0/24, 10.250.0.1/32\nEndpoint = 203.0.113.10:51820\nPersistentKeepalive = 25\n"
    )
    assert first["keyincluded"] is True
    assert base64.b64decode(first["qrcode"]).startswith(b"<?xml")
    again = alice("getWireguardPeerConfiguration", id=peer["id"], qrformat="PNG")
    assert base64.b64decode(again["qrcode"]).startswith(b"\x89PNG")
    assert (again["qrcodetype"], again["keyincluded"]) == ("image/png", False)
    assert row.private_key not in again["configuration"]
    assert row.preshared_key not in again["configuration"]
    assert ground.rows(WireguardPeer)[0].private_key is None
    assert facts(ground, network).peers[0].preshared_key == row.preshared_key
    fresh = ground.done(alice("updateWireguardPeer", id=peer["id"], regeneratekeys=True))
    assert fresh["publickey"] != peer["publickey"]
    assert fresh["publickey"] in str(facts(ground, network))
    assert fresh["keywaiting"] is True


def test_a_key_of_ones_own_is_never_known_here(ground, alice, network, add):
    private, public = keys()
    shared = keys()[0]
    peer = add(publickey=public, presharedkey=shared, ipaddress="10.250.0.77")
    assert (peer["publickey"], peer["ipaddress"], peer["keywaiting"]) == (public, "10.250.0.77", False)
    told = alice("getWireguardPeerConfiguration", id=peer["id"])["configuration"]
    assert "# PrivateKey = (yours" in told
    assert "# PresharedKey = (" in told
    assert shared not in told
    assert private not in told
    assert facts(ground, network).peers[0].preshared_key == shared
    other = keys()[1]
    assert ground.done(alice("updateWireguardPeer", id=peer["id"], publickey=other))["publickey"] == other


def test_another_site_has_networks_behind_it_and_is_called(ground, alice, network, add):
    site = add(
        "site b", remotecidrlist="10.9.0.0/16,10.8.1.7/24", endpoint="198.51.100.7:51821", cidrlist="10.1.1.5/32"
    )
    assert (site["type"], site["remotecidrlist"], site["endpoint"]) == (
        "SiteToSite", "10.9.0.0/16,10.8.1.0/24", "198.51.100.7:51821")  # fmt: skip
    told = alice("getWireguardPeerConfiguration", id=site["id"])["configuration"]
    assert "ListenPort = 51821\n" in told
    assert "AllowedIPs = 10.1.1.0/24, 10.250.0.1/32\n" in told
    (peer,) = facts(ground, network).peers
    assert (peer.remotes, peer.endpoint) == (("10.9.0.0/16", "10.8.1.0/24"), "198.51.100.7:51821")
    assert peer.passages == (wireguard.Passage("10.1.1.5/32"),)
    device = add("phone", cidrlist="10.9.3.0/24")
    assert device["acl"] == [{"cidr": "10.9.3.0/24", "protocol": "all"}]
    changed = ground.done(alice("updateWireguardPeer", id=site["id"], endpoint="198.51.100.9:1", keepalive=5))
    assert (changed["endpoint"], changed["keepalive"], changed["remotecidrlist"]) == (
        "198.51.100.9:1", 5, "10.9.0.0/16,10.8.1.0/24")  # fmt: skip


def test_a_list_has_protocols_and_ports(ground, network, add):
    acl = {
        "acl[0].cidr": "10.1.1.5/32",
        "acl[0].protocol": "TCP",
        "acl[0].startport": "80",
        "acl[0].endport": "90",
        "acl[1].protocol": "icmp",
        "acl[1].icmptype": "8",
        "acl[1].icmpcode": "0",
        "acl[2].cidr": "10.1.1.6/32",
        "acl[2].protocol": "17",
        "acl[2].startport": "53",
        "acl[3].protocol": "udp",
    }
    peer = add(cidrlist="10.1.1.128/25", **acl)
    assert peer["acl"] == [
        {"cidr": "10.1.1.128/25", "protocol": "all"},
        {"cidr": "10.1.1.5/32", "protocol": "tcp", "startport": 80, "endport": 90},
        {"cidr": "10.1.1.0/24", "protocol": "icmp", "icmptype": 8, "icmpcode": 0},
        {"cidr": "10.1.1.6/32", "protocol": "udp", "startport": 53, "endport": 53},
        {"cidr": "10.1.1.0/24", "protocol": "udp"},
    ]
    assert facts(ground, network).peers[0].passages[1] == wireguard.Passage("10.1.1.5/32", "tcp", 80, 90)


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"name": "a\nb"}, BadParameter, "letters, digits"),
        ({"name": "first"}, RuleConflict, "another peer of the VPN has this name"),
        ({"publickey": "short"}, BadParameter, "32 bytes in base64"),
        ({"presharedkey": "A" * 44}, BadParameter, "32 bytes in base64"),
        ({"ipaddress": "10.250.1.2"}, BadParameter, "an address within 10.250.0.0/24"),
        ({"ipaddress": "10.250.0.0"}, BadParameter, "an address within"),
        ({"ipaddress": "x"}, BadParameter, "an address within"),
        ({"ipaddress": "10.250.0.1"}, RuleConflict, "or the router's"),
        ({"ipaddress": "10.250.0.2"}, RuleConflict, "another peer's"),
        ({"endpoint": "vpn.example:51820"}, BadParameter, "an IPv4 address and a port"),
        ({"endpoint": "198.51.100.7:0"}, BadParameter, "an IPv4 address and a port"),
        ({"endpoint": "198.51.100.700:1"}, BadParameter, "an IPv4 address and a port"),
        ({"keepalive": "65536"}, BadParameter, "0 to 65535"),
        ({"remotecidrlist": "10.1.1.64/26"}, RuleConflict, "overlaps 10.1.1.0/24, network web"),
        ({"remotecidrlist": "10.250.0.64/26"}, RuleConflict, "the addresses of WireGuard VPN"),
        ({"remotecidrlist": "10.9.1.0/24"}, RuleConflict, "overlaps 10.9.0.0/16, behind peer first"),
        ({"remotecidrlist": "10.7.0.0/24,10.7.0.0/16"}, RuleConflict, "in the list as well"),
        ({"remotecidrlist": "203.0.113.0/24"}, RuleConflict, "public range"),
        ({"remotecidrlist": "0.0.0.0/0"}, BadParameter, "reserved"),
        ({"cidrlist": "192.168.0.0/24"}, BadParameter, "it must lie in what the VPN reaches"),
        ({"acl[0].protocol": "gre"}, BadParameter, "one of tcp, udp, icmp, all"),
        ({"acl[0].port": "80"}, BadParameter, r"acl\[0\].port: a line of a peer's list has"),
        ({"acl[0].protocol": "tcp", "acl[0].startport": "eighty"}, BadParameter, "a whole number"),
        ({"acl[0].protocol": "tcp", "acl[0].startport": "90", "acl[0].endport": "80"}, BadParameter, "end before"),
        ({"acl[0].protocol": "tcp", "acl[0].icmptype": "8"}, BadParameter, "protocol tcp has none"),
        ({"acl[0].protocol": "icmp", "acl[0].startport": "8"}, BadParameter, "protocol icmp has none"),
        ({"acl[0].startport": "8"}, BadParameter, "protocol all has none"),
        ({"acl[0].protocol": "udp", "acl[0].endport": "8"}, BadParameter, "it needs a startport"),
    ],
)
def test_what_a_peer_cannot_be(ground, add, parameters, error, words):
    add("first", remotecidrlist="10.9.0.0/16")
    with pytest.raises(error, match=words):
        add(**({"name": "second"} | parameters))
    assert len(ground.rows(WireguardPeer)) == 1


def test_a_key_is_one_peers_and_not_the_vpns(alice, vpn, add):
    _, public = keys()
    add("first", publickey=public)
    with pytest.raises(RuleConflict, match="peer first has this key"):
        add("second", publickey=public)
    with pytest.raises(RuleConflict, match="the VPN itself has this key"):
        add("second", publickey=vpn["publickey"])
    second = add("second")
    with pytest.raises(RuleConflict, match="peer first has this key"):
        alice("updateWireguardPeer", id=second["id"], publickey=public)
    with pytest.raises(RuleConflict, match="has this name"):
        alice("updateWireguardPeer", id=second["id"], name="first")
    with pytest.raises(BadParameter, match="choose"):
        alice("updateWireguardPeer", id=second["id"], publickey=keys()[1], regeneratekeys=True)


def test_addresses_and_limits_run_out(ground, alice, network, ip, cloud):
    small = ground.done(alice("createWireguardVpn", networkid=network, publicipid=ip, cidr="10.250.0.0/30"))
    alice("addWireguardPeer", wireguardvpnid=small["id"], name="one")
    with pytest.raises(LimitReached, match="all taken"):
        alice("addWireguardPeer", wireguardvpnid=small["id"], name="two")
    cloud("updateConfiguration", name="wireguard.vpn.peers", value="1")
    with pytest.raises(LimitReached, match=r"as many as wireguard\.vpn\.peers allows"):
        alice("addWireguardPeer", wireguardvpnid=small["id"], name="two")


def test_a_peer_can_be_shut_out_and_let_in_again(ground, alice, network, add):
    peer = add()
    shut = ground.done(alice("updateWireguardPeer", id=peer["id"], enabled=False))
    assert shut["state"] == "Disabled"
    assert facts(ground, network).peers == ()
    ground.done(alice("updateWireguardPeer", id=peer["id"], enabled=True, name="Anna's".replace("'", " ")))
    assert [one.id for one in facts(ground, network).peers] == [peer["id"]]
    alice("removeWireguardPeer", id=peer["id"])
    assert alice("listWireguardPeers", listall=True) == {}


def test_a_second_account_sees_and_touches_nothing(ground, alice, vpn, network, add):
    peer, bob = add(), ground.account("bob")
    assert bob("listWireguardVpns", listall=True) == bob("listWireguardPeers", listall=True) == {}
    for command, parameters in (
        ("createWireguardVpn", {"networkid": network}),
        ("deleteWireguardVpn", {"id": vpn["id"]}),
        ("addWireguardPeer", {"wireguardvpnid": vpn["id"], "name": "x"}),
        ("updateWireguardPeer", {"id": peer["id"]}),
        ("removeWireguardPeer", {"id": peer["id"]}),
        ("getWireguardPeerConfiguration", {"id": peer["id"]}),
    ):
        with pytest.raises(ApiError, match=r"no .* with this id exists"):
            bob(command, **parameters)
    assert ground.rows(WireguardPeer)[0].private_key is not None


def test_what_the_router_says_is_what_the_api_shows(ground, alice, network, vpn, add):
    peer, target = add(), ground.router(network)
    name = peer["id"].replace("-", "")
    with ground.cloud.database.write() as session:
        row = session.get_one(Target, target)
        seen = Observation(row.uuid, ((f"wireguard/wg{vpn['id'][:8]}", ""),), ((f"in_{name}", 0, 700), (f"out_{name}", 0, 900)),
                           ((f"{peer['id']}/handshake", "1000"), (f"{peer['id']}/endpoint", "198.51.100.7:4242")))  # fmt: skip
        observations.store(session, row, seen)
    (shown,) = alice("listWireguardPeers", wireguardvpnid=vpn["id"], keyword="lap")["wireguardpeer"]
    assert (shown["state"], shown["lasthandshake"], shown["lastendpoint"]) == (
        "Disconnected", "1970-01-01T00:16:40+0000", "198.51.100.7:4242")  # fmt: skip
    assert (shown["receivedbytes"], shown["sentbytes"]) == (700, 900)
    (seen,) = alice("listWireguardVpns")["wireguardvpn"]
    assert (seen["state"], seen["peercount"]) == ("Running", 1)
    with ground.cloud.database.write() as session:
        row = session.get_one(Target, target)
        observations.store(session, row, Observation(row.uuid, ((f"wireguard/wg{vpn['id'][:8]}", "gone"),)))
    (seen,) = alice("listWireguardVpns")["wireguardvpn"]
    assert (seen["state"], seen["reason"]) == ("Alert", "gone")


def test_a_change_is_done_when_the_router_has_it(ground, alice, network, vpn):
    target = ground.router(network)
    answer = alice("addWireguardPeer", wireguardvpnid=vpn["id"], name="x")
    assert ground.job(answer)[0] == 0
    ground.settle(target)
    assert ground.job(answer)[0] == 1


def test_lists_do_not_ask_more_for_more_rows(ground, alice, vpn, add):
    add("first")
    few = ground.queries(lambda: alice("listWireguardPeers", listall=True))
    for number in range(6):
        add(f"p{number}")
    assert ground.queries(lambda: alice("listWireguardPeers", listall=True)) == few


def test_a_vpn_goes_with_its_address(ground, ip, vpn, add):
    add()
    with ground.cloud.database.write() as session:
        release(session, session.scalars(select(PublicIp).where(PublicIp.uuid == ip)).one())
    assert ground.rows(WireguardVpn) == ground.rows(WireguardPeer) == []


def test_events_tell_of_it_without_a_secret(ground, alice, add):
    peer = add()
    (row,) = ground.rows(WireguardPeer)
    alice("getWireguardPeerConfiguration", id=peer["id"])
    alice("removeWireguardPeer", id=peer["id"])
    events = alice("listEvents")["event"]
    assert {"VPN.WIREGUARD.CREATE", "VPN.WIREGUARD.PEER.ADD", "VPN.WIREGUARD.PEER.CONFIGURATION",
            "VPN.WIREGUARD.PEER.REMOVE"} <= {event["type"] for event in events}  # fmt: skip
    assert row.private_key not in str(events)


def test_a_vpc_has_a_vpn_for_all_its_tiers(cloud):
    with vpc_world(cloud) as here:
        vpc = here.vpc()
        tier = here.tier(vpc["id"])
        made = here.done(here.cloud("createWireguardVpn", vpcid=vpc["id"]))
        assert (made["vpcid"], made["vpcname"], made.get("networkid")) == (vpc["id"], "shop", None)
        peer = here.done(here.cloud("addWireguardPeer", wireguardvpnid=made["id"], name="laptop"))
        assert peer["acl"] == [{"cidr": "10.1.0.0/16", "protocol": "all"}]
        told = here.cloud("getWireguardPeerConfiguration", id=peer["id"])["configuration"]
        assert "AllowedIPs = 10.1.0.0/16, 10.250.0.1/32" in told
        with cloud.database.read() as session:
            target = session.scalars(select(Target).join(Router).where(Router.vpc_id.is_not(None))).one()
            (known,) = load_facts(session, target).wireguards
        assert [one.id for one in known.peers] == [peer["id"]]
        assert here.cloud("listWireguardVpns", vpcid=vpc["id"])["count"] == 1
        for parameters, words in (
            ({}, "exactly one of networkid and vpcid"),
            ({"networkid": tier["id"], "vpcid": vpc["id"]}, "exactly one of networkid and vpcid"),
            ({"networkid": tier["id"]}, "web is a tier; give its VPC's vpcid"),
        ):
            with pytest.raises(BadParameter, match=words):
                here.cloud("createWireguardVpn", **parameters)
        with pytest.raises(RuleConflict, match="VPC shop has a WireGuard VPN already"):
            here.cloud("createWireguardVpn", vpcid=vpc["id"], port=4000)
        other = here.vpc("other", cidr="10.2.0.0/16")
        with pytest.raises(RuleConflict, match="is no address of VPC other"):
            here.cloud("createWireguardVpn", vpcid=other["id"], publicipid=made["publicipid"])
        with pytest.raises(RuleConflict, match=r"overlaps 10\.2\.0\.0/16, VPC other"):
            here.cloud("createWireguardVpn", vpcid=other["id"], cidr="10.2.9.0/24")
        here.cloud("deleteNetwork", id=tier["id"])
        here.cloud("deleteVPC", id=vpc["id"])
        with cloud.database.read() as session:
            assert session.scalars(select(WireguardVpn)).all() == []
