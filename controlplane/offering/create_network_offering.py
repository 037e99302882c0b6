"""Commands that make, change and end network offerings."""

from __future__ import annotations

from sqlalchemy import select

from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import Records, optional, required
from controlplane.db.base import new_uuid
from controlplane.errors import BadParameter, InUse
from controlplane.identity.domains import Domain
from controlplane.offering import port_policies, scope
from controlplane.offering.network_offerings import NetworkOffering, network_offering_views
from controlplane.offering.routing_modes import MODES, NATTED, ROUTED, ROUTINGS, routing_of
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.offering.services import Matrix, capabilities_chosen, providers_named, service_name
from controlplane.zone import syntax
from controlplane.zone.zones import Zone

PROTOCOLS = ("IPv4", "DualStack", "IPv6")
AVAILABILITY = ("Optional", "Required", "Unavailable")
MOST_RATE = 1_000_000


class CreateNetworkOffering(
    Command,
    name="createNetworkOffering",
    answer=one("networkoffering", network_offering_views),
    instance="NetworkOffering",
    event="NETWORK.OFFERING.CREATE",
):
    """Create a network offering; it is disabled until it is enabled.

    A service without a provider in serviceproviderlist is given by the virtual router, security groups by the hosts.
    """

    unsupported = (
        "fornsx",
        "fortungsten",
        "nsxsupportlb",
        "nsxsupportsinternallb",
        "provider",
    )

    name: str = required(check=syntax.name)
    displaytext: str | None = optional(check=syntax.name)
    guestiptype: str = required(choices=("Isolated", "Shared", "L2"))
    traffictype: str = required(choices=("Guest",))
    supportedservices: list[str] | None = optional()
    serviceproviderlist: Records | None = optional()
    servicecapabilitylist: Records | None = optional()
    availability: str | None = optional("Optional", choices=AVAILABILITY)
    conservemode: bool | None = optional(True)
    details: dict[str, str] | None = optional(check=port_policies.checked)
    domainid: list[Domain] | None = optional()
    zoneid: list[Zone] | None = optional()
    egressdefaultpolicy: bool | None = optional(False, description="true: what no egress rule names may leave")
    enable: bool | None = optional(False)
    forvpc: bool | None = optional(False)
    internetprotocol: str | None = optional(
        "IPv4", choices=PROTOCOLS, description="IPv4, DualStack, or IPv6 alone, which has no translating services"
    )
    ispersistent: bool | None = optional(False)
    networkmode: str | None = optional(NATTED, choices=MODES, description="ROUTED: guests keep their own addresses")
    routingmode: str | None = optional(choices=ROUTINGS, description="of ROUTED networks: Static unless given")
    specifyasnumber: bool | None = optional(False, description="whoever makes a network names its AS number")
    keepaliveenabled: bool | None = optional(False)
    maxconnections: int | None = optional()
    networkrate: int | None = optional(description="Mbit/s; 0 is unlimited")
    serviceofferingid: ServiceOffering | None = optional(description="of the routers; one for domainrouter")
    specifyipranges: bool | None = optional(False)
    specifyvlan: bool | None = optional(False)
    tags: str | None = optional("", length=4096, check=syntax.tags, description="of physical networks")

    def run(self, ctx: Context) -> NetworkOffering:
        """Check the matrix of services and providers and what does not go together, and write the row."""
        services, chosen = self._services(), capabilities_chosen(self.servicecapabilitylist or ())
        self._refuse_contradictions(services)
        protocol = self.internetprotocol or "IPv4"
        routing = self._routing(protocol)
        Matrix(services, chosen, self.guestiptype, bool(self.forvpc), protocol, routed=routing is not None).check()
        self._refuse_twin(ctx)
        row = NetworkOffering(
            name=self.name,
            unique_name=f"{self.name}-{new_uuid()}"[:255],
            display_text=self.displaytext or self.name,
            guest_type=self.guestiptype,
            traffic="Guest",
            state="Enabled" if self.enable else "Disabled",
            availability=self.availability,
            services=services,
            capabilities=chosen,
            specify_vlan=bool(self.specifyvlan),
            specify_ip_ranges=bool(self.specifyipranges),
            conserve_mode=bool(self.conservemode),
            persistent=bool(self.ispersistent),
            egress_allow=bool(self.egressdefaultpolicy),
            for_vpc=bool(self.forvpc),
            internet_protocol=protocol,
            routing_mode=routing,
            network_rate=self.networkrate,
            max_connections=self.maxconnections,
            keep_alive=bool(self.keepaliveenabled),
            tags=[tag for tag in (self.tags or "").split(",") if tag],
            domain_uuids=scope.uuids(self.domainid),
            zone_uuids=scope.uuids(self.zoneid),
            details=self.details or {},
            service_offering=self.serviceofferingid,
        )
        row.network_mode, row.specify_as_number = self.networkmode or NATTED, bool(self.specifyasnumber)
        ctx.session.add(row)
        ctx.session.flush()
        return row

    def _refuse_twin(self, ctx: Context) -> None:
        taken = select(NetworkOffering.id).where(NetworkOffering.name == self.name, NetworkOffering.removed.is_(None))
        if ctx.session.scalar(taken) is not None:
            raise BadParameter(f"Invalid parameter name value={self.name}: there is a network offering with this name.")

    def _routing(self, protocol: str) -> str | None:
        number = bool(self.specifyasnumber)
        return routing_of(self.networkmode, self.routingmode, specify_number=number, protocol=protocol)

    def _services(self) -> dict[str, list[str]]:
        supported = {service_name(name) for name in self.supportedservices or ()}
        named = providers_named(self.serviceproviderlist or (), supported)
        default = "VpcVirtualRouter" if self.forvpc else "VirtualRouter"
        own = {"SecurityGroup": "SecurityGroupProvider"}
        services = {
            name: list(dict.fromkeys(named.get(name) or [own.get(name, default)])) for name in sorted(supported)
        }
        if "SourceNat" in services or self.networkmode == ROUTED:
            services.setdefault("Gateway", services.get("SourceNat", [default]))
        return services

    def _refuse_contradictions(self, services: dict[str, list[str]]) -> None:
        kind = self.guestiptype
        if kind == "Shared" and not self.specifyipranges:
            raise BadParameter(
                "Invalid parameter specifyipranges value=false: Shared networks have ranges of their own."
            )
        if kind == "Isolated" and self.specifyipranges and "SourceNat" in services:
            raise BadParameter(
                "Invalid parameter specifyipranges value=true: an Isolated network with SourceNat has none."
            )
        if kind == "L2" and self.specifyipranges:
            raise BadParameter("Invalid parameter specifyipranges value=true: an L2 network has no addresses to give.")
        if kind == "Shared" and self.ispersistent:
            raise BadParameter("Invalid parameter ispersistent value=true: Shared networks always are there.")
        if self.egressdefaultpolicy and kind != "Isolated":
            raise BadParameter("Invalid parameter egressdefaultpolicy: only Isolated networks have egress rules.")
        if self.networkmode == ROUTED and kind != "Isolated":
            raise BadParameter(f"Invalid parameter networkmode value=ROUTED: {kind} networks have no router to route.")
        if self.networkrate is not None and not 0 <= self.networkrate <= MOST_RATE:
            raise BadParameter(f"Invalid parameter networkrate value={self.networkrate}: it is in Mbit/s, from 0.")
        if self.maxconnections is not None and self.maxconnections < 1:
            raise BadParameter(f"Invalid parameter maxconnections value={self.maxconnections}: it counts from 1.")
        offering = self.serviceofferingid
        if offering is not None and offering.system_vm_type != "domainrouter":
            raise BadParameter(
                f"Invalid parameter serviceofferingid value={offering.uuid}: it must be a system offering for "
                "domainrouter (createServiceOffering with issystem=true)."
            )


