"""Implementing a network: giving it a number, a source NAT address and a router when something is to run on it.

What must stay true: every function here may be repeated; a network is shut down only when nothing runs on it, which is
decided in the same transaction that shuts it down.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from controlplane.compute import placement
from controlplane.compute.choice import Want
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.base import new_uuid, now
from controlplane.db.configuration import define
from controlplane.errors import NoCapacity
from controlplane.events.alerts import ROUTER, clear_alert, raise_alert
from controlplane.identity.accounts import Account
from controlplane.network import ipv6, nics, public_ips, redundancy, routing
from controlplane.network.guest_ranges import SHARED
from controlplane.network.networks import Network, Whole, counted, router_providers, services_of
from controlplane.network.nics import Nic
from controlplane.network.pod_networks import by_pods
from controlplane.network.private_gateways import gateways_of
from controlplane.network.public_ips import PublicIp
from controlplane.network.routers import Router
from controlplane.network.vnets import free_vnet, take_vnet
from controlplane.network.vpcs import Vpc
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.reconcile import targets
from controlplane.reconcile.observations import inherit
from controlplane.reconcile.sweep import duty
from controlplane.reconcile.targets import Found, Target
from controlplane.zone.hosts import Host
from drivers import registry

GC_WAIT = define("network.gc.wait", 600, "Seconds that a network on which nothing runs keeps its router",
                 category="Network", within=(0, None))  # fmt: skip
GC_INTERVAL, SECOND_INTERVAL = 10, 60
GUEST_DEVICE, FIRST_PUBLIC_DEVICE, MOST_DEVICES = 0, 2, 256
VPC_PROVIDER = "VpcVirtualRouter"
"""The provider whose driver a VPC's router is made by, whatever providers its tiers have."""
LIVE = VirtualMachine.state.in_(("Starting", "Running", "Stopping", "Migrating")) | VirtualMachine.running


def ensure_implemented(session: Session, network: Network, pod_id: int | None = None) -> list[tuple[int, int]]:
    """Have the network carried and served: its number, its source NAT address and its router, or its VPC's.

    :param pod_id: of a basic zone's network: the only pod that matters now.
    :return: what to wait for, as (target number, generation).
    :raises NoCapacity: no number, no public address or no host is left.
    """
    session.refresh(network, with_for_update=True)
    if network.vnet is None:
        take_vnet(session, network)
    if network.state not in ("Implementing", "Implemented"):
        network.state = "Implementing"
    touched: list[Target] = []
    if network.vpc is not None:
        for router in ensure_vpc_routers(session, network.vpc):
            touched.extend(router.targets(session))
    else:
        if "SourceNat" in services_of(network) or network.offering.routed:
            ensure_source_nat(session, network)
        for provider in router_providers(network):
            for router in ensure_routers(session, network, provider, pod_id):
                touched.extend(router.targets(session))
    if not touched:
        network.state = "Implemented"
    session.flush()
    return targets.touch(session, touched)


def ensure_source_nat(session: Session, whole: Whole) -> PublicIp:
    """Return the address that the guests leave with, acquiring one where there is none."""
    found = session.scalar(select(PublicIp).where(public_ips.used_by(whole), PublicIp.source_nat.is_(True)))
    if found is not None:
        return found
    owner = session.get_one(Account, whole.account_id)
    return public_ips.acquire(session, whole, owner, source_nat=True)


def ensure_routers(session: Session, network: Network, provider: str, pod_id: int | None = None) -> list[Router]:
    """Return the network's routers of this provider, running: two on different hosts where it is redundant.

    Those of a basic zone, and of elastic load balancing, share its work.
    """
    from controlplane.network import parts

    if by_pods(network) or network.offering.elastic_lb:
        return parts.ensure(session, network, provider, pod_id)
    return _with_other_half(session, ensure_router(session, network, provider), [network])


