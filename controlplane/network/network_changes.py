"""Making, changing, restarting and deleting guest networks."""

from __future__ import annotations

import ipaddress

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import Long, Uuid, optional, required
from controlplane.db.base import now
from controlplane.errors import BadParameter, InUse
from controlplane.identity import limits, names
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.identity.ownership import owner_of_new
from controlplane.network import implement, ipv6, public_ips, routing, tiers
from controlplane.network.acls import AclList
from controlplane.network.addressing import guest_range, subnet
from controlplane.network.bgp_peers import BgpPeer
from controlplane.network.networks import Network, Whole, network_views, services_of
from controlplane.network.nics import NetworkAddress, Nic
from controlplane.network.offering_change import change_offering
from controlplane.network.physical_choice import objection
from controlplane.network.public_ips import PublicIp
from controlplane.network.reserved_range import reserve
from controlplane.network.vpcs import Vpc
from controlplane.offering.network_offerings import NetworkOffering, has_ipv4, has_ipv6
from controlplane.reconcile import targets
from controlplane.zone import syntax
from controlplane.zone.physical_networks import PhysicalNetwork, Vnet
from controlplane.zone.zones import Zone


def mtu(value: int) -> int:
    """Return the value, which must be an MTU in bytes (RFC 791: 68 at least).

    :raises ValueError: it is too small or too large.
    """
    if not 576 <= value <= 9000:
        raise ValueError("an MTU is 576 to 9000 bytes here")
    return value


