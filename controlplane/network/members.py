"""The guests behind load balancer rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, success
from controlplane.api.context import Context, visible
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import Records, optional, required
from controlplane.api.responses import Response
from controlplane.compute.machine_views import VirtualMachineResponse, machine_views
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.errors import BadParameter, RuleConflict
from controlplane.network.load_balancers import LoadBalancer, LoadBalancerMember
from controlplane.network.nics import Nic
from controlplane.network.rules import GONE, guest_address, guest_nic
from controlplane.reconcile.targets import Found

Place = tuple[VirtualMachine, str]
"""A machine, and the address of it that is meant; empty is its first on the network, or all of them."""


def _places(
    ctx: Context, machines: list[VirtualMachine] | None, records: Sequence[dict[str, str]] | None
) -> list[Place]:
    """Return the machines that a command names, with their addresses.

    :raises BadParameter: none is named, or an entry of the map is no machine with an address.
    """
    named: list[Place] = [(vm, "") for vm in machines or []]
    for record in records or []:
        given = {name.lower(): value for name, value in record.items()}
        if not given.get("vmid"):
            raise BadParameter("Invalid parameter vmidipmap: each entry is written vmidipmap[0].vmid and .vmip.")
        vm = ctx.find(VirtualMachine, given["vmid"], "vmidipmap")
        assert isinstance(vm, VirtualMachine)
        named.append((vm, given.get("vmip", "")))
    if not named:
        raise BadParameter("Invalid parameter virtualmachineids: give it, or vmidipmap.")
    return list(dict.fromkeys(named))


class AssignToLoadBalancerRule(Command, name="assignToLoadBalancerRule", answer=success(), job=True,
                               instance="LoadBalancerRule", roles=EVERYONE, event="LB.ASSIGN.TO.RULE"):  # fmt: skip
    """Put machines behind a load balancer rule."""

    id: LoadBalancer = required()
    virtualmachineids: list[VirtualMachine] | None = optional()
    vmidipmap: Records | None = optional(description="machine and one of its addresses: [0].vmid, [0].vmip")

    def run(self, ctx: Context) -> None:
        """Check, and put them there."""
        rule, session = self.id, ctx.session
        there = {member.address for member in rule.members}
        for vm, wanted in _places(ctx, self.virtualmachineids, self.vmidipmap):
            nic = guest_nic(session, vm, rule.network, rule.account_id)
            address = guest_address(session, nic, wanted, "vmidipmap")
            if address in there:
                raise RuleConflict(
                    f"Invalid parameter virtualmachineids value={vm.uuid}: virtual machine {vm.name} ({address}) "
                    f"serves load balancer rule {rule.uuid} already: leave it out."
                )
            there.add(address)
            rule.members.append(LoadBalancerMember(nic_id=nic.id, address=address, vm_id=vm.id))
        ctx.instance = rule
        ctx.touch(rule)


class RemoveFromLoadBalancerRule(Command, name="removeFromLoadBalancerRule", answer=success(), job=True,
                                 instance="LoadBalancerRule", roles=EVERYONE,
                                 event="LB.REMOVE.FROM.RULE"):  # fmt: skip
    """Take machines out of a load balancer rule."""

    id: LoadBalancer = required()
    virtualmachineids: list[VirtualMachine] | None = optional(description="with all their addresses")
    vmidipmap: Records | None = optional(description="machine and one of its addresses: [0].vmid, [0].vmip")

    def run(self, ctx: Context) -> None:
        """Check, and take them out."""
        rule = self.id
        for vm, address in _places(ctx, self.virtualmachineids, self.vmidipmap):
            gone = [item for item in rule.members if item.vm_id == vm.id and address in ("", item.address)]
            if not gone:
                what = f"{vm.name} ({address})" if address else vm.name
                raise BadParameter(
                    f"Invalid parameter virtualmachineids: {what} does not serve load balancer rule {rule.uuid}."
                )
            for member in gone:
                rule.members.remove(member)
        ctx.instance = rule
        ctx.touch(rule)


@dataclass(kw_only=True)
class InstanceResponse(VirtualMachineResponse):
    """A machine behind a rule.

    ``servicestate`` is what the router's health check says of it: ``UP`` or ``DOWN``; left out while unknown.
    """

    servicestate: str | None = None


@dataclass(kw_only=True)
class PlacedInstanceResponse(Response):
    """A machine behind a rule, with the addresses of it that serve (``lbvmips``)."""

    lbvmipaddresses: list[str]
    loadbalancerruleinstance: InstanceResponse


def instance_views(ctx: Context, rows: Sequence[VirtualMachine]) -> list[InstanceResponse]:
    """Show machines, as yet without their state behind a rule."""
    shown = machine_views(ctx, rows)
    names = [field.name for field in fields(VirtualMachineResponse)]
    return [InstanceResponse(**{name: getattr(machine, name) for name in names}) for machine in shown]


class ListLoadBalancerRuleInstances(ListCommand, name="listLoadBalancerRuleInstances", roles=EVERYONE,
                                    answer=many("loadbalancerruleinstance", instance_views)):  # fmt: skip
    """List the machines behind a load balancer rule, or those that could be."""

    table = VirtualMachine
    keywords = (VirtualMachine.name, VirtualMachine.display_name)

    id: LoadBalancer = required()
    applied: bool | None = optional(True, description="false: the machines of the network that are not behind it")
    lbvmips: bool | None = optional(False, description="with the addresses that serve")

    def matching_rows(self, ctx: Context) -> Select[Any]:
        """Return the query for the rule's machines."""
        rule = self.id
        behind = select(LoadBalancerMember.vm_id).where(LoadBalancerMember.load_balancer_id == rule.id)
        query = select(VirtualMachine).where(visible(VirtualMachine, ctx.caller), VirtualMachine.removed.is_(None))
        if self.keyword:
            query = query.where(VirtualMachine.name.icontains(self.keyword, autoescape=True))
        if self.applied is not False:
            return query.where(VirtualMachine.id.in_(behind))
        here = select(Nic.vm_id).where(Nic.network_id == rule.network_id, Nic.vm_id.is_not(None))
        mine = VirtualMachine.account_id == rule.account_id, VirtualMachine.state.not_in(GONE)
        return query.where(VirtualMachine.id.in_(here), VirtualMachine.id.not_in(behind), *mine)

    def run(self, ctx: Context) -> tuple[Sequence[Any], int]:
        """Return one page of machines; with ``lbvmips`` under another key."""
        rows, count = super().run(ctx)
        rule = self.id

        def instances(ctx: Context, rows: Sequence[VirtualMachine]) -> list[InstanceResponse]:
            return _with_states(ctx, rule, rows)

        def placed(ctx: Context, rows: Sequence[VirtualMachine]) -> list[PlacedInstanceResponse]:
            serving = _serving(ctx.session, rule)
            return [
                PlacedInstanceResponse(lbvmipaddresses=serving.get(row.id, []), loadbalancerruleinstance=shown)
                for row, shown in zip(rows, _with_states(ctx, rule, rows), strict=True)
            ]

        # what a machine looks like depends on the rule, and the key on the form that is asked for
        self.answer = many("lbrulevmidip", placed) if self.lbvmips else many("loadbalancerruleinstance", instances)  # type: ignore[misc]
        return rows, count


