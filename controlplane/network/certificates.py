"""TLS certificates of load balancer rules. A key comes in, is encrypted, and goes out to routers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context, visible
from controlplane.api.parameters import Uuid, optional, required
from controlplane.api.responses import Response
from controlplane.errors import BadParameter, Forbidden, InUse, RuleConflict
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import REST, on_account_removed, owner_fields, owner_of_new
from controlplane.network import certificate_text
from controlplane.network.balancer_trial import must_be_possible, require
from controlplane.network.balancing import printable
from controlplane.network.load_balancers import Certificate, LoadBalancer
from controlplane.reconcile.targets import Target

PEM_LENGTH, CHAIN_LENGTH = 16_384, 2_097_152


@dataclass(kw_only=True)
class CertificateResponse(Response):
    """A certificate; its key is never shown."""

    id: str
    name: str
    certificate: str
    certchain: str | None = None
    fingerprint: str
    loadbalancerrulelist: list[str]
    account: str
    domain: str
    domainid: str


def certificate_views(ctx: Context, rows: Sequence[Certificate]) -> list[CertificateResponse]:
    """Show certificates, with the rules that they serve."""
    owners = owner_fields(ctx, rows)
    used: dict[int, list[str]] = {row.id: [] for row in rows}
    rules = select(LoadBalancer.certificate_id, LoadBalancer.uuid).where(LoadBalancer.certificate_id.in_(list(used)))
    for number, uuid in ctx.session.execute(rules.order_by(LoadBalancer.id)):
        assert number is not None
        used[number].append(uuid)
    return [
        CertificateResponse(
            id=row.uuid,
            name=row.name,
            certificate=row.certificate,
            certchain=row.chain or None,
            fingerprint=row.fingerprint,
            loadbalancerrulelist=used[row.id],
            **{name: owners[row.account_id][name] for name in ("account", "domain", "domainid")},
        )
        for row in rows
    ]


class UploadSslCert(Command, name="uploadSslCert", answer=one("sslcert", certificate_views), roles=EVERYONE,
                    event="LB.CERT.UPLOAD"):  # fmt: skip
    """Bring a certificate with its key, for load balancer rules that speak TLS."""

    certificate: str = required(length=PEM_LENGTH)
    name: str = required(check=printable)
    privatekey: str = required(length=PEM_LENGTH)
    account: str | None = optional()
    certchain: str | None = optional(length=CHAIN_LENGTH, description="the issuers, the nearest first")
    domainid: Domain | None = optional()
    enabledrevocationcheck: bool | None = optional(False)
    password: str | None = optional(description="of the key")
    projectid: Uuid | None = optional()

    def run(self, ctx: Context) -> Certificate:
        """Check that all belongs together, and keep it."""
        if self.enabledrevocationcheck:
            raise BadParameter(
                "Invalid parameter enabledrevocationcheck value=true: revocation is not looked up; leave it out."
            )
        owner = owner_of_new(ctx, self.account, self.domainid, self.projectid)
        checked = certificate_text.check(
            self.certificate, self.privatekey, self.certchain or "", self.password, ctx.now
        )
        row = Certificate(account_id=owner.id, domain_id=owner.domain_id, name=self.name, **checked._asdict())
        ctx.session.add(row)
        return row


class DeleteSslCert(Command, name="deleteSslCert", answer=success(), roles=EVERYONE, event="LB.CERT.DELETE"):
    """Delete a certificate that no rule uses."""

    id: Certificate = required()

    def run(self, ctx: Context) -> None:
        """Check, and delete it."""
        used = ctx.session.scalars(select(LoadBalancer.uuid).where(LoadBalancer.certificate_id == self.id.id)).all()
        if used:
            raise InUse(f"Certificate {self.id.name} is used by load balancer rules {', '.join(used)}.")
        ctx.session.delete(self.id)


class ListSslCerts(Command, name="listSslCerts", answer=many("sslcert", certificate_views), roles=EVERYONE,
                   writes=False):  # fmt: skip
    """List certificates: one, a rule's, or an account's; the caller's unless another is named."""

    accountid: Account | None = optional()
    certid: Certificate | None = optional()
    lbruleid: LoadBalancer | None = optional()
    projectid: Uuid | None = optional()

    def run(self, ctx: Context) -> Sequence[Certificate]:
        """Return those."""
        query = select(Certificate).where(visible(Certificate, ctx.caller)).order_by(Certificate.id)
        if self.projectid is not None:
            owner = owner_of_new(ctx, projectid=self.projectid)
            query = query.where(Certificate.account_id == owner.id)
        if self.certid is not None:
            query = query.where(Certificate.id == self.certid.id)
        if self.lbruleid is not None:
            query = query.where(Certificate.id == self.lbruleid.certificate_id)
        if self.accountid is not None:
            query = query.where(Certificate.account_id == self.accountid.id)
        elif self.certid is None and self.lbruleid is None:
            query = query.where(Certificate.account_id == ctx.caller.account_id)
        return ctx.session.scalars(query).all()


class AssignCertToLoadBalancer(Command, name="assignCertToLoadBalancer", answer=success(), job=True,
                               instance="LoadBalancerRule", roles=EVERYONE, event="LB.CERT.ASSIGN"):  # fmt: skip
    """Have a load balancer rule speak TLS with a certificate."""

    certid: Certificate = required()
    lbruleid: LoadBalancer = required()
    forced: bool | None = optional(False, description="in place of the one that the rule has")

    def run(self, ctx: Context) -> None:
        """Check, and give the rule the certificate."""
        rule, certificate = self.lbruleid, self.certid
        require(rule.network, "SslTermination", "TLS termination")
        if rule.account_id != certificate.account_id:
            raise Forbidden(f"Certificate {certificate.name} belongs to another account than rule {rule.name}.")
        if rule.protocol != "ssl":
            raise BadParameter(
                f"Invalid parameter lbruleid value={rule.uuid}: rule {rule.name} is {rule.protocol}, and must be ssl."
            )
        if rule.certificate_id not in (None, certificate.id) and not self.forced:
            raise RuleConflict(
                f"Invalid parameter lbruleid value={rule.uuid}: load balancer rule {rule.name} has certificate "
                f"{rule.certificate.name if rule.certificate else ''} already: remove it first, or give forced=true."
            )
        rule.certificate_id = certificate.id
        must_be_possible(ctx.session, rule, "lbruleid")
        ctx.instance = rule
        ctx.touch(rule)


class RemoveCertFromLoadBalancer(Command, name="removeCertFromLoadBalancer", answer=success(), job=True,
                                 instance="LoadBalancerRule", roles=EVERYONE, event="LB.CERT.REMOVE"):  # fmt: skip
    """Take a load balancer rule's certificate away: it serves nobody until it has another."""

    lbruleid: LoadBalancer = required()

    def run(self, ctx: Context) -> None:
        """Check, and take it."""
        rule = self.lbruleid
        if rule.certificate_id is None:
            raise BadParameter(f"Invalid parameter lbruleid value={rule.uuid}: rule {rule.name} has no certificate.")
        rule.certificate_id = None
        ctx.instance = rule
        ctx.touch(rule)


def remove_certificates(session: Session, account: Account) -> list[Target]:
    """Delete the certificates of a removed account, whose rules have gone before."""
    session.execute(delete(Certificate).where(Certificate.account_id == account.id))
    return []


on_account_removed(remove_certificates, REST)
