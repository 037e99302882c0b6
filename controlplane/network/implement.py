"""Implementing a network: giving it a number, a source NAT address and a router when something is to run on it.

What must stay true: every function here may be repeated; a network is shut down only when nothing runs on it, which is
decided in the same transaction that shuts it down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session

from controlplane.compute import placement
from controlplane.compute.choice import Want
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.base import new_uuid, now
from controlplane.db.configuration import define
from controlplane.errors import NoCapacity
from controlplane.events.alerts import ROUTER, clear_alert, raise_alert
from controlplane.identity.accounts import Account
from controlplane.network import ipv6, nics, public_ips, redundancy
from controlplane.network.addressing import lowest_number
from controlplane.network.networks import Network, counted, services_of
from controlplane.network.nics import Nic
from controlplane.network.public_ips import PublicIp
from controlplane.network.routers import Router
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.reconcile import targets
from controlplane.reconcile.observations import inherit
from controlplane.reconcile.sweep import duty
from controlplane.reconcile.targets import Found, Target
from controlplane.zone.dedicated_vnets import ranges_for
from controlplane.zone.hosts import Host
from controlplane.zone.physical_networks import PhysicalNetwork, Vnet
from drivers import registry

GC_WAIT = define("network.gc.wait", 600, "Seconds that a network on which nothing runs keeps its router",
                 category="Network", within=(0, None))  # fmt: skip
GC_INTERVAL, SECOND_INTERVAL = 10, 60
GUEST_DEVICE, FIRST_PUBLIC_DEVICE = 0, 2
LIVE = VirtualMachine.state.in_(("Starting", "Running", "Stopping", "Migrating")) | VirtualMachine.running


def ensure_implemented(session: Session, network: Network) -> list[tuple[int, int]]:
    """Have the network carried and served: its number, its source NAT address and its router.

    :return: what to wait for, as (target number, generation).
    :raises NoCapacity: no number, no public address or no host is left.
    """
    session.refresh(network, with_for_update=True)
    if network.vnet is None:
        take_vnet(session, network)
    if network.state not in ("Implementing", "Implemented"):
        network.state = "Implementing"
    if "SourceNat" in services_of(network):
        ensure_source_nat(session, network)
    touched: list[Target] = []
    for provider in router_providers(network):
        for router in ensure_routers(session, network, provider):
            touched.extend(router.targets(session))
    if not touched:
        network.state = "Implemented"
    session.flush()
    return targets.touch(session, touched)


def router_providers(network: Network) -> list[str]:
    """Return the providers of the network that are routers of ours, in a fixed order."""
    installed = registry.network_providers()
    named = {provider for providers in services_of(network).values() for provider in providers}
    return sorted(name for name in named if name in installed and installed[name].kind == "router")


def take_vnet(session: Session, network: Network, wanted: int | None = None) -> None:
    """Give the network a VLAN or VNI: the wanted one, or the lowest free one, those of its account alone first.

    :raises NoCapacity: all are taken.
    """
    physical = session.get_one(PhysicalNetwork, network.physical_network_id, with_for_update=True)
    taken = set(session.scalars(select(Vnet.number).where(Vnet.physical_network_id == physical.id)))
    number = wanted
    if number is None:
        choices = (lowest_number(ranges, taken) for ranges in ranges_for(session, physical, network.account_id))
        number = next((choice for choice in choices if choice is not None), None)
    if number is None:
        raise NoCapacity(f"Physical network {physical.name} has no free VLAN or VNI left: widen its range.")
    session.add(Vnet(physical_network_id=physical.id, number=number, network_id=network.id))
    network.vnet = number
    session.flush()


def ensure_source_nat(session: Session, network: Network) -> PublicIp:
    """Return the address that the network's guests leave with, acquiring one where there is none."""
    has = PublicIp.network_id == network.id, PublicIp.source_nat.is_(True)
    found = session.scalar(select(PublicIp).where(*has))
    if found is not None:
        return found
    owner = session.get_one(Account, network.account_id)
    return public_ips.acquire(session, network, owner, source_nat=True)


def ensure_routers(session: Session, network: Network, provider: str) -> list[Router]:
    """Return the network's routers of this provider, running: two on different hosts where it is redundant.

    Where no second host will do, the one serves alone, an operator is told, and it is tried again later.
    """
    first = ensure_router(session, network, provider)
    if not redundancy.is_redundant(network):
        return [first]
    redundancy.ensure_link(session, first)
    served = [one for one in routers_of(session, network) if one.provider == provider and one.retired is None]
    second = next((one for one in served if one.id != first.id and not one.dark), None)
    subject = f"Network {network.name} has one router instead of two"
    try:
        if second is None:
            second = _second_router(session, network, first)
    except NoCapacity as error:
        raise_alert(session, ROUTER, subject, f"{subject}. {error.text}"[:5000], zone=network.zone_id)
        return [first]
    clear_alert(session, ROUTER, subject, zone=network.zone_id)
    second.running = True
    ensure_public_nics(session, network)
    return [first, second]


