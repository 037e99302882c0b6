"""What the provider of a network's load balancing can do: asked before a rule is accepted, not found out on the router.

One rule that a provider cannot plan would keep every other change from a router. So the declared capabilities are
checked first, which gives the best sentences, and then the rule is planned for real, on a router that is not there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

from sqlalchemy.orm import Session

from controlplane.errors import BadParameter, Unsupported
from controlplane.network.load_balancers import LoadBalancer, balancer_facts
from controlplane.network.networks import Network, services_of
from drivers import registry
from drivers.balancing import Member
from drivers.protocol import NetworkProvider
from drivers.vocabulary import ApplianceFacts, Nic, PublicAddress
from drivers.vocabulary import Network as NetworkFacts

_GUEST_MAC, _PUBLIC_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


def provider_of(network: Network) -> NetworkProvider[Any]:
    """Return the provider of the network's load balancing.

    :raises Unsupported: none of the offering's is installed.
    """
    installed = registry.network_providers()
    named = services_of(network).get("Lb", [])
    for name in named:
        if name in installed:
            return installed[name]
    raise Unsupported(f"No driver for {', '.join(named) or 'load balancing'} of network {network.name} is installed.")


def capability(network: Network, name: str) -> str | None:
    """Return what the provider declares under this name for ``Lb``; None when it says nothing."""
    return provider_of(network).capabilities.get("Lb", {}).get(name)


def one_of(network: Network, parameter: str, value: str, name: str) -> str:
    """Return the value as the provider spells it.

    :param name: the capability that lists what it can do, separated by commas.
    :raises BadParameter: it is not among them.
    """
    declared = (capability(network, name) or "").split(",")
    spelled = {item.strip().lower(): item.strip() for item in declared if item.strip()}
    if value.strip().lower() not in spelled:
        raise BadParameter(
            f"Invalid parameter {parameter} value={value}: provider {provider_of(network).name} of network "
            f"{network.name} supports {', '.join(spelled.values()) or 'none'}."
        )
    return spelled[value.strip().lower()]


def require(network: Network, name: str, what: str) -> None:
    """Make sure that the provider declares that it can do something.

    :param what: how the sentence calls it.
    :raises Unsupported: it does not.
    """
    if (capability(network, name) or "").lower() != "true":
        raise Unsupported(f"Provider {provider_of(network).name} of network {network.name} has no {what}.")


def must_balance(network: Network, scheme: str) -> None:
    """Make sure that the network's load balancing is of this scheme: ``Public`` or ``Internal``.

    :raises Unsupported: it is not.
    """
    has = capability(network, "LbSchemes") or ""
    if scheme not in has.split(","):
        raise Unsupported(
            f"Network {network.name} has {has or 'no'} load balancing (provider {provider_of(network).name}), "
            f"not {scheme}: its offering {network.offering.name} says so."
        )


def stickiness_methods(network: Network) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the stickiness methods that the provider declares, and the parameters of each by name."""
    declared = json.loads(capability(network, "SupportedStickinessMethods") or "[]")
    return {
        method["methodname"]: {parameter["paramname"]: parameter for parameter in method.get("paramlist", [])}
        for method in declared
    }


def must_be_possible(session: Session, rule: LoadBalancer, parameter: str = "") -> None:
    """Have the provider plan the rule as it is now.

    :param parameter: by which the call named the rule; without one the rule is the call itself.
    :raises BadParameter: it cannot; the sentence is the provider's.
    """
    session.flush()
    session.expire(rule, ["stickiness", "health", "certificate", "public_ip"])
    network = session.get_one(Network, rule.network_id)
    if network.cidr is None:
        raise BadParameter(
            f"Invalid parameter networkid value={network.uuid}: {network.name} has no addresses to balance between."
        )
    (fact,) = balancer_facts(session, network.id, rule.id)
    guests = IPv4Network(network.cidr)
    if not fact.members:  # a listener without members is not there, and would hide what is wrong with it
        fact = replace(fact, members=(Member(rule.uuid, str(guests.network_address + 2)),))
    provider = provider_of(network)
    try:
        provider.plan(_router(network, guests, fact.address, NetworkFacts(
            id=network.uuid, cidr=network.cidr, gateway=str(guests.network_address + 1), nic=_GUEST_MAC, domain="",
            services=frozenset({"Lb"}), balancers=(fact,),
        )))  # fmt: skip
    except ValueError as error:
        named = f"{parameter} value={rule.uuid}" if parameter else f"protocol value={rule.protocol}"
        raise BadParameter(
            f"Invalid parameter {named}: load balancer rule {rule.name} cannot be served by {provider.name}: {error}"
        ) from None


def _router(network: Network, guests: IPv4Network, address: str, facts: NetworkFacts) -> ApplianceFacts:
    inner = Nic(
        id="guest",
        mac=_GUEST_MAC,
        segment=network.uuid,
        traffic="Guest",
        address=facts.gateway,
        prefix=guests.prefixlen,
        gateway="",
        device=0,
        network=network.uuid,
    )
    outer = inner._replace(
        id="public", mac=_PUBLIC_MAC, segment="public", traffic="Public", address=address, device=2, network=""
    )
    outside = PublicAddress("address", address, 32, "", _PUBLIC_MAC, source_nat=False)
    return ApplianceFacts("trial", "trial", (inner, outer), (outside,), (facts,))