def _serving(session: Session, rule: LoadBalancer) -> dict[int, list[str]]:
    """Return the addresses that serve, by machine number."""
    found: dict[int, list[str]] = {}
    columns = LoadBalancerMember.vm_id, LoadBalancerMember.address
    query = select(*columns).where(LoadBalancerMember.load_balancer_id == rule.id)
    for number, address in session.execute(query.order_by(LoadBalancerMember.address)):
        found.setdefault(number, []).append(address)
    return found


def _with_states(ctx: Context, rule: LoadBalancer, rows: Sequence[VirtualMachine]) -> list[InstanceResponse]:
    shown, serving = instance_views(ctx, rows), _serving(ctx.session, rule)
    states = member_states(ctx.session, rule)
    for row, response in zip(rows, shown, strict=True):
        seen = {address: states.get(f"{row.uuid}-{address}") for address in serving.get(row.id, [])}
        known = {state for state in seen.values() if state}
        if len(known) == 1:
            (response.servicestate,) = known
        elif known:
            response.servicestate = ", ".join(f"{address} {state or 'unknown'}" for address, state in seen.items())
    return shown


def member_states(session: Session, rule: LoadBalancer) -> dict[str, str]:
    """Return what the health checks last said, by server name (``MACHINE-UUID-ADDRESS``)."""
    numbers = [target.id for target in rule.targets(session)]
    prefix, found = f"{rule.uuid}/", {}
    for states in session.scalars(select(Found.states).where(Found.target_id.in_(numbers))):
        found.update({key.removeprefix(prefix): state for key, state in states.items() if key.startswith(prefix)})
    return found
