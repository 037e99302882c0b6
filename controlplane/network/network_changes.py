"""Making, changing, restarting and deleting guest networks."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import optional, required
from controlplane.db.base import now
from controlplane.errors import BadParameter, InUse
from controlplane.identity import limits, names
from controlplane.identity.accounts import Account
from controlplane.network import implement, ipv6, mtu, public_ips
from controlplane.network.l2 import refuse_changes
from controlplane.network.network_permissions import ACCOUNT, NetworkPermission
from controlplane.network.networks import Network, Whole, network_views
from controlplane.network.nics import NetworkAddress, Nic
from controlplane.network.offering_change import change_offering
from controlplane.network.private_vlans import hearing_hosts
from controlplane.network.public_ips import PublicIp, VlanRange
from controlplane.network.reserved_range import reserve
from controlplane.network.vnets import free_vnet
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.reconcile import targets
from controlplane.zone import syntax
from controlplane.zone.zones import Zone


def default_domain(owner: Account, zone: Zone) -> str:
    """Return the DNS domain of networks whose creator names none, as CloudStack makes it."""
    named = owner.network_domain or owner.domain.network_domain or zone.network_domain
    return named or f"cs{owner.id:x}cloud.internal"


class UpdateNetwork(Command, name="updateNetwork", answer=one("network", network_views), roles=EVERYONE, job=True,
                    event="NETWORK.UPDATE", instance="Network",
                    unsupported=("updateinsequence",)):  # fmt: skip
    """Update a guest network."""

    id: Network = required()
    name: str | None = optional(check=names.text)
    displaytext: str | None = optional(check=names.text)
    displaynetwork: bool | None = optional(admin=True)
    dns1: str | None = optional(check=syntax.ipv4)
    dns2: str | None = optional(check=syntax.ipv4)
    networkdomain: str | None = optional(check=names.dns_domain)
    privatemtu: int | None = optional(check=mtu.mtu)
    publicmtu: int | None = optional(check=mtu.mtu)
    sourcenatipaddress: str | None = optional(check=syntax.ipv4)
    ip6dns1: str | None = optional(check=syntax.ipv6)
    ip6dns2: str | None = optional(check=syntax.ipv6)
    hideipaddressusage: bool | None = optional()
    customid: str | None = optional(admin=True)
    guestvmcidr: str | None = optional(
        description="guests get addresses of this part of the network only; the whole network's CIDR ends that"
    )
    networkofferingid: NetworkOffering | None = optional()
    changecidr: bool | None = optional(description="accepted: another offering leaves a network's CIDR alone")
    forced: bool | None = optional(
        False, admin=True, description="remove the rules of services that the new offering lacks"
    )

    def run(self, ctx: Context) -> Network:
        """Change what is given; routers learn of it without a restart."""
        network = self.id
        self._check_tier(network)
        refuse_changes(network, self)
        if self.guestvmcidr is not None:
            reserve(ctx.session, network, self.guestvmcidr)
        if self.networkofferingid is not None:
            old, new = network.offering.name, self.networkofferingid
            ctx.touched += change_offering(ctx.session, network, new, forced=bool(self.forced))
            restart = ", which waits for the routers' restart" if network.restart_required else ""
            ctx.note = f"network {network.name} from offering {old} to {new.name}{restart}"
        network.name = self.name or network.name
        network.display_text = self.displaytext or network.display_text
        network.network_domain = self.networkdomain or network.network_domain
        network.uuid = self.customid or network.uuid
        mtu.change(ctx, network, self.privatemtu, self.publicmtu)
        if self.displaynetwork is not None:
            network.display = self.displaynetwork
        if self.dns1 or self.dns2:
            network.dns = [server for server in (self.dns1, self.dns2) if server]
        if self.ip6dns1 or self.ip6dns2:
            network.dns6 = [server for server in (self.ip6dns1, self.ip6dns2) if server]
        if network.cidr6:
            ipv6.refuse_small_mtu(network)
        if self.hideipaddressusage is not None:
            network.details = network.details | {"hideIpAddressUsage": str(self.hideipaddressusage).lower()}
        if self.sourcenatipaddress:
            move_source_nat(ctx.session, network, self.sourcenatipaddress)
        ctx.touch(network)
        return network

    def _check_tier(self, network: Network) -> None:
        """Refuse what a tier has from its VPC."""
        if network.vpc is None:
            return
        for name in ("networkdomain", "publicmtu", "sourcenatipaddress"):
            if getattr(self, name) is not None:
                raise BadParameter(
                    f"Invalid parameter {name} value={getattr(self, name)}: network {network.name} has it from VPC "
                    f"{network.vpc.name}."
                )


def move_source_nat(session: Session, whole: Whole, wanted: str) -> None:
    """Have the guests of a VPC, or of a network that stands alone, leave with another of its addresses.

    :raises BadParameter: it does not have the address, or static NAT uses it.
    """
    mine = public_ips.used_by(whole)
    found = session.scalar(select(PublicIp).where(mine, PublicIp.address == wanted))
    if found is None:
        raise BadParameter(f"Invalid parameter sourcenatipaddress value={wanted}: acquire it for {whole.name} first.")
    if found.static_nat:
        raise BadParameter(f"Invalid parameter sourcenatipaddress value={wanted}: static NAT uses it.")
    session.execute(update(PublicIp).where(mine, PublicIp.source_nat).values(source_nat=False))
    found.source_nat = True


class DeleteNetwork(Command, name="deleteNetwork", answer=success(), roles=EVERYONE, job=True,
                    event="NETWORK.DELETE", instance="Network"):  # fmt: skip
    """Delete a guest network on which there is no machine."""

    id: Network = required()
    forced: bool | None = optional(False, admin=True)

    def run(self, ctx: Context) -> None:
        """Give back everything it has; its router is taken down."""
        ctx.instance = self.id
        ctx.touched.extend(delete_network(ctx.session, self.id))


def delete_network(session: Session, network: Network) -> list[targets.Target]:
    """Delete the network with its addresses and rules.

    :return: what it was on, to be touched.
    :raises InUse: machines have interfaces on it; they are named.
    """
    from controlplane.compute.virtual_machines import VirtualMachine

    called = select(VirtualMachine.name).join(Nic, Nic.vm_id == VirtualMachine.id)
    here = session.scalars(called.where(Nic.network_id == network.id).order_by(VirtualMachine.id).limit(5)).all()
    if here:
        raise InUse(f"Network {network.name} cannot be deleted: {', '.join(here)} have interfaces on it.")
    public_ips.forget_network(session, network)
    touched = implement.unplug(session, network) if network.vpc_id is not None else []
    touched += implement.remove_routers(session, network)
    told = [target for host in hearing_hosts(session, network) for target in host.targets(session)]
    network.removed, network.state = now(), "Destroy"
    if not touched:
        free_vnet(session, network)
    for table in (NetworkAddress, VlanRange, NetworkPermission):
        session.query(table).filter_by(network_id=network.id).delete()
    if network.acl_type == ACCOUNT:
        limits.give_back(session, network.account_id, "network")
    targets.touch(session, told)  # nothing waits for them: what they hear too much of is sent no more
    return touched
