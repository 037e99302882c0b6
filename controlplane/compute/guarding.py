"""Which security groups guard a machine: chosen when it is made, and changed at any time, while it runs too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from controlplane.api.context import Context
from controlplane.compute.outcomes import networks_of
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.configuration import define
from controlplane.errors import BadParameter, Forbidden
from controlplane.identity.accounts import Account
from controlplane.network.networks import Network, services_of
from controlplane.network.security_groups import (
    SecurityGroup,
    SecurityGroupMember,
    default_group,
    hosts_meaning,
)
from controlplane.reconcile.targets import Target

SERVICE = "SecurityGroup"
MOST_GROUPS = 32
"""Groups that one machine may be in."""
ADD_DEFAULT = define(
    "network.securitygroups.defaultadding",
    True,
    "Whether a machine that no security group was named for is put into its account's default group",
    category="Network",
)


def guards(networks: Iterable[Network]) -> bool:
    """Tell whether security groups guard a port on one of these networks."""
    return any(SERVICE in services_of(network) for network in networks)


def chosen(
    ctx: Context,
    owner: Account,
    networks: Sequence[Network],
    ids: Sequence[SecurityGroup] | None,
    names: Sequence[str] | None,
) -> list[SecurityGroup] | None:
    """Return the groups that ``securitygroupids`` or ``securitygroupnames`` mean; None where neither is given.

    :param owner: of the machine: its groups are the same account's.
    :raises BadParameter: both are given, a name is none, or no group guards a network of the machine.
    :raises Forbidden: a group is another account's.
    """
    if ids is None and names is None:
        return None
    parameter = "securitygroupnames" if ids is None else "securitygroupids"
    if ids is not None and names is not None:
        raise BadParameter("Invalid parameter securitygroupnames: it cannot go together with securitygroupids.")
    if not guards(networks):
        where = ", ".join(network.name for network in networks)
        raise BadParameter(
            f"Invalid parameter {parameter}: no security group guards {where}: their offerings lack the service "
            f"{SERVICE}; leave it out."
        )
    groups = list(dict.fromkeys(ids if ids is not None else _named(ctx, owner, names or ())))
    for group in groups:
        if group.account_id != owner.id:
            raise Forbidden(
                f"Invalid parameter {parameter} value={group.uuid}: group {group.name} is another account's, and the "
                f"machine is {owner.name}'s."
            )
    if len(groups) > MOST_GROUPS:
        raise BadParameter(
            f"Invalid parameter {parameter}: it names {len(groups)} groups, and a machine can be in {MOST_GROUPS}."
        )
    return groups


def _named(ctx: Context, owner: Account, names: Sequence[str]) -> list[SecurityGroup]:
    default_group(ctx.session, owner)
    rows = ctx.session.scalars(
        select(SecurityGroup).where(SecurityGroup.account_id == owner.id, SecurityGroup.name.in_(names))
    )
    known = {row.name: row for row in rows}
    for name in names:
        if name not in known:
            raise BadParameter(
                f"Invalid parameter securitygroupnames value={name}: account {owner.name} has no security group of "
                "this name."
            )
    return [known[name] for name in names]


def put_in(session: Session, vm: VirtualMachine, groups: Iterable[SecurityGroup]) -> list[Target]:
    """Have the machine be in these groups and no other.

    :return: the targets of the hosts where a rule means the machine by its former or its new groups.
    """
    session.flush()
    touched = hosts_meaning(session, vm.id)
    session.execute(delete(SecurityGroupMember).where(SecurityGroupMember.vm_id == vm.id))
    rows = [{"vm_id": vm.id, "group_id": group.id} for group in groups]
    if rows:
        session.execute(insert(SecurityGroupMember), rows)
        touched += hosts_meaning(session, vm.id)
    return touched


def guard_new(session: Session, vm: VirtualMachine, groups: Sequence[SecurityGroup] | None) -> list[Target]:
    """Put a machine that is in no group yet into these, or into the default one where it is on a guarded network.

    :param groups: None where the caller named none.
    :return: as :func:`put_in` does.
    """
    if groups is None:
        there = select(SecurityGroupMember.group_id).where(SecurityGroupMember.vm_id == vm.id)
        if session.scalar(there.limit(1)) is not None:
            return hosts_meaning(session, vm.id)
        if not guards(networks_of(session, vm)) or not ADD_DEFAULT.flag(session):
            return []
        groups = [default_group(session, session.get_one(Account, vm.account_id))]
    return put_in(session, vm, groups)
