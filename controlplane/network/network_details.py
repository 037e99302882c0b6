"""The details of networks and of load balancer rules; the latter's are settings that its provider carries out."""

from __future__ import annotations

from controlplane.api.context import Context
from controlplane.errors import BadParameter
from controlplane.identity.details import Detailed, detailed
from controlplane.network.balancer_trial import must_be_possible
from controlplane.network.load_balancers import TAGGABLE, LoadBalancer
from controlplane.network.networks import Network
from controlplane.offering.create_service_offering import checked_details

_HIDE_USAGE = "hideIpAddressUsage"


def tune(ctx: Context, rule: LoadBalancer, given: dict[str, str]) -> None:
    """Have the rule's provider carry out its settings as they are now.

    :raises BadParameter: it has no such setting, or not with this value or for this protocol.
    """
    del given
    must_be_possible(ctx.session, rule, "resourceid")
    ctx.touch(rule)


def describe(ctx: Context, network: Network, given: dict[str, str]) -> None:
    """Accept a network's details, which are its owner's notes but for one that usage records go by.

    :raises BadParameter: a name has other than letters and digits, or a switch is neither on nor off.
    """
    del ctx, network
    checked_details(given)
    if given.get(_HIDE_USAGE, "true") not in ("true", "false"):
        raise BadParameter(f"Invalid parameter details: {_HIDE_USAGE} must be true or false.")


detailed(Detailed(TAGGABLE, LoadBalancer, "settings", tune))
detailed(Detailed("Network", Network, "details", describe))
