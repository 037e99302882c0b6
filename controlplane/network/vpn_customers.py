"""VPN customer gateways: the other ends of site-to-site tunnels, as their owners describe them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from itertools import combinations
from typing import Any

from sqlalchemy import String, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import Long, Uuid, matching, optional, required
from controlplane.api.responses import Response
from controlplane.db.base import Created, Owned, Row
from controlplane.db.configuration import define
from controlplane.db.secrets import Secret
from controlplane.errors import BadParameter, InUse
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import REST, OwnedListing, on_account_removed, owner_fields, owner_of_new
from controlplane.network.balancing import printable
from controlplane.network.rule_text import cidr_list
from controlplane.reconcile.targets import Target
from drivers.ipsec_policies import proposals

LONGEST, SHORTEST = 86_400, 60
VERSIONS = ("ike", "ikev1", "ikev2")
SUBNETS = define(
    "site2site.vpn.customergateway.subnets.limit", 10, "How many CIDRs a VPN customer gateway may have", within=(1, 100)
)
_SECRET = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?", re.ASCII)


class VpnCustomerGateway(Created, Owned, Row):
    """A customer gateway (createVpnCustomerGateway).

    :ivar gateway: its public IPv4 address, ``cidrs`` the networks behind it.
    :ivar ike_lifetime: seconds, and ``esp_lifetime``.
    """

    __tablename__ = "vpn_customer_gateways"
    __table_args__ = (UniqueConstraint("account_id", "name"),)

    name: Mapped[str] = mapped_column(String(255))
    gateway: Mapped[str] = mapped_column(String(40), index=True)
    cidrs: Mapped[list[str]] = mapped_column(default=list)
    psk: Mapped[str] = mapped_column(Secret)
    ike_policy: Mapped[str] = mapped_column(String(255))
    esp_policy: Mapped[str] = mapped_column(String(255))
    ike_lifetime: Mapped[int] = mapped_column(default=86_400)
    esp_lifetime: Mapped[int] = mapped_column(default=3_600)
    ike_version: Mapped[str] = mapped_column(String(10), default="ike")
    dpd: Mapped[bool] = mapped_column(default=False)
    encap: Mapped[bool] = mapped_column(default=False)
    split: Mapped[bool] = mapped_column(default=False)

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the targets of the routers whose connections lead to it."""
        from controlplane.network.vpn_connections import targets_of_customer

        return targets_of_customer(session, self)


dispatch.JOB_TABLES["Site2SiteCustomerGateway"] = VpnCustomerGateway


@dataclass(kw_only=True)
class CustomerGatewayResponse(Response):
    """A customer gateway."""

    id: str
    name: str
    gateway: str
    ipaddress: str
    cidrlist: str
    ipsecpsk: str
    ikepolicy: str
    esppolicy: str
    ikelifetime: int
    esplifetime: int
    ikeversion: str
    dpd: bool
    forceencap: bool
    splitconnections: bool
    account: str
    domain: str
    domainid: str
    domainpath: str
    hasannotations: bool = False


def customer_views(ctx: Context, rows: Sequence[VpnCustomerGateway]) -> list[CustomerGatewayResponse]:
    """Show customer gateways; the pre-shared key is shown to whoever may see the gateway, as in CloudStack."""
    owners = owner_fields(ctx, rows)
    return [
        CustomerGatewayResponse(
            id=row.uuid,
            name=row.name,
            ipaddress=row.gateway,
            **ike_fields(row),
            **owners[row.account_id],
        )
        for row in rows
    ]


def ike_fields(row: VpnCustomerGateway) -> dict[str, Any]:
    """Return the response fields that a customer gateway and its connections have in common."""
    return {
        "gateway": row.gateway,
        "cidrlist": ",".join(row.cidrs),
        "ipsecpsk": row.psk,
        "ikepolicy": row.ike_policy,
        "esppolicy": row.esp_policy,
        "ikelifetime": row.ike_lifetime,
        "esplifetime": row.esp_lifetime,
        "ikeversion": row.ike_version,
        "dpd": row.dpd,
        "forceencap": row.encap,
        "splitconnections": row.split,
    }


