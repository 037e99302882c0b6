"""Listing guest networks: whose, and of which kind."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, and_, select

from controlplane.api.caller import EVERYONE
from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.parameters import matching, optional
from controlplane.identity.ownership import OwnedListing, account_named
from controlplane.network.guest_ranges import without_addresses
from controlplane.network.network_permissions import ACCOUNT, DOMAIN, of_domain, permitted, usable_by
from controlplane.network.networks import Network, network_views
from controlplane.network.vpcs import Vpc
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.zone.physical_networks import PhysicalNetwork
from controlplane.zone.zones import Zone


class ListNetworks(OwnedListing, name="listNetworks", answer=many("network", network_views), roles=EVERYONE,
                   unsupported=("associatednetworkid", "showicon")):  # fmt: skip
    """List guest networks: the caller's own, and those that it may use."""

    table = Network
    keywords = (Network.name, Network.display_text)
    taggable = "Network"

    id: Network | None = matching(Network.id)
    name: str | None = matching(Network.name)
    zoneid: Zone | None = matching(Network.zone_id)
    physicalnetworkid: PhysicalNetwork | None = matching(Network.physical_network_id)
    networkofferingid: NetworkOffering | None = matching(Network.offering_id)
    type: str | None = matching(Network.guest_type, choices=("Isolated", "Shared", "L2"))
    acltype: str | None = matching(Network.acl_type, choices=("Account", "Domain"))
    restartrequired: bool | None = matching(Network.restart_required)
    vpcid: Vpc | None = matching(Network.vpc_id)
    displaynetwork: bool | None = matching(Network.display, admin=True)
    traffictype: str | None = optional(choices=("Guest", "Public", "Management", "Storage", "Control"))
    issystem: bool | None = optional()
    forvpc: bool | None = optional()
    vlan: str | None = optional(admin=True)
    specifyipranges: bool | None = optional()
    canusefordeploy: bool | None = optional()
    supportedservices: list[str] | None = optional()
    networkfilter: str | None = optional(
        "all",
        choices=("account", "domain", "accountdomain", "shared", "all"),
        description="account: whose they are; domain: those of its domains; shared: those that it was permitted to use",
    )
    retrieveonlyresourcecount: bool | None = optional()

    def owners(self, ctx: Context) -> Any:
        """Return the condition on whose they are: an account's own, its domains', or those it was permitted to use."""
        kind, theirs = self.networkfilter or "all", super().owners(ctx)
        if self.account is None and (theirs is None or self.domainid is not None or self.projectid is not None):
            mine = permitted((ctx.caller.account_id, *ctx.caller.projects))
            kinds = {"account": Network.acl_type == ACCOUNT, "domain": Network.acl_type == DOMAIN, "shared": mine}
            return and_(*(part for part in (theirs, kinds.get(kind)) if part is not None)) if kind in kinds else theirs
        whose = account_named(ctx, self.account, self.domainid) if self.account else None
        number, path = (whose.id, whose.domain.path) if whose else (ctx.caller.account_id, ctx.caller.domain_path)
        own = (Network.acl_type == ACCOUNT) & (Network.account_id == number)
        kinds = {"account": own, "domain": of_domain(path), "accountdomain": own | of_domain(path)}
        return (kinds | {"shared": permitted([number]), "all": own | usable_by([number], path)})[kind]

    def narrow(self, ctx: Context, query: Select[Any]) -> Select[Any]:
        """Keep what the offering and the traffic type let through."""
        if self.traffictype not in (None, "Guest") or self.issystem:
            return query.where(Network.id.is_(None))
        if self.canusefordeploy is not None:
            full = without_addresses(ctx.session, ctx.session.scalars(query).all())
            query = query.where(Network.id.in_(full) != self.canusefordeploy)
        if self.vlan is not None:
            number = 0 if self.vlan.lower() == "untagged" else int(self.vlan) if self.vlan.isdigit() else -1
            query = query.where(Network.vnet == number)
        wanted = []
        if self.forvpc is not None:
            wanted.append(Network.vpc_id.is_not(None) == self.forvpc)
        if self.specifyipranges is not None:
            wanted.append(NetworkOffering.specify_ip_ranges == self.specifyipranges)
        if self.supportedservices:
            asked = set(self.supportedservices)
            offerings = ctx.session.execute(select(NetworkOffering.id, NetworkOffering.services))
            wanted.append(NetworkOffering.id.in_([number for number, services in offerings if asked <= set(services)]))
        if wanted:
            query = query.join(NetworkOffering).where(*wanted)
        return query
