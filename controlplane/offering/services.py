"""Services: which provider gives a network each of them, and whether it can.

The matrix is the installed drivers' ``capabilities``: a service or a choice that a provider lacks is refused when the
offering is made, with the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.api.caller import EVERYONE
from controlplane.api.command import many
from controlplane.api.context import Context
from controlplane.api.listing import Paged
from controlplane.api.parameters import optional
from controlplane.api.responses import Response
from controlplane.errors import BadParameter
from controlplane.offering.routing_modes import refuse_translation
from controlplane.zone.providers import ProviderResponse, driver_name
from drivers import registry
from drivers.vocabulary import SERVICES

Services = Mapping[str, Sequence[str]]
"""Service → the names of its providers."""
Choices = Mapping[str, Mapping[str, str]]
"""Service → capability → the value that an offering chooses."""

CHOOSABLE = frozenset(
    {
        "AssociatePublicIP",
        "DistributedRouter",
        "ElasticIp",
        "ElasticLb",
        "InlineMode",
        "LbSchemes",
        "PublicAccess",
        "RedundantRouter",
        "RegionLevelVpc",
        "StretchedL2Subnet",
        "SupportedLBIsolation",
        "SupportedSourceNatTypes",
        "VmAutoScaling",
    }
)
"""The capabilities that an offering may choose a value of (servicecapabilitylist)."""
SEVERAL_PROVIDERS = frozenset({"Lb"})
INTERNAL, PUBLIC = "Internal", "Public"
"""The load balancing schemes (``LbSchemes``): between the tiers of a VPC, and of public addresses."""
BEHIND_SOURCE_NAT = ("StaticNat", "PortForwarding", "Firewall", "Lb", "Vpn", "Gateway")
"""What a router gives only to networks whose source NAT it does, too: their packets leave through it."""


WITH_IPV4 = frozenset({"Gateway", "Lb", "PortForwarding", "SourceNat", "StaticNat", "Vpn"})
"""What a network of IPv6 alone cannot have."""


@dataclass(kw_only=True)
class CapabilityOfService(Response):
    """One capability of a service."""

    name: str
    value: str
    canchooseservicecapability: bool


@dataclass(kw_only=True)
class ServiceResponse(Response):
    """A network service with its providers."""

    name: str
    capability: list[CapabilityOfService] | None = None
    provider: list[ProviderResponse] | None = None


def service_responses(services: Services, chosen: Choices) -> list[ServiceResponse]:
    """Return the ``service`` field of an offering or a network, in the order of the services' names."""
    return [
        ServiceResponse(
            name=service,
            provider=[ProviderResponse(name=provider) for provider in services[service]],
            capability=_capabilities(service, services[service], chosen.get(service, {})),
        )
        for service in sorted(services)
    ]


def _capabilities(service: str, providers: Sequence[str], chosen: Mapping[str, str]) -> list[CapabilityOfService]:
    installed = registry.network_providers()
    values: dict[str, str] = {}
    for provider in providers:
        if provider in installed:
            values |= installed[provider].capabilities.get(service, {})
    values |= chosen
    return [
        CapabilityOfService(name=name, value=values[name], canchooseservicecapability=name in CHOOSABLE)
        for name in sorted(values)
    ]


def service_name(name: str, parameter: str = "supportedservices") -> str:
    """Return a service's name in its own spelling.

    :raises BadParameter: there is no such service.
    """
    known = {service.lower(): service for service in SERVICES}
    if name.lower() not in known:
        raise BadParameter(f"Invalid parameter {parameter} value={name}: the services are {', '.join(SERVICES)}.")
    return known[name.lower()]


def providers_named(records: Iterable[Mapping[str, str]], supported: Collection[str]) -> dict[str, list[str]]:
    """Read a ``serviceproviderlist``: the providers that are named for each service.

    :param supported: the services that the offering has.
    :raises BadParameter: a record lacks something, or names a service or provider that there is not.
    """
    named: dict[str, list[str]] = {}
    for record in records:
        if not record.get("service") or not record.get("provider"):
            raise BadParameter("Invalid parameter serviceproviderlist: each record has a service and a provider.")
        providers = named.setdefault(service_name(record["service"], "serviceproviderlist"), [])
        providers += [driver_name(name.strip()) for name in record["provider"].split(",") if name.strip()]
    strange = sorted(set(named) - set(supported))
    if strange:
        raise BadParameter(f"Invalid parameter serviceproviderlist: {strange[0]} is not among the supportedservices.")
    return named


