"""SSH key pairs: public keys that guests are given; a private key is shown once and never kept."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from sqlalchemy import delete, select

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import Uuid, matching, optional, required
from controlplane.api.responses import Response
from controlplane.compute.virtual_machines import MachineKeyPair, SshKeyPair
from controlplane.errors import BadParameter
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import OwnedListing, owner_fields, owner_of_new
from controlplane.network.networks import Network
from controlplane.network.nics import Nic

_BITS = 3072


@dataclass(kw_only=True)
class SshKeyPairResponse(Response):
    """A key pair; ``privatekey`` only in the answer that made it."""

    id: str
    name: str
    account: str
    domain: str
    domainid: str
    fingerprint: str
    hasannotations: bool = False


@dataclass(kw_only=True)
class NewKeyPairResponse(SshKeyPairResponse):
    """A key pair that was made just now."""

    privatekey: str


def keypair_views(ctx: Context, rows: Sequence[SshKeyPair]) -> list[SshKeyPairResponse]:
    """Return what these look like."""
    owners = owner_fields(ctx, rows)
    views = []
    for row in rows:
        owner = {name: owners[row.account_id][name] for name in ("account", "domain", "domainid")}
        views.append(SshKeyPairResponse(id=row.uuid, name=row.name, fingerprint=row.fingerprint, **owner))
    return views


@dataclass(frozen=True, slots=True)
class Made:
    """A new key pair and its private key."""

    row: SshKeyPair
    private_key: str


def made_views(ctx: Context, rows: Sequence[Made]) -> list[NewKeyPairResponse]:
    """Return what new ones look like."""
    plain = keypair_views(ctx, [made.row for made in rows])
    return [
        NewKeyPairResponse(**vars(view), privatekey=made.private_key) for made, view in zip(rows, plain, strict=True)
    ]


class RegisterSshKeyPair(Command, name="registerSSHKeyPair", answer=one("keypair", keypair_views), roles=EVERYONE,
                         instance="SSHKeyPair", event="REGISTER.SSH.KEYPAIR"):  # fmt: skip
    """Register a public key under a name."""

    name: str = required()
    publickey: str = required(length=5120)
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()

    def run(self, ctx: Context) -> SshKeyPair:
        """Keep it."""
        owner = owner_of_new(ctx, self.account, self.domainid, self.projectid)
        return _keep(ctx, owner, self.name, public_key(self.publickey))


class CreateSshKeyPair(Command, name="createSSHKeyPair", answer=one("keypair", made_views), roles=EVERYONE,
                       instance="SSHKeyPair", event="REGISTER.SSH.KEYPAIR"):  # fmt: skip
    """Make a key pair; the private key is in this answer and nowhere else."""

    name: str = required()
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()

    def run(self, ctx: Context) -> Made:
        """Make it and keep its public half."""
        owner = owner_of_new(ctx, self.account, self.domainid, self.projectid)
        key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        row = _keep(ctx, owner, self.name, public.decode())
        ctx.session.flush()
        return Made(row, private.decode())


class DeleteSshKeyPair(Command, name="deleteSSHKeyPair", answer=success(), roles=EVERYONE,
                       instance="SSHKeyPair", event="DELETE.SSH.KEYPAIR"):  # fmt: skip
    """Remove a key pair by its name; the metadata of machines that were given it no longer has it."""

    name: str = required()
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()

    def run(self, ctx: Context) -> None:
        """Remove it."""
        owner = owner_of_new(ctx, self.account, self.domainid, self.projectid)
        row = named(ctx, owner, self.name, "name")
        machines = select(MachineKeyPair.vm_id).where(MachineKeyPair.keypair_id == row.id)
        networks = select(Network).join(Nic).where(Nic.vm_id.in_(machines))
        ctx.touch(*ctx.session.scalars(networks).unique())
        ctx.session.execute(delete(MachineKeyPair).where(MachineKeyPair.keypair_id == row.id))
        ctx.instance = row
        ctx.session.delete(row)


class ListSshKeyPairs(OwnedListing, name="listSSHKeyPairs", answer=many("sshkeypair", keypair_views), roles=EVERYONE):
    """List key pairs."""

    table = SshKeyPair
    keywords = (SshKeyPair.name, SshKeyPair.fingerprint)
    tags = None

    id: SshKeyPair | None = matching(SshKeyPair.id)
    name: str | None = matching(SshKeyPair.name)
    fingerprint: str | None = matching(SshKeyPair.fingerprint)


def named(ctx: Context, owner: Account, name: str, parameter: str) -> SshKeyPair:
    """Return the owner's key pair of this name.

    :raises BadParameter: there is none.
    """
    row = ctx.session.scalar(select(SshKeyPair).where(SshKeyPair.account_id == owner.id, SshKeyPair.name == name))
    if row is None:
        raise BadParameter(
            f"Invalid parameter {parameter} value={name}: account {owner.name} has no SSH key pair of this name."
        )
    return row


def named_all(ctx: Context, owner: Account, name: str | None, names: Sequence[str] | None) -> list[SshKeyPair]:
    """Return the owner's key pairs of these names, each once.

    :raises BadParameter: there is no such key pair, or two of them have the same key.
    """
    wanted = dict.fromkeys([*([name] if name else []), *(names or [])])
    return [named(ctx, owner, each, "keypairs") for each in wanted]


def public_key(text: str) -> str:
    """Return a public key in OpenSSH's form, on one line.

    :raises BadParameter: it is none.
    """
    parts = text.strip().split(None, 2)
    try:
        if text.lstrip().startswith("-----BEGIN"):
            key = serialization.load_pem_public_key(text.strip().encode())
        else:
            key = serialization.load_ssh_public_key(" ".join(parts[:2]).encode())
        plain = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    except (ValueError, UnsupportedAlgorithm, AttributeError):
        raise BadParameter("Invalid parameter publickey: it must be a public key such as ssh-ed25519 AAAA….") from None
    comment = parts[2] if len(parts) > 2 and not text.lstrip().startswith("-----") else ""
    if any(not letter.isprintable() for letter in comment):
        raise BadParameter("Invalid parameter publickey: it must be one key on one line.")
    return f"{plain.decode()} {comment}".strip()


def fingerprint(key: str) -> str:
    """Return the MD5 fingerprint of a public key in OpenSSH's form, as CloudStack shows it (RFC 4716, section 4)."""
    digest = hashlib.md5(base64.b64decode(key.split()[1]), usedforsecurity=False).hexdigest()
    return ":".join(digest[position : position + 2] for position in range(0, len(digest), 2))


