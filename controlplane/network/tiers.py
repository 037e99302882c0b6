"""Tiers: what a network must be to be one of a VPC."""

from __future__ import annotations

from ipaddress import IPv4Network

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.db.configuration import define
from controlplane.errors import BadParameter, LimitReached
from controlplane.network.acls import DEFAULT_DENY, AclList, default_list
from controlplane.network.addressing import overlap
from controlplane.network.networks import Network, services_of
from controlplane.network.vpcs import Vpc
from controlplane.offering.network_offerings import NetworkOffering, has_ipv6

MAX_TIERS = define("vpc.max.networks", 3, "How many tiers a VPC may have", category="Network", scopes=("Account",),
                   within=(1, 250))  # fmt: skip


def objections(vpc: Vpc, offering: NetworkOffering) -> list[str]:
    """Return why a tier of the VPC cannot have this offering: it must give no more than the VPC's own."""
    if not offering.for_vpc:
        return [f"offering {offering.name} is not for the tiers of a VPC; choose one with forvpc"]
    found = []
    if (offering.network_mode, offering.routing_mode) != (vpc.offering.network_mode, vpc.offering.routing_mode):
        modes = [f"{one.network_mode} {one.routing_mode or ''}".strip() for one in (offering, vpc.offering)]
        found.append(f"it is {modes[0]}, and offering {vpc.offering.name} of VPC {vpc.name} is {modes[1]}")
    if has_ipv6(offering) and offering.internet_protocol != vpc.offering.internet_protocol:
        found.append(
            f"it is {offering.internet_protocol}, and offering {vpc.offering.name} of VPC {vpc.name} is "
            f"{vpc.offering.internet_protocol}"
        )
    for service, providers in sorted(offering.services.items()):
        allowed = vpc.offering.services.get(service, [])
        strange = [provider for provider in providers if provider not in allowed]
        if strange:
            found.append(
                f"it gives service {service} by {', '.join(strange)}, and offering {vpc.offering.name} of VPC "
                f"{vpc.name} has {'it by ' + ', '.join(allowed) if allowed else 'no such service'}"
            )
    return found


def admit(session: Session, vpc: Vpc, network: Network) -> None:
    """Make sure that the VPC can take the network as one more tier; the VPC's row is locked from then on.

    :raises BadParameter: its CIDR is not within the VPC's, or overlaps what is there; its domain is another one.
    :raises LimitReached: the VPC has as many tiers as it may.
    """
    session.refresh(vpc, with_for_update=True)
    assert network.cidr is not None
    tiers = select(Network).where(Network.vpc_id == vpc.id, Network.removed.is_(None))
    most = MAX_TIERS.number(session, account=vpc.account_id)
    count = session.scalar(select(func.count()).select_from(tiers.subquery())) or 0
    if count >= most:
        raise LimitReached(f"VPC {vpc.name} has {count} tiers, and vpc.max.networks allows {most}.")
    if not IPv4Network(network.cidr).subnet_of(IPv4Network(vpc.cidr)):
        raise BadParameter(
            f"Invalid parameter gateway value={network.gateway}: the tier's CIDR {network.cidr} must lie within "
            f"{vpc.cidr}, that of VPC {vpc.name}."
        )
    for tier in session.scalars(tiers):
        must_not_overlap("gateway", network.cidr, tier.cidr, f"tier {tier.name}")
    if network.network_domain not in ("", vpc.network_domain):
        raise BadParameter(
            f"Invalid parameter networkdomain value={network.network_domain}: the tiers of VPC {vpc.name} share its "
            f"domain, {vpc.network_domain}; leave it out."
        )


def must_not_overlap(parameter: str, cidr: str, other: str | None, what: str) -> None:
    """Make sure that a CIDR shares no address with another one.

    :param what: what has the other one.
    :raises BadParameter: it does.
    """
    if other is not None and overlap(cidr, other):
        raise BadParameter(f"Invalid parameter {parameter} value={cidr}: it overlaps {other}, which {what} has.")


def choose_acl(session: Session, vpc: Vpc, wanted: AclList | None, parameter: str = "aclid") -> AclList:
    """Return the ACL list of a new tier or private gateway: the wanted one, or default_deny.

    :raises BadParameter: it is another VPC's.
    """
    if wanted is None:
        return default_list(session, DEFAULT_DENY)
    if wanted.vpc_id not in (None, vpc.id):
        raise BadParameter(
            f"Invalid parameter {parameter} value={wanted.uuid}: list {wanted.name} is of another VPC than {vpc.name}."
        )
    return wanted


def kept_acl(session: Session, network: Network) -> AclList | None:
    """Return the ACL list that a tier has from now on, as its offering has network ACLs or not."""
    if "NetworkACL" not in services_of(network):
        return None
    return network.acl or default_list(session, DEFAULT_DENY)