def _with_other_half(session: Session, first: Router, networks: Sequence[Network]) -> list[Router]:
    """Return the router and, where it is to have one, its other half on another host.

    Where no other host will do, the one serves alone, an operator is told, and it is tried again later.
    """
    whole = first.whole
    if not redundancy.is_redundant(whole):
        return [first]
    redundancy.ensure_link(session, first)
    served = (one for one in serving(session, whole) if one.provider == first.provider and one.id != first.id)
    second, subject = next(served, None), f"{whole.name} has one router instead of two"
    if second is None:
        assert first.host_id is not None
        near = {first.host_id: f"router {first.name}, its other half, is there"}
        try:
            host = choose_host(
                session, Router(zone_id=whole.zone_id, account_id=whole.account_id, uuid=new_uuid()), near
            )
        except NoCapacity as error:
            raise_alert(session, ROUTER, subject, f"{subject}. {error.text}"[:5000], zone=whole.zone_id)
            return [first]
        second = add_router(session, whole, first.provider)
        place(session, second, host)
        redundancy.join(session, second)
    clear_alert(session, ROUTER, subject, zone=whole.zone_id)
    redundancy.ensure_link(session, second)
    return [first, bring_up(session, second, networks)]


def ensure_router(session: Session, network: Network, provider: str) -> Router:
    """Return the network's router of this provider, running: made, placed and plugged in where it was not."""
    found = (router for router in serving(session, network) if (router.provider, router.part) == (provider, ""))
    router = next(found, None) or add_router(session, network, provider)
    return bring_up(session, router, [network])


def ensure_vpc_routers(session: Session, vpc: Vpc) -> list[Router]:
    """Return the VPC's routers, running: made and placed where they were not, and plugged into every tier in use."""
    ensure_source_nat(session, vpc)
    tiers = select(Network).where(Network.vpc_id == vpc.id, Network.vnet.is_not(None), Network.removed.is_(None))
    networks = session.scalars(tiers.order_by(Network.id)).all()
    first = next(iter(serving(session, vpc)), None) or add_router(session, vpc, VPC_PROVIDER)
    return _with_other_half(session, bring_up(session, first, networks), networks)


def routers_of(session: Session, whole: Whole) -> list[Router]:
    """Return the routers that are there for a VPC, or a network that stands alone: while one is replaced, both."""
    mine = Router.vpc_id == whole.id if isinstance(whole, Vpc) else Router.network_id == whole.id
    return list(session.scalars(select(Router).where(mine, Router.removed.is_(None)).order_by(Router.id)))


def serving(session: Session, whole: Whole) -> list[Router]:
    """Return the routers that serve, or are to as soon as they run: not the one that is made to replace another."""
    found = routers_of(session, whole)
    return [router for router in found if not router.retired and not (router.dark and router.replaces_id)]


def add_router(session: Session, whole: Whole, provider: str, like: Router | None = None) -> Router:
    """Make the row of a router for the network or VPC; it has no interface and no host yet.

    :param like: the one whose part of the work it is to have.
    """
    router = Router(zone_id=whole.zone_id, provider=provider)
    router.account_id, router.domain_id = whole.account_id, whole.domain_id
    if like is not None:
        router.part, router.pod_id, router.account_id = like.part, like.pod_id, like.account_id
        router.domain_id = like.domain_id
    router.vpc, router.network = (whole, None) if isinstance(whole, Vpc) else (None, whole)
    own = like.service_offering_id if like is not None else whole.offering.service_offering_id
    router.service_offering_id = own or session.scalar(
        select(ServiceOffering.id).where(ServiceOffering.system_vm_type == "domainrouter").limit(1)
    )
    session.add(router)
    session.flush()
    router.name = f"r-{router.id}-VM"
    return router


def bring_up(session: Session, router: Router, networks: Sequence[Network]) -> Router:
    """Have the router run somewhere, with an interface on each of these networks and of its public addresses."""
    for network in networks:
        _plug(session, router, network)
    if router.vpc is not None:
        plug_gateways(session, router, router.vpc)
    if router.target_id is None:
        place(session, router, choose_host(session, router))
    router.running = True
    ensure_public_nics(session, router.whole)
    return router


def _plug(session: Session, router: Router, network: Network) -> None:
    """Give the router an interface on the network, with the gateway's address; its other half may have it already."""
    present = session.scalars(select(Nic).where(Nic.router_id == router.id)).all()
    if network.id in {nic.network_id for nic in present}:
        return
    device = GUEST_DEVICE if router.vpc_id is None else _free_device({nic.device for nic in present})
    if network.guest_type == SHARED:
        nics.plug_server(session, network, router, device)
        return
    if redundancy.share(session, router, network, device):
        return
    own, own6 = network.gateway or "", network.gateway6 or ""
    nics.allocate(session, network, address=own, address6=own6, router=router, device=device)