class CreateNetwork(Command, name="createNetwork", answer=one("network", network_views), roles=EVERYONE,
                    event="NETWORK.CREATE", instance="Network",
                    unsupported=("associatednetworkid", "bypassvlanoverlapcheck", "endipv6", "ip6cidr",
                                 "ip6gateway", "isolatedpvlan", "isolatedpvlantype", "routeripv6",
                                 "startipv6", "subdomainaccess", "tungstenvirtualrouteruuid")):  # fmt: skip
    """Create a guest network, which stands alone or is a tier of a VPC."""

    name: str = required(check=names.text)
    networkofferingid: NetworkOffering = required()
    zoneid: Zone = required()
    displaytext: str | None = optional(check=names.text)
    vpcid: Vpc | None = optional(description="the VPC that it is to be a tier of")
    aclid: AclList | None = optional(description="of a tier: who may talk to it; default_deny unless given")
    account: str | None = optional()
    domainid: Domain | None = optional()
    projectid: Uuid | None = optional()
    acltype: str | None = optional(choices=("Account", "Domain"))
    displaynetwork: bool | None = optional(True, admin=True)
    dns1: str | None = optional(check=syntax.ipv4)
    dns2: str | None = optional(check=syntax.ipv4)
    ip6dns1: str | None = optional(check=syntax.ipv6)
    ip6dns2: str | None = optional(check=syntax.ipv6)
    gateway: str | None = optional(check=syntax.ipv4)
    netmask: str | None = optional(check=syntax.netmask)
    startip: str | None = optional(check=syntax.ipv4)
    endip: str | None = optional(check=syntax.ipv4)
    routerip: str | None = optional(check=syntax.ipv4)
    networkdomain: str | None = optional(check=names.dns_domain)
    physicalnetworkid: PhysicalNetwork | None = optional()
    privatemtu: int | None = optional(1500, check=mtu)
    publicmtu: int | None = optional(check=mtu, description="1500 unless given; a tier has that of its VPC")
    sourcenatipaddress: str | None = optional(check=syntax.ipv4)
    vlan: str | None = optional(admin=True)
    externalid: str | None = optional(check=names.text)
    cidrsize: int | None = optional(description="of a ROUTED network: the prefix length of the CIDR that it gets")
    asnumber: Long | None = optional(description="where the offering has specifyasnumber")
    bgppeerids: list[BgpPeer] | None = optional(description="the peers that it is announced to; all unless given")
    hideipaddressusage: bool | None = optional()

    def run(self, ctx: Context) -> Network:
        """Check, take what it needs, and implement it where its offering is persistent."""
        owner = owner_of_new(ctx, self.account, self.domainid, self.projectid)
        if self.vpcid is None:
            return self.make(ctx, owner)
        self._check_tier(self.vpcid, owner)
        return self.make(ctx, ctx.session.get_one(Account, self.vpcid.account_id))

    def _check_tier(self, vpc: Vpc, owner: Account) -> None:
        """Refuse what a tier has from its VPC, or cannot do without."""
        if self.account is not None and owner.id != vpc.account_id:
            raise BadParameter(
                f"Invalid parameter account value={self.account}: VPC {vpc.name} is another account's, and so are its "
                "tiers; leave it out."
            )
        if self.zoneid.id != vpc.zone_id:
            raise BadParameter(
                f"Invalid parameter zoneid value={self.zoneid.uuid}: VPC {vpc.name} is in zone {vpc.zone.name}, "
                f"{vpc.zone.uuid}."
            )
        if self.gateway is None:
            raise BadParameter("Invalid parameter gateway: a tier of a VPC needs gateway and netmask.")
        if self.publicmtu not in (None, vpc.public_mtu):
            raise BadParameter(
                f"Invalid parameter publicmtu value={self.publicmtu}: VPC {vpc.name} has {vpc.public_mtu} for all its "
                "tiers; change it there (updateVPC)."
            )
        if self.sourcenatipaddress is not None:
            raise BadParameter(
                f"Invalid parameter sourcenatipaddress value={self.sourcenatipaddress}: the source NAT address is VPC "
                f"{vpc.name}'s; change it there (updateVPC)."
            )
        if reasons := tiers.objections(vpc, self.networkofferingid):
            raise BadParameter(
                f"Invalid parameter networkofferingid value={self.networkofferingid.uuid}: {'; '.join(reasons)}."
            )

    def make(self, ctx: Context, owner: Account) -> Network:
        """Make the network for this owner."""
        offering, physical, vpc = self._offering(ctx), self._physical(ctx), self.vpcid
        limits.take(ctx.session, owner.id, "network")
        network = Network(
            name=self.name,
            display_text=self.displaytext or self.name,
            zone_id=self.zoneid.id,
            physical_network_id=physical.id,
            offering_id=offering.id,
            guest_type=offering.guest_type,
            account_id=owner.id,
            domain_id=owner.domain_id,
            network_domain=self.networkdomain or (vpc.network_domain if vpc else default_domain(owner, self.zoneid)),
            dns=[server for server in (self.dns1, self.dns2) if server],
            dns6=[server for server in (self.ip6dns1, self.ip6dns2) if server],
            mtu=self.privatemtu,
            public_mtu=vpc.public_mtu if vpc else self.publicmtu or 1500,
            acl_type=self.acltype or "Account",
            display=self.displaynetwork,
            details=self._details(),
            offering=offering,
            zone=self.zoneid,
            physical_network=physical,
            vpc=vpc,
        )
        routing.refuse_foreign(network, self.cidrsize, self.asnumber, self.bgppeerids)
        self._address(ctx, network, owner)
        if vpc is not None:
            tiers.admit(ctx.session, vpc, network)
        self._choose_acl(ctx, network)
        ctx.session.add(network)
        ctx.session.flush()
        if has_ipv6(offering):
            ipv6.give(ctx.session, network)
        if vpc is None:
            routing.give_voice(ctx.session, network, self.asnumber, self.bgppeerids)
        self._take(ctx, network, owner)
        if offering.persistent:
            implement.ensure_implemented(ctx.session, network)
        return network

    def _offering(self, ctx: Context) -> NetworkOffering:
        offering = self.networkofferingid
        if offering.state != "Enabled" or offering.traffic != "Guest":
            raise BadParameter(
                f"Invalid parameter networkofferingid value={offering.uuid}: "
                f"offering {offering.name} is {offering.state}; an enabled guest offering is needed."
            )
        if offering.for_vpc and self.vpcid is None:
            raise BadParameter(
                f"Invalid parameter networkofferingid value={offering.uuid}: offering {offering.name} is for the tiers "
                "of a VPC: give vpcid, or choose another offering."
            )
        if offering.guest_type != "Isolated":
            raise BadParameter(
                f"Invalid parameter networkofferingid value={offering.uuid}: {offering.guest_type} networks cannot be "
                "made yet; choose an offering for isolated networks."
            )
        if self.zoneid.allocation_state != "Enabled" and not ctx.caller.is_admin:
            raise BadParameter(
                f"Invalid parameter zoneid value={self.zoneid.uuid}: zone {self.zoneid.name} is disabled."
            )
        if self.vlan is not None and not offering.specify_vlan:
            raise BadParameter(
                f"Invalid parameter vlan value={self.vlan}: offering {offering.name} chooses the VLAN itself."
            )
        if self.vlan is None and offering.specify_vlan:
            raise BadParameter(f"Invalid parameter vlan: offering {offering.name} wants one named.")
        return offering

    def _physical(self, ctx: Context) -> PhysicalNetwork:
        """Return the physical network asked for, or the zone's first enabled one that has the offering's tags."""
        mine = PhysicalNetwork.zone_id == self.zoneid.id, PhysicalNetwork.removed.is_(None)
        query = select(PhysicalNetwork).where(*mine).order_by(PhysicalNetwork.id)
        refused = []
        for row in ctx.session.scalars(query):
            if self.physicalnetworkid is not None and row.id != self.physicalnetworkid.id:
                continue
            problem = objection(ctx.session, row, self.networkofferingid)
            if not problem:
                return row
            refused.append(problem)
        raise BadParameter(
            f"Invalid parameter physicalnetworkid: no physical network of zone {self.zoneid.name} fits"
            f"{': ' + '; '.join(refused) if refused else ''}."
        )

    def _address(self, ctx: Context, network: Network, owner: Account) -> None:
        """Decide gateway, CIDR and the guests' range: of IPv4, where the offering has it."""
        if not has_ipv4(network.offering):
            self._refuse_ipv4(network)
            return
        if (self.gateway is None) != (self.netmask is None):
            raise BadParameter("Invalid parameter gateway: gateway and netmask go together.")
        try:
            if self.gateway and self.netmask:
                cidr, network.gateway = subnet(self.gateway, self.netmask), self.gateway
            elif not network.offering.routed:
                cidr = ipaddress.IPv4Network(self.zoneid.guest_cidr or "10.1.1.0/24")
                network.gateway = str(cidr.network_address + 1)
            if network.offering.routed and network.vpc is None:
                named = str(cidr) if self.gateway else None
                cidr = routing.give_subnet(ctx.session, network, owner, named, self.cidrsize)
                network.gateway = network.gateway or str(cidr.network_address + 1)
            network.cidr = str(cidr)
        except ValueError as error:
            raise BadParameter(f"Invalid parameter gateway value={self.gateway}: {error}.") from None
        try:
            guest_range(network.cidr, self.startip, self.endip or self.startip)
        except ValueError as error:
            raise BadParameter(f"Invalid parameter startip value={self.startip}: {error}.") from None
        network.start_ip, network.end_ip = self.startip, self.endip or self.startip
        if self.routerip not in (None, network.gateway) and "SourceNat" in services_of(network):
            raise BadParameter(
                f"Invalid parameter routerip value={self.routerip}: the router of a network with source NAT "
                f"has the gateway's address, {network.gateway}."
            )

    def _refuse_ipv4(self, network: Network) -> None:
        names = ("gateway", "netmask", "startip", "endip", "routerip", "sourcenatipaddress")
        for name in names:
            if getattr(self, name) is not None:
                raise BadParameter(
                    f"Invalid parameter {name} value={getattr(self, name)}: networks of offering "
                    f"{network.offering.name} have IPv6 alone."
                )

    def _take(self, ctx: Context, network: Network, owner: Account) -> None:
        if self.vlan is not None:
            number = self.vlan.removeprefix("vlan://").removeprefix("vxlan://")
            if not number.isdigit():
                raise BadParameter(f"Invalid parameter vlan value={self.vlan}: it must be a VLAN or VNI number.")
            taken = select(Network.name).join(Vnet, Vnet.network_id == Network.id)
            mine = (
                Vnet.physical_network_id == network.physical_network_id,
                Vnet.number == int(number),
            )
            other = ctx.session.scalar(taken.where(*mine))
            if other is not None:
                raise InUse(f"Invalid parameter vlan value={self.vlan}: network {other} has it.")
            implement.take_vnet(ctx.session, network, int(number))
        if self.sourcenatipaddress is not None:
            public_ips.acquire(ctx.session, network, owner, source_nat=True, address=self.sourcenatipaddress)

    def _choose_acl(self, ctx: Context, network: Network) -> None:
        if network.vpc is not None and "NetworkACL" in services_of(network):
            network.acl = tiers.choose_acl(ctx.session, network.vpc, self.aclid)
        elif self.aclid is not None:
            raise BadParameter(
                f"Invalid parameter aclid value={self.aclid.uuid}: offering {network.offering.name} has no NetworkACL."
            )

    def _details(self) -> dict[str, str]:
        details = {"externalid": self.externalid, "hideIpAddressUsage": "true" if self.hideipaddressusage else None}
        return {key: value for key, value in details.items() if value is not None}


def make_network(ctx: Context, owner: Account, zone: Zone, offering: NetworkOffering, name: str) -> Network:
    """Make a network as createNetwork does, with everything that is not named at its default."""
    return CreateNetwork.given(name=name, zoneid=zone, networkofferingid=offering).make(ctx, owner)


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
    privatemtu: int | None = optional(check=mtu)
    publicmtu: int | None = optional(check=mtu)
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
        network.mtu = self.privatemtu or network.mtu
        network.public_mtu = self.publicmtu or network.public_mtu
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
    network.removed, network.state = now(), "Destroy"
    if not touched:
        implement.free_vnet(session, network)
    session.query(NetworkAddress).filter_by(network_id=network.id).delete()
    limits.give_back(session, network.account_id, "network")
    return touched
