"""Acquiring public addresses, reserving them, and giving them back."""

from __future__ import annotations

import ipaddress

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import Uuid, optional, required
from controlplane.errors import BadParameter, Forbidden, RuleConflict, Unsupported
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.limits import take
from controlplane.identity.ownership import ADDRESSES, on_account_removed, owner_of_new
from controlplane.network import portable_ips
from controlplane.network.address_views import TAGGABLE, address_views
from controlplane.network.networks import Network, Whole, services_of
from controlplane.network.pod_networks import network_of
from controlplane.network.public_ips import FREE, HELD, RESERVED, PublicIp, acquire, chosen, release
from controlplane.network.public_nics import plug
from controlplane.network.rules import set_custom_id
from controlplane.network.static_nat import end_with_successor, refuse_system
from controlplane.network.vpcs import Vpc
from controlplane.reconcile.targets import Target
from controlplane.zone.regions import region_of
from controlplane.zone.zones import BASIC, Zone

dispatch.JOB_TABLES["IpAddress"] = PublicIp
SERVICES = {"SourceNat", "StaticNat", "PortForwarding", "Lb", "Firewall", "Vpn"}
"""A network uses public addresses for these."""


def _address(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text.strip()))
    except ValueError:
        raise ValueError("it must be an IPv4 address such as 203.0.113.10") from None


class AssociateIpAddress(Command, name="associateIpAddress", answer=one("ipaddress", address_views), job=True,
                         creates=True, instance="IpAddress", roles=EVERYONE, event="NET.IPASSIGN",
                         other_events=("PORTABLE.IP.ASSIGN",)):  # fmt: skip
    """Acquire a public address for a network or a VPC: the wanted one, or the lowest that is free."""

    networkid: Network | None = optional(uses=True)
    vpcid: Vpc | None = optional(description="instead of networkid: for all tiers of this VPC")
    zoneid: Zone | None = optional(description="instead of networkid, for an account with one isolated network there")
    ipaddress: str | None = optional(check=_address)
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()
    fordisplay: bool | None = optional(True, admin=True)
    isportable: bool | None = optional(False, description="an address of the region, which can move between networks")
    regionid: int | None = optional(description="with isportable: whose address it is to be")

    def run(self, ctx: Context) -> PublicIp:
        """Check, and take the address."""
        if self.regionid is not None:
            region_of(ctx.session, self.regionid)
        owner = owner_of_new(ctx, self.account, self.domainid, self.projectid)
        whole = self._whole(ctx, owner)
        if self.account is None and (isinstance(whole, Vpc) or whole.guest_type == "Isolated"):
            owner = ctx.session.get_one(Account, whole.account_id)
        _refuse_disabled(ctx, whole.zone)
        if isinstance(whole, Network):
            _must_take_addresses(whole)
        if self.isportable:
            ip, ctx.event = portable_ips.acquire(ctx.session, whole, owner, self.ipaddress), "PORTABLE.IP.ASSIGN"
        else:
            ip = acquire(ctx.session, whole, owner, address=self.ipaddress)
        ip.display = self.fordisplay is not False
        ctx.touch(ip)
        ctx.touched += plug(ctx.session, whole)
        return ip

    def _whole(self, ctx: Context, owner: Account) -> Whole:
        if self.vpcid is None:
            return (self.networkid or self._only_network(ctx, owner)).whole
        if self.networkid is not None and self.networkid.vpc_id != self.vpcid.id:
            raise BadParameter(
                f"Invalid parameter networkid value={self.networkid.uuid}: network {self.networkid.name} is no tier "
                f"of VPC {self.vpcid.name}; leave it out."
            )
        return self.vpcid

    def _only_network(self, ctx: Context, owner: Account) -> Network:
        if self.zoneid is None:
            raise BadParameter("Invalid parameter networkid: give networkid, or zoneid for the only network there.")
        if self.zoneid.network_type == BASIC and (shared := network_of(ctx.session, self.zoneid)) is not None:
            return shared
        theirs = select(Network).where(
            Network.zone_id == self.zoneid.id,
            Network.account_id == owner.id,
            Network.guest_type == "Isolated",
            Network.vpc_id.is_(None),
            Network.removed.is_(None),
        )
        networks = ctx.session.scalars(theirs).all()
        if len(networks) != 1:
            raise BadParameter(
                f"Invalid parameter zoneid value={self.zoneid.uuid}: account {owner.name} has {len(networks)} isolated "
                f"networks in zone {self.zoneid.name}; give networkid to say which one."
            )
        return networks[0]


def _refuse_disabled(ctx: Context, zone: Zone) -> None:
    if zone.allocation_state == "Disabled" and not ctx.caller.is_admin:
        raise Forbidden(f"Zone {zone.name} is disabled: nothing can be made in it.")