def capabilities_chosen(records: Iterable[Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Read a ``servicecapabilitylist``: the value that is chosen of each capability, by service.

    :raises BadParameter: a record lacks something, or names a service that there is not.
    """
    chosen: dict[str, dict[str, str]] = {}
    for record in records:
        missing = {"service", "capabilitytype", "capabilityvalue"} - set(record)
        if missing:
            raise BadParameter(f"Invalid parameter servicecapabilitylist: a record lacks {', '.join(sorted(missing))}.")
        service = service_name(record["service"], "servicecapabilitylist")
        chosen.setdefault(service, {})[record["capabilitytype"]] = record["capabilityvalue"]
    return chosen


_ELASTIC = {"ElasticIp": "StaticNat", "ElasticLb": "Lb", "AssociatePublicIP": "StaticNat"}
"""What a Shared network can have of public addresses, and the service that chooses it."""


def chosen_is(chosen: Choices, capability: str, *, otherwise: bool = False) -> bool:
    """Tell whether an offering chose an elastic capability.

    :param otherwise: what holds where it says nothing.
    """
    named = {name.lower(): value for name, value in chosen.get(_ELASTIC[capability], {}).items()}
    return named.get(capability.lower(), str(otherwise)).lower() == "true"


def elastic_services(guest_type: str, chosen: Choices) -> set[str]:
    """Return the services that come with elastic addresses: beside the operator's gateway, without source NAT."""
    if guest_type != "Shared":
        return set()
    return {_ELASTIC[name] for name in ("ElasticIp", "ElasticLb") if chosen_is(chosen, name)}


@dataclass(frozen=True, slots=True)
class Matrix:
    """What an offering is to give, as it is checked.

    :param guest_type: ``Isolated``, ``Shared`` or ``L2``.
    :param routed: nothing of IPv4 is translated.
    :param alternatives: of several providers of a service each network chooses one.
    :param protocol: ``IPv4``, ``DualStack`` or ``IPv6``.
    """

    services: Services
    chosen: Choices = field(default_factory=dict)
    guest_type: str = "Isolated"
    for_vpc: bool = False
    protocol: str = "IPv4"
    alternatives: bool = False
    routed: bool = False

    def check(self) -> None:
        """Refuse what no network could be given.

        :raises BadParameter: names the service, the provider and what it has.
        """
        for service, providers in self.services.items():
            self._check_providers(service, providers)
        self._check_kind()
        self._check_protocol()
        self._check_source_nat()
        for service, choices in self.chosen.items():
            for capability, value in choices.items():
                self._check_choice(service, capability, value)

    def _check_providers(self, service: str, providers: Sequence[str]) -> None:
        installed = registry.network_providers()
        if not providers:
            raise BadParameter(f"Invalid parameter serviceproviderlist: service {service} has no provider: name one.")
        if len(providers) > 1 and service not in SEVERAL_PROVIDERS and not self.alternatives:
            raise BadParameter(
                f"Invalid parameter serviceproviderlist value={','.join(providers)}: service {service} can have one "
                "provider only."
            )
        for provider in providers:
            if provider not in installed:
                raise BadParameter(
                    f"Invalid parameter serviceproviderlist value={provider}: it is not installed, for service "
                    f"{service}; there are {', '.join(installed)}."
                )
            if service not in installed[provider].capabilities:
                has = ", ".join(sorted(installed[provider].capabilities))
                raise BadParameter(
                    f"Invalid parameter serviceproviderlist value={provider}: it does not support service {service}: "
                    f"it has {has}."
                )

    def _check_kind(self) -> None:
        if self.guest_type == "L2" and set(self.services) - {"UserData"}:
            unwanted = ", ".join(sorted(set(self.services) - {"UserData"}))
            raise BadParameter(
                f"Invalid parameter supportedservices: an L2 network has UserData only: leave {unwanted} out."
            )
        if self.guest_type == "L2" and (routers := self._with_appliance()):
            raise BadParameter(
                f"Invalid parameter serviceproviderlist value={routers[0]}: an L2 network has no router; UserData is "
                "by ConfigDrive there."
            )
        routers = [name for name in self.services.get("SourceNat", ()) if name in self._with_appliance()]
        if self.guest_type == "Shared" and routers:
            raise BadParameter(
                f"Invalid parameter supportedservices: {routers[0]} cannot give a Shared network SourceNat: "
                "its gateway is the operator's; leave it out."
            )
        if "SecurityGroup" in self.services and self.guest_type != "Shared":
            raise BadParameter("Service SecurityGroup is for Shared networks only.")
        if "NetworkACL" in self.services and not self.for_vpc:
            raise BadParameter("Service NetworkACL is for the tiers of a VPC only: set forvpc.")
        strange = sorted(set(_ELASTIC) & {name for choices in self.chosen.values() for name in choices})
        if strange and self.guest_type != "Shared":
            raise BadParameter(
                f"Invalid parameter servicecapabilitylist: {strange[0]} is for Shared networks; "
                f"{self.guest_type} ones have StaticNat and Lb without it."
            )
        if self.for_vpc and self.guest_type != "Isolated":
            raise BadParameter("The tiers of a VPC are Isolated networks.")
        if self.for_vpc and "Firewall" in self.services:
            raise BadParameter("The tiers of a VPC have NetworkACL instead of Firewall.")

    def _with_appliance(self) -> list[str]:
        """Return the providers that would need a router on the network."""
        installed = registry.network_providers()
        named = {provider for providers in self.services.values() for provider in providers}
        return sorted(name for name in named if installed[name].kind == "router")

    def _check_protocol(self) -> None:
        """IPv6 is routed: services that translate, or hang on a public IPv4 address, need IPv4."""
        if self.protocol != "IPv4" and self.guest_type != "Isolated":
            raise BadParameter(f"Invalid parameter internetprotocol value={self.protocol}: for Isolated networks only.")
        translating = sorted(set(self.services) & WITH_IPV4)
        if self.protocol == "IPv6" and translating:
            raise BadParameter(
                f"Invalid parameter internetprotocol value=IPv6: service {translating[0]} needs IPv4; leave it out, "
                "or use DualStack."
            )

    def _check_source_nat(self) -> None:
        if self.routed:
            refuse_translation(self.services)
        if self.routed or self.protocol == "IPv6":
            return
        elastic = elastic_services(self.guest_type, self.chosen)
        source, gateway = self.services.get("SourceNat"), self.services.get("Gateway")
        if source and gateway and list(source) != list(gateway):
            raise BadParameter(
                "Invalid parameter serviceproviderlist: SourceNat and Gateway must have the same provider, not "
                f"{source[0]} and {gateway[0]}."
            )
        for service in (name for name in BEHIND_SOURCE_NAT if name not in elastic):
            for provider in self.services.get(service, ()):
                driver = registry.network_providers()[provider]
                if driver.capabilities[service].get("LbSchemes") == INTERNAL:
                    continue  # it balances what stays inside
                if driver.kind == "router" and provider not in (source or ()):
                    raise BadParameter(
                        f"Invalid parameter supportedservices: {provider} cannot give {service} without SourceNat."
                    )

    def _check_choice(self, service: str, capability: str, value: str) -> None:
        if service not in self.services:
            raise BadParameter(
                f"Invalid parameter servicecapabilitylist: service {service} is not among the supported services."
            )
        if capability not in CHOOSABLE:
            raise BadParameter(f"Invalid parameter servicecapabilitylist: {capability} cannot be chosen.")
        for provider in self.services[service]:
            offered = registry.network_providers()[provider].capabilities[service].get(capability)
            if value.lower() == "false":
                continue
            if offered is None or value.lower() not in [item.strip().lower() for item in offered.split(",")]:
                raise BadParameter(
                    f"Invalid parameter servicecapabilitylist: provider {provider} cannot do {capability}={value} for "
                    f"service {service}: "
                    f"it has {offered or 'nothing of it'}."
                )


def supported_views(ctx: Context, rows: Sequence[str]) -> list[ServiceResponse]:
    """Return the responses of these services, with all installed providers of each."""
    del ctx
    installed = registry.network_providers()
    services = {name: [key for key, item in installed.items() if name in item.capabilities] for name in rows}
    responses = service_responses(services, {})
    for response in responses:
        for provider in response.provider or ():
            provider.servicelist = sorted(installed[provider.name].capabilities)
            provider.canenableindividualservice = True
    return responses


class ListSupportedNetworkServices(
    Paged, name="listSupportedNetworkServices", answer=many("networkservice", supported_views), roles=EVERYONE
):
    """List the network services that installed providers give, with their capabilities."""

    writes = False

    service: str | None = optional()
    provider: str | None = optional()
    keyword: str | None = optional()

    def run(self, ctx: Context) -> tuple[Sequence[str], int]:
        """Return the names of the services that match."""
        wanted = service_name(self.service, "service") if self.service else None
        installed = {
            name: item
            for name, item in registry.network_providers().items()
            if self.provider is None or name.lower() == self.provider.lower()
        }
        given = {service for item in installed.values() for service in item.capabilities}
        word = (self.keyword or "").lower()
        found = sorted(name for name in given if wanted in (None, name) and word in name.lower())
        return self.page_of(ctx.session, found)
