"""Networks of type L2: a wire and nothing more. No router is on them, and no address of theirs is ours to give."""

from __future__ import annotations

from controlplane.api.command import Command
from controlplane.errors import BadParameter
from controlplane.network.networks import Network

L2 = "L2"
LACKS = (
    "gateway", "netmask", "startip", "endip", "routerip", "ip6gateway", "ip6cidr", "startipv6", "endipv6",
    "routeripv6", "sourcenatipaddress", "dns1", "dns2", "ip6dns1", "ip6dns2", "networkdomain", "publicmtu",
    "guestvmcidr",
)  # fmt: skip
"""The parameters of createNetwork and updateNetwork that are about what such a network has not."""


def refuse_changes(network: Network, asked: Command) -> None:
    """Refuse to change what the network has not, where it is L2.

    :raises BadParameter: names the first such parameter.
    """
    given = (name for name in LACKS if getattr(asked, name, None) is not None)
    if network.guest_type == L2 and (name := next(given, None)) is not None:
        raise BadParameter(
            f"Invalid parameter {name} value={getattr(asked, name)}: network {network.name} is L2, and has neither a "
            "router nor addresses of its own; leave it out."
        )
