"""NICs of machines: adding, removing, readdressing, further addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from controlplane.api import dispatch
from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, many, one, success
from controlplane.api.context import Context, visible
from controlplane.api.listing import ListCommand
from controlplane.api.parameters import Records, Uuid, optional, required
from controlplane.api.responses import Response
from controlplane.compute import guest_networks
from controlplane.compute.bring_up import settle
from controlplane.compute.dhcp_options import option_numbers
from controlplane.compute.guarding import guard_new
from controlplane.compute.machine_views import machine_views, nic_views
from controlplane.compute.outcomes import Waits, latest, machine, standing, trouble
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.errors import ApiError, BadParameter, InUse, Unavailable
from controlplane.identity.accounts import Account
from controlplane.network import nics, public_ips
from controlplane.network.implement import ensure_implemented
from controlplane.network.load_balancers import LoadBalancerMember
from controlplane.network.networks import Network
from controlplane.network.nics import NetworkAddress, Nic, SecondaryAddress
from controlplane.network.pod_networks import targets_of
from controlplane.network.port_forwarding import PortForward
from controlplane.network.public_ips import PublicIp
from controlplane.network.security_groups import hosts_meaning
from controlplane.reconcile.targets import touch
from controlplane.work.workflows import Flow, workflow
from controlplane.zone.zones import Zone

MOST_SECONDARY = 255


@dataclass(kw_only=True)
class NicSecondaryIpResponse(Response):
    """A further address on a NIC."""

    id: str
    ipaddress: str
    networkid: str
    nicid: str
    virtualmachineid: str | None = None


def secondary_views(ctx: Context, rows: Sequence[SecondaryAddress]) -> list[NicSecondaryIpResponse]:
    """Return what further addresses look like."""
    query = (
        select(SecondaryAddress.id, Nic.uuid, Network.uuid, VirtualMachine.uuid)
        .join(Nic, SecondaryAddress.nic_id == Nic.id)
        .join(Network, SecondaryAddress.network_id == Network.id)
        .join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
        .where(SecondaryAddress.id.in_([row.id for row in rows]))
    )
    around = {number: (nic, network, vm) for number, nic, network, vm in ctx.session.execute(query)}
    views = []
    for row in rows:
        nic, network, vm = around[row.id]
        views.append(
            NicSecondaryIpResponse(
                id=row.uuid, ipaddress=row.address, networkid=network, nicid=nic, virtualmachineid=vm
            )
        )
    return views


class AddNicToVirtualMachine(Command, name="addNicToVirtualMachine", answer=one("virtualmachine", machine_views),
                             job=True, roles=EVERYONE, instance="VirtualMachine", event="NIC.CREATE"):  # fmt: skip
    """Put a machine on one more network, at once when it is running."""

    virtualmachineid: VirtualMachine = required()
    networkid: Network = required(uses=True)
    ipaddress: str | None = optional(check=guest_networks.ipv4)
    macaddress: str | None = optional(check=guest_networks.mac)
    dhcpoptions: Records | None = optional()

    def run(self, ctx: Context) -> VirtualMachine:
        """Make the NIC, and hand over to the workflow where the guest is to have it now."""
        vm, network = self.virtualmachineid, self.networkid
        _must_be_steady(vm)
        owner, zone = ctx.session.get_one(Account, vm.account_id), ctx.session.get_one(Zone, vm.zone_id)
        guest_networks.check_wishes(ctx.session, [guest_networks.Wish(network)], zone, owner)
        present = ctx.session.execute(select(Nic.network_id, Nic.device).where(Nic.vm_id == vm.id)).all()
        if network.id in {number for number, _ in present}:
            raise BadParameter(f"Invalid parameter networkid: instance {vm.name} is on network {network.name} already.")
        guest_networks.check_name(ctx, vm.hostname, [network], but=vm)
        devices = {device for _, device in present}
        device = next(number for number in range(len(devices) + 1) if number not in devices)
        nic = nics.allocate(
            ctx.session, network, address=self.ipaddress or "", mac=self.macaddress or "", vm=vm, device=device,
            default=not present,
        )  # fmt: skip
        if self.dhcpoptions:
            options = {name: value for record in self.dhcpoptions for name, value in record.items()}
            vm.dhcp_options = vm.dhcp_options | {network.uuid: option_numbers(options)}
        ctx.touch(network)
        ctx.touched.extend(guard_new(ctx.session, vm, None))
        if vm.state == "Running":
            ctx.go_on("plugNic", vm, nic=nic.id)
        return vm


@workflow("plugNic")
def plug_nic(flow: Flow) -> None:
    """Have the network made and the NIC plugged into the running guest; where that fails, the NIC goes again."""
    number = flow.arguments["nic"]
    try:
        waits = flow.step(prepare_plug, flow.subject, number)
        settle(flow, waits)
        waits = flow.step(plug, flow.subject, waits)
        settle(flow, waits)
        flow.step(plugged, flow.subject, waits)
    except ApiError:
        flow.step(unplug, flow.subject, number)
        raise


def prepare_plug(session: Session, uuid: str, number: int) -> Waits:
    """Have the network of the new NIC made."""
    nic = session.get(Nic, number)
    if nic is None or machine(session, uuid).state != "Running":
        return []
    network = session.get_one(Network, nic.network_id)
    pairs: list[Any] = list(ensure_implemented(session, network))
    return latest(pairs, standing(network.targets(session)))


def plug(session: Session, uuid: str, routers: Waits) -> Waits:
    """Ask the host for it.

    :raises Unavailable: a router does not know the guest.
    """
    vm = machine(session, uuid)
    problem = trouble(session, routers)
    if problem:
        raise Unavailable(f"The network of the new NIC is not ready. {problem}")
    return [list(pair) for pair in touch(session, vm.targets(session))]


def plugged(session: Session, uuid: str, waits: Waits) -> None:
    """See that the guest has it.

    :raises Unavailable: it has not; the sentence says why.
    """
    vm = machine(session, uuid)
    problem = trouble(session, waits, [vm.uuid])
    if problem:
        raise Unavailable(f"Instance {vm.name} could not be given the NIC. {problem}")


def unplug(session: Session, uuid: str, number: int) -> None:
    """Remove a NIC that could not be plugged."""
    nic = session.get(Nic, number)
    if nic is not None:
        vm = machine(session, uuid)
        touch(session, [*_remove(session, nic), *vm.targets(session)])


class RemoveNicFromVirtualMachine(Command, name="removeNicFromVirtualMachine",
                                  answer=one("virtualmachine", machine_views), job=True, roles=EVERYONE,
                                  instance="VirtualMachine", event="NIC.DELETE"):  # fmt: skip
    """Take a machine off a network, with every rule that leads to it there; not off its default network."""

    virtualmachineid: VirtualMachine = required()
    nicid: Uuid = required()

    def run(self, ctx: Context) -> VirtualMachine:
        """Remove the NIC."""
        vm = self.virtualmachineid
        nic = _nic(ctx, self.nicid, vm)
        _must_be_steady(vm)
        if nic.default:
            raise BadParameter(
                f"Invalid parameter nicid value={nic.uuid}: it is the default NIC of {vm.name}; make another the "
                "default first (updateDefaultNicForVirtualMachine)."
            )
        network = session_network(ctx.session, nic)
        vm.dhcp_options = {uuid: options for uuid, options in vm.dhcp_options.items() if uuid != network.uuid}
        ctx.touched.extend(_remove(ctx.session, nic))
        ctx.touch(network, vm)
        return vm


class UpdateDefaultNic(Command, name="updateDefaultNicForVirtualMachine", answer=one("virtualmachine", machine_views),
                       job=True, roles=EVERYONE, instance="VirtualMachine", event="NIC.UPDATE"):  # fmt: skip
    """Choose the NIC that a machine's default route goes through; the guest learns of it with its next lease."""

    virtualmachineid: VirtualMachine = required()
    nicid: Uuid = required()

    def run(self, ctx: Context) -> VirtualMachine:
        """Make it the default, and tell both networks."""
        vm = self.virtualmachineid
        nic = _nic(ctx, self.nicid, vm)
        _must_be_steady(vm)
        if nic.default:
            raise BadParameter(f"Invalid parameter nicid value={nic.uuid}: it is the default NIC already.")
        for other in ctx.session.scalars(select(Nic).where(Nic.vm_id == vm.id)):
            if other.default or other.id == nic.id:
                other.default = other.id == nic.id
                ctx.touch(session_network(ctx.session, other))
        ctx.session.flush()
        ctx.touch(vm)
        return vm


