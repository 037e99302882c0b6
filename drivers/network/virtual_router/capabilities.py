"""What the virtual router can do, in the words of listSupportedNetworkServices and the network offerings."""

from __future__ import annotations

import json

from drivers.network.virtual_router.balancing import ALGORITHMS, PROTOCOLS
from drivers.network.virtual_router.stickiness import METHODS


def _stickiness() -> str:
    """Return the stickiness methods as CloudStack's clients expect them: JSON inside of the value."""
    return json.dumps(
        [
            {
                "methodname": method,
                "paramlist": [
                    {
                        "paramname": parameter.name,
                        "required": False,
                        "isflag": parameter.flag,
                        "description": parameter.description,
                    }
                    for parameter in parameters
                ],
                "description": description,
            }
            for method, (description, parameters) in METHODS.items()
        ],
        separators=(",", ":"),
    )


CAPABILITIES: dict[str, dict[str, str]] = {
    "Dhcp": {"DhcpAccrossMultipleSubnets": "false", "ExtraDhcpOptions": "true"},
    "Dns": {"AllowDnsSuffixModification": "true"},
    "Firewall": {
        "TrafficStatistics": "per public ip",
        "SupportedProtocols": "tcp,udp,icmp,all",
        "SupportedEgressProtocols": "tcp,udp,icmp,all",
        "SupportedTrafficDirection": "ingress,egress",
        "MultipleIps": "true",
    },
    "Gateway": {},
    "Lb": {
        "SupportedLBAlgorithms": ",".join(ALGORITHMS),
        "SupportedLBIsolation": "dedicated",
        "SupportedProtocols": ",".join(PROTOCOLS),
        "SupportedStickinessMethods": _stickiness(),
        "LbSchemes": "Public",
        "ElasticLb": "true",
        "HealthCheckPolicy": "true",
        "SslTermination": "true",
    },
    "PortForwarding": {},
    "SourceNat": {"SupportedSourceNatTypes": "peraccount", "RedundantRouter": "true"},
    "StaticNat": {"ElasticIp": "true", "AssociatePublicIP": "true"},
    "UserData": {},
    "Vpn": {"SupportedVpnProtocols": "ikev2,ipsec,wireguard", "VpnTypes": "removeaccessvpn,s2svpn"},
}
"""Of the router of an isolated or a shared network."""

_ELASTIC = ("ElasticIp", "AssociatePublicIP", "ElasticLb")

OF_VPCS: dict[str, dict[str, str]] = {
    service: {name: value for name, value in choices.items() if name not in _ELASTIC}
    for service, choices in CAPABILITIES.items()
    if service != "Firewall"
} | {"NetworkACL": {"SupportedProtocols": "tcp,udp,icmp,all"}}
"""Of the router of a VPC: what a firewall does elsewhere, network ACLs do."""

OF_INTERNAL_BALANCERS: dict[str, dict[str, str]] = {
    "Lb": OF_VPCS["Lb"] | {"LbSchemes": "Internal", "SupportedProtocols": "tcp"}
}
"""Of the load balancers between tiers."""
