"""The provider ``SecurityGroupProvider``: groups of guests that guard each guest's own port.

It has no appliance: every host filters the ports of its own guests, as its target's facts say (``drivers.security``).
"""

from __future__ import annotations

from drivers.network.without_appliance import WithoutAppliance
from drivers.protocol import Capabilities

_CAPABILITIES: Capabilities = {"SecurityGroup": {}}


class SecurityGroupProvider(WithoutAppliance):
    """Security groups by the packet filters of hosts."""

    name = "SecurityGroupProvider"
    kind = "security_groups"
    capabilities: Capabilities = _CAPABILITIES