def plug_gateways(session: Session, router: Router, vpc: Vpc) -> None:
    """Give the router an interface for each private gateway of its VPC."""
    present = session.scalars(select(Nic).where(Nic.router_id == router.id)).all()
    devices, plugged = [nic.device for nic in present], {nic.private_gateway_id for nic in present}
    for gateway in gateways_of(session, vpc):
        if gateway.id not in plugged:
            devices.append(_free_device(devices))
            nic = Nic(router_id=router.id, private_gateway_id=gateway.id, mac=nics.new_mac(), address=gateway.address)
            nic.device = devices[-1]
            session.add(nic)
    session.flush()


def _free_device(taken: Collection[int]) -> int:
    return next(number for number in range(FIRST_PUBLIC_DEVICE, MOST_DEVICES) if number not in taken)


def choose_host(session: Session, router: Router, avoid: Mapping[int, str] | None = None) -> Host:
    """Return the host for a new router.

    :param avoid: host number → why it is not to be taken.
    :raises NoCapacity: none will do.
    """
    want = Want(
        mhz=placement.ROUTER_MHZ,
        memory=placement.ROUTER_MEMORY,
        account_id=router.account_id,
        pod_id=router.pod_id,
        machine=router.uuid,
        avoid=avoid or {},
        anywhere=placement.ROUTERS_ANYWHERE.flag(session),
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


def ensure_public_nics(session: Session, whole: Whole) -> None:
    """Give each router an interface on every VLAN that its public addresses are of, and on no other."""
    used = select(PublicIp.vlan, func.min(PublicIp.range_id)).where(public_ips.answered_by(whole))
    outside = ipv6.outside_of(session, whole)
    vlans = {outside.vlan: outside.range_id} if outside else {}
    vlans |= {vlan: number for vlan, number in session.execute(used.group_by(PublicIp.vlan))}
    for router in routers_of(session, whole):
        present = session.scalars(select(Nic).where(Nic.router_id == router.id)).all()
        if not present and (router.retired or router.replaces_id is not None):
            continue  # it has those of the one that it replaces, or that has replaced it
        ranges = {nic.range_id: nic for nic in present if nic.range_id}
        by_vlan = {session.get_one(public_ips.VlanRange, number).vlan: nic for number, nic in ranges.items()}
        for vlan in by_vlan.keys() - vlans.keys():
            session.delete(by_vlan[vlan])
        for vlan in sorted(vlans.keys() & by_vlan.keys()):
            by_vlan[vlan].range_id = vlans[vlan]  # a range of the same VLAN that is used no more can go
        devices = [nic.device for nic in present]
        for vlan in sorted(vlans.keys() - by_vlan.keys()):
            devices.append(_free_device(devices))
            nic = Nic(router_id=router.id, range_id=vlans[vlan], traffic="Public", mac=nics.new_mac())
            nic.device = devices[-1]
            session.add(nic)
    session.flush()


def remove_routers(session: Session, whole: Whole) -> list[Target]:
    """Have all routers taken down for good; their rows go when that is done."""
    return [target for router in routers_of(session, whole) for target in remove_router(session, router)]


def remove_router(session: Session, router: Router) -> list[Target]:
    """Have one router taken down for good.

    :return: what it was on, to be touched.
    """
    found = list(router.targets(session))
    heir = select(Router).where(Router.replaces_id == router.id, Router.dark, Router.removed.is_(None))
    for never_lit in session.scalars(heir).all():
        found.extend(remove_router(session, never_lit))
    router.running, router.state, router.removed = False, "Stopping", now()
    if router.target_id is not None:
        session.get_one(Target, router.target_id).absent = True
    for nic in session.scalars(select(Nic).where(Nic.router_id == router.id)):
        if nic.network is not None and router.vpc_id is not None:
            _remember_traffic(session, nic.network, router.target_id)
        redundancy.hand_over_addresses(session, nic)
        nics.release(session, nic)
    session.flush()
    return [*found, *redundancy.others(session, router)]


def shut_down(session: Session, network: Network) -> list[Target]:
    """Take the network's router down, or a tier out of its VPC's; the number is free once that is done."""
    found = unplug(session, network) if network.vpc_id is not None else remove_routers(session, network)
    network.state = "Shutdown"
    if not found:
        free_vnet(session, network)
    return found


def unplug(session: Session, network: Network) -> list[Target]:
    """Take the routers' interfaces out of a tier.

    :return: what they were on, to be touched.
    """
    found: list[Target] = []
    for nic in session.scalars(select(Nic).where(Nic.network_id == network.id, Nic.router_id.is_not(None))).all():
        router = session.get_one(Router, nic.router_id)
        found.extend(router.targets(session))
        _remember_traffic(session, network, router.target_id)
        nics.release(session, nic)
    return found


def is_idle(session: Session, network: Network) -> bool:
    """Tell whether nothing runs on the network, nor is about to."""
    query = select(Nic.id).join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
    return session.scalar(query.where(Nic.network_id == network.id, LIVE).limit(1)) is None


@targets.on_settled("router")
def router_is_up(session: Session, target: Target) -> None:
    """A router that stands at its generation is what was wanted of it; when it runs, its networks are implemented."""
    router = session.scalar(select(Router).where(Router.target_id == target.id))
    if router is None:
        return
    if router.running and router.dark:
        return  # made, and not serving
    router.state = "Running" if router.running else "Stopped"
    if not router.running:
        targets.touch(session, redundancy.others(session, router))  # the other half may now stand alone
        return
    served = select(Network).join(Nic, Nic.network_id == Network.id).where(Nic.router_id == router.id)
    for network in session.scalars(served.where(Network.state == "Implementing")):
        network.state = "Implemented"
    if router.vpc_id is not None:
        free_tiers(session, router.vpc_id)


def free_tiers(session: Session, vpc_id: int) -> None:
    """Give back the numbers of the tiers that no router is plugged into any more."""
    plugged = select(Nic.id).where(Nic.network_id == Network.id, Nic.router_id.is_not(None)).exists()
    left = (Network.state == "Shutdown") | Network.removed.is_not(None)
    tiers = select(Network).where(Network.vpc_id == vpc_id, Network.vnet.is_not(None), left, ~plugged)
    for network in session.scalars(tiers).all():
        free_vnet(session, network)


@targets.on_gone("router")
def router_is_gone(session: Session, target: Target) -> None:
    """The rows of a router that was taken down for good go, and the numbers of its networks are free."""
    router = session.scalar(select(Router).where(Router.target_id == target.id))
    if router is None:
        session.delete(target)
        return
    if router.removed is None:
        return
    network = router.network
    _keep_traffic(session, network, router)
    router.target_id = None
    session.flush()
    session.delete(target)
    session.flush()
    targets.touch(session, redundancy.others(session, router))
    if not redundancy.remain(session, router):
        redundancy.forget(session, router.whole)
    if router.vpc is not None:
        free_tiers(session, router.vpc.id)
        if router.vpc.removed is not None:
            routing.give_back(session, router.vpc)
        return
    assert network is not None
    others = select(Router.id).where(Router.network_id == network.id, Router.target_id.is_not(None)).limit(1)
    if (network.state == "Shutdown" or network.removed is not None) and session.scalar(others) is None:
        free_vnet(session, network)


def _keep_traffic(session: Session, network: Network | None, router: Router) -> None:
    """Add what the router that goes has counted to what its successor counts, or to what its network remembers."""
    found = session.get(Found, router.target_id)
    heir = session.scalar(select(Router).where(Router.replaces_id == router.id, Router.removed.is_(None)))
    if heir is not None:
        heir.replaces_id = None
    if found is not None and heir is not None and heir.target_id is not None:
        inherit(session, heir.target_id, found)
    elif network is not None:  # a VPC's tiers remembered it when the router's interfaces went
        _remember_traffic(session, network, router.target_id)


def _remember_traffic(session: Session, network: Network, target_id: int | None) -> None:
    """Add what a router that goes has counted to what its network remembers."""
    found = session.get(Found, target_id) if target_id is not None else None
    if found is not None:
        received, sent = counted(found.counters, network.uuid)
        network.received_before += received
        network.sent_before += sent


@duty(SECOND_INTERVAL)
def complete_pairs(session: Session) -> None:
    """Give redundant routers that are alone their other half, where there is a host for it now."""
    paired = redundancy.paired(session)
    for router in [
        found[0] for found in paired if len(found) == 1 and found[0].running and found[0].state == "Running"
    ]:
        plugged = select(Network).join(Nic, Nic.network_id == Network.id).where(Nic.router_id == router.id)
        both = _with_other_half(session, router, session.scalars(plugged).all())
        if len(both) > 1:
            targets.touch(session, [target for one in both for target in one.targets(session)])


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
