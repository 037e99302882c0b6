"""Shared networks: for whom they are, and the ranges that their guests get addresses of.

The gateway is the operator's; a router of ours, where the offering has one, serves DHCP, names and user data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.api.caller import Role
from controlplane.api.context import Context
from controlplane.errors import BadParameter, Forbidden
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import owner_of_new
from controlplane.network.guest_ranges import SHARED, address_router, ranges_of, refuse_router_address, subnet_of
from controlplane.network.ipv6 import refuse_small_mtu
from controlplane.network.ipv6_prefixes import SUBNET
from controlplane.network.network_changes import default_domain
from controlplane.network.network_permissions import ACCOUNT, DOMAIN
from controlplane.network.networks import Network, router_providers
from controlplane.network.nics import Nic, take_address, take_address6
from controlplane.network.pod_networks import by_pods
from controlplane.network.public_ips import VlanRange
from controlplane.network.vlan_ranges import UNTAGGED, Span, refuse_clash
from controlplane.network.vlan_ranges6 import Span6
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.zone.pods import Pod
from controlplane.zone.zones import Zone


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose a network is to be.

    :param owner: the account; the system account of a network that all accounts of ``domain`` may use.
    :param subdomains: those of the domains below may, too.
    """

    acl_type: str
    owner: Account
    domain: Domain
    subdomains: bool = False

    def write(self, network: Network) -> None:
        """Put it into the row."""
        network.account_id, network.domain_id = self.owner.id, self.domain.id
        network.acl_type, network.subdomain_access = self.acl_type, self.subdomains

    def dns_domain(self, zone: Zone) -> str:
        """Return the DNS domain of a network whose creator names none."""
        if self.acl_type == ACCOUNT:
            return default_domain(self.owner, zone)
        return self.domain.network_domain or zone.network_domain or f"cs{self.owner.id:x}cloud.internal"


def scope_of(ctx: Context, asked: Any) -> Scope:
    """Decide whose the network of a createNetwork is to be.

    :param asked: the command: its offering, acltype, account, domainid, projectid, subdomainaccess and zoneid.
    :raises BadParameter: they contradict each other.
    :raises Forbidden: the caller may not make such a network.
    """
    offering: NetworkOffering = asked.networkofferingid
    shared = offering.guest_type == SHARED
    if shared and ctx.caller.role is Role.USER:
        raise Forbidden(
            f"Invalid parameter networkofferingid value={offering.uuid}: networks of {offering.name} are Shared, and "
            "their gateways are the operator's: an admin makes them, for an account or a domain."
        )
    kind = asked.acltype or (DOMAIN if shared and not asked.account and not asked.projectid else ACCOUNT)
    if kind == DOMAIN and not shared:
        raise BadParameter(
            f"Invalid parameter acltype value=Domain: {offering.guest_type} networks are an account's; only Shared "
            "ones can be a domain's."
        )
    if kind == ACCOUNT:
        if asked.subdomainaccess is not None:
            raise BadParameter("Invalid parameter subdomainaccess: it goes together with acltype=Domain.")
        owner = owner_of_new(ctx, asked.account, asked.domainid, asked.projectid)
        return Scope(ACCOUNT, owner, owner.domain)
    if asked.account is not None or asked.projectid is not None:
        name = "account" if asked.account is not None else "projectid"
        raise BadParameter(f"Invalid parameter {name}: with acltype=Domain the network is for a whole domain.")
    return _of_domain(ctx, asked.domainid, asked.zoneid, asked.subdomainaccess)


def _of_domain(ctx: Context, named: Domain | None, zone: Zone, subdomains: bool | None) -> Scope:
    """Return the scope of a domain's network; without a domain it is for all that may use the zone."""
    own = zone.domain_id or ctx.caller.domain_id
    domain = named or ctx.session.get_one(Domain, own)
    if named is None and subdomains is False:
        raise BadParameter(
            "Invalid parameter subdomainaccess value=false: name the domainid whose accounts alone are to use it."
        )
    if zone.domain_id is not None and f"/{zone.domain_id}/" not in domain.path:
        raise BadParameter(
            f"Invalid parameter domainid value={domain.uuid}: zone {zone.name} is dedicated to another domain."
        )
    return Scope(DOMAIN, system_account(ctx.session), domain, subdomains is not False)


