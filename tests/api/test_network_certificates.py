"""Certificates: what belongs together is kept, a key never comes out again, and a rule speaks TLS with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from sqlalchemy import text

from controlplane.errors import BadParameter, Forbidden, InUse, RuleConflict
from controlplane.network.load_balancers import Certificate, balancer_facts

NOW = datetime.now(UTC)


class Issued:
    """A certificate with its key, made for a test."""

    def __init__(self, name, issuer=None, *, first=-1, last=30, ca=False):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(signer.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + timedelta(days=first))
            .not_valid_after(NOW + timedelta(days=last))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        self.certificate = builder.sign(signer.key, hashes.SHA256())

    @property
    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def key_pem(self, password=None):
        return pem_of(self.key, password)


def pem_of(key, password=None):
    lock = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock).decode()


@pytest.fixture(scope="module")
def chain():
    root = Issued("root", ca=True)
    middle = Issued("middle", root, ca=True)
    return Issued("shop.example.org", middle), middle, root


@pytest.fixture
def upload(alice, chain):
    def call(cloud=alice, **parameters):
        leaf, middle, root = chain
        given = {
            "name": "shop",
            "certificate": leaf.pem,
            "privatekey": leaf.key_pem(),
            "certchain": middle.pem + root.pem,
        }
        return cloud("uploadSslCert", **(given | parameters))["sslcert"]

    return call


def test_a_chain_is_kept_and_the_key_never_comes_out(ground, alice, chain, upload):
    leaf, middle, root = chain
    shown = upload(privatekey=leaf.key_pem("secret"), password="secret")
    assert shown["certificate"] == leaf.pem
    assert shown["certchain"] == middle.pem + root.pem
    assert shown["fingerprint"] == leaf.certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    assert (shown["name"], shown["account"], shown["loadbalancerrulelist"]) == ("shop", "alice", [])
    assert "PRIVATE" not in str(shown)
    (row,) = ground.rows(Certificate)
    assert serialization.load_pem_private_key(row.key.encode(), None).private_numbers() == leaf.key.private_numbers()
    with ground.cloud.database.read() as session:
        raw = session.execute(text("select key from ssl_certs")).scalar_one()
    assert "PRIVATE" not in raw
    assert alice("listSslCerts", certid=shown["id"]) == {"count": 1, "sslcert": [shown]}
    assert alice("listSslCerts")["count"] == 1


def test_what_does_not_belong_together_is_refused(ground, chain, upload):
    leaf, middle, root = chain
    stranger = Issued("stranger")
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    late, early = Issued("late", first=-9, last=-1), Issued("early", first=1)
    for parameters, words in (
        ({"certificate": "x"}, "certificate: it must be PEM"),
        ({"certificate": leaf.pem + middle.pem}, "certificate: it holds 2 certificates; issuers go to certchain"),
        ({"privatekey": "x"}, "privatekey: it must be a PEM private key"),
        ({"privatekey": stranger.key_pem()}, "privatekey: it is not the key of the certificate"),
        ({"privatekey": leaf.key_pem("secret")}, "it is encrypted, so password is needed"),
        ({"privatekey": leaf.key_pem("secret"), "password": "wrong"}, "and password the one that opens it"),
        ({"password": "secret"}, "it has no password, so leave password out"),
        ({"privatekey": pem_of(weak)}, "it has 1024 bits, and an RSA key needs 2048"),
        ({"certchain": root.pem + middle.pem}, "CN=root did not issue CN=shop.example.org"),
        ({"certchain": middle.pem + stranger.pem}, "CN=stranger did not issue CN=middle"),
        ({"certificate": late.pem, "privatekey": late.key_pem(), "certchain": ""}, "CN=late expired on"),
        ({"certificate": early.pem, "privatekey": early.key_pem(), "certchain": ""}, "CN=early is valid from"),
        ({"name": "a\nb"}, "it must be text on one line"),
        ({"enabledrevocationcheck": True}, "revocation is not looked up"),
    ):
        with pytest.raises(BadParameter, match=words) as refused:
            upload(**parameters)
        assert "BEGIN PRIVATE" not in refused.value.text
    assert not ground.rows(Certificate)


def test_a_rule_speaks_tls_with_a_certificate(ground, alice, chain, upload):
    network = ground.network("alice")
    given = {"algorithm": "roundrobin", "name": "web", "privateport": 80, "publicipid": ground.address(alice, network)}
    plain = alice("createLoadBalancerRule", publicport=80, **given)["id"]
    rule = alice("createLoadBalancerRule", publicport=443, protocol="ssl", **given)["id"]
    certificate, other = upload()["id"], upload(name="other")["id"]
    with pytest.raises(BadParameter, match="rule web is tcp, and must be ssl"):
        alice("assignCertToLoadBalancer", certid=certificate, lbruleid=plain)
    with pytest.raises(BadParameter, match="web has no certificate"):
        alice("removeCertFromLoadBalancer", lbruleid=rule)
    ground.done(alice("assignCertToLoadBalancer", certid=certificate, lbruleid=rule))
    with ground.cloud.database.read() as session:
        fact = balancer_facts(session, ground.numbers[network])[1].certificate
    assert (fact.id, fact.certificate) == (certificate, chain[0].pem)
    assert "PRIVATE" in fact.key
    assert "PRIVATE" not in repr(fact)
    (shown,) = alice("listSslCerts", lbruleid=rule)["sslcert"]
    assert shown["loadbalancerrulelist"] == [rule]
    with pytest.raises(InUse, match=f"shop is used by load balancer rules {rule}"):
        alice("deleteSslCert", id=certificate)
    with pytest.raises(RuleConflict, match="web has certificate shop already: remove it first, or give forced=true"):
        alice("assignCertToLoadBalancer", certid=other, lbruleid=rule)
    with pytest.raises(RuleConflict, match="web has a certificate: remove it before leaving ssl"):
        alice("updateLoadBalancerRule", id=rule, protocol="tcp")
    ground.done(alice("assignCertToLoadBalancer", certid=other, lbruleid=rule, forced=True))
    ground.done(alice("removeCertFromLoadBalancer", lbruleid=rule))
    for one in (certificate, other):
        alice("deleteSslCert", id=one)
    assert not ground.rows(Certificate)


def test_the_certificates_of_others_are_as_if_they_were_not(ground, alice, upload):
    bob = ground.account("bob")
    network = ground.network("bob", "theirs")
    given = {"algorithm": "source", "name": "web", "privateport": 80, "publicport": 443, "protocol": "ssl"}
    rule = bob("createLoadBalancerRule", publicipid=ground.address(bob, network), **given)["id"]
    certificate = upload()["id"]
    for call in (
        lambda: bob("deleteSslCert", id=certificate),
        lambda: bob("listSslCerts", certid=certificate),
        lambda: bob("assignCertToLoadBalancer", certid=certificate, lbruleid=rule),
        lambda: alice("assignCertToLoadBalancer", certid=certificate, lbruleid=rule),
        lambda: alice("removeCertFromLoadBalancer", lbruleid=rule),
        lambda: alice("listSslCerts", lbruleid=rule),
    ):
        with pytest.raises(BadParameter, match="exists, or it is not yours to use"):
            call()
    with pytest.raises(Forbidden, match="belongs to another account"):
        ground.cloud("assignCertToLoadBalancer", certid=certificate, lbruleid=rule)
    assert bob("listSslCerts") == {}