class UpdateVmNicIp(Command, name="updateVmNicIp", answer=one("virtualmachine", machine_views), job=True,
                    roles=EVERYONE, instance="VirtualMachine", event="NIC.UPDATE"):  # fmt: skip
    """Give a NIC of a stopped machine another address, a free one where none is named."""

    nicid: Uuid = required()
    ipaddress: str | None = optional(check=guest_networks.ipv4)

    def run(self, ctx: Context) -> VirtualMachine:
        """Change the address; rules that lead to the old one stand in the way."""
        nic = _nic(ctx, self.nicid)
        vm = ctx.session.get_one(VirtualMachine, nic.vm_id)
        if vm.state != "Stopped":
            raise BadParameter(
                f"Invalid parameter nicid value={nic.uuid}: instance {vm.name} is {vm.state}; stop it first."
            )
        network = session_network(ctx.session, nic)
        _must_be_unused(ctx.session, nic, nic.address)
        if self.ipaddress != nic.address:
            old = nic.address
            nic.address = nics.take_address(ctx.session, network, self.ipaddress or "", nic)
            _free(ctx.session, network, old)
        _touch_all(ctx, nic)
        return vm


class AddIpToNic(Command, name="addIpToNic", answer=one("nicsecondaryip", secondary_views), job=True, creates=True,
                 roles=EVERYONE, envelope="addiptovmnicresponse", instance="NicSecondaryIp",
                 event="NIC.SECONDARY.IP.ASSIGN"):  # fmt: skip
    """Reserve a further address for a NIC: rules can lead to it; the guest configures it itself."""

    nicid: Uuid = required()
    ipaddress: str | None = optional(check=guest_networks.ipv4)

    def run(self, ctx: Context) -> SecondaryAddress:
        """Take the address."""
        nic = _nic(ctx, self.nicid)
        network = session_network(ctx.session, nic)
        if len(nic.secondary) >= MOST_SECONDARY:
            raise BadParameter(f"Invalid parameter nicid value={nic.uuid}: it has {MOST_SECONDARY} further addresses.")
        row = SecondaryAddress(nic_id=nic.id, network_id=network.id)
        row.address = nics.take_address(ctx.session, network, self.ipaddress or "", nic)
        ctx.session.add(row)
        ctx.session.flush()
        _touch_all(ctx, nic)
        return row


