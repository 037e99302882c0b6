"""Making guest networks."""

from __future__ import annotations

import ipaddress

from sqlalchemy import select

from controlplane.api.caller import EVERYONE
from controlplane.api.command import Command, one
from controlplane.api.context import Context
from controlplane.api.parameters import Long, Uuid, optional, required
from controlplane.errors import BadParameter
from controlplane.identity import limits, names
from controlplane.identity.accounts import Account
from controlplane.identity.domains import Domain
from controlplane.network import (
    implement,
    ipv6,
    mtu,
    private_vlans,
    public_ips,
    routing,
    shared_networks,
    tiers,
    vnets,
)
from controlplane.network.acls import AclList
from controlplane.network.addressing import guest_range, subnet
from controlplane.network.bgp_peers import BgpPeer
from controlplane.network.guest_ranges import SHARED
from controlplane.network.l2 import L2, LACKS
from controlplane.network.network_permissions import ACCOUNT
from controlplane.network.networks import Network, network_views, services_of
from controlplane.network.physical_choice import objection
from controlplane.network.pod_networks import by_pods, check_new
from controlplane.network.shared_networks import Scope
from controlplane.network.vpcs import Vpc
from controlplane.offering.network_offerings import NetworkOffering, has_ipv4, has_ipv6
from controlplane.zone import syntax
from controlplane.zone.physical_networks import PhysicalNetwork
from controlplane.zone.zones import Zone


