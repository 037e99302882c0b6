"""Network modes: whether the guests of an offering's networks are translated, and who learns where they are."""

from __future__ import annotations

from collections.abc import Collection

from controlplane.errors import BadParameter

NATTED, ROUTED = MODES = ("NATTED", "ROUTED")
STATIC, DYNAMIC = ROUTINGS = ("Static", "Dynamic")
"""The operator routes each network to its router by hand; or the router tells the operator's by BGP."""
TRANSLATING = ("SourceNat", "StaticNat", "PortForwarding", "Lb", "Vpn")
"""Services that need public addresses of their own, which routed networks do without."""


def routing_of(mode: str | None, routing: str | None, *, specify_number: bool, protocol: str) -> str | None:
    """Return how networks of an offering are routed; None where they are translated.

    :param specify_number: whoever makes a network names its AS number.
    :raises BadParameter: the parameters contradict each other.
    """
    if mode != ROUTED:
        if routing is not None:
            raise BadParameter(f"Invalid parameter routingmode value={routing}: it goes with networkmode=ROUTED.")
        if specify_number:
            raise BadParameter("Invalid parameter specifyasnumber value=true: it goes with routingmode=Dynamic.")
        return None
    if protocol == "IPv6":
        raise BadParameter(
            "Invalid parameter networkmode value=ROUTED: it is about IPv4, and IPv6 is never translated; use DualStack."
        )
    if specify_number and routing != DYNAMIC:
        raise BadParameter("Invalid parameter specifyasnumber value=true: it goes with routingmode=Dynamic.")
    return routing or STATIC


def refuse_translation(services: Collection[str]) -> None:
    """Refuse services that a routed network cannot have.

    :raises BadParameter: the sentence names the first.
    """
    for service in TRANSLATING:
        if service in services:
            raise BadParameter(
                f"Invalid parameter supportedservices: networks with networkmode=ROUTED do not have {service}, as "
                "nothing is translated there: leave it out."
            )
