"""The provider ``Ovs``: guest networks whose frames go by the flows of Open vSwitch, and by nothing that it learnt.

It has no appliance of its own. That a network's ``Connectivity`` is from it makes the network's broadcast URI
``vs://N``, and each host's own target holds the switch: the flows follow from the host's segments and who lives on
them (``drivers.hypervisor.namespace``, ``systemvm.openflow``).
"""

from __future__ import annotations

from drivers.network.without_appliance import WithoutAppliance
from drivers.protocol import Capabilities

# N is the tag of IEEE 802.1Q between the hosts, so the physical network must isolate by VLAN.
_CAPABILITIES = {"Connectivity": {"SupportedIsolationMethods": "VLAN", "BroadcastScheme": "vs"}}


class Ovs(WithoutAppliance):
    """Connectivity by OpenFlow."""

    name = "Ovs"
    kind = "connectivity"
    capabilities: Capabilities = _CAPABILITIES
