"""The cloud's certificate authority, and the certificates of VPN servers that it signs.

Clients of remote access VPNs trust it: they fetch its certificate by listCaCertificate. Its key is encrypted, leaves
the database for nothing but a signature, and is made once, with the catalogue of a fresh cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from sqlalchemy import String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one
from controlplane.api.context import Context
from controlplane.api.parameters import optional
from controlplane.api.responses import Response
from controlplane.db.base import Created, Row, now
from controlplane.db.secrets import Secret

NAME = "root"
SERVER_DAYS = 825
"""What clients of today accept at most."""
_AUTHORITY_DAYS = 3650
_BITS = 2048
"""RSA, because the built-in clients of every desktop and phone take it."""
_IKE_INTERMEDIATE = ObjectIdentifier("1.3.6.1.5.5.8.2.2")
_SLACK = timedelta(hours=1)


class CertificateAuthority(Created, Row):
    """A certificate authority of the cloud itself; both texts are PEM."""

    __tablename__ = "certificate_authorities"

    name: Mapped[str] = mapped_column(String(60), unique=True)
    certificate: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Secret)


class Issued(NamedTuple):
    """A server's certificate and key, PEM, and when it ends."""

    certificate: str
    key: str
    expires: datetime


def new_key() -> rsa.RSAPrivateKey:
    """Draw a key; it takes a tenth of a second."""
    return rsa.generate_private_key(65537, _BITS)


def ensure_authority(session: Session) -> CertificateAuthority:
    """Return the authority, made when there is none yet."""
    row = session.scalar(select(CertificateAuthority).where(CertificateAuthority.name == NAME))
    if row is None:
        key = new_key()
        name = _named("Netspine VPN CA")
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            _builder(name, name, key, now() + timedelta(days=_AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        row = CertificateAuthority(name=NAME, certificate=_pem(certificate), key=_key_pem(key))
        session.add(row)
        session.flush()
    return row


def issue(session: Session, address: str, key: rsa.RSAPrivateKey) -> Issued:
    """Sign a certificate for a VPN server that clients reach at this address.

    The address is in it as an IP address and, for clients that compare it with what the user typed, as a name.
    """
    authority = ensure_authority(session)
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode())
    signer = serialization.load_pem_private_key(authority.key.encode(), None)
    assert isinstance(signer, rsa.RSAPrivateKey)
    expires = min(now() + timedelta(days=SERVER_DAYS), issuer.not_valid_after_utc)
    names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(address)), x509.DNSName(address)])
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, _IKE_INTERMEDIATE])
    certificate = (
        _builder(_named(address), issuer.subject, key, expires)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .add_extension(purposes, critical=False)
        .sign(signer, hashes.SHA256())
    )
    return Issued(_pem(certificate), _key_pem(key), expires)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey, expires: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - _SLACK)
        .not_valid_after(expires)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: rsa.RSAPrivateKey) -> str:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()


@dataclass(kw_only=True)
class AuthorityResponse(Response):
    """The certificate that clients are to trust, PEM."""

    cacertificates: str


def authority_views(ctx: Context, rows: Sequence[CertificateAuthority]) -> list[AuthorityResponse]:
    """Show certificates; a key is never shown."""
    del ctx
    return [AuthorityResponse(cacertificates=row.certificate) for row in rows]


class ListCaCertificate(Command, name="listCaCertificate", answer=one("cacertificates", authority_views),
                        roles=EVERYONE, writes=False):  # fmt: skip
    """Show the certificate of the cloud's authority, which signs the certificates of VPN servers."""

    provider: str | None = optional(choices=(NAME,))

    def run(self, ctx: Context) -> CertificateAuthority:
        """Return the authority that the catalogue made."""
        return ctx.session.scalars(select(CertificateAuthority).where(CertificateAuthority.name == NAME)).one()
