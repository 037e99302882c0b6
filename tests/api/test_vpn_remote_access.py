"""Remote access VPNs and their users: what is made, refused and shown, and what the router is told."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from sqlalchemy import text, update

from controlplane.db.base import now
from controlplane.errors import BadParameter, LimitReached, RuleConflict, Unsupported
from controlplane.network import remote_access
from controlplane.network.claims import PortClaim
from controlplane.network.firewall import FirewallRule
from controlplane.network.networks import Network
from controlplane.network.remote_access import RemoteAccessVpn, remote_access_facts, renew_certificates
from controlplane.network.vpn_users import VpnUser
from controlplane.reconcile.observations import store
from controlplane.reconcile.targets import Target
from systemvm.bundle import Observation
from tests.api.ground import SERVICES

WITH_VPN = SERVICES | {"Vpn": ["VirtualRouter"]}


@pytest.fixture
def network(ground):
    return ground.network("alice", services=WITH_VPN)


@pytest.fixture
def address(ground, alice, network):
    return ground.address(alice, network)


@pytest.fixture
def vpn(ground, alice, address):
    return ground.done(alice("createRemoteAccessVpn", publicipid=address))


def facts(ground, network):
    with ground.cloud.database.read() as session:
        return remote_access_facts(session, session.get_one(Network, ground.numbers[network]))


def test_a_vpn_is_made_and_shown(ground, alice, address, vpn):
    assert vpn["publicipid"] == address
    assert (vpn["iprange"], vpn["state"], len(vpn["presharedkey"])) == ("10.1.2.2-10.1.2.8", "Running", 24)
    assert alice("listRemoteAccessVpns")["remoteaccessvpn"] == [vpn]
    for more in ({"publicipid": address}, {"id": vpn["id"]}, {"keyword": vpn["publicip"]}):
        assert [one["id"] for one in alice("listRemoteAccessVpns", **more)["remoteaccessvpn"]] == [vpn["id"]]
    assert alice("listRemoteAccessVpns", keyword="192.0.2") == {}


def test_the_server_has_a_certificate_of_the_clouds_authority(ground, alice, network, vpn):
    shown = alice("listCaCertificate")["cacertificates"]
    assert shown.keys() == {"cacertificates"}
    authority = x509.load_pem_x509_certificate(shown["cacertificates"].encode())
    found = facts(ground, network)
    server = x509.load_pem_x509_certificate(found.certificate.encode())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [IPv4Address(vpn["publicip"])]
    assert load_pem_private_key(found.key.encode(), None).public_key() == server.public_key()


def test_the_firewall_is_opened_and_the_ports_are_taken(ground, alice, network, address, vpn):
    opened = ground.rows(FirewallRule, FirewallRule.related_uuid == vpn["id"])
    assert sorted((rule.protocol, rule.start, rule.end, tuple(rule.sources)) for rule in opened) == [
        ("udp", 500, 500, ("0.0.0.0/0",)),
        ("udp", 4500, 4500, ("0.0.0.0/0",)),
    ]
    machine = ground.machine(network, "vm", "10.1.1.5")
    with pytest.raises(RuleConflict, match="VPN"):
        alice("createPortForwardingRule", ipaddressid=address, protocol="udp", publicport=500, privateport=500,
              virtualmachineid=machine)  # fmt: skip
    ground.done(alice("deleteRemoteAccessVpn", publicipid=address))
    assert not ground.rows(FirewallRule)
    assert not ground.rows(PortClaim)
    assert not ground.rows(RemoteAccessVpn)
    ground.done(alice("createPortForwardingRule", ipaddressid=address, protocol="udp", publicport=500, privateport=500,
                      virtualmachineid=machine))  # fmt: skip
    with pytest.raises(RuleConflict, match="port forwarding rule"):
        alice("createRemoteAccessVpn", publicipid=address)


def test_the_port_of_l2tp_is_taken_and_not_opened(ground, alice, network, address, vpn):
    machine = ground.machine(network, "vm", "10.1.1.5")
    more = {"protocol": "udp", "privateport": 1701, "publicport": 1701, "virtualmachineid": machine}
    with pytest.raises(RuleConflict, match="VPN"):
        alice("createPortForwardingRule", ipaddressid=address, **more)
    assert not [rule for rule in ground.rows(FirewallRule) if rule.start == 1701]
    ground.done(alice("deleteRemoteAccessVpn", publicipid=address))
    ground.done(alice("createPortForwardingRule", ipaddressid=address, **more))
    with pytest.raises(RuleConflict, match="UDP port 1701"):
        alice("createRemoteAccessVpn", publicipid=address)


def test_the_router_is_told_the_key_that_is_shown_and_says_whether_it_can_do_l2tp(ground, alice, network, vpn):
    found = facts(ground, network)
    assert (found.psk, found.server, found.first) == (vpn["presharedkey"], "10.1.2.1", "10.1.2.2")
    assert vpn["l2tp"] == remote_access.UNKNOWN
    targets = [ground.router(network), ground.router(network)]
    lacking = "this host's kernel has no PPP: L2TP is off, IKEv2 works"
    for target, said in zip(targets, ("L2TP is on", lacking), strict=True):
        with ground.cloud.database.write() as session:
            row = session.get_one(Target, target)
            store(session, row, Observation(row.uuid, states=((vpn["id"], said), (f"{vpn['id']}/anna", "Connected"))))
        assert alice("listRemoteAccessVpns")["remoteaccessvpn"][0]["l2tp"] == said


def test_a_range_for_one_client_is_ikev2s(ground, alice, address):
    made = ground.done(alice("createRemoteAccessVpn", publicipid=address, iprange="10.9.0.1-10.9.0.2"))
    assert made["l2tp"] == remote_access.ONE_ADDRESS


def test_the_firewall_stays_closed_where_it_is_asked_to(ground, alice, address):
    ground.done(alice("createRemoteAccessVpn", publicipid=address, openfirewall="false"))
    assert not ground.rows(FirewallRule)


def test_users_are_told_to_the_router_and_never_shown_with_their_password(ground, alice, network, vpn):
    target = ground.router(network)
    made = alice("addVpnUser", username="anna", password="Passw0rd@1")
    assert ground.job(made)[0] == 0  # until the router has it
    ground.settle(target)
    user = ground.done(made)
    assert user["username"] == "anna"
    assert "password" not in user
    assert [(one.name, one.password) for one in facts(ground, network).users] == [("anna", "Passw0rd@1")]
    assert alice("listVpnUsers", username="anna")["vpnuser"] == [user]
    removed = alice("removeVpnUser", username="anna")
    assert ground.job(removed)[0] == 0
    ground.settle(target)
    ground.done(removed)
    assert facts(ground, network).users == ()
    assert not ground.rows(VpnUser)


def test_secrets_are_encrypted_at_rest(ground, alice, network, vpn):
    ground.done(alice("addVpnUser", username="anna", password="Passw0rd@1"))
    key = facts(ground, network).key
    with ground.cloud.database.read() as session:
        stored = [str(row) for table in ("vpn_users", "remote_access_vpns", "certificate_authorities")
                  for row in session.execute(text(f"SELECT * FROM {table}"))]  # fmt: skip
    everything = " ".join(stored)
    assert "Passw0rd@1" not in everything
    assert vpn["presharedkey"] not in everything
    assert key[40:80] not in everything
    assert "PRIVATE KEY" not in everything


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"iprange": "10.1.1.200-10.1.1.210"}, "outside of the network's CIDR"),
        ({"iprange": "10.1.2.9-10.1.2.9"}, "first address is the server's"),
        ({"iprange": "10.1.2.9"}, "first-last|two IPv4"),
        ({"iprange": "10.1.2.1-10.9.2.1"}, "at most"),
        ({"iprange": "10.1.2.1-10.1.2.x\n"}, "iprange"),
    ],
)
def test_a_range_that_cannot_be_is_refused(alice, address, more, words):
    with pytest.raises(BadParameter, match=words):
        alice("createRemoteAccessVpn", publicipid=address, **more)


def test_what_else_is_refused(ground, alice, network, address, vpn):
    other = ground.address(alice, network)
    with pytest.raises(BadParameter, match="already"):
        alice("createRemoteAccessVpn", publicipid=other)
    with pytest.raises(BadParameter, match="no remote access VPN"):
        alice("deleteRemoteAccessVpn", publicipid=other)
    plain = ground.network("alice", "plain", cidr="10.7.0.0/24", gateway="10.7.0.1")
    with pytest.raises(Unsupported, match="Vpn"):
        alice("createRemoteAccessVpn", publicipid=ground.address(alice, plain))
    third = ground.network("alice", "third", cidr="10.8.0.0/24", gateway="10.8.0.1", services=WITH_VPN)
    machine, natted = ground.machine(third, "vm", "10.8.0.5"), ground.address(alice, third)
    alice("enableStaticNat", ipaddressid=natted, virtualmachineid=machine)
    with pytest.raises(RuleConflict, match="static NAT"):
        alice("createRemoteAccessVpn", publicipid=natted)


@pytest.mark.parametrize("name", ["ab", ".anna", "anna smith", 'an"na', "anna\n", "x" * 65])
def test_user_names_that_no_daemon_may_read_are_refused(alice, name):
    with pytest.raises(BadParameter, match="username"):
        alice("addVpnUser", username=name, password="Passw0rd@1")


@pytest.mark.parametrize("password", ["ab", "with blank", 'quo"te', "new\nline", "x" * 33])
def test_passwords_that_will_not_do_are_refused_without_being_shown(alice, password):
    with pytest.raises(BadParameter, match="password") as refused:
        alice("addVpnUser", username="anna", password=password)
    assert password not in str(refused.value).removeprefix("Invalid parameter password")


def test_users_are_the_accounts_own(ground, alice):
    bob = ground.account("bob")
    ground.done(alice("addVpnUser", username="anna", password="Passw0rd@1"))
    with pytest.raises(BadParameter, match="already"):
        alice("addVpnUser", username="anna", password="Passw0rd@2")
    ground.done(bob("addVpnUser", username="anna", password="Passw0rd@3"))
    assert len(bob("listVpnUsers", listall="true")["vpnuser"]) == 1
    ground.done(bob("removeVpnUser", username="anna"))
    with pytest.raises(BadParameter, match="no such VPN user"):
        bob("removeVpnUser", username="anna")
    assert len(alice("listVpnUsers")["vpnuser"]) == 1
    ground.cloud("updateConfiguration", name="remote.access.vpn.user.limit", value="2")
    ground.done(alice("addVpnUser", username="berta", password="Passw0rd@1"))
    with pytest.raises(LimitReached, match=r"remote\.access\.vpn\.user\.limit"):
        alice("addVpnUser", username="carla", password="Passw0rd@1")


def test_a_vpn_is_its_owners(ground, alice, address, vpn):
    bob = ground.account("bob")
    assert "remoteaccessvpn" not in bob("listRemoteAccessVpns", listall="true")
    for command, more in (
        ("createRemoteAccessVpn", {"publicipid": address}),
        ("deleteRemoteAccessVpn", {"publicipid": address}),
        ("updateRemoteAccessVpn", {"id": vpn["id"]}),
    ):
        with pytest.raises(BadParameter, match="not yours"):
            bob(command, **more)
    admin = ground.cloud
    wanted = "aaaaaaaa-0000-4000-8000-000000000001"
    shown = ground.done(admin("updateRemoteAccessVpn", id=vpn["id"], fordisplay="false", customid=wanted))
    assert (shown["fordisplay"], shown["id"]) == (False, wanted)
    ground.done(alice("deleteRemoteAccessVpn", publicipid=address))
    assert not ground.rows(FirewallRule)


def test_an_address_that_is_given_back_takes_its_vpn_along(ground, alice, address, vpn):
    ground.done(alice("disassociateIpAddress", id=address))
    assert not ground.rows(RemoteAccessVpn)
    assert not ground.rows(PortClaim)


def test_a_certificate_is_renewed_before_it_ends(ground, network, vpn):
    target = ground.router(network)
    before = facts(ground, network).certificate
    with ground.cloud.database.write() as session:
        renew_certificates(session)
    assert facts(ground, network).certificate == before
    with ground.cloud.database.write() as session:
        session.execute(update(RemoteAccessVpn).values(expires=now() + timedelta(days=10)))
    generation = ground.rows(Target, Target.id == target)[0].desired_generation
    with ground.cloud.database.write() as session:
        renew_certificates(session)
    assert facts(ground, network).certificate != before
    assert ground.rows(Target, Target.id == target)[0].desired_generation == generation + 1


def test_lists_cost_the_same_for_any_number_of_rows(ground, alice, vpn):
    ground.done(alice("addVpnUser", username="anna", password="Passw0rd@1"))
    few = [ground.queries(lambda name=name: alice(name)) for name in ("listVpnUsers", "listRemoteAccessVpns")]
    for number in range(5):
        ground.done(alice("addVpnUser", username=f"user{number}", password="Passw0rd@1"))
    for number in range(3):
        net = ground.network("alice", f"n{number}", cidr=f"10.2{number}.0.0/24", gateway=f"10.2{number}.0.1",
                             services=WITH_VPN)  # fmt: skip
        ground.done(alice("createRemoteAccessVpn", publicipid=ground.address(alice, net)))
    many = [ground.queries(lambda name=name: alice(name)) for name in ("listVpnUsers", "listRemoteAccessVpns")]
    assert many == few