def _address(text: str) -> str:
    try:
        address = IPv4Address(text.strip())
    except AddressValueError:
        raise ValueError("it must be the gateway's public IPv4 address, such as 198.51.100.7") from None
    if address.is_multicast or address.is_unspecified or address.is_loopback or str(address) == "255.255.255.255":
        raise ValueError("it must be an address that a gateway can have")
    return str(address)


def _policy(text: str, *, ike: bool) -> str:
    proposals(text, ike=ike)
    return ",".join(part.strip().lower() for part in text.split(","))


def _ike_policy(text: str) -> str:
    return _policy(text, ike=True)


def _esp_policy(text: str) -> str:
    return _policy(text, ike=False)


def _psk(text: str) -> str:
    if not _SECRET.fullmatch(text):
        # the dispatcher's sentence would show the value, and a key is not to be shown
        raise BadParameter("Invalid parameter ipsecpsk: it must be printable ASCII without a blank at its ends.")
    return text


def _lifetime(value: int) -> int:
    if not SHORTEST <= value <= LONGEST:
        raise ValueError(f"it must be {SHORTEST} to {LONGEST} seconds")
    return value


class Described(Command):
    """What is said of a customer gateway."""

    cidrlist: str = required(length=4096, description="the networks behind it, separated by commas")
    esppolicy: str = required(check=_esp_policy, description="such as aes128-sha1;modp1536: the group means PFS")
    gateway: str = required(check=_address)
    ikepolicy: str = required(check=_ike_policy, description="such as aes128-sha1;modp1536, several with commas")
    ipsecpsk: str = required(check=_psk, description="the pre-shared key")
    account: str | None = optional()
    domainid: Domain | None = optional()
    dpd: bool | None = optional()
    esplifetime: Long | None = optional(check=_lifetime)
    forceencap: bool | None = optional()
    ikelifetime: Long | None = optional(check=_lifetime)
    ikeversion: str | None = optional(choices=VERSIONS)
    name: str | None = optional(check=printable)
    splitconnections: bool | None = optional(description="a child of its own for each remote network")

    def describe(self, ctx: Context, row: VpnCustomerGateway) -> None:
        """Write down what is said; what is left out stays as it is.

        :raises BadParameter: it cannot be, or another gateway of the account says the same.
        """
        row.name = self.name or row.name or f"VPN-{self.gateway}"
        row.gateway, row.psk = self.gateway, self.ipsecpsk
        row.cidrs = self._cidrs(ctx.session)
        row.ike_policy, row.esp_policy = self.ikepolicy, self.esppolicy
        row.ike_lifetime = self.ikelifetime or row.ike_lifetime or LONGEST
        row.esp_lifetime = self.esplifetime or row.esp_lifetime or 3_600
        row.ike_version = self.ikeversion or row.ike_version or VERSIONS[0]
        for field, value in (("dpd", self.dpd), ("encap", self.forceencap), ("split", self.splitconnections)):
            setattr(row, field, bool(getattr(row, field)) if value is None else value)
        if row.split and row.ike_version == "ikev1":
            raise BadParameter(
                "Invalid parameter splitconnections value=true: IKEv1 splits always; it is for ikev2 and ike."
            )
        self._must_be_new(ctx.session, row)

    def _cidrs(self, session: Session) -> list[str]:
        cidrs = cidr_list("cidrlist", [item for item in self.cidrlist.split(",") if item.strip()])
        most = SUBNETS.number(session)
        if not 1 <= len(cidrs) <= most:
            raise BadParameter(f"Invalid parameter cidrlist value={self.cidrlist}: it must have 1 to {most} CIDRs.")
        for one_cidr, other in combinations(cidrs, 2):
            if IPv4Network(one_cidr).overlaps(IPv4Network(other)):
                raise BadParameter(f"Invalid parameter cidrlist value={self.cidrlist}: {one_cidr} overlaps {other}.")
        return cidrs

    @staticmethod
    def _must_be_new(session: Session, row: VpnCustomerGateway) -> None:
        with session.no_autoflush:
            theirs = select(VpnCustomerGateway).where(VpnCustomerGateway.account_id == row.account_id)
            for other in session.scalars(theirs):
                if other is not row and other.name == row.name:
                    raise BadParameter(
                        f"Invalid parameter name value={row.name}: customer gateway {other.uuid} has this name already."
                    )
                if other is not row and (other.gateway, sorted(other.cidrs)) == (row.gateway, sorted(row.cidrs)):
                    raise BadParameter(
                        f"Invalid parameter gateway value={row.gateway}: customer gateway {other.name} has it already, "
                        "with the same CIDRs."
                    )


