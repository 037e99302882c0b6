"""The provider ``ConfigDrive``: what guests are told about themselves is on a drive that their host attaches.

It has no appliance. Where a network's ``UserData`` is from it, the guests' hosts make the drives
(:mod:`drivers.config_drive`); where ``Dhcp`` and ``Dns`` are, too, the drive says the guests' addresses and resolvers.
"""

from __future__ import annotations

from drivers.network.by_hosts import ByHosts
from drivers.protocol import Capabilities

_CAPABILITIES: dict[str, dict[str, str]] = {"UserData": {}, "Dhcp": {}, "Dns": {}}


class ConfigDrive(ByHosts):
    """User data, addresses and resolvers by a drive."""

    name = "ConfigDrive"
    kind = "config-drive"
    capabilities: Capabilities = _CAPABILITIES