def encrypted(password: str, key: str) -> str | None:
    """Encrypt a password for the holder of an RSA key (PKCS #1 v1.5, as CloudStack's clients decrypt it); base64.

    :return: None when the key is of another kind.
    """
    loaded = serialization.load_ssh_public_key(" ".join(key.split()[:2]).encode())
    if not isinstance(loaded, rsa.RSAPublicKey):
        return None
    return base64.b64encode(loaded.encrypt(password.encode(), padding.PKCS1v15())).decode()


def _keep(ctx: Context, owner: Account, name: str, key: str) -> SshKeyPair:
    mine = SshKeyPair.account_id == owner.id
    mark = fingerprint(key)
    if ctx.session.scalar(select(SshKeyPair.id).where(mine, SshKeyPair.name == name)) is not None:
        raise BadParameter(f"Invalid parameter name value={name}: account {owner.name} has a key pair of this name.")
    other = ctx.session.scalar(select(SshKeyPair.name).where(mine, SshKeyPair.fingerprint == mark))
    if other is not None:
        raise BadParameter(f"Invalid parameter publickey: account {owner.name} has this key under the name {other}.")
    row = SshKeyPair(account_id=owner.id, domain_id=owner.domain_id, name=name, public_key=key, fingerprint=mark)
    ctx.session.add(row)
    return row


dispatch.JOB_TABLES["SSHKeyPair"] = SshKeyPair