def system_account(session: Session) -> Account:
    """Return the account that owns what no account has."""
    return session.scalars(select(Account).where(Account.name == "system", Account.default)).one()


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses that a range is to have, checked: of either family, or of both."""

    span: Span | None
    span6: Span6 | None

    @classmethod
    def of(cls, asked: Any) -> Addresses:
        """Check what a createNetwork or createVlanIpRange says of addresses.

        :raises BadParameter: something is missing or does not fit.
        """
        given, given6 = (asked.gateway, asked.netmask, asked.startip), (asked.ip6gateway, asked.ip6cidr)
        if not all(given) and (any(given) or asked.endip or not any(given6)):
            raise BadParameter(
                "Invalid parameter startip: gateway, netmask and startip must be given, or ip6gateway and ip6cidr."
            )
        span = span6 = None
        if all(given):
            span = Span.of(asked.gateway, asked.netmask, asked.startip, asked.endip or asked.startip)
        if any(given6) or asked.startipv6 or asked.endipv6:
            span6 = Span6.of(asked.ip6gateway, asked.ip6cidr, asked.startipv6, asked.endipv6)
        return cls(span, span6)

    def write(self, session: Session, row: VlanRange) -> None:
        """Put them into the row, and add it.

        :raises RuleConflict: another range of the zone has part of them.
        """
        session.refresh(row.zone, with_for_update=True)  # two overlapping ones at once wait for each other
        if self.span is not None:
            self.span.write(row)
            refuse_clash(session, row, self.span)
        if self.span6 is not None:
            self.span6.write(row)
            self.span6.refuse_clash(session, row)
        session.add(row)
        session.flush()


def give_addresses(session: Session, network: Network, asked: Any) -> None:
    """Give a new Shared network its first range, and the router that serves it an address in it.

    :param asked: the createNetwork.
    :raises BadParameter: something is missing or does not fit.
    :raises RuleConflict: another range of the zone has part of the addresses.
    """
    addresses, served = Addresses.of(asked), bool(router_providers(network))
    for name, span in (("routerip", addresses.span), ("routeripv6", addresses.span6)):
        if getattr(asked, name) is not None and (span is None or not served):
            lacks = "the network has no such range" if served else "no router of ours serves it"
            raise BadParameter(f"Invalid parameter {name} value={getattr(asked, name)}: {lacks}.")
    if addresses.span is not None:
        refuse_router_address(addresses.span.subnet, addresses.span.gateway, asked.routerip, "routerip")
    if addresses.span6 is not None:
        refuse_router_address(addresses.span6.block, str(addresses.span6.gateway), asked.routeripv6, "routeripv6")
    add_range(session, network, addresses, wanted={"routerip": asked.routerip, "routeripv6": asked.routeripv6})


def add_range(
    session: Session,
    network: Network,
    addresses: Addresses,
    pod: Pod | None = None,
    *,
    wanted: Mapping[str, str | None] | None = None,
) -> VlanRange:
    """Give a Shared network a range, its guests addresses of a family that is new to it, and its router one in it.

    :param wanted: see :func:`controlplane.network.guest_ranges.address_router`.
    :raises BadParameter: it has IPv6 already, or the guests could not use the prefix.
    :raises RuleConflict: another range of the zone has part of the addresses.
    """
    span6 = addresses.span6
    if span6 is not None:
        check6(network, span6)
    row = VlanRange(zone=network.zone, zone_id=network.zone_id, physical_network_id=network.physical_network_id)
    row.network_id, row.pod_id = network.id, pod.id if pod else None
    row.vlan = str(network.vnet) if network.vnet else UNTAGGED
    addresses.write(session, row)
    settle(session, network, wanted)
    for nic in session.scalars(select(Nic).where(Nic.network_id == network.id, Nic.vm_id.is_not(None))).all():
        if addresses.span is not None and not nic.address and not by_pods(network):
            nic.address = take_address(session, network, "", nic)
        if span6 is not None and not nic.address6:
            nic.address6 = take_address6(session, network, nic, "")
    session.flush()
    return row


def settle(session: Session, network: Network, wanted: Mapping[str, str | None] | None = None) -> None:
    """Bring what the network shows, and its routers' interfaces, in line with its ranges; repeatable."""
    _show_first(network, ranges_of(session, network))
    ranges = address_router(session, network, wanted)
    first = next((row.router_ip for row in ranges if row.router_ip), "")
    first6 = next((row.router_ip6 for row in ranges if row.router_ip6), "")
    kept = {row.router_ip for row in ranges} | {row.router_ip6 for row in ranges}
    for nic in session.scalars(select(Nic).where(Nic.network_id == network.id, Nic.router_id.is_not(None))):
        nic.address = nic.address if nic.address in kept - {""} else first
        nic.address6 = nic.address6 if nic.address6 in kept - {""} else first6
    session.flush()


def _show_first(network: Network, ranges: Sequence[VlanRange]) -> None:
    """Have the network show its first subnet of either family as its own."""
    first = next((row for row in ranges if row.gateway), None)
    first6 = next((row for row in ranges if row.cidr6), None)
    network.cidr = str(subnet_of(first)) if first else None
    network.gateway = first.gateway if first else None
    network.cidr6, network.gateway6 = (first6.cidr6, first6.gateway6) if first6 else (None, None)


def check6(network: Network, span6: Span6, *, replaces: bool = False) -> None:
    """Refuse an IPv6 block that guests of the network cannot use.

    :param replaces: it takes the place of the one that the network has.
    :raises BadParameter: the network has one, its MTU is too small, or this is no /64.
    """
    if network.cidr6 is not None and not replaces:
        raise BadParameter(
            f"Invalid parameter ip6cidr value={span6.block}: network {network.name} has {network.cidr6} already."
        )
    refuse_small_mtu(network)
    if span6.block.prefixlen != SUBNET:
        raise BadParameter(
            f"Invalid parameter ip6cidr value={span6.block}: guests make their addresses of a /64 (RFC 4862)."
        )
