"""What an account has in this room: how it is counted, and how it is taken away with the account."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.identity import limits, ownership
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.network.load_balancers import Certificate
from controlplane.network.network_changes import delete_network
from controlplane.network.network_permissions import ACCOUNT, DOMAIN, NetworkPermission
from controlplane.network.networks import Network
from controlplane.network.nics import Nic
from controlplane.network.public_ips import PublicIp, VlanRange, release
from controlplane.network.vpc_changes import delete_vpc
from controlplane.network.vpcs import Vpc
from controlplane.reconcile.targets import Target

limits.counted_by("network", limits.rows_of(Network, Network.removed.is_(None), Network.acl_type == ACCOUNT))
limits.counted_by("vpc", limits.rows_of(Vpc, Vpc.removed.is_(None)))
limits.counted_by("public_ip", limits.rows_of(PublicIp))


def remove_networks(session: Session, account: Account) -> list[Target]:
    """Delete the account's networks and VPCs with their rules and addresses; their routers are taken down.

    :raises InUse: a machine of another account is on one.
    """
    own = select(Network).where(Network.account_id == account.id, Network.removed.is_(None)).order_by(Network.id)
    touched = [target for network in session.scalars(own).all() for target in delete_network(session, network)]
    vpcs = select(Vpc).where(Vpc.account_id == account.id, Vpc.removed.is_(None)).order_by(Vpc.id)
    return touched + [target for vpc in session.scalars(vpcs).all() for target in delete_vpc(session, vpc)]


def give_addresses_back(session: Session, account: Account) -> list[Target]:
    """Give back the addresses that are the account's without a network, and the ranges that only it could use."""
    for address in session.scalars(select(PublicIp).where(PublicIp.account_id == account.id)).all():
        release(session, address)
    for addresses in session.scalars(select(VlanRange).where(VlanRange.account_id == account.id)):
        addresses.account_id = addresses.domain_id = None
    return []


def remove_certificates(session: Session, account: Account) -> list[Target]:
    """Delete the account's certificates, which no load balancer uses any more."""
    for row in session.scalars(select(Certificate).where(Certificate.account_id == account.id)):
        session.delete(row)
    return []


def foreign_machines(session: Session, account: Account) -> list[str]:
    """Say which machines of others, who were permitted to use them, are on the account's networks."""
    query = select(VirtualMachine.name, Network.name).join(Nic, Nic.vm_id == VirtualMachine.id)
    query = query.join(Network, Nic.network_id == Network.id).where(Network.account_id == account.id)
    others = query.where(VirtualMachine.account_id != account.id).order_by(VirtualMachine.id).limit(5)
    return [f"machine {vm} of another account is on its network {network}" for vm, network in session.execute(others)]


def remove_permissions(session: Session, account: Account) -> list[Target]:
    """Have nobody permit anything to an account that is no more."""
    session.execute(delete(NetworkPermission).where(NetworkPermission.account_id == account.id))
    return []


def networks_for(session: Session, domain: Domain) -> list[str]:
    """Say which Shared networks are for the accounts of a domain."""
    for_it = Network.domain_id == domain.id, Network.acl_type == DOMAIN, Network.removed.is_(None)
    names = session.scalars(select(Network.name).where(*for_it).order_by(Network.id))
    return [f"Shared network {name} is for the accounts of {domain.name_path}; delete it first" for name in names]


ownership.objects_to_domain_removal(networks_for)
ownership.on_account_removed(remove_networks, ownership.NETWORKS)
ownership.on_account_removed(give_addresses_back, ownership.ADDRESSES)
ownership.on_account_removed(remove_certificates)
ownership.on_account_removed(remove_permissions)
ownership.objects_to_removal(foreign_machines)
