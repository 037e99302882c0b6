"""The standard catalogue of offerings, by CloudStack's own names.

A network offering whose providers are not installed is there, disabled; a service that an installed provider lacks is
left out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.offering.disk_offerings import DiskOffering
from controlplane.offering.network_offerings import NetworkOffering
from controlplane.offering.service_offerings import GIB, ServiceOffering
from controlplane.offering.vpc_offerings import VpcOffering
from drivers import registry

VR, VPC_VR, SG, CONFIG, INTERNAL, NETSCALER = (
    "VirtualRouter",
    "VpcVirtualRouter",
    "SecurityGroupProvider",
    "ConfigDrive",
    "InternalLbVm",
    "Netscaler",
)
BASIC = ("Dhcp", "Dns", "UserData")
NAT = ("Firewall", "Gateway", "Lb", "PortForwarding", "SourceNat", "StaticNat", "Vpn")
ELASTIC = {"StaticNat": {"ElasticIp": "true", "AssociatePublicIP": "true"}, "Lb": {"ElasticLb": "true"}}
TIER = ("Dhcp", "Dns", "Gateway", "Lb", "NetworkACL", "PortForwarding", "SourceNat", "StaticNat", "UserData", "Vpn")


class Entry(NamedTuple):
    """One network offering of the catalogue; flags: v = VLAN given, r = ranges given, p = tier of a VPC.

    As in CloudStack, nothing leaves an isolated network of a default offering that no egress rule names.
    """

    name: str
    text: str
    guest: str
    services: dict[str, list[str]]
    flags: str = ""
    availability: str = "Optional"
    capabilities: Mapping[str, dict[str, str]] = MappingProxyType({})


def given_by(provider: str, *services: str) -> dict[str, list[str]]:
    """Return services that one provider gives."""
    return {service: [provider] for service in services}


NETWORK_OFFERINGS = (
    Entry(
        "DefaultSharedNetworkOfferingWithSGService",
        "Offering for Shared Security group enabled networks",
        "Shared",
        given_by(VR, *BASIC) | {"SecurityGroup": [SG]},
        "vr",
    ),
    Entry("DefaultSharedNetworkOffering", "Offering for Shared networks", "Shared", given_by(VR, *BASIC), "vr"),
    Entry(
        "DefaultIsolatedNetworkOfferingWithSourceNatService",
        "Offering for Isolated networks with Source Nat service enabled",
        "Isolated",
        given_by(VR, *BASIC, *NAT),
        "",
        "Required",
    ),
    Entry(
        "DefaultIsolatedNetworkOffering",
        "Offering for Isolated networks with no Source Nat service",
        "Isolated",
        given_by(VR, *BASIC),
        "vr",
    ),
    Entry(
        "DefaultSharedNetscalerEIPandELBNetworkOffering",
        "Offering for Shared networks with Elastic IP and Elastic LB capabilities",
        "Shared",
        given_by(VR, *BASIC) | {"SecurityGroup": [SG], "StaticNat": [NETSCALER], "Lb": [NETSCALER]},
        "vr",
        capabilities=ELASTIC,
    ),
    Entry(
        "DefaultSharedEIPandELBNetworkOffering",
        "Offering for Shared networks with Elastic IP and Elastic LB capabilities, without a device",
        "Shared",
        given_by(VR, *BASIC, "StaticNat", "Lb") | {"SecurityGroup": [SG]},
        "vr",
        capabilities=ELASTIC,
    ),
    Entry(
        "DefaultIsolatedNetworkOfferingForVpcNetworks",
        "Offering for Isolated VPC networks with Source Nat service enabled",
        "Isolated",
        given_by(VPC_VR, *TIER),
        "p",
    ),
    Entry(
        "DefaultIsolatedNetworkOfferingForVpcNetworksNoLB",
        "Offering for Isolated VPC networks with Source Nat service enabled and LB service disabled",
        "Isolated",
        given_by(VPC_VR, *(service for service in TIER if service != "Lb")),
        "p",
    ),
    Entry(
        "DefaultIsolatedNetworkOfferingForVpcNetworksWithInternalLB",
        "Offering for Isolated VPC networks with internal LB support",
        "Isolated",
        given_by(VPC_VR, *(service for service in TIER if service != "Lb")) | {"Lb": [INTERNAL]},
        "p",
    ),
    Entry(
        "QuickCloudNoServices",
        "Offering for QuickCloud with no services",
        "Shared",
        {},
        "vr",
    ),
    Entry("DefaultL2NetworkOffering", "Offering for L2 networks", "L2", {}),
    Entry("DefaultL2NetworkOfferingVlan", "Offering for L2 networks VLAN", "L2", {}, "v"),
    Entry(
        "DefaultL2NetworkOfferingConfigDrive",
        "Offering for L2 networks with config drive user data",
        "L2",
        given_by(CONFIG, "UserData"),
    ),
    Entry(
        "DefaultL2NetworkOfferingConfigDriveVlan",
        "Offering for L2 networks with config drive user data VLAN",
        "L2",
        given_by(CONFIG, "UserData"),
        "v",
    ),
)

VPC_OFFERINGS = (
    ("Default VPC offering", "Default VPC Offering", TIER, False),
    ("Redundant VPC offering", "Redundant VPC Offering", TIER, True),
    ("Default VPC  offering with Netscaler", "Default VPC Offering with Netscaler Lb", TIER, False),
)

SERVICE_OFFERINGS = (
    ("Cloud.Com-Small Instance", "Small Instance", 1, 500, 512, ""),
    ("Cloud.Com-Medium Instance", "Medium Instance", 1, 1000, 1024, ""),
    ("Cloud.Com-SoftwareRouter", "System Offering For Software Router", 1, 500, 512, "domainrouter"),
    ("Cloud.Com-ConsoleProxy", "System Offering For Console Proxy", 1, 500, 1024, "consoleproxy"),
    ("Cloud.Com-SecondaryStorage", "System Offering For Secondary Storage VM", 1, 500, 512, "secondarystoragevm"),
    ("Cloud.Com-InternalLBVm", "System Offering For Internal LB VM", 1, 256, 256, "internalloadbalancervm"),
    ("Cloud.Com-ElasticLBVm", "System Offering For Elastic LB VM", 1, 128, 128, "elasticloadbalancervm"),
)
DISK_OFFERINGS = (
    ("Cloud.com-Small", "Small", "Small Disk, 5 GB", 5),
    ("Cloud.com-Medium", "Medium", "Medium Disk, 20 GB", 20),
    ("Cloud.com-Large", "Large", "Large Disk, 100 GB", 100),
    ("Cloud.com-Custom", "Custom", "Custom Disk", 0),
)


def fill(session: Session) -> None:
    """Put in what is missing; what an admin changed or removed stays so."""
    _fill_machines(session)
    _fill_disks(session)
    session.flush()
    _fill_networks(session)
    _fill_vpcs(session)


def _fill_machines(session: Session) -> None:
    known = set(session.scalars(select(ServiceOffering.unique_name)))
    for unique, name, cpus, mhz, memory, system in SERVICE_OFFERINGS:
        if unique not in known:
            session.add(
                ServiceOffering(
                    name=name,
                    unique_name=unique,
                    display_text=name,
                    cpus=cpus,
                    mhz=mhz,
                    memory=memory,
                    system_vm_type=system,
                    default=bool(system),
                    offer_ha=bool(system),
                )
            )


def _fill_disks(session: Session) -> None:
    known = set(session.scalars(select(DiskOffering.unique_name)))
    for unique, name, text, size in DISK_OFFERINGS:
        if unique not in known:
            session.add(
                DiskOffering(name=name, unique_name=unique, display_text=text, size=size * GIB, customized=not size)
            )


def _fill_networks(session: Session) -> None:
    installed = registry.network_providers()
    rows = {row.unique_name: row for row in session.scalars(select(NetworkOffering))}
    for position, entry in enumerate(NETWORK_OFFERINGS):
        providers = {provider for names in entry.services.values() for provider in names}
        ready = providers <= set(installed)
        services = {
            service: names
            for service, names in entry.services.items()
            if all(name not in installed or service in installed[name].capabilities for name in names)
        }
        if entry.name in rows:
            _complete(rows[entry.name], services)
            continue
        session.add(
            NetworkOffering(
                name=entry.name,
                unique_name=entry.name,
                display_text=entry.text,
                guest_type=entry.guest,
                state="Enabled" if ready else "Disabled",
                availability=entry.availability,
                services=services,
                capabilities=dict(entry.capabilities),
                specify_vlan="v" in entry.flags,
                specify_ip_ranges="r" in entry.flags,
                for_vpc="p" in entry.flags,
                default=True,
                sort_key=position,
            )
        )


def _complete(row: NetworkOffering | VpcOffering, services: dict[str, list[str]]) -> None:
    """Give an offering the services that providers learned since; whoever has it is served them from now on."""
    if not row.removed and set(row.services) < set(services):
        row.services = services


def _fill_vpcs(session: Session) -> None:
    installed = registry.network_providers()
    rows = {row.unique_name: row for row in session.scalars(select(VpcOffering))}
    for name, text, services, redundant in VPC_OFFERINGS:
        given = given_by(VPC_VR, *services)
        given |= {"Lb": [NETSCALER if "Netscaler" in text else VPC_VR, INTERNAL]}
        given = {
            service: names
            for service, names in given.items()
            if all(who not in installed or service in installed[who].capabilities for who in names)
        }
        if name in rows:
            _complete(rows[name], given)
            continue
        ready = all(who in installed for names in given.values() for who in names)
        if redundant and ready:
            ready = installed[VPC_VR].capabilities["SourceNat"].get("RedundantRouter") == "true"
        session.add(
            VpcOffering(
                name=name,
                unique_name=name,
                display_text=text,
                state="Enabled" if ready else "Disabled",
                default=True,
                services=given,
                redundant=redundant,
            )
        )