def _second_router(session: Session, network: Network, first: Router) -> Router:
    assert first.host_id is not None
    near = {first.host_id: f"router {first.name}, its other half, is there"}
    host = choose_host(session, Router(zone_id=network.zone_id, account_id=network.account_id, uuid=new_uuid()), near)
    router = add_router(session, network, first.provider)
    redundancy.plug_like(session, first, router)
    redundancy.ensure_link(session, router)
    place(session, router, host)
    redundancy.join(session, router)
    return router


def ensure_router(session: Session, network: Network, provider: str) -> Router:
    """Return the network's router of this provider, running: made, placed and plugged in where it was not."""
    found = (router for router in routers_of(session, network) if router.provider == provider and not router.retired)
    router = next(found, None)
    if router is None:
        router = add_router(session, network, provider)
        nics.allocate(session, network, address=network.gateway or "", address6=network.gateway6 or "",
                      router=router, device=GUEST_DEVICE)  # fmt: skip
    if router.target_id is None:
        place(session, router, choose_host(session, router))
    router.running = True
    ensure_public_nics(session, network)
    return router


def routers_of(session: Session, network: Network) -> Sequence[Router]:
    """Return the routers that are there for the network, the oldest first: while one is replaced, both."""
    query = select(Router).where(Router.network_id == network.id, Router.removed.is_(None))
    return session.scalars(query.order_by(Router.id)).all()


def add_router(session: Session, network: Network, provider: str) -> Router:
    """Make the row of a router for the network; it has no interface and no host yet."""
    router = Router(network_id=network.id, zone_id=network.zone_id, provider=provider)
    router.account_id, router.domain_id = network.account_id, network.domain_id
    router.service_offering_id = network.offering.service_offering_id or session.scalar(
        select(ServiceOffering.id).where(ServiceOffering.system_vm_type == "domainrouter").limit(1)
    )
    session.add(router)
    session.flush()
    router.name = f"r-{router.id}-VM"
    return router


def choose_host(session: Session, router: Router, avoid: Mapping[int, str] | None = None) -> Host:
    """Return the host for a new router.

    :param avoid: host number → why it is not to be taken.
    :raises NoCapacity: none will do.
    """
    want = Want(
        mhz=placement.ROUTER_MHZ,
        memory=placement.ROUTER_MEMORY,
        account_id=router.account_id,
        machine=router.uuid,
        avoid=avoid or {},
    )
    return placement.pick_host(session, router.zone_id, want)


def place(session: Session, router: Router, host: Host) -> None:
    """Put a router on a host, and make its target."""
    serving = session.get_one(Target, host.target_id)
    kind = registry.network_providers()[router.provider].kind
    # an agent serves the routers on its host; a host without one is served by the control plane, routers and all
    target = Target(kind=kind, name=router.name, agent_id=serving.agent_id, desired_generation=0)
    target.applier = serving.kind if serving.agent_id is None else ""
    session.add(target)
    session.flush()
    router.host_id, router.target_id, router.state = host.id, target.id, "Starting"
    router.host, router.target = host, target


def ensure_public_nics(session: Session, network: Network) -> None:
    """Give each router of the network an interface on every VLAN that its public addresses are of, and on no other."""
    mine = PublicIp.network_id == network.id, PublicIp.state == public_ips.ALLOCATED
    used = select(PublicIp.vlan, func.min(PublicIp.range_id)).where(*mine)
    outside = ipv6.outside_of(session, network)
    vlans = {outside.vlan: outside.range_id} if outside else {}
    vlans |= {vlan: number for vlan, number in session.execute(used.group_by(PublicIp.vlan))}
    for router in routers_of(session, network):
        present = session.scalars(select(Nic).where(Nic.router_id == router.id)).all()
        if not present:
            continue  # it has those of the one that it replaces
        ranges = {nic.range_id: nic for nic in present if nic.range_id}
        by_vlan = {session.get_one(public_ips.VlanRange, number).vlan: nic for number, nic in ranges.items()}
        for vlan in by_vlan.keys() - vlans.keys():
            session.delete(by_vlan[vlan])
        for vlan in sorted(vlans.keys() & by_vlan.keys()):
            by_vlan[vlan].range_id = vlans[vlan]  # a range of the same VLAN that is used no more can go
        devices = {nic.device for nic in present}
        for vlan in sorted(vlans.keys() - by_vlan.keys()):
            device = next(number for number in range(FIRST_PUBLIC_DEVICE, 64) if number not in devices)
            devices.add(device)
            nic = Nic(router_id=router.id, range_id=vlans[vlan], traffic="Public", mac=nics.new_mac(), device=device)
            session.add(nic)
    session.flush()


def remove_routers(session: Session, network: Network) -> list[Target]:
    """Have all routers of the network taken down for good; their rows go when that is done."""
    found: list[Target] = []
    for router in routers_of(session, network):
        found.extend(remove_router(session, router))
    return found