class CreateNetwork(Command, name="createNetwork", answer=one("network", network_views), roles=EVERYONE,
                    event="NETWORK.CREATE", instance="Network",
                    unsupported=("associatednetworkid", "tungstenvirtualrouteruuid")):  # fmt: skip
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
    acltype: str | None = optional(
        choices=("Account", "Domain"), description="of a Shared network: Domain unless an account is named"
    )
    subdomainaccess: bool | None = optional(description="with acltype=Domain: the domains below use it, too; true")
    displaynetwork: bool | None = optional(True, admin=True)
    dns1: str | None = optional(check=syntax.ipv4)
    dns2: str | None = optional(check=syntax.ipv4)
    ip6dns1: str | None = optional(check=syntax.ipv6)
    ip6dns2: str | None = optional(check=syntax.ipv6)
    gateway: str | None = optional(check=syntax.ipv4)
    netmask: str | None = optional(check=syntax.netmask)
    startip: str | None = optional(check=syntax.ipv4)
    endip: str | None = optional(check=syntax.ipv4)
    routerip: str | None = optional(check=syntax.ipv4, description="of a Shared network: the router's own address")
    ip6gateway: str | None = optional(check=syntax.ipv6, description="of a Shared network, as the four after it")
    ip6cidr: str | None = optional(check=syntax.cidr6)
    startipv6: str | None = optional(check=syntax.ipv6, description="guests make their own addresses unless given")
    endipv6: str | None = optional(check=syntax.ipv6)
    routeripv6: str | None = optional(check=syntax.ipv6)
    networkdomain: str | None = optional(check=names.dns_domain)
    physicalnetworkid: PhysicalNetwork | None = optional()
    privatemtu: int | None = optional(check=mtu.mtu, description="the greatest that the zone allows unless given")
    publicmtu: int | None = optional(check=mtu.mtu, description="likewise; a tier has that of its VPC")
    sourcenatipaddress: str | None = optional(check=syntax.ipv4)
    vlan: str | None = optional(admin=True, description="the VLAN or VNI, or untagged")
    bypassvlanoverlapcheck: bool | None = optional(
        False, admin=True, description="of a Shared or L2 network: others may have the VLAN, too"
    )
    isolatedpvlan: str | None = optional(
        admin=True, description="of a Shared or L2 network: its own VLAN, with vlan as the primary one (private VLAN)"
    )
    isolatedpvlantype: str | None = optional(
        admin=True, choices=private_vlans.TYPES, description="isolated unless given; promiscuous has vlan itself"
    )
    externalid: str | None = optional(check=names.text)
    cidrsize: int | None = optional(description="of a ROUTED network: the prefix length of the CIDR that it gets")
    asnumber: Long | None = optional(description="where the offering has specifyasnumber")
    bgppeerids: list[BgpPeer] | None = optional(description="the peers that it is announced to; all unless given")
    hideipaddressusage: bool | None = optional()

    def run(self, ctx: Context) -> Network:
        """Check, take what it needs, and implement it where its offering is persistent."""
        check_new(ctx.session, self)
        scope = shared_networks.scope_of(ctx, self)
        if self.vpcid is None:
            return self.make(ctx, scope)
        self._check_tier(self.vpcid, scope.owner)
        owner = ctx.session.get_one(Account, self.vpcid.account_id)
        return self.make(ctx, Scope(scope.acl_type, owner, owner.domain))

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

    def make(self, ctx: Context, scope: Scope) -> Network:
        """Make the network for this owner, or for all accounts of a domain."""
        offering, physical, vpc = self._offering(ctx), self._physical(ctx), self.vpcid
        if scope.acl_type == ACCOUNT:
            limits.take(ctx.session, scope.owner.id, "network")
        network = self._row(ctx, scope, physical)
        routing.refuse_foreign(network, self.cidrsize, self.asnumber, self.bgppeerids)
        if offering.guest_type == "Isolated":
            self._address(ctx, network, scope.owner)
        if vpc is not None:
            tiers.admit(ctx.session, vpc, network)
        self._choose_acl(ctx, network)
        ctx.session.add(network)
        ctx.session.flush()
        if has_ipv6(offering):
            ipv6.give(ctx.session, network)
        if vpc is None:
            routing.give_voice(ctx.session, network, self.asnumber, self.bgppeerids)
        self._take(ctx, network, scope.owner)
        if offering.guest_type == SHARED and not by_pods(network):
            shared_networks.give_addresses(ctx.session, network, self)
        if offering.persistent:
            implement.ensure_implemented(ctx.session, network)
        return network

    def _row(self, ctx: Context, scope: Scope, physical: PhysicalNetwork) -> Network:
        offering, vpc = self.networkofferingid, self.vpcid
        network = Network(
            name=self.name,
            display_text=self.displaytext or self.name,
            zone_id=self.zoneid.id,
            physical_network_id=physical.id,
            offering_id=offering.id,
            guest_type=offering.guest_type,
            network_domain=self.networkdomain or (vpc.network_domain if vpc else scope.dns_domain(self.zoneid)),
            dns=[server for server in (self.dns1, self.dns2) if server],
            dns6=[server for server in (self.ip6dns1, self.ip6dns2) if server],
            mtu=mtu.chosen(ctx, self.zoneid, "privatemtu", self.privatemtu),
            public_mtu=vpc.public_mtu if vpc else mtu.chosen(ctx, self.zoneid, "publicmtu", self.publicmtu),
            display=self.displaynetwork,
            details=self._details(),
            offering=offering,
            zone=self.zoneid,
            physical_network=physical,
            vpc=vpc,
        )
        scope.write(network)
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
        self._refuse_foreign(offering)
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

    def _refuse_foreign(self, offering: NetworkOffering) -> None:
        """Refuse what networks of the offering's type do not have."""
        strange = {
            "Isolated": ("ip6gateway", "ip6cidr", "startipv6", "endipv6", "routeripv6"),
            "Shared": ("sourcenatipaddress",),
            L2: LACKS,
        }[offering.guest_type]  # fmt: skip
        if offering.guest_type == "Isolated" and self.bypassvlanoverlapcheck:
            raise BadParameter("Invalid parameter bypassvlanoverlapcheck value=true: an isolated network is alone.")
        for name in strange:
            if getattr(self, name, None) is not None:
                raise BadParameter(
                    f"Invalid parameter {name} value={getattr(self, name)}: networks of offering {offering.name} are "
                    f"{offering.guest_type}, and have none to be named; leave it out."
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
        if (place := private_vlans.named(network, self)) is not None:
            private_vlans.take(ctx.session, network, place, sharing=bool(self.bypassvlanoverlapcheck))
            ctx.touch(*private_vlans.hearing_hosts(ctx.session, network))
        elif self.vlan is not None:
            number = vnets.vnet_named(network, self.vlan)
            if not self.bypassvlanoverlapcheck:
                vnets.refuse_overlap(ctx.session, network, number)
            private_vlans.refuse_mixed(ctx.session, network, number)
            vnets.take_vnet(ctx.session, network, number)
        elif network.guest_type == SHARED:
            vnets.take_vnet(ctx.session, network)  # its gateway is there before its first guest
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
    return CreateNetwork.given(name=name, zoneid=zone, networkofferingid=offering).make(
        ctx, Scope(ACCOUNT, owner, owner.domain)
    )