class UpdateNetworkOffering(
    Command,
    name="updateNetworkOffering",
    answer=one("networkoffering", network_offering_views),
    instance="NetworkOffering",
    event="NETWORK.OFFERING.EDIT",
):
    """Update an offering's texts, state and scope; its services never change, as networks have them."""

    id: NetworkOffering | None = optional()
    name: str | None = optional(check=syntax.name)
    displaytext: str | None = optional(check=syntax.name)
    availability: str | None = optional(choices=AVAILABILITY)
    domainid: str | None = optional(description="the new domains, or public")
    zoneid: str | None = optional(length=4096, description="the new zones, or all")
    keepaliveenabled: bool | None = optional()
    maxconnections: int | None = optional()
    sortkey: int | None = optional()
    state: str | None = optional(choices=("Enabled", "Disabled"))
    tags: str | None = optional(length=4096, check=syntax.tags)

    def run(self, ctx: Context) -> NetworkOffering:
        """Refuse to enable what no installed provider can give, and change what is given."""
        row = self.id
        if row is None:
            raise BadParameter("Invalid parameter id: say which network offering.")
        if self.state == "Enabled":
            parts = row.services, row.capabilities, row.guest_type, row.for_vpc, row.internet_protocol
            Matrix(*parts, routed=row.routed).check()
        if self.tags is not None and self.tags.split(",") != row.tags:
            _refuse_used(ctx, row)
            row.tags = [tag for tag in self.tags.split(",") if tag]
        if self.maxconnections is not None and self.maxconnections < 1:
            raise BadParameter(f"Invalid parameter maxconnections value={self.maxconnections}: it counts from 1.")
        row.name, row.display_text = self.name or row.name, self.displaytext or row.display_text
        row.state, row.availability = self.state or row.state, self.availability or row.availability
        row.max_connections = self.maxconnections or row.max_connections
        if self.keepaliveenabled is not None:
            row.keep_alive = self.keepaliveenabled
        if self.sortkey is not None:
            row.sort_key = self.sortkey
        if self.domainid is not None:
            row.domain_uuids = scope.rescoped(ctx, Domain, self.domainid, "domainid")
        if self.zoneid is not None:
            row.zone_uuids = scope.rescoped(ctx, Zone, self.zoneid, "zoneid")
        if self.maxconnections is not None or self.keepaliveenabled is not None:
            _touch_networks(ctx, row)
        return row


def _touch_networks(ctx: Context, offering: NetworkOffering) -> None:
    from controlplane.network.networks import Network

    having = Network.offering_id == offering.id, Network.removed.is_(None)
    ctx.touch(*ctx.session.scalars(select(Network).where(*having)))


def _refuse_used(ctx: Context, offering: NetworkOffering) -> None:
    from controlplane.network.networks import Network

    having = Network.offering_id == offering.id, Network.removed.is_(None)
    names = list(ctx.session.scalars(select(Network.name).where(*having).limit(10)))
    if names:
        raise InUse(
            f"Invalid parameter tags: those of network offering {offering.name} cannot change while networks have it: "
            f"{', '.join(names)}."
        )


class DeleteNetworkOffering(
    Command,
    name="deleteNetworkOffering",
    answer=success(),
    instance="NetworkOffering",
    event="NETWORK.OFFERING.DELETE",
):
    """Delete an offering; networks that have it keep it."""

    id: NetworkOffering = required()

    def run(self, ctx: Context) -> None:
        """Refuse to delete one of the standard catalogue, and mark the row removed."""
        ctx.instance = self.id
        scope.retire(ctx, self.id)