class RemoveIpFromNic(Command, name="removeIpFromNic", answer=success(), job=True, roles=EVERYONE,
                      instance="NicSecondaryIp", event="NIC.SECONDARY.IP.UNASSIGN"):  # fmt: skip
    """Free a further address of a NIC; rules that lead to it stand in the way."""

    id: Uuid = required()

    def run(self, ctx: Context) -> None:
        """Free it."""
        row = ctx.session.scalar(select(SecondaryAddress).where(SecondaryAddress.uuid == self.id.lower()))
        if row is None:
            raise BadParameter(f"Invalid parameter id value={self.id}: there is no such address, or it is not yours.")
        nic = ctx.session.get_one(Nic, row.nic_id)
        _nic(ctx, nic.uuid, parameter="id", shown=self.id)
        network = session_network(ctx.session, nic)
        _must_be_unused(ctx.session, nic, row.address)
        _free(ctx.session, network, row.address)
        ctx.instance = row
        ctx.session.delete(row)
        _touch_all(ctx, nic)


class ListNics(ListCommand, name="listNics", answer=many("nic", nic_views), roles=EVERYONE):
    """List the NICs of a machine."""

    table = Nic
    keywords = (Nic.address, Nic.mac)
    order = (Nic.device,)

    virtualmachineid: VirtualMachine = required()
    nicid: Uuid | None = optional()
    networkid: Network | None = optional()
    fordisplay: bool | None = optional(description="every NIC is for display", admin=True)

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep those of the machine."""
        del ctx
        query = query.where(Nic.vm_id == self.virtualmachineid.id)
        if self.nicid is not None:
            query = query.where(Nic.uuid == self.nicid.lower())
        if self.networkid is not None:
            query = query.where(Nic.network_id == self.networkid.id)
        return query.where(Nic.id.is_(None)) if self.fordisplay is False else query


def session_network(session: Session, nic: Nic) -> Network:
    """Return the network that a guest's NIC is on."""
    return session.get_one(Network, nic.network_id)


