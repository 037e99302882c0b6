"""Policies of tunnels: how they are spelled for the daemon, and what is refused with which words."""

from dataclasses import replace

import pytest

from drivers.ipsec import VpnUser
from drivers.ipsec_policies import COMBINED, ENCRYPTIONS, GROUPS, HASHES, proposals
from drivers.network.virtual_router import VirtualRouter
from systemvm.services.charon import impossible
from tests.golden.router.cases import FIRST, tunnels


@pytest.mark.parametrize(
    ("policy", "ike", "spelled"),
    [
        ("aes128-sha1;modp1536", True, ("aes128-sha1-modp1536",)),
        ("3des-md5", False, ("3des-md5",)),
        ("AES256-SHA256;modp2048, aes128-sha1;modp1024", True, ("aes256-sha256-modp2048", "aes128-sha1-modp1024")),
        ("aes256gcm16-sha384;ecp384", True, ("aes256gcm16-prfsha384-ecp384",)),
        ("aes256gcm16-sha384;ecp384", False, ("aes256gcm16-ecp384",)),
    ],
)
def test_policies_as_the_daemon_spells_them(policy, ike, spelled):
    assert proposals(policy, ike=ike) == spelled


@pytest.mark.parametrize(
    ("policy", "ike", "word"),
    [
        ("des-md5;modp1024", True, "'des'"),
        ("aes128;modp1024", True, "hash ''"),
        ("aes128-sha1", True, "DH group ''"),
        ("aes128-sha1;modp768", False, "'modp768'"),
        ("aes128-sha1;", False, "DH group ''"),
        ("", False, "''"),
        ("aes128-sha1,", False, "''"),
        ('aes128-sha1"\n', False, "sha1"),
        (",".join(["aes128-sha1"] * 9), False, "9 proposals"),
    ],
)
def test_what_the_daemon_cannot_do_is_refused_by_name(policy, ike, word):
    with pytest.raises(ValueError, match=r"must be one of|are allowed") as refused:
        proposals(policy, ike=ike)
    assert word in str(refused.value)


def test_every_word_of_the_table_has_an_algorithm_in_the_daemon():
    words = [f"{one}-{digest}-{group}" for one in ENCRYPTIONS for digest in HASHES for group in GROUPS]
    words += [f"{one}-prf{digest}" for one in COMBINED for digest in HASHES]
    known = {
        "encryption": ["AES_CBC", "3DES_CBC", "AES_GCM_16", "CHACHA20_POLY1305"],
        "integrity": ["HMAC_MD5_96", "HMAC_SHA1_96", "HMAC_SHA2_256_128", "HMAC_SHA2_384_192", "HMAC_SHA2_512_256"],
        "prf": ["PRF_HMAC_MD5", "PRF_HMAC_SHA1", "PRF_HMAC_SHA2_256", "PRF_HMAC_SHA2_384", "PRF_HMAC_SHA2_512"],
        "dh": [group.upper().replace("MODP", "MODP_").replace("ECP", "ECP_") for group in GROUPS[:-1]]
        + ["CURVE_25519"],
    }
    assert impossible(words, known) == []
    assert impossible(["aes128-sha1-modp1024"], {**known, "encryption": []}) == ["aes128"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"local": "203.0.113.99"}, "no public address"),
        ({"peer": "gateway.example"}, "IPv4 address"),
        ({"psk": "with\nnewline"}, "printable"),
        ({"ike_lifetime": 5}, "60 to 86400"),
        ({"esp_policy": "rot13-md5"}, "rot13"),
        ({"version": "ikev3"}, "ikev3"),
        ({"remotes": ("10.9.0.0/99",)}, "CIDR"),
    ],
)
def test_a_tunnel_that_cannot_be_is_refused(change, words):
    facts = tunnels()
    broken = replace(facts, tunnels=(replace(facts.tunnels[0], **change),))
    with pytest.raises(ValueError, match=words) as refused:
        VirtualRouter().plan(broken)
    assert "\n" not in str(refused.value).replace("\\n", "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"first": "10.1.2.9", "last": "10.1.2.2"}, "beyond"),
        ({"first": "10.1.1.200", "last": "10.1.1.210"}, "on the router's networks"),
        ({"users": (VpnUser("a\nb", "x"),)}, "VPN user"),
        ({"users": (VpnUser("a", "x\n"),)}, "password of VPN user a"),
        ({"local": "203.0.113.99"}, "no public address"),
    ],
)
def test_a_remote_access_that_cannot_be_is_refused(change, words):
    facts = tunnels()
    with pytest.raises(ValueError, match=words):
        VirtualRouter().plan(replace(facts, remote_access=replace(facts.remote_access, **change)))


def test_no_secret_is_in_a_representation():
    facts = tunnels()
    config = VirtualRouter().plan(facts)
    for secret in ("s3 cret", "pa ss", "PRIVATE KEY"):
        assert secret not in repr(facts)
        assert secret not in repr(config)
    files, _ = VirtualRouter().render(config)
    assert next(file for file in files if file.service == "strongswan").secret


def test_two_tunnels_to_one_gateway_are_refused():
    facts = tunnels()
    first, second = facts.tunnels
    with pytest.raises(ValueError, match="same gateway"):
        VirtualRouter().plan(replace(facts, tunnels=(first, replace(second, peer=first.peer, local=FIRST))))