def _must_take_addresses(network: Network) -> None:
    if network.guest_type == "L2" or not SERVICES & set(services_of(network)):
        raise Unsupported(
            f"Network {network.name} uses no public addresses: its offering {network.offering.name} has none of "
            f"{', '.join(sorted(SERVICES))}."
        )
    if network.cidr is None:
        raise Unsupported(f"Network {network.name} has no IPv4: its guests are reached by their own IPv6 addresses.")
    if network.state in ("Shutdown", "Destroy"):
        raise BadParameter(f"Invalid parameter networkid value={network.uuid}: {network.name} is in {network.state}.")


class DisassociateIpAddress(Command, name="disassociateIpAddress", answer=success(), job=True, instance="IpAddress",
                            roles=EVERYONE, event="NET.IPRELEASE",
                            other_events=("PORTABLE.IP.RELEASE",)):  # fmt: skip
    """Give a public address back, with every rule on it."""

    id: PublicIp | None = optional()
    ipaddress: str | None = optional(check=_address)

    def run(self, ctx: Context) -> None:
        """Check, and let go of it."""
        ip = self.id or self._named(ctx)
        if ip.state == RESERVED:
            raise BadParameter(f"Invalid parameter id value={ip.uuid}: it is only reserved; use releaseIpAddress.")
        if ip.state not in HELD:
            raise BadParameter(f"Invalid parameter id value={ip.uuid}: {ip.address} is {ip.state.lower()} already.")
        if ip.source_nat:
            raise RuleConflict(
                f"Invalid parameter id value={ip.uuid}: public address {ip.address} is the source NAT address of its "
                "network or VPC, and goes with it."
            )
        refuse_system(ip)
        ctx.instance = ip
        ctx.touch(ip)
        end_with_successor(ctx, ip)
        if ip.portable_range_id is not None:
            ctx.event = "PORTABLE.IP.RELEASE"
        release(ctx.session, ip)

    def _named(self, ctx: Context) -> PublicIp:
        if self.ipaddress is None:
            raise BadParameter("Invalid parameter id: give the id of the address, or ipaddress.")
        found = select(PublicIp).where(
            PublicIp.address == self.ipaddress, PublicIp.state.in_(HELD), PublicIp.visible_to(ctx.caller)
        )
        rows = ctx.session.scalars(found).all()
        if len(rows) != 1:
            raise BadParameter(
                f"Invalid parameter ipaddress value={self.ipaddress}: {len(rows)} addresses in use that you may see "
                "are this one; give its id."
            )
        return rows[0]


def remove_addresses(session: Session, account: Account) -> list[Target]:
    """Give back what a removed account has beside its networks: addresses on shared networks, and reserved ones."""
    theirs = select(PublicIp).where(PublicIp.account_id == account.id, PublicIp.state.in_((*HELD, RESERVED)))
    touched: list[Target] = []
    for ip in session.scalars(theirs).all():
        touched += ip.targets(session)
        release(session, ip)
    return touched


on_account_removed(remove_addresses, ADDRESSES)


class UpdateIpAddress(Command, name="updateIpAddress", answer=one("ipaddress", address_views), job=True,
                      instance="IpAddress", roles=EVERYONE, event="NET.IPUPDATE"):  # fmt: skip
    """Change how a public address is shown."""

    id: PublicIp = required()
    customid: str | None = optional(admin=True)
    fordisplay: bool | None = optional(admin=True)

    def run(self, ctx: Context) -> PublicIp:
        """Change it."""
        if self.fordisplay is not None:
            self.id.display = self.fordisplay
        if self.customid is not None:
            set_custom_id(ctx, self.id, TAGGABLE, self.customid)
            ctx.touch(self.id)
        return self.id


class ReserveIpAddress(Command, name="reserveIpAddress", answer=one("ipaddress", address_views), instance="IpAddress",
                       roles=EVERYONE, event="NET.IPRESERVE"):  # fmt: skip
    """Keep a free public address for an account, which may associate it later by naming it."""

    id: PublicIp = required()
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()
    fordisplay: bool | None = optional(True, admin=True)

    def run(self, ctx: Context) -> PublicIp:
        """Check, and reserve it."""
        owner = owner_of_new(ctx, self.account, self.domainid, self.projectid)
        zone = ctx.session.get_one(Zone, self.id.zone_id)
        _refuse_disabled(ctx, zone)
        ip = chosen(ctx.session, zone, owner, self.id.address)
        if ip.state != FREE:
            raise BadParameter(f"Invalid parameter id value={ip.uuid}: {ip.address} is reserved already.")
        take(ctx.session, owner.id, "public_ip")
        ip.state, ip.account_id, ip.domain_id, ip.allocated = RESERVED, owner.id, owner.domain_id, ctx.now
        ip.display = self.fordisplay is not False
        return ip


class ReleaseIpAddress(Command, name="releaseIpAddress", answer=success(), instance="IpAddress", roles=EVERYONE,
                       event="NET.IPRELEASE"):  # fmt: skip
    """Give up a reservation."""

    id: PublicIp = required()

    def run(self, ctx: Context) -> None:
        """Check, and free it."""
        if self.id.state != RESERVED:
            state = self.id.state.lower()
            raise BadParameter(
                f"Invalid parameter id value={self.id.uuid}: {self.id.address} is {state}, not reserved."
            )
        release(ctx.session, self.id)
