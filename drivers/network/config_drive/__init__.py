"""The provider ``ConfigDrive``: what guests are told about themselves is on a drive that their host attaches.

It has no appliance. Where a network's ``UserData`` is from it, the guests' hosts make the drives
(:mod:`drivers.config_drive`); where ``Dhcp`` and ``Dns`` are, too, the drive says the guests' addresses and resolvers.
"""

from __future__ import annotations

from drivers.network.without_appliance import WithoutAppliance
from drivers.protocol import Capabilities

_CAPABILITIES: Capabilities = {"UserData": {}, "Dhcp": {}, "Dns": {}}


class ConfigDrive(WithoutAppliance):
    """User data, addresses and resolvers by a drive."""

    name = "ConfigDrive"
    kind = "config-drive"
    capabilities: Capabilities = _CAPABILITIES