def _nic(ctx: Context, uuid: str, vm: VirtualMachine | None = None, parameter: str = "nicid", shown: str = "") -> Nic:
    query = select(Nic).join(VirtualMachine, Nic.vm_id == VirtualMachine.id)
    query = query.where(Nic.uuid == uuid.lower(), visible(VirtualMachine, ctx.caller))
    nic = ctx.session.scalar(query if vm is None else query.where(Nic.vm_id == vm.id))
    if nic is None:
        whose = f"instance {vm.name} has no such NIC" if vm else "there is none, or it is not yours to use"
        raise BadParameter(f"Invalid parameter {parameter} value={shown or uuid}: {whose}.")
    return nic


def _touch_all(ctx: Context, nic: Nic) -> None:
    """Say that the NIC's addresses are others: its network, its host, and the hosts whose rules mean it know them."""
    vm = ctx.session.get_one(VirtualMachine, nic.vm_id)
    ctx.touch(session_network(ctx.session, nic), vm)
    ctx.touched.extend(hosts_meaning(ctx.session, vm.id))


def _must_be_steady(vm: VirtualMachine) -> None:
    if vm.state not in ("Running", "Stopped"):
        raise BadParameter(
            f"Invalid parameter virtualmachineid value={vm.uuid}: instance {vm.name} is {vm.state}, and must be "
            "Running or Stopped."
        )


def _must_be_unused(session: Session, nic: Nic, address: str) -> None:
    """Make sure that no rule leads to the address of the NIC."""
    forwards = select(PortForward.uuid).where(PortForward.nic_id == nic.id, PortForward.guest == address)
    members = select(LoadBalancerMember.address).where(
        LoadBalancerMember.nic_id == nic.id, LoadBalancerMember.address == address
    )
    mapped = select(PublicIp.address).where(PublicIp.nic_id == nic.id, PublicIp.nic_address == address)
    found = [
        what
        for what, query in (("port forwarding", forwards), ("load balancing", members), ("static NAT", mapped))
        if session.scalar(query.limit(1)) is not None
    ]
    if found:
        raise InUse(f"Address {address} is used by {' and '.join(found)}: remove those rules first.")


def _free(session: Session, network: Network, address: str) -> None:
    mine = NetworkAddress.network_id == network.id, NetworkAddress.address == address
    session.execute(delete(NetworkAddress).where(*mine))


def _remove(session: Session, nic: Nic) -> list[Any]:
    network = session_network(session, nic)
    touched = [
        *public_ips.forget_nic(session, nic),
        *targets_of(session, network, nic),
        *hosts_meaning(session, nic.vm_id or 0),
    ]
    nics.release(session, nic)
    return touched


dispatch.JOB_TABLES["NicSecondaryIp"] = SecondaryAddress
