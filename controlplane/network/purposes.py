"""Purposes: what a public address may be used for beside what it is used for already.

Static NAT takes an address whole. Where the network's offering does not conserve addresses, each has one purpose only,
and the source NAT address has that one.
"""

from __future__ import annotations

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session, joinedload

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.errors import BadParameter, RuleConflict
from controlplane.network.claims import BALANCING, PORT_FORWARDING, WIREGUARD, PortClaim
from controlplane.network.networks import Network, require_service
from controlplane.network.nics import Nic
from controlplane.network.public_ips import HELD, PublicIp

_NETWORK = select(Network).where(Network.id == bindparam("network")).options(joinedload(Network.offering))
STATIC_NAT = "static NAT"
SERVICES = {PORT_FORWARDING: "PortForwarding", BALANCING: "Lb", STATIC_NAT: "StaticNat", WIREGUARD: "Vpn"}
"""The purposes that exclude each other, and the service that each needs."""


def network_of(session: Session, ip: PublicIp, named: Network | None, parameter: str = "ipaddressid") -> Network:
    """Return the network that uses the address, with the address locked against other purposes.

    :param named: the network that the caller says; None leaves it to the address.
    :raises BadParameter: the address is not in use, or by another network.
    """
    if ip.state in HELD and ip.vpc_id is not None:
        return _tier_of(session, ip, named)
    if ip.state not in HELD or ip.network_id is None:
        raise BadParameter(
            f"Invalid parameter {parameter} value={ip.uuid}: {ip.address} is {ip.state.lower()}; "
            "associate it with a network first."
        )
    if named is not None and named.id != ip.network_id:
        raise BadParameter(
            f"Invalid parameter networkid value={named.uuid}: {ip.address} is associated with another network."
        )
    _lock(session, ip)
    return session.scalars(_NETWORK, {"network": ip.network_id}).one()


def _lock(session: Session, ip: PublicIp) -> None:
    if session.get_bind().dialect.name != "sqlite":  # which has one writer at a time
        session.execute(select(PublicIp.id).where(PublicIp.id == ip.id).with_for_update())


def _tier_of(session: Session, ip: PublicIp, named: Network | None) -> Network:
    """Return the tier that a rule on an address of a VPC leads to: the named one, or the one that static NAT has.

    :raises BadParameter: none is named, or it is no tier of the VPC.
    """
    _lock(session, ip)
    tier = named or (session.get_one(Network, ip.network_id) if ip.network_id is not None else None)
    if tier is None:
        raise BadParameter(
            f"Invalid parameter networkid: {ip.address} is an address of a VPC: say which of its tiers is meant."
        )
    if tier.vpc_id != ip.vpc_id or tier.removed is not None:
        raise BadParameter(
            f"Invalid parameter networkid value={tier.uuid}: {tier.name} is no tier of the VPC that has {ip.address}."
        )
    return tier


def tier_of_machine(session: Session, ip: PublicIp, vm: VirtualMachine) -> Network | None:
    """Return the one tier of the address's VPC that the machine is on; None where there is none, or several."""
    if ip.vpc_id is None:
        return None
    query = select(Network).join(Nic, Nic.network_id == Network.id)
    tiers = session.scalars(query.where(Nic.vm_id == vm.id, Network.vpc_id == ip.vpc_id)).all()
    return tiers[0] if len(tiers) == 1 else None


def must_take(session: Session, ip: PublicIp, network: Network, purpose: str) -> None:
    """Make sure that the address may be used for this.

    :param purpose: one of ``SERVICES``.
    :raises Unsupported: the network does not have the service.
    :raises RuleConflict: it is used for what excludes it; the sentence names it.
    """
    require_service(network, SERVICES[purpose])
    if ip.static_nat and purpose != STATIC_NAT:
        raise RuleConflict(
            f"{_named(ip, purpose)} has static NAT to {ip.nic_address}, which takes it whole: "
            f"a {purpose} needs another address, or static NAT disabled."
        )
    conserves = network.offering.conserve_mode
    if ip.source_nat and (purpose == STATIC_NAT or not conserves):
        raise RuleConflict(
            f"{_named(ip, purpose)} is the source NAT address of network {network.name}: "
            f"{purpose} needs another address."
        )
    if purpose == STATIC_NAT or not conserves:
        _nothing_else(session, ip, purpose)


def _named(ip: PublicIp, purpose: str) -> str:
    parameter = "publicipid" if purpose == BALANCING else "ipaddressid"
    return f"Invalid parameter {parameter} value={ip.uuid}: public address {ip.address}"


def _nothing_else(session: Session, ip: PublicIp, purpose: str) -> None:
    other = select(PortClaim).where(PortClaim.public_ip_id == ip.id, PortClaim.purpose != purpose).limit(1)
    claim = session.scalar(other)
    if claim is not None and not ip.static_nat:
        raise RuleConflict(
            f"{_named(ip, purpose)} is used by {claim.purpose} {claim.rule_uuid} "
            f"({claim.protocol} port {claim.port}): {purpose} needs an address of its own."
        )
