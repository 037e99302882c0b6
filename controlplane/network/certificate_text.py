"""PEM texts of a certificate, its chain and its key: read, checked against each other and written anew. Pure."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from controlplane.errors import BadParameter

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
WEAKEST_RSA = 2048


class Checked(NamedTuple):
    """A certificate that a server can use: canonical PEM texts, the key without a password."""

    certificate: str
    chain: str
    key: str
    fingerprint: str


def check(certificate: str, key: str, chain: str, password: str | None, moment: datetime) -> Checked:
    """Return the certificate with its chain and key, when they belong together.

    :param chain: the issuers' certificates, the nearest first; empty where there are none.
    :param password: of the key; None where it has none.
    :param moment: now; each certificate must be valid then.
    :raises BadParameter: the sentence says which of the texts is wrong and why; never what is in the key.
    """
    found = _certificates("certificate", certificate)
    if len(found) != 1:
        raise BadParameter(
            f"Invalid parameter certificate: it holds {len(found)} certificates; issuers go to certchain."
        )
    issuers = _certificates("certchain", chain) if chain.strip() else []
    private = _key(key, password)
    if _public(private.public_key()) != _public(found[0].public_key()):
        raise BadParameter("Invalid parameter privatekey: it is not the key of the certificate.")
    for parameter, each in [("certificate", found[0]), *(("certchain", issuer) for issuer in issuers)]:
        _must_be_valid(parameter, each, moment)
    for each, issuer in pairwise([found[0], *issuers]):
        _must_be_issued(each, issuer)
    return Checked(
        certificate=_pem(found[0]),
        chain="".join(map(_pem, issuers)),
        key=private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        fingerprint=found[0].fingerprint(hashes.SHA256()).hex(":").upper(),
    )


def _certificates(parameter: str, text: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise BadParameter(
            f"Invalid parameter {parameter}: it must be PEM, from -----BEGIN CERTIFICATE----- to "
            "-----END CERTIFICATE-----."
        ) from None


def _key(text: str, password: str | None) -> Key:
    try:
        key = serialization.load_pem_private_key(text.encode(), password.encode() if password else None)
    except TypeError:
        reason = "it has no password, so leave password out" if password else "it is encrypted, so password is needed"
        raise BadParameter(f"Invalid parameter privatekey: {reason}.") from None
    except (ValueError, UnsupportedAlgorithm):
        reason = "it must be a PEM private key" + (", and password the one that opens it" if password else "")
        raise BadParameter(f"Invalid parameter privatekey: {reason}.") from None
    if not isinstance(key, Key):
        raise BadParameter("Invalid parameter privatekey: it must be an RSA, EC or Ed25519 key.")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < WEAKEST_RSA:
        raise BadParameter(
            f"Invalid parameter privatekey: it has {key.key_size} bits, and an RSA key needs {WEAKEST_RSA}."
        )
    return key


def _public(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "the certificate without a name"


def _must_be_valid(parameter: str, certificate: x509.Certificate, moment: datetime) -> None:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if moment > last:
        raise BadParameter(f"Invalid parameter {parameter}: {_name(certificate)} expired on {last:%Y-%m-%d}.")
    if moment < first:
        raise BadParameter(f"Invalid parameter {parameter}: {_name(certificate)} is valid from {first:%Y-%m-%d} on.")


def _must_be_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        raise BadParameter(
            f"Invalid parameter certchain: {_name(issuer)} did not issue {_name(certificate)}; the chain begins with "
            "the certificate's own issuer, and each next one is the issuer of the one before."
        ) from None


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