class CreateVpnCustomerGateway(Described, name="createVpnCustomerGateway", job=True, creates=True,
                               answer=one("vpncustomergateway", customer_views), instance="Site2SiteCustomerGateway",
                               roles=EVERYONE, event="VPN.S2S.CUSTOMER.GATEWAY.CREATE"):  # fmt: skip
    """Describe the other end of site-to-site tunnels."""

    projectid: Uuid | None = optional()

    def run(self, ctx: Context) -> VpnCustomerGateway:
        """Check, and keep it."""
        owner = owner_of_new(ctx, self.account, self.domainid, self.projectid)
        row = VpnCustomerGateway(account_id=owner.id, domain_id=owner.domain_id)
        self.describe(ctx, row)
        ctx.session.add(row)
        return row


class UpdateVpnCustomerGateway(Described, name="updateVpnCustomerGateway", job=True,
                               answer=one("vpncustomergateway", customer_views), instance="Site2SiteCustomerGateway",
                               roles=EVERYONE, event="VPN.S2S.CUSTOMER.GATEWAY.UPDATE"):  # fmt: skip
    """Describe the other end anew; its connections begin anew with what is different."""

    id: VpnCustomerGateway = required()

    def run(self, ctx: Context) -> VpnCustomerGateway:
        """Check against its connections, too, and change it."""
        from controlplane.network.vpn_connections import must_fit_connections

        row = self.id
        if self.account is not None or self.domainid is not None:
            owner = owner_of_new(ctx, self.account, self.domainid)
            if owner.id != row.account_id:
                raise BadParameter(
                    f"Invalid parameter account value={owner.name}: customer gateway {row.name} is another account's."
                )
        self.describe(ctx, row)
        must_fit_connections(ctx.session, row)
        ctx.touch(row)
        return row


class DeleteVpnCustomerGateway(Command, name="deleteVpnCustomerGateway", answer=success(), job=True, roles=EVERYONE,
                               instance="Site2SiteCustomerGateway",
                               event="VPN.S2S.CUSTOMER.GATEWAY.DELETE"):  # fmt: skip
    """Delete a customer gateway that no connection leads to."""

    id: VpnCustomerGateway = required()

    def run(self, ctx: Context) -> None:
        """Check, and delete it."""
        from controlplane.network.vpn_connections import connections_to

        ctx.instance = self.id
        if used := connections_to(ctx.session, self.id):
            names = ", ".join(row.uuid for row in used)
            raise InUse(f"Customer gateway {self.id.name} is used by VPN connections {names}: delete them first.")
        ctx.session.delete(self.id)


class ListVpnCustomerGateways(OwnedListing, name="listVpnCustomerGateways",
                              answer=many("vpncustomergateway", customer_views), roles=EVERYONE):  # fmt: skip
    """List customer gateways."""

    table = VpnCustomerGateway
    keywords = (VpnCustomerGateway.name, VpnCustomerGateway.gateway)
    tags = None

    id: VpnCustomerGateway | None = matching(VpnCustomerGateway.id)


def remove_customers(session: Session, account: Account) -> list[Target]:
    """Delete the customer gateways of a removed account, whose connections have gone with its VPCs."""
    for row in session.scalars(select(VpnCustomerGateway).where(VpnCustomerGateway.account_id == account.id)).all():
        session.delete(row)
    return []


on_account_removed(remove_customers, REST)
