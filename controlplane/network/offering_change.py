"""Giving a network another offering while it runs (updateNetwork with networkofferingid).

A router's bundle is made from the offering as it is, so services, rate and egress policy change without a restart. Only
what a router is made of (its own offering), and that it is to be alone, waits for the next one: such a network shows
``restartrequired``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from controlplane.compute.holding_hosts import hosts_of_guests
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.errors import BadParameter
from controlplane.network import firewall, implement, ipv6, ipv6_firewall, tiers
from controlplane.network.claims import PortClaim
from controlplane.network.firewall import FirewallRule
from controlplane.network.guest_ranges import SHARED
from controlplane.network.ipv6_firewall import Ipv6FirewallRule
from controlplane.network.load_balancers import LoadBalancer, remove_balancers
from controlplane.network.networks import Network, router_providers, services_of
from controlplane.network.nics import Nic, take_address6
from controlplane.network.physical_choice import objection
from controlplane.network.port_forwarding import PortForward, remove_forwards
from controlplane.network.public_ips import HELD, PublicIp
from controlplane.network.routers import Router
from controlplane.network.rules import remove_rows
from controlplane.network.static_nat import end_static_nat
from controlplane.offering.network_offerings import NetworkOffering, has_ipv6
from controlplane.reconcile.targets import Target

_RICHER = {"IPv4": "DualStack"}
"""What a network can become: no guest loses an address that it has."""
EGRESS = "egress rules"
"""They open what is closed, or close what is open: they do not outlive a change of the default."""


def change_offering(session: Session, network: Network, offering: NetworkOffering, *, forced: bool) -> list[Target]:
    """Give the network the offering, and bring its routers in line with it.

    :param forced: the rules of services that the new offering lacks are removed; otherwise they are a reason to refuse.
    :return: the targets whose desired state has changed.
    :raises BadParameter: the network cannot have this offering; every reason is named.
    """
    if offering.id == network.offering_id:
        return []
    reasons = _objections(session, network, offering)
    lost = _lost(session, network, offering)
    if not forced:
        reasons += [f"its {what} would be lost (forced=true removes them): {', '.join(lost[what])}" for what in lost]
    if reasons:
        raise BadParameter(
            f"Invalid parameter networkofferingid value={offering.uuid}: network {network.name} cannot have the "
            f"offering {offering.name}: {'; '.join(reasons)}."
        )
    _remove(session, network, lost)
    touched = list(network.targets(session))
    network.restart_required |= _needs_new_router(network.offering, offering)
    network.offering = offering
    if has_ipv6(offering) and not network.cidr6:
        ipv6.give(session, network)
        for nic in session.scalars(select(Nic).where(Nic.network_id == network.id)):
            wanted = network.gateway6 or "" if nic.router_id else ""
            nic.address6 = take_address6(session, network, nic, wanted)
    session.flush()
    touched += hosts_of_guests(session, network.id)  # what its guests' ports may send follows from both
    return touched + _align(session, network)


def _needs_new_router(old: NetworkOffering, new: NetworkOffering) -> bool:
    """Tell whether the routers are of another size, or one of two is to go: a second one comes without a restart."""
    return old.service_offering_id != new.service_offering_id or (old.redundant_router and not new.redundant_router)


def _objections(session: Session, network: Network, offering: NetworkOffering) -> list[str]:
    old = network.offering
    reasons = []
    if offering.state != "Enabled" or offering.traffic != "Guest":
        reasons.append(f"the offering is {offering.state}, and an enabled guest offering is needed")
    if offering.guest_type != network.guest_type or offering.for_vpc != old.for_vpc:
        kind = "VPC tiers" if offering.for_vpc else f"{offering.guest_type} networks"
        reasons.append(f"it is for {kind}, and the network is {network.guest_type}")
    if offering.specify_vlan != old.specify_vlan:
        reasons.append(f"it has specifyvlan={str(offering.specify_vlan).lower()}, and the network's has the opposite")
    if offering.internet_protocol not in (old.internet_protocol, _RICHER.get(old.internet_protocol)):
        reasons.append(f"it is {offering.internet_protocol}, and the network is {old.internet_protocol}")
    if (offering.network_mode, offering.routing_mode) != (old.network_mode, old.routing_mode):
        modes = [f"{one.network_mode} {one.routing_mode or ''}".strip() for one in (offering, old)]
        reasons.append(f"it is {modes[0]}, and the network is {modes[1]}")
    if problem := objection(session, network.physical_network, offering):
        reasons.append(f"physical network {problem}")
    if network.vpc is not None:
        reasons += tiers.objections(network.vpc, offering)
    if not offering.conserve_mode:
        reasons += _mixed(session, network)
    return reasons


def _mixed(session: Session, network: Network) -> list[str]:
    """Return what an offering that does not conserve addresses would not have let happen."""
    purposes = func.count(func.distinct(PortClaim.purpose))
    query = select(PublicIp.address, PublicIp.source_nat, purposes).join(
        PortClaim, PortClaim.public_ip_id == PublicIp.id
    )
    query = query.where(PublicIp.network_id == network.id).group_by(PublicIp.address, PublicIp.source_nat)
    return [
        f"without conserve mode {address} cannot have rules of several kinds{', or be the source NAT address' * nat}"
        for address, nat, count in session.execute(query)
        if nat or count > 1
    ]


def _lost(session: Session, network: Network, offering: NetworkOffering) -> dict[str, Sequence[str]]:
    """Return what the network has and the offering cannot serve: the kind of rule → ids or addresses, five at most."""
    gone = services_of(network).keys() - offering.services.keys()
    mine = PublicIp.network_id == network.id, PublicIp.state.in_(HELD)
    ingress = FirewallRule.network_id == network.id, FirewallRule.public_ip_id.is_not(None)
    egress = FirewallRule.network_id == network.id, FirewallRule.public_ip_id.is_(None)
    queries = {
        "PortForwarding": select(PortForward.uuid).where(PortForward.network_id == network.id),
        "Lb": select(LoadBalancer.uuid).where(LoadBalancer.network_id == network.id),
        "StaticNat": select(PublicIp.address).where(*mine, PublicIp.static_nat),
        "Firewall": select(FirewallRule.uuid).where(*ingress),
    }
    asked = {f"{service} rules": query for service, query in queries.items() if service in gone}
    if "Firewall" in gone or offering.egress_allow != network.offering.egress_allow:
        asked[EGRESS] = select(FirewallRule.uuid).where(*egress)
        asked[f"IPv6 {EGRESS}"] = select(Ipv6FirewallRule.uuid).where(*_ipv6_rules(network, "Egress"))
    if "Firewall" in gone:
        asked["IPv6 rules"] = select(Ipv6FirewallRule.uuid).where(*_ipv6_rules(network, "Ingress"))
    if network.guest_type == SHARED and gone:
        here = select(VirtualMachine.name).join(Nic, Nic.vm_id == VirtualMachine.id)
        asked[f"guests' {', '.join(sorted(gone))}"] = here.where(Nic.network_id == network.id)
    found = {what: session.scalars(query.limit(5)).all() for what, query in asked.items()}
    return {what: items for what, items in found.items() if items}


def _remove(session: Session, network: Network, lost: Collection[str]) -> None:
    remove: dict[str, Callable[[], None]] = {
        "PortForwarding rules": lambda: remove_forwards(session, PortForward.network_id == network.id),
        "Lb rules": lambda: remove_balancers(session, LoadBalancer.network_id == network.id),
        "StaticNat rules": lambda: _end_static_nats(session, network),
        "Firewall rules": lambda: _close(session, network, FirewallRule.public_ip_id.is_not(None)),
        EGRESS: lambda: _close(session, network, FirewallRule.public_ip_id.is_(None)),
        f"IPv6 {EGRESS}": lambda: remove_rows(
            session, Ipv6FirewallRule, ipv6_firewall.TAGGABLE, *_ipv6_rules(network, "Egress")
        ),
        "IPv6 rules": lambda: remove_rows(
            session, Ipv6FirewallRule, ipv6_firewall.TAGGABLE, *_ipv6_rules(network, "Ingress")
        ),
    }
    for what in remove.keys() & lost:
        remove[what]()


def _ipv6_rules(network: Network, direction: str) -> tuple[ColumnElement[bool], ...]:
    return Ipv6FirewallRule.network_id == network.id, Ipv6FirewallRule.direction == direction


def _end_static_nats(session: Session, network: Network) -> None:
    for ip in session.scalars(select(PublicIp).where(PublicIp.network_id == network.id, PublicIp.static_nat)):
        end_static_nat(session, ip)


def _close(session: Session, network: Network, which: object) -> None:
    remove_rows(session, FirewallRule, firewall.TAGGABLE, FirewallRule.network_id == network.id, which)  # type: ignore[arg-type]


def _align(session: Session, network: Network) -> list[Target]:
    """Take down the routers of providers that the network has no more, and make those of new ones."""
    wanted = router_providers(network)
    touched: list[Target] = []
    standing = select(Router).where(Router.network_id == network.id, Router.removed.is_(None))
    for router in session.scalars(standing).all():
        if router.provider not in wanted:
            touched += implement.remove_router(session, router)
    if network.vpc is not None:
        network.acl = tiers.kept_acl(session, network)
    elif "SourceNat" not in services_of(network) and not network.offering.routed:
        mine = PublicIp.network_id == network.id, PublicIp.source_nat
        session.execute(update(PublicIp).where(*mine).values(source_nat=False))
    if network.offering.persistent or network.state in ("Implementing", "Implemented"):
        implement.ensure_implemented(session, network)
        for router in implement.routers_of(session, network.whole):
            touched += router.targets(session)
    return touched
