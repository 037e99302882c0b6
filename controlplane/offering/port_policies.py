"""What guests may do at their ports beyond what is held of everyone: details of a network offering.

The names are CloudStack's, which took them from port groups of vSphere: ``promiscuousMode`` (a guest sees every frame
on its host's part of the network), ``macAddressChanges`` and ``forgedTransmits`` (a guest may send from other MACs, and
so with any address), ``macLearning``.
"""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.errors import BadParameter
from controlplane.offering.create_service_offering import checked_details

PROMISCUOUS, MAC_CHANGES, FORGED, LEARNING = "promiscuousMode", "macAddressChanges", "forgedTransmits", "macLearning"


def checked(value: dict[str, str]) -> dict[str, str]:
    """Accept the details of a network offering.

    :raises BadParameter: one of the policies is neither true nor false, or cannot be had.
    """
    for name in (PROMISCUOUS, MAC_CHANGES, FORGED, LEARNING):
        if value.get(name, "false").lower() not in ("true", "false"):
            raise BadParameter(f"Invalid parameter details: {name} is true or false, not {value[name]}.")
    if value.get(LEARNING, "true").lower() == "false":
        raise BadParameter(f"Invalid parameter details: {LEARNING} cannot be false: the bridges of hosts always learn.")
    return checked_details(value)


def allows(details: Mapping[str, str], *names: str) -> bool:
    """Tell whether an offering with these details allows one of these."""
    return any(details.get(name, "").lower() == "true" for name in names)
