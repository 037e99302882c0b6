"""Remote access: a client with a real IKE daemon dials in, reaches a guest, and is cut off when its user is removed."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from vici.exception import CommandException

from drivers.ipsec import RemoteAccess, VpnUser
from drivers.vocabulary import IngressRule
from systemvm import netns
from systemvm.services.kinds import KINDS
from tests.golden.router.cases import ANY, uid
from tests.netns.router_lab import ping
from tests.netns.vpn_lab import ADDRESS, Dialler, VpnLab, Wire, facts, ports, tunnel, until

pytestmark = pytest.mark.netns
GUEST = "10.1.1.5"
ANNA, BOB = VpnUser("anna", "Passw0rd@1"), VpnUser("bob", "Passw0rd@2")
ACCESS = uid(21, 1)


class Authority:
    """A CA of the test's own."""

    def __init__(self):
        self.key = rsa.generate_private_key(65537, 2048)
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the test's CA")])
        self.pem, _ = self._sign(self.name, self.key, x509.BasicConstraints(ca=True, path_length=0))

    def _sign(self, subject, key, constraints, names=()):
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1)).add_extension(constraints, critical=True)
        )  # fmt: skip
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = builder.sign(self.key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return signed.public_bytes(serialization.Encoding.PEM).decode(), private.decode()

    def server(self, address):
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
        constraints = x509.BasicConstraints(ca=False, path_length=None)
        return self._sign(name, key, constraints, [x509.IPAddress(IPv4Address(address))])


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def server(authority):
    return authority.server(ADDRESS["a"])


@pytest.fixture
def kinds():
    return KINDS


@pytest.fixture
def lab(tmp_path, kinds):
    lab = VpnLab(tmp_path, kinds)
    lab.client = f"{lab.prefix}client"
    netns.ensure(lab.client)
    lab.wire(lab.outside, "wc", lab.client, "02:00:00:00:09:01", "eth0")
    lab.ip(lab.outside, "link set wc master br0")
    lab.ip(lab.client, "link set eth0 up", "addr add 203.0.113.9/24 dev eth0", "route add default via 203.0.113.1")
    try:
        yield lab
    finally:
        for bundle in lab.bundles.values():
            log = lab.applier.place(bundle).folder / "run/charon.log"
            print(bundle.name, log.read_text()[-3000:] if log.exists() else "-")
        lab.remove()


@pytest.fixture
def dial(lab, tmp_path, authority, monkeypatch):
    """Dial router ``a`` from the client's namespace as a user."""
    where = Dialler(lab.client, tmp_path / "client", authority.pem, monkeypatch)
    yield lambda user, password: where.dialled(ADDRESS["a"], user, password)
    where.stop()


@pytest.fixture
def wanted(server):
    certificate, key = server

    def make(*users, opened=True, **more):
        access = RemoteAccess(
            ACCESS, ADDRESS["a"], ("10.1.1.0/24",), "10.1.2.2", "10.1.2.8", certificate, key, ("10.1.1.1",), users
        )
        found = facts("a", *more.pop("tunnels", ()), remote_access=access)
        rules = tuple(IngressRule(uid(6, port), ADDRESS["a"], "udp", port, port, ANY) for port in (500, 4500))
        (net,) = found.networks
        return replace(found, networks=(replace(net, ingress=rules if opened else ()),))

    return make


def reaches(lab, address, timeout=2):
    """Tell whether the client reaches the guest with the address that it was given; it loses it with the VPN."""
    try:
        return ping(lab.client, GUEST, source=address, timeout=timeout)
    except OSError:
        return False


def test_a_client_reaches_a_guest_and_is_cut_off_with_its_user(lab, dial, wanted):
    assert lab.apply(wanted(ANNA, BOB)).status == "applied"
    with dial("anna", ANNA.password) as (address, reached):
        assert address == "10.1.2.2"
        assert reached == "10.1.1.0/24"  # it asked for everything
        wire = Wire(lab)
        assert reaches(lab, address)
        assert ping(lab.client, "10.1.1.1", source=address, timeout=2)
        assert ping(lab.guest("a"), address, timeout=2)
        for _, _, protocol, payload in wire.packets():
            assert protocol == 17
            assert 4500 in ports(payload)
        wire.close()
        states = dict(lab.applier.observe(lab.bundles["a"]).states)
        assert states == {f"{ACCESS}/anna": "Connected"}
        began = time.monotonic()
        assert lab.apply(wanted(BOB)).status == "applied"
        until(lambda: not reaches(lab, address, 0.2), 5)
        assert time.monotonic() - began < 5
        assert dict(lab.applier.observe(lab.bundles["a"]).states) == {}
    with pytest.raises(CommandException), dial("anna", ANNA.password):
        pass


def test_a_wrong_password_and_an_unknown_user_are_refused(lab, dial, wanted):
    lab.apply(wanted(ANNA))
    for user, password in (("anna", "wrong"), ("eve", ANNA.password)):
        with pytest.raises(CommandException), dial(user, password):
            pass
    assert dict(lab.applier.observe(lab.bundles["a"]).states) == {}


def test_another_users_removal_and_a_tunnels_change_cut_nobody_off(lab, dial, wanted):
    lab.apply(wanted(ANNA, BOB))
    with dial("anna", ANNA.password) as (address, _):
        lab.apply(wanted(ANNA, tunnels=(tunnel("a", passive=True),)))
        lab.applier.ensure(lab.bundles["a"])
        assert reaches(lab, address)
        lab.apply(wanted(VpnUser("anna", "An0ther@pw")))
        until(lambda: not reaches(lab, address, 0.2), 5)


def test_a_closed_firewall_lets_nobody_dial(lab, dial, wanted):
    lab.apply(wanted(ANNA, opened=False))
    with pytest.raises(CommandException), dial("anna", ANNA.password):
        pass


def test_a_vpn_that_is_deleted_cuts_everybody_off(lab, dial, wanted):
    lab.apply(wanted(ANNA))
    with dial("anna", ANNA.password) as (address, _):
        assert reaches(lab, address)
        assert lab.apply(facts("a")).status == "applied"
        assert not reaches(lab, address, 0.3)
        assert lab.pid("a") is None
