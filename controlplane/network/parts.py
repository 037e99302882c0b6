"""Parts: the appliances that share the work of one network, each with its own place and addresses.

The network of a basic zone has a router in each pod where it is in use. Where an offering has elastic load balancing,
an account's first rule starts an appliance of its own, and its last rule takes that down.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.identity.accounts import Account
from controlplane.network import implement
from controlplane.network.load_balancers import LoadBalancer
from controlplane.network.networks import Network, services_of
from controlplane.network.pod_networks import by_pods, pods_in_use, without_address
from controlplane.network.routers import BALANCING, Router, part_of_balancing, part_of_pod
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.reconcile import targets
from controlplane.reconcile.sweep import duty
from controlplane.reconcile.targets import Target

SWEEP = 10
"""Seconds between two looks for appliances that have nothing to balance any more."""


def ensure(session: Session, network: Network, provider: str, pod_id: int | None = None) -> list[Router]:
    """Return the routers of this provider that the network needs now, running; repeatable.

    :param pod_id: only the one of this pod: what is wrong in another is not waited for.
    :raises NoCapacity: no host will do for one of them.
    """
    if pod_id is not None:
        return [_of_pod(session, network, provider, pod_id)]
    found = [_of_pod(session, network, provider, pod) for pod in pods_in_use(session, network)]
    if not by_pods(network):
        found = [implement.ensure_router(session, network, provider)]
    if network.offering.elastic_lb and provider in services_of(network)["Lb"]:
        balanced = select(LoadBalancer.account_id).where(LoadBalancer.network_id == network.id).distinct()
        found += [ensure_balancer(session, network, number) for number in sorted(session.scalars(balanced))]
    return found


def _of_pod(session: Session, network: Network, provider: str, pod_id: int) -> Router:
    router = _with_part(session, network, part_of_pod(pod_id)) or implement.add_router(session, network, provider)
    router.part, router.pod_id = part_of_pod(pod_id), pod_id
    return implement.bring_up(session, router, [network])


def _with_part(session: Session, network: Network, part: str) -> Router | None:
    return next((router for router in implement.serving(session, network) if router.part == part), None)


def ensure_balancer(session: Session, network: Network, account_id: int) -> Router:
    """Return the appliance that balances for an account on a network with elastic load balancing, running; repeatable.

    :raises NoCapacity: no host will do.
    :raises NoAddress: no pod has an address left for it.
    """
    part = part_of_balancing(account_id)
    router = _with_part(session, network, part)
    if router is None:
        owner = session.get_one(Account, account_id)
        router = implement.add_router(session, network, services_of(network)["Lb"][0])
        router.part, router.account_id, router.domain_id = part, owner.id, owner.domain_id
        own = select(ServiceOffering.id).where(ServiceOffering.system_vm_type == "elasticloadbalancervm").limit(1)
        router.service_offering_id = session.scalar(own)
        host = implement.choose_host(session, router, without_address(session, network))
        router.pod_id = host.pod_id if by_pods(network) else None
        implement.place(session, router, host)
    return implement.bring_up(session, router, [network])


def take_down_idle(session: Session, network: Network, account_id: int) -> list[Target]:
    """Take an account's appliance down where it has nothing to balance any more.

    :return: what it was on, to be touched.
    """
    session.flush()
    left = LoadBalancer.network_id == network.id, LoadBalancer.account_id == account_id
    router = _with_part(session, network, part_of_balancing(account_id))
    if router is None or session.scalar(select(LoadBalancer.id).where(*left).limit(1)) is not None:
        return []
    return implement.remove_router(session, router)


@duty(SWEEP)
def take_down_forgotten(session: Session) -> None:
    """Take down the appliances whose last rules went with their address, or with their account."""
    there = Router.part.startswith(BALANCING), Router.removed.is_(None), Router.retired.is_(None), ~Router.dark
    for router in session.scalars(select(Router).where(*there)).all():
        if router.network is not None:
            targets.touch(session, take_down_idle(session, router.network, router.account_id))