def remove_router(session: Session, router: Router) -> list[Target]:
    """Have one router taken down for good.

    :return: what it was on, to be touched.
    """
    found = list(router.targets(session))
    router.running, router.state, router.removed = False, "Stopping", now()
    if router.target_id is not None:
        session.get_one(Target, router.target_id).absent = True
    for nic in session.scalars(select(Nic).where(Nic.router_id == router.id)):
        redundancy.hand_over_addresses(session, nic)
        nics.release(session, nic)
    session.flush()
    return [*found, *redundancy.others(session, router)]


def shut_down(session: Session, network: Network) -> list[Target]:
    """Take the network's router down; its number is free once the router is gone, its addresses stay its own."""
    found = remove_routers(session, network)
    network.state = "Shutdown"
    if not found:
        free_vnet(session, network)
    return found


def free_vnet(session: Session, network: Network) -> None:
    """Give the network's VLAN or VNI back, unless its offering fixes it."""
    if not network.offering.specify_vlan or network.removed is not None:
        session.execute(delete(Vnet).where(Vnet.network_id == network.id))
        network.vnet = None
    if network.removed is not None:
        ipv6.give_back(session, network)
    if network.state == "Shutdown":
        network.state = "Allocated"


def is_idle(session: Session, network: Network) -> bool:
    """Tell whether nothing runs on the network, nor is about to."""
    query = select(Nic.id).join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
    return session.scalar(query.where(Nic.network_id == network.id, LIVE).limit(1)) is None


@targets.on_settled("router")
def router_is_up(session: Session, target: Target) -> None:
    """A router that stands at its generation is what was wanted of it; when it runs, its network is implemented."""
    router = session.scalar(select(Router).where(Router.target_id == target.id))
    if router is None:
        return
    if router.running and router.dark:
        return  # made, and not serving
    router.state = "Running" if router.running else "Stopped"
    if not router.running:
        targets.touch(session, redundancy.others(session, router))  # the other half may now stand alone
        return
    network = session.get_one(Network, router.network_id)
    if network.state == "Implementing":
        network.state = "Implemented"


@targets.on_gone("router")
def router_is_gone(session: Session, target: Target) -> None:
    """The rows of a router that was taken down for good go, and its network's number is free."""
    router = session.scalar(select(Router).where(Router.target_id == target.id))
    if router is None:
        session.delete(target)
        return
    if router.removed is None:
        return
    network = session.get_one(Network, router.network_id)
    _keep_traffic(session, network, router)
    router.target_id = None
    session.flush()
    session.delete(target)
    session.flush()
    targets.touch(session, redundancy.others(session, router))
    others = select(Router.id).where(Router.network_id == network.id, Router.target_id.is_not(None)).limit(1)
    if (network.state == "Shutdown" or network.removed is not None) and session.scalar(others) is None:
        redundancy.forget(session, network)
        free_vnet(session, network)


def _keep_traffic(session: Session, network: Network, router: Router) -> None:
    """Add what the router that goes has counted to what its successor counts, or to what its network remembers."""
    found = session.get(Found, router.target_id)
    heir = session.scalar(select(Router).where(Router.replaces_id == router.id, Router.removed.is_(None)))
    if heir is not None:
        heir.replaces_id = None
    if found is not None and heir is not None and heir.target_id is not None:
        inherit(session, heir.target_id, found)
    elif found is not None:
        received, sent = counted(found.counters, network.uuid)
        network.received_before += received
        network.sent_before += sent


@duty(SECOND_INTERVAL)
def complete_redundant_networks(session: Session) -> None:
    """Give the redundant networks that run on one router their second, where there is a host for it now."""
    lonely = select(Network).join(redundancy.RouterPair, redundancy.RouterPair.owner == Network.uuid)
    for network in session.scalars(lonely.where(Network.state == "Implemented", Network.removed.is_(None))).all():
        for provider in router_providers(network):
            there = [one for one in routers_of(session, network) if one.provider == provider]
            if len(there) == 1 and there[0].running and len(ensure_routers(session, network, provider)) > 1:
                found = routers_of(session, network)
                targets.touch(session, [target for router in found for target in router.targets(session)])


@duty(GC_INTERVAL)
def collect_idle_networks(session: Session) -> None:
    """Shut down the networks on which nothing has run for a while; persistent ones stay."""
    runs = exists().where(Nic.network_id == Network.id, Nic.vm_id == VirtualMachine.id, LIVE)
    implemented = Network.state == "Implemented", Network.removed.is_(None)
    session.execute(update(Network).where(*implemented, runs).values(idle_since=None))
    long_ago = now() - timedelta(seconds=GC_WAIT.number(session))
    for network in session.scalars(select(Network).where(*implemented, ~runs).with_for_update()):
        if network.offering.persistent:
            continue
        network.idle_since = network.idle_since or now()
        if network.idle_since <= long_ago:
            network.idle_since = None
            targets.touch(session, shut_down(session, network))
